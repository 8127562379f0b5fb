// What goes wrong in one seed's world, within the ranges that a seed draws from, until it is healed.
import type { Chance } from "./chance.ts";
import type { Host } from "./host.ts";

/** Parts of the world that can cut each other off: hosts, and the operators of clusters. */
export interface Party {
  readonly name: string;
}

export class Faults {
  readonly loss: number;
  private readonly duplication: number;
  readonly wireFlips: number;
  readonly diskFlips: number;
  private readonly latencyMaxMs: number;
  private readonly stragglers: number;
  private readonly slowDisk: number;
  private readonly echoes: number;
  private readonly chance: Chance;
  /** `from to` of those whose messages do not arrive. */
  private cuts = new Set<string>();
  private isHealed = false;

  constructor(chance: Chance) {
    this.chance = chance;
    const calm = chance.is(0.15);
    this.loss = calm ? 0 : chance.pick([0, 0.02, 0.1, 0.3]) * chance.between(0.5, 1);
    this.duplication = chance.pick([0, 0.1, 0.5]) * chance.between(0, 1);
    this.wireFlips = chance.is(0.3) ? chance.between(0, 0.1) : 0;
    this.diskFlips = chance.is(0.2) ? chance.between(0, 0.05) : 0;
    this.latencyMaxMs = chance.pick([2, 10, 60]);
    this.stragglers = chance.pick([0, 0.01, 0.06]);
    this.slowDisk = chance.pick([0, 0.05, 0.3]);
    this.echoes = chance.pick([0, 0, 0.03, 0.1]);
  }

  /** Of a message; now and then one is overtaken by all that follow. */
  latencyMs(): number {
    if (!this.isHealed && this.chance.is(this.stragglers)) return this.chance.between(100, 8_000);
    return this.chance.between(0.5, this.latencyMaxMs);
  }

  /** How long a step on a disk takes. Deletions of large files are slow on any disk. */
  diskDelayMs(step: string): number {
    if (this.isHealed) return 0;
    if (step === "deletePoint" && this.slowDisk > 0) return this.chance.between(0.5, 400);
    if (!this.chance.is(this.slowDisk)) return 0;
    return this.chance.is(0.1) ? this.chance.between(50, 4_000) : this.chance.between(0.5, 20);
  }

  isLost(): boolean {
    return !this.isHealed && this.chance.is(this.loss);
  }

  isDuplicated(): boolean {
    return !this.isHealed && this.chance.is(this.duplication);
  }

  isEchoed(): boolean {
    return !this.isHealed && this.chance.is(this.echoes);
  }

  isCut(from: Party, to: Party): boolean {
    return this.cuts.size > 0 && this.cuts.has(`${from.name} ${to.name}`);
  }

  /** Cuts between two sides, one way or both; replaces what was cut before. */
  partition(left: readonly Party[], right: readonly Party[]): string {
    const way = this.chance.pick(["both", "both", "there", "back"] as const);
    this.cuts = new Set();
    for (const from of left) {
      for (const to of right) {
        if (way !== "back") this.cuts.add(`${from.name} ${to.name}`);
        if (way !== "there") this.cuts.add(`${to.name} ${from.name}`);
      }
    }
    return way;
  }

  join(): void {
    this.cuts = new Set();
  }

  heal(): void {
    this.join();
    this.isHealed = true;
  }
}

/** Effects that much hangs on happen seldom; crashes are drawn at them more often than at others. */
const decisive = /commit|prepare|settle|release|seal|store|order|claim|sync|confirm/i;
const decisiveWeight = 8;

/** When the seed has nodes crash: counted in effects of all of them. */
export class Crashes {
  private readonly chance: Chance;
  private left: number;
  private readonly gapMax: number;
  private untilNext: number;

  constructor(chance: Chance) {
    this.chance = chance;
    this.left = chance.pick([0, 1, 2, 4, 8]);
    this.gapMax = chance.pick([40, 150, 600]);
    this.untilNext = this.gap();
  }

  fate(host: Host, effect: string): "go" | "before" | "after" {
    if (this.left === 0 || !host.isUp) return "go";
    this.untilNext -= decisive.test(effect) ? decisiveWeight : 1;
    if (this.untilNext > 0) return "go";
    this.left -= 1;
    this.untilNext = this.gap();
    return this.chance.pick(["before", "after"] as const);
  }

  stop(): void {
    this.left = 0;
  }

  private gap(): number {
    return this.chance.whole(1, this.gapMax);
  }
}
