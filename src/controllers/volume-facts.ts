// What is known of one volume under migration, from Kubernetes and from its agent, and the pure view of it that the
// decisions in src/domain/ take.
import type { PersistentVolume } from "../api/core.ts";
import type { MigrationJob } from "../api/migration-job.ts";
import type { MigrationLocation } from "../api/migration-location.ts";
import { conditionType } from "../api/names.ts";
import type { SnapshotSchedule } from "../api/snapshot-schedule.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { parseDuration } from "../domain/duration.ts";
import type { JobFacts, LocationFacts, PeerFacts, SnapshotFacts, VolumeFacts } from "../domain/migration-due.ts";
import { demandSnapshotName, dueOfSnapshot, isDemandSnapshot } from "../domain/names.ts";
import { type Expiry, expiryOf, type Retention } from "../domain/retention.ts";
import type { Cluster, Key } from "../kube/cluster.ts";
import { conditionOf, isConditionTrue } from "../kube/conditions.ts";
import type { Member, SnapshotView, VolumeView } from "../wire/schemas.ts";
import { agentsProblem, findOne, type Held } from "./agents.ts";
import type { ControllerDeps } from "./deps.ts";
import {
  groupValue,
  jobsByVolume,
  MigrationLocations,
  PersistentVolumes,
  SnapshotSchedules,
  VolumeMigrations,
} from "./kinds.ts";
import { observePolicy, type PolicyView } from "./policy-view.ts";
import { parseTime, present } from "./status-parts.ts";
import { observeGroup, type SeenGroup, type SeenMember } from "./volume-group.ts";

export interface SeenVolume {
  readonly migration: VolumeMigration;
  readonly volume: PersistentVolume | undefined;
  readonly policy: PolicyView | undefined;
  readonly schedule: SnapshotSchedule | undefined;
  /** Those that exist, of all that the policy, a base or a job names. */
  readonly locations: ReadonlyMap<string, MigrationLocation>;
  /** All jobs of the volume, users' and ours, whatever became of them. */
  readonly jobs: readonly MigrationJob[];
  /** The volume on its agent; absent when no agent is seen to hold it. */
  readonly held: Held<VolumeView> | undefined;
  /** Why not all agents are known of at the moment. */
  readonly agentsProblem: string | undefined;
  /** The consistency group that the volume belongs to, if any. */
  readonly group: SeenGroup | undefined;
  /** What the agents say of each other. */
  readonly agentMembers: readonly Member[];
}

/** Reads from caches only. `undefined` when there is nothing to do for the key. */
export function observeVolume(key: Key, deps: ControllerDeps): SeenVolume | undefined {
  const { cluster, agents } = deps;
  const migration = cluster.get(VolumeMigrations, key);
  if (migration === undefined || migration.metadata.deletionTimestamp !== undefined) return undefined;
  const { volume: identity, policy } = migration.spec;
  const found = cluster.get(PersistentVolumes, { name: identity.name });
  const volume = found?.metadata.uid === identity.uid ? found : undefined;
  const held = findOne(agents, "volumes", identity.handle);
  const jobs = cluster.find(jobsByVolume, identity.name);
  const names = [...policy.locations, ...basesOf(held), ...jobs.map(({ spec }) => spec.location)];
  return {
    migration,
    volume,
    policy: volume && observePolicy(cluster, volume, migration),
    schedule: policy.schedule === undefined ? undefined : cluster.get(SnapshotSchedules, { name: policy.schedule }),
    locations: existing(cluster, names),
    jobs,
    held,
    agentsProblem: agentsProblem(agents),
    group: migration.spec.group && observeGroup(migration.spec.group, deps),
    agentMembers: agents.members(),
  };
}

function basesOf(held: Held<VolumeView> | undefined): string[] {
  return (held?.view.bases ?? []).map(({ location }) => location);
}

