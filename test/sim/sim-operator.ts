// A cluster's operator, as small as it can be while it decides as the real one does: by schedule, retention and what is due
// (src/domain/), on lists that may be old, with Kubernetes as the one thing that it never loses. It dies now and then.
import { codeOf } from "../../src/domain/errors.ts";
import { planMigrations, type SnapshotFacts, type VolumeFacts } from "../../src/domain/migration-due.ts";
import { expiryOf } from "../../src/domain/retention.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import type { JobState, VolumeView } from "../../src/wire/schemas.ts";
import { Dead, type Host } from "./host.ts";
import type { Caller } from "./sim-network.ts";
import type { Owner } from "./timeline.ts";
import type { Cluster, World } from "./world.ts";

/** A volume that the user of a cluster wants. */
export interface WantedVolume {
  readonly name: string;
  readonly host: Host;
  readonly locations: readonly string[];
  sizeBytes: number;
}

/** What Kubernetes keeps of one MigrationJob. */
interface JobRecord {
  readonly name: string;
  readonly volume: string;
  readonly location: string;
  readonly snapshot: string;
  fromPointId: string | undefined;
  phase: JobState | undefined;
}

/** What outlives an operator's process. */
export class Kubernetes {
  readonly cluster: Cluster;
  readonly volumes: WantedVolume[] = [];
  /** Clusters that are locations of this one, and those it takes volumes of. */
  readonly locations: Cluster[] = [];
  readonly sources: Cluster[] = [];
  readonly jobs = new Map<string, JobRecord>();
  intervalMs = 3_000;
  retentionCount = 1;
  migrateOn: VolumeFacts["migrateOn"] = "Creation";
  cancelRate = 0;
  oldNewsRate = 0;
  /** One last snapshot of each volume, and then no more. */
  isDone = false;

  constructor(cluster: Cluster) {
    this.cluster = cluster;
  }
}

/** Snapshots from this number on are those that the world comes to rest with. */
const lastNumber = 1_000_000;

export function isLastSnapshot(name: string | null): boolean {
  return name !== null && Number(name.slice(1)) >= lastNumber;
}

const ended: readonly (JobState | undefined)[] = ["Succeeded", "Failed", "Cancelled"];

export class SimOperator implements Owner {
  isDead = false;
  readonly suspendedUntilMs = 0;
  private readonly world: World;
  private readonly kubernetes: Kubernetes;
  private readonly caller: Caller;
  private readonly lastViews = new Map<string, VolumeView>();
  private readonly prepared = new Set<Host>();

  constructor(world: World, kubernetes: Kubernetes) {
    this.world = world;
    this.kubernetes = kubernetes;
    this.caller = {
      party: { name: `op-${kubernetes.cluster.name}` },
      owner: this,
      effect: () => {
        if (this.isDead) throw new Dead();
      },
    };
    void this.loop();
  }

  die(): void {
    this.isDead = true;
  }

  private async loop(): Promise<void> {
    for (;;) {
      await Promise.all([
        ...this.kubernetes.cluster.hosts.map((host) => this.attempt(() => this.prepare(host), host)),
        ...this.kubernetes.volumes.map((volume) => this.attempt(() => this.reconcile(volume), volume.host)),
      ]);
      await this.world.timeline.pause(this.world.chance.between(600, 2_000), this);
    }
  }

  private async attempt(work: () => Promise<void>, host: Host): Promise<void> {
    try {
      await work();
    } catch (error) {
      // What it made may be gone with an older image of a disk.
      if (["NotFound", "NotConsented"].includes(codeOf(error) ?? "")) this.prepared.delete(host);
      if (codeOf(error) === undefined) this.world.violated("I0", `operator: ${(error as Error).stack}`);
    }
  }

  private agent(host: Host): AgentApi {
    return this.world.network.agent(this.caller, host);
  }

  /** Sees to it that an agent knows the locations and sources, and has the volumes of its node. */
  private async prepare(host: Host): Promise<void> {
    const { sources, locations, volumes } = this.kubernetes;
    const agent = this.agent(host);
    if (!this.prepared.has(host)) {
      for (const { name, uid } of sources) {
        await agent.putSource(name, { clusterName: name, clusterUid: uid, caBundle: "ca" });
      }
      for (const { name, hosts } of locations) {
        await agent.putLocation(name, {
          clusterName: name,
          seeds: hosts.map(({ address }) => address),
          caBundle: "ca",
        });
      }
      for (const { name, sizeBytes } of volumes.filter((volume) => volume.host === host)) {
        await agent.putVolume(name, { sizeBytes, migrationEnabled: true });
      }
      this.prepared.add(host);
    }
  }

