// The target as decider: the commit that makes staging a point, and the ends of a term without one. The decision is one
// conditional write; everything before it can be undone, everything after it is finished forward.

import { LongshoreError } from "../domain/errors.ts";
import { type Verification, weakestOf } from "../domain/verification.ts";
import type { CommitRecord, CommitRequest, DecidedPoint, PeerTarget, PlanHeader } from "../wire/peer.ts";
import type { Clones } from "./clones.ts";
import { type Core, closeLanes, timeText } from "./core.ts";
import { checkTerm } from "./leases.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey, type StagingRow } from "./migrated.ts";
import { headerOf, type Plans } from "./plans.ts";
import { isPresent, nextPosition, pointOf, pointsOf, sweep } from "./points.ts";
import type { Caller, Sources } from "./sources.ts";
import type { StagingArea } from "./staging-area.ts";
import type { Terms } from "./terms.ts";

/** Commit records kept of each volume, and told in a report. */
const commitsKept = 16;
const pointsKeptDefault = 3;

export interface SealedFile {
  readonly file: string;
  readonly inode: string | null;
  readonly fsUuid: string | null;
  readonly verified: Verification;
}

/** What is to be a point, and by whose decision. */
interface Decided extends SealedFile {
  readonly job: string;
  readonly epoch: number;
  /** Null for one that was committed by itself. */
  readonly groupPoint: string | null;
}

type CommitRow = Omit<CommitRecord, "committedAt" | "groupPoint"> & {
  readonly committedAt: number;
  readonly groupPoint: string | null;
};

interface Parts {
  readonly migrated: MigratedVolumes;
  readonly sources: Sources;
  readonly clones: Clones;
  readonly plans: Plans;
  readonly staging: StagingArea;
  readonly terms: Terms;
}

export class Decisions {
  private readonly core: Core;
  private readonly parts: Parts;

  constructor(core: Core, parts: Parts) {
    this.core = core;
    this.parts = parts;
  }

  commit(caller: Caller, target: PeerTarget, request: CommitRequest): Promise<CommitRecord> {
    const { terms, staging: area } = this.parts;
    return terms.inTermOrEnded(caller, target, async (row) => {
      const done = this.committed(row, request);
      if (done !== undefined) {
        if (request.releases) await this.endReleased(row);
        return done;
      }
      checkTerm(row, target.term);
      if (row.groupName !== null) {
        throw new LongshoreError("BadRequest", `${row.name} is committed with group ${row.groupName}, not by itself`);
      }
      const { header, point } = await this.seal(row, request);
      this.core.journal.transaction(() => {
        checkTerm(this.parts.migrated.require(row.uid), row);
        this.record(row, header, { ...point, job: row.job, epoch: row.epoch, groupPoint: null });
        if (request.releases) terms.end(row);
      });
      // It is decided: whoever waits for the volume is served, whatever else may fail.
      this.thawed(row.uid);
      if (request.releases) this.pruneSoon(row);
      await area.endSession(row.uid);
      this.core.log.info(
        { migratedVolume: row.name, job: row.job, epoch: row.epoch, point: header.to.pointId, mode: header.mode.kind },
        "point committed",
      );
      return this.recordOf(row.uid, request.toId);
    });
  }

  /** The newest commit records, oldest first. */
  commits(uid: string): CommitRecord[] {
    const rows = this.core.journal.all<CommitRow>(
      `SELECT toId, job, epoch, baseId, planDigest, committedAt, groupPoint FROM commits WHERE owner = ?
       ORDER BY rowid DESC LIMIT ?`,
      uid,
      commitsKept,
    );
    return rows.reverse().map(({ committedAt, groupPoint, ...row }) => ({
      ...row,
      committedAt: timeText(committedAt),
      ...(groupPoint !== null && { groupPoint }),
    }));
  }

  /** Whether a part of the group point was committed here, as far back as commits are remembered. */
  hasGroupPoint(uid: string, groupPoint: string): boolean {
    const sql = "SELECT 1 AS one FROM commits WHERE owner = ? AND groupPoint = ?";
    return this.core.journal.get(sql, uid, groupPoint) !== undefined;
  }

  /** Under the volume's lock: a point that came by a job of its own is the volume's part of a group point that was decided with it. */
  join(uid: string, toId: string, { group, groupPoint }: DecidedPoint): void {
    const { journal } = this.core;
    journal.transaction(() => {
      const sql = "UPDATE commits SET groupPoint = ? WHERE owner = ? AND toId = ? AND groupPoint IS NULL";
      if (journal.run(sql, groupPoint, uid, toId) === 0) return;
      const ofPoint = "UPDATE points SET groupName = ?, groupPoint = ? WHERE owner = ? AND pointId = ?";
      journal.run(ofPoint, group.name, groupPoint, uid, toId);
      this.parts.migrated.touch(uid);
    });
    this.parts.migrated.published(uid);
  }

