// VolumeMigration: the loop of one volume. A due snapshot is asked of the agent, an expired one becomes a MigrationJob for each
// location that is behind, and what no location needs is released. Kubernetes keeps the record; the agent keeps the data.
import type { PersistentVolumeClaim, StorageClass } from "../api/core.ts";
import type { MigrationJob } from "../api/migration-job.ts";
import type { MigrationLocation } from "../api/migration-location.ts";
import { conditionType, eventReason } from "../api/names.ts";
import type { SnapshotSchedule } from "../api/snapshot-schedule.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { codeOf } from "../domain/errors.ts";
import { planMigrations } from "../domain/migration-due.ts";
import {
  again,
  type Cluster,
  type Controller,
  type EventNote,
  type Index,
  type Key,
  keyOf,
  type Outcome,
  type ReconcileContext,
  settled,
  watching,
} from "../kube/cluster.ts";
import { conditionOf } from "../kube/conditions.ts";
import { isKubeError, type KubeError } from "../kube/errors.ts";
import type { VolumeView } from "../wire/schemas.ts";
import { type Held, laneOfHolder } from "./agents.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import {
  groupsOfClaim,
  groupValue,
  MigrationJobs,
  MigrationLocations,
  migrationsByGroup,
  migrationsByLocation,
  migrationsBySchedule,
  PersistentVolumeClaims,
  PersistentVolumes,
  SnapshotSchedules,
  StorageClasses,
  VolumeMigrations,
  volumesByClass,
  volumesOfJob,
} from "./kinds.ts";
import { type LagMetric, openLagMetric } from "./lag-metric.ts";
import { explain, refusalOf } from "./refusal.ts";
import type { SnapshotPace, Turn } from "./snapshot-pace.ts";
import { askerOf, decideVolume, jobDraft, type VolumeDecision } from "./volume-decision.ts";
import { migrationFacts, observeVolume, type SeenVolume } from "./volume-facts.ts";
import type { Troubles } from "./volume-judgements.ts";
import { isNewlyMissed, volumeStatus } from "./volume-status.ts";

export function volumeMigrationController(deps: ControllerDeps, pace: SnapshotPace): Controller {
  const { cluster } = deps;
  const lag = openLagMetric(deps.metrics);
  const found = (index: Index<VolumeMigration>, value: string) => cluster.find(index, value).map(keyOf);
  return {
    name: controllerName.volumeMigration,
    kind: VolumeMigrations,
    watches: [
      watching<MigrationJob>(MigrationJobs, (job) => volumesOfJob(job).map((name) => ({ name }))),
      // The volumes of a group look at each other.
      watching<VolumeMigration>(VolumeMigrations, ({ spec }) =>
        spec.group === undefined ? [] : found(migrationsByGroup, groupValue(spec.group)),
      ),
      watching<SnapshotSchedule>(SnapshotSchedules, ({ metadata }) => found(migrationsBySchedule, metadata.name)),
      watching<MigrationLocation>(MigrationLocations, ({ metadata }) => found(migrationsByLocation, metadata.name)),
      watching(PersistentVolumes, ({ metadata }) => [{ name: metadata.name }]),
      watching<PersistentVolumeClaim>(PersistentVolumeClaims, (claim) => [
        ...(claim.spec?.volumeName === undefined ? [] : [{ name: claim.spec.volumeName }]),
        ...groupsOfClaim(claim).flatMap((group) => found(migrationsByGroup, groupValue(group))),
      ]),
      watching<StorageClass>(StorageClasses, ({ metadata }) => cluster.find(volumesByClass, metadata.name).map(keyOf)),
    ],
    concurrency: 8,
    laneOf: (key) => laneOf(key, deps),
    reconcile: (key, context) => reconcile(key, { ...deps, lag, pace }, context),
  };
}

/** Volumes wait for their agent; those of a group for any agent that has a part of it. */
function laneOf(key: Key, { cluster, agents }: ControllerDeps): string {
  const { group, volume } = cluster.get(VolumeMigrations, key)?.spec ?? {};
  return group === undefined ? laneOfHolder(agents, "volumes", volume?.handle ?? "") : groupValue(group);
}

