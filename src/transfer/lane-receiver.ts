// The target's end of an open lane, whatever carries it: takes frames off a stream and hands their payload to the sink,
// with bounded memory. It never writes what the sink did not accept, and knows when none of its writes is in flight.
import type { Duplex } from "node:stream";
import { LongshoreError } from "../domain/errors.ts";
import type { LaneSink } from "./lane.ts";
import { FrameDecoder, type Piece, renderStatus } from "./lane-codec.ts";

export interface ReceiveLimits {
  /** Payload handed to the sink and not yet written, for one lane; reading pauses above it. */
  readonly windowBytesMax: number;
  /** Writes of one lane the sink has to do at once. */
  readonly writesInFlightMax: number;
}

export const receiveLimits: ReceiveLimits = { windowBytesMax: 4 * 1024 * 1024, writesInFlightMax: 64 };

/** Payload that arrives in small pieces is gathered to this size before it is written. */
const gatherBytes = 256 * 1024;

type End = { readonly kind: "open" } | { readonly kind: "ended" } | { readonly kind: "stopped" };

export class LaneReceiver {
  readonly #stream: Duplex;
  readonly #sink: LaneSink;
  readonly #limits: ReceiveLimits;
  readonly #onError: (error: Error) => void;
  readonly #decoder = new FrameDecoder();
  readonly #joined = Promise.withResolvers<void>();
  #end: End = { kind: "open" };
  #gather: { readonly buffer: Buffer; filled: number; readonly unit: number; readonly offset: number } | undefined;
  #bytesInFlight = 0;
  #writesInFlight = 0;

  /** `onError` is called at most once, for whatever breaks the lane but {@link LaneReceiver.stop}. */
  constructor(stream: Duplex, sink: LaneSink, options: { limits: ReceiveLimits; onError: (error: Error) => void }) {
    this.#stream = stream;
    this.#sink = sink;
    this.#limits = options.limits;
    this.#onError = options.onError;
    stream.on("data", (chunk: Buffer) => this.feed(chunk));
    stream.on("end", () => this.#onEnd());
    stream.on("error", (error) => this.fail(new LongshoreError("StreamTorn", "lane: it broke", { cause: error })));
    stream.on("close", () => this.fail(new LongshoreError("StreamTorn", "lane: it was closed within the stream")));
    if (stream.destroyed) this.fail(new LongshoreError("StreamTorn", "lane: it was closed before it opened"));
  }

  /** Bytes in this process on their way to the sink, those being written included. */
  get bytesHeld(): number {
    return this.#bytesInFlight + (this.#gather?.filled ?? 0);
  }

  get isWriting(): boolean {
    return this.#writesInFlight > 0;
  }

  /** Resolves when the lane has ended, for whatever reason, and no write of it is in flight any more. */
  get joined(): Promise<void> {
    return this.#joined.promise;
  }

  /** Takes bytes that were read from the stream already. */
  feed(chunk: Buffer): void {
    if (this.#end.kind !== "open") return;
    this.#decoder.feed(chunk);
    this.#pump();
  }

  /** Breaks the lane, on purpose; resolves when no write is in flight any more. */
  stop(): Promise<void> {
    this.#stopWith();
    return this.joined;
  }

  #pump(): void {
    try {
      let isDrained = false;
      while (!isDrained && this.#end.kind !== "stopped" && this.#hasRoom()) {
        const piece = this.#decoder.next();
        if (piece === undefined) isDrained = true;
        else this.#take(piece);
      }
      const isCutShort = isDrained && this.#end.kind === "ended" && !this.#decoder.hasEnded;
      if (isCutShort) throw new LongshoreError("StreamTorn", "lane: it was cut short");
      this.#settle();
    } catch (error) {
      this.fail(error as Error);
    }
  }

  #hasRoom(): boolean {
    return this.#bytesInFlight < this.#limits.windowBytesMax && this.#writesInFlight < this.#limits.writesInFlightMax;
  }

  #take(piece: Piece): void {
    if (piece.kind === "end") return;
    if (piece.kind === "frame") this.#sink.accept(piece.frame);
    else if (this.#gather === undefined && piece.isLast) this.#write(piece.frame.unit, piece.offset, piece.data);
    else this.#gatherUp(piece);
  }

  /** A gathered buffer ends where it is full or the frame ends, so it is always written full. */
  #gatherUp({ frame, offset, data }: Extract<Piece, { kind: "payload" }>): void {
    let rest = data;
    while (rest.length > 0) {
      const at = offset + data.length - rest.length;
      this.#gather ??= {
        buffer: Buffer.allocUnsafe(Math.min(gatherBytes, frame.offset + frame.length - at)),
        filled: 0,
        unit: frame.unit,
        offset: at,
      };
      const copied = rest.copy(this.#gather.buffer, this.#gather.filled);
      this.#gather.filled += copied;
      rest = rest.subarray(copied);
      if (this.#gather.filled < this.#gather.buffer.length) continue;
      this.#write(this.#gather.unit, this.#gather.offset, this.#gather.buffer);
      this.#gather = undefined;
    }
  }

  #write(unit: number, offset: number, data: Buffer): void {
    this.#bytesInFlight += data.length;
    this.#writesInFlight++;
    const isWritten = async () => {
      try {
        await this.#sink.write(unit, offset, data);
      } catch (error) {
        this.fail(error as Error);
      } finally {
        this.#bytesInFlight -= data.length;
        this.#writesInFlight--;
        this.#pump();
      }
    };
    void isWritten();
  }

  #onEnd(): void {
    if (this.#end.kind !== "open") return;
    this.#end = { kind: "ended" };
    this.#pump();
  }

  /** Reads on or pauses, and ends what is at its end. */
  #settle(): void {
    if (this.#end.kind === "open") {
      if (this.#hasRoom()) this.#stream.resume();
      else this.#stream.pause();
      return;
    }
    if (this.#writesInFlight > 0) return;
    if (this.#end.kind === "ended") {
      this.#end = { kind: "stopped" };
      // The same answer as to the ticket tells the sender that everything it sent was taken.
      this.#stream.end(renderStatus());
    }
    this.#joined.resolve();
  }

  /** Breaks the lane for this reason, and reports it. */
  fail(error: Error): void {
    if (this.#end.kind === "stopped") return;
    this.#stopWith();
    this.#onError(error);
  }

  #stopWith(): void {
    this.#end = { kind: "stopped" };
    this.#gather = undefined;
    this.#stream.destroy();
    if (this.#writesInFlight === 0) this.#joined.resolve();
  }
}
