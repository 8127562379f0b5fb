// The votes of a group's members. A member that has voted is bound: it neither commits nor aborts by itself, but asks its
// group home, and does what was decided there. Until it knows, what it has sealed stays, frozen, and nobody else gets it.
import { assert } from "../base/assert.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { decideVote, type HomeAnswer, type SiblingAnswer, type Verdict, type Vote } from "../domain/vote.ts";
import type { MemberApi, MemberOutcome, OutcomeQuery } from "../wire/member.ts";
import type { DecidedPoint, PeerTarget, PlanHeader, PrepareRequest, Term } from "../wire/peer.ts";
import type { Core } from "./core.ts";
import type { Decisions, SealedFile } from "./decisions.ts";
import { checkTerm, isTerm } from "./leases.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey, type VoteRow } from "./migrated.ts";
import { headerOf, type Plans } from "./plans.ts";
import { dropHold, type HoldKey, pointOf, takeHold } from "./points.ts";
import type { Caller } from "./sources.ts";
import type { StagingArea } from "./staging-area.ts";
import type { Terms } from "./terms.ts";

/** Whom a member that has voted asks. */
export interface Voters {
  /** Throws `Unreachable` for one that is not known, or forgotten. */
  api(agentId: string): Pick<MemberApi, "decision" | "memberOutcome">;
  isForgotten(agentId: string): boolean;
}

interface Parts {
  readonly migrated: MigratedVolumes;
  readonly plans: Plans;
  readonly staging: StagingArea;
  readonly terms: Terms;
  readonly decisions: Decisions;
  readonly voters: Voters;
}

/** A vote as it was when its group home was asked; what has changed since makes the answer void. */
interface Asked {
  readonly row: MigratedRow;
  readonly vote: VoteRow;
}

export class Votes {
  private readonly core: Core;
  private readonly parts: Parts;
  private readonly settling = new Set<string>();

  constructor(core: Core, parts: Parts) {
    this.core = core;
    this.parts = parts;
  }

  /** See PeerGroupApi.prepare. */
  prepare(caller: Caller, target: PeerTarget, request: PrepareRequest): Promise<void> {
    const { terms, decisions, staging, plans } = this.parts;
    return terms.inTerm(caller, target, async (row) => {
      if (row.groupName === null)
        throw new LongshoreError("BadRequest", `${row.name} has no group's term to vote under`);
      const known = this.parts.migrated.vote(row.uid);
      if (known !== undefined) {
        this.checkNoOther(row, known, request.groupPoint);
        await this.checkSealed(row, known);
        return this.repeat(row, known, request);
      }
      if (decisions.committed(row, request) !== undefined) return;
      this.checkPoint(row, headerOf(plans.require(row)), request.groupPoint);
      const { header, point } = await decisions.seal(row, request);
      this.core.journal.transaction(() => this.record(row, { header, point, request }));
      await staging.endSession(row.uid);
      this.core.log.info({ ...about(row), point: request.toId, groupPoint: request.groupPoint }, "voted to commit");
      this.parts.migrated.published(row.uid);
    });
  }

  /**
   * Under the volume's lock and a term: a vote stands in the way of a plan for another group point until it is settled
   * (`LeaseHeld`), and of another plan for its own under the vote's very term (`PlanMismatch`).
   */
  checkPlan(row: MigratedRow, header: PlanHeader): void {
    const vote = this.parts.migrated.vote(row.uid);
    if (vote === undefined) return;
    this.checkNoOther(row, vote, header.groupPoint);
    const request = requestOf(vote);
    const isSame =
      request.toId === header.to.pointId &&
      request.baseId === header.baseId &&
      request.planDigest === header.planDigest;
    if (isSame || row.epoch > vote.epoch) return;
    throw new LongshoreError("PlanMismatch", `${row.name} has voted for another plan under epoch ${vote.epoch}`);
  }

  /**
   * Before staging is dropped for another plan: the claimant of a later term has seen at the group home that nothing was
   * committed, and nothing can be committed under the vote's term any more. It goes before the image it vouches for.
   */
  annul(row: MigratedRow): void {
    const vote = this.parts.migrated.vote(row.uid);
    if (vote === undefined) return;
    assert(row.epoch > vote.epoch, "a vote is void only under a later term");
    this.core.journal.transaction(() => this.forget(row, vote));
    this.parts.migrated.setUndecided(row.uid, false);
  }

