// Keys with the time at which each is due: a binary heap, and the present time of each key; entries of the heap that were
// brought forward or removed since are skipped when they surface.

interface Entry<K> {
  readonly name: string;
  readonly key: K;
  readonly dueMs: number;
}

const staleEntriesMax = 64;

export class DueQueue<K> {
  readonly #heap: Entry<K>[] = [];
  readonly #present = new Map<string, Entry<K>>();

  get size(): number {
    return this.#present.size;
  }

  /** Makes the key due at `dueMs`, unless it is due earlier already. */
  set(name: string, key: K, dueMs: number): void {
    const present = this.#present.get(name);
    if (present !== undefined && present.dueMs <= dueMs) return;
    const entry = { name, key, dueMs };
    this.#present.set(name, entry);
    this.#push(entry);
  }

  delete(name: string): void {
    this.#present.delete(name);
    if (this.#present.size === 0) this.#heap.length = 0;
  }

  /** When the earliest key is due, `undefined` when there is none. */
  nextMs(): number | undefined {
    return this.#earliest()?.dueMs;
  }

  /** Removes and returns the earliest key if it is due by `nowMs`. */
  takeDue(nowMs: number): K | undefined {
    const entry = this.#earliest();
    if (entry === undefined || entry.dueMs > nowMs) return undefined;
    this.#pop();
    this.#present.delete(entry.name);
    return entry.key;
  }

  #earliest(): Entry<K> | undefined {
    for (;;) {
      const top = this.#heap[0];
      if (top === undefined || this.#present.get(top.name) === top) return top;
      this.#pop();
    }
  }

  #push(entry: Entry<K>): void {
    // Entries that no longer count must not pile up where keys are brought forward again and again.
    if (this.#heap.length > 2 * this.#present.size + staleEntriesMax) {
      this.#rebuild();
      return;
    }
    let at = this.#heap.length;
    this.#heap.push(entry);
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.#dueMs(parent) <= entry.dueMs) return;
      this.#swap(at, parent);
      at = parent;
    }
  }

  /** A sorted list is a heap. */
  #rebuild(): void {
    const entries = [...this.#present.values()].sort((left, right) => left.dueMs - right.dueMs);
    this.#heap.length = 0;
    for (const entry of entries) this.#heap.push(entry);
  }

  #pop(): void {
    const last = this.#heap.pop();
    if (last === undefined || this.#heap.length === 0) return;
    this.#heap[0] = last;
    let at = 0;
    for (;;) {
      const left = 2 * at + 1;
      const child = this.#dueMs(left + 1) < this.#dueMs(left) ? left + 1 : left;
      if (this.#dueMs(child) >= this.#dueMs(at)) return;
      this.#swap(at, child);
      at = child;
    }
  }

  #dueMs(at: number): number {
    return this.#heap[at]?.dueMs ?? Number.POSITIVE_INFINITY;
  }

  #swap(left: number, right: number): void {
    const [a, b] = [this.#heap[left], this.#heap[right]];
    if (a === undefined || b === undefined) return;
    this.#heap[left] = b;
    this.#heap[right] = a;
  }
}
