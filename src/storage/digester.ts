// Digests of what lies on the disk, computed in threads of their own: hashing a large image would hold up everything else.
import { openWorkerPool } from "../base/worker-pool.ts";
import { alignedShared } from "../native/file-calls.ts";
import type { Extent } from "./backend.ts";
import type { DigestRequest } from "./digest-worker.ts";

const threadsMax = 2;
const bufferBytes = 1 << 20;

export interface Digester {
  /** SHA-256 (hex) of these extents of an open file, one after the other; throws what reading it throws. */
  digest(fd: number, extents: readonly Extent[]): Promise<string>;
  close(): Promise<void>;
}

export function openDigester(): Digester {
  const pool = openWorkerPool<DigestRequest, string>(new URL("./digest-worker.ts", import.meta.url), threadsMax);
  const spare: { buffer: SharedArrayBuffer; start: number }[] = [];
  return {
    async digest(fd, extents) {
      const held = spare.pop() ?? alignedShared(bufferBytes);
      try {
        const flat = new Float64Array(2 * extents.length);
        for (const [index, { offset, length }] of extents.entries()) flat.set([offset, length], 2 * index);
        return await pool.run({ fd, extents: flat, ...held, length: bufferBytes });
      } finally {
        if (spare.length < threadsMax) spare.push(held);
      }
    },
    close: () => pool.close(),
  };
}