  /** What this member knows itself. Needs no lock: each outcome is one transaction. */
  outcome({ clusterUid, volume, groupPoint }: OutcomeQuery): MemberOutcome {
    const row = this.parts.migrated.bySource(clusterUid, volume);
    if (row === undefined) return { outcome: "none" };
    if (this.parts.migrated.vote(row.uid)?.groupPoint === groupPoint) return { outcome: "prepared" };
    const isCommitted = this.parts.decisions.hasGroupPoint(row.uid, groupPoint);
    return { outcome: isCommitted ? "committed" : "none" };
  }

  /**
   * Asks the group home, and does what was decided; nothing where there is no vote, or no decision. With `keep`, the term
   * that goes on when it is aborted: then its coordinator is there, and ends it itself.
   */
  async settle(uid: string, keep?: Term): Promise<void> {
    const asked = this.asked(uid);
    if (asked === undefined) return;
    const verdict = await this.ask(asked);
    await this.core.lock.run(migratedLockKey(asked.row), async () => {
      if (!this.isStill(asked)) return;
      await this.apply(asked, verdict, keep);
    });
  }

  /**
   * See PeerGroupApi.joinGroupPoint. The source's word is not enough, for a point belongs to a group point only by the decision.
   * What was committed by a vote belongs to it already; where the group home was forgotten, nobody can tell.
   */
  async join(row: MigratedRow, { group, groupPoint }: DecidedPoint): Promise<void> {
    const { voters, decisions } = this.parts;
    if (decisions.hasGroupPoint(row.uid, groupPoint) || voters.isForgotten(group.home)) return;
    const { clusterUid, volumeUid, epoch } = row;
    const answer = await voters.api(group.home).decision({ clusterUid, group: group.name, groupPoint, epoch });
    if (answer.kind !== "committed") return;
    const part = answer.record.members.find(({ volume }) => volume === volumeUid);
    if (part === undefined) return;
    await this.core.lock.run(migratedLockKey(row), async () =>
      decisions.join(row.uid, part.toId, { group, groupPoint }),
    );
  }

  /** In the background; one at a time for each volume. */
  settleSoon({ uid, name }: MigratedRow): void {
    if (this.settling.has(uid)) return;
    this.settling.add(uid);
    this.core.tasks.spawn(`settle ${name}`, () => this.settle(uid).finally(() => this.settling.delete(uid)));
  }

  /** For those whose coordinator is silent past its lease. */
  settleOverdue(): void {
    for (const row of this.parts.migrated.voted()) if (!this.parts.terms.isAlive(row.uid)) this.settleSoon(row);
  }

  /** Throws `LeaseHeld` for a vote for another group point, and has that settled. */
  private checkNoOther(row: MigratedRow, vote: VoteRow, groupPoint: string | undefined): void {
    if (vote.groupPoint === groupPoint) return;
    this.settleSoon(row);
    throw new LongshoreError("LeaseHeld", `${row.name} has voted for point ${vote.groupPoint}; that is settled first`);
  }

  // ---- voting ------------------------------------------------------------------------------------------------------

  /**
   * What a vote vouches for may be gone, with a disk that was put back to an older state. Under the vote's own term it is too
   * late to take it back; under a later one it is void, and its image is made again (`PlanMismatch`).
   */
  private async checkSealed(row: MigratedRow, vote: VoteRow): Promise<void> {
    if (row.epoch <= vote.epoch) return;
    const { inode, fsUuid, file } = JSON.parse(vote.sealedJson) as SealedFile;
    assert(inode !== null && fsUuid !== null, "what was sealed has an identity");
    const { sizeBytes } = headerOf(this.parts.plans.require(row)).to;
    try {
      const reader = await this.core.storage.openPoint(row.uid, {
        point: file,
        identity: { inode, fsUuid, sizeBytes },
      });
      await reader.close();
    } catch (error) {
      if (codeOf(error) !== "PointGone") throw error;
      this.annul(row);
      throw new LongshoreError("PlanMismatch", `${row.name} has lost the image it voted for`, { cause: error });
    }
  }

