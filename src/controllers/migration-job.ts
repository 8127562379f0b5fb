// MigrationJob → a job of the volume's agent, and back: what the agent tells of it becomes the status. A job that a user made
// without a snapshot gets one, taken at once. Jobs of one volume and location take turns, the oldest first.
import type { MigrationJob, MigrationJobStatus } from "../api/migration-job.ts";
import type { MigrationLocation } from "../api/migration-location.ts";
import { eventReason, finalizer, reason } from "../api/names.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { codeOf, isRetryable } from "../domain/errors.ts";
import { renderBytes } from "../domain/quantity.ts";
import {
  again,
  type Controller,
  type EventNote,
  type Key,
  keyOf,
  type Outcome,
  type ReconcileContext,
  settled,
  watching,
} from "../kube/cluster.ts";
import type { JobSpec, JobView, SnapshotView, VolumeView } from "../wire/schemas.ts";
import { agentsProblem, findOne, type Held } from "./agents.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import { agentJobName, surplusJobs, sweepAgentJobs } from "./job-history.ts";
import {
  deadlineOf,
  endedStatus,
  endingOf,
  isNews,
  isOnDemand,
  type JobEnding,
  type JobWait,
  pastDeadline,
  progressWaitMs,
  runningStatus,
  waitingStatus,
} from "./job-status.ts";
import {
  jobsByLocation,
  jobsByVolume,
  MigrationJobs,
  MigrationLocations,
  PersistentVolumeClaims,
  SnapshotSchedules,
  VolumeMigrations,
} from "./kinds.ts";
import { explain } from "./refusal.ts";
import { present } from "./status-parts.ts";
import { hasEnded, isPaused, snapshotOf } from "./volume-facts.ts";

export function migrationJobController(deps: ControllerDeps): Controller {
  const { cluster } = deps;
  return {
    name: controllerName.migrationJob,
    kind: MigrationJobs,
    watches: [
      watching<VolumeMigration>(VolumeMigrations, ({ metadata }) =>
        cluster
          .find(jobsByVolume, metadata.name)
          .filter((job) => !hasEnded(job))
          .map(keyOf),
      ),
      // Jobs are suspended while their location is paused.
      watching<MigrationLocation>(MigrationLocations, ({ metadata }) =>
        cluster
          .find(jobsByLocation, metadata.name)
          .filter((job) => !hasEnded(job))
          .map(keyOf),
      ),
      // The end of a job is the turn of the next one for the same volume and location.
      watching<MigrationJob>(MigrationJobs, (job) =>
        cluster
          .find(jobsByVolume, job.spec.volumeName)
          .filter((other) => other.spec.location === job.spec.location && !hasEnded(other))
          .map(keyOf),
      ),
    ],
    reads: [PersistentVolumeClaims, SnapshotSchedules],
    concurrency: 16,
    reconcile: (key, context) => reconcile(key, deps, context),
  };
}

interface Facts {
  readonly job: MigrationJob;
  readonly migration: VolumeMigration | undefined;
  readonly volume: Held<VolumeView> | undefined;
  readonly snapshot: SnapshotView | undefined;
  /** The job on its agent. */
  readonly given: Held<JobView> | undefined;
  /** The job of the same volume and location whose turn it is before this one's. */
  readonly earlier: MigrationJob | undefined;
  readonly agentsProblem: string | undefined;
  /** By its user, or because its location is paused. */
  readonly isSuspended: boolean;
}

type Action =
  | { readonly kind: "protect" }
  | { readonly kind: "wait"; readonly wait: JobWait }
  | { readonly kind: "snapshot"; readonly volume: Held<VolumeView> }
  | { readonly kind: "give"; readonly agent: Held<VolumeView>["agent"]; readonly spec: JobSpec }
  | { readonly kind: "watch"; readonly view: JobView }
  | { readonly kind: "end"; readonly ending: JobEnding }
  | { readonly kind: "release" }
  | { readonly kind: "prune"; readonly surplus: readonly MigrationJob[] };

