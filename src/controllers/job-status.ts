// The status of a MigrationJob, from what its agent tells of it. Pure.
import type { MigrationJob, MigrationJobStatus } from "../api/migration-job.ts";
import { conditionType, reason } from "../api/names.ts";
import { isDemandSnapshot } from "../domain/names.ts";
import type { Judgement } from "../kube/conditions.ts";
import type { JobState, JobView, SnapshotView } from "../wire/schemas.ts";
import { volumesOfJob } from "./kinds.ts";
import { clipped, exactTime, isSame, judge, judged, parseTime, present } from "./status-parts.ts";
import { snapshotOf } from "./volume-facts.ts";

type Phase = NonNullable<MigrationJobStatus["phase"]>;

/** Progress is not written more often than this; state changes are written at once. */
export const progressEveryMs = 30_000;

export interface JobEnding {
  readonly phase: "Succeeded" | "Failed" | "Cancelled";
  readonly reason: string;
  readonly message: string;
}

/** What keeps a job from being given to its agent, or what is wanted of it from being asked there. */
export interface JobWait {
  readonly reason: string;
  readonly message: string;
}

/** The status while the job waits for something. One that an agent was given is as far as it was, whether or not that is seen now. */
export function waitingStatus(job: MigrationJob, wait: JobWait, nowMs: number): MigrationJobStatus {
  const given = job.status?.startTime === undefined ? undefined : job.status.phase;
  const phase: Phase = given ?? (job.spec.suspend === true ? "Suspended" : "Pending");
  return withConditions(job, { ...job.status, phase, message: clipped(wait.message, 1024), ...toOf(job) }, wait, nowMs);
}

/** The status of a job that has ended; `view` is what the agent last told, if it ever was given the job. */
export function endedStatus(
  job: MigrationJob,
  ending: JobEnding,
  { view, snapshot, nowMs }: { view: JobView | undefined; snapshot: SnapshotView | undefined; nowMs: number },
): MigrationJobStatus {
  const told = view === undefined ? { ...job.status, ...toOf(job, snapshot) } : viewFields(job, view, nowMs);
  const ended = {
    ...told,
    phase: ending.phase,
    message: clipped(ending.message, 1024),
    completionTime: view?.finishedAt ?? exactTime(nowMs),
  };
  return withConditions(job, ended, ending, nowMs);
}

/** The status of a job that its agent has. */
export function runningStatus(job: MigrationJob, view: JobView, nowMs: number): MigrationJobStatus {
  const phase = phases[view.state];
  const message = view.error === null ? messages[view.state] : `${view.error.detail}. ${view.error.advice}`;
  const status = { ...viewFields(job, view, nowMs), phase, message: clipped(message, 1024) };
  // What keeps it from being decided is a reason of its own.
  const because = phase === "Undecided" ? (view.error?.code ?? phase) : phase;
  return withConditions(job, status, { reason: because, message }, nowMs);
}

const phases = {
  Pending: "Pending",
  Running: "Running",
  Suspended: "Suspended",
  Undecided: "Undecided",
  Succeeded: "Running",
  Failed: "Running",
  Cancelled: "Running",
} as const satisfies Record<JobState, Phase>;

const messages: Readonly<Record<JobState, string>> = {
  Pending: "Waits for its turn at the agent.",
  Running: "",
  Suspended: "Suspended; what has arrived is kept.",
  Undecided: "Whether the target has committed is not known; the agent asks until it is, and keeps everything.",
  Succeeded: "",
  Failed: "",
  Cancelled: "",
};

function toOf(job: MigrationJob, snapshot?: SnapshotView): Pick<MigrationJobStatus, "to"> {
  const known = snapshot && {
    generation: snapshot.generation,
    pointId: snapshot.pointId,
    time: snapshot.createdAt,
  };
  return { to: { ...job.status?.to, snapshot: snapshotOf(job), ...known } };
}

function viewFields(job: MigrationJob, view: JobView, nowMs: number): MigrationJobStatus {
  const { from, to, mode } = view;
  return {
    ...present({ observedGeneration: job.metadata.generation }),
    ...(from && { from: { generation: from.generation, pointId: from.pointId } }),
    to: {
      ...toOf(job).to,
      snapshot: view.spec.snapshot,
      // What stands for a group has the group's point for its id.
      ...(to && { generation: to.generation, pointId: to.pointId, time: to.sourceTime }),
      ...(to && view.spec.group && { groupPoint: to.pointId }),
    },
    ...(mode && { mode: mode.kind, modeReason: clipped(mode.reason, 512) }),
    barrier: view.barrier,
    bytesChanged: view.bytesTotal,
    bytesSent: view.bytesSent,
    unitsTotal: view.unitsTotal,
    unitsStored: view.unitsStored,
    attempts: view.attempts,
    epoch: view.epoch,
    ...participantsOf(view),
    ...(job.spec.group && { volumes: volumesOfJob(job) }),
    startTime: view.startedAt ?? job.status?.startTime ?? view.createdAt,
    lastProgressTime: exactTime(nowMs),
    ...(view.verified !== null && { verified: view.verified }),
  };
}

const participantsShown = 32;

type Participant = JobView["participants"][number];

