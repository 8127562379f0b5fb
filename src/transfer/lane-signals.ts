// The numbers that a lane's thread and the main thread share. They reach a thread that is busy or blocked, which a message
// does not.

const bellAt = 0;
const stoppedAt = 1;
const bytesSentAt = 1;

export class LaneSignals {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array<SharedArrayBuffer>;
  readonly #counters: BigUint64Array<SharedArrayBuffer>;

  /** Over a buffer that the other thread made, or a new one. */
  constructor(buffer = new SharedArrayBuffer(16)) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
    this.#counters = new BigUint64Array(buffer);
  }

  /** Tells the thread to leave the files alone from now on, and wakes it. */
  stop(): void {
    Atomics.store(this.#words, stoppedAt, 1);
    this.ring();
  }

  get isStopped(): boolean {
    return Atomics.load(this.#words, stoppedAt) !== 0;
  }

  /** Wakes a thread that waits; to be called after each message to one that blocks. */
  ring(): void {
    Atomics.add(this.#words, bellAt, 1);
    Atomics.notify(this.#words, bellAt);
  }

  /** How often it rang: what {@link waitPast} is told, read before looking for work. */
  get rings(): number {
    return Atomics.load(this.#words, bellAt);
  }

  /** Blocks the thread until it has rung more often than `rings`, but no longer than `timeoutMs`. */
  waitPast(rings: number, timeoutMs: number): void {
    Atomics.wait(this.#words, bellAt, rings, timeoutMs);
  }

  get bytesSent(): number {
    return Number(Atomics.load(this.#counters, bytesSentAt));
  }

  addSent(bytes: number): void {
    Atomics.add(this.#counters, bytesSentAt, BigInt(bytes));
  }
}
