// MigrationJob → a job of an agent that has the volume, or a part of the group, and back: what the agents tell of it becomes
// the status. A job that a user made without a snapshot gets one, taken at once. Jobs that share a volume and a location take
// turns, the oldest first.
import type { PersistentVolume } from "../api/core.ts";
import type { MigrationJob, MigrationJobStatus } from "../api/migration-job.ts";
import type { MigrationLocation } from "../api/migration-location.ts";
import { eventReason, finalizer, label, managedByLongshore, reason } from "../api/names.ts";
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
import type { JobSpec, JobView } from "../wire/schemas.ts";
import { type AgentJob, agentJobsOf, viewOf } from "./agent-jobs.ts";
import { agentsProblem, awayBecause, laneOfHolder, type SeenAgent } from "./agents.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import { isOver, surplusJobs, sweepAgentJobs } from "./job-history.ts";
import {
  cancelled,
  deadlineOf,
  endedStatus,
  endingOf,
  isMoving,
  isNews,
  isOnDemand,
  type JobEnding,
  type JobWait,
  pastDeadline,
  progressWaitMs,
  runningStatus,
  waitingStatus,
} from "./job-status.ts";
import { type JobPart, type JobSubject, observeSubject, partakersOf, snapshotProblem } from "./job-subject.ts";
import {
  groupValue,
  jobsByGroup,
  jobsByLocation,
  jobsByVolume,
  MigrationJobs,
  MigrationLocations,
  PersistentVolumeClaims,
  PersistentVolumes,
  SnapshotSchedules,
  StorageClasses,
  VolumeMigrations,
  volumesOfJob,
} from "./kinds.ts";
import { explain } from "./refusal.ts";
import type { SnapshotPace } from "./snapshot-pace.ts";
import { present } from "./status-parts.ts";
import { hasEnded, isLeaving, isPaused, snapshotOf } from "./volume-facts.ts";
import type { SeenGroup } from "./volume-group.ts";

export function migrationJobController(deps: ControllerDeps, pace: SnapshotPace): Controller {
  const { cluster } = deps;
  return {
    name: controllerName.migrationJob,
    kind: MigrationJobs,
    watches: [
      watching<VolumeMigration>(VolumeMigrations, ({ metadata, spec }) =>
        [
          ...cluster.find(jobsByVolume, metadata.name),
          ...(spec.group === undefined ? [] : cluster.find(jobsByGroup, groupValue(spec.group))),
        ]
          .filter(isUnderWay)
          .map(keyOf),
      ),
      // A suspended job does not hold up the deletion of a volume.
      watching<PersistentVolume>(PersistentVolumes, (volume) =>
        isLeaving(volume) ? cluster.find(jobsByVolume, volume.metadata.name).filter(isUnderWay).map(keyOf) : [],
      ),
      // Jobs are suspended while their location is paused.
      watching<MigrationLocation>(MigrationLocations, ({ metadata }) =>
        cluster.find(jobsByLocation, metadata.name).filter(isUnderWay).map(keyOf),
      ),
      // The end of a job is the turn of the next one for the same volume and location.
      watching<MigrationJob>(MigrationJobs, (job) =>
        volumesOfJob(job)
          .flatMap((name) => cluster.find(jobsByVolume, name))
          .filter((other) => other.spec.location === job.spec.location && isUnderWay(other))
          .map(keyOf),
      ),
    ],
    reads: [PersistentVolumeClaims, StorageClasses, SnapshotSchedules],
    concurrency: 8,
    laneOf: (key) => laneOf(key, deps),
    reconcile: (key, context) => reconcile(key, { ...deps, pace }, context),
  };
}

const isUnderWay = (job: MigrationJob) => !hasEnded(job);

interface Deps extends ControllerDeps {
  readonly pace: SnapshotPace;
}

