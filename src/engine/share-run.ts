// What a participant does for a group's job under one term: its volumes' shares, brought from step to step as the coordinator
// orders. It lasts as long as orders come; once the coordinator has been silent for a lease, it lets go.
import { severally } from "../base/severally.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { Order, ShareSpec, Step } from "../wire/member.ts";
import type { Report, Term } from "../wire/peer.ts";
import { moveBase } from "./bases.ts";
import type { Core } from "./core.ts";
import { interruptible } from "./interruptible.ts";
import type { JobRow } from "./job-rows.ts";
import type { JobSlots } from "./job-slots.ts";
import { atHome, type Destination, hasPoint, openShare, type Share, type ShareParts, subjectOf } from "./share.ts";
import { keepRenewing } from "./term-renewal.ts";

/** Volumes of one node that are planned or streamed at once; each costs memory for its window. */
const sharesAtOnceMax = 4;

const before: Readonly<Partial<Record<Step, Step>>> = { Frozen: "Joined", Stored: "Frozen" };
const steps: readonly Step[] = ["Joined", "Frozen", "Stored", "Released", "Ended"];

export interface ShareRunParts extends ShareParts {
  readonly slots: JobSlots;
}

export class ShareRun {
  readonly job: string;
  readonly term: Term;
  /** The step asked for last. */
  asked: Step | null = null;
  /** Why it failed; under this term nothing is tried again but to end or to finish. */
  problem: unknown = undefined;
  /** Whether the job has its room on this node. */
  isReserved = false;
  private readonly core: Core;
  private readonly parts: ShareRunParts;
  private readonly spec: ShareSpec;
  private readonly stop = new AbortController();
  private readonly signal: AbortSignal;
  private readonly shares = new Map<string, Share>();
  private reached: Step | null = null;
  private isPaused = false;
  private readonly reserved = Promise.withResolvers<void>();
  private working: Promise<void> | undefined;
  private keeping: Promise<void> = Promise.resolve();
  private heardMs: number;

  constructor(core: Core, parts: ShareRunParts, { job, term, spec }: { job: string; term: Term; spec: ShareSpec }) {
    this.core = core;
    this.parts = parts;
    this.job = job;
    this.term = term;
    this.spec = spec;
    this.signal = AbortSignal.any([this.stop.signal, core.tasks.signal]);
    this.heardMs = core.clock.monotonicMs();
  }

  get isWorking(): boolean {
    return this.working !== undefined;
  }

  /** Whether its orders have stopped, or it was told to. */
  get isStopped(): boolean {
    return this.stop.signal.aborted;
  }

  /** Begins what is ordered, unless it is done, under way, or out of the question; `finish` carries out the last step. */
  begin(order: Order, finish: (order: Order) => void): void {
    this.heard();
    if (this.isWorking || this.hasReached(order.step)) return;
    const isLast = order.step === "Released" || order.step === "Ended";
    if (this.problem !== undefined && !isLast) return;
    this.asked = order.step;
    this.problem = undefined;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.working = promise;
    this.core.tasks.spawn(`share of ${this.job}`, async () => {
      try {
        await this.carryOut(order);
        if (isLast) finish(order);
        this.reached = order.step;
      } catch (error) {
        this.problem ??= this.stop.signal.aborted ? this.stop.signal.reason : error;
        this.core.log.warn({ job: this.job, step: order.step, err: this.problem }, "share failed");
      } finally {
        this.working = undefined;
        // Nothing goes on here before another term, which asks for its room anew.
        if (this.problem !== undefined || this.isPaused) this.letRoomGo();
        resolve();
        this.parts.rows.publish(this.job);
      }
    });
  }

  /** Its coordinator pauses: the room it has is free for others, once nothing is under way. */
  pause(): void {
    this.isPaused = true;
    if (!this.isWorking) this.letRoomGo();
  }

  /** Resolves when what was begun has ended or, at first, has its room; or after `waitMs`. */
  async settled(waitMs: number): Promise<void> {
    if (this.working === undefined) return;
    const ended = new AbortController();
    const waited = this.core.clock.sleep(waitMs, AbortSignal.any([ended.signal, this.core.tasks.signal]));
    const room = this.isReserved ? [] : [this.reserved.promise];
    await Promise.race([this.working, waited.catch(() => undefined), ...room]);
    ended.abort();
    this.heard();
  }