function existing(cluster: Cluster, names: readonly string[]): ReadonlyMap<string, MigrationLocation> {
  const found = new Map<string, MigrationLocation>();
  for (const name of names) {
    const location = cluster.get(MigrationLocations, { name });
    if (location !== undefined) found.set(name, location);
  }
  return found;
}

export function retentionOf(schedule: SnapshotSchedule | undefined): Retention {
  const { age, count } = schedule?.spec.retention ?? {};
  return present({ ageMs: age === undefined ? undefined : parseDuration(age), count });
}

/** Of the schedule's own snapshots that are still wanted, which have expired. */
export function expiryOfVolume(view: VolumeView, schedule: SnapshotSchedule | undefined, nowMs: number): Expiry {
  const scheduled = view.snapshots.filter(
    ({ name, state, released }) => dueOfSnapshot(name) !== undefined && state === "sealed" && !released,
  );
  const aged = scheduled.map(({ name, createdAt }) => ({ name, timeMs: Date.parse(createdAt) }));
  return expiryOf(aged, retentionOf(schedule), nowMs);
}

/** What {@link planMigrations} decides by. `view` may be fresher than what was observed. */
export function migrationFacts(seen: SeenVolume, view: VolumeView, nowMs: number): VolumeFacts {
  const { migration, schedule, group } = seen;
  const { policy } = migration.spec;
  return {
    volume: migration.metadata.name,
    migrateOn: schedule?.spec.migrateOn ?? "Expiry",
    snapshots: snapshotsOf(view, schedule, nowMs),
    locations: locationsOf(seen, view, seen),
    // Without its schedule nothing runs, for nobody knows what is due.
    wanted: policy.enabled && schedule !== undefined ? policy.locations : [],
    ...(group && { peers: peersOf(seen, group, nowMs) }),
  };
}

function snapshotsOf(view: VolumeView, schedule: SnapshotSchedule | undefined, nowMs: number): SnapshotFacts[] {
  const expired = new Set(expiryOfVolume(view, schedule, nowMs).expired);
  const ours = view.snapshots.filter(({ name }) => dueOfSnapshot(name) !== undefined || isDemandSnapshot(name));
  return ours.map((snapshot) => snapshotFacts(snapshot, expired));
}

function peersOf(seen: SeenVolume, { members }: SeenGroup, nowMs: number): PeerFacts[] {
  const others = members.filter(({ migration }) => migration.metadata.name !== seen.migration.metadata.name);
  return others.map((member) => ({
    volume: member.migration.metadata.name,
    sinceMs: onScheduleSince(member.migration, nowMs),
    snapshots: member.held && snapshotsOf(member.held.view, seen.schedule, nowMs),
    locations: member.held === undefined ? [] : locationsOf(member, member.held.view, seen),
  }));
}

function snapshotFacts(
  { name, pointId, generation, state, released, groupPoint }: SnapshotView,
  expired: ReadonlySet<string>,
): SnapshotFacts {
  return {
    name,
    pointId,
    generation,
    origin: isDemandSnapshot(name) ? "demand" : "schedule",
    // One whose file is lost can serve nobody; letting it go is all that is left to do with it.
    isExpired: expired.has(name) || state === "lost",
    isWhole: state === "sealed",
    isReleased: released || state === "deleting",
    ...present({ groupPoint }),
  };
}

type Jobbed = Pick<SeenMember, "migration" | "jobs" | "held">;

function locationsOf(member: Jobbed, view: VolumeView, { locations, group }: SeenVolume): LocationFacts[] {
  const conflict = group?.conflict && `The volumes of group ${group.title} do not agree: ${group.conflict}`;
  const { agent } = member.held ?? {};
  const away = agent?.problem && `Agent ${agent.id}, which has volume ${view.name}, is away: ${agent.problem}`;
  return locationNames(member, view).map((name) => ({
    ...locationFacts(name, member, view),
    ...present({ blocked: conflict ?? away ?? blockedBecause(name, locations.get(name)) }),
  }));
}