async function reconcile(key: Key, deps: ControllerDeps, context: ReconcileContext): Promise<Outcome> {
  const facts = observe(key, deps);
  if (facts === undefined) {
    await sweepAgentJobs(key.name, deps);
    return settled;
  }
  const nowMs = deps.clock.nowMs();
  const action = decide(facts, deps, nowMs);
  const outcome = await apply(facts, action, deps, context);
  return bounded(outcome, facts.job, nowMs);
}

/** The deadline is looked at when it is over, whatever else happens. */
function bounded(outcome: Outcome, job: MigrationJob, nowMs: number): Outcome {
  const deadlineMs = deadlineOf(job);
  if (deadlineMs === undefined || hasEnded(job) || deadlineMs <= nowMs) return outcome;
  const leftMs = deadlineMs - nowMs;
  return again(outcome.kind === "again" ? Math.min(outcome.afterMs, leftMs) : leftMs);
}

function observe(key: Key, { cluster, agents }: ControllerDeps): Facts | undefined {
  const job = cluster.get(MigrationJobs, key);
  if (job === undefined) return undefined;
  const migration = cluster.get(VolumeMigrations, { name: job.spec.volumeName });
  const volume = migration && findOne(agents, "volumes", migration.spec.volume.handle);
  return {
    job,
    migration,
    volume,
    snapshot: volume?.view.snapshots.find(({ name }) => name === snapshotOf(job)),
    given: findOne(agents, "jobs", agentJobName(job)),
    earlier: cluster
      .find(jobsByVolume, job.spec.volumeName)
      .find((other) => other.spec.location === job.spec.location && !hasEnded(other) && isBefore(other, job)),
    agentsProblem: agentsProblem(agents),
    isSuspended: job.spec.suspend === true || isPaused(cluster.get(MigrationLocations, { name: job.spec.location })),
  };
}

function isBefore(left: MigrationJob, right: MigrationJob): boolean {
  // One that the agent has is not overtaken, and creation times are in whole seconds only.
  const rank = ({ metadata, status }: MigrationJob) =>
    `${status?.startTime === undefined ? 1 : 0} ${metadata.creationTimestamp} ${metadata.name}`;
  return rank(left) < rank(right);
}

function decide(facts: Facts, deps: ControllerDeps, nowMs: number): Action {
  const { job, given } = facts;
  const isProtected = job.metadata.finalizers?.includes(finalizer.job) === true;
  if (hasEnded(job)) {
    return isProtected ? { kind: "release" } : { kind: "prune", surplus: surplusJobs(job, facts.migration, deps) };
  }
  const isDeleted = job.metadata.deletionTimestamp !== undefined;
  if (!isProtected && !isDeleted) return { kind: "protect" };
  const isLate = (deadlineOf(job) ?? Number.POSITIVE_INFINITY) <= nowMs;
  const isCancelled = job.spec.cancel === true || isDeleted || isLate;
  if (given !== undefined) return decideGiven(facts, given, { isCancelled, isLate });
  return decideNotGiven(facts, { isCancelled, isLate });
}

interface Wishes {
  readonly isCancelled: boolean;
  readonly isLate: boolean;
}

function decideGiven(
  { job, isSuspended }: Facts,
  { agent, view }: Held<JobView>,
  { isCancelled, isLate }: Wishes,
): Action {
  const ending = endingOf(job, view, isLate);
  if (ending !== undefined) return { kind: "end", ending };
  const spec = { ...view.spec, suspend: isSuspended, ...(isCancelled && { cancel: true }) };
  const isAsWished =
    (spec.suspend ?? false) === (view.spec.suspend ?? false) && (spec.cancel ?? false) === (view.spec.cancel ?? false);
  return isAsWished ? { kind: "watch", view } : { kind: "give", agent, spec };
}

