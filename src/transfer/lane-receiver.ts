// The target's end of an open lane on its thread, for transports that are streams: takes units off the stream, asks the main thread
// where they belong, and has them written there, with bounded memory. Nothing is written outside what was answered.
import type { Duplex } from "node:stream";
import { tookShortLived } from "../base/memory.ts";
import { LongshoreError } from "../domain/errors.ts";
import { type Piece, renderStatus, UnitDecoder, type UnitHeader } from "./lane-codec.ts";
import { type FlatExtents, type FromTarget, renderError, type ToTarget } from "./lane-messages.ts";
import type { LaneSignals } from "./lane-signals.ts";
import { FileWriter, MessageWriter, type UnitWriter } from "./unit-writer.ts";

export interface ReceiverOptions {
  /** Negative where the sink is no file: then the main thread writes. */
  readonly fd: number;
  /** Payload held or handed over and not yet written; reading pauses above it. */
  readonly windowBytesMax: number;
  readonly signals: LaneSignals;
  post(message: FromTarget): void;
}

/** A unit that has begun to come in. */
interface Incoming {
  readonly header: UnitHeader;
  /** Once the main thread has answered. */
  extents: FlatExtents | undefined;
  hasBegun: boolean;
  readonly pieces: { readonly data: Buffer; readonly isLast: boolean }[];
}

type End = "open" | "ended" | "finished" | "stopped";

export class LaneReceiver {
  readonly #stream: Duplex;
  readonly #options: ReceiverOptions;
  readonly #decoder = new UnitDecoder();
  readonly #writer: UnitWriter;
  /** In the order of arrival; the first one is being written. */
  readonly #incoming: Incoming[] = [];
  #end: End = "open";
  /** Bytes of pieces that wait for their unit's turn. */
  #bytesHeld = 0;
  /** Bytes handed over and not yet written. */
  #bytesInFlight = 0;

  /** `rest` was read from the stream before. The last message it posts is `ended`. */
  constructor(stream: Duplex, rest: Buffer, options: ReceiverOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#writer = options.fd < 0 ? this.#writerByMessage() : new FileWriter(options.fd, options.signals);
    stream.on("data", (chunk: Buffer) => this.#feed(chunk));
    stream.on("end", () => this.#onEnd());
    stream.on("error", (error) => this.fail(new LongshoreError("StreamTorn", "lane: it broke", { cause: error })));
    stream.on("close", () => this.fail(new LongshoreError("StreamTorn", "lane: it was closed within the stream")));
    if (stream.destroyed) this.fail(new LongshoreError("StreamTorn", "lane: it was closed before it opened"));
    this.#feed(rest);
    // It may have ended while the ticket was looked at.
    if (stream.readableEnded) this.#onEnd();
  }

  /** Whether the main thread is to answer or to write something. */
  get isWaiting(): boolean {
    return this.#bytesInFlight > 0 || this.#incoming.some(({ extents }) => extents === undefined);
  }

  take(message: ToTarget): void {
    if (this.#end === "stopped") return;
    if (message.kind === "stop") this.#stop();
    if (message.kind === "finish") this.#finish();
    if (message.kind === "written") this.#bytesInFlight -= message.bytes;
    if (message.kind === "extents") {
      const asked = this.#incoming.find(({ extents }) => extents === undefined);
      if (asked !== undefined) asked.extents = message.extents;
    }
    this.#pump();
  }

  #feed(chunk: Buffer): void {
    if (this.#end !== "open") return;
    this.#decoder.feed(chunk);
    this.#pump();
    tookShortLived(chunk.length);
  }

  /** Breaks the lane for this reason, and reports it. */
  fail(error: unknown): void {
    if (this.#end !== "stopped") this.#stop(error);
  }

  #pump(): void {
    if (this.#end === "stopped" || this.#end === "finished") return;
    try {
      for (let piece = this.#decoder.next(); piece !== undefined; piece = this.#decoder.next()) this.#accept(piece);
      this.#write();
      const isCutShort = this.#end === "ended" && !this.#decoder.hasEnded;
      if (isCutShort) throw new LongshoreError("StreamTorn", "lane: it was cut short");
      this.#settle();
    } catch (error) {
      this.fail(error);
    }
  }

  /** A unit is asked for as soon as its header is here, while those before it are still being written. */
  #accept(piece: Piece): void {
    if (piece.kind === "unit") {
      this.#incoming.push({ header: piece.header, extents: undefined, hasBegun: false, pieces: [] });
      this.#options.post({ kind: "begin", ...piece.header });
    } else if (piece.kind === "payload") {
      this.#incoming.at(-1)?.pieces.push(piece);
      this.#bytesHeld += piece.data.length;
    }
  }

  #write(): void {
    for (let first = this.#incoming[0]; first?.extents !== undefined; first = this.#incoming[0]) {
      if (!first.hasBegun) this.#writer.begin(first.header.unit, first.extents);
      first.hasBegun = true;
      const piece = this.#bytesInFlight < this.#options.windowBytesMax ? first.pieces.shift() : undefined;
      if (piece === undefined) return;
      this.#bytesHeld -= piece.data.length;
      this.#writer.put(piece.data, piece.isLast);
      if (!piece.isLast) continue;
      this.#incoming.shift();
      this.#options.post({ kind: "arrived", unit: first.header.unit });
    }
  }

  #writerByMessage(): UnitWriter {
    return new MessageWriter((message) => {
      this.#bytesInFlight += message.data.length;
      this.#options.post(message);
    });
  }

  #onEnd(): void {
    if (this.#end !== "open") return;
    this.#end = "ended";
    this.#pump();
  }

  /** Reads on or pauses, and ends what is at its end. */
  #settle(): void {
    if (this.#end === "open") {
      if (this.#bytesHeld + this.#bytesInFlight < this.#options.windowBytesMax) this.#stream.resume();
      else this.#stream.pause();
    } else if (this.#end === "ended" && this.#incoming.length === 0 && this.#bytesInFlight === 0) {
      this.#end = "finished";
      this.#options.post({ kind: "finished" });
    }
  }

  #finish(): void {
    if (this.#end !== "finished") return;
    this.#end = "stopped";
    this.#options.post({ kind: "ended" });
    // The same answer as to the ticket tells the sender that everything it sent was taken.
    this.#stream.end(renderStatus());
  }

  #stop(error?: unknown): void {
    this.#end = "stopped";
    this.#incoming.length = 0;
    this.#stream.destroy();
    this.#options.post({ kind: "ended", error: error === undefined ? undefined : renderError(error) });
  }
}
