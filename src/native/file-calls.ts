// The system calls on files that Node.js does not offer. A wrong signature is a crash, so each has a test of its own. Linux only;
// failures are SystemErrors with `code` (ENOSPC, EPERM, …), the same shape as Node's own file system errors.

import { constants as fsConstants } from "node:fs";
import koffi from "koffi";
import { tookShortLived } from "../base/memory.ts";
import { errnoOf, systemError } from "../base/system-error.ts";
import { checked, inPool, libc } from "./libc.ts";
import { FiemapReport } from "./reported-extent.ts";

const ioctlPointer = libc.func("ioctl", "int", ["int", "ulong", "void *"]);
const ioctlNumber = libc.func("ioctl", "int", ["int", "ulong", "int"]);
const fallocate = libc.func("fallocate", "int", ["int", "int", "int64_t", "int64_t"]);
const fcntlNumber = libc.func("fcntl", "int", ["int", "int", "int"]);
const lseek = libc.func("lseek", "int64_t", ["int", "int64_t", "int"]);
const syncfs = libc.func("syncfs", "int", ["int"]);
const syncFileRange = libc.func("sync_file_range", "int", ["int", "int64_t", "int64_t", "uint"]);
const linkat = libc.func("linkat", "int", ["int", "str", "int", "str", "int"]);
const posixFadvise = libc.func("posix_fadvise", "int", ["int", "int64_t", "int64_t", "int"]);

// ---- FIEMAP -------------------------------------------------------------------------------------------------------

/** How many extents one call may answer: of FIEMAP, about 12 ms of work and 224 KiB of buffer. */
export const extentsPerCallMax = 4096;

const fiemapHeadBytes = 32;
const fiemapExtentBytes = 56;

export interface ExtentRange {
  readonly offset: number;
  readonly length: number;
  readonly extentsMax?: number;
}

/**
 * The extents that touch [offset, offset + length), written back first, at most `extentsMax` of them from the start of
 * the range. They may reach past both ends of the range. Runs in the pool.
 */
export async function fiemap(
  fd: number,
  { offset, length, extentsMax = extentsPerCallMax }: ExtentRange,
): Promise<FiemapReport> {
  // Not of Node's pool of small buffers, whose parts begin anywhere: it is read as words below.
  const buffer = Buffer.from(new ArrayBuffer(fiemapHeadBytes + fiemapExtentBytes * extentsMax));
  buffer.writeBigUInt64LE(BigInt(offset), 0);
  buffer.writeBigUInt64LE(BigInt(length), 8);
  buffer.writeUInt32LE(0x1, 16); // FIEMAP_FLAG_SYNC
  buffer.writeUInt32LE(extentsMax, 24);
  tookShortLived(buffer.length);
  await inPool("ioctl FIEMAP", ioctlPointer, [fd, 0xc020660b, buffer]);
  const count = buffer.readUInt32LE(20);
  return new FiemapReport(new Uint32Array(buffer.buffer, fiemapHeadBytes), count, count === extentsMax);
}

// ---- Sharing, holes, and data -------------------------------------------------------------------------------------

/** Makes the empty file `targetFd` share all of `sourceFd`'s blocks (FICLONE). Runs in the pool; blocks writers of the source. */
export async function cloneWhole(sourceFd: number, targetFd: number): Promise<void> {
  await inPool("ioctl FICLONE", ioctlNumber, [targetFd, 0x40049409, sourceFd]);
}

/** Deallocates the range, which then reads as zeros; the size stays. Runs in the pool. */
export async function punchHole(fd: number, offset: number, length: number): Promise<void> {
  const keepSizeAndPunch = 0x1 | 0x2;
  await inPool("fallocate", fallocate, [fd, keepSizeAndPunch, offset, length]);
}

/** The start of the next data (or hole) at or after `offset`; `undefined` when only a hole follows. Moves the fd's position. */
export function seek(fd: number, offset: number, whence: "data" | "hole"): number | undefined {
  const found = lseek(fd, offset, whence === "data" ? 3 : 4);
  if (found >= 0) return Number(found);
  const error = systemError("lseek", koffi.errno());
  if (error.code === "ENXIO") return undefined;
  throw error;
}

/** Begins to write out what is dirty in the range, and does not wait for it: not a step towards durability, only a head start. Runs in the pool. */
export async function startWriteOut(fd: number, offset: number, length: number): Promise<void> {
  const write = 2;
  await inPool("sync_file_range", syncFileRange, [fd, offset, length, write]);
}

/** Has the range read into the page cache, and does not wait for it. */
export function startReading(fd: number, offset: number, length: number): void {
  const errno = posixFadvise(fd, offset, length, 3);
  if (errno !== 0) throw systemError("posix_fadvise", errno);
}