/** Jobs wait for the agent of their volume; those of a group for any agent that has a part of it. */
function laneOf(key: Key, { cluster, agents }: ControllerDeps): string {
  const { group, volumeName } = cluster.get(MigrationJobs, key)?.spec ?? {};
  if (group !== undefined) return groupValue(group);
  const migration = volumeName === undefined ? undefined : cluster.get(VolumeMigrations, { name: volumeName });
  return laneOfHolder(agents, "volumes", migration?.spec.volume.handle ?? "");
}

interface Facts {
  readonly job: MigrationJob;
  readonly subject: JobSubject;
  /** What agents are asked for, and have. */
  readonly agentJobs: readonly AgentJob[];
  /** What they tell, once they have all of it. */
  readonly view: JobView | undefined;
  /** The job of the same volume and location whose turn it is before this one's. */
  readonly earlier: MigrationJob | undefined;
  readonly agentsProblem: string | undefined;
  readonly location: MigrationLocation | undefined;
  /** By its user, or because its location is paused. */
  readonly isSuspended: boolean;
  /** The first of its volumes that is about to be deleted, by name. */
  readonly leaving: string | undefined;
}

type Action =
  | { readonly kind: "protect" }
  | { readonly kind: "wait"; readonly wait: JobWait }
  /** Of a group: which volumes take part is settled before anything is done with them. */
  | { readonly kind: "choose"; readonly volumes: readonly string[] }
  | { readonly kind: "snapshot" }
  | { readonly kind: "give"; readonly gifts: readonly Gift[] }
  | { readonly kind: "watch"; readonly view: JobView }
  | { readonly kind: "end"; readonly ending: JobEnding }
  | { readonly kind: "stop"; readonly gifts: readonly Gift[] }
  | { readonly kind: "release" }
  | { readonly kind: "prune"; readonly surplus: readonly MigrationJob[] };

/** A job that an agent is asked for, or asked to suspend or cancel. */
interface Gift {
  readonly agent: SeenAgent;
  readonly name: string;
  readonly spec: JobSpec;
}

