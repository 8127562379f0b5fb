// Of what may differ between two points, keeps what really does, by reading both. File systems rewrite blocks with what
// they held, and points lose the extents they shared (defragmentation, a balance): neither is worth a byte on the wire.

import { blockBytes, type ChangedExtent } from "./backend.ts";
import type { BulkReader } from "./bulk-reader.ts";
import type { CompareAnswer } from "./bulk-reader-thread.ts";
import { ChangeList } from "./extent-diff.ts";
import type { OpenPoint } from "./mechanism.ts";
import { chunksOf } from "./positioned-io.ts";

/** What one thread compares at a time; so long does it take to be cancelled. */
const sliceBytesMax = 8 * 1024 * 1024;
const sliceExtentsMax = 2048;
/** Slices that are being compared, or wait for a thread. */
const aheadMax = 4;

/** With fewer equal blocks than this, nothing is said about sharing: rewriting a block with what it held is normal. */
const unsharedBlocksMin = 16;

export interface Differing {
  readonly extents: ChangeList;
  /** At least half of the candidates, and not just a few, were equal: the points no longer share what they have in common. */
  readonly isUnshared: boolean;
}

/** `candidates` are in order, in whole blocks. A block past the base's end is changed by definition. */
export async function differingBlocks(
  reader: BulkReader,
  { base, next }: { readonly base: OpenPoint; readonly next: OpenPoint },
  candidates: Iterable<ChangedExtent>,
  signal: AbortSignal | undefined,
): Promise<Differing> {
  const changes = new ChangeList();
  let [blocks, equalBlocks] = [0, 0];
  const take = (slice: readonly ChangedExtent[], found: CompareAnswer) => {
    const compared = slice.reduce((sum, { length }) => sum + length / blockBytes, 0);
    blocks += compared;
    equalBlocks += compared - found.length / 2;
    for (let at = 0; at < found.length; at += 2) {
      const { kind } = slice[found[at] as number] as ChangedExtent;
      const offset = found[at + 1] as number;
      changes.add(kind, offset, offset + blockBytes);
    }
  };
  const files = [fileOf(base), fileOf(next)] as const;
  const underWay: { readonly slice: readonly ChangedExtent[]; readonly found: Promise<CompareAnswer> }[] = [];
  const takeFirst = async () => {
    const [first] = underWay;
    if (first === undefined) return;
    take(first.slice, await first.found);
    underWay.shift();
  };
  try {
    for (const slice of slicesOf(candidates)) {
      signal?.throwIfAborted();
      const found = reader.differing(...files, slice);
      // One that fails before its turn is no failure that nobody handles.
      found.catch(() => undefined);
      underWay.push({ slice, found });
      if (underWay.length === aheadMax) await takeFirst();
    }
    while (underWay.length > 0) await takeFirst();
  } finally {
    // The points are closed after this.
    await Promise.allSettled(underWay.map(({ found }) => found));
  }
  return { extents: changes, isUnshared: equalBlocks >= unsharedBlocksMin && equalBlocks * 2 >= blocks };
}

function fileOf({ image, sizeBytes }: OpenPoint) {
  return { fd: image.fd, sizeBytes };
}

function* slicesOf(candidates: Iterable<ChangedExtent>): Generator<readonly ChangedExtent[]> {
  let slice: ChangedExtent[] = [];
  let bytes = 0;
  for (const candidate of candidates) {
    for (const { offset, length } of chunksOf(candidate)) {
      if (slice.length === sliceExtentsMax || (bytes > 0 && bytes + length > sliceBytesMax)) {
        yield slice;
        [slice, bytes] = [[], 0];
      }
      slice.push({ kind: candidate.kind, offset, length });
      bytes += length;
    }
  }
  if (slice.length > 0) yield slice;
}