  /** The same vote under a later term is given anew; the one that is there is as good. */
  private repeat(row: MigratedRow, vote: VoteRow, request: PrepareRequest): void {
    const before = requestOf(vote);
    const isSame =
      vote.groupPoint === request.groupPoint &&
      before.toId === request.toId &&
      before.baseId === request.baseId &&
      before.planDigest === request.planDigest;
    if (!isSame)
      throw new LongshoreError("PlanMismatch", `${row.name} has voted for point ${before.toId} with another plan`);
    this.core.journal.transaction(() => {
      checkTerm(this.parts.migrated.require(row.uid), row);
      this.core.journal.run(
        "UPDATE votes SET epoch = ?, requestJson = ? WHERE owner = ?",
        row.epoch,
        JSON.stringify(request),
        row.uid,
      );
      this.parts.migrated.touch(row.uid);
    });
    this.parts.migrated.setUndecided(row.uid, false);
  }

  private checkPoint(row: MigratedRow, header: PlanHeader, groupPoint: string): void {
    if (header.groupPoint === groupPoint) return;
    throw new LongshoreError("PlanMismatch", `${row.name} stages no part of group point ${groupPoint}`);
  }

  private record(
    row: MigratedRow,
    { header, point, request }: { header: PlanHeader; point: SealedFile; request: PrepareRequest },
  ): void {
    const { journal } = this.core;
    checkTerm(this.parts.migrated.require(row.uid), row);
    journal.run(
      "INSERT INTO votes (owner, groupPoint, epoch, requestJson, sealedJson) VALUES (?,?,?,?,?)",
      row.uid,
      request.groupPoint,
      row.epoch,
      JSON.stringify(request),
      JSON.stringify(point),
    );
    // An empty delta lives in the file of its base, which must be there when the vote becomes a point.
    const hold = this.baseHold(row.uid, header.baseId);
    if (point.file !== header.to.pointId && hold !== undefined) takeHold(this.core, hold);
    this.parts.migrated.touch(row.uid);
  }

  // ---- asking ------------------------------------------------------------------------------------------------------

  private asked(uid: string): Asked | undefined {
    const row = this.parts.migrated.byUid(uid);
    const vote = this.parts.migrated.vote(uid);
    return row === undefined || vote === undefined ? undefined : { row, vote };
  }

  /** Without a lock, for the answer may take long, and may even be asked of ourselves. */
  private async ask(asked: Asked): Promise<Verdict> {
    const vote = voteOf(asked);
    const home = await this.askHome(asked);
    const verdict = decideVote(vote, home);
    if (verdict.kind !== "askSiblings") return verdict;
    return decideVote(vote, home, await this.askSiblings(asked));
  }

  private async askHome({ row, vote }: Asked): Promise<HomeAnswer> {
    const { voters } = this.parts;
    const { clusterUid, groupName, groupHome } = row;
    assert(groupName !== null && groupHome !== null, "a vote is given under a group's term");
    if (voters.isForgotten(groupHome)) return { kind: "forgotten" };
    try {
      const query = { clusterUid, group: groupName, groupPoint: vote.groupPoint, epoch: vote.epoch };
      const answer = await voters.api(groupHome).decision(query);
      return answer.kind === "committed" ? { kind: "committed", ...answer.record } : answer;
    } catch (error) {
      this.noteSilence(row, { agentId: groupHome, error });
      return { kind: "silent" };
    }
  }

  private askSiblings({ row, vote }: Asked): Promise<SiblingAnswer[]> {
    const { voters } = this.parts;
    const siblings = requestOf(vote).members.filter(
      ({ volume, agentId }) => volume !== row.volumeUid && !voters.isForgotten(agentId),
    );
    return Promise.all(
      siblings.map(async ({ volume, agentId }) => {
        try {
          const query = { clusterUid: row.clusterUid, volume, groupPoint: vote.groupPoint };
          return (await voters.api(agentId).memberOutcome(query)).outcome;
        } catch (error) {
          this.noteSilence(row, { agentId, error });
          return "silent";
        }
      }),
    );
  }

  /** It is asked every second for as long as it takes: said aloud once. */
  private noteSilence(row: MigratedRow, { agentId, error }: { agentId: string; error: unknown }): void {
    const level = this.parts.migrated.isUndecided(row.uid) ? "debug" : "warn";
    this.core.log[level]({ ...about(row), agentId, err: error }, "who knows of the group's decision does not answer");
  }

