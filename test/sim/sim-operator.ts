// A cluster's operator, as small as it can be while it decides as the real one does: by schedule, retention and what is due
// (src/domain/), on lists that may be old, with Kubernetes as the one thing that it never loses. It dies now and then.
import { codeOf } from "../../src/domain/errors.ts";
import { planMigrations, type SnapshotFacts, type VolumeFacts } from "../../src/domain/migration-due.ts";
import { expiryOf } from "../../src/domain/retention.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import type { JobState, VolumeView } from "../../src/wire/schemas.ts";
import { Dead, type Host, type Process } from "./host.ts";
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

/** Volumes of one consistency group. */
export interface WantedGroup {
  readonly name: string;
  readonly volumes: readonly WantedVolume[];
}

/** What Kubernetes keeps of one MigrationJob. */
interface JobRecord {
  readonly name: string;
  /** All volumes of a group, or the one. */
  readonly volumes: readonly string[];
  readonly group: string | undefined;
  readonly location: string;
  readonly snapshot: string;
  fromPointIds: readonly string[];
  phase: JobState | undefined;
}

/** What outlives an operator's process. */
export class Kubernetes {
  readonly cluster: Cluster;
  /** Those of groups as well. */
  readonly volumes: WantedVolume[] = [];
  readonly groups: WantedGroup[] = [];
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

/** A job that is refused so will never be taken. */
const impossible: readonly string[] = [
  "NotFound",
  "SnapshotGone",
  "PointGone",
  "SnapshotDeleting",
  "NameTaken",
  "GroupInvalid",
];

function isGroup({ volumes }: WantedGroup): boolean {
  return volumes.length > 1;
}

export class SimOperator implements Owner {
  isDead = false;
  readonly suspendedUntilMs = 0;
  private readonly world: World;
  private readonly kubernetes: Kubernetes;
  private readonly caller: Caller;
  private readonly lastViews = new Map<string, VolumeView>();
  /** Each agent's process that was told what there is; a new one is told again. */
  private readonly prepared = new Map<Host, Process>();

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
        ...this.subjects().map((group) => this.attempt(() => this.reconcile(group), group.volumes[0]?.host)),
      ]);
      await this.world.timeline.pause(this.world.chance.between(600, 2_000), this);
    }
  }

  /** What is snapshotted and brought over together: groups, and each other volume by itself, under its own name. */
  private subjects(): WantedGroup[] {
    const { volumes, groups } = this.kubernetes;
    const grouped = new Set(groups.flatMap((group) => group.volumes));
    const single = volumes.filter((volume) => !grouped.has(volume));
    return [...groups, ...single.map((volume) => ({ name: volume.name, volumes: [volume] }))];
  }

  private async attempt(work: () => Promise<void>, host: Host | undefined): Promise<void> {
    try {
      await work();
    } catch (error) {
      // What it made may be gone with an older image of a disk.
      if (host !== undefined && ["NotFound", "NotConsented"].includes(codeOf(error) ?? "")) this.prepared.delete(host);
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
    const { process } = host;
    if (process !== undefined && this.prepared.get(host) !== process) {
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
        await unlessGone(() => agent.putVolume(name, { sizeBytes, migrationEnabled: true }));
      }
      this.prepared.set(host, process);
    }
  }

  private async reconcile(group: WantedGroup): Promise<void> {
    const { kubernetes } = this;
    if (group.volumes.some(({ host }) => !this.prepared.has(host))) return;
    const views = await Promise.all(group.volumes.map((volume) => this.view(volume)));
    await this.snapshot(group, views);
    await this.followJobs(group);
    const plan = planMigrations(this.facts(group, views, 0));
    for (const { location, snapshot } of plan.jobs) {
      const name = `${group.name}-${location}-${snapshot}`;
      const volumes = group.volumes.map((volume) => volume.name);
      const about = { name, volumes, location, snapshot, group: isGroup(group) ? group.name : undefined };
      kubernetes.jobs.set(name, { ...about, fromPointIds: [], phase: undefined });
      await this.ask(group, kubernetes.jobs.get(name) as JobRecord);
    }
    for (const index of group.volumes.keys()) await this.release(group, views, index);
  }

  private async view({ name, host, sizeBytes }: WantedVolume): Promise<VolumeView> {
    const old = this.lastViews.get(name);
    const isOld = old !== undefined && this.world.chance.is(this.kubernetes.oldNewsRate);
    const view = isOld ? old : await this.agent(host).getVolume(name);
    this.lastViews.set(name, view);
    if (view.sizeBytes < sizeBytes || !view.migrationEnabled) {
      const wanted = { sizeBytes: Math.max(sizeBytes, view.sizeBytes), migrationEnabled: true };
      await this.agent(host).putVolume(name, wanted);
    }
    return view;
  }

  private async release(group: WantedGroup, views: readonly VolumeView[], index: number): Promise<void> {
    const volume = group.volumes[index] as WantedVolume;
    const { releases } = planMigrations(this.facts(group, views, index));
    if (releases.length === 0) return;
    const agent = this.agent(volume.host);
    const fresh = views.with(index, await agent.getVolume(volume.name));
    const isFree = new Set(planMigrations(this.facts(group, fresh, index)).releases);
    for (const name of releases) if (isFree.has(name)) await agent.removeSnapshot(volume.name, name);
  }

  private async snapshot(group: WantedGroup, views: readonly VolumeView[]): Promise<void> {
    const { isDone, intervalMs } = this.kubernetes;
    const last = Math.max(-1, ...views.flatMap(({ snapshots }) => snapshots.map(({ name }) => Number(name.slice(1)))));
    // One that was asked for before may come in late, behind the last.
    const isOvertaken =
      last >= lastNumber && views.some(({ snapshots }) => !isLastSnapshot(snapshots.at(-1)?.name ?? null));
    const lastDue = isOvertaken ? last + 1 : lastNumber + this.failures(group);
    const due = isDone ? lastDue : Math.floor(this.world.timeline.nowMs / intervalMs);
    if (due <= last) return;
    const agent = this.agent(this.world.chance.pick(group.volumes).host);
    const [first] = group.volumes;
    if (!isGroup(group) && first !== undefined) await agent.putSnapshot(first.name, `s${due}`);
    else await agent.putGroupSnapshot(group.name, `s${due}`, { volumes: group.volumes.map(({ name }) => name) });
  }

  /** Jobs of last snapshots that failed: each is followed by another snapshot. */
  private failures({ volumes }: WantedGroup): number {
    const isLast = (job: JobRecord) => job.volumes[0] === volumes[0]?.name && isLastSnapshot(job.snapshot);
    return [...this.kubernetes.jobs.values()].filter((job) => isLast(job) && job.phase === "Failed").length;
  }

  private async followJobs(group: WantedGroup): Promise<void> {
    const { world, kubernetes } = this;
    for (const job of kubernetes.jobs.values()) {
      if (job.volumes[0] !== group.volumes[0]?.name || ended.includes(job.phase)) continue;
      // Every participant of a group's job knows of it.
      const agent = this.agent(world.chance.pick(group.volumes).host);
      try {
        const view = await agent.getJob(job.name);
        job.phase = view.state;
        job.fromPointIds = [view.from, ...(view.volumes ?? []).map(({ from }) => from)].flatMap(
          (from) => from?.pointId ?? [],
        );
        if (world.chance.is(kubernetes.cancelRate)) await agent.putJob(job.name, { ...view.spec, cancel: true });
        if (ended.includes(job.phase) && world.chance.is(0.5)) await agent.removeJob(job.name);
      } catch (error) {
        if (codeOf(error) !== "NotFound") throw error;
        await this.ask(group, job);
      }
    }
  }

  private async ask(group: WantedGroup, job: JobRecord): Promise<void> {
    const { name, volumes, location, snapshot } = job;
    const agent = this.agent(this.world.chance.pick(group.volumes).host);
    const subject = isGroup(group)
      ? { group: { name: group.name, volumes: [...volumes] } }
      : { volume: volumes[0] as string };
    try {
      job.phase = (await agent.putJob(name, { ...subject, location, snapshot })).state;
    } catch (error) {
      // Such as a snapshot that went with an older image of the disk: this job will never be.
      if (impossible.includes(codeOf(error) ?? "")) job.phase = "Failed";
      throw error;
    }
  }

  private facts(group: WantedGroup, views: readonly VolumeView[], index: number): VolumeFacts {
    const ofOne = (at: number) => this.factsOf(group.volumes[at] as WantedVolume, views[at] as VolumeView);
    if (!isGroup(group)) return ofOne(index);
    const others = [...group.volumes.keys()].filter((at) => at !== index);
    return { ...ofOne(index), peers: others.map((at) => ({ ...ofOne(at), sinceMs: 0 })) };
  }

  private factsOf(volume: WantedVolume, view: VolumeView): VolumeFacts {
    const { migrateOn, retentionCount, jobs, isDone } = this.kubernetes;
    const alive = view.snapshots.filter(({ state, released }) => state === "sealed" && !released);
    const aged = alive.map(({ name, createdAt }) => ({ name, timeMs: Date.parse(createdAt) }));
    const expired = new Set(expiryOf(aged, { count: retentionCount }, 0).expired);
    const snapshots = view.snapshots.map(
      ({ name, pointId, generation, state, released, groupPoint }): SnapshotFacts => ({
        name,
        pointId,
        generation,
        origin: "schedule",
        isExpired: expired.has(name) || state === "lost",
        isWhole: state === "sealed",
        isReleased: released || state === "deleting",
        ...(groupPoint !== undefined && { groupPoint }),
      }),
    );
    const ofVolume = [...jobs.values()].filter((job) => job.volumes.includes(volume.name));
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
            .flatMap(({ snapshot, fromPointIds }) => [
              { toSnapshot: snapshot },
              ...fromPointIds.map((fromPointId) => ({ toSnapshot: snapshot, fromPointId })),
            ]),
          triedSnapshots: its.filter(({ phase }) => ended.includes(phase)).map(({ snapshot }) => snapshot),
        };
      }),
    };
  }
}

/** A volume whose image went with an older image of the disk; the others have nothing to do with it. */
async function unlessGone(work: () => Promise<unknown>): Promise<void> {
  try {
    await work();
  } catch (error) {
    if (codeOf(error) !== "VolumeGone") throw error;
  }
}
