// Reads and writes of exact ranges: the system may do a part at a time, callers never see that.

import type { FileHandle } from "node:fs/promises";
import { LongshoreError } from "../domain/errors.ts";
import type { Extent } from "./backend.ts";

/** What is read or written at a time, at most. */
export const chunkBytesMax = 1024 * 1024;

/** An extent in pieces of at most {@link chunkBytesMax}. */
export function* chunksOf({ offset, length }: Extent): Generator<Extent> {
  for (let done = 0; done < length; done += chunkBytesMax) {
    yield { offset: offset + done, length: Math.min(chunkBytesMax, length - done) };
  }
}

/** Fills `into` from `offset`; throws `PointGone` when the file ends before that. */
export async function readWhole(file: FileHandle, offset: number, into: Uint8Array): Promise<void> {
  for (let done = 0; done < into.length; ) {
    const { bytesRead } = await file.read(into, done, into.length - done, offset + done);
    if (bytesRead === 0) throw new LongshoreError("PointGone", `the image ends before byte ${offset + into.length}`);
    done += bytesRead;
  }
}

export async function writeWhole(file: FileHandle, offset: number, data: Uint8Array): Promise<void> {
  for (let done = 0; done < data.length; ) {
    const { bytesWritten } = await file.write(data, done, data.length - done, offset + done);
    done += bytesWritten;
  }
}

/** Throws `BadRequest` when a range is not within an image of `sizeBytes`. */
export function requireWithin(name: string, { offset, length }: Extent, sizeBytes: number): void {
  const isWithin = Number.isSafeInteger(offset) && offset >= 0 && length >= 0 && offset + length <= sizeBytes;
  if (isWithin) return;
  throw new LongshoreError("BadRequest", `${name}: [${offset}, +${length}) leaves its ${sizeBytes} bytes`);
}
