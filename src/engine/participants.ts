// A participant in groups' jobs: takes its share durably, reports it, and follows the orders of whoever coordinates under the
// highest epoch it has seen. A lower one changes nothing, however late it comes.

import { LongshoreError } from "../domain/errors.ts";
import { mergeSteering, type Steering } from "../domain/group-attempt.ts";
import type { Order, ShareReport, ShareSpec } from "../wire/member.ts";
import type { Term } from "../wire/peer.ts";
import { errorOfProblem } from "../wire/problem.ts";
import type { JobSpec, JobState } from "../wire/schemas.ts";
import { type Core, problemOf } from "./core.ts";
import type { EndJob, FinishedState } from "./job-ends.ts";
import { isGroup, type JobRow, shareName } from "./job-rows.ts";
import type { Ending } from "./job-runner.ts";
import { type JobViews, lowest, shareOf, sumsOf } from "./job-views.ts";
import { pointOf, pointRef, takeHold } from "./points.ts";
import { ShareRun, type ShareRunParts } from "./share-run.ts";

/** An order is answered after this long at the latest, so that whoever gave it knows that this agent lives. */
const orderWaitMs = 10_000;
/** Silent for so many leases, a coordinator is taken for dead. */
const leasesSilent = 2;

interface Parts extends ShareRunParts {
  readonly views: JobViews;
  readonly end: EndJob;
  /** Called when something else is asked of a job, or it may be this agent's turn to coordinate it. */
  readonly onSteered: (job: string) => void;
}

export class Participants {
  private readonly core: Core;
  private readonly parts: Parts;
  private readonly runs = new Map<string, ShareRun>();
  /** When another agent was last seen to lead a job; the start of this agent counts for all it knew then. */
  private readonly ledAtMs = new Map<string, number>();
  private readonly startedMs: number;

  constructor(core: Core, parts: Parts) {
    this.core = core;
    this.parts = parts;
    this.startedMs = core.clock.monotonicMs();
  }

  /** See MemberApi.takeShare. Throws `SnapshotGone`, `VolumeGone`, `GroupInvalid`, and `NameTaken`. */
  take(job: string, share: ShareSpec): ShareReport {
    const row = this.parts.rows.find(job);
    if (row === undefined) this.insert(job, share);
    else this.takeAgain(row, share);
    return this.require(job);
  }

  /** See MemberApi.shareReport. */
  report(job: string): ShareReport | undefined {
    const row = this.parts.rows.find(job);
    if (row === undefined || !isGroup(row)) return undefined;
    const run = this.runs.get(job);
    const state = run?.isWorking ? "running" : run?.problem !== undefined ? "failed" : "idle";
    return {
      agentId: this.core.agentId,
      job,
      epoch: row.epoch,
      state: row.finishedAt === null ? state : "finished",
      step: run?.asked ?? null,
      problem: run?.problem === undefined ? null : problemOf(run.problem),
      finishedAs: row.finishedAt === null ? null : row.state,
      steering: steeringOf(row),
      isReserved: run?.isReserved ?? false,
      isSuspended: row.state === "Suspended",
      shares: this.parts.rows.sharesOf(job).map((one) => this.parts.rows.volume(one)),
    };
  }

  /** The job as this agent would pass it on. Throws `NotFound`. */
  spec(job: string): ShareSpec {
    return shareOf(this.parts.rows.row(job));
  }

  /** See MemberApi.order. */
  async order(job: string, order: Order): Promise<ShareReport> {
    const run = await this.core.lock.run(`job ${job}`, () => this.runUnder(job, order));
    if (run === undefined) return this.require(job);
    this.led(job, order.coordinator);
    run.begin(order, (last) => this.conclude(job, last));
    await run.settled(Math.min(orderWaitMs, this.core.limits.leaseMs / 3));
    this.led(job, order.coordinator);
    this.noteBarrier(job);
    return this.require(job);
  }

  /** See MemberApi.pauseShare. */
  pause(job: string, { epoch, nonce }: Term): void {
    const run = this.runs.get(job);
    if (run?.term.epoch === epoch && run.term.nonce === nonce) run.pause();
  }

  /**
   * Whether it may be this agent's turn to coordinate: nobody else does, as far as can be heard. The first in the order of
   * agents does not wait to find out.
   */
  isDue(row: JobRow): boolean {
    const [first] = shareOf(row)
      .participants.map(({ agentId }) => agentId)
      .sort();
    const isFirst = first === this.core.agentId;
    const ledAtMs = this.ledAtMs.get(row.name) ?? (isFirst ? Number.NEGATIVE_INFINITY : this.startedMs);
    return this.core.clock.monotonicMs() - ledAtMs > leasesSilent * this.core.limits.leaseMs;
  }

  /** Notes that another agent leads the job, so that this one waits and looks again. */
  led(job: string, coordinator: string): void {
    this.parts.views.note(job, (heard) => {
      heard.coordinator = coordinator;
    });
    const isOpen = this.parts.rows.find(job)?.finishedAt === null;
    if (isOpen && coordinator !== this.core.agentId) this.ledAtMs.set(job, this.core.clock.monotonicMs());
    else this.ledAtMs.delete(job);
  }

