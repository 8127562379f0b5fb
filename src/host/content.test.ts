import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import type { Commands } from "./command.ts";
import { type Content, contentOf, readProbe } from "./content.ts";

const probe = ["blkid", "/dev/loop0"];
const known = (...lines: string[]) => ({ status: 0, stdout: `DEVNAME=/dev/loop0\n${lines.join("\n")}\n`, stderr: "" });

const probes: readonly (readonly [string, Parameters<typeof readProbe>[1], Content | undefined])[] = [
  [
    "a file system",
    known("UUID=a", "BLOCK_SIZE=4096", "TYPE=ext4", "USAGE=filesystem"),
    { kind: "fileSystem", type: "ext4" },
  ],
  ["one that is not of ours", known("TYPE=ntfs", "USAGE=filesystem"), { kind: "fileSystem", type: "ntfs" }],
  [
    "one with the rests of a partition table",
    known("TYPE=xfs", "USAGE=filesystem", "PTTYPE=dos"),
    { kind: "fileSystem", type: "xfs" },
  ],
  ["a partition table", known("PTUUID=a", "PTTYPE=gpt"), { kind: "other", what: "a partition table (gpt)" }],
  ["a physical volume", known("TYPE=LVM2_member", "USAGE=raid"), { kind: "other", what: "LVM2_member" }],
  ["an encrypted device", known("TYPE=crypto_LUKS", "USAGE=crypto"), { kind: "other", what: "crypto_LUKS" }],
  ["swap space", known("TYPE=swap", "USAGE=other"), { kind: "other", what: "swap" }],
  ["what has only a label", known("LABEL=a"), { kind: "other", what: "something that has no file system" }],
  [
    "several at once",
    { status: 8, stdout: "", stderr: "ambivalent result" },
    { kind: "other", what: "the marks of several file systems at once (wipefs shows them)" },
  ],
  ["nothing known", { status: 2, stdout: "", stderr: "" }, undefined],
];

test.each(probes)("%s is told", (_, outcome, expected) => {
  expect(readProbe(probe, outcome)).toEqual(expected);
});

test.each([1, 4, 16, 127])("status %s tells nothing, and is a failure", (status) => {
  expect(() => readProbe(probe, { status, stdout: "", stderr: "so it is" })).toThrow("so it is");
});

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "longshore-content-"));
});
afterAll(async () => {
  await rm(folder, { recursive: true });
});

/** Of a device (here a file) in which no tool finds anything. */
async function contentOfUnknown(bytes: Uint8Array, sizeBytes = bytes.length): Promise<Content> {
  const path = join(folder, "device");
  await writeFile(path, bytes);
  const outcome = { status: 2, stdout: "", stderr: "" };
  const commands: Commands = { attempt: async () => outcome, run: async () => "" };
  return contentOf(commands, { path, number: "7:0", isReadOnly: false, sizeBytes });
}

function withByteAt(length: number, position: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes[position] = 1;
  return bytes;
}

const mebibyte = 2 ** 20;

test.each([
  // size, where the only byte is that is not zero, what that is
  [4 * mebibyte, undefined, "blank"],
  [4096, undefined, "blank"],
  [4 * mebibyte, 0, "other"],
  [4 * mebibyte, mebibyte - 1, "other"],
  [4 * mebibyte, 4 * mebibyte - 1, "other"],
  [4 * mebibyte, 3 * mebibyte, "other"],
  [4096, 4095, "other"],
])("%s bytes, of which the one at %s is not zero and nothing is known, are %s", async (length, position, expected) => {
  const bytes = position === undefined ? new Uint8Array(length) : withByteAt(length, position);
  expect((await contentOfUnknown(bytes)).kind).toBe(expected);
});

test("a device that cannot be read to its end is not blank", async () => {
  await expect(contentOfUnknown(new Uint8Array(4096), 8192)).rejects.toThrow("ends before its 8192 bytes");
});

test("a device that cannot be opened is not blank", async () => {
  const outcome = { status: 2, stdout: "", stderr: "" };
  const commands: Commands = { attempt: async () => outcome, run: async () => "" };
  const device = { path: join(folder, "missing"), number: "7:0", isReadOnly: false, sizeBytes: 4096 };
  await expect(contentOf(commands, device)).rejects.toThrow("cannot read");
});
