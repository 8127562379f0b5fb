import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import type { Commands, Outcome } from "./command.ts";
import { HostError } from "./host-error.ts";
import type { Device } from "./loop-devices.ts";
import { openMounts } from "./mounts.ts";

const device: Device = { path: "/dev/loop7", number: "7:7", isReadOnly: false, sizeBytes: 2 ** 30 };
const good: Outcome = { status: 0, stdout: "", stderr: "" };
const exists: Outcome = { status: 32, stdout: "", stderr: "mount: /a: mount(2) system call failed: File exists.\n" };
const btrfs = { type: "btrfs", flags: ["noatime"], isReadOnly: false } as const;

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "longshore-mounts-"));
});
afterEach(async () => {
  await rm(folder, { recursive: true });
});

/** Answers one tool after the other, and remembers what was run. */
function scripted(...answers: readonly Outcome[]) {
  const ran: string[] = [];
  const attempt: Commands["attempt"] = async (words) => {
    ran.push(words.join(" "));
    return answers[ran.length - 1] ?? good;
  };
  const run: Commands["run"] = async (words, timeoutMs) => {
    const { status, stdout, stderr } = await attempt(words, timeoutMs);
    if (status !== 0) throw new HostError(stderr);
    return stdout;
  };
  const commands: Commands = { attempt, run };
  return { ran, mounts: openMounts(commands, join(folder, "private")) };
}

test("a file system is mounted with its options, at a folder that is made", async () => {
  const { ran, mounts } = scripted();
  const path = join(folder, "a", "b");
  await mounts.mount(device, path, { type: "xfs", flags: [], isReadOnly: true });
  await mounts.mount(device, path, { type: "ext4", flags: [], isReadOnly: false });
  expect(ran).toEqual([`mount -t xfs -o ro,nouuid /dev/loop7 ${path}`, `mount -t ext4 /dev/loop7 ${path}`]);
});

test("a btrfs that the kernel takes for one it remembers is mounted once that is forgotten", async () => {
  const { ran, mounts } = scripted(exists, good, good);
  const path = join(folder, "a");
  await mounts.mount(device, path, btrfs);
  const mount = `mount -t btrfs -o noatime /dev/loop7 ${path}`;
  expect(ran).toEqual([mount, "btrfs device scan --forget", mount]);
});

test("one that it takes for another that is mounted is told as what it is", async () => {
  const { mounts } = scripted(exists, good, exists);
  await expect(mounts.mount(device, join(folder, "a"), btrfs)).rejects.toThrow("another btrfs with the same UUID");
});

test("a bind for reading only that fails keeps no mount of its own, which would hold the file system", async () => {
  const target = join(folder, "target");
  const { ran, mounts } = scripted(good, good, { status: 32, stdout: "", stderr: "mount point does not exist" });
  await expect(mounts.bind("/source", target, { place: "folder", isReadOnly: true })).rejects.toThrow("does not exist");
  expect(ran).toHaveLength(3);
  expect(await readdir(join(folder, "private"))).toEqual([]);
});

test("any other failure is told as it is, at once", async () => {
  const { ran, mounts } = scripted({ status: 32, stdout: "", stderr: "wrong fs type" });
  await expect(mounts.mount(device, join(folder, "a"), btrfs)).rejects.toThrow("wrong fs type");
  expect(ran).toHaveLength(1);
});
