// Who uses an image, as far as this process can see: the loop devices over it, and the file systems mounted from them,
// from their partitions, and from what is built on them. A mount in another mount namespace is not seen.

import { constants } from "node:fs";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { renderDevice } from "../base/device-number.ts";
import { type Mount, parseMountTable } from "../base/mount-table.ts";
import { errnoOf, unlessErrno } from "../base/system-error.ts";
import { loopBacking, releaseLease, takeReadLease } from "../native/file-calls.ts";

/** A loop device that is attached to the image. */
export interface Attachment {
  /** Such as `loop0`. */
  readonly name: string;
  readonly isWritable: boolean;
  /** Mounts of the device, its partitions, and the mapped devices above it. */
  readonly mounts: readonly Mount[];
}

/** The loop devices over the image at `path`; it is known by its inode, whatever name it was attached by. */
export async function attachmentsOf(path: string): Promise<Attachment[]> {
  const loops = (await namesIn("/sys/block")).filter((name) => name.startsWith("loop"));
  const attached: string[] = [];
  for (const name of loops) if (await isBackedBy(name, path)) attached.push(name);
  if (attached.length === 0) return [];
  const mounts = await mountsHere();
  const found: Attachment[] = [];
  for (const name of attached) {
    const devices = await devicesAbove(`/sys/block/${name}`);
    const onIt = await Promise.all(mounts.map((mount) => isOn(mount, devices)));
    const isWritable = (await text(`/sys/block/${name}/ro`)) !== "1";
    found.push({ name, isWritable, mounts: mounts.filter((_, index) => onIt[index]) });
  }
  return found;
}

/** Who has the image at `path` attached or open for writing, in words; `undefined` when nobody does, as far as can be told. */
export async function userOf(path: string): Promise<string | undefined> {
  const [attachment] = await attachmentsOf(path);
  if (attachment !== undefined) return `/dev/${attachment.name}`;
  return (await isOpenForWriting(path)) ? "a process that has its image open for writing" : undefined;
}

/** By a lease, which is had only while nobody has the file open for writing. Not every file system has leases. */
async function isOpenForWriting(path: string): Promise<boolean> {
  const image = await unlessErrno(["ENOENT"], () => fs.open(path, "r"));
  if (image === undefined) return false;
  try {
    const isFree = takeReadLease(image.fd);
    if (isFree) releaseLease(image.fd);
    return !isFree;
  } catch (error) {
    if (["EINVAL", "EACCES", "EPERM", "EOPNOTSUPP", "ENOLCK"].includes(errnoOf(error) ?? "")) return false;
    throw error;
  } finally {
    await image.close();
  }
}

/** All mounts that this process can see. */
export async function mountsHere(): Promise<Mount[]> {
  return parseMountTable(await fs.readFile("/proc/self/mountinfo", "utf8"));
}

/**
 * Opens the root of a mount for ioctls; `undefined` when it is not there any more, or hidden below another mount. An
 * open one keeps its file system from being unmounted.
 */
export async function openMount(mount: Mount): Promise<fs.FileHandle | undefined> {
  const flags = constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
  const handle = await unlessErrno(["ENOENT", "ENOTDIR", "EACCES", "ENXIO"], () => fs.open(mount.path, flags));
  if (handle === undefined) return undefined;
  let isMeant = false;
  try {
    isMeant = (await openFile(handle.fd)).mountId === mount.id;
  } finally {
    if (!isMeant) await handle.close();
  }
  return isMeant ? handle : undefined;
}

/** The file systems, by device number, that this process could be held up on: it has a file open for writing there. */
export async function writtenByThisProcess(): Promise<Map<string, string>> {
  const devices = new Map((await mountsHere()).map((mount) => [mount.id, mount.device]));
  const written = new Map<string, string>();
  for (const fd of await namesIn("/proc/self/fd")) {
    // The descriptor that lists the folder is gone by now.
    const open = await unlessErrno(["ENOENT"], () => openFile(Number(fd)));
    const device = open?.isWritable ? devices.get(open.mountId) : undefined;
    if (device === undefined) continue;
    const name = await unlessErrno(["ENOENT"], () => fs.readlink(`/proc/self/fd/${fd}`));
    if (name !== undefined) written.set(device, name);
  }
  return written;
}

/** The device number of the file system that holds `path`. */
export async function deviceHolding(path: string): Promise<string | undefined> {
  const handle = await fs.open(path, "r");
  try {
    const { mountId } = await openFile(handle.fd);
    return (await mountsHere()).find((mount) => mount.id === mountId)?.device;
  } finally {
    await handle.close();
  }
}

async function openFile(fd: number): Promise<{ mountId: number; isWritable: boolean }> {
  const about = await fs.readFile(`/proc/self/fdinfo/${fd}`, "utf8");
  const flags = Number.parseInt(/^flags:\s*([0-7]+)$/m.exec(about)?.[1] ?? "0", 8);
  return {
    mountId: Number(/^mnt_id:\s*(\d+)$/m.exec(about)?.[1] ?? Number.NaN),
    isWritable: (flags & (constants.O_WRONLY | constants.O_RDWR)) !== 0,
  };
}

async function isBackedBy(loop: string, path: string): Promise<boolean> {
  const backing = await text(`/sys/block/${loop}/loop/backing_file`);
  if (backing === undefined) return false;
  try {
    const device = await fs.open(`/dev/${loop}`, "r");
    try {
      const [behind, image] = [loopBacking(device.fd), await fs.stat(path, { bigint: true })];
      return behind.inode === image.ino && behind.device === image.dev;
    } finally {
      await device.close();
    }
  } catch (error) {
    // Detached meanwhile.
    if (errnoOf(error) === "ENXIO") return false;
    // Without the right to open it, or without it in /dev, there is only the name.
    if (["EACCES", "EPERM", "ENOENT"].includes(errnoOf(error) ?? "")) return backing === (await realPath(path));
    throw error;
  }
}

async function realPath(path: string): Promise<string | undefined> {
  return unlessErrno(["ENOENT"], () => fs.realpath(path));
}

/** The numbers of a block device, its partitions, and what holds them (device mapper, RAID), all the way up. */
async function devicesAbove(folder: string): Promise<Set<string>> {
  const found = new Set<string>();
  const number = await text(join(folder, "dev"));
  if (number !== undefined) found.add(number);
  const partitions = (await namesIn(folder)).filter((name) => /^loop\d+p\d+$/.test(name));
  const above = [
    ...partitions.map((name) => join(folder, name)),
    ...(await namesIn(join(folder, "holders"))).map((name) => `/sys/block/${name}`),
  ];
  for (const device of above) for (const one of await devicesAbove(device)) found.add(one);
  return found;
}

/** A file system over several devices (btrfs) has a number of its own, and only its source tells where it lies. */
async function isOn(mount: Mount, devices: ReadonlySet<string>): Promise<boolean> {
  if (devices.has(mount.device)) return true;
  if (!mount.device.startsWith("0:") || !mount.source.startsWith("/dev/")) return false;
  const stat = await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.stat(mount.source));
  return stat !== undefined && devices.has(renderDevice(stat.rdev));
}

async function namesIn(folder: string): Promise<string[]> {
  return (await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.readdir(folder))) ?? [];
}

async function text(file: string): Promise<string | undefined> {
  return (await unlessErrno(["ENOENT", "ENOTDIR", "ENODEV"], () => fs.readFile(file, "utf8")))?.trim();
}
