// What a source's thread may still send, where a pace is kept: the main thread grants it bit by bit.

/** More is asked for when less than this may still be sent, so that a grant is here when it is needed. */
const lowBytes = 128 * 1024;

export class SourceCredit {
  readonly #isPaced: boolean;
  readonly #ask: (bytes: number) => void;
  #credit = 0;
  /** Bytes that are to be sent and were not granted yet. */
  #ungranted = 0;
  #isAsking = false;

  /** `ask` is called with what may be granted, in whole or in part; one question at a time. */
  constructor(isPaced: boolean, ask: (bytes: number) => void) {
    this.#isPaced = isPaced;
    this.#ask = ask;
  }

  /** So much more is to be sent. */
  want(bytes: number): void {
    this.#ungranted += bytes;
    this.#askWhenLow();
  }

  grant(bytes: number): void {
    this.#credit += bytes;
    this.#ungranted -= bytes;
    this.#isAsking = false;
    this.#askWhenLow();
  }

  /** Whether so many bytes may be sent before the next grant. */
  has(bytes: number): boolean {
    return !this.#isPaced || this.#credit >= bytes;
  }

  /** How much of `bytes` may be sent now. */
  part(bytes: number): number {
    return this.#isPaced ? Math.min(bytes, this.#credit) : bytes;
  }

  spend(bytes: number): void {
    if (!this.#isPaced) return;
    this.#credit -= bytes;
    this.#askWhenLow();
  }

  #askWhenLow(): void {
    if (!this.#isPaced || this.#isAsking || this.#ungranted === 0 || this.#credit > lowBytes) return;
    this.#isAsking = true;
    this.#ask(this.#ungranted);
  }
}
