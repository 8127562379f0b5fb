// Which keys to look at, and when. News about a key that already waits coalesces with it; a key is with one worker at a time,
// and news that comes meanwhile makes it wait again afterwards; a key may wait for a time, which news brings forward.
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { orAborted } from "./abortable.ts";
import { DueQueue } from "./due-queue.ts";

export class WorkQueue<K> {
  readonly #clock: Clock;
  readonly #nameOf: (key: K) => string;
  /** Ready to be taken, in order of arrival. */
  readonly #ready = new Map<string, K>();
  readonly #taken = new Map<string, K>();
  /** Taken keys about which there was news. */
  readonly #again = new Set<string>();
  readonly #delayed = new DueQueue<K>();
  /** Tells the one who waits in {@link WorkQueue.take} that there was news. */
  #news = Promise.withResolvers<void>();

  constructor(clock: Clock, nameOf: (key: K) => string) {
    this.#clock = clock;
    this.#nameOf = nameOf;
  }

  /** How many keys are ready and wait for a worker. */
  get depth(): number {
    return this.#ready.size;
  }

  /** How many keys wait for their time. */
  get delayed(): number {
    return this.#delayed.size;
  }

  /** Asks for a look at the key, now or after a delay. Of several delays the shortest counts. */
  add(key: K, afterMs = 0): void {
    const name = this.#nameOf(key);
    if (afterMs > 0) {
      if (this.#ready.has(name)) return;
      this.#delayed.set(name, key, this.#clock.monotonicMs() + afterMs);
    } else {
      this.#delayed.delete(name);
      if (this.#taken.has(name)) this.#again.add(name);
      else this.#ready.set(name, key);
    }
    this.#news.resolve();
  }

  /**
   * The next key, as soon as there is one; rejects with the signal's reason. It stays with the caller until
   * {@link WorkQueue.done}. Only one caller may wait at a time.
   */
  async take(signal: AbortSignal): Promise<K> {
    for (;;) {
      signal.throwIfAborted();
      this.#news = Promise.withResolvers<void>();
      this.#release();
      const [first] = this.#ready;
      if (first === undefined) await this.#change(signal);
      else return this.#hand(...first);
    }
  }

  /** Gives the key back: it can be taken again, and waits at once if there was news about it meanwhile. */
  done(key: K): void {
    const name = this.#nameOf(key);
    assert(this.#taken.delete(name), `${name} was given back without having been taken`);
    if (this.#again.delete(name)) this.add(key);
  }

  #hand(name: string, key: K): K {
    this.#ready.delete(name);
    this.#taken.set(name, key);
    return key;
  }

  /** Makes ready what is due. */
  #release(): void {
    for (;;) {
      const key = this.#delayed.takeDue(this.#clock.monotonicMs());
      if (key === undefined) return;
      this.add(key);
    }
  }

  /** Returns when there was news or the earliest delayed key is due. */
  async #change(signal: AbortSignal): Promise<void> {
    const dueMs = this.#delayed.nextMs();
    if (dueMs === undefined) return await orAborted(this.#news.promise, signal);
    const enough = new AbortController();
    const waitMs = dueMs - this.#clock.monotonicMs();
    const due = this.#clock.sleep(waitMs, AbortSignal.any([signal, enough.signal]));
    try {
      await Promise.race([this.#news.promise, due]);
    } finally {
      enough.abort();
    }
  }
}
