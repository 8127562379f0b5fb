// One seed from its first event to its last judgement: a world is drawn, lives through its faults, is healed, and must come to
// rest with nothing left over (I6).
import { Chance } from "./chance.ts";
import { behind, leftovers } from "./end-state.ts";
import { Kubernetes, SimOperator, type WantedVolume } from "./sim-operator.ts";
import { Users } from "./users.ts";
import { type Violation, World } from "./world.ts";

export interface SeedResult {
  readonly seed: number;
  readonly violations: readonly Violation[];
  /** The last events. */
  readonly notes: readonly string[];
  readonly events: number;
  readonly commits: number;
}

export async function runSeed(seed: number, { isTelling = false } = {}): Promise<SeedResult> {
  const world = new World(seed, isTelling);
  const scenario = new Scenario(world, new Chance(seed ^ 0x5eed));
  watchForUnhandled();
  present = scenario;
  try {
    await scenario.run();
  } finally {
    world.close();
  }
  const { violations, notes, timeline, invariants } = world;
  return { seed, violations, notes, events: timeline.count, commits: invariants.commits.size };
}

/** The one that is running, which a rejection that nobody awaits is told to. */
let present: Scenario | undefined;
let isWatching = false;

function watchForUnhandled(): void {
  if (isWatching) return;
  isWatching = true;
  process.on("unhandledRejection", (error) => present?.unhandled(error));
}

const sliceMs = 500;
/** From the healing to the last transfer, at most. */
const patienceMs = 90_000;
/** Leases, aged staging and forgotten requests have ended by then. */
const quietMs = 40_000;

class Scenario {
  private readonly world: World;
  private readonly chance: Chance;
  private readonly users: Users;
  private readonly kubernetes: Kubernetes[] = [];
  private operators: SimOperator[] = [];

  constructor(world: World, chance: Chance) {
    this.world = world;
    this.chance = chance;
    this.users = new Users(world);
  }

  unhandled(error: unknown): void {
    if ((error as Error)?.name === "Dead") return;
    this.world.violated("I0", `unhandled: ${(error as Error)?.stack ?? error}`);
  }

  async run(): Promise<void> {
    const { world, chance } = this;
    this.build();
    const chaosMs = chance.between(8_000, 28_000);
    this.misfortunes(chaosMs);
    if (!(await this.live(chaosMs))) return;
    this.heal();
    const healedAtMs = world.timeline.nowMs;
    const isSettled = () => behind(world, this.kubernetes) === undefined;
    while (world.timeline.nowMs < healedAtMs + patienceMs) {
      if (!(await this.live(world.timeline.nowMs + sliceMs))) return;
      if (!this.kubernetes.some(({ isDone }) => isDone) && world.timeline.nowMs > healedAtMs + 1_000)
        this.lastSnapshots();
      else if (isSettled()) break;
    }
    const lag = behind(world, this.kubernetes);
    if (lag !== undefined) return world.violated("I6", `after ${patienceMs} ms without faults: ${lag}`);
    const quietUntilMs = world.timeline.nowMs + quietMs;
    do {
      if (!(await this.live(world.timeline.nowMs + 2 * sliceMs))) return;
    } while (world.timeline.nowMs < quietUntilMs && leftovers(world).length > 0);
    for (const left of leftovers(world)) world.violated("I6", left);
  }

  /** Lets time pass; false as soon as an invariant is broken. */
  private async live(untilMs: number): Promise<boolean> {
    const { world } = this;
    await world.timeline.run(untilMs, () => world.violations.length > 0);
    return world.violations.length === 0;
  }

  // ---- the world ---------------------------------------------------------------------------------------------------

  private build(): void {
    const { world, chance } = this;
    const clusterCount = chance.pick([2, 2, 2, 2, 3, 4]);
    for (let index = 0; index < clusterCount; index++) {
      const nodes = chance.pick([1, 1, 1, 2, 2, 3, 4]);
      const cluster = world.addCluster("abcd".charAt(index), nodes);
      this.kubernetes.push(new Kubernetes(cluster));
    }
    const isBothWays = chance.is(0.4);
    for (const [index, kubernetes] of this.kubernetes.entries()) {
      if (index > 0 && !isBothWays) continue;
      this.pair(kubernetes, this.kubernetes.filter((other) => other !== kubernetes).slice(0, chance.whole(1, 2)));
    }
    for (const host of world.allHosts) host.start();
    this.operators = this.kubernetes.map((kubernetes) => new SimOperator(world, kubernetes));
    for (const { volumes, groups } of this.kubernetes) {
      for (const group of groups) void this.users.groupGuest(group);
      for (const volume of volumes) {
        if (!groups.some((group) => group.volumes.includes(volume))) void this.users.guest(volume);
        if (chance.is(0.4)) void this.users.holder(volume);
      }
    }
    for (const kubernetes of this.kubernetes) {
      for (const host of kubernetes.cluster.hosts) {
        if (kubernetes.sources.length > 0 && chance.is(0.8)) void this.users.cloner(host, kubernetes);
      }
    }
  }

