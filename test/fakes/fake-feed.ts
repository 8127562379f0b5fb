// A numbered log of changes with live followers: the fake agent's change stream, whole and bounded like a real one.
import type { Change } from "../../src/wire/schemas.ts";

export class FakeFeed {
  #kept: Change[] = [];
  #sequence = 0;
  #wake = new Set<() => void>();
  readonly #keptMax: number;

  constructor(keptMax: number) {
    this.#keptMax = keptMax;
  }

  get sequence(): number {
    return this.#sequence;
  }

  push(kind: Change["kind"], name: string): void {
    this.#sequence++;
    this.#kept.push({ sequence: this.#sequence, kind, name });
    if (this.#kept.length > this.#keptMax) this.#kept.shift();
    for (const wake of this.#wake) wake();
  }

  /** Forgets what happened, as an agent does that was restarted: followers of old numbers are told to list again. */
  forget(): void {
    this.#kept = [];
  }

  async *follow(since: number, signal: AbortSignal): AsyncGenerator<Change> {
    let at = since;
    while (!signal.aborted) {
      if (at > this.#sequence || at < this.#sequence - this.#kept.length) {
        at = this.#sequence;
        yield { sequence: at, kind: "resync", name: "" };
        continue;
      }
      const next = this.#kept.find((change) => change.sequence > at);
      if (next === undefined) await this.#nextPush(signal);
      else {
        at = next.sequence;
        yield next;
      }
    }
  }

  #nextPush(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#wake.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.#wake.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }
}