interface Deps extends ControllerDeps {
  readonly lag: LagMetric;
  readonly pace: SnapshotPace;
}

async function reconcile(key: Key, deps: Deps, context: ReconcileContext): Promise<Outcome> {
  const seen = observeVolume(key, deps);
  if (seen === undefined) {
    deps.lag.forget(key.name);
    return settled;
  }
  const nowMs = deps.clock.nowMs();
  const decision = decideVolume(seen, nowMs);
  const attempt = await apply(seen, decision, deps, context);
  // What waits for its turn is not taken yet.
  const made = attempt.waitMs === undefined ? decision : { ...decision, take: undefined };
  // What a crash may cut off comes last: releasing goes by what the status says was taken.
  await record({ seen, decision: made, troubles: attempt.troubles }, deps, context.signal);
  if (isOutdated(attempt.error)) return again(outdatedMs);
  // A snapshot that cannot be taken, for want of room, say, is no reason to keep those that nobody needs any more.
  await release(key, decision, deps);
  if (attempt.error !== undefined) throw attempt.error;
  return outcome(decision, attempt, nowMs);
}

/** How soon to look again after acting on an old view: the agent's news is on its way. */
const outdatedMs = 200;

function isOutdated(error: unknown): boolean {
  return codeOf(error) === "PreconditionFailed";
}

function outcome({ nextMs }: VolumeDecision, { waitMs }: Attempt, nowMs: number): Outcome {
  const times = [nextMs === undefined ? undefined : Math.max(0, nextMs - nowMs), waitMs];
  const known = times.filter((time) => time !== undefined);
  return known.length === 0 ? settled : again(Math.min(...known));
}

interface Attempt {
  readonly troubles: Troubles;
  /** The first thing that went wrong; thrown after it was recorded, so that it is tried again. */
  readonly error: unknown;
  /** When to ask again for the snapshot that is due, when too many are being taken. */
  readonly waitMs?: number;
}

async function apply(
  seen: SeenVolume,
  decision: VolumeDecision,
  { cluster, clock, pace }: Deps,
  { signal }: ReconcileContext,
): Promise<Attempt> {
  const { held, migration } = seen;
  if (held === undefined) return { troubles: {}, error: undefined };
  const said = (type: string) => conditionOf(migration.status?.conditions, type)?.message;
  // Failures of the agent go into the status before they are thrown.
  const marking = await refusalOf(() => mark(held, decision));
  const turn = turnOf(seen, decision, pace);
  const snapshot =
    turn?.kind === "go" ? await refusalOf(() => takeSnapshot(held, decision)).finally(turn.leave) : undefined;
  const jobs = await makeJobs(seen, decision, cluster, signal);
  // What waits for its turn has not been tried again: what went wrong the last time stands.
  const standing = turn?.kind === "wait" ? lastTrouble(migration) : othersTrouble(seen, decision, clock.nowMs());
  // Whoever acted on an old view looks again; that is no trouble worth telling.
  const other = isOutdated(marking) ? jobs : (marking ?? jobs);
  const troubles: Troubles = {
    ...(other !== undefined && { other: explain(other, said(conditionType.ready)) }),
    ...(snapshot === undefined ? standing : { snapshot: explain(snapshot, said(conditionType.snapshotted)) }),
  };
  // One that is away is not tried again and again: it is news when it is back.
  const error = held.agent.problem === undefined ? (marking ?? snapshot ?? jobs) : undefined;
  return { troubles, error, ...(turn?.kind === "wait" && { waitMs: turn.waitMs }) };
}

/** Asks for the jobs that are due; what the API server has against one, and will have the next time. */
async function makeJobs(
  seen: SeenVolume,
  { plan }: VolumeDecision,
  cluster: Cluster,
  signal: AbortSignal,
): Promise<KubeError | undefined> {
  try {
    for (const due of plan.jobs) {
      const draft = jobDraft(seen, due);
      if (draft !== undefined) await cluster.create(MigrationJobs, draft, signal);
    }
    return undefined;
  } catch (error) {
    if (!isKubeError(error, "Forbidden", "Invalid")) throw error;
    return error;
  }
}

