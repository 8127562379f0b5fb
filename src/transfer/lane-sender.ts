// The source's end of an open lane on its thread, for transports that are streams: reads units off the source's file straight into
// the chunks that are sent, and hashes them there. The chunks are few: they are the lane's whole memory.
import { createHash, type Hash } from "node:crypto";
import type { Duplex } from "node:stream";
import { tookShortLived } from "../base/memory.ts";
import { alignedBuffer } from "../native/file-calls.ts";
import { parseStatus, renderEnd, unitHeaderBytes, writeUnitHeader } from "./lane-codec.ts";
import type { FromSource, ToSource } from "./lane-messages.ts";
import type { LaneSignals } from "./lane-signals.ts";
import { SourceCredit } from "./source-credit.ts";
import { endedBy, readWhole } from "./source-file.ts";

/** Payload begins at a page's beginning, for what is read elsewhere may cost thrice the time; a unit's header has room before it. */
const chunkBytes = unitHeaderBytes + 256 * 1024;
/** Chunks of a lane that are being filled or written; with their size, its window. */
const chunksMax = 8;
/** Chunks that the thread keeps for its next lanes; more than these are the garbage of lanes that have ended. */
const stock: Buffer[] = [];
const stockMax = chunksMax;
/** After so many bytes the thread looks at what else there is, such as messages and other lanes. */
const turnBytes = 1024 * 1024;

export interface SenderOptions {
  /** Negative where the source is no file: then the main thread reads. */
  readonly fd: number;
  readonly hasDigests: boolean;
  /** Whether bytes must be granted before they are sent. */
  readonly isPaced: boolean;
  readonly signals: LaneSignals;
  post(message: FromSource): void;
}

type Send = Extract<ToSource, { kind: "send" }>;

interface Chunk {
  readonly buffer: Buffer;
  /** What it holds lies in [from, filled). */
  readonly from: number;
  filled: number;
}

export class LaneSender {
  readonly #stream: Duplex;
  readonly #options: SenderOptions;
  readonly #queue: Send[] = [];
  readonly #spare: Buffer[] = [];
  #chunksMade = 0;
  #filling: Chunk | undefined;
  #hash: Hash | undefined;
  /** From here on the payload in the chunk being filled is not hashed yet. */
  #hashFrom = 0;
  readonly #credit: SourceCredit;
  #bytesThisTurn = 0;
  #read: Uint8Array | undefined;
  #isClosing = false;
  #hasEnded = false;
  #isReading = true;
  #isClosed = false;
  #hasToldEnd = false;
  #broken: { readonly error: unknown } | undefined;
  #answer: Buffer = Buffer.alloc(0);
  #wake: (() => void) | undefined;