  /** Stops what runs under this term, and resolves when nothing of it is left. */
  async close(reason: Error): Promise<void> {
    this.stop.abort(reason);
    await this.working;
    await this.keeping;
  }

  /** As {@link close}, from within: nothing is waited for. */
  letGo(reason: Error): void {
    this.stop.abort(reason);
  }

  private heard(): void {
    this.heardMs = this.core.clock.monotonicMs();
  }

  private hasReached(step: Step): boolean {
    return this.reached !== null && steps.indexOf(this.reached) >= steps.indexOf(step);
  }

  private async carryOut(order: Order): Promise<void> {
    const needed = before[order.step];
    if (needed !== undefined && this.reached !== needed) {
      throw new LongshoreError(
        "TermLost",
        `this agent was restarted since it joined ${this.job}; it has to join again`,
      );
    }
    switch (order.step) {
      case "Joined":
        return this.join(order);
      case "Frozen":
        return this.each((share) => share.freeze());
      case "Stored":
        return this.store(order);
      case "Released":
        return this.eachRow((row) => this.release(row, order));
      case "Ended":
        return this.eachRow((row) => this.giveUp(row, order));
    }
  }

  // ---- up to the votes ---------------------------------------------------------------------------------------------

  private async join(order: Order): Promise<void> {
    await this.reserve();
    const group = { ...order.group, term: order.term, groupPoint: this.spec.groupPoint };
    await this.eachRow(async ({ name }) => {
      const destination = this.destination(name, order);
      const share = await openShare(this.core, this.parts, { name, destination, group, signal: this.signal });
      this.shares.set(name, share);
    });
    this.keep();
    await this.each((share) => share.join());
  }

  /**
   * Waits a while for jobs of the same volumes, and for room. No two groups wait for each other: every job asks for its room
   * agent by agent, in the order of their ids, and none waits while it has some further on.
   */
  private async reserve(): Promise<void> {
    const { slots, rows } = this.parts;
    const { location } = rows.row(this.job);
    const wanted = { job: this.job, location, owners: this.rows().map(({ owner }) => owner) };
    const impatience = new AbortController();
    const done = new AbortController();
    const waiting = this.core.clock.sleep(this.core.limits.leaseMs, AbortSignal.any([done.signal, this.signal])).then(
      () => {
        const other = slots.inTheWayOf(wanted);
        const why = other === undefined ? "the limit of jobs is reached" : `job ${other} runs`;
        impatience.abort(new LongshoreError("LeaseHeld", `${this.job} waits on ${this.core.node}: ${why}`));
      },
      () => undefined,
    );
    try {
      await slots.reserve(wanted, AbortSignal.any([impatience.signal, this.signal]));
      this.isReserved = true;
      this.reserved.resolve();
    } finally {
      done.abort();
      await waiting;
    }
  }

  private letRoomGo(): void {
    this.isReserved = false;
    this.parts.slots.release(this.job);
  }

  private store(order: Order): Promise<void> {
    const members = order.homes.map(({ volume, member }) => ({ volume, agentId: member.agentId }));
    return this.each(async (share) => {
      await share.stream();
      share.noteStored();
      await share.prepare({ groupPoint: this.spec.groupPoint, members });
    });
  }

  /** Keeps the terms of the copies as long as orders come. */
  private keep(): void {
    const { clock, limits, tasks } = this.core;
    const leaseMs = Math.min(...[...this.shares.values()].map((share) => share.leaseMs), limits.leaseMs);
    const renew = async () => {
      if (!this.isWorking && clock.monotonicMs() - this.heardMs > leaseMs) {
        throw new LongshoreError("TermLost", `no order for ${this.job} came for a lease`);
      }
      await Promise.all([...this.shares.values()].map((share) => share.renew()));
    };
    const { promise, resolve } = Promise.withResolvers<void>();
    this.keeping = promise;
    tasks.spawn(`terms of ${this.job}`, async () => {
      try {
        await keepRenewing(clock, { leaseMs, renew, signal: this.signal });
      } catch (error) {
        if (this.signal.aborted) return;
        this.problem ??= error;
        this.letRoomGo();
        this.stop.abort(error);
      } finally {
        resolve();
      }
    });
  }

  // ---- after the decision ------------------------------------------------------------------------------------------

