// Which keys to look at, and when. News about a key that already waits coalesces with it; a key is with one worker at a time,
// and news that comes meanwhile makes it wait again afterwards; a key may wait for a time, which news brings forward. Keys
// may have lanes with so many workers each, so that those that take long take no workers from the others.
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { orAborted } from "./abortable.ts";
import { DueQueue } from "./due-queue.ts";

/** Which lane a key is in, and how many keys of one lane may be taken at once. */
export interface Lanes<K> {
  laneOf(key: K): string;
  readonly width: number;
}

const unbounded: Lanes<unknown> = { laneOf: () => "", width: Number.POSITIVE_INFINITY };

interface Ready<K> {
  readonly key: K;
  readonly lane: string;
}

export class WorkQueue<K> {
  readonly #clock: Clock;
  readonly #nameOf: (key: K) => string;
  readonly #lanes: Lanes<K>;
  /** Ready to be taken, in order of arrival. */
  readonly #ready = new Map<string, Ready<K>>();
  /** The lanes of taken keys, and how many are taken of each. */
  readonly #taken = new Map<string, string>();
  readonly #busy = new Map<string, number>();
  /** Taken keys about which there was news. */
  readonly #again = new Set<string>();
  readonly #delayed = new DueQueue<K>();
  /** Tells the one who waits in {@link WorkQueue.take} that there was news. */
  #news = Promise.withResolvers<void>();

  constructor(clock: Clock, nameOf: (key: K) => string, lanes: Lanes<K> = unbounded) {
    this.#clock = clock;
    this.#nameOf = nameOf;
    this.#lanes = lanes;
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
      // One that waits already keeps its place, and is in the lane that is right now.
      else this.#ready.set(name, { key, lane: this.#lanes.laneOf(key) });
    }
    this.#news.resolve();
  }

  /**
   * The next key whose lane has room, as soon as there is one; rejects with the signal's reason. It stays with the caller
   * until {@link WorkQueue.done}. Only one caller may wait at a time.
   */
  async take(signal: AbortSignal): Promise<K> {
    for (;;) {
      signal.throwIfAborted();
      this.#news = Promise.withResolvers<void>();
      this.#release();
      const next = this.#next();
      if (next === undefined) await this.#change(signal);
      else return this.#hand(...next);
    }
  }

  /**
   * Gives the key back: it can be taken again, and waits at once if there was news about it meanwhile. With `afterMs` it
   * waits that long, whether or not there was: for one that failed, whose news may be of what it wrote about its failure.
   */
  done(key: K, afterMs = 0): void {
    const name = this.#nameOf(key);
    const lane = this.#taken.get(name);
    assert(lane !== undefined, `${name} was given back without having been taken`);
    this.#taken.delete(name);
    this.#leave(lane);
    const hadNews = this.#again.delete(name);
    if (hadNews || afterMs > 0) this.add(key, afterMs);
    // There is room in its lane now.
    this.#news.resolve();
  }

  /** The first that is ready in a lane with room. */
  #next(): [string, Ready<K>] | undefined {
    for (const entry of this.#ready) if (this.#busyIn(entry[1].lane) < this.#lanes.width) return entry;
    return undefined;
  }

  #hand(name: string, { key, lane }: Ready<K>): K {
    this.#ready.delete(name);
    this.#taken.set(name, lane);
    this.#busy.set(lane, this.#busyIn(lane) + 1);
    return key;
  }

  #leave(lane: string): void {
    const left = this.#busyIn(lane) - 1;
    if (left > 0) this.#busy.set(lane, left);
    else this.#busy.delete(lane);
  }

  #busyIn(lane: string): number {
    return this.#busy.get(lane) ?? 0;
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
