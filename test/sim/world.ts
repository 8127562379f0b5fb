// One seed's world: clusters of nodes on one clock, a network and disks that fail as the seed says, and what must hold.
import type { EngineLimits } from "../../src/engine/engine-options.ts";
import { Chance } from "./chance.ts";
import { Crashes, Faults } from "./faults.ts";
import { Host, type Process, simLimits } from "./host.ts";
import { Invariants } from "./invariants.ts";
import { SimNetwork } from "./sim-network.ts";
import { Timeline } from "./timeline.ts";

export interface Cluster {
  readonly name: string;
  readonly uid: string;
  readonly hosts: readonly Host[];
}

export interface Violation {
  readonly invariant: string;
  readonly message: string;
  readonly atMs: number;
}

const notesKept = 60;

export class World {
  readonly chance: Chance;
  readonly timeline = new Timeline();
  readonly faults: Faults;
  readonly crashes: Crashes;
  readonly network: SimNetwork;
  readonly invariants: Invariants;
  readonly clusters: Cluster[] = [];
  readonly limits: EngineLimits = simLimits;
  readonly violations: Violation[] = [];
  readonly notes: string[] = [];
  /** Tells everything, for a replay. */
  readonly isTelling: boolean;
  isHealed = false;
  private readonly hosts = new Map<string, Host>();

  constructor(seed: number, isTelling = false) {
    this.chance = new Chance(seed);
    this.isTelling = isTelling;
    this.faults = new Faults(this.chance.fork());
    this.crashes = new Crashes(this.chance.fork());
    this.network = new SimNetwork(this);
    this.invariants = new Invariants(this);
  }

  addCluster(name: string, nodes: number): Cluster {
    const id = { uid: `uid-${name}`, name };
    const hosts = Array.from({ length: nodes }, (_, index) => new Host(this, id, `${name}${index + 1}`));
    for (const host of hosts) this.hosts.set(host.name, host);
    const cluster = { ...id, hosts };
    this.clusters.push(cluster);
    return cluster;
  }

  get allHosts(): readonly Host[] {
    return [...this.hosts.values()];
  }

  hostAt(address: string): Host | undefined {
    return this.hosts.get(address.split(":")[0] ?? "");
  }

  clusterOf(uid: string): Cluster | undefined {
    return this.clusters.find((cluster) => cluster.uid === uid);
  }

  seedsOf(host: Host): string[] {
    const { hosts } = this.clusterOf(host.cluster.uid) ?? { hosts: [] };
    return hosts.length < 2 ? [] : hosts.map(({ address }) => address);
  }

  fate(host: Host, effect: string): "go" | "before" | "after" {
    return this.crashes.fate(host, effect);
  }

  opened(process: Process): void {
    const row = process.host.journal.read.get<{ id: string }>("SELECT id FROM agent");
    process.host.agentId = row?.id;
  }

  restartLater(host: Host): void {
    const downMs = this.isHealed ? 100 : this.chance.pick([50, 500, 5_000]) * this.chance.between(0.2, 2);
    this.timeline.after(downMs, undefined, () => host.start());
  }

  violated(invariant: string, message: string): void {
    this.note(undefined, `VIOLATED ${invariant}: ${message}`);
    this.violations.push({ invariant, message, atMs: this.timeline.nowMs });
  }

  note(host: Host | undefined, text: string): void {
    const line = `${this.timeline.nowMs.toFixed(1).padStart(9)} ${(host?.name ?? "").padEnd(3)} ${text}`;
    if (this.isTelling) console.log(line);
    this.notes.push(line);
    if (this.notes.length > notesKept) this.notes.shift();
  }

  close(): void {
    this.timeline.close();
    for (const host of this.allHosts) {
      if (host.process !== undefined) host.process.isDead = true;
      host.journal.close();
    }
  }
}
