// SnapshotSchedule: judges it and tells when the next runs are. Snapshots are taken by the reconciler of each volume,
// which goes by `status.effectiveTime`: runs from before a timing took effect are never made up for.
import { conditionType, eventReason, reason } from "../api/names.ts";
import type { SnapshotSchedule, SnapshotScheduleSpec, SnapshotScheduleStatus } from "../api/snapshot-schedule.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { parseDuration } from "../domain/duration.ts";
import { nextRun, type ParsedTiming, parseTiming, shortestGapMs, type Timing } from "../domain/schedule.ts";
import { again, type Controller, counting, type Key, type Outcome, settled } from "../kube/cluster.ts";
import { conditionOf, type Judgement } from "../kube/conditions.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import { migrationsBySchedule, SnapshotSchedules, VolumeMigrations } from "./kinds.ts";
import { exactTime, judge, judged, present } from "./status-parts.ts";

export function snapshotScheduleController(deps: ControllerDeps): Controller {
  return {
    name: controllerName.snapshotSchedule,
    kind: SnapshotSchedules,
    watches: [
      counting<VolumeMigration>(VolumeMigrations, ({ spec }) =>
        spec.policy.schedule === undefined ? [] : [{ name: spec.policy.schedule }],
      ),
    ],
    reconcile: (key, { signal }) => reconcile(key, deps, signal),
  };
}

interface Facts {
  readonly schedule: SnapshotSchedule;
  readonly volumes: number;
}

/** What of a spec decides when runs are; recorded in the status beside the time since when. */
export function timingText({ interval, schedule, timeZone, jitter }: SnapshotScheduleSpec): string {
  return JSON.stringify(present({ interval, schedule, timeZone, jitter }));
}

async function reconcile(key: Key, deps: ControllerDeps, signal: AbortSignal): Promise<Outcome> {
  const facts = observe(key, deps);
  if (facts === undefined) return settled;
  const nowMs = deps.clock.nowMs();
  const status = decide(facts, nowMs);
  await deps.cluster.patchStatus(SnapshotSchedules, facts.schedule, status, signal);
  tellWhatIsWrong(facts.schedule, status, deps);
  const nextMs = Date.parse(status.nextRunTimes?.[0] ?? "");
  return Number.isNaN(nextMs) ? settled : again(Math.max(statusEveryMsMin, nextMs - nowMs));
}

const warnings = [
  { type: conditionType.ready, event: eventReason.scheduleInvalid },
  { type: conditionType.retentionCoversGaps, event: eventReason.retentionTooShort },
];

/** Once for each thing that has gone wrong: whoever applied the schedule looks here first. Its volumes are told by their own reconciler. */
function tellWhatIsWrong(
  schedule: SnapshotSchedule,
  status: SnapshotScheduleStatus,
  { cluster }: ControllerDeps,
): void {
  for (const { type, event } of warnings) {
    const before = conditionOf(schedule.status?.conditions, type);
    const now = conditionOf(status.conditions, type);
    if (now?.status !== "False" || (before?.status === "False" && before.message === now.message)) continue;
    cluster.event(schedule, { type: "Warning", reason: event, message: now.message });
  }
}

/** However short the interval, the next runs are not rewritten more often than this. */
const statusEveryMsMin = 30_000;

function observe(key: Key, { cluster }: ControllerDeps): Facts | undefined {
  const schedule = cluster.get(SnapshotSchedules, key);
  if (schedule === undefined) return undefined;
  const served = cluster.find(migrationsBySchedule, schedule.metadata.name);
  return { schedule, volumes: served.filter(({ spec }) => spec.policy.enabled).length };
}

function decide({ schedule, volumes }: Facts, nowMs: number): SnapshotScheduleStatus {
  const { metadata, spec, status } = schedule;
  const parsed = parseTiming(spec);
  const timing = timingText(spec);
  // One that takes effect in the future was written by a clock that was ahead, and would keep all runs until then from being made.
  const isNew =
    status?.timing !== timing || status.effectiveTime === undefined || Date.parse(status.effectiveTime) > nowMs;
  const judgements = judgementsOf(schedule, parsed, nowMs);
  return {
    ...present({ observedGeneration: metadata.generation }),
    conditions: judged(status?.conditions, judgements, nowMs),
    volumes,
    timing,
    effectiveTime: isNew ? exactTime(nowMs) : (status.effectiveTime ?? exactTime(nowMs)),
    ...(parsed.kind === "timing" && spec.suspend !== true && { nextRunTimes: nextRuns(parsed.timing, nowMs) }),
  };
}

const nextRunsShown = 3;

function nextRuns(timing: Timing, nowMs: number): string[] {
  const runs: string[] = [];
  for (let runMs = nowMs; runs.length < nextRunsShown; runs.push(exactTime(runMs))) runMs = nextRun(timing, runMs);
  return runs;
}

function judgementsOf({ metadata, spec, status }: SnapshotSchedule, parsed: ParsedTiming, nowMs: number): Judgement[] {
  const { generation } = metadata;
  if (parsed.kind === "invalid") {
    const message = `${parsed.message}. No snapshots are taken; those that exist go on expiring.`;
    return [judge(conditionType.ready, generation, { status: false, reason: parsed.reason, message })];
  }
  const suspended = { status: true, reason: reason.suspended, message: "Suspended: no snapshots are taken." };
  const ok = { status: true, reason: reason.ok, message: "Snapshots are taken when they are due." };
  return [
    judge(conditionType.ready, generation, spec.suspend === true ? suspended : ok),
    // Looking through a hundred runs takes its time, and nothing but the spec changes what is found.
    judgedBefore(status, generation) ?? retentionJudgement(spec, parsed.timing, { generation, nowMs }),
  ];
}

function judgedBefore(
  status: SnapshotScheduleStatus | undefined,
  generation: number | undefined,
): Judgement | undefined {
  const before = conditionOf(status?.conditions, conditionType.retentionCoversGaps);
  return generation !== undefined && before?.observedGeneration === generation ? before : undefined;
}

function retentionJudgement(
  { retention }: SnapshotScheduleSpec,
  timing: Timing,
  { generation, nowMs }: { generation: number | undefined; nowMs: number },
): Judgement {
  const ageMs = retention.age === undefined ? Number.POSITIVE_INFINITY : parseDuration(retention.age);
  const found =
    ageMs >= shortestGapMs(timing, nowMs)
      ? { status: true, reason: reason.ok, message: "A snapshot is kept at least until the next one exists." }
      : {
          status: false,
          reason: reason.retentionTooShort,
          message: `retention.age ${retention.age} is shorter than the time between runs: a snapshot expires before the next exists. Raise it, or use migrateOn Creation if a low lag is wanted.`,
        };
  return judge(conditionType.retentionCoversGaps, generation, found);
}