/** Drops clean pages of the range from the page cache, so that the next read asks the medium. */
export function dropCache(fd: number, offset: number, length: number): void {
  const errno = posixFadvise(fd, offset, length, 4);
  if (errno !== 0) throw systemError("posix_fadvise", errno);
}

// ---- Attributes ---------------------------------------------------------------------------------------------------

const immutableFlag = 0x10;

/** Whether the file carries the immutable attribute (`chattr +i`). */
export function isImmutable(fd: number): boolean {
  return (readFlags(fd) & immutableFlag) !== 0;
}

/** Sets or clears the immutable attribute; EPERM without CAP_LINUX_IMMUTABLE, ENOTTY or EOPNOTSUPP where unsupported. */
export function setImmutable(fd: number, isOn: boolean): void {
  const flags = readFlags(fd);
  const buffer = Buffer.alloc(8);
  buffer.writeInt32LE(isOn ? flags | immutableFlag : flags & ~immutableFlag);
  checked("ioctl FS_IOC_SETFLAGS", ioctlPointer(fd, 0x40086602, buffer));
}

function readFlags(fd: number): number {
  const buffer = Buffer.alloc(8);
  checked("ioctl FS_IOC_GETFLAGS", ioctlPointer(fd, 0x80086601, buffer));
  return buffer.readInt32LE(0);
}

/** A hint's flag, and where its bytes stand in a struct fsxattr of linux/fs.h. */
const extentSize = { flag: 0x800, at: 4 };
const copiedExtentSize = { flag: 0x10000, at: 16 };

/** Asks the file system to allocate in pieces of `bytes` (XFS); the file must be empty still. */
export function setExtentSizeHint(fd: number, bytes: number): void {
  setHint(fd, extentSize, bytes);
}

/** The same for what is allocated because a shared block is written (XFS), for which the extent size hint counts as well if it is larger. */
export function setCopiedExtentSizeHint(fd: number, bytes: number): void {
  setHint(fd, copiedExtentSize, bytes);
}

/** The extent size hint in bytes; 0 for none. */
export function extentSizeHint(fd: number): number {
  const attributes = readExtendedAttributes(fd);
  return (attributes.readUInt32LE(0) & extentSize.flag) === 0 ? 0 : attributes.readUInt32LE(extentSize.at);
}

function setHint(fd: number, { flag, at }: typeof extentSize, bytes: number): void {
  const attributes = readExtendedAttributes(fd);
  attributes.writeUInt32LE((attributes.readUInt32LE(0) | flag) >>> 0, 0);
  attributes.writeUInt32LE(bytes, at);
  checked("ioctl FS_IOC_FSSETXATTR", ioctlPointer(fd, 0x401c5820, attributes));
}

function readExtendedAttributes(fd: number): Buffer {
  const buffer = Buffer.alloc(28);
  checked("ioctl FS_IOC_FSGETXATTR", ioctlPointer(fd, 0x801c581f, buffer));
  return buffer;
}

// ---- The file system itself ---------------------------------------------------------------------------------------

/** A file system whose extents can be shared and compared. */
export interface SharingFileSystem {
  readonly type: "xfs" | "btrfs";
  readonly uuid: string;
  readonly canShareExtents: boolean;
}

/** Asks the file system of `fd` who it is; `undefined` when it is neither XFS nor btrfs. */
export function sharingFileSystem(fd: number): SharingFileSystem | undefined {
  return xfsIdentity(fd) ?? btrfsIdentity(fd);
}

function xfsIdentity(fd: number): SharingFileSystem | undefined {
  const geometry = Buffer.alloc(112); // struct xfs_fsop_geom_v4
  if (!answers(fd, 0x8070587c, geometry)) return undefined;
  const reflinkFlag = 1 << 20;
  const canShareExtents = (geometry.readUInt32LE(92) & reflinkFlag) !== 0;
  return { type: "xfs", uuid: renderUuid(geometry.subarray(64, 80)), canShareExtents };
}

function btrfsIdentity(fd: number): SharingFileSystem | undefined {
  const reply = Buffer.alloc(1024); // struct btrfs_ioctl_fs_info_args
  if (!answers(fd, 0x8400941f, reply)) return undefined;
  return { type: "btrfs", uuid: renderUuid(reply.subarray(16, 32)), canShareExtents: true };
}

function answers(fd: number, request: number, buffer: Buffer): boolean {
  if (ioctlPointer(fd, request, buffer) >= 0) return true;
  const error = systemError("ioctl", koffi.errno());
  if (["ENOTTY", "EOPNOTSUPP", "EINVAL", "ENOSYS"].includes(error.code)) return false;
  throw error;
}

