// Reads much of open files in threads of their own, to hash it or to compare it: it would hold up everything else.
import { openWorkerPool } from "../base/worker-pool.ts";
import { blockBytes, type Extent } from "./backend.ts";
import type { BulkAnswer, BulkRequest, CompareAnswer, ComparedFile } from "./bulk-reader-thread.ts";

const threadsMax = 2;
/** Reading so much takes a few milliseconds. */
const smallBytesMax = 1024 * 1024;

/** Whoever calls keeps the files open until the answer is there, whatever it is; requests beyond the threads wait. */
export interface BulkReader {
  /** SHA-256 (hex) of these extents of an open file, one after the other; throws what reading it throws. */
  digest(fd: number, extents: readonly Extent[]): Promise<string>;
  /** The blocks that differ, ascending, with the index of the extent each is of; throws what reading throws. */
  differing(base: ComparedFile, next: ComparedFile, extents: readonly Extent[]): Promise<CompareAnswer>;
  /** Waits for what is under way. */
  close(): Promise<void>;
}

export function openBulkReader(): BulkReader {
  const pool = openWorkerPool<BulkRequest, BulkAnswer>(new URL("./bulk-reader-thread.ts", import.meta.url), threadsMax);
  return {
    digest: async (fd, extents) =>
      (await pool.run({ kind: "digest", fd, extents: flat(extents) }, { isSmall: isSmall(extents) })) as string,
    async differing(base, next, extents) {
      const request = { kind: "compare", base, next, blockBytes, extents: flat(extents) } as const;
      return (await pool.run(request, { isSmall: isSmall(extents) })) as CompareAnswer;
    },
    close: () => pool.close(),
  };
}

function isSmall(extents: readonly Extent[]): boolean {
  let bytes = 0;
  for (const { length } of extents) bytes += length;
  return bytes <= smallBytesMax;
}

function flat(extents: readonly Extent[]): Float64Array {
  const numbers = new Float64Array(2 * extents.length);
  for (const [index, { offset, length }] of extents.entries()) numbers.set([offset, length], 2 * index);
  return numbers;
}
