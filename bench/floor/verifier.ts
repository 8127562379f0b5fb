// The target's verifying thread of a hashing floor: makes durable what was written, reads it back, and hashes it, while the
// other thread goes on to receive.
import { fdatasyncSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import { digestOfSegment } from "./digests.ts";
import type { Piece } from "./messages.ts";

export interface VerifierTask {
  readonly fds: readonly number[];
  readonly segment: readonly Piece[];
  readonly index: number;
}

export interface VerifierResult {
  readonly index: number;
  readonly digest: string;
}

parentPort?.on("message", ({ fds, segment, index }: VerifierTask) => {
  for (const file of new Set(segment.map(({ file }) => file))) fdatasyncSync(fds[file] ?? -1);
  parentPort?.postMessage({ index, digest: digestOfSegment(fds, segment) } satisfies VerifierResult);
});
