// A thread that reads much of open files, to hash it or to compare it, one request at a time.
import { createHash } from "node:crypto";
import { readSync } from "node:fs";
import { parentPort } from "node:worker_threads";
import { unreachable } from "../base/assert.ts";
import { endOfWork, type WorkerAnswer } from "../base/worker-pool.ts";
import { alignedBuffer, startReading } from "../native/file-calls.ts";
import { openReadQueue } from "../native/read-queue.ts";
import type { Extent } from "./backend.ts";
import { chunkBytesMax, chunksOf } from "./positioned-io.ts";

/** Offset and length of each extent in turn. */
export interface DigestRequest {
  readonly kind: "digest";
  readonly fd: number;
  readonly extents: Float64Array;
}

export interface ComparedFile {
  readonly fd: number;
  /** What lies past it reads as zeros. */
  readonly sizeBytes: number;
}

export interface CompareRequest {
  readonly kind: "compare";
  readonly base: ComparedFile;
  readonly next: ComparedFile;
  readonly blockBytes: number;
  /** Offset and length of each extent in turn, in whole blocks. */
  readonly extents: Float64Array;
}

/** Blocks that differ, by the extent they are of: its index, the block's offset, and so on. Blocks past the base's end differ. */
export type CompareAnswer = Float64Array;

export type BulkRequest = DigestRequest | CompareRequest;
export type BulkAnswer = string | CompareAnswer;

/** Aligned, for reads past the page cache. */
const [buffer, otherBuffer] = [alignedBuffer(chunkBytesMax), alignedBuffer(chunkBytesMax)];

/** Pieces that wait for the disk together; without such a queue they are read one after the other. */
const piecesMax = 128;
const queue = openReadQueue(piecesMax);

function digest({ fd, extents }: DigestRequest): string {
  const hash = createHash("sha256");
  for (const pieces of batchesIn(extents)) hash.update(readPieces(fd, pieces));
  return hash.digest("hex");
}

/** Pieces of the extents, in order, as many at a time as the queue and the buffer hold. */
function* batchesIn(extents: Float64Array): Generator<readonly Extent[]> {
  let batch: Extent[] = [];
  let bytes = 0;
  for (const piece of chunksIn(extents)) {
    if (batch.length === piecesMax || bytes + piece.length > chunkBytesMax) {
      yield batch;
      [batch, bytes] = [[], 0];
    }
    batch.push(piece);
    bytes += piece.length;
  }
  if (batch.length > 0) yield batch;
}

/** What the pieces hold, one after the other. */
function readPieces(fd: number, pieces: readonly Extent[]): Buffer {
  const got = queue?.read(fd, pieces, buffer);
  let bytes = 0;
  for (const [at, { offset, length }] of pieces.entries()) {
    const done = got?.[at] ?? 0;
    // What came short is asked for by itself, which tells why.
    if (done < length) readInto(buffer.subarray(bytes + done, bytes + length), fd, offset + done);
    bytes += length;
  }
  return buffer.subarray(0, bytes);
}

function compare({ base, next, blockBytes, extents }: CompareRequest): CompareAnswer {
  // All of it is asked for beforehand: scattered blocks, read one after the other, would each wait for the disk.
  for (const file of [base, next]) {
    for (const { offset, length } of chunksIn(extents)) {
      const present = Math.min(length, file.sizeBytes - offset);
      if (present > 0) startReading(file.fd, offset, present);
    }
  }
  const differing: number[] = [];
  for (const { index, offset, length } of chunksIn(extents)) {
    fill(buffer, base, offset, length);
    fill(otherBuffer, next, offset, length);
    for (let at = 0; at < length; at += blockBytes) {
      const isNew = offset + at >= base.sizeBytes;
      const isEqual = buffer.compare(otherBuffer, at, at + blockBytes, at, at + blockBytes) === 0;
      if (isNew || !isEqual) differing.push(index, offset + at);
    }
  }
  return Float64Array.from(differing);
}

/** Pieces that fit a buffer, with the index of the extent they are of. */
function* chunksIn(extents: Float64Array) {
  for (let index = 0; index < extents.length / 2; index++) {
    const [offset = 0, length = 0] = extents.subarray(2 * index);
    for (const chunk of chunksOf({ offset, length })) yield { index, ...chunk };
  }
}

function fill(into: Buffer, { fd, sizeBytes }: ComparedFile, offset: number, length: number): void {
  const present = Math.max(0, Math.min(length, sizeBytes - offset));
  readInto(into.subarray(0, present), fd, offset);
  into.fill(0, present, length);
}

function readInto(into: Buffer, fd: number, offset: number): void {
  for (let done = 0; done < into.length; ) {
    const read = readSync(fd, into, done, into.length - done, offset + done);
    if (read === 0) {
      throw Object.assign(new Error(`the image ends before byte ${offset + into.length}`), { code: "ENODATA" });
    }
    done += read;
  }
}

parentPort?.on("message", (request: BulkRequest | typeof endOfWork) => {
  if (request !== endOfWork) return parentPort?.postMessage(answer(request));
  queue?.close();
  parentPort?.close();
});

function answer(request: BulkRequest): WorkerAnswer<BulkAnswer> {
  try {
    return { kind: "done", answer: answerTo(request) };
  } catch (error) {
    const { message, code, errno } = error as NodeJS.ErrnoException;
    return {
      kind: "failed",
      error: { message, ...(code !== undefined && { code }), ...(errno !== undefined && { errno }) },
    };
  }
}

function answerTo(request: BulkRequest): BulkAnswer {
  switch (request.kind) {
    case "digest":
      return digest(request);
    case "compare":
      return compare(request);
    default:
      return unreachable(request);
  }
}
