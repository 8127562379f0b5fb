// The source's end of an open lane, whatever carries it. Frames are gathered into chunks, so that scattered blocks do
// not cost a system call each, and the chunks are few: they are the lane's whole memory.
import type { Duplex } from "node:stream";
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { Frame, Lane, Pace } from "./lane.ts";
import { frameHeaderBytes, parseStatus, renderEnd, writeFrameHeader } from "./lane-codec.ts";

const chunkBytes = 256 * 1024;
/** Chunks of a lane that are being filled or written; with their size, its window. */
const chunksMax = 8;
/** A chunk that is not full is sent after this time. */
const lingerMs = 2;
/** Pacing lets through this much at once, so that a low rate still moves often enough not to look idle. */
const paceBytes = 64 * 1024;

interface Chunk {
  readonly buffer: Buffer;
  filled: number;
  isLingering: boolean;
}

export interface LaneSenderOptions {
  readonly clock: Clock;
  readonly pace?: Pace | undefined;
  /** Bytes that went over the wire before the first frame. */
  readonly bytesSentBefore: number;
}

export class LaneSender implements Lane {
  readonly #stream: Duplex;
  readonly #options: LaneSenderOptions;
  readonly #spare: Buffer[] = [];
  /** Aborted with a `StreamTorn` when the lane breaks. */
  readonly #broken = new AbortController();
  readonly #closed = Promise.withResolvers<void>();
  #chunksMade = 0;
  #filling: Chunk | undefined;
  #onSpare: (() => void) | undefined;
  /** The turn of the last frame; never rejects. */
  #tail: Promise<void> = Promise.resolve();
  #isClosing = false;
  #hasEnded = false;
  #answer: Buffer = Buffer.alloc(0);
  #bytesSent: number;

  constructor(stream: Duplex, options: LaneSenderOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#bytesSent = options.bytesSentBefore;
    stream.on("data", (chunk: Buffer) => this.#onData(chunk));
    stream.on("end", () => this.#onEnd());
    stream.on("error", (error) => this.destroy(error));
    stream.on("close", () => this.#onClose());
    if (stream.destroyed) this.#onClose();
    stream.resume();
  }

  get bytesSent(): number {
    return this.#bytesSent;
  }

  /** Whether the other side is to take or to answer something. */
  get isWaiting(): boolean {
    return this.#chunksMade > this.#spare.length + (this.#filling === undefined ? 0 : 1) || this.#hasEnded;
  }

  async send(frame: Frame, payload: Uint8Array): Promise<void> {
    if (this.#isClosing) throw new LongshoreError("StreamTorn", "lane: it was closed before");
    assert(payload.length === frame.length, `a frame of ${frame.length} bytes with ${payload.length} of payload`);
    const turn = this.#tail.then(() => this.#put(frame, payload));
    this.#tail = turn.catch((error) => this.destroy(error));
    await turn;
  }

  async close(): Promise<void> {
    if (!this.#isClosing) {
      this.#isClosing = true;
      await this.#tail;
      await this.#end();
    }
    await this.#closed.promise;
    this.#broken.signal.throwIfAborted();
  }

  destroy(reason: unknown): void {
    const isTakenWhole = this.#hasEnded && this.#stream.readableEnded && this.#isAnswered();
    if (isTakenWhole || this.#broken.signal.aborted) return;
    this.#broken.abort(new LongshoreError("StreamTorn", "lane: it broke", { cause: reason }));
    this.#onSpare?.();
    this.#stream.destroy();
  }

  async #put(frame: Frame, payload: Uint8Array): Promise<void> {
    this.#broken.signal.throwIfAborted();
    const header = Buffer.allocUnsafe(frameHeaderBytes);
    writeFrameHeader(frame, header, 0);
    await this.#append(header);
    await this.#append(payload);
    this.#linger();
  }

  async #append(bytes: Uint8Array): Promise<void> {
    const { pace } = this.#options;
    if (pace === undefined) return this.#copy(bytes);
    for (let at = 0; at < bytes.length; at += paceBytes) {
      const part = bytes.subarray(at, at + paceBytes);
      await pace.take(part.length, this.#broken.signal);
      await this.#copy(part);
      // What is let through goes out, or a low rate would be sent in bursts of a whole chunk.
      this.#linger();
    }
  }

  async #copy(bytes: Uint8Array): Promise<void> {
    let at = 0;
    while (at < bytes.length) {
      const chunk = this.#filling ?? (await this.#nextChunk());
      const part = bytes.subarray(at, at + chunk.buffer.length - chunk.filled);
      chunk.buffer.set(part, chunk.filled);
      chunk.filled += part.length;
      at += part.length;
      if (chunk.filled === chunk.buffer.length) this.#writeOut();
    }
  }

  async #nextChunk(): Promise<Chunk> {
    if (this.#spare.length === 0 && this.#chunksMade === chunksMax) {
      await new Promise<void>((resolve) => {
        this.#onSpare = resolve;
      });
    }
    this.#broken.signal.throwIfAborted();
    let buffer = this.#spare.pop();
    if (buffer === undefined) {
      buffer = Buffer.allocUnsafeSlow(chunkBytes);
      this.#chunksMade++;
    }
    this.#filling = { buffer, filled: 0, isLingering: false };
    return this.#filling;
  }

  #writeOut(): void {
    if (this.#filling === undefined) return;
    const { buffer, filled } = this.#filling;
    this.#filling = undefined;
    this.#bytesSent += filled;
    this.#stream.write(buffer.subarray(0, filled), (error) => {
      if (error) return this.destroy(error);
      this.#spare.push(buffer);
      this.#onSpare?.();
      this.#onSpare = undefined;
    });
  }

  /** Sees to it that what was gathered goes out soon, even if nothing follows. */
  #linger(): void {
    const chunk = this.#filling;
    if (chunk === undefined || chunk.isLingering) return;
    chunk.isLingering = true;
    const writeOut = () => {
      if (this.#filling === chunk) this.#writeOut();
    };
    // A lane that breaks meanwhile has nothing to write.
    this.#options.clock.sleep(lingerMs, this.#broken.signal).then(writeOut, () => {});
  }

  async #end(): Promise<void> {
    this.#broken.signal.throwIfAborted();
    await this.#copy(renderEnd());
    this.#writeOut();
    this.#hasEnded = true;
    this.#stream.end();
  }

  #onData(chunk: Buffer): void {
    try {
      if (!this.#hasEnded) throw new Error("the target sent something before the end");
      this.#answer = Buffer.concat([this.#answer, chunk]);
      parseStatus(this.#answer);
    } catch (error) {
      this.destroy(error);
    }
  }

  #onEnd(): void {
    if (!this.#hasEnded) this.destroy(new Error("the target closed it"));
  }

  #onClose(): void {
    this.destroy(new Error("the connection was closed"));
    this.#closed.resolve();
  }

  /** Whether the target said, after the end, that all was taken. */
  #isAnswered(): boolean {
    return parseStatus(this.#answer)?.kind === "accepted";
  }
}
