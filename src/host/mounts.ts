// What is mounted where, and the mounts of volumes: made, bound at other places, taken away. Nothing is ever taken away lazily, for then
// nobody could tell who still writes, and nothing is ever deleted but empty places for mounts.
import { hash } from "node:crypto";
import * as fs from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { renderDevice } from "../base/device-number.ts";
import { type Mount, parseMountTable, topmostAt } from "../base/mount-table.ts";
import { errnoOf, unlessErrno } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";
import { type Commands, failed, type Outcome, quickMsMax, workMsMax } from "./command.ts";
import { type MountHow, mountOptions } from "./file-systems.ts";
import { attempt, HostError } from "./host-error.ts";
import { backingFile, type Device } from "./loop-devices.ts";

export interface Mounted {
  readonly path: string;
  /**
   * The number of the block device that the file system lies on or, for a device node that is bound here, of that device. `undefined`
   * for what has none.
   */
  readonly device: string | undefined;
  /** Of the file system; `block` for a device node. */
  readonly type: string;
  /** What was mounted, for people. */
  readonly source: string;
  readonly isReadOnly: boolean;
  /** Why it is of no use any more, for people. */
  readonly broken: string | undefined;
}

export interface BindHow {
  readonly place: "folder" | "file";
  readonly isReadOnly: boolean;
}

export interface Mounts {
  at(path: string): Promise<Mounted | undefined>;
  of(device: Device): Promise<string[]>;
  mount(device: Device, path: string, how: MountHow): Promise<void>;
  unmount(path: string): Promise<void>;
  bind(source: string, target: string, how: BindHow): Promise<void>;
  unbind(target: string): Promise<void>;
}

/** More mounts than this one above the other were not made by us. */
const layersMax = 32;

/** `privateFolder` is for mounts that only this process sees, for a moment. */
export function openMounts(commands: Commands, privateFolder: string): Mounts {
  const unmount = (path: string) => unmountAll(commands, path);

  async function unbind(target: string): Promise<void> {
    await unmount(target);
    await removePlace(target);
  }

  const viaFor = (target: string) => join(privateFolder, hash("sha256", target).slice(0, 32));

  return {
    async at(path) {
      const entry = topmostAt(await mountTable(), await resolved(path));
      return entry === undefined ? undefined : seen(entry);
    },
    of: mountsOf,
    async mount(device, path, how) {
      await makePlace(path, "folder");
      const options = mountOptions(how);
      const words = ["mount", "-t", how.type, ...(options === "" ? [] : ["-o", options]), device.path, path];
      let outcome = await commands.attempt(words, workMsMax);
      if (how.type === "btrfs" && isTakenForAnother(outcome)) {
        // Older kernels remember a btrfs that is not mounted any more, and refuse another one that has its UUID and is older: a clone.
        await commands.run(["btrfs", "device", "scan", "--forget"], quickMsMax);
        outcome = await commands.attempt(words, workMsMax);
        if (isTakenForAnother(outcome)) throw twoOfOneUuid(failed(words, outcome));
      }
      if (outcome.status !== 0) throw failed(words, outcome);
    },
    unmount,
    async bind(source, target, { place, isReadOnly }) {
      if (!isReadOnly) {
        await makePlace(target, place);
        await commands.run(["mount", "--bind", source, target], quickMsMax);
        return;
      }
      // A mount that is made read-only after it was made is so in this mount namespace only, and the kubelet's keeps its copy as it was.
      // One that is bound from a read-only mount is read-only from its first moment, everywhere.
      const via = viaFor(target);
      await unbind(via);
      try {
        await makePlace(via, place);
        await commands.run(["mount", "--bind", source, via], quickMsMax);
        await commands.run(["mount", "-o", "remount,bind,ro", via], quickMsMax);
        await makePlace(target, place);
        await commands.run(["mount", "--bind", via, target], quickMsMax);
      } finally {
        // Also after a failure: a kubelet that is told of one need not come back, and this would keep the file system in use.
        await unbind(via);
      }
    },
    async unbind(target) {
      // What a bind that was killed may have left would keep the file system in use.
      await unbind(viaFor(target));
      await unbind(target);
    },
  };
}

/** The table of mounts, as it is now. */
export async function mountTable(): Promise<Mount[]> {
  return parseMountTable(await attempt("read the mounts", () => fs.readFile("/proc/self/mountinfo", "utf8")));
}

