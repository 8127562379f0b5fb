// Images on any file system, without privileges: points are full (sparse) copies, and what changed is found by reading
// and comparing. For development, tests, and small volumes; it can copy only what nobody is writing to.

import type { FileHandle } from "node:fs/promises";
import { errnoOf } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";
import { hasReadLease, releaseLease, seek, takeReadLease } from "../native/file-calls.ts";
import { blockBytes, type ChangedExtent, type Extent } from "./backend.ts";
import type { BulkReader } from "./bulk-reader.ts";
import { differingBlocks } from "./differing-blocks.ts";
import { ChangeList, diffRuns } from "./extent-diff.ts";
import type { Held, Mechanism, OpenPoint } from "./mechanism.ts";
import { chunkBytesMax, chunksOf, readWhole, writeWhole } from "./positioned-io.ts";

/** `folderId` stands for the file system's UUID, which most file systems do not tell without privileges. */
export function copyMechanism(folderId: string, reader: BulkReader): Mechanism {
  return {
    kind: "copy",
    restsOnFreeze: true,
    sharesBlocks: false,
    wantsImmutable: false,
    fsUuid: () => folderId,
    prepareLive: () => undefined,
    prepareStaging: () => undefined,
    duplicate: copySparse,
    heldStill,
    async changed(base, next, signal) {
      return { mode: { kind: "delta", unshared: false }, extents: await compareBytes(reader, { base, next }, signal) };
    },
    async allocated(point, signal) {
      signal?.throwIfAborted();
      const extents = dataOf(point.image.fd, point.sizeBytes).map((extent) => ({ kind: "data" as const, ...extent }));
      return { mode: { kind: "allocated", reason: "everything allocated was asked for" }, extents };
    },
  };
}

/**
 * A frozen file system holds its writers up by itself. Otherwise takes a read lease for the time of `work`: the kernel grants it only when nobody has the image open for writing, and
 * holds up who opens it meanwhile. If somebody does, the work is stopped or discarded, and they win.
 */
async function heldStill<T>({ volume, live, frozen }: Held, work: (checkpoint: () => void) => Promise<T>): Promise<T> {
  if (frozen !== undefined) {
    frozen();
    // What was written last may be in memory still.
    await live.datasync();
    return work(frozen);
  }
  if (!isLeased(volume, live.fd)) throw busy(volume);
  const checkpoint = () => {
    if (!hasReadLease(live.fd)) throw busy(volume);
  };
  try {
    const result = await work(checkpoint);
    checkpoint();
    return result;
  } finally {
    releaseLease(live.fd);
  }
}

function isLeased(volume: string, fd: number): boolean {
  try {
    return takeReadLease(fd);
  } catch (error) {
    const text = `the file system cannot tell whether volume ${volume} is attached (${errnoOf(error)}); use the reflink backend, or a local file system`;
    throw new LongshoreError("Unsupported", text, { cause: error });
  }
}

function busy(volume: string): LongshoreError {
  return new LongshoreError("VolumeBusy", `volume ${volume} is attached: its live image is open for writing`);
}

async function copySparse(source: FileHandle, target: FileHandle, checkpoint?: () => void): Promise<void> {
  const { size } = await source.stat();
  const buffer = Buffer.allocUnsafe(Math.min(chunkBytesMax, size));
  for (const extent of dataOf(source.fd, size)) {
    for (const { offset, length } of chunksOf(extent)) {
      checkpoint?.();
      await readWhole(source, offset, buffer.subarray(0, length));
      await writeWhole(target, offset, buffer.subarray(0, length));
    }
  }
  await target.truncate(size);
}

/** The ranges that hold data, in whole blocks, in order; all the rest is holes. */
export function dataOf(fd: number, sizeBytes: number): Extent[] {
  const changes = new ChangeList();
  for (let at = 0; at < sizeBytes; ) {
    const start = seek(fd, at, "data");
    if (start === undefined || start >= sizeBytes) break;
    const end = Math.min(seek(fd, start, "hole") ?? sizeBytes, sizeBytes);
    const blocks = { start: floorBlock(start), end: ceilBlock(end) };
    changes.add("data", Math.max(blocks.start, at), blocks.end);
    at = blocks.end;
  }
  return Array.from(changes, ({ offset, length }) => ({ offset, length }));
}

/** Candidates first, by where data lies; then, block by block, only those that really differ. */
async function compareBytes(
  reader: BulkReader,
  { base, next }: { readonly base: OpenPoint; readonly next: OpenPoint },
  signal: AbortSignal | undefined,
): Promise<Iterable<ChangedExtent>> {
  const inBase = dataOf(base.image.fd, Math.min(base.sizeBytes, next.sizeBytes));
  const candidates = diffRuns(inBase, dataOf(next.image.fd, next.sizeBytes));
  return (await differingBlocks(reader, { base, next }, candidates, signal)).extents;
}

function floorBlock(offset: number): number {
  return offset - (offset % blockBytes);
}

function ceilBlock(offset: number): number {
  return floorBlock(offset + blockBytes - 1);
}