  /** The last message it posts is `ended`. */
  constructor(stream: Duplex, options: SenderOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#credit = new SourceCredit(options.isPaced, (bytes) => options.post({ kind: "credit", bytes }));
    stream.on("data", (chunk: Buffer) => this.#onData(chunk));
    stream.on("end", () => this.#onEnd());
    stream.on("error", (error) => this.destroy(error));
    stream.on("close", () => this.#onClose());
    if (stream.destroyed) this.#onClose();
    stream.resume();
    void this.#run();
  }

  /** Whether the other side is to take or to answer something. */
  get isWaiting(): boolean {
    return this.#chunksMade > this.#spare.length + (this.#filling === undefined ? 0 : 1) || this.#hasEnded;
  }

  take(message: ToSource): void {
    if (message.kind === "send") {
      this.#queue.push(message);
      this.#credit.want(unitHeaderBytes + message.payloadBytes);
    } else if (message.kind === "credit") this.#credit.grant(message.bytes);
    else if (message.kind === "bytes") this.#read = message.data;
    else if (message.kind === "close") this.#isClosing = true;
    else if (message.kind === "destroy") this.destroy(new Error("it was destroyed"));
    this.#wake?.();
  }

  destroy(error: unknown): void {
    if (this.#broken !== undefined || this.#isTakenWhole()) return;
    this.#broken = { error };
    this.#stream.destroy();
    this.#wake?.();
  }

  async #run(): Promise<void> {
    try {
      for (let unit = await this.#nextUnit(); unit !== undefined; unit = await this.#nextUnit()) await this.#put(unit);
      this.#end();
    } catch (error) {
      this.destroy(error);
    } finally {
      this.#isReading = false;
      this.#tellEnded();
    }
  }

  /** `undefined` when all is sent and no more will come. */
  async #nextUnit(): Promise<Send | undefined> {
    await this.#until(() => this.#queue.length > 0 || this.#isClosing);
    return this.#queue.shift();
  }

  /** Waits for a message or the stream to make the condition true; throws when the lane is broken meanwhile. */
  async #until(condition: () => boolean): Promise<void> {
    while (this.#broken === undefined && !condition()) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    if (this.#broken !== undefined) throw this.#broken.error;
  }

  async #put({ unit, payloadBytes, extents }: Send): Promise<void> {
    if (!this.#credit.has(unitHeaderBytes)) await this.#awaitCredit(unitHeaderBytes);
    const chunk = await this.#nextChunk(0);
    writeUnitHeader({ unit, payloadBytes }, chunk.buffer, 0);
    chunk.filled = unitHeaderBytes;
    this.#credit.spend(unitHeaderBytes);
    this.#hash = this.#options.hasDigests ? createHash("sha256") : undefined;
    for (let at = 0; at < extents.length; at += 2) await this.#putExtent(extents[at] ?? 0, extents[at + 1] ?? 0);
    this.#hashUp();
    this.#writeOut();
    this.#options.post({ kind: "sent", digest: this.#hash?.digest("hex") });
    this.#hash = undefined;
  }

  async #putExtent(offset: number, bytes: number): Promise<void> {
    for (let done = 0; done < bytes; ) {
      if (!this.#credit.has(1)) await this.#awaitCredit(1);
      const chunk = this.#filling ?? (await this.#nextChunk(unitHeaderBytes));
      const length = this.#credit.part(Math.min(bytes - done, chunk.buffer.length - chunk.filled));
      const reading = this.#readInto(chunk, offset + done, length);
      if (reading !== undefined) await reading;
      chunk.filled += length;
      done += length;
      this.#credit.spend(length);
      if (chunk.filled === chunk.buffer.length) this.#writeOut();
      if (this.#bytesThisTurn >= turnBytes) await this.#turn();
    }
  }

  #readInto(chunk: Chunk, offset: number, length: number): void | Promise<void> {
    if (this.#options.fd < 0) return this.#readByMessage(chunk, offset, length);
    // The main thread closes the file when this thread has said that it ended; until then it is ours to read.
    if (this.#options.signals.isStopped) throw new Error("it was destroyed");
    readWhole(this.#options.fd, chunk.buffer.subarray(chunk.filled, chunk.filled + length), offset);
  }

  async #readByMessage(chunk: Chunk, offset: number, length: number): Promise<void> {
    this.#options.post({ kind: "read", offset, length });
    await this.#until(() => this.#read !== undefined);
    chunk.buffer.set(this.#read ?? [], chunk.filled);
    this.#read = undefined;
  }

  async #awaitCredit(bytes: number): Promise<void> {
    // What was let through goes out, or a low rate would be sent in bursts of a whole chunk.
    this.#writeOut();
    await this.#until(() => this.#credit.has(bytes));
  }

  /** One that is empty, and is to be filled from there on. */
  async #nextChunk(from: number): Promise<Chunk> {
    await this.#until(() => this.#spare.length > 0 || this.#chunksMade < chunksMax);
    let buffer = this.#spare.pop();
    if (buffer === undefined) {
      buffer = stock.pop() ?? newChunk();
      this.#chunksMade++;
    }
    this.#hashFrom = unitHeaderBytes;
    this.#filling = { buffer, from, filled: from };
    return this.#filling;
  }

  #hashUp(): void {
    if (this.#hash === undefined || this.#filling === undefined) return;
    this.#hash.update(this.#filling.buffer.subarray(this.#hashFrom, this.#filling.filled));
    this.#hashFrom = this.#filling.filled;
  }

  #writeOut(): void {
    if (this.#filling === undefined) return;
    this.#hashUp();
    const { buffer, from, filled } = this.#filling;
    this.#filling = undefined;
    this.#bytesThisTurn += filled - from;
    this.#options.signals.addSent(filled - from);
    this.#stream.write(buffer.subarray(from, filled), (error) => {
      if (error) return this.destroy(error);
      this.#spare.push(buffer);
      this.#wake?.();
    });
  }

  async #turn(): Promise<void> {
    this.#bytesThisTurn = 0;
    await nextTurn();
    if (this.#broken !== undefined) throw this.#broken.error;
  }

  #end(): void {
    const end = renderEnd();
    this.#options.signals.addSent(end.length);
    this.#hasEnded = true;
    this.#stream.end(end);
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
    this.#isClosed = true;
    this.#tellEnded();
  }

  /** Once nothing reads and nothing is connected any more. */
  #tellEnded(): void {
    if (this.#isReading || !this.#isClosed || this.#hasToldEnd) return;
    this.#hasToldEnd = true;
    stock.push(...this.#spare.splice(0, stockMax - stock.length));
    this.#options.post(endedBy(this.#broken?.error));
  }

  /** Whether the target said, after the end, that all was taken. */
  #isTakenWhole(): boolean {
    return this.#hasEnded && this.#stream.readableEnded && parseStatus(this.#answer)?.kind === "accepted";
  }
}

function newChunk(): Buffer {
  tookShortLived(chunkBytes);
  return alignedBuffer(chunkBytes, unitHeaderBytes);
}

const nextTurn = () => new Promise<void>((resolve) => setImmediate(resolve));
