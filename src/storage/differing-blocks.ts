// Of what may differ between two points, keeps what really does, by reading both. File systems rewrite blocks with what
// they held, and points lose the extents they shared (defragmentation, a balance): neither is worth a byte on the wire.

import { blockBytes, type ChangedExtent, type Extent } from "./backend.ts";
import { changeList } from "./extent-diff.ts";
import type { OpenPoint } from "./mechanism.ts";
import { readWhole } from "./positioned-io.ts";

const chunkBytesMax = 1024 * 1024;

/** With fewer equal blocks than this, nothing is said about sharing: rewriting a block with what it held is normal. */
const unsharedBlocksMin = 16;

export interface Differing {
  readonly extents: ChangedExtent[];
  /** At least half of the candidates, and not just a few, were equal: the points no longer share what they have in common. */
  readonly isUnshared: boolean;
}

/** `candidates` are in order. A block past the base's end is changed by definition. */
export async function differingBlocks(
  base: OpenPoint,
  next: OpenPoint,
  candidates: readonly ChangedExtent[],
  signal: AbortSignal | undefined,
): Promise<Differing> {
  const changes = changeList();
  const buffers = { base: Buffer.alloc(chunkBytesMax), next: Buffer.alloc(chunkBytesMax) };
  let [equalBlocks, blocks] = [0, 0];
  for (const candidate of candidates) {
    for (const chunk of chunksOf(candidate)) {
      signal?.throwIfAborted();
      await Promise.all([fill(base, chunk, buffers.base), fill(next, chunk, buffers.next)]);
      const kept = differingIn(chunk, buffers, base.sizeBytes);
      for (const offset of kept) changes.add(candidate.kind, offset, offset + blockBytes);
      blocks += chunk.length / blockBytes;
      equalBlocks += chunk.length / blockBytes - kept.length;
    }
  }
  return { extents: changes.extents, isUnshared: equalBlocks >= unsharedBlocksMin && equalBlocks * 2 >= blocks };
}

/** Pieces that fit a buffer. */
export function* chunksOf({ offset, length }: Extent): Generator<Extent> {
  for (let done = 0; done < length; done += chunkBytesMax) {
    yield { offset: offset + done, length: Math.min(chunkBytesMax, length - done) };
  }
}

/** Reads a chunk to the front of `into`; what lies past the image's end reads as zeros. */
async function fill(point: OpenPoint, { offset, length }: Extent, into: Buffer): Promise<void> {
  const present = Math.max(0, Math.min(length, point.sizeBytes - offset));
  await readWhole(point.image, offset, into.subarray(0, present));
  into.fill(0, present, length);
}

/** The offsets of the blocks that differ. */
function differingIn({ offset, length }: Extent, { base, next }: { base: Buffer; next: Buffer }, baseBytes: number) {
  const offsets: number[] = [];
  for (let at = 0; at < length; at += blockBytes) {
    const isNew = offset + at >= baseBytes;
    const isEqual = base.compare(next, at, at + blockBytes, at, at + blockBytes) === 0;
    if (isNew || !isEqual) offsets.push(offset + at);
  }
  return offsets;
}
