// The status of a VolumeMigration: computed from what was observed and decided, and from nothing else. Pure.
import type { MigrationJob } from "../api/migration-job.ts";
import type {
  VolumeMigrationStatus,
  VolumeMigrationStatusLocation,
  VolumeMigrationStatusLocationLastJob,
  VolumeMigrationStatusSnapshot,
} from "../api/volume-migration.ts";
import type { EventNote } from "../kube/cluster.ts";
import type { SnapshotView, VolumeView } from "../wire/schemas.ts";
import { clipped, exactTime, judged, parseTime, present } from "./status-parts.ts";
import { lastRunOf, type VolumeDecision } from "./volume-decision.ts";
import { expiryOfVolume, hasEnded, retentionOf, type SeenVolume } from "./volume-facts.ts";
import { judgeVolume, type Troubles } from "./volume-judgements.ts";

/** As many snapshots as the schema has room for. */
const snapshotsShown = 200;

export interface VolumeOutcome {
  readonly status: VolumeMigrationStatus;
  /** For the volume's and the claim's Events. */
  readonly note: EventNote | undefined;
}

export function volumeStatus(
  seen: SeenVolume,
  decision: VolumeDecision,
  troubles: Troubles,
  nowMs: number,
): VolumeOutcome {
  const { migration, held } = seen;
  const before = migration.status;
  const locations = held === undefined ? (before?.locations ?? []) : locationsOf(seen, held.view, decision);
  const { judgements, note } = judgeVolume({ seen, troubles, locations, nowMs }, before?.conditions);
  const status: VolumeMigrationStatus = {
    ...present({ observedGeneration: migration.metadata.generation }),
    conditions: judged(before?.conditions, judgements, nowMs),
    locations,
    ...(held === undefined ? agentFieldsOf(before) : agentFields(seen, held.view, nowMs)),
    ...runFields(seen, decision, { troubles, nowMs }),
    ...present({ oldestNewestPointTime: oldestNewestPoint(seen, locations) }),
  };
  return { status, note };
}

type AgentFields = Pick<
  VolumeMigrationStatus,
  "home" | "sizeBytes" | "snapshots" | "snapshotCount" | "lastSnapshotTime"
>;

/** While no agent is seen to hold the volume, what was last known of it stays. */
function agentFieldsOf(before: VolumeMigrationStatus | undefined): AgentFields {
  const { home, sizeBytes, snapshots, snapshotCount, lastSnapshotTime } = before ?? {};
  return present({ home, sizeBytes, snapshots, snapshotCount, lastSnapshotTime });
}

function agentFields(seen: SeenVolume, view: VolumeView, nowMs: number): AgentFields {
  const expired = new Set(expiryOfVolume(view, seen.schedule, nowMs).expired);
  const { ageMs } = retentionOf(seen.schedule);
  return {
    home: view.home,
    sizeBytes: view.sizeBytes,
    snapshots: view.snapshots.slice(-snapshotsShown).map((snapshot) => snapshotStatus(snapshot, expired, ageMs)),
    snapshotCount: view.snapshots.length,
    ...present({ lastSnapshotTime: view.snapshots.at(-1)?.createdAt }),
  };
}

function snapshotStatus(
  { name, generation, pointId, createdAt, holds, released }: SnapshotView,
  expired: ReadonlySet<string>,
  ageMs: number | undefined,
): VolumeMigrationStatusSnapshot {
  return {
    name,
    generation,
    pointId,
    time: createdAt,
    expired: released || expired.has(name),
    holds: holds.slice(0, holdsShown).map(({ reason, owner }) => clipped(`${reason}/${owner}`, 256)),
    ...(ageMs !== undefined && { expiryTime: exactTime(Date.parse(createdAt) + ageMs) }),
  };
}

const holdsShown = 64;