function decideNotGiven(facts: Facts, { isCancelled, isLate }: Wishes): Action {
  const { job, volume, snapshot } = facts;
  const wait = waitFor(facts);
  // Whether an agent that is not seen has the job cannot be known, so it is not over before all are seen.
  if (isCancelled && facts.agentsProblem === undefined) return { kind: "end", ending: neverStarted(job, isLate) };
  if (wait !== undefined || volume === undefined) return { kind: "wait", wait: wait ?? unknownVolume(job) };
  if (snapshot === undefined && isOnDemand(job)) return { kind: "snapshot", volume };
  if (snapshot === undefined || snapshot.state === "lost" || snapshot.state === "deleting") {
    const state = snapshot === undefined ? "does not exist (any more)" : `is ${snapshot.state}`;
    const message = `Snapshot ${snapshotOf(job)} of the volume ${state}. The next job takes over its changes.`;
    return { kind: "end", ending: { phase: "Failed", reason: "SnapshotGone", message } };
  }
  if (facts.earlier !== undefined) {
    const message = `Waits for MigrationJob ${facts.earlier.metadata.name} of the same volume and location.`;
    return { kind: "wait", wait: { reason: reason.waiting, message } };
  }
  return { kind: "give", agent: volume.agent, spec: jobSpec(facts, volume.view) };
}

function neverStarted(job: MigrationJob, isLate: boolean): JobEnding {
  if (isLate && job.spec.cancel !== true) return pastDeadline(job);
  return { phase: "Cancelled", reason: reason.cancelled, message: "Cancelled before it was given to an agent." };
}

/** Why the job cannot even get its snapshot yet. */
function waitFor({ job, migration, volume, agentsProblem }: Facts): JobWait | undefined {
  const { volumeName, location } = job.spec;
  if (migration === undefined) return unknownVolume(job);
  if (!migration.spec.policy.locations.includes(location)) {
    const message = `The policy of PersistentVolume ${volumeName} does not name location ${location}; add it there, or cancel this job.`;
    return { reason: reason.locationMissing, message };
  }
  if (volume !== undefined) return undefined;
  if (agentsProblem !== undefined) return { reason: reason.agentUnreachable, message: agentsProblem };
  const message = `No agent of this cluster holds volume ${migration.spec.volume.handle}.`;
  return { reason: reason.volumeMissing, message };
}

function unknownVolume({ spec }: MigrationJob): JobWait {
  const message = `PersistentVolume ${spec.volumeName} has no VolumeMigration; enable migration on its class or on itself.`;
  return { reason: reason.disabled, message };
}

function jobSpec({ job, isSuspended }: Facts, view: VolumeView): JobSpec {
  const { location, dryRun } = job.spec;
  return {
    volume: view.name,
    location,
    snapshot: snapshotOf(job),
    ...(isSuspended && { suspend: true }),
    ...present({ dryRun }),
  };
}

async function apply(
  facts: Facts,
  action: Action,
  deps: ControllerDeps,
  { signal }: ReconcileContext,
): Promise<Outcome> {
  const { job } = facts;
  const { cluster, clock } = deps;
  const write = (status: MigrationJobStatus) => cluster.patchStatus(MigrationJobs, job, status, signal);
  switch (action.kind) {
    case "protect":
      // What is at the agent must not be forgotten with the object; the change brings the job back here.
      await cluster.addFinalizer(MigrationJobs, job, finalizer.job, signal);
      return settled;
    case "wait":
      await write(waitingStatus(job, action.wait, clock.nowMs()));
      return again(waitEveryMs);
    case "snapshot":
      return trying(facts, deps, write, async () => {
        await action.volume.agent.api.putSnapshot(action.volume.view.name, snapshotOf(job));
      });
    case "give":
      return trying(facts, deps, write, async () => {
        const view = await action.agent.api.putJob(agentJobName(job), action.spec);
        await write(runningStatus(job, view, clock.nowMs()));
        if (facts.given === undefined) tell(facts, startedNote(job), deps);
      });
    case "watch":
      return watch(job, action.view, clock.nowMs(), write);
    case "end":
      await write(endedStatus(job, action.ending, { ...facts, view: facts.given?.view, nowMs: clock.nowMs() }));
      tell(facts, endedNote(facts, action.ending), deps);
      return settled;
    case "release":
      await cluster.removeFinalizer(MigrationJobs, job, finalizer.job, signal);
      return settled;
    case "prune":
      for (const { metadata } of action.surplus) {
        await cluster.remove(MigrationJobs, { name: metadata.name, uid: metadata.uid }, signal);
      }
      return settled;
  }
}

