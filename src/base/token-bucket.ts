// Holds a stream of bytes to a rate that may change, or be lifted, while some are waiting.
import { assert } from "./assert.ts";
import type { Clock } from "./clock.ts";

/** What the bucket holds at a moment of the monotonic clock; below zero is a debt that later takers wait for. */
export interface BucketLevel {
  readonly bytes: number;
  readonly atMs: number;
}

/** The level at `nowMs`: `bytesPerSecond` flow in, up to `burstBytes`. */
export function refilled(
  level: BucketLevel,
  { bytesPerSecond, burstBytes }: { readonly bytesPerSecond: number; readonly burstBytes: number },
  nowMs: number,
): BucketLevel {
  const inflow = (bytesPerSecond * Math.max(0, nowMs - level.atMs)) / 1000;
  return { bytes: Math.min(burstBytes, level.bytes + inflow), atMs: nowMs };
}

/** How long until the level is above zero, in whole milliseconds, 0 when it is already. */
export function refillWaitMs(level: BucketLevel, bytesPerSecond: number): number {
  if (level.bytes > 0) return 0;
  return Math.floor((-level.bytes * 1000) / bytesPerSecond) + 1;
}

export interface TokenBucket {
  /**
   * Resolves when `bytes` may be sent, first come, first served. More than the burst is allowed: it leaves a debt.
   * Rejects with the signal's reason, without having taken anything.
   */
  take(bytes: number, signal?: AbortSignal): Promise<void>;
  /** Sets the rate, for those who wait already as well; `undefined` is no limit. */
  setRate(bytesPerSecond: number | undefined): void;
}

/** This part of a second's bytes may pass at once after a pause. */
const burstSeconds = 0.25;

/** A bucket that starts full. */
export function openTokenBucket(bytesPerSecond: number | undefined, clock: Clock): TokenBucket {
  return new PacedQueue(bytesPerSecond, clock);
}

class PacedQueue implements TokenBucket {
  readonly #clock: Clock;
  #rate: number | undefined;
  #level: BucketLevel;
  /** The turn of the last one in the queue; never rejects. */
  #tail: Promise<void> = Promise.resolve();
  #waiting = 0;
  #rateChange = new AbortController();

  constructor(bytesPerSecond: number | undefined, clock: Clock) {
    this.#clock = clock;
    this.#rate = checkedRate(bytesPerSecond);
    this.#level = { bytes: (bytesPerSecond ?? 0) * burstSeconds, atMs: clock.monotonicMs() };
  }

  setRate(bytesPerSecond: number | undefined): void {
    const rate = checkedRate(bytesPerSecond);
    if (rate === this.#rate) return;
    // What flowed in until now did so at the old rate.
    this.#refill();
    // A debt of a second stays a debt of a second, or a cap that is lowered far would stop everything for hours.
    const scale = (rate ?? 0) / (this.#rate ?? 1);
    this.#level = { bytes: this.#level.bytes * scale, atMs: this.#level.atMs };
    this.#rate = rate;
    this.#rateChange.abort();
    this.#rateChange = new AbortController();
  }

  async take(bytes: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.#waiting === 0 && this.#takeNow(bytes)) return;
    this.#waiting++;
    const before = this.#tail;
    const { promise: turnOver, resolve: endTurn } = Promise.withResolvers<void>();
    this.#tail = turnOver;
    try {
      await orAborted(before, signal);
      while (!this.#takeNow(bytes)) await this.#pause(signal);
    } finally {
      this.#waiting--;
      // One that gives up in the queue does not let those behind it overtake those before it.
      void before.then(endTurn);
    }
  }

  #takeNow(bytes: number): boolean {
    if (this.#rate === undefined) return true;
    this.#refill();
    if (this.#level.bytes <= 0) return false;
    this.#level = { bytes: this.#level.bytes - bytes, atMs: this.#level.atMs };
    return true;
  }

  #refill(): void {
    const nowMs = this.#clock.monotonicMs();
    if (this.#rate === undefined) this.#level = { bytes: 0, atMs: nowMs };
    else {
      const limits = { bytesPerSecond: this.#rate, burstBytes: this.#rate * burstSeconds };
      this.#level = refilled(this.#level, limits, nowMs);
    }
  }

  /** Waits for the level to rise or the rate to change. */
  async #pause(signal: AbortSignal | undefined): Promise<void> {
    const changed = this.#rateChange.signal;
    const waitMs = refillWaitMs(this.#level, this.#rate ?? Number.POSITIVE_INFINITY);
    try {
      await this.#clock.sleep(waitMs, signal === undefined ? changed : AbortSignal.any([signal, changed]));
    } catch (error) {
      signal?.throwIfAborted();
      if (!changed.aborted) throw error;
    }
  }
}

function orAborted(turn: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  if (signal === undefined) return turn;
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    signal.addEventListener("abort", abort, { once: true });
    void turn.then(() => {
      signal.removeEventListener("abort", abort);
      resolve();
    });
  });
}

function checkedRate(bytesPerSecond: number | undefined): number | undefined {
  const isRate = bytesPerSecond === undefined || (Number.isFinite(bytesPerSecond) && bytesPerSecond > 0);
  assert(isRate, `a rate of ${bytesPerSecond} bytes a second`);
  return bytesPerSecond;
}