/** For the snapshot that is due, if one is: of a group, on all agents that have a volume of it. */
function turnOf(
  { migration, held, group }: SeenVolume,
  { take }: VolumeDecision,
  pace: SnapshotPace,
): Turn | undefined {
  if (take === undefined || held === undefined) return undefined;
  const handles = take.group?.volumes ?? [];
  const members = group?.members.filter((member) => handles.includes(member.migration.spec.volume.handle)) ?? [];
  const agents = [held.agent, ...members.flatMap((member) => member.held?.agent ?? [])];
  return pace.ask(
    migration.metadata.name,
    agents.map(({ id }) => id),
  );
}

async function mark({ agent, view }: Held<VolumeView>, { mark: spec }: VolumeDecision): Promise<void> {
  if (spec === undefined) return;
  // At exactly the revision seen: a volume that has grown meanwhile must not be asked to shrink.
  await agent.api.putVolume(view.name, spec, { ifMatch: view.revision });
}

async function takeSnapshot({ agent, view }: Held<VolumeView>, { take }: VolumeDecision): Promise<void> {
  if (take === undefined) return;
  const { name, group } = take;
  if (group === undefined) await agent.api.putSnapshot(view.name, name);
  else await agent.api.putGroupSnapshot(group.name, name, { volumes: [...group.volumes] });
}

/** What went wrong where another volume of the group has asked for the snapshot of all of them. */
function othersTrouble(seen: SeenVolume, decision: VolumeDecision, nowMs: number): Troubles {
  const asker = askerOf(seen, decision, nowMs);
  return asker === undefined || asker.metadata.name === seen.migration.metadata.name ? {} : lastTrouble(asker);
}

/** What went wrong when the volume asked for its snapshot the last time. */
function lastTrouble({ status }: VolumeMigration): Troubles {
  const taken = conditionOf(status?.conditions, conditionType.snapshotted);
  return taken?.status === "False" ? { snapshot: taken.message } : {};
}

interface Done {
  readonly seen: SeenVolume;
  readonly decision: VolumeDecision;
  readonly troubles: Troubles;
}

async function record({ seen, decision, troubles }: Done, deps: Deps, signal: AbortSignal): Promise<void> {
  const { lag } = deps;
  const { status, note } = volumeStatus(seen, decision, troubles, deps.clock.nowMs());
  const notes = [note, missedNote(seen, decision)].filter((each) => each !== undefined);
  await deps.cluster.patchStatus(VolumeMigrations, seen.migration, status, signal);
  for (const each of notes) tell(seen, each, deps);
  lag.set(seen.migration, status.locations ?? []);
}

function missedNote(seen: SeenVolume, decision: VolumeDecision): EventNote | undefined {
  const { run } = decision;
  if (run.kind !== "wait" || run.missed === undefined || !isNewlyMissed(seen, decision)) return undefined;
  const message = `The snapshot due at ${new Date(run.missed).toISOString()} was missed past the starting deadline`;
  return { type: "Warning", reason: eventReason.runMissed, message };
}

/** Tenants see their claims, not our kinds: what concerns a claim is told there as well. */
function tell({ migration, policy }: SeenVolume, note: EventNote, { cluster }: ControllerDeps): void {
  cluster.event(migration, note);
  if (policy?.claim !== undefined) cluster.event(policy.claim, note);
}

/**
 * Lets go of what nobody needs. The agent is asked first how things stand, and the jobs are looked at again: what was seen
 * may be behind, and a release cannot be taken back. Beyond that, the agent keeps whatever has a hold.
 */
async function release(key: Key, { plan }: VolumeDecision, deps: ControllerDeps): Promise<void> {
  if (plan.releases.length === 0) return;
  const seen = observeVolume(key, deps);
  if (seen?.held === undefined || seen.held.agent.problem !== undefined) return;
  const { api } = seen.held.agent;
  const fresh = await api.getVolume(seen.held.view.name);
  const stillFree = new Set(planMigrations(migrationFacts(seen, fresh, deps.clock.nowMs())).releases);
  for (const name of plan.releases) if (stillFree.has(name)) await api.removeSnapshot(fresh.name, name);
}