/** As it stands in the table: without symbolic links. What is mounted at the path itself is not asked, for it may be broken. */
async function resolved(path: string): Promise<string> {
  const folder = await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.realpath(dirname(path)));
  return folder === undefined ? path : join(folder, basename(path));
}

async function seen(entry: Mount): Promise<Mounted> {
  const { path, source, isReadOnly } = entry;
  const node = await nodeBoundAt(entry);
  if (node !== undefined) return { path, device: node, type: "block", source, isReadOnly, broken: undefined };
  const device = await deviceBelow(entry);
  const broken = device === undefined ? undefined : await flawOf(path, device);
  return { path, device, type: entry.type, source, isReadOnly, broken };
}

/** Where device nodes lie. Other file systems are not asked for what is bound of them: they may be somebody's, and not answer. */
const nodeFolders = ["devtmpfs", "tmpfs", "ramfs"];

async function nodeBoundAt({ path, root, type }: Mount): Promise<string | undefined> {
  if (root === "/" || !nodeFolders.includes(type)) return undefined;
  const found = await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.stat(path, { bigint: true }));
  return found?.isBlockDevice() ? renderDevice(found.rdev) : undefined;
}

/** A btrfs has a number of its own, and only its source tells where it lies. */
async function deviceBelow({ device, source, type }: Mount): Promise<string | undefined> {
  if (!device.startsWith("0:")) return device;
  if (type !== "btrfs") return undefined;
  const found = await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.stat(source, { bigint: true }));
  return found?.isBlockDevice() ? renderDevice(found.rdev) : undefined;
}

/** Only file systems on loop devices are looked at: they are on this node, and answer. */
async function flawOf(path: string, device: string): Promise<string | undefined> {
  const image = await backingFile(device);
  if (image === undefined) return undefined;
  if (image.endsWith(" (deleted)")) return `its image ${image.replace(/ \(deleted\)$/, "")} was deleted`;
  try {
    await fs.stat(path);
    return undefined;
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === undefined) throw error;
    return `it answers ${errno}`;
  }
}

async function mountsOf({ path: device, number }: Device): Promise<string[]> {
  const isOn = (entry: Mount) =>
    entry.device === number ||
    (entry.type === "btrfs" && entry.source === device) ||
    (nodeFolders.includes(entry.type) && entry.root === `/${basename(device)}`);
  return (await mountTable()).filter(isOn).map(({ path }) => path);
}

async function unmountAll(commands: Commands, path: string): Promise<void> {
  const place = await resolved(path);
  for (let layer = 0; layer < layersMax; layer++) {
    if (topmostAt(await mountTable(), place) === undefined) return;
    const words = ["umount", place];
    const outcome = await commands.attempt(words, workMsMax);
    if (outcome.status === 0) continue;
    const failure = failed(words, outcome);
    if (!/target is busy/.test(outcome.stderr)) throw failure;
    throw new LongshoreError("VolumeBusy", `${path} is still in use (or being snapshotted)`, { cause: failure });
  }
  throw new HostError(`more than ${layersMax} mounts lie on ${path}`);
}

async function makePlace(path: string, place: BindHow["place"]): Promise<void> {
  await attempt(`make ${path}`, async () => {
    if (place === "folder") {
      await fs.mkdir(path, { recursive: true, mode: 0o750 });
      return;
    }
    await fs.mkdir(dirname(path), { recursive: true, mode: 0o750 });
    const file = await fs.open(path, "a", 0o600);
    await file.close();
  });
}

/** Gone already is success. */
async function removePlace(path: string): Promise<void> {
  await attempt(`remove ${path}`, async () => {
    const found = await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.lstat(path));
    if (found === undefined) return;
    if (found.isDirectory() && (await unlessErrno(["ENOTEMPTY"], () => fs.rmdir(path).then(() => true)))) return;
    if (found.isFile() && found.size === 0) return await fs.unlink(path);
    throw new HostError(`${path}, where nothing is mounted, is not empty; it is left as it is`);
  });
}

function isTakenForAnother({ status, stderr }: Outcome): boolean {
  return status !== 0 && /File exists/.test(stderr);
}

function twoOfOneUuid(cause: HostError): HostError {
  const text =
    "another btrfs with the same UUID is mounted on this node, which kernels before 6.7 do not take: " +
    "there a clone cannot be used beside its origin, or beside another clone of it";
  return new HostError(text, { cause });
}
