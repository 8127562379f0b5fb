// A clock that stands still until it is told to go on. Sleepers wake in the order of their times.
import type { Clock } from "../../src/base/clock.ts";

interface Sleeper {
  readonly untilMs: number;
  readonly wake: () => void;
}

export class FakeClock implements Clock {
  readonly #epochMs: number;
  #elapsedMs = 0;
  readonly #sleepers = new Set<Sleeper>();

  constructor(epochMs = Date.parse("2026-01-01T00:00:00Z")) {
    this.#epochMs = epochMs;
  }

  nowMs(): number {
    // Whole, as the system's is: waits have fractions.
    return this.#epochMs + Math.floor(this.#elapsedMs);
  }

  monotonicMs(): number {
    return this.#elapsedMs;
  }

  /** How many sleep now. */
  get sleepers(): number {
    return this.#sleepers.size;
  }

  sleep(durationMs: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const abort = () => {
        this.#sleepers.delete(sleeper);
        reject(signal?.reason);
      };
      const wake = () => {
        this.#sleepers.delete(sleeper);
        signal?.removeEventListener("abort", abort);
        resolve();
      };
      const sleeper = { untilMs: this.#elapsedMs + Math.max(0, durationMs), wake };
      this.#sleepers.add(sleeper);
      signal?.addEventListener("abort", abort, { once: true });
    });
  }

  /** Lets time pass: each sleeper wakes at its time, and what follows from that happens before the next one wakes. */
  async advance(durationMs: number): Promise<void> {
    const endMs = this.#elapsedMs + durationMs;
    await settledTasks();
    for (let next = this.#next(endMs); next !== undefined; next = this.#next(endMs)) {
      this.#elapsedMs = Math.max(this.#elapsedMs, next.untilMs);
      next.wake();
      await settledTasks();
    }
    this.#elapsedMs = endMs;
  }

  #next(endMs: number): Sleeper | undefined {
    const due = [...this.#sleepers].filter((sleeper) => sleeper.untilMs <= endMs);
    return due.sort((left, right) => left.untilMs - right.untilMs)[0];
  }
}

/** Returns once every promise that can settle without time or I/O has settled. */
export function settledTasks(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