  /** Of a job whose row is gone. */
  forget(job: string): void {
    this.ledAtMs.delete(job);
    this.runs.delete(job);
  }

  /** Takes over what is asked of the job elsewhere, if that is newer. */
  steer(job: string, heard: Steering): void {
    const row = this.parts.rows.row(job);
    const known = steeringOf(row);
    const merged = mergeSteering(known, heard);
    if (merged === known || row.finishedAt !== null || JSON.stringify(merged) === JSON.stringify(known)) return;
    const share = shareOf(row);
    const { suspend: _, cancel: __, ...rest } = share.spec;
    const spec: JobSpec = {
      ...rest,
      ...(merged.suspend && { suspend: true }),
      ...(merged.cancel && { cancel: true }),
    };
    const shareJson = JSON.stringify({ ...share, spec, steered: merged.steered } satisfies ShareSpec);
    this.parts.rows.save(job, { specJson: JSON.stringify(spec), shareJson });
    this.parts.onSteered(job);
  }

  /** Ends this agent's part, without a word to the target: there is nothing there that could have been committed. */
  async endHere(job: string, ending: Ending): Promise<void> {
    await this.core.lock.run(`job ${job}`, async () => {
      await this.stop(job, "the job has ended");
      this.finish(job, ending.state, ending.reason);
    });
  }

  /** A job that its location was removed from; it has ended. */
  abandon(job: string): void {
    const { rows, slots } = this.parts;
    this.runs.get(job)?.letGo(new LongshoreError("Cancelled", `job ${job} was given up with its location`));
    this.runs.delete(job);
    this.ledAtMs.delete(job);
    for (const { name } of rows.sharesOf(job)) rows.stop(name);
    slots.release(job);
  }

  // ---- taking part -------------------------------------------------------------------------------------------------

  private insert(job: string, share: ShareSpec): void {
    const { agentId, journal, log } = this.core;
    const { rows, volumes } = this.parts;
    const own = share.participants.find((one) => one.agentId === agentId);
    if (own === undefined) throw new LongshoreError("BadRequest", `this agent has no part in job ${job}`);
    const { location, snapshot, group } = share.spec;
    journal.transaction(() => {
      const facts = { owner: `group ${group?.name}`, to: share.to, shareJson: JSON.stringify(share) };
      rows.insert(job, share.spec, facts);
      for (const [index, { name, uid, toId }] of own.volumes.entries()) {
        this.checkSnapshot(share, { name, uid, toId });
        takeHold(this.core, { owner: uid, pointId: toId, reason: "job", holder: job });
        const to = pointOf(journal, uid, toId);
        if (to === undefined) throw new LongshoreError("SnapshotGone", `snapshot ${snapshot} of ${name} is gone`);
        const spec = { volume: name, location, snapshot };
        rows.insert(shareName(job, index), spec, { owner: uid, to: pointRef(to), parent: job });
        volumes.touch(uid);
      }
      if (share.spec.suspend === true) this.setState(job, "Suspended");
    });
    const [first] = share.participants.map((one) => one.agentId).sort();
    if (first !== undefined && first !== agentId) this.led(job, first);
    log.info({ job, group: group?.name, location, volumes: own.volumes.length }, "share taken");
    rows.publish(job);
    for (const { uid } of own.volumes) volumes.published(uid);
    this.parts.onSteered(job);
  }

  /** Within a transaction. */
  private checkSnapshot(share: ShareSpec, { name, uid, toId }: { name: string; uid: string; toId: string }): void {
    const volume = this.parts.volumes.find(name);
    if (volume?.uid !== uid || volume.state !== "ready") {
      throw new LongshoreError("VolumeGone", `volume ${name} (${uid}) is not on ${this.core.node} any more`);
    }
    const point = pointOf(this.core.journal, uid, toId);
    const { snapshot } = share.spec;
    if (point?.name !== snapshot) throw new LongshoreError("SnapshotGone", `snapshot ${snapshot} of ${name} is gone`);
    if (point.groupPoint === share.groupPoint && point.isValid === 1) return;
    throw new LongshoreError("GroupInvalid", `snapshot ${snapshot} of ${name} is not of the group's valid point`);
  }

  private takeAgain(row: JobRow, share: ShareSpec): void {
    if (!isGroup(row) || JSON.stringify(identityOf(shareOf(row))) !== JSON.stringify(identityOf(share))) {
      throw new LongshoreError("NameTaken", `job ${row.name} exists with other parameters`);
    }
    const { spec, steered } = share;
    this.steer(row.name, { steered, suspend: spec.suspend ?? false, cancel: spec.cancel ?? false });
  }

  // ---- orders ------------------------------------------------------------------------------------------------------

