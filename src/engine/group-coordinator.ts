// The job of a group: one attempt, from the reports of all who take part to the one decision for all volumes. Nothing is
// remembered from one attempt to the next but the epoch and that a commit was asked for, so any participant can go on
// where another one died.

import { severally } from "../base/severally.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { type Answer, coordinatorOf, decideNext, type EndState, isOutcomeOpen } from "../domain/group-attempt.ts";
import type { Order, ShareReport, ShareSpec, Step } from "../wire/member.ts";
import type { GroupCommitMember, GroupGrant, GroupTarget, Homes, PeerApi } from "../wire/peer.ts";
import { errorOfProblem } from "../wire/problem.ts";
import type { JobVolume, Member } from "../wire/schemas.ts";
import { affinityHere } from "./affinity.ts";
import { type Core, problemOf } from "./core.ts";
import { type Copy, committedAt, copyFacts, hasPart, votedFor } from "./group-copies.ts";
import { GroupOrders } from "./group-orders.ts";
import { interruptible, withinLease } from "./interruptible.ts";
import type { JobRow, JobRows } from "./job-rows.ts";
import type { AttemptResult, Ending, JobDriver, Resolution } from "./job-runner.ts";
import { type JobViews, lowest, shareOf, sumsOf } from "./job-views.ts";
import type { Locations } from "./locations.ts";
import { type Participants, steeringOf } from "./participants.ts";
import { openRenewal, type Renewal } from "./term-renewal.ts";

interface Parts {
  readonly rows: JobRows;
  readonly views: JobViews;
  readonly locations: Locations;
  readonly participants: Participants;
}

type Reports = ReadonlyMap<string, ShareReport | undefined | Error>;

/** A term of the group, and what was found when it was granted. */
interface Mandate {
  readonly name: string;
  readonly share: ShareSpec;
  readonly reports: Reports;
  readonly copies: readonly Copy[];
  readonly located: Homes;
  readonly home: PeerApi;
  readonly target: GroupTarget;
  readonly grant: GroupGrant;
  readonly renewal: Renewal;
}

export class GroupCoordinator implements JobDriver {
  private readonly core: Core;
  private readonly parts: Parts;
  private readonly orders: GroupOrders;

  constructor(core: Core, parts: Parts) {
    this.core = core;
    this.parts = parts;
    const onReport = (job: string, { steering }: ShareReport) => this.parts.participants.steer(job, steering);
    this.orders = new GroupOrders(core, { views: parts.views, onReport });
  }

  /** See {@link JobDriver}. Throws what keeps the group from going on; what is stored by then stays stored. */
  async attempt(name: string, signal: AbortSignal): Promise<AttemptResult> {
    const reports = await this.observe(name, signal);
    if (reports === "elsewhere") return reports;
    const mandate = await this.claim(name, reports, signal);
    const term = { leaseMs: mandate.grant.leaseMs, renew: () => mandate.home.renewGroup(mandate.target) };
    try {
      await mandate.renewal.during(term, () => this.carryOn(mandate));
    } catch (error) {
      this.letGo(mandate);
      throw error;
    }
    return "ended";
  }

  /** See {@link JobDriver}. Participants that are not reached ask for themselves when they are back. */
  async resolve(name: string, ending: Ending): Promise<Resolution> {
    const { signal } = this.core.tasks;
    try {
      const reports = await this.observe(name, signal, { isEnding: true });
      if (reports === "elsewhere") return reports;
      const mandate = await this.claim(name, reports, signal);
      const next = this.next(mandate);
      if (next.kind === "release") {
        await this.finishForward(mandate, { isPatient: false });
        return "committed";
      }
      await mandate.home.abortGroup(mandate.target);
      this.parts.rows.save(name, { commitAsked: 0 });
      await this.endAll(mandate, next.kind === "end" ? this.endedLike(mandate, next) : ending);
      return "ended";
    } catch (error) {
      const row = this.parts.rows.find(name);
      if (row === undefined || row.finishedAt !== null || signal.aborted) return "ended";
      this.core.log.warn({ job: name, err: error }, "the outcome of the group could not be asked for");
      if (this.isOpen(row)) return "open";
    }
    await this.parts.participants.endHere(name, ending);
    return "ended";
  }

