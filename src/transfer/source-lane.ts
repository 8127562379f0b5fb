// The source's lane as the engine sees it: stands in for the thread that sends, and grants it what it may send.
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { Lane, LaneSource, LaneUnit, Pace } from "./lane.ts";
import { parseError, threadFailure } from "./lane-failure.ts";
import { type FromSource, flatExtents, type SourceEnded, type ToSource } from "./lane-messages.ts";
import type { LaneSignals } from "./lane-signals.ts";
import type { ThreadLease } from "./lane-threads.ts";
import { unitPayloadBytes } from "./unit-places.ts";

export interface SourceLaneOptions {
  readonly lease: ThreadLease;
  readonly signals: LaneSignals;
  readonly source: LaneSource;
  readonly pace?: Pace | undefined;
  readonly clock: Clock;
  /** Breaks the lane. */
  readonly signal: AbortSignal;
  /** Gets a thread that blocks out of its wait; called when the lane breaks. */
  interrupt?(): void;
}

/** What is let through at once: little where the rate is low, so that it moves often enough, and follows a change of it. */
const sliceBytesMin = 64 * 1024;
const sliceBytesMax = 1024 * 1024;
/** A slice that had to wait longer is too great, one that waited less than a quarter of it too small. */
const sliceMsMax = 20;

interface Sending {
  readonly resolve: (digest: string | undefined) => void;
  readonly reject: (error: unknown) => void;
}

export class SourceLane implements Lane {
  readonly #options: SourceLaneOptions;
  /** In the order of asking. */
  readonly #sending: Sending[] = [];
  /** Aborted with a `StreamTorn` when the lane breaks. */
  readonly #broken = new AbortController();
  readonly #closed = Promise.withResolvers<void>();
  /** Resolves when neither the thread nor this one reads from the source any more. */
  readonly #joined = Promise.withResolvers<void>();
  #sliceBytes = sliceBytesMin;
  #reading: Promise<void> | undefined;
  #isClosing = false;
  #hasEnded = false;

  constructor(options: SourceLaneOptions) {
    this.#options = options;
    // Whoever closes asks for it; until then it must not count as unhandled.
    this.#closed.promise.catch(() => {});
    options.lease.port.on("message", (message: FromSource) => this.#take(message));
    options.lease.port.on("close", () =>
      this.#onEnded({ kind: "ended", isTaken: false, error: { name: "Error", message: "its thread ended" } }),
    );
    options.signal.addEventListener("abort", this.#onAbort, { once: true });
    if (options.signal.aborted) this.#onAbort();
  }

  get bytesSent(): number {
    return this.#options.signals.bytesSent;
  }

  async send({ index, extents }: LaneUnit): Promise<string | undefined> {
    this.#broken.signal.throwIfAborted();
    if (this.#isClosing) throw new LongshoreError("StreamTorn", "lane: it was closed before");
    const payloadBytes = unitPayloadBytes(index, extents);
    const flat = flatExtents(extents);
    const { promise, resolve, reject } = Promise.withResolvers<string | undefined>();
    this.#sending.push({ resolve, reject });
    this.#post({ kind: "send", unit: index, payloadBytes, extents: flat }, [flat.buffer]);
    return promise;
  }

  async close(): Promise<void> {
    if (!this.#isClosing && !this.#broken.signal.aborted) this.#post({ kind: "close" });
    this.#isClosing = true;
    await this.#closed.promise;
  }

  async destroy(reason: unknown): Promise<void> {
    this.#break(reason);
    await this.#joined.promise;
  }

  #take(message: FromSource): void {
    if (message.kind === "sent") this.#sending.shift()?.resolve(message.digest);
    else if (message.kind === "credit") void this.#grant(message.bytes);
    else if (message.kind === "read") this.#reading = this.#read(message);
    else if (message.kind === "ended") this.#onEnded(message);
  }

  readonly #onAbort = () => this.#break(this.#options.signal.reason);

  #post(message: ToSource, transfer: ArrayBuffer[] = []): void {
    this.#options.lease.port.postMessage(message, transfer);
    this.#options.signals.ring();
  }

  #break(reason: unknown, unreadable?: unknown): void {
    if (this.#hasEnded || this.#broken.signal.aborted) return;
    const torn = new LongshoreError("StreamTorn", "lane: it broke", { cause: reason });
    this.#broken.abort(torn);
    this.#closed.reject(torn);
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    this.#options.signals.stop();
    this.#post({ kind: "destroy" });
    this.#options.interrupt?.();
    if (unreadable !== undefined) this.#sending.shift()?.reject(unreadable);
    for (const { reject } of this.#sending.splice(0)) reject(torn);
  }

  #onEnded({ isTaken, error, blame }: SourceEnded): void {
    if (this.#hasEnded) return;
    if (isTaken && this.#isClosing) this.#closed.resolve();
    else if (error !== undefined && blame === "source") {
      const unreadable = threadFailure("read the source", error);
      this.#break(unreadable, unreadable);
    } else this.#break(error === undefined ? new Error("it ended by itself") : parseError(error));
    this.#hasEnded = true;
    this.#options.signal.removeEventListener("abort", this.#onAbort);
    this.#options.lease.release();
    void Promise.resolve(this.#reading).then(this.#joined.resolve);
  }

  /** Grants so many bytes one slice at a time; the thread asks for the rest again. */
  async #grant(wanted: number): Promise<void> {
    const { pace, clock } = this.#options;
    const bytes = Math.min(wanted, this.#sliceBytes);
    const beganAtMs = clock.monotonicMs();
    try {
      await pace?.take(bytes, this.#broken.signal);
    } catch (error) {
      return this.#break(error);
    }
    const waitedMs = clock.monotonicMs() - beganAtMs;
    if (waitedMs > sliceMsMax) this.#sliceBytes = Math.max(sliceBytesMin, this.#sliceBytes / 2);
    else if (waitedMs < sliceMsMax / 4) this.#sliceBytes = Math.min(sliceBytesMax, this.#sliceBytes * 2);
    if (!this.#broken.signal.aborted) this.#post({ kind: "credit", bytes });
  }

  /** Reads for a thread that cannot, as the source is no file. Never rejects. */
  async #read({ offset, length }: { offset: number; length: number }): Promise<void> {
    const data = new Uint8Array(length);
    try {
      await this.#options.source.read(offset, data);
      if (!this.#broken.signal.aborted) this.#post({ kind: "bytes", data }, [data.buffer]);
    } catch (error) {
      this.#break(error, error);
    }
  }
}
