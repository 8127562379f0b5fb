// A file's extents from the items of its btrfs subvolume, as `btrfs send` reads them. FIEMAP tells the same, but looks up for each
// extent who else refers to it, which takes ten times as long: 2.9 µs an extent, and 0.3 by the items.
import { fstatSync } from "node:fs";
import { release } from "node:os";
import { tookShortLived } from "../base/memory.ts";
import { type ExtentRange, extentsPerCallMax, fiemap, seek, sharingFileSystem } from "./file-calls.ts";
import { inPool, libc } from "./libc.ts";
import { ExtentReport, extentFlags, inexact, type ReportedExtent } from "./reported-extent.ts";

const ioctlPointer = libc.func("ioctl", "int", ["int", "ulong", "void *"]);

/** Reports extents as {@link fiemap} does, each time anew. */
export type ExtentReader = (range: ExtentRange) => Promise<ExtentReport>;

/**
 * The quickest way to read the extents of an open file where it lies. The items are asked for only where FIEMAP, told to write back, also
 * waits until they say what was written: from Linux 6.1 on.
 */
export function extentReader(fd: number): ExtentReader {
  const byFiemap: ExtentReader = (range) => fiemap(fd, range);
  if (!isAtLeast(release(), 6, 1) || sharingFileSystem(fd)?.type !== "btrfs") return byFiemap;
  const inode = fstatSync(fd, { bigint: true }).ino;
  return async (range) => {
    await fiemap(fd, { offset: range.offset, length: 1, extentsMax: 1 });
    return (await readItems(fd, inode, range)) ?? byFiemap(range);
  };
}

export function isAtLeast(release: string, major: number, minor: number): boolean {
  const [ofMajor = 0, ofMinor = 0] = release.split(".").map((part) => Number.parseInt(part, 10));
  return ofMajor > major || (ofMajor === major && ofMinor >= minor);
}

// struct btrfs_ioctl_search_args_v2, and what follows it for each item: a header, and the item itself.
const headBytes = 112;
const headerBytes = 32;
const itemBytes = 53;
const stride = headerBytes + itemBytes;
const fileExtentKey = 108;
const inlineType = 0;
const largest = 2n ** 64n - 1n;

/** How far before a range the item is looked for that reaches into it. */
const lookBackBytes = 2 ** 20;
const lookBackItems = lookBackBytes / 4096 + 1;

/**
 * `undefined` where the items do not tell it: without CAP_SYS_ADMIN, with data among them, when the range begins within a large extent,
 * or when items were missing because extents were being moved.
 */
async function readItems(fd: number, inode: bigint, range: ExtentRange): Promise<FileExtentItems | undefined> {
  const { offset, length, extentsMax = extentsPerCallMax } = range;
  const from = Math.max(0, offset - lookBackBytes);
  const itemsMax = extentsMax + (from < offset ? lookBackItems : 0);
  const buffer = Buffer.from(new ArrayBuffer(headBytes + stride * itemsMax));
  const key = [0n, inode, inode, BigInt(from), BigInt(offset + length - 1), 0n, largest];
  for (const [at, word] of key.entries()) buffer.writeBigUInt64LE(word, at * 8);
  buffer.writeUInt32LE(fileExtentKey, 56);
  buffer.writeUInt32LE(fileExtentKey, 60);
  buffer.writeUInt32LE(itemsMax, 64);
  buffer.writeBigUInt64LE(BigInt(stride * itemsMax), 104);
  tookShortLived(buffer.length);
  try {
    await inPool("ioctl BTRFS_IOC_TREE_SEARCH_V2", ioctlPointer, [fd, 0xc0709411, buffer]);
  } catch {
    // Whatever it is, FIEMAP answers, or says what is wrong.
    return undefined;
  }
  const found = buffer.readUInt32LE(64);
  const items = new FileExtentItems(buffer.subarray(headBytes), found, found === itemsMax);
  if (!items.areWhole) return undefined;
  const first = items.firstEndingAfter(offset);
  // One that begins earlier still may reach into the range.
  const mayBeMissed = from > 0 && first === 0 && (items.at(0)?.logical ?? Number.POSITIVE_INFINITY) > offset;
  if (mayBeMissed || (items.isCut && first === found)) return undefined;
  const within = items.from(first);
  return areHoles(fd, gapsOf(within, offset, offset + length)) ? within : undefined;
}

/** What the items leave out, in order, as far as they reach. */
function* gapsOf(items: FileExtentItems, start: number, end: number): Generator<{ start: number; end: number }> {
  let at = start;
  for (const { logical, length, flags } of items) {
    if ((flags & extentFlags.unwritten) !== 0) continue;
    if (logical > at) yield { start: at, end: Math.min(logical, end) };
    at = logical + length;
  }
  if (!items.isCut && at < end) yield { start: at, end };
}

/**
 * The search reads leaf by leaf under no lock of the file, and a range whose items are being replaced, as by a defragmentation, has
 * none for a moment. To seek takes the locks. What was a hole once in a file that is not written to has always been one.
 */
function areHoles(fd: number, gaps: Iterable<{ readonly start: number; readonly end: number }>): boolean {
  for (const { start, end } of gaps) if ((seek(fd, start, "data") ?? end) < end) return false;
  return true;
}

/** struct btrfs_file_extent_item, each with its header. */
class FileExtentItems extends ExtentReport {
  readonly #bytes: Buffer;

  constructor(bytes: Buffer, count: number, isCut: boolean) {
    const filled = bytes.subarray(0, count * stride);
    super(filled, count, isCut);
    this.#bytes = filled;
  }

  /** Whether all are of the size and kind that an item has whose data lies elsewhere. */
  get areWhole(): boolean {
    for (let index = 0; index < this.count; index++) {
      const isOfSize = this.#bytes.readUInt32LE(index * stride + 28) === itemBytes;
      if (!isOfSize || this.#bytes.readUInt8(index * stride + headerBytes + 20) === inlineType) return false;
    }
    return true;
  }

  /** `count` when none does. */
  firstEndingAfter(offset: number): number {
    let index = 0;
    while (index < this.count && this.#endOf(index) <= offset) index += 1;
    return index;
  }

  from(first: number): FileExtentItems {
    return new FileExtentItems(this.#bytes.subarray(first * stride), this.count - first, this.isCut);
  }

  #endOf(index: number): number {
    return wholeAt(this.#bytes, index * stride + 16) + wholeAt(this.#bytes, index * stride + headerBytes + 45);
  }

  at(index: number): ReportedExtent | undefined {
    if (index < 0 || index >= this.count) return undefined;
    const [bytes, header] = [this.#bytes, index * stride];
    const item = header + headerBytes;
    const place = wholeAt(bytes, item + 21);
    const isEncoded = bytes.readUInt32LE(item + 16) !== 0; // compression, encryption, and any other encoding
    // Where a part of an encoded extent lies cannot be said.
    const physical = isEncoded ? place : place + wholeAt(bytes, item + 37);
    return {
      logical: wholeAt(bytes, header + 16),
      physical,
      length: wholeAt(bytes, item + 45),
      flags: flagsOf(bytes.readUInt8(item + 20), place) | (isEncoded ? extentFlags.encoded : 0) | inexact(physical),
    };
  }
}

function flagsOf(type: number, place: number): number {
  const [regular, preallocated] = [1, 2];
  if (type === preallocated) return extentFlags.unwritten;
  if (type !== regular) return extentFlags.unknown;
  // A hole, where the file system tells of holes.
  return place === 0 ? extentFlags.unwritten : 0;
}

/** 64 bits, from halves. */
function wholeAt(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}