  reached(name: string) {
    const row = this.parts.rows.row(name);
    const volumes = this.parts.views.volumes(row);
    return { barrier: lowest(volumes.map(({ barrier }) => barrier)), units: sumsOf(volumes).unitsStored };
  }

  // ---- who is there ------------------------------------------------------------------------------------------------

  /** The reports of all participants, asked now; `elsewhere` when another one coordinates. */
  private async observe(name: string, signal: AbortSignal, { isEnding = false } = {}): Promise<Reports | "elsewhere"> {
    const { participants, rows } = this.parts;
    const { agentId } = this.core;
    const row = rows.row(name);
    const share = shareOf(row);
    if (!participants.isDue(row)) return "elsewhere";
    const reports = await this.orders.ask(name, idsOf(share), signal);
    try {
      await this.passOn(name, reports, signal);
    } catch (error) {
      // Such as a snapshot that is gone: no reason not to end the job everywhere else.
      if (!isEnding) throw error;
      this.core.log.warn({ job: name, err: error }, "participant could not be told what is asked of the job");
    }
    const coordinator = coordinatorOf(agentId, answersOf(reports));
    if (coordinator !== agentId) {
      participants.led(name, coordinator);
      await this.restLike(name, reports.get(coordinator));
      return "elsewhere";
    }
    participants.led(name, agentId);
    return reports;
  }

  /**
   * A coordinator that has come to rest as it was asked to has found that nothing is committed, and will order nothing before
   * something else is asked of the job. It could not tell this agent, which ends its part as well.
   */
  private async restLike(name: string, report: ShareReport | undefined | Error): Promise<void> {
    const row = this.parts.rows.row(name);
    const { suspend, cancel } = steeringOf(row);
    const isAtRest = report !== undefined && !(report instanceof Error) && report.isSuspended === true;
    if (!isAtRest || !suspend || cancel || row.finishedAt !== null || row.state === "Suspended") return;
    await this.parts.participants.endHere(name, { state: "Suspended", discard: false });
  }

  /**
   * Whoever does not know the job, or what is asked of it, is told, all at once. Throws the first failure when all have been:
   * with a snapshot gone, a share cannot be taken again.
   */
  private async passOn(name: string, reports: Reports, signal: AbortSignal): Promise<void> {
    const row = this.parts.rows.row(name);
    const share = shareOf(row);
    const known = JSON.stringify(steeringOf(row));
    const untold = [...reports].filter(([, report]) => {
      if (report instanceof Error || report?.finishedAs != null) return false;
      return report === undefined || JSON.stringify(report.steering) !== known;
    });
    await severally(untold, untold.length, async ([agentId]) => {
      await withinLease(this.core, { agentId, signal }, (api) => api.takeShare(name, share));
    });
  }

  // ---- the mandate -------------------------------------------------------------------------------------------------

  /** Finds the homes, and has the group home grant a term above everything that anybody has seen. */
  private async claim(name: string, reports: Reports, signal: AbortSignal): Promise<Mandate> {
    const { locations, rows } = this.parts;
    const row = rows.row(name);
    const share = shareOf(row);
    const renewal = openRenewal(this.core.clock, signal);
    const connection = interruptible(locations.connection(row.location), renewal.signal);
    const volumes = volumesOf(share).map(({ uid, sizeBytes, lineage }) => ({
      volume: uid,
      sizeBytes,
      ...(lineage && { lineage }),
      ...affinityHere(this.core, uid),
    }));
    const group = groupOf(share);
    const located = await connection.api.locate({ volumes, group });
    locations.checkIdentity(row.location, located.clusterUid);
    const copies = await Promise.all(
      volumes.map(({ volume }) =>
        settledOr(() => connection.at(homeOf(located, volume)).report(volume), renewal.signal),
      ),
    );
    const home = connection.at(memberOf(located, located.groupHome));
    const { agentId: claimant, dice } = this.core;
    const { groupPoint } = share;
    const offeredEpoch = highestEpoch(row, reports, copies);
    const grant = await home.claimGroup({ group, job: name, groupPoint, claimant, nonce: dice.hex(16), offeredEpoch });
    this.accept(row, grant);
    return { name, share, reports, copies, located, home, target: { group, term: grant.term }, grant, renewal };
  }