  private pair(kubernetes: Kubernetes, targets: readonly Kubernetes[]): void {
    const { chance } = this;
    for (const target of targets) {
      kubernetes.locations.push(target.cluster);
      target.sources.push(kubernetes.cluster);
    }
    Object.assign(kubernetes, {
      intervalMs: chance.pick([1_500, 3_000, 6_000]),
      retentionCount: chance.whole(0, 2),
      migrateOn: chance.pick(["Creation", "Expiry"] as const),
      cancelRate: chance.pick([0, 0, 0.03, 0.15]),
      oldNewsRate: chance.pick([0, 0.2, 0.5]),
    });
    const volume = (name: string): WantedVolume => {
      const host = chance.pick(kubernetes.cluster.hosts);
      const wanted = {
        name,
        host,
        sizeBytes: chance.whole(8, 24) * 4096,
        locations: targets.map(({ cluster }) => cluster.name),
      };
      kubernetes.volumes.push(wanted);
      return wanted;
    };
    const { name } = kubernetes.cluster;
    const hasGroup = chance.is(0.5);
    for (let count = hasGroup ? chance.whole(0, 1) : chance.whole(1, 2); count > 0; count--) volume(`v${name}${count}`);
    if (!hasGroup) return;
    const members = Array.from({ length: chance.whole(2, 3) }, (_, index) => volume(`g${name}${index + 1}`));
    kubernetes.groups.push({ name: `g${name}`, volumes: members });
  }

  // ---- misfortunes -------------------------------------------------------------------------------------------------

  private misfortunes(untilMs: number): void {
    const { chance } = this;
    this.now(chance.pick([0, 1, 3]), untilMs, () => this.partition());
    this.now(chance.pick([0, 0, 1, 3]), untilMs, () => this.suspend());
    this.now(chance.pick([0, 0, 1, 2]), untilMs, () => this.fillDisk());
    this.now(chance.pick([0, 1, 2]), untilMs, () => this.jump());
    this.now(chance.pick([0, 1]), untilMs, () => this.killOperator());
    this.now(chance.pick([0, 0, 1, 2]), untilMs, () => chance.pick(this.world.allHosts).crash("misfortune"));
    if (chance.is(0.35)) this.restoreLater(untilMs);
  }

  /** Old images are some seconds old; what they have forgotten is what the others still remember. */
  private restoreLater(untilMs: number): void {
    const { world, chance } = this;
    const sources = this.kubernetes.flatMap(({ volumes }) => volumes.map(({ host }) => host));
    const victim = chance.pick(chance.is(0.6) ? sources : world.allHosts);
    this.now(chance.whole(1, 3), untilMs, () => {
      if (victim.isUp) victim.backUp();
      world.timeline.after(chance.between(1_000, 9_000), undefined, () => {
        if (!world.isHealed && chance.is(0.6)) this.restore(victim);
      });
    });
  }

  /** So often, at any time. */
  private now(times: number, untilMs: number, happen: () => void): void {
    for (let left = times; left > 0; left--) {
      this.world.timeline.after(this.chance.between(500, untilMs), undefined, () => {
        if (!this.world.isHealed) happen();
      });
    }
  }

  private partition(): void {
    const { world, chance } = this;
    const parties = [...world.allHosts, ...this.kubernetes.map(({ cluster }) => ({ name: `op-${cluster.name}` }))];
    const cluster = chance.pick(world.clusters);
    const host = chance.pick(world.allHosts);
    const isInside = chance.pick([
      ({ name }: { name: string }) => cluster.hosts.some((one) => one.name === name),
      ({ name }: { name: string }) => name === host.name,
      () => chance.is(0.5),
    ]);
    const sides: { name: string }[][] = [[], []];
    for (const party of parties) sides[isInside(party) ? 0 : 1]?.push(party);
    const [left = [], right = []] = sides;
    const way = world.faults.partition(left, right);
    world.note(undefined, `partition ${left.map(({ name }) => name)} | ${right.map(({ name }) => name)}, ${way}`);
    world.timeline.after(chance.pick([500, 4_000, 15_000]) * chance.between(0.3, 1.2), undefined, () =>
      world.faults.join(),
    );
  }

  private suspend(): void {
    const { world, chance } = this;
    const host = chance.pick(world.allHosts);
    host.suspendedUntilMs = world.timeline.nowMs + chance.pick([500, 4_000, 10_000]) * chance.between(0.5, 1.5);
    world.note(host, `suspended until ${host.suspendedUntilMs.toFixed(1)}`);
  }

  private fillDisk(): void {
    const { world, chance } = this;
    const host = chance.pick(world.allHosts);
    host.disk.isFull = true;
    world.note(host, "disk full");
    world.timeline.after(chance.between(300, 8_000), undefined, () => {
      host.disk.isFull = false;
    });
  }

  private jump(): void {
    const { world, chance } = this;
    const host = chance.pick(world.allHosts);
    host.wall.skewMs += chance.pick([-1, 1]) * chance.pick([500, 30_000, 86_400_000]);
    world.note(host, `the wall clock is ${host.wall.skewMs} ms off`);
  }

  private killOperator(): void {
    const { world, chance } = this;
    const index = chance.whole(0, this.operators.length - 1);
    const kubernetes = this.kubernetes[index];
    if (kubernetes === undefined) return;
    this.operators[index]?.die();
    world.note(undefined, `operator ${kubernetes.cluster.name} died`);
    world.timeline.after(chance.between(200, 4_000), undefined, () => {
      this.operators[index] = new SimOperator(world, kubernetes);
    });
  }

  private restore(victim: World["allHosts"][number]): void {
    if (victim.backups.length === 0) return;
    victim.crash("to be restored");
    victim.restore();
  }

  // ---- healing -----------------------------------------------------------------------------------------------------

  private heal(): void {
    const { world } = this;
    world.note(undefined, "healed");
    world.isHealed = true;
    world.crashes.stop();
    world.faults.heal();
    this.users.isLeaving = true;
    for (const host of world.allHosts) {
      host.disk.isFull = false;
      host.suspendedUntilMs = 0;
      host.start();
    }
    for (const kubernetes of this.kubernetes) Object.assign(kubernetes, { cancelRate: 0, oldNewsRate: 0 });
  }

  /** After these, nothing new has to be brought over. */
  private lastSnapshots(): void {
    this.world.note(undefined, "last snapshots");
    for (const kubernetes of this.kubernetes) kubernetes.isDone = true;
  }
}