  /** Under the job's lock: the run of the order's term; none for a job that has ended. Throws `TermLost` and `NotFound`. */
  private async runUnder(job: string, order: Order): Promise<ShareRun | undefined> {
    const row = this.parts.rows.find(job);
    if (row === undefined || !isGroup(row)) {
      // Its disk is an older one: the next attempt gives it its share again, or says what is gone.
      throw new LongshoreError(
        "TermLost",
        `${this.core.node} does not know job ${job}; it has to take its share again`,
      );
    }
    if (row.finishedAt !== null) return undefined;
    const { epoch, nonce } = order.term;
    if (epoch < row.epoch || (epoch === row.epoch && nonce !== row.nonce)) {
      throw new LongshoreError("TermLost", `job ${job} has seen epoch ${row.epoch} here; ${epoch} no longer counts`);
    }
    this.hear(job, order);
    const known = this.runs.get(job);
    if (known?.term.epoch === epoch && known.term.nonce === nonce && !known.isStopped) return known;
    // What runs under the old term has ended before anything is done under the new one, which asks for its room in its turn.
    await known?.close(new LongshoreError("TermLost", `epoch ${epoch} was granted for job ${job}`));
    this.parts.slots.release(job);
    this.parts.rows.save(job, { epoch, nonce, startedAt: row.startedAt ?? this.core.clock.nowMs() });
    if (order.step !== "Ended") this.core.journal.transaction(() => this.setState(job, "Running"));
    const run = new ShareRun(this.core, this.parts, { job, term: order.term, spec: shareOf(row) });
    this.runs.set(job, run);
    return run;
  }

  private hear(job: string, { group, homes }: Order): void {
    this.parts.views.note(job, (heard) => {
      heard.group = group;
      heard.targets = homes.map(({ member }) => member);
    });
  }

  /** The last step is done: what was decided becomes the job's end here. */
  private conclude(job: string, { step, end }: Order): void {
    const reason = end?.problem == null ? undefined : errorOfProblem(end.problem, `job ${job}`);
    const isGiven = end?.state === "Cancelled" || end?.state === "Suspended";
    const ended = isGiven ? (end.state as "Cancelled" | "Suspended") : "Failed";
    this.finish(job, step === "Released" ? "Succeeded" : ended, reason);
  }

  private finish(job: string, state: FinishedState | "Suspended", reason?: unknown): void {
    const { rows, views, end } = this.parts;
    if (state === "Suspended") {
      this.core.journal.transaction(() => this.setState(job, "Suspended"));
      rows.publish(job);
    } else {
      const row = rows.row(job);
      const barrier = state === "Succeeded" ? "Released" : row.barrier;
      end(job, state, reason, { ...sumsOf(views.volumes(row)), barrier, commitAsked: 0 });
    }
    for (const { name } of rows.sharesOf(job)) rows.stop(name);
    this.runs.get(job)?.letGo(new LongshoreError("Cancelled", `job ${job} is ${state}`));
    this.runs.delete(job);
    this.parts.slots.release(job);
    this.parts.onSteered(job);
  }

  private async stop(job: string, why: string): Promise<void> {
    await this.runs.get(job)?.close(new LongshoreError("Cancelled", `${job}: ${why}`));
    this.runs.delete(job);
  }

  /** What all of this node's shares have reached, for agents that do not coordinate. */
  private noteBarrier(job: string): void {
    const { rows, views } = this.parts;
    const row = rows.find(job);
    if (row === undefined || row.finishedAt !== null || views.heard(row).coordinator === this.core.agentId) return;
    const barrier = lowest(rows.sharesOf(job).map((share) => share.barrier));
    if (barrier !== row.barrier) rows.save(job, { barrier });
  }

  /** Within a transaction: the state of the job and of its shares here. */
  private setState(job: string, state: "Running" | "Suspended" | "Pending"): void {
    const { rows } = this.parts;
    for (const { name, state: present } of [rows.row(job), ...rows.sharesOf(job)]) {
      for (const next of wayTo(state, present))
        rows.change(name, state === "Suspended" ? { state: next, barrier: "None" } : { state: next });
    }
  }

  private require(job: string): ShareReport {
    const report = this.report(job);
    if (report === undefined) throw new LongshoreError("NotFound", `job ${job} is not known on ${this.core.node}`);
    return report;
  }
}

/** What is asked of a group's job, as far as this agent knows. */
export function steeringOf(row: JobRow): Steering {
  const { steered, spec } = shareOf(row);
  return { steered, suspend: spec.suspend ?? false, cancel: spec.cancel ?? false };
}

/** The states that a row goes through, for not every one may follow every other (jobMoves). */
function wayTo(state: "Running" | "Suspended" | "Pending", present: JobState): readonly JobState[] {
  if (present === "Suspended" && state === "Running") return ["Pending", "Running"];
  // Undecided here, and others have found out since that nothing was committed.
  if (present === "Undecided" && state === "Suspended") return ["Running", "Suspended"];
  return [state];
}

/**
 * What makes two tellings of a job the same job: all but what may change about it, and what agents of earlier versions do
 * not pass on.
 */
function identityOf({ spec, groupPoint, participants }: ShareSpec) {
  const { group, location, snapshot } = spec;
  const parts = participants.map(({ agentId, volumes }) => [
    agentId,
    ...volumes.map(({ name, uid, toId, sizeBytes }) => [name, uid, toId, sizeBytes]),
  ]);
  return [group?.name, group?.volumes, location, snapshot, groupPoint, parts];
}