  private accept({ name }: JobRow, { term }: GroupGrant): void {
    const { epoch: seen, startedAt } = this.parts.rows.row(name);
    if (term.epoch <= seen)
      throw new LongshoreError("TermLost", `epoch ${term.epoch} granted, ${seen} was seen before`);
    this.parts.rows.save(name, {
      epoch: term.epoch,
      nonce: term.nonce,
      state: "Running",
      startedAt: startedAt ?? this.core.clock.nowMs(),
    });
  }

  private next({ share, grant, copies, reports }: Mandate) {
    const volumes = volumesOf(share);
    return decideNext({
      groupPoint: share.groupPoint,
      committed: grant.report.commits.map(({ groupPoint }) => groupPoint),
      answers: answersOf(reports),
      copies: copies.map((copy, index) => copyFacts(copy, volumes[index]?.toId ?? "", share.groupPoint)),
    });
  }

  // ---- what it does ------------------------------------------------------------------------------------------------

  private async carryOn(mandate: Mandate): Promise<void> {
    const next = this.next(mandate);
    switch (next.kind) {
      case "release":
        return this.finishForward(mandate, { isPatient: true });
      case "end": {
        await mandate.home.abortGroup(mandate.target);
        return this.endAll(mandate, this.endedLike(mandate, next));
      }
      case "drive":
        return this.drive(mandate);
    }
  }

  private async drive(mandate: Mandate): Promise<void> {
    const { name, share } = mandate;
    const { rows } = this.parts;
    // The new term fences off every earlier request: what was asked for and is not there will not come any more.
    rows.save(name, { commitAsked: 0 });
    this.requireAll(mandate);
    for (const step of ["Joined", "Frozen", "Stored"] as const) {
      await this.bring(mandate, step, idsOf(share));
      rows.save(name, { barrier: step });
    }
    const members = this.commitMembers(mandate);
    // All of the copies have the point by jobs that nobody remembers: there is nothing to decide.
    if (members.length > 0) {
      rows.save(name, { commitAsked: 1 });
      await mandate.home.commitGroup(mandate.target, { groupPoint: share.groupPoint, members });
    }
    await this.release(mandate, { isPatient: true });
  }

  /** Throws what keeps one of them from taking part, for nobody is frozen in vain. */
  private requireAll({ reports, copies }: Mandate): void {
    for (const answer of [...reports.values(), ...copies]) if (answer instanceof Error) throw answer;
  }

  /**
   * What each volume's home has voted for under this term or, asked for its vote, was found to have committed before. A point is
   * left out whose commit is not remembered there, or which an agent of an earlier version has not asked about.
   */
  private commitMembers({ name, located, copies, share }: Mandate): GroupCommitMember[] {
    const parts = this.parts.views.volumes(this.parts.rows.row(name));
    const uids = volumesOf(share).map(({ uid }) => uid);
    return parts.flatMap((part: JobVolume) => {
      const copy = copies[uids.indexOf(part.uid)];
      const { uid: volume, toId, planDigest, from, isPrepared } = part;
      const { agentId } = homeOf(located, volume);
      // Asked under this term, whatever was reported before: what was there then may be lost since.
      if (isPrepared && planDigest !== null) {
        const done = committedAt(copy, toId);
        const baseId = done?.planDigest === planDigest ? done.baseId : (from?.pointId ?? null);
        return [{ volume, agentId, baseId, toId, planDigest }];
      }
      if (hasPart(copy, toId)) return [];
      throw new LongshoreError("PlanMismatch", `${part.volume} of job ${name} has not told its plan`);
    });
  }

