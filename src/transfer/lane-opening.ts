// The first bytes of a lane at the target's side: the preamble, read whole and in time, or not at all.
import type { Duplex } from "node:stream";
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import { parsePreamble, preambleBytes } from "./lane-codec.ts";

export interface Deadline {
  readonly clock: Clock;
  readonly timeoutMs: number;
}

/**
 * The ticket, and what came after the preamble already; the stream is paused then. Throws `BadRequest` for a preamble
 * that is none, `StreamTorn` when the stream ends before, and destroys a stream that is late.
 */
export async function readPreamble(stream: Duplex, deadline: Deadline): Promise<{ ticket: string; rest: Buffer }> {
  const read = new AbortController();
  void destroyAfter(stream, deadline, read.signal);
  try {
    const bytes = await readAtLeast(stream, preambleBytes);
    return { ticket: parsePreamble(bytes.subarray(0, preambleBytes)), rest: bytes.subarray(preambleBytes) };
  } finally {
    read.abort();
  }
}

/** Answers with this status, and closes. */
export function hangUpWith(stream: Duplex, status: Uint8Array, deadline: Deadline): void {
  stream.end(status);
  // What comes in meanwhile is thrown away; unread, it would reset the connection before the answer is read.
  stream.resume();
  void destroyAfter(stream, deadline);
}

/** Destroys the stream when it is not closed in time, unless the signal aborts before. */
export async function destroyAfter(stream: Duplex, deadline: Deadline, signal?: AbortSignal): Promise<void> {
  const over = new AbortController();
  stream.once("close", () => over.abort());
  try {
    await deadline.clock.sleep(
      deadline.timeoutMs,
      signal === undefined ? over.signal : AbortSignal.any([over.signal, signal]),
    );
  } catch {
    return; // Closed or read in time.
  }
  stream.destroy();
}

function readAtLeast(stream: Duplex, bytes: number): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    let received: Buffer = Buffer.alloc(0);
    const stop = () => {
      stream.off("data", onData);
      stream.off("end", onTorn);
      stream.off("close", onTorn);
    };
    const onTorn = () => {
      stop();
      reject(new LongshoreError("StreamTorn", `lane: it ended or was late after ${received.length} bytes`));
    };
    const onData = (chunk: Buffer) => {
      received = Buffer.concat([received, chunk]);
      if (received.length < bytes) return;
      stop();
      stream.pause();
      resolve(received);
    };
    stream.on("data", onData);
    stream.on("end", onTorn);
    stream.on("close", onTorn);
    stream.resume();
    // A stream that ended while nobody read it says so only once.
    if (stream.readableEnded || stream.destroyed) onTorn();
  });
}