/** The most important ones: who decides and who steers, then whoever is in trouble, then the others. */
function participantsOf({ participants }: JobView): Pick<MigrationJobStatus, "participants" | "participantsOmitted"> {
  const rank = ({ role, state, lastError }: Participant) => {
    if (role === "coordinator" || role === "decider") return 0;
    return state === "unreachable" || state === "failed" || lastError !== null ? 1 : 2;
  };
  const ranked = [...participants].sort((left, right) => rank(left) - rank(right));
  const omitted = participants.length - participantsShown;
  return {
    participants: ranked.slice(0, participantsShown).map(participantOf),
    ...(omitted > 0 && { participantsOmitted: omitted }),
  };
}

function participantOf({ agentId, node, role, state, barrier, epoch, volumes, lastError }: Participant) {
  return {
    agentId,
    role,
    state,
    barrier,
    epoch,
    volumes: volumes.length,
    ...present({
      node: node ?? undefined,
      lastError: lastError === null ? undefined : clipped(lastError, lastErrorLengthMax),
    }),
  };
}

const lastErrorLengthMax = 256;

function withConditions(
  job: MigrationJob,
  status: MigrationJobStatus,
  found: JobWait,
  nowMs: number,
): MigrationJobStatus {
  const { generation } = job.metadata;
  const judgements: Judgement[] = [
    judge(conditionType.complete, generation, { ...found, status: status.phase === "Succeeded" }),
    judge(conditionType.failed, generation, {
      ...found,
      status: status.phase === "Failed" || status.phase === "Cancelled",
    }),
    judge(conditionType.suspended, generation, { ...found, status: status.phase === "Suspended" }),
    judge(conditionType.undecided, generation, { ...found, status: status.phase === "Undecided" }),
  ];
  return {
    ...status,
    ...present({ observedGeneration: generation }),
    conditions: judged(job.status?.conditions, judgements, nowMs),
  };
}

/** How a finished agent job ends its MigrationJob. `early`: what it was cancelled for, if that was not asked for. */
export function endingOf(job: MigrationJob, view: JobView, early: JobEnding | undefined): JobEnding | undefined {
  switch (view.state) {
    case "Succeeded":
      if (job.spec.dryRun === true) {
        const time = view.etaSeconds === null ? "" : `, in about ${Math.ceil(view.etaSeconds)} s`;
        const message = `${view.mode?.kind ?? "Nothing"} would send ${view.bytesTotal} bytes${time}; nothing was transferred.`;
        return { phase: "Succeeded", reason: reason.planned, message };
      }
      return { phase: "Succeeded", reason: reason.succeeded, message: "The point is complete at the location." };
    case "Failed": {
      const { error } = view;
      const message = error === null ? "The agent gave up." : `${error.detail}. ${error.advice}`;
      return { phase: "Failed", reason: error?.code ?? reason.jobFailed, message };
    }
    case "Cancelled":
      return early ?? cancelled("Cancelled; the target stays at its previous point.");
    default:
      return undefined;
  }
}

export function cancelled(message: string): JobEnding {
  return { phase: "Cancelled", reason: reason.cancelled, message };
}

export function pastDeadline({ spec }: MigrationJob): JobEnding {
  const message = `Not done within activeDeadlineSeconds (${spec.activeDeadlineSeconds}); make another job with more, or without.`;
  return { phase: "Failed", reason: reason.deadlineExceeded, message };
}

/** When the job's deadline is over; `undefined` for none. */
export function deadlineOf({ metadata, spec }: MigrationJob): number | undefined {
  if (spec.activeDeadlineSeconds === undefined) return undefined;
  return Date.parse(metadata.creationTimestamp) + spec.activeDeadlineSeconds * 1_000;
}

/** Whether `next` tells more than progress: then it is written at once, otherwise every {@link progressEveryMs}. */
export function isNews(before: MigrationJobStatus | undefined, next: MigrationJobStatus): boolean {
  const state = ({
    phase,
    barrier,
    attempts,
    message,
    mode,
    from,
    to,
    observedGeneration,
    epoch,
  }: MigrationJobStatus) =>
    JSON.stringify([phase, barrier, attempts, message, mode, from, to, observedGeneration, epoch]);
  return before === undefined || state(before) !== state(next);
}

/** Whether `next` tells of any progress, or of what participants are at. */
export function isMoving(before: MigrationJobStatus | undefined, next: MigrationJobStatus): boolean {
  const progress = ({ bytesSent, unitsStored, participants, participantsOmitted }: MigrationJobStatus) => [
    bytesSent,
    unitsStored,
    participants,
    participantsOmitted,
  ];
  return before === undefined || !isSame(progress(before), progress(next));
}

/** How long until progress may be written again. */
export function progressWaitMs(before: MigrationJobStatus | undefined, nowMs: number): number {
  const lastMs = parseTime(before?.lastProgressTime);
  // A clock that was ahead may have written it.
  return lastMs === undefined || lastMs > nowMs ? 0 : Math.max(0, lastMs + progressEveryMs - nowMs);
}

/** Whether a job's snapshot was taken for it alone. */
export function isOnDemand(job: MigrationJob): boolean {
  return isDemandSnapshot(snapshotOf(job));
}
