import { expect, test } from "@jest/globals";
import fc from "fast-check";
import type { Content } from "../host/content.ts";
import { fileSystemTypes } from "../host/file-systems.ts";
import { type DeviceFacts, type FileSystemPlan, planFileSystem } from "./node-file-system.ts";

const gibibyte = 2 ** 30;

function facts(content: string, changes: Partial<DeviceFacts> = {}): DeviceFacts {
  return {
    content: contentOf(content),
    sizeBytes: gibibyte,
    wanted: "ext4",
    isReadOnly: false,
    isClone: false,
    isHalfMade: false,
    ...changes,
  };
}

/** `blank`, a file system, or `other`. */
function contentOf(text: string): Content {
  if (text === "blank") return { kind: "blank" };
  return text === "other" ? { kind: "other", what: "swap" } : { kind: "fileSystem", type: text };
}

const show = (plan: FileSystemPlan) => (plan.kind === "refuse" ? `refuse: ${plan.why}` : `${plan.kind} ${plan.type}`);

/** What is there, what is special about it, what is done. */
const rows: readonly (readonly [string, Partial<DeviceFacts>, string])[] = [
  ["blank", {}, "format ext4"],
  ["blank", { wanted: undefined }, "format ext4"],
  ["blank", { wanted: "xfs" }, "format xfs"],
  ["blank", { wanted: "btrfs" }, "format btrfs"],
  ["ext4", {}, "use ext4"],
  ["xfs", { wanted: "xfs" }, "use xfs"],
  ["xfs", { wanted: undefined }, "use xfs"],
  ["btrfs", { wanted: undefined, isReadOnly: true }, "use btrfs"],
  [
    "xfs",
    {},
    "refuse: it holds xfs, and ext4 was asked for; make the claim anew in a class that names xfs, or none (csi.",
  ],
  ["ext3", {}, "refuse: it holds ext3, and ext4 was asked for"],
  ["ntfs", { wanted: undefined }, "refuse: it holds ntfs, which this driver does not mount; use it as a block volume"],
  ["other", {}, "refuse: it holds swap, which is not touched"],
  ["other", { wanted: undefined }, "refuse: it holds swap, which is not touched"],
  // A clone is never formatted, and needs no room of its own.
  ["blank", { isClone: true }, "refuse: it is a clone, which is never formatted"],
  ["other", { isClone: true }, "refuse: it holds swap"],
  ["xfs", { isClone: true, wanted: "xfs" }, "use xfs"],
  ["xfs", { isClone: true, wanted: "xfs", sizeBytes: 4096 }, "use xfs"],
  [
    "blank",
    { isReadOnly: true },
    "refuse: it has no file system yet, and is to be mounted for reading only; mount it for writing first",
  ],
  // What was interrupted is done again, whatever it looks like; unless something else forbids it.
  ["other", { isHalfMade: true }, "format ext4"],
  ["ext4", { isHalfMade: true }, "format ext4"],
  ["xfs", { isHalfMade: true }, "format ext4"],
  ["blank", { isHalfMade: true, wanted: "xfs" }, "format xfs"],
  ["ext4", { isHalfMade: true, isReadOnly: true }, "refuse: it has no file system yet"],
  ["ext4", { isHalfMade: true, isClone: true }, "refuse: it is a clone"],
  ["blank", { wanted: "xfs", sizeBytes: 300 * 2 ** 20 }, "format xfs"],
  [
    "blank",
    { wanted: "xfs", sizeBytes: 314_568_704 },
    "refuse: xfs needs at least 300 MiB (314572800 bytes), and it has 314568704; expand it, or make the claim anew",
  ],
  ["blank", { wanted: "btrfs", sizeBytes: 256 * 2 ** 20 }, "format btrfs"],
  ["blank", { wanted: "btrfs", sizeBytes: 2 ** 27 }, "refuse: btrfs needs at least 256 MiB (268435456 bytes)"],
  ["blank", { sizeBytes: 8 * 2 ** 20 }, "format ext4"],
  ["blank", { sizeBytes: 2 ** 22 }, "refuse: ext4 needs at least 8 MiB (8388608 bytes), and it has 4194304; expand it"],
];

test.each(rows)("on %s, with %j: %s", (content, changes, expected) => {
  expect(show(planFileSystem(facts(content, changes))).slice(0, expected.length)).toBe(expected);
});

test("only what is blank, or was being formatted, is ever formatted, and no clone", () => {
  const content = fc.constantFrom("blank", "other", "ext4", "xfs", "btrfs", "ext3", "vfat");
  const wanted = fc.constantFrom(undefined, ...fileSystemTypes);
  const flags = { isReadOnly: fc.boolean(), isClone: fc.boolean(), isHalfMade: fc.boolean() };
  fc.assert(
    fc.property(content, fc.record({ ...flags, wanted, sizeBytes: fc.nat(2 ** 31 - 1) }), (there, changes) => {
      const plan = planFileSystem(facts(there, changes));
      if (plan.kind !== "format") return;
      expect(changes).toMatchObject({ isClone: false, isReadOnly: false });
      expect(there === "blank" || changes.isHalfMade).toBe(true);
    }),
  );
});