function locationNames({ migration, jobs }: Jobbed, view: VolumeView): string[] {
  const names = [
    ...migration.spec.policy.locations,
    ...view.bases.map(({ location }) => location),
    ...jobs.filter((job) => !hasEnded(job)).map(({ spec }) => spec.location),
  ];
  return [...new Set(names)];
}

function locationFacts(name: string, { jobs }: Jobbed, view: VolumeView): LocationFacts {
  const base = view.bases.find(({ location }) => location === name);
  const its = jobs.filter(({ spec }) => spec.location === name);
  const tried = its.filter((job) => hasEnded(job) && job.spec.dryRun !== true);
  return {
    name,
    ...(base && { base: { pointId: base.pointId, generation: base.generation } }),
    jobs: its.filter((job) => !hasEnded(job)).map(jobFacts),
    triedSnapshots: tried.map(snapshotOf),
  };
}

/** How long an agent's news of a volume that has just been made may take. */
const newsMsMax = 10_000;

/** Until when the news of a volume that has just been made may be on its way; `undefined` when it should be here by now. */
export function newsDueMs({ metadata }: VolumeMigration, nowMs: number): number | undefined {
  const createdMs = parseTime(metadata.creationTimestamp);
  // By a clock that differs much from ours nothing is told about how new it is.
  const isNew = createdMs !== undefined && Math.abs(nowMs - createdMs) < newsMsMax;
  return isNew ? createdMs + newsMsMax : undefined;
}

/** Since when the volume is on its schedule, and in its group. One that has just come to it begins now. */
export function onScheduleSince({ spec, status }: VolumeMigration, nowMs: number): number {
  const { schedule } = status ?? {};
  const group = spec.group && groupValue(spec.group);
  const isKnown = schedule !== undefined && schedule.name === spec.policy.schedule && schedule.group === group;
  const sinceMs = isKnown ? parseTime(schedule.since) : undefined;
  // What a clock that was ahead has written would keep everything from being due until that time.
  return Math.min(sinceMs ?? nowMs, nowMs);
}

function jobFacts(job: MigrationJob): JobFacts {
  return { toSnapshot: snapshotOf(job), ...present({ fromPointId: job.status?.from?.pointId }) };
}

/** Why no job to this location is started at the moment; `undefined` when one may be. */
export function blockedBecause(name: string, location: MigrationLocation | undefined): string | undefined {
  if (location === undefined) return `MigrationLocation ${name} does not exist`;
  if (location.metadata.deletionTimestamp !== undefined) return `MigrationLocation ${name} is being deleted`;
  if (location.spec.suspend === true) return `MigrationLocation ${name} is suspended`;
  const ready = conditionOf(location.status?.conditions, conditionType.ready);
  if (ready?.status !== "True") {
    return `MigrationLocation ${name} is not ready: ${ready?.message ?? "it has not been probed yet"}`;
  }
  return isPaused(location) ? `MigrationLocation ${name} is paused: ${ready.message}` : undefined;
}

/** Whether a location's bandwidth is nought at the moment. */
export function isPaused(location: MigrationLocation | undefined): boolean {
  return isConditionTrue(location?.status?.conditions, conditionType.paused);
}

/**
 * Whether the volume's claim is gone and its data are about to be deleted: csi-provisioner asks the driver first and deletes the
 * PersistentVolume afterwards. Jobs stand in the way of that at the agent, so they have to go before.
 */
export function isLeaving(volume: PersistentVolume | undefined): boolean {
  const { phase } = volume?.status ?? {};
  return volume?.spec.persistentVolumeReclaimPolicy === "Delete" && (phase === "Released" || phase === "Failed");
}

/** The name of the snapshot that a job brings over, whether or not it has been taken. */
export function snapshotOf({ metadata, spec }: MigrationJob): string {
  return spec.toSnapshot ?? demandSnapshotName(metadata.uid);
}

const endings: readonly (string | undefined)[] = ["Succeeded", "Failed", "Cancelled"];

/** Whether a job has reached a state that it never leaves. */
export function hasEnded({ status }: MigrationJob): boolean {
  return endings.includes(status?.phase);
}
