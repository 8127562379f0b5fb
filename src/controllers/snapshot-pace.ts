// How many snapshots an agent is asked for at once: one ledger for all reconcilers, for each snapshot holds up writers, and a
// class that is enabled is many volumes on one schedule. Whoever does not get a turn asks again, the later the more there are.
import type { Clock } from "../base/clock.ts";

/** `go`: it is counted until {@link leave}. */
export type Turn = { readonly kind: "go"; leave(): void } | { readonly kind: "wait"; readonly waitMs: number };

export interface SnapshotPace {
  /** Asks for a snapshot that all these agents have a part in, on behalf of `who`: all of them have room, or it waits. */
  ask(who: string, agentIds: readonly string[]): Turn;
}

/** So many run at once on one agent. */
const atOnceMax = 4;

/** So soon those that wait ask again: the first, and the last of very many. */
const waitMsMin = 250;
const waitMsMax = 10_000;

/** They come one after the other, this far apart. */
const apartMs = 10;

export function openSnapshotPace(clock: Clock): SnapshotPace {
  return new Ledger(clock);
}

class Ledger implements SnapshotPace {
  readonly #clock: Clock;
  /** How many run, by agent. */
  readonly #running = new Map<string, number>();
  /** When those that wait have asked last, the one that asked longest ago first. */
  readonly #waiting = new Map<string, number>();

  constructor(clock: Clock) {
    this.#clock = clock;
  }

  ask(who: string, agentIds: readonly string[]): Turn {
    this.#waiting.delete(who);
    const agents = new Set(agentIds);
    if ([...agents].every((agent) => this.#runningOn(agent) < atOnceMax)) return this.#admit(agents);
    this.#forget();
    this.#waiting.set(who, this.#clock.monotonicMs());
    return { kind: "wait", waitMs: Math.min(waitMsMax, waitMsMin + this.#waiting.size * apartMs) };
  }

  #admit(agents: ReadonlySet<string>): Turn {
    for (const agent of agents) this.#running.set(agent, this.#runningOn(agent) + 1);
    let isOver = false;
    const leave = () => {
      if (isOver) return;
      isOver = true;
      for (const agent of agents) this.#leave(agent);
    };
    return { kind: "go", leave };
  }

  #leave(agent: string): void {
    const left = this.#runningOn(agent) - 1;
    if (left > 0) this.#running.set(agent, left);
    else this.#running.delete(agent);
  }

  /** Who has not asked again in time has given up. */
  #forget(): void {
    const beforeMs = this.#clock.monotonicMs() - 2 * waitMsMax;
    for (const [who, askedMs] of this.#waiting) {
      if (askedMs >= beforeMs) return;
      this.#waiting.delete(who);
    }
  }

  #runningOn(agent: string): number {
    return this.#running.get(agent) ?? 0;
  }
}