async function reconcile(key: Key, deps: Deps, context: ReconcileContext): Promise<Outcome> {
  const facts = observe(key, deps);
  if (facts === undefined) {
    await sweepAgentJobs(key, deps, context.signal);
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

function observe(key: Key, deps: ControllerDeps): Facts | undefined {
  const { cluster, agents } = deps;
  const job = cluster.get(MigrationJobs, key);
  if (job === undefined) return undefined;
  const subject = observeSubject(job, deps);
  const location = cluster.get(MigrationLocations, { name: job.spec.location });
  const agentJobs = agentJobsOf(job, subject, agents);
  return {
    job,
    subject,
    agentJobs,
    view: viewOf(subject, agentJobs),
    earlier: volumesOfJob(job)
      .flatMap((name) => cluster.find(jobsByVolume, name))
      .find((other) => other.spec.location === job.spec.location && !hasEnded(other) && isBefore(other, job)),
    agentsProblem: agentsProblem(agents),
    location,
    isSuspended: job.spec.suspend === true || isPaused(location),
    leaving: volumesOfJob(job).find((name) => isLeaving(cluster.get(PersistentVolumes, { name }))),
  };
}

function isBefore(left: MigrationJob, right: MigrationJob): boolean {
  // One that the agent has is not overtaken, and creation times are in whole seconds only.
  const rank = ({ metadata, status }: MigrationJob) =>
    `${status?.startTime === undefined ? 1 : 0} ${metadata.creationTimestamp} ${metadata.name}`;
  return rank(left) < rank(right);
}

function decide(facts: Facts, deps: ControllerDeps, nowMs: number): Action {
  const { job, view } = facts;
  const isProtected = job.metadata.finalizers?.includes(finalizer.job) === true;
  if (hasEnded(job)) {
    const gifts = straysOf(facts);
    if (gifts.length > 0) return { kind: "stop", gifts };
    if (isProtected) return { kind: "release" };
    return { kind: "prune", surplus: surplusJobs(job, facts.subject.parts[0]?.migration, deps) };
  }
  const isDeleted = job.metadata.deletionTimestamp !== undefined;
  if (!isProtected && !isDeleted) return { kind: "protect" };
  const early = earlyEnding(facts, nowMs);
  const isCancelled = job.spec.cancel === true || isDeleted || early !== undefined;
  if (view !== undefined) return decideGiven(facts, view, { isCancelled, early });
  return decideNotGiven(facts, { isCancelled, early });
}

/** What the job is cancelled for although its user has not asked for that. */
function earlyEnding({ job, leaving }: Facts, nowMs: number): JobEnding | undefined {
  if (job.spec.cancel === true) return undefined;
  if ((deadlineOf(job) ?? Number.POSITIVE_INFINITY) <= nowMs) return pastDeadline(job);
  // One that its location's pause has suspended goes on by itself, and is waited for like any other.
  if (job.spec.suspend !== true || leaving === undefined) return undefined;
  const message = `PersistentVolume ${leaving} is to be deleted, and no suspended job is waited for. The target stays at its previous point.`;
  return { phase: "Cancelled", reason: reason.volumeMissing, message };
}

/**
 * What agents go on with although it did not come to a good end here: the last leader gave it to them when this one had listed
 * their jobs already.
 */
function straysOf({ job, agentJobs }: Facts): readonly Gift[] {
  if (job.status?.phase === "Succeeded") return [];
  return agentJobs.flatMap(({ name, given }) => {
    if (given === undefined || isOver(given.view) || given.view.spec.cancel === true) return [];
    return [{ agent: given.agent, name, spec: { ...given.view.spec, cancel: true } }];
  });
}

interface Wishes {
  readonly isCancelled: boolean;
  readonly early: JobEnding | undefined;
}

function decideGiven({ job, agentJobs, isSuspended }: Facts, view: JobView, { isCancelled, early }: Wishes): Action {
  const ending = endingOf(job, view, early);
  if (ending !== undefined) return { kind: "end", ending };
  const gifts = agentJobs.flatMap(({ name, given }) => {
    if (given === undefined || isOver(given.view)) return [];
    const { spec: had } = given.view;
    const spec = { ...had, suspend: isSuspended, ...(isCancelled && { cancel: true }) };
    const isAsWished = spec.suspend === (had.suspend ?? false) && (spec.cancel ?? false) === (had.cancel ?? false);
    return isAsWished ? [] : [{ agent: given.agent, name, spec }];
  });
  if (gifts.length === 0) return { kind: "watch", view };
  const away = gifts.flatMap(({ agent }) => awayBecause(agent) ?? []);
  if (away.length === 0) return { kind: "give", gifts };
  return { kind: "wait", wait: agentsAway(away.join("; ")) };
}

function agentsAway(message: string): JobWait {
  return { reason: reason.agentUnreachable, message };
}

function decideNotGiven(facts: Facts, { isCancelled, early }: Wishes): Action {
  const { job, subject } = facts;
  // Whether an agent that is not seen has the job cannot be known, so it is not over before all are seen.
  if (isCancelled) {
    if (facts.agentsProblem === undefined)
      return { kind: "end", ending: early ?? cancelled("Cancelled before it was given to an agent.") };
    return { kind: "wait", wait: agentsAway(facts.agentsProblem) };
  }
  if (isOneOfGroup(job, subject)) return { kind: "end", ending: oneOfGroup(job, subject) };
  if (subject.group !== undefined && subject.parts.length === 0) return decideUnsettled(job, subject.group);
  const gone = subject.group && subject.parts.find(({ migration }) => migration === undefined);
  if (gone !== undefined) return { kind: "end", ending: volumeGone(gone) };
  const unwanted = isScheduled(job) ? subject.parts.find((part) => !isWanted(part, job)) : undefined;
  if (unwanted !== undefined) return { kind: "end", ending: locationGone(unwanted, job) };
  const wait = waitFor(facts);
  if (wait !== undefined) return { kind: "wait", wait };
  const isTaken = subject.parts.every(({ snapshot }) => snapshot !== undefined && snapshot.state !== "creating");
  if (!isTaken && isOnDemand(job)) return { kind: "snapshot" };
  const problem = snapshotProblem(job, subject);
  if (problem !== undefined) {
    return { kind: "end", ending: { phase: "Failed", reason: "SnapshotGone", message: problem } };
  }
  if (facts.earlier !== undefined) {
    const message = `Waits for MigrationJob ${facts.earlier.metadata.name} of the same volume and location.`;
    return { kind: "wait", wait: { reason: reason.waiting, message } };
  }
  return decideGive(facts);
}

function decideGive({ job, subject, agentJobs, isSuspended }: Facts): Action {
  const { location, dryRun } = job.spec;
  const more = { location, snapshot: snapshotOf(job), ...(isSuspended && { suspend: true }), ...present({ dryRun }) };
  const gifts = agentJobs.flatMap(({ name, parts, about, given }) => {
    const agent = takerOf(parts);
    return given !== undefined || about === undefined || agent === undefined
      ? []
      : [{ agent, name, spec: { ...about, ...more } }];
  });
  if (gifts.length === 0) return { kind: "wait", wait: unknownVolume(subject.parts[0]?.name ?? "") };
  return { kind: "give", gifts };
}

/** An agent that holds a part, and is followed if one of them is. */
function takerOf(parts: readonly JobPart[]): SeenAgent | undefined {
  const holders = parts.flatMap(({ held }) => held?.agent ?? []);
  return holders.find(({ problem }) => problem === undefined) ?? holders[0];
}

function decideUnsettled(job: MigrationJob, group: SeenGroup): Action {
  if (group.members.length === 0) {
    const message = `No migrated volume belongs to group ${group.title}: label its claims ${label.group}, and enable migration.`;
    return { kind: "wait", wait: { reason: reason.disabled, message } };
  }
  if (job.spec.toSnapshot === undefined && group.conflict !== undefined) {
    const message = `The volumes of group ${group.title} do not agree: ${group.conflict}.`;
    return { kind: "wait", wait: { reason: reason.groupConflict, message } };
  }
  const volumes = partakersOf(job, group);
  if (volumes.length > 0) return { kind: "choose", volumes };
  const message = `No volume of group ${group.title} has snapshot ${snapshotOf(job)}.`;
  return { kind: "end", ending: { phase: "Failed", reason: "SnapshotGone", message } };
}

/** One volume of a group alone would become newer over there than the others, and keep the group's next points from arriving. */
function isOneOfGroup(job: MigrationJob, { group, parts }: JobSubject): boolean {
  const belongs = group === undefined && parts[0]?.migration?.spec.group !== undefined;
  return belongs && isOnDemand(job) && job.spec.dryRun !== true;
}

function oneOfGroup(job: MigrationJob, { parts }: JobSubject): JobEnding {
  const id = parts[0]?.migration?.spec.group;
  const message = `Volume ${job.spec.volumeName} belongs to group ${id?.namespace}/${id?.name}, whose volumes are migrated together. Create a MigrationJob with spec.group in place of spec.volumeName.`;
  return { phase: "Failed", reason: reason.groupMember, message };
}

function volumeGone({ name }: JobPart): JobEnding {
  const message = `PersistentVolume ${name} of the group is not migrated any more. The next job is of those that are left.`;
  return { phase: "Failed", reason: reason.volumeMissing, message };
}

/** Nobody is there to cancel it, and as long as it waits its snapshot is kept for it. */
function isScheduled({ metadata }: MigrationJob): boolean {
  return metadata.labels?.[label.managedBy] === managedByLongshore;
}

/** What is not known to be unwanted is waited for. */
function isWanted({ migration }: JobPart, { spec }: MigrationJob): boolean {
  return migration === undefined || migration.spec.policy.locations.includes(spec.location);
}

function locationGone({ name }: JobPart, { spec }: MigrationJob): JobEnding {
  const message = `The policy of PersistentVolume ${name} does not name location ${spec.location} any more.`;
  return { phase: "Cancelled", reason: reason.locationMissing, message };
}

/** Why the job cannot even get its snapshots yet. */
function waitFor({ job, subject, location, agentsProblem }: Facts): JobWait | undefined {
  for (const part of subject.parts) {
    const { name, migration, held } = part;
    if (migration === undefined) return unknownVolume(name);
    if (!isWanted(part, job)) {
      const message = `The policy of PersistentVolume ${name} does not name location ${job.spec.location}; add it there, or cancel this job.`;
      return { reason: reason.locationMissing, message };
    }
    const away = held === undefined ? agentsProblem : awayBecause(held.agent);
    if (away !== undefined) return agentsAway(away);
    if (held !== undefined) continue;
    const message = `No agent of this cluster holds volume ${migration.spec.volume.handle}; check the PersistentVolume's volumeHandle.`;
    return { reason: reason.volumeMissing, message };
  }
  const { metadata, spec } = location ?? {};
  const closed = metadata?.deletionTimestamp === undefined ? spec?.suspend && "suspended" : "being deleted";
  if (!closed || job.spec.dryRun === true) return undefined;
  return { reason: reason.waiting, message: `MigrationLocation ${job.spec.location} is ${closed}: no job is started.` };
}

function unknownVolume(name: string): JobWait {
  const message = `PersistentVolume ${name} has no VolumeMigration; enable migration on its class or on itself.`;
  return { reason: reason.disabled, message };
}

async function apply(facts: Facts, action: Action, deps: Deps, { signal }: ReconcileContext): Promise<Outcome> {
  const { job } = facts;
  const { cluster, clock } = deps;
  const write = async (status: MigrationJobStatus) => {
    await cluster.patchStatus(MigrationJobs, job, status, signal);
    const note = decisionNote(job, status);
    if (note !== undefined) tell(facts, note, deps);
  };
  switch (action.kind) {
    case "protect":
      // What is at the agent must not be forgotten with the object; the change brings the job back here.
      await cluster.addFinalizer(MigrationJobs, job, finalizer.job, signal);
      return settled;
    case "wait":
      await write(waitingStatus(job, action.wait, clock.nowMs()));
      return again(waitEveryMs);
    case "choose": {
      const wait = { reason: reason.waiting, message: "Its volumes are settled." };
      await write({ ...waitingStatus(job, wait, clock.nowMs()), volumes: action.volumes });
      return again(0);
    }
    case "snapshot": {
      const agents = facts.subject.parts.flatMap(({ held }) => held?.agent.id ?? []);
      const turn = deps.pace.ask(`job ${job.metadata.name}`, agents);
      if (turn.kind === "wait") return again(turn.waitMs);
      return trying(facts, deps, write, () => takeSnapshot(facts)).finally(turn.leave);
    }
    case "give":
      return trying(facts, deps, write, async () => {
        const views: JobView[] = [];
        for (const { agent, name, spec } of action.gifts) views.push(await agent.api.putJob(name, spec));
        const [only] = views;
        // Of several the agents' news tell.
        if (only !== undefined && facts.agentJobs.length === 1) await write(runningStatus(job, only, clock.nowMs()));
        if (facts.view === undefined) tell(facts, startedNote(job), deps);
      });
    case "watch":
      return watch(job, action.view, clock.nowMs(), write);
    case "end":
      await write(endedStatus(job, action.ending, { ...lookOf(facts), nowMs: clock.nowMs() }));
      tell(facts, endedNote(facts, action.ending), deps);
      return settled;
    case "stop":
      for (const { agent, name, spec } of action.gifts) await agent.api.putJob(name, spec);
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

function lookOf({ subject, view }: Facts) {
  return { snapshot: subject.parts[0]?.snapshot, view };
}

/** Of a group again and again until all of it has it: the agents finish what they have begun, or begin anew. */
async function takeSnapshot({ job, subject }: Facts): Promise<void> {
  const held = subject.parts.flatMap((part) => part.held ?? []);
  const [first] = held;
  if (first === undefined) return;
  const { api } = first.agent;
  if (subject.group === undefined) await api.putSnapshot(first.view.name, snapshotOf(job));
  else {
    const volumes = held.map(({ view }) => view.name);
    await api.putGroupSnapshot(subject.group.agentName, snapshotOf(job), { volumes });
  }
}

/** What a job waits for usually announces itself; this is for what does not. */
const waitEveryMs = 60_000;

/** Failures of the agent that will not pass end the job; the others are shown, and tried again. */
async function trying(
  facts: Facts,
  deps: ControllerDeps,
  write: (status: MigrationJobStatus) => Promise<unknown>,
  effect: () => Promise<void>,
): Promise<Outcome> {
  try {
    await effect();
    return settled;
  } catch (error) {
    const code = codeOf(error);
    if (code === undefined) throw error;
    const message = explain(error, facts.job.status?.message);
    // A location that the agent does not know yet is told to it by another reconciler.
    if (isRetryable(error) || code === "NotFound" || facts.view !== undefined) {
      await write(waitingStatus(facts.job, { reason: code, message }, deps.clock.nowMs()));
      throw error;
    }
    const ending: JobEnding = { phase: "Failed", reason: code, message };
    await write(endedStatus(facts.job, ending, { ...lookOf(facts), view: undefined, nowMs: deps.clock.nowMs() }));
    tell(facts, endedNote(facts, ending), deps);
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
  if (!isMoving(job.status, next)) return settled;
  if (waitMs > 0) return again(waitMs);
  await write(next);
  return settled;
}

function startedNote({ metadata, spec }: MigrationJob): EventNote {
  const what = spec.group === undefined ? "the volume" : `the volumes of group ${spec.group.name}`;
  const message = `MigrationJob ${metadata.name} brings ${what} to ${spec.location}`;
  return { type: "Normal", reason: eventReason.migrationStarted, message };
}

function endedNote({ job, view }: Facts, { phase, message }: JobEnding): EventNote {
  const what = `MigrationJob ${job.metadata.name} to ${job.spec.location}`;
  switch (phase) {
    case "Succeeded": {
      const mode = view?.mode?.kind ?? "nothing";
      const sent = `${mode}, ${renderBytes(view?.bytesSent ?? 0)} sent`;
      return { type: "Normal", reason: eventReason.migrationSucceeded, message: `${what}: ${sent}. ${message}` };
    }
    case "Failed":
      return { type: "Warning", reason: eventReason.migrationFailed, message: `${what} failed: ${message}` };
    case "Cancelled":
      return { type: "Normal", reason: eventReason.migrationCancelled, message: `${what}: ${message}` };
  }
}

/** When it becomes unknown whether the target has committed, and when it is known again. */
function decisionNote(job: MigrationJob, next: MigrationJobStatus): EventNote | undefined {
  const [was, is] = [job.status?.phase === "Undecided", next.phase === "Undecided"];
  const what = `MigrationJob ${job.metadata.name} to ${job.spec.location}`;
  if (is && !was) {
    const message = `${what} is undecided: ${next.message}`;
    return { type: "Warning", reason: eventReason.migrationUndecided, message };
  }
  if (!was || is) return undefined;
  const message = `${what} is decided: it is ${next.phase} now`;
  return { type: "Normal", reason: eventReason.migrationDecided, message };
}

/** Tenants see their claims, not our kinds: what concerns a claim is told there as well. */
function tell({ job, subject }: Facts, note: EventNote, { cluster }: ControllerDeps): void {
  cluster.event(job, note);
  for (const { migration } of subject.parts) {
    const { namespace, name } = migration?.spec.claim ?? {};
    if (namespace === undefined || name === undefined) continue;
    const claim = cluster.get(PersistentVolumeClaims, { namespace, name });
    if (claim !== undefined) cluster.event(claim, note);
  }
}
