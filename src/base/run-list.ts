/** Runs of bytes or of holes, two numbers each: there may be millions. A run is [start, end), and never empty. */
export class RunList {
  /** Start and end of each; the end of a hole is negative. */
  #ends = new Float64Array(2 * 64);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  push(start: number, end: number, isHole: boolean): void {
    if (2 * this.#length === this.#ends.length) {
      // The smaller one is gone at once, and not when garbage is collected.
      this.#ends = new Float64Array(this.#ends.buffer.transfer(2 * this.#ends.byteLength));
    }
    this.#ends[2 * this.#length] = start;
    this.#length += 1;
    this.#setEnd(this.#length - 1, end, isHole);
  }

  /** Makes the last run end there. */
  extendLast(end: number): void {
    this.#setEnd(this.#length - 1, end, this.isHole(this.#length - 1));
  }

  /** NaN past the last one, as for {@link endOf}. */
  startOf(nth: number): number {
    return nth < this.#length ? (this.#ends[2 * nth] ?? Number.NaN) : Number.NaN;
  }

  endOf(nth: number): number {
    return Math.abs(this.#signedEnd(nth));
  }

  isHole(nth: number): boolean {
    return this.#signedEnd(nth) < 0;
  }

  #signedEnd(nth: number): number {
    return nth < this.#length ? (this.#ends[2 * nth + 1] ?? Number.NaN) : Number.NaN;
  }

  #setEnd(nth: number, end: number, isHole: boolean): void {
    this.#ends[2 * nth + 1] = isHole ? -end : end;
  }
}