function renderUuid(bytes: Buffer): string {
  return bytes.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}

// ---- Freezing -----------------------------------------------------------------------------------------------------

/** Writes out what is dirty in the file system of `fd`. Runs in the pool. */
export async function syncFileSystem(fd: number): Promise<void> {
  await inPool("syncfs", syncfs, [fd]);
}

/**
 * Holds up every writer of the file system that `fd` lies on, with everything written so far on its device (FIFREEZE).
 * EBUSY when it is frozen already, EOPNOTSUPP where the file system cannot, EPERM without CAP_SYS_ADMIN. Runs in the pool.
 */
export async function freezeFileSystem(fd: number): Promise<void> {
  await inPool("ioctl FIFREEZE", ioctlNumber, [fd, 0xc0045877, 0]);
}

/** Lets writers go on (FITHAW). Answers whether the file system was frozen until now. Runs in the pool. */
export async function thawFileSystem(fd: number): Promise<boolean> {
  try {
    await inPool("ioctl FITHAW", ioctlNumber, [fd, 0xc0045878, 0]);
    return true;
  } catch (error) {
    if (errnoOf(error) === "EINVAL") return false;
    throw error;
  }
}

/** Device and inode of the file behind an open loop device, as stat() tells them; ENXIO when nothing is behind it. */
export function loopBacking(fd: number): { readonly device: bigint; readonly inode: bigint } {
  const status = Buffer.alloc(232); // struct loop_info64
  checked("ioctl LOOP_GET_STATUS64", ioctlPointer(fd, 0x4c05, status));
  return { device: status.readBigUInt64LE(0), inode: status.readBigUInt64LE(8) };
}

// ---- Leases -------------------------------------------------------------------------------------------------------

const setLease = 1024;
const getLease = 1025;
const setSignal = 10;
const readLease = 0;
const noLease = 2;
const urgentSignal = 23;

/**
 * Takes a read lease on a file opened read-only: while it is held nobody has the file open for writing, and who tries
 * is held up by the kernel until it is released. Answers `false` when somebody has the file open for writing now.
 */
export function takeReadLease(fd: number): boolean {
  // The signal that announces a waiting writer must be one that is ignored by default: SIGIO would end the process.
  checked("fcntl F_SETSIG", fcntlNumber(fd, setSignal, urgentSignal));
  if (fcntlNumber(fd, setLease, readLease) >= 0) return true;
  const error = systemError("fcntl F_SETLEASE", koffi.errno());
  if (error.code === "EAGAIN") return false;
  throw error;
}

/** Whether the lease is whole: no writer waits for it, and the kernel has not taken it away. */
export function hasReadLease(fd: number): boolean {
  return checked("fcntl F_GETLEASE", fcntlNumber(fd, getLease, 0)) === readLease;
}

/** Also of a lease that the kernel has taken away, because it was not given back in time. */
export function releaseLease(fd: number): void {
  if (fcntlNumber(fd, setLease, noLease) >= 0) return;
  const error = systemError("fcntl F_SETLEASE", koffi.errno());
  if (error.code !== "EAGAIN") throw error;
}

// ---- Files without a name -----------------------------------------------------------------------------------------

/** Flags to open a folder with for a new file in it that has no name, and is gone once it is closed (O_TMPFILE). */
export const namelessFlags = 0o20000000 | fsConstants.O_DIRECTORY | fsConstants.O_RDWR;

/** Gives a file that was opened without a name one in the same file system. Throws EEXIST rather than replace another. */
export function giveName(fd: number, path: string): void {
  const [here, followed] = [-100, 0x400];
  checked("linkat", linkat(here, `/proc/self/fd/${fd}`, here, path, followed));
}

// ---- Direct reads -------------------------------------------------------------------------------------------------

/** Flags to open a file for reads that bypass the page cache. */
export const openDirectFlags = fsConstants.O_RDONLY | fsConstants.O_DIRECT;

const pageBytes = 4096;

/**
 * Memory whose byte `aligned` lies on a multiple of 4096. Reads off the page cache into memory that begins 16 bytes off a multiple
 * of 32, as large buffers of Node.js often do, were measured at three times the processor time.
 */
export function alignedBuffer(length: number, aligned = 0): Buffer {
  const memory = Buffer.allocUnsafeSlow(length + pageBytes);
  const start = toPage(memory.subarray(aligned));
  return memory.subarray(start, start + length);
}

/** How many bytes to skip until the next multiple of a page. */
function toPage(memory: Uint8Array): number {
  const past = Number(koffi.address(memory) % BigInt(pageBytes));
  return past === 0 ? 0 : pageBytes - past;
}