  private async finishForward(mandate: Mandate, options: { isPatient: boolean }): Promise<void> {
    await this.decideAgain(mandate);
    await this.release(mandate, options);
  }

  /**
   * The decision once more, where the group home has lost its record and members still hold votes: they hear of it from
   * there alone. It is for the very plans they hold sealed, which are verified to be the points that were decided. All copies
   * are asked first: a record that does not name a vote is one that voids it.
   */
  private async decideAgain({ grant, share, copies, located, home, target }: Mandate): Promise<void> {
    const { groupPoint } = share;
    if (grant.report.commits.some((commit) => commit.groupPoint === groupPoint)) return;
    if (!copies.some((copy) => votedFor(copy, groupPoint) !== undefined)) return;
    for (const copy of copies) if (copy instanceof Error) throw copy;
    const members = volumesOf(share).flatMap(({ uid: volume, toId }, index) => {
      const known = votedFor(copies[index], groupPoint) ?? committedAt(copies[index], toId);
      return known === undefined ? [] : [{ volume, agentId: homeOf(located, volume).agentId, ...known }];
    });
    await home.commitGroup(target, { groupPoint, members });
  }

  /** Committed: everybody finishes forward, this agent last, so that whoever takes over finds what is left to do. */
  private async release(mandate: Mandate, { isPatient }: { isPatient: boolean }): Promise<void> {
    const { name, home, target, reports } = mandate;
    const { agentId, log } = this.core;
    this.parts.rows.save(name, { barrier: "Committed" });
    const others = unfinished(reports).filter((id) => id !== agentId);
    const silent = others.filter((id) => reports.get(id) instanceof Error);
    const answering = others.filter((id) => !silent.includes(id));
    let told: readonly string[] = answering;
    if (isPatient) await this.bring(mandate, "Released", answering);
    else told = await this.tell(mandate, "Released", answering);
    const [first] = silent;
    if (isPatient && first !== undefined) throw reports.get(first);
    await this.bring(mandate, "Released", [agentId]);
    // Only when all have done what was decided may the decision be forgotten.
    if (told.length < others.length) return;
    try {
      await home.releaseGroup(target);
    } catch (error) {
      log.info({ job: name, err: error }, "the group's term ends by itself");
    }
  }

  private async endAll(mandate: Mandate, ending: Ending): Promise<void> {
    const { agentId } = this.core;
    const { reports } = mandate;
    const others = unfinished(reports).filter((id) => id !== agentId && !(reports.get(id) instanceof Error));
    await this.tell(mandate, "Ended", others, ending);
    await this.bring(mandate, "Ended", [agentId], ending);
  }

  private endedLike({ reports }: Mandate, { as, by }: { as: EndState; by: string }): Ending {
    const report = reports.get(by);
    const problem = report instanceof Error ? null : report?.problem;
    const why = new LongshoreError("Cancelled", `agent ${by} has ended the group's job as ${as}`);
    const reason = problem == null ? why : errorOfProblem(problem, why.message);
    return { state: as === "Cancelled" ? as : "Failed", reason, discard: as === "Cancelled" };
  }

  private bring(mandate: Mandate, step: Step, who: readonly string[], ending?: Ending): Promise<void> {
    return this.orders.bring(this.barrier(mandate, step, { who, ending }));
  }

  /**
   * Nobody keeps room for a job that pauses: its next attempt asks for it anew, in its turn. Who cannot be told, or is of an
   * earlier version, lets go when its lease is over.
   */
  private letGo({ name, share, target }: Mandate): void {
    const { agentId: self, members, tasks, log } = this.core;
    this.parts.participants.pause(name, target.term);
    for (const agentId of idsOf(share).filter((id) => id !== self)) {
      tasks.spawn(`pause ${name} on ${agentId}`, async () => {
        try {
          await members.api(agentId).pauseShare(name, target.term);
        } catch (error) {
          log.debug({ job: name, agentId, err: error }, "participant could not be told of the pause");
        }
      });
    }
  }