  private async reconcile(volume: WantedVolume): Promise<void> {
    const { kubernetes, world } = this;
    if (!this.prepared.has(volume.host)) return;
    const agent = this.agent(volume.host);
    const old = this.lastViews.get(volume.name);
    const view =
      old !== undefined && world.chance.is(kubernetes.oldNewsRate) ? old : await agent.getVolume(volume.name);
    this.lastViews.set(volume.name, view);
    if (view.sizeBytes < volume.sizeBytes) await agent.putVolume(volume.name, { sizeBytes: volume.sizeBytes });
    await this.snapshot(agent, view);
    await this.followJobs(agent, volume);
    const plan = planMigrations(this.facts(volume, view));
    for (const due of plan.jobs) {
      const name = `${volume.name}-${due.location}-${due.snapshot}`;
      const record = { name, volume: volume.name, location: due.location, snapshot: due.snapshot };
      kubernetes.jobs.set(name, { ...record, fromPointId: undefined, phase: undefined });
      await this.ask(agent, kubernetes.jobs.get(name) as JobRecord);
    }
    if (plan.releases.length === 0) return;
    const fresh = await agent.getVolume(volume.name);
    const isFree = new Set(planMigrations(this.facts(volume, fresh)).releases);
    for (const name of plan.releases) if (isFree.has(name)) await agent.removeSnapshot(volume.name, name);
  }

  private async snapshot(agent: AgentApi, view: VolumeView): Promise<void> {
    const due = this.kubernetes.isDone
      ? lastNumber + this.failures(view.name)
      : Math.floor(this.world.timeline.nowMs / this.kubernetes.intervalMs);
    const last = Math.max(-1, ...view.snapshots.map(({ name }) => Number(name.slice(1))));
    if (due <= last) return;
    await agent.putSnapshot(view.name, `s${due}`);
  }

  /** Jobs of last snapshots that failed: each is followed by another snapshot. */
  private failures(volume: string): number {
    const isLast = (job: JobRecord) => job.volume === volume && isLastSnapshot(job.snapshot);
    return [...this.kubernetes.jobs.values()].filter((job) => isLast(job) && job.phase === "Failed").length;
  }

  private async followJobs(agent: AgentApi, volume: WantedVolume): Promise<void> {
    for (const job of this.kubernetes.jobs.values()) {
      if (job.volume !== volume.name || ended.includes(job.phase)) continue;
      try {
        const view = await agent.getJob(job.name);
        job.phase = view.state;
        job.fromPointId = view.from?.pointId;
        if (this.world.chance.is(this.kubernetes.cancelRate))
          await agent.putJob(job.name, { ...view.spec, cancel: true });
        if (ended.includes(job.phase) && this.world.chance.is(0.5)) await agent.removeJob(job.name);
      } catch (error) {
        if (codeOf(error) !== "NotFound") throw error;
        await this.ask(agent, job);
      }
    }
  }

  private async ask(agent: AgentApi, job: JobRecord): Promise<void> {
    const { name, volume, location, snapshot } = job;
    try {
      job.phase = (await agent.putJob(name, { volume, location, snapshot })).state;
    } catch (error) {
      // Such as a snapshot that went with an older image of the disk: this job will never be.
      if (["NotFound", "SnapshotGone", "PointGone", "SnapshotDeleting", "NameTaken"].includes(codeOf(error) ?? "")) {
        job.phase = "Failed";
      }
      throw error;
    }
  }

  private facts(volume: WantedVolume, view: VolumeView): VolumeFacts {
    const { migrateOn, retentionCount, jobs, isDone } = this.kubernetes;
    const alive = view.snapshots.filter(({ state, released }) => state === "sealed" && !released);
    const aged = alive.map(({ name, createdAt }) => ({ name, timeMs: Date.parse(createdAt) }));
    const expired = new Set(expiryOf(aged, { count: retentionCount }, 0).expired);
    const snapshots = view.snapshots.map(
      ({ name, pointId, generation, state, released }): SnapshotFacts => ({
        name,
        pointId,
        generation,
        origin: "schedule",
        isExpired: expired.has(name) || state === "lost",
        isWhole: state === "sealed",
        isReleased: released || state === "deleting",
      }),
    );
    const ofVolume = [...jobs.values()].filter((job) => job.volume === volume.name);
    return {
      volume: volume.name,
      migrateOn: isDone ? "Creation" : migrateOn,
      snapshots,
      wanted: volume.locations,
      locations: volume.locations.map((name) => {
        const its = ofVolume.filter((job) => job.location === name);
        const base = view.bases.find(({ location }) => location === name);
        return {
          name,
          ...(base && { base: { pointId: base.pointId, generation: base.generation } }),
          jobs: its
            .filter(({ phase }) => !ended.includes(phase))
            .map(({ snapshot, fromPointId }) => ({
              toSnapshot: snapshot,
              ...(fromPointId !== undefined && { fromPointId }),
            })),
          triedSnapshots: its.filter(({ phase }) => ended.includes(phase)).map(({ snapshot }) => snapshot),
        };
      }),
    };
  }
}