/** What a job waits for usually announces itself; this is for what does not. */
const waitEveryMs = 60_000;

/** Failures of the agent that will not pass end the job; the others are shown, and tried again. */
async function trying(
  facts: Facts,
  { clock }: ControllerDeps,
  write: (status: MigrationJobStatus) => Promise<unknown>,
  effect: () => Promise<void>,
): Promise<Outcome> {
  try {
    await effect();
    return settled;
  } catch (error) {
    const code = codeOf(error);
    if (code === undefined) throw error;
    const message = explain(error);
    // A location that the agent does not know yet is told to it by another reconciler.
    if (isRetryable(error) || code === "NotFound" || facts.given !== undefined) {
      await write(waitingStatus(facts.job, { reason: code, message }, clock.nowMs()));
      throw error;
    }
    const { snapshot } = facts;
    const ending: JobEnding = { phase: "Failed", reason: code, message };
    await write(endedStatus(facts.job, ending, { view: undefined, snapshot, nowMs: clock.nowMs() }));
    return settled;
  }
}

async function watch(
  job: MigrationJob,
  view: JobView,
  nowMs: number,
  write: (status: MigrationJobStatus) => Promise<unknown>,
): Promise<Outcome> {
  const next = runningStatus(job, view, nowMs);
  const waitMs = progressWaitMs(job.status, nowMs);
  if (isNews(job.status, next)) {
    await write(next);
    return settled;
  }
  const isMoving = job.status?.bytesSent !== next.bytesSent || job.status?.unitsStored !== next.unitsStored;
  if (!isMoving) return settled;
  if (waitMs > 0) return again(waitMs);
  await write(next);
  return settled;
}

function startedNote({ metadata, spec }: MigrationJob): EventNote {
  const message = `MigrationJob ${metadata.name} brings the volume to ${spec.location}`;
  return { type: "Normal", reason: eventReason.migrationStarted, message };
}

function endedNote({ job, given }: Facts, { phase, message }: JobEnding): EventNote {
  const what = `MigrationJob ${job.metadata.name} to ${job.spec.location}`;
  switch (phase) {
    case "Succeeded": {
      const mode = given?.view.mode?.kind ?? "nothing";
      const sent = `${mode}, ${renderBytes(given?.view.bytesSent ?? 0)} sent`;
      return { type: "Normal", reason: eventReason.migrationSucceeded, message: `${what}: ${sent}. ${message}` };
    }
    case "Failed":
      return { type: "Warning", reason: eventReason.migrationFailed, message: `${what} failed: ${message}` };
    case "Cancelled":
      return { type: "Normal", reason: eventReason.migrationCancelled, message: `${what}: ${message}` };
  }
}

/** Tenants see their claims, not our kinds: what concerns a claim is told there as well. */
function tell({ job, migration }: Facts, note: EventNote, { cluster }: ControllerDeps): void {
  cluster.event(job, note);
  const { namespace, name } = migration?.spec.claim ?? {};
  if (namespace === undefined || name === undefined) return;
  const claim = cluster.get(PersistentVolumeClaims, { namespace, name });
  if (claim !== undefined) cluster.event(claim, note);
}