  abort(caller: Caller, target: PeerTarget, { discard }: { discard: boolean }): Promise<void> {
    return this.parts.terms.inTermOrEnded(caller, target, async (row) => {
      this.checkVote(row);
      if (row.isTermLive === 1) await this.endTerm(row);
      const staging = this.parts.migrated.staging(row.uid);
      if (discard && staging !== undefined) await this.parts.staging.drop(row, staging);
      this.thawed(row.uid);
    });
  }

  /** Ends the term; points beyond the number kept go soon. */
  release(caller: Caller, target: PeerTarget): Promise<void> {
    return this.parts.terms.inTermOrEnded(caller, target, (row) => this.endReleased(row));
  }

  private async endReleased(row: MigratedRow): Promise<void> {
    this.checkVote(row);
    if (row.isTermLive === 1) await this.endTerm(row);
    this.thawed(row.uid);
    this.pruneSoon(row);
  }

  /** The coordinator is silent past its lease: the decider aborts under an epoch of its own, and thaws. */
  async takeAway(stale: MigratedRow): Promise<void> {
    const { terms, migrated, staging } = this.parts;
    await this.core.lock.run(migratedLockKey(stale), async () => {
      const row = migrated.byUid(stale.uid);
      if (row === undefined || row.isTermLive === 0 || terms.isAlive(row.uid)) return;
      if (migrated.vote(row.uid) !== undefined) return;
      await staging.endSession(row.uid);
      this.core.journal.transaction(() => terms.takeAway(row));
      const about = { migratedVolume: row.name, job: row.job, epoch: row.epoch };
      this.core.log.warn(about, "term ended: coordinator silent past its lease");
      this.thawed(row.uid);
      this.pruneSoon(row);
    });
  }

  /** Waiting clones are queued before anything that asks for the volume later, so the next freeze cannot starve them. */
  thawed(uid: string): void {
    this.parts.migrated.published(uid);
    this.parts.clones.serveWaiting(uid);
  }

  /** A member that has voted does not end its term: neither by itself, nor for its coordinator. */
  private checkVote(row: MigratedRow): void {
    const vote = this.parts.migrated.vote(row.uid);
    if (vote === undefined) return;
    throw new LongshoreError(
      "Undecided",
      `${row.name} has voted for point ${vote.groupPoint}; agent ${row.groupHome} has not decided, or does not answer`,
    );
  }

  private async endTerm(row: MigratedRow): Promise<void> {
    await this.parts.staging.endSession(row.uid);
    this.core.journal.transaction(() => this.parts.terms.end(row));
  }

  /**
   * Makes exactly the plan that the request names ready to be a point: nothing is written into it any more. Throws
   * `PlanMismatch` for another one, or while something of it is missing. The staging session is still to be ended.
   */
  async seal(row: MigratedRow, request: CommitRequest): Promise<{ header: PlanHeader; point: SealedFile }> {
    const { plans } = this.parts;
    const staging = plans.require(row);
    const header = this.checkCommit(row, staging, request);
    await closeLanes(this.core, row.uid);
    const isShared = plans.sharesBaseFile(row.uid, header);
    return { header, point: isShared ? await this.baseFile(row, header) : await this.sealStaging(row, staging) };
  }

  /** What a repeated request to commit is answered with, also when its term ended meanwhile. */
  committed(row: MigratedRow, request: CommitRequest): CommitRecord | undefined {
    const done = this.commits(row.uid).find((commit) => commit.toId === request.toId);
    if (done === undefined || pointOf(this.core.journal, row.uid, done.toId)?.state !== "sealed") return undefined;
    if (done.planDigest === request.planDigest) return done;
    throw new LongshoreError("PlanMismatch", `point ${request.toId} was committed with another plan`);
  }

  private checkCommit(row: MigratedRow, staging: StagingRow, request: CommitRequest): PlanHeader {
    const { plans, migrated } = this.parts;
    const header = headerOf(staging);
    const fits =
      staging.planDigest === request.planDigest && staging.toId === request.toId && staging.baseId === request.baseId;
    if (!fits) throw new LongshoreError("PlanMismatch", `${row.name} stages another plan than the one to be committed`);
    const stored = migrated.storedUnits(row.uid);
    const isStored = staging.isPlanned === 1 && row.frozenSince !== null && stored === header.unitCount;
    if (!isStored)
      throw new LongshoreError("PlanMismatch", `${row.name} has ${stored} of ${header.unitCount} units stored`);
    const isImageMade = staging.isMade === 1 || plans.sharesBaseFile(row.uid, header);
    if (!isImageMade) throw new LongshoreError("PlanMismatch", `${row.name} has no staging image`);
    return header;
  }

  private async baseFile(row: MigratedRow, header: PlanHeader): Promise<SealedFile> {
    const base = header.baseId === null ? undefined : pointOf(this.core.journal, row.uid, header.baseId);
    const isThere = base?.state === "sealed" && (await isPresent(this.core, base));
    if (!isThere) throw new LongshoreError("PlanMismatch", `the base of ${row.name} is gone`);
    return { file: base.file, inode: base.inode, fsUuid: base.fsUuid, verified: base.verified ?? "memory" };
  }