function runFields(
  seen: SeenVolume,
  decision: VolumeDecision,
  { troubles, nowMs }: { readonly troubles: Troubles; readonly nowMs: number },
): Pick<VolumeMigrationStatus, "schedule" | "lastScheduleTime" | "nextScheduleTime" | "lastMissedTime"> {
  const { migration, schedule, held } = seen;
  const { run, take, sinceMs } = decision;
  const before = migration.status;
  const isMade = run.kind === "run" && take !== undefined && troubles.snapshot === undefined;
  const lastMs = isMade ? run.dueMs : held && lastRunOf(migration, held.view, nowMs);
  const group = seen.group?.title;
  const missed = run.kind === "wait" && run.missed !== undefined ? exactTime(run.missed) : before?.lastMissedTime;
  return {
    ...(schedule &&
      sinceMs !== undefined && {
        schedule: { name: schedule.metadata.name, since: exactTime(sinceMs), ...present({ group }) },
      }),
    ...present({
      lastScheduleTime: lastMs === undefined ? before?.lastScheduleTime : exactTime(lastMs),
      nextScheduleTime: run.kind === "wait" ? exactTime(run.nextMs) : undefined,
      lastMissedTime: missed,
    }),
  };
}

/** Whether the decision found a run that is missed for good, and was not known to be. */
export function isNewlyMissed({ migration }: SeenVolume, { run }: VolumeDecision): boolean {
  return run.kind === "wait" && run.missed !== undefined && parseTime(migration.status?.lastMissedTime) !== run.missed;
}

function locationsOf(
  { migration, jobs }: SeenVolume,
  view: VolumeView,
  { plan }: VolumeDecision,
): VolumeMigrationStatusLocation[] {
  const names = [...migration.spec.policy.locations, ...view.bases.map(({ location }) => location)];
  return [...new Set(names)].map((name) => {
    const base = view.bases.find(({ location }) => location === name);
    const its = jobs.filter(({ spec }) => spec.location === name);
    const ended = its.filter((job) => hasEnded(job) && job.spec.dryRun !== true).sort(byCompletion);
    return {
      name,
      ...(base && { base: baseStatus(view, base), newestPointTime: base.sourceTime }),
      ...present({
        currentJob: its.find((job) => !hasEnded(job))?.metadata.name,
        blocked: blockedAt(name, plan),
        lastJob: lastJob(ended.at(-1)),
      }),
    };
  });
}

function blockedAt(name: string, { blocked }: VolumeDecision["plan"]): string | undefined {
  const found = blocked.find(({ location }) => location === name);
  return found && clipped(found.reason, 1024);
}

function baseStatus(view: VolumeView, { pointId, generation }: VolumeView["bases"][number]) {
  const snapshot = view.snapshots.find((each) => each.pointId === pointId)?.name;
  return { pointId, generation, ...present({ snapshot }) };
}

function byCompletion(left: MigrationJob, right: MigrationJob): number {
  const [a, b] = [left.status?.completionTime ?? "", right.status?.completionTime ?? ""];
  return a < b ? -1 : a > b ? 1 : 0;
}

function lastJob(job: MigrationJob | undefined): VolumeMigrationStatusLocationLastJob | undefined {
  const phase = job?.status?.phase;
  if (job === undefined || (phase !== "Succeeded" && phase !== "Failed" && phase !== "Cancelled")) return undefined;
  const { to, mode, modeReason, message, completionTime, startTime, bytesChanged, bytesSent } = job.status ?? {};
  const [startMs, endMs] = [parseTime(startTime), parseTime(completionTime)];
  const durationMilliseconds = startMs !== undefined && endMs !== undefined ? Math.max(0, endMs - startMs) : undefined;
  return {
    name: job.metadata.name,
    phase,
    ...present({ generation: to?.generation, mode, modeReason, completionTime, bytesChanged, bytesSent }),
    ...present({ message: phase === "Succeeded" ? undefined : message, durationMilliseconds }),
  };
}

/** How far the location that is furthest behind has come; unknown while one of the policy's has nothing. */
function oldestNewestPoint(
  { migration }: SeenVolume,
  locations: readonly VolumeMigrationStatusLocation[],
): string | undefined {
  const { policy } = migration.spec;
  const times = policy.locations.map((name) => locations.find((each) => each.name === name)?.newestPointTime);
  if (times.length === 0 || times.some((time) => time === undefined)) return undefined;
  return times.flatMap((time) => time ?? []).sort()[0];
}
