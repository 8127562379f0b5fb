// Digests of segments, read from files.
import { createHash } from "node:crypto";
import { readSync } from "node:fs";
import { digestAlgorithm, type Piece } from "./messages.ts";

const readBytes = 1 << 20;
const buffer = Buffer.allocUnsafeSlow(readBytes);

/** The digest of a segment as the files have it now. */
export function digestOfSegment(fds: readonly number[], segment: readonly Piece[]): string {
  const hash = createHash(digestAlgorithm);
  for (const { file, offset, length } of segment) {
    for (let done = 0; done < length; ) {
      const bytes = readWhole(fds[file] ?? -1, buffer, {
        offset: offset + done,
        length: Math.min(readBytes, length - done),
      });
      hash.update(buffer.subarray(0, bytes));
      done += bytes;
    }
  }
  return hash.digest("hex");
}

/** Fills the front of the buffer; how many bytes it were, all that were asked for. */
export function readWhole(fd: number, into: Buffer, { offset, length }: { offset: number; length: number }): number {
  for (let done = 0; done < length; ) {
    const bytes = readSync(fd, into, done, length - done, offset + done);
    if (bytes === 0) throw new Error(`the file ends before ${offset + length}`);
    done += bytes;
  }
  return length;
}