  private async sealStaging(row: MigratedRow, staging: StagingRow): Promise<SealedFile> {
    const session = this.parts.staging.session(row);
    const identity = await this.core.storage.seal(row.uid, staging.toId);
    session.checkOpen();
    const found = this.core.journal.all<{ verified: Verification }>(
      "SELECT DISTINCT verified FROM storedUnits WHERE owner = ?",
      row.uid,
    );
    return {
      file: staging.toId,
      inode: identity.inode,
      fsUuid: identity.fsUuid,
      verified: weakestOf(found.map(({ verified }) => verified)) ?? "media",
    };
  }

  /** Within the one conditional write, whose condition the caller checks: from here on the point exists. */
  record(row: MigratedRow, header: PlanHeader, point: Decided): void {
    const { journal, clock } = this.core;
    const nowMs = clock.nowMs();
    // A point that was lost and is sent again has a record already; the newer one takes its place.
    journal.run(
      `INSERT OR REPLACE INTO commits (owner, toId, job, epoch, baseId, planDigest, committedAt, groupPoint)
       VALUES (?,?,?,?,?,?,?,?)`,
      row.uid,
      header.to.pointId,
      point.job,
      point.epoch,
      header.baseId,
      header.planDigest,
      nowMs,
      point.groupPoint,
    );
    journal.run(
      `DELETE FROM commits WHERE owner = ?1 AND rowid NOT IN
       (SELECT rowid FROM commits WHERE owner = ?1 ORDER BY rowid DESC LIMIT ${commitsKept})`,
      row.uid,
    );
    this.insertPoint(row, header, { ...point, committedAt: nowMs });
    this.parts.staging.forget(row);
    journal.run(
      `UPDATE migrated SET frozenSince = NULL, sizeBytes = ?, generationMax = max(generationMax, ?), revision = revision + 1
       WHERE uid = ?`,
      header.to.sizeBytes,
      header.to.generation,
      row.uid,
    );
  }

  private insertPoint(row: MigratedRow, header: PlanHeader, point: Decided & { committedAt: number }): void {
    const { journal } = this.core;
    // A point that was lost and has now been sent again takes its row back.
    journal.run("DELETE FROM holds WHERE owner = ? AND pointId = ?", row.uid, header.to.pointId);
    journal.run("DELETE FROM points WHERE owner = ? AND pointId = ? AND state = 'lost'", row.uid, header.to.pointId);
    journal.run(
      `INSERT INTO points (owner, pointId, generation, state, file, sizeBytes, sourceTime, committedAt, inode, fsUuid, verified,
       groupName, groupPoint, position) VALUES (?,?,?,'sealed',?,?,?,?,?,?,?,?,?,?)`,
      row.uid,
      header.to.pointId,
      header.to.generation,
      point.file,
      header.to.sizeBytes,
      Date.parse(header.to.sourceTime),
      point.committedAt,
      point.inode,
      point.fsUuid,
      point.verified,
      point.groupPoint === null ? null : row.groupName,
      point.groupPoint,
      nextPosition(journal, row.uid),
    );
  }

  private recordOf(uid: string, toId: string): CommitRecord {
    const record = this.commits(uid).find((commit) => commit.toId === toId);
    if (record === undefined) throw new LongshoreError("PlanMismatch", `the commit of ${toId} was not recorded`);
    return record;
  }

  private releaseSurplus(row: MigratedRow): void {
    const { journal } = this.core;
    const kept = this.parts.sources.byName(row.source)?.spec.pointsKept ?? pointsKeptDefault;
    const points = pointsOf(journal, row.uid).filter((point) => point.state !== "deleting");
    const sealed = points.filter((point) => point.state === "sealed");
    // A lost point is shown, and may come back, until there are enough newer ones.
    const oldestKept = sealed.length >= kept ? sealed.at(-kept) : undefined;
    const surplus = points.filter((point) => oldestKept !== undefined && point.position < oldestKept.position);
    if (surplus.length > 0) {
      journal.transaction(() => {
        for (const { pointId } of surplus)
          journal.run("UPDATE points SET released = 1 WHERE owner = ? AND pointId = ?", row.uid, pointId);
        this.parts.migrated.touch(row.uid);
      });
    }
  }

  /**
   * Lets go of points beyond the number kept: after the clones that wait now, which may be of them, and before whoever asks for the
   * volume later. To delete a file in many pieces takes a while, and nobody waits for it.
   */
  private pruneSoon(stale: MigratedRow): void {
    const { core, parts } = this;
    const { uid } = stale;
    const pruned = core.lock.run(migratedLockKey(stale), async () => {
      const row = parts.migrated.byUid(uid);
      if (row === undefined || row.deleting !== 0) return;
      this.releaseSurplus(row);
      await sweep(core, uid);
      parts.migrated.published(uid);
    });
    core.tasks.spawn(`prune ${stale.name}`, () => pruned);
  }
}
