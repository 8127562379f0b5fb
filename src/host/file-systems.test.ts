import { expect, test } from "@jest/globals";
import { silentLog } from "../base/log.ts";
import type { Commands, Outcome } from "./command.ts";
import {
  checkFileSystem,
  growMounted,
  growUnmounted,
  isFileSystemType,
  makeFileSystem,
  mountOptions,
} from "./file-systems.ts";

/** Answers every tool with what is given for it, and remembers what was run. */
function scripted(answers: Readonly<Record<string, Partial<Outcome>>> = {}) {
  const ran: string[] = [];
  const answer = (words: readonly string[]): Outcome => {
    ran.push(words.join(" "));
    return { status: 0, stdout: "", stderr: "", ...answers[words[0] ?? ""] };
  };
  const commands: Commands = {
    attempt: async (words) => answer(words),
    async run(words) {
      const { status, stdout, stderr } = answer(words);
      if (status !== 0) throw new Error(stderr);
      return stdout;
    },
  };
  return { ran, commands, tools: { commands, log: silentLog } };
}

test.each([
  // type, flags, read-only, for mount -o
  ["ext4", "", false, ""],
  ["ext4", "noatime discard", false, "noatime,discard"],
  ["ext4", "", true, "ro"],
  ["ext4", "ro", true, "ro"],
  ["xfs", "", false, "nouuid"],
  ["xfs", "nouuid noatime", false, "nouuid,noatime"],
  ["xfs", "noatime", true, "ro,nouuid,noatime"],
  ["btrfs", "compress=zstd", false, "compress=zstd"],
] as const)("%s with flags [%s], read-only %s, is mounted with [%s]", (type, flags, isReadOnly, expected) => {
  expect(mountOptions({ type, flags: flags.split(" ").filter(Boolean), isReadOnly })).toBe(expected);
});

test.each([
  ["ext4", "mkfs.ext4 -q -F -m0 /dev/loop0"],
  ["xfs", "mkfs.xfs -q -f /dev/loop0"],
  ["btrfs", "mkfs.btrfs -q -f /dev/loop0"],
] as const)("%s is made by %s", async (type, expected) => {
  const { ran, commands } = scripted();
  await makeFileSystem(commands, "/dev/loop0", type);
  expect(ran).toEqual([expected]);
});

test.each([
  // status of e2fsck, what follows
  [0, "mounted"],
  [1, "mounted"],
  [2, "mounted"],
  [3, "mounted"],
  [4, "refused"],
  [8, "refused"],
  [12, "refused"],
  [128, "refused"],
])("an ext4 whose check ends with status %s is %s", async (status, expected) => {
  const { tools } = scripted({ e2fsck: { status, stdout: "what was found" } });
  const outcome = await checkFileSystem(tools, "/dev/loop0", { type: "ext4" }).then(
    () => "mounted",
    (error: Error) => (/needs a repair by hand/.test(error.message) ? "refused" : error),
  );
  expect(outcome).toBe(expected);
});

const inUse = { status: 8, stdout: "/dev/loop0 is in use.\n", stderr: "e2fsck: Cannot continue, aborting.\n" };

test("an ext4 that is still mounted in another mount namespace is in order, and not checked from below", async () => {
  const { tools } = scripted({ e2fsck: inUse });
  await checkFileSystem(tools, "/dev/loop0", { type: "ext4" });
});

test("but it does not grow as if it were mounted nowhere", async () => {
  const { ran, tools } = scripted({ e2fsck: inUse });
  await expect(growUnmounted(tools, "/dev/loop0", "ext4")).rejects.toThrow("in use elsewhere");
  expect(ran).toHaveLength(1);
});

test.each(["xfs", "btrfs"] as const)("%s is not checked: it does so itself", async (type) => {
  const { ran, tools } = scripted();
  await checkFileSystem(tools, "/dev/loop0", { type });
  expect(ran).toEqual([]);
});

test.each([
  ["ext4", "resize2fs /dev/loop0"],
  ["xfs", "xfs_growfs -d /mnt/a"],
  ["btrfs", "btrfs filesystem resize max /mnt/a"],
] as const)("a mounted %s is grown by %s", async (type, expected) => {
  const { ran, commands } = scripted();
  expect(await growMounted(commands, { device: "/dev/loop0", path: "/mnt/a", type })).toEqual({ kind: "done" });
  expect(ran).toEqual([expected]);
});

test("an ext4 that may not grow while it is mounted is no failure", async () => {
  const stderr = "resize2fs 1.47.0 (5-Feb-2023)\nresize2fs: Permission denied to resize filesystem\n";
  const { commands } = scripted({ resize2fs: { status: 1, stderr } });
  const place = { device: "/dev/loop0", path: "/mnt/a", type: "ext4" as const };
  expect(await growMounted(commands, place)).toMatchObject({ kind: "refused" });
});

test("any other failure to grow is one", async () => {
  const { commands } = scripted({ resize2fs: { status: 1, stderr: "resize2fs: No space left on device" } });
  const place = { device: "/dev/loop0", path: "/mnt/a", type: "ext4" as const };
  await expect(growMounted(commands, place)).rejects.toThrow("No space left on device");
});

test("an ext4 that is not mounted is checked as a whole before it grows", async () => {
  const { ran, tools } = scripted({ e2fsck: { status: 1 } });
  await growUnmounted(tools, "/dev/loop0", "ext4");
  expect(ran).toEqual(["e2fsck -p -f /dev/loop0", "resize2fs /dev/loop0"]);
});

test("and does not grow when that finds what needs a person", async () => {
  const { ran, tools } = scripted({ e2fsck: { status: 4 } });
  await expect(growUnmounted(tools, "/dev/loop0", "ext4")).rejects.toThrow("needs a repair by hand");
  expect(ran).toEqual(["e2fsck -p -f /dev/loop0"]);
});

test.each(["xfs", "btrfs"] as const)("%s does not grow unless it is mounted", async (type) => {
  const { ran, tools } = scripted();
  await expect(growUnmounted(tools, "/dev/loop0", type)).rejects.toThrow("only while it is mounted");
  expect(ran).toEqual([]);
});

test.each([
  ["ext4", true],
  ["xfs", true],
  ["btrfs", true],
  ["ext3", false],
  ["", false],
  [undefined, false],
  [{}, false],
])("%p is a file system of ours: %s", (value, expected) => {
  expect(isFileSystemType(value)).toBe(expected);
});