  private async release(row: JobRow, order: Order): Promise<void> {
    const { rows } = this.parts;
    const destination = this.destination(row.name, order);
    this.shares.get(row.name)?.expectEnd();
    const report = await destination.connection.at(destination.home).settle(row.owner);
    if (report?.prepared?.groupPoint === this.spec.groupPoint) {
      throw new LongshoreError("Undecided", `${destination.home.node} has not heard yet that the group is committed`);
    }
    this.noteOutcome(row, report, destination);
    await this.joinGroupPoint(row, { report, destination, order });
    const subject = subjectOf(this.core, rows, row.name);
    if (report !== undefined) moveBase(this.core, this.parts, { subject, clusterUid: destination.clusterUid, report });
    try {
      await this.shares.get(row.name)?.release();
    } catch (error) {
      // Granted to somebody else meanwhile, or ended by itself: the point is there in either case.
      if (codeOf(error) !== "TermLost") throw error;
    }
    rows.save(row.name, { barrier: "Released" });
  }

  /** A point that came by a job of its own becomes the volume's part of the group point. */
  private async joinGroupPoint(
    row: JobRow,
    { report, destination, order }: { report: Report | undefined; destination: Destination; order: Order },
  ): Promise<void> {
    const { groupPoint } = this.spec;
    const isOther = (commit: Report["commits"][number]) => commit.toId === row.toId && commit.groupPoint !== groupPoint;
    if (report?.commits.some(isOther) !== true) return;
    const { connection, home } = destination;
    try {
      await connection.at(home).joinGroupPoint(row.owner, { group: order.group, groupPoint });
    } catch (error) {
      if (codeOf(error) !== "NotFound") throw error;
      const about = { job: this.job, share: row.name, target: home.node };
      this.core.log.info(about, "an agent of an earlier version does not note its point as a part of the group point");
    }
  }

  /** A copy may have lost the point since, or pruned it, or be deleted: the next job finds what there is. */
  private noteOutcome(row: JobRow, report: Report | undefined, { home }: Destination): void {
    if (report === undefined || hasPoint(report, row.toId)) return;
    this.core.log.warn({ job: this.job, share: row.name, target: home.node }, "committed, and not there any more");
  }

  /** Undone at the target as far as it can be reached; what cannot is undone there by itself, when its lease is over. */
  private async giveUp(row: JobRow, order: Order): Promise<void> {
    try {
      const destination = this.destination(row.name, order);
      this.shares.get(row.name)?.expectEnd();
      const report = await destination.connection.at(destination.home).settle(row.owner);
      if (report === undefined || report.prepared !== undefined) return;
      await this.abort(row, { report, destination, discard: order.end?.discard ?? false });
    } catch (error) {
      if (this.signal.aborted) throw error;
      this.core.log.warn(
        { job: this.job, share: row.name, err: error },
        "share left at the target until its lease ends",
      );
    }
  }

  private async abort(
    { name }: JobRow,
    { report, destination, discard }: { report: Report; destination: Destination; discard: boolean },
  ): Promise<void> {
    const share = this.shares.get(name);
    try {
      if (share !== undefined) return await share.abort({ discard });
    } catch (error) {
      if (codeOf(error) !== "TermLost") throw error;
    }
    // The term has ended with the group's. What is left is undone under one of its own.
    const isFrozen = report.barrier === "Frozen" || report.barrier === "Stored";
    if (!isFrozen && !(discard && report.staging !== null)) return;
    const own = await openShare(this.core, this.parts, { name, destination, signal: this.signal });
    await own.abort({ discard });
  }

  // ---- of this node ------------------------------------------------------------------------------------------------

  private rows(): JobRow[] {
    return this.parts.rows.sharesOf(this.job);
  }

  private each(work: (share: Share) => Promise<void>): Promise<void> {
    return severally([...this.shares.values()], sharesAtOnceMax, work);
  }

  private eachRow(work: (row: JobRow) => Promise<void>): Promise<void> {
    return severally(this.rows(), sharesAtOnceMax, work);
  }

  private destination(name: string, order: Order): Destination {
    const { owner, location } = this.parts.rows.row(name);
    const { locations } = this.parts;
    locations.checkIdentity(location, order.targetClusterUid);
    const home = order.homes.find(({ volume }) => volume === owner)?.member;
    if (home === undefined) throw new LongshoreError("Unreachable", `no home is known for the copy of ${owner}`);
    return atHome(interruptible(locations.connection(location), this.signal), order.targetClusterUid, home);
  }
}
