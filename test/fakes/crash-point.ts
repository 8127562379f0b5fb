// A process that dies, or loses an answer, at its n-th effect. Fakes that share one CrashPoint count together, so that a
// test can go through every effect of a run in turn, whichever fake it happens in.

/** What a process throws that has been killed; nothing it does afterwards has any effect. */
export class FakeCrash extends Error {
  override readonly name = "FakeCrash";
}

/**
 * `before`: killed before the effect; `after`: killed right after it; `lostReply`: the effect happens, the caller gets a
 * failure instead of its answer, and lives on.
 */
export type CrashMode = "before" | "after" | "lostReply";

export interface CrashPlan {
  /** Counted from 1. */
  readonly effect: number;
  readonly mode: CrashMode;
}

export class CrashPoint {
  readonly #plan: CrashPlan | undefined;
  /** What has been done or tried, in order. */
  readonly effects: string[] = [];
  #isDead = false;
  #wasReached = false;

  constructor(plan?: CrashPlan) {
    this.#plan = plan;
  }

  /** Whether the process was killed. */
  get isDead(): boolean {
    return this.#isDead;
  }

  /** Whether the run got as far as the planned effect. */
  get wasReached(): boolean {
    return this.#wasReached;
  }

  /** To be called by everything a process does, reads included: the dead do nothing. */
  check(): void {
    if (this.#isDead) throw new FakeCrash("this process was killed");
  }

  /** Performs one mutating effect, or not, or without an answer. `lost` makes the failure that its caller then sees. */
  async effect<R>(name: string, perform: () => R | Promise<R>, lost: (name: string) => Error): Promise<R> {
    this.check();
    this.effects.push(name);
    if (this.effects.length !== this.#plan?.effect) return await perform();
    this.#wasReached = true;
    if (this.#plan.mode === "before") this.#die(`before ${name}`);
    await perform();
    if (this.#plan.mode === "after") this.#die(`after ${name}`);
    throw lost(name);
  }

  #die(when: string): never {
    this.#isDead = true;
    throw new FakeCrash(`killed ${when}`);
  }
}
