import { beforeEach, expect, test } from "@jest/globals";
import { settledTasks } from "../../test/fakes/fake-clock.ts";
import { type Unit, UnitList } from "../domain/unit-list.ts";
import type { Staging } from "../storage/backend.ts";
import { StagingCheck } from "./staging-check.ts";
import { StagingSession, type StoredUnit } from "./staging-session.ts";

const block = 4096;
/** Each a block of data, and a hole after it. */
const units = new UnitList(
  Array.from(
    { length: 4 },
    (_, index): Unit => [
      [2 * index * block, block, 1],
      [(2 * index + 1) * block, block, 0],
    ],
  ),
);

/** What is read, and in which order; a unit's digest is its offset, as text. */
let read: number[];
let steps: string[];
/** What reading a unit waits for. */
let gate: (unit: number) => Promise<void>;
let found: Set<number>;
let isSealed: boolean;
beforeEach(() => {
  isSealed = false;
  read = [];
  steps = [];
  gate = async () => undefined;
  found = new Set();
});

function check(stored: readonly StoredUnit[]): StagingCheck {
  const staging: Staging = {
    sizeBytes: 8 * block,
    isSealed,
    fd: -1,
    write: async () => void steps.push("write"),
    punch: async ({ offset }) => void steps.push(`punch ${offset / block}`),
    writeOut: async () => undefined,
    sync: async () => void steps.push("sync"),
    digest: async ([extent]) => {
      const unit = (extent?.offset ?? 0) / (2 * block);
      read.push(unit);
      await gate(unit);
      return { digest: `digest ${unit}`, verified: "memory" };
    },
    close: async () => void steps.push("close"),
  };
  return new StagingCheck(new StagingSession(staging, units), { stored, found });
}

const asRecorded = (unit: number): StoredUnit => ({ unit, digest: `digest ${unit}`, verified: "memory" });

test("what reads back as it was recorded is right, and its holes are punched once more, durably", async () => {
  const one = check([asRecorded(0), asRecorded(2)]);
  await one.done;
  expect(one.result).toEqual({ kind: "right" });
  expect([read, steps]).toEqual([
    [0, 2],
    ["punch 1", "punch 5", "sync"],
  ]);
  expect([...found]).toEqual([0, 2]);
});

test("what was sealed, by a process that was killed before it could say so, is only read", async () => {
  isSealed = true;
  const one = check([asRecorded(0)]);
  await one.done;
  expect(one.result).toEqual({ kind: "right" });
  expect([read, steps]).toEqual([[0], ["sync"]]);
});

test.each<[string, StoredUnit]>([
  ["reads back as something else", { unit: 1, digest: "another", verified: "media" }],
  ["was never read back", { unit: 1, digest: "", verified: "none" }],
])("what %s is lost", async (_what, unit) => {
  const one = check([unit]);
  await one.done;
  expect(one.result).toEqual({ kind: "lost" });
  expect([...found]).toEqual([]);
});

test("what cannot be read fails the check, which says so when nothing of it is under way any more", async () => {
  const slow = Promise.withResolvers<void>();
  const broken = new Error("cannot be read");
  gate = (unit) => (unit === 0 ? slow.promise : Promise.reject(broken));
  const one = check([asRecorded(0), asRecorded(1)]);
  await settledTasks();
  expect(one.result).toBeUndefined();
  slow.resolve();
  await one.done;
  expect(one.result).toEqual({ kind: "failed", error: broken });
});

test("several are read at once; one that is stopped is closed when those have ended, and the next goes on", async () => {
  const slow = Promise.withResolvers<void>();
  gate = () => slow.promise;
  const first = check([0, 1].map(asRecorded));
  expect(read).toEqual([0, 1]);
  const stopped = first.stop();
  await settledTasks();
  expect(steps).toEqual([]);
  slow.resolve();
  await stopped;
  expect(steps.at(-1)).toBe("close");
  expect([...found]).toEqual([0, 1]);
  gate = async () => undefined;
  const second = check([0, 1, 2, 3].map(asRecorded));
  await second.done;
  expect(second.result).toEqual({ kind: "right" });
  expect(read).toEqual([0, 1, 2, 3]);
});

test("one that is stopped begins nothing more", async () => {
  const many = Array.from({ length: 40 }, (_, index) => asRecorded(index % 4));
  const slow = Promise.withResolvers<void>();
  gate = () => slow.promise;
  const one = check(many);
  const begun = read.length;
  const stopped = one.stop();
  slow.resolve();
  await stopped;
  expect(read).toHaveLength(begun);
  expect(one.result).toMatchObject({ kind: "failed", error: { code: "TermLost" } });
});