  // ---- doing what was decided --------------------------------------------------------------------------------------

  /** An answer that came after a new vote or a new term is not about what is there now. */
  private isStill({ row, vote }: Asked): boolean {
    const now = this.asked(row.uid);
    return (
      now !== undefined &&
      now.vote.groupPoint === vote.groupPoint &&
      now.vote.epoch === vote.epoch &&
      now.row.epoch === row.epoch
    );
  }

  private async apply(asked: Asked, verdict: Verdict, keep: Term | undefined): Promise<void> {
    const { row, vote } = asked;
    switch (verdict.kind) {
      case "commit":
        await this.commit(asked, verdict.epoch);
        break;
      case "abort":
        await this.abort(asked, keep);
        break;
      case "mismatch":
        this.core.log.error({ ...about(row), vote }, "the group home has committed something else than was voted for");
        this.parts.migrated.setUndecided(row.uid, true);
        return;
      default:
        // Within its lease a coordinator is about to decide: that is no cause for concern yet.
        this.parts.migrated.setUndecided(row.uid, !this.parts.terms.isAlive(row.uid));
        return;
    }
    this.parts.migrated.setUndecided(row.uid, false);
    this.parts.decisions.thawed(row.uid);
  }

  /** The term stays as it is: whoever holds it releases it. */
  private async commit({ row, vote }: Asked, epoch: number): Promise<void> {
    const { decisions, plans, staging } = this.parts;
    const header = headerOf(plans.require(row));
    const sealed = JSON.parse(vote.sealedJson) as SealedFile;
    await staging.endSession(row.uid);
    this.core.journal.transaction(() => {
      assert(this.isStill({ row, vote }), "what is settled is the vote that was asked about");
      this.forget(row, vote);
      decisions.record(row, header, { ...sealed, job: header.job, epoch, groupPoint: vote.groupPoint });
    });
    this.core.log.info(
      { ...about(row), point: header.to.pointId, groupPoint: vote.groupPoint },
      "point committed with its group",
    );
  }

  /** Staging stays, so that the next job resumes. A later term than the vote's is not touched: it had no part in this. */
  private async abort({ row, vote }: Asked, keep: Term | undefined): Promise<void> {
    const { terms, staging, plans } = this.parts;
    const isKept = row.epoch > vote.epoch || (keep !== undefined && isTerm(row, keep));
    const isOfAnotherJob = headerOf(plans.require(row)).job !== row.job;
    await staging.endSession(row.uid);
    this.core.journal.transaction(() => {
      assert(this.isStill({ row, vote }), "what is settled is the vote that was asked about");
      this.forget(row, vote);
      if (!isKept) terms.takeAway(row);
      else if (isOfAnotherJob) terms.thaw(row.uid);
      this.core.journal.run("UPDATE staging SET touchedAt = ? WHERE owner = ?", this.core.clock.nowMs(), row.uid);
    });
    this.core.log.warn({ ...about(row), groupPoint: vote.groupPoint }, "vote ended: its group home has not committed");
  }

  /** Within a transaction. */
  private forget(row: MigratedRow, vote: VoteRow): void {
    this.core.journal.run("DELETE FROM votes WHERE owner = ?", row.uid);
    const hold = this.baseHold(row.uid, requestOf(vote).baseId);
    if (hold !== undefined) dropHold(this.core.journal, hold);
    this.parts.migrated.touch(row.uid);
  }

  private baseHold(owner: string, baseId: string | null): HoldKey | undefined {
    if (baseId === null || pointOf(this.core.journal, owner, baseId) === undefined) return undefined;
    return { owner, pointId: baseId, reason: "job", holder: `vote/${owner}` };
  }
}

function requestOf(vote: VoteRow): PrepareRequest {
  return JSON.parse(vote.requestJson) as PrepareRequest;
}

function voteOf({ row, vote }: Asked): Vote {
  const { toId, planDigest } = requestOf(vote);
  return { volume: row.volumeUid, toId, planDigest, epoch: vote.epoch };
}

function about({ name, job, groupName }: MigratedRow) {
  return { migratedVolume: name, job, group: groupName };
}
