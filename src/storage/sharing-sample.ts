// Tells a delta that is large because much changed from one that is large because the two points lost the extents they
// shared (defragmentation, a balance, compression, a copy between them): in the latter, blocks told as changed are equal.

import { blockBytes, type ChangedExtent } from "./backend.ts";
import type { OpenPoint } from "./mechanism.ts";
import { readWhole } from "./positioned-io.ts";

/** Blocks compared per delta. Fewer than the minimum say nothing: rewriting a block with what it held is normal. */
const sampleBlocksMax = 64;
const sampleBlocksMin = 16;

/**
 * Compares up to 64 evenly spread blocks of the delta's data. Unshared: at least half of at least 16 are equal. A block
 * past the base's end is changed by definition.
 */
export async function isUnshared(
  base: OpenPoint,
  next: OpenPoint,
  extents: readonly ChangedExtent[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  const offsets = spread(extents, sampleBlocksMax);
  if (offsets.length < sampleBlocksMin) return false;
  let equal = 0;
  for (const offset of offsets) {
    signal?.throwIfAborted();
    if (await isEqualBlock(base, next, offset)) equal++;
  }
  return equal * 2 >= offsets.length;
}

async function isEqualBlock(base: OpenPoint, next: OpenPoint, offset: number): Promise<boolean> {
  if (offset + blockBytes > base.sizeBytes) return false;
  const [inBase, inNext] = [Buffer.alloc(blockBytes), Buffer.alloc(blockBytes)];
  await readWhole(base.image, offset, inBase);
  await readWhole(next.image, offset, inNext);
  return inBase.equals(inNext);
}

/** The offsets of at most `countMax` data blocks, evenly spread over all data blocks of the extents. */
export function spread(extents: readonly ChangedExtent[], countMax: number): number[] {
  const data = extents.filter((extent) => extent.kind === "data");
  const blocks = data.reduce((sum, extent) => sum + extent.length / blockBytes, 0);
  const count = Math.min(countMax, blocks);
  const offsets: number[] = [];
  let before = 0;
  for (const { offset, length } of data) {
    const here = length / blockBytes;
    while (offsets.length < count && wanted(offsets.length) < before + here) {
      offsets.push(offset + (wanted(offsets.length) - before) * blockBytes);
    }
    before += here;
  }
  return offsets;

  function wanted(index: number): number {
    return Math.floor((index * blocks) / count);
  }
}