  private tell(mandate: Mandate, step: Step, who: readonly string[], ending?: Ending): Promise<readonly string[]> {
    return this.orders.tell(this.barrier(mandate, step, { who, ending }));
  }

  private barrier(
    { name, share, located, target, renewal }: Mandate,
    step: Step,
    { who, ending }: { who: readonly string[]; ending: Ending | undefined },
  ) {
    const problem = ending?.reason === undefined ? null : problemOf(ending.reason);
    const order: Order = {
      term: target.term,
      coordinator: this.core.agentId,
      step,
      targetClusterUid: located.clusterUid,
      group: { name: groupOf(share), home: memberOf(located, located.groupHome).agentId },
      homes: volumesOf(share).map(({ uid }) => ({ volume: uid, member: homeOf(located, uid) })),
      ...(ending && { end: { state: ending.state, problem, discard: ending.discard } }),
    };
    // Room is asked for in the order of agents, so that no two jobs each have what the other one waits for.
    return { job: name, order, who: [...who].sort(), isInTurn: step === "Joined", signal: renewal.signal };
  }

  /** Whether the group may have been committed without our knowing; every hold stays, and it is asked again. */
  private isOpen(row: JobRow): boolean {
    const { rows, views } = this.parts;
    const facts = { isCommitAsked: row.commitAsked === 1, shares: views.volumes(row) };
    if (!isOutcomeOpen(facts)) return false;
    if (row.state !== "Undecided") {
      rows.save(row.name, { state: "Undecided" });
      this.core.log.error({ job: row.name }, "undecided: members have voted, and the group home does not answer");
    }
    return true;
  }
}

function answersOf(reports: Reports): Map<string, Answer> {
  return new Map([...reports].map(([agentId, report]) => [agentId, answerOf(report)]));
}

function answerOf(report: ShareReport | undefined | Error): Answer {
  if (report instanceof Error) return { kind: "unreachable" };
  if (report === undefined) return { kind: "unknown" };
  const { finishedAs } = report;
  if (finishedAs === null) return { kind: "unfinished" };
  return { kind: "finished", as: finishedAs === "Succeeded" || finishedAs === "Cancelled" ? finishedAs : "Failed" };
}

/** Those who have not ended the job, as far as is known. */
function unfinished(reports: Reports): string[] {
  return [...reports].filter(([, report]) => answerOf(report).kind !== "finished").map(([agentId]) => agentId);
}

function highestEpoch(row: JobRow, reports: Reports, copies: readonly Copy[]): number {
  const heard = [...reports.values(), ...copies].flatMap((one) => (one instanceof Error ? [] : (one?.epoch ?? [])));
  return Math.max(row.epoch, ...heard);
}

function idsOf(share: ShareSpec): string[] {
  return share.participants.map(({ agentId }) => agentId);
}

function volumesOf(share: ShareSpec) {
  return share.participants.flatMap(({ volumes }) => volumes);
}

function groupOf({ spec }: ShareSpec): string {
  return spec.group?.name ?? "";
}

function homeOf(located: Homes, volume: string): Member {
  return memberOf(located, located.homes.find((one) => one.volume === volume)?.agentId ?? null);
}

function memberOf({ members }: Homes, agentId: string | null): Member {
  const member = members.find((one) => one.agentId === agentId);
  if (member === undefined) throw new LongshoreError("Unreachable", `agent ${agentId} of the target is not known`);
  return member;
}

async function settledOr<T>(work: () => Promise<T>, signal: AbortSignal): Promise<T | Error> {
  try {
    return await work();
  } catch (error) {
    signal.throwIfAborted();
    if (codeOf(error) === undefined) throw error;
    return error as Error;
  }
}
