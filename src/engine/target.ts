// The target's side of a migration: decider (terms, the commit) and participant (staging). One row decides for each
// migrated volume; every change of it happens under the volume's lock, with its lanes closed and writes joined, in one
// conditional transaction. See docs/ARCHITECTURE.md for the barriers.
import { createHash } from "node:crypto";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { openPlanDigest, rangesOf, type Unit } from "../domain/plan.ts";
import type {
  Claim,
  CommitRecord,
  CommitRequest,
  FreezeResult,
  Grant,
  Hello,
  LaneTicket,
  PeerApi,
  PeerTarget,
  PlanHeader,
  PlanPage,
  Report,
  StoreRequest,
  StoreResult,
  Term,
} from "../wire/peer.ts";
import type { Barrier } from "../wire/schemas.ts";
import type { Clones } from "./clones.ts";
import { type Core, timeText } from "./core.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey, type StagingRow } from "./migrated.ts";
import { markLost, nextPosition, pointOf, pointRef, pointsOf, presentPoints, sealedPoint, sweep } from "./points.ts";
import type { SourceRow, Sources } from "./sources.ts";
import { StagingSession, type StoredUnit } from "./staging-session.ts";

const commitsReported = 16;
const pointsKeptDefault = 3;

/** The caller of the protocol, as its certificate says. */
export interface Caller {
  readonly clusterUid: string;
}

export class Target {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;
  private readonly sources: Sources;
  private readonly clones: Clones;
  private readonly sessions = new Map<string, StagingSession>();
  /** Monotonic end of each live term. After a restart a prior lease counts as live for one lease period. */
  private readonly leaseEndsMs = new Map<string, number>();

  constructor(core: Core, parts: { migrated: MigratedVolumes; sources: Sources; clones: Clones }) {
    this.core = core;
    this.migrated = parts.migrated;
    this.sources = parts.sources;
    this.clones = parts.clones;
    for (const row of this.migrated.rows()) if (row.isTermLive === 1) this.renewLease(row.uid);
  }

  /** The protocol as one foreign cluster may use it: it sees its own volumes and nothing else. */
  for(caller: Caller): PeerApi {
    return {
      hello: () => this.hello(caller),
      claim: (claim) => this.claim(caller, claim),
      report: (volume) => this.reportOf(caller, volume),
      renew: (target) => this.inTerm(caller, target, async () => undefined),
      putPlan: (target, header) => this.inTerm(caller, target, (row) => this.putPlan(row, header)),
      putPlanPage: (target, page) => this.inTerm(caller, target, async (row) => this.putPlanPage(row, page)),
      freeze: (target) => this.inTerm(caller, target, (row) => this.freeze(row)),
      laneTicket: (target, lane) => this.inTerm(caller, target, async (row) => this.laneTicket(row, lane)),
      store: (target, request) => this.store(caller, target, request),
      commit: (target, request) => this.commit(caller, target, request),
      abort: (target, options) => this.abort(caller, target, options),
      release: (target) => this.release(caller, target),
    };
  }

  /** Told by the lane server, so that whoever waits for a unit of the lane learns why it will not come. */
  laneFailed(owner: string, lane: number, error: Error): void {
    this.sessions.get(owner)?.laneFailed(lane, error);
  }

  /** Ends terms whose coordinator is silent past its lease, thaws, and drops staging nobody goes on with. */
  async expire(): Promise<void> {
    for (const row of this.migrated.rows()) {
      if (row.isTermLive === 1 && this.leaseLeftMs(row.uid) <= 0) await this.selfAbort(row);
      else if (row.isTermLive === 0) await this.dropOldStaging(row);
    }
  }

  async close(): Promise<void> {
    for (const uid of this.sessions.keys()) await this.endSession(uid);
  }

  private async hello({ clusterUid }: Caller): Promise<Hello> {
    this.sources.seen(clusterUid);
    const { cluster, agentId, node, addresses, storage } = this.core;
    const { freeBytes } = await storage.space();
    return {
      clusterUid: cluster.uid,
      clusterName: cluster.name,
      agentId,
      members: [{ agentId, node, ...addresses }],
      freeBytes,
    };
  }

  // ---- terms -------------------------------------------------------------------------------------------------------

  private async claim({ clusterUid }: Caller, claim: Claim): Promise<Grant> {
    const source = this.sources.seen(clusterUid);
    return this.core.lock.run(migratedLockKey({ clusterUid, volumeUid: claim.volume }), async () => {
      const found = this.migrated.bySource(clusterUid, claim.volume);
      if (found?.deleting === 1) throw new LongshoreError("InUse", `migrated volume ${found.name} is being deleted`);
      this.checkQuota(source, claim, found);
      const isSameTerm = found?.isTermLive === 1 && found.nonce === claim.nonce && found.claimant === claim.claimant;
      if (found !== undefined && !isSameTerm) {
        this.checkLease(found, claim);
        await this.endSession(found.uid);
      }
      const row = isSameTerm ? found : this.grant(source, { clusterUid, claim, found });
      this.renewLease(row.uid);
      return {
        term: { epoch: row.epoch, nonce: row.nonce },
        leaseMs: this.core.limits.leaseMs,
        report: await this.report(row),
      };
    });
  }

  private checkLease(row: MigratedRow, claim: Claim): void {
    if (row.isTermLive === 0 || row.claimant === claim.claimant) return;
    const leftMs = this.leaseLeftMs(row.uid);
    if (leftMs <= 0) return;
    throw new LongshoreError(
      "LeaseHeld",
      `${row.claimant} holds the term of ${row.name} for another ${Math.ceil(leftMs)} ms`,
    );
  }

  private checkQuota(source: SourceRow, claim: Claim, found: MigratedRow | undefined): void {
    const { quotaBytes } = source.spec;
    if (quotaBytes === undefined) return;
    const usedBytes = this.sources.usedBytes(source.name) - (found?.sizeBytes ?? 0) + claim.sizeBytes;
    if (usedBytes <= quotaBytes) return;
    throw new LongshoreError(
      "QuotaExceeded",
      `${claim.name} would bring source ${source.name} to ${usedBytes} of ${quotaBytes} bytes`,
    );
  }

  private grant(
    source: SourceRow,
    { clusterUid, claim, found }: { clusterUid: string; claim: Claim; found: MigratedRow | undefined },
  ): MigratedRow {
    const { journal, dice } = this.core;
    const uid = found?.uid ?? dice.uuid();
    journal.transaction(() => {
      if (found === undefined) this.insertRow(source, uid, { clusterUid, claim });
      journal.run(
        `UPDATE migrated SET epoch = max(epoch, ?) + 1, nonce = ?, claimant = ?, job = ?, isTermLive = 1, frozenSince = NULL,
         metadataJson = ?, volumeName = ?, revision = revision + 1 WHERE uid = ?`,
        claim.offeredEpoch,
        claim.nonce,
        claim.claimant,
        claim.job,
        JSON.stringify(claim.metadata),
        claim.name,
        uid,
      );
    });
    this.publish(uid);
    return this.rowOf(uid);
  }

  private insertRow(source: SourceRow, uid: string, { clusterUid, claim }: { clusterUid: string; claim: Claim }): void {
    this.core.journal.run(
      `INSERT INTO migrated (uid, name, source, clusterUid, clusterName, volumeUid, volumeName, metadataJson, sizeBytes,
       epoch, nonce, claimant, job, isTermLive, revision) VALUES (?,?,?,?,?,?,?,?,?,0,'','','',0,0)`,
      uid,
      migratedName(source.name, clusterUid, claim),
      source.name,
      clusterUid,
      source.spec.clusterName,
      claim.volume,
      claim.name,
      JSON.stringify(claim.metadata),
      claim.sizeBytes,
    );
  }

  /** Runs `work` under the volume's lock if the term is the one granted, and counts as a sign of life. */
  private inTerm<T>({ clusterUid }: Caller, target: PeerTarget, work: (row: MigratedRow) => Promise<T>): Promise<T> {
    this.sources.seen(clusterUid);
    return this.core.lock.run(migratedLockKey({ clusterUid, volumeUid: target.volume }), async () => {
      const row = this.migrated.bySource(clusterUid, target.volume);
      if (row === undefined) throw new LongshoreError("NotFound", `volume ${target.volume} has no copy here`);
      checkTerm(row, target.term);
      this.renewLease(row.uid);
      return work(row);
    });
  }

  private async selfAbort(stale: MigratedRow): Promise<void> {
    await this.core.lock.run(migratedLockKey(stale), async () => {
      const row = this.migrated.byUid(stale.uid);
      if (row === undefined || row.isTermLive === 0 || this.leaseLeftMs(row.uid) > 0) return;
      await this.endSession(row.uid);
      this.core.journal.transaction(() =>
        this.core.journal.run(
          `UPDATE migrated SET epoch = epoch + 1, nonce = ?, isTermLive = 0, frozenSince = NULL, revision = revision + 1
           WHERE uid = ? AND epoch = ? AND nonce = ?`,
          this.core.dice.hex(16),
          row.uid,
          row.epoch,
          row.nonce,
        ),
      );
      this.core.log.warn(
        { migratedVolume: row.name, job: row.job, epoch: row.epoch },
        "term ended: coordinator silent past its lease",
      );
      this.thawed(row.uid);
    });
  }

  // ---- report ------------------------------------------------------------------------------------------------------

  private async reportOf({ clusterUid }: Caller, volume: string): Promise<Report | undefined> {
    this.sources.seen(clusterUid);
    return this.core.lock.run(migratedLockKey({ clusterUid, volumeUid: volume }), async () => {
      const row = this.migrated.bySource(clusterUid, volume);
      return row === undefined || row.deleting === 1 ? undefined : this.report(row);
    });
  }

  private async report(row: MigratedRow): Promise<Report> {
    const points = (await presentPoints(this.core, row.uid)).filter((point) => point.released === 0);
    const staging = this.migrated.staging(row.uid);
    return {
      agentId: this.core.agentId,
      barrier: this.barrier(row, staging),
      points: points.map(pointRef),
      staging:
        staging === undefined
          ? null
          : {
              baseId: staging.baseId,
              toId: staging.toId,
              planDigest: staging.planDigest,
              stored: rangesOf(this.storedIndexes(row.uid)),
            },
      commits: this.commits(row.uid),
      generationMax: row.generationMax,
    };
  }

  private barrier(row: MigratedRow, staging: StagingRow | undefined): Barrier {
    if (staging === undefined) return row.isTermLive === 1 ? "Joined" : "None";
    const header = JSON.parse(staging.headerJson) as PlanHeader;
    if (row.frozenSince === null) return "Joined";
    return this.migrated.storedUnits(row.uid) === header.unitCount ? "Stored" : "Frozen";
  }

  private commits(uid: string): CommitRecord[] {
    const rows = this.core.journal.all<Omit<CommitRecord, "committedAt"> & { committedAt: number }>(
      "SELECT toId, job, epoch, baseId, planDigest, committedAt FROM commits WHERE owner = ? ORDER BY committedAt DESC LIMIT ?",
      uid,
      commitsReported,
    );
    return rows.reverse().map((row) => ({ ...row, committedAt: timeText(row.committedAt) }));
  }

  private storedIndexes(uid: string): number[] {
    return this.core.journal
      .all<{ unit: number }>("SELECT unit FROM storedUnits WHERE owner = ? ORDER BY unit", uid)
      .map(({ unit }) => unit);
  }

  // ---- Joined: the plan --------------------------------------------------------------------------------------------

  private async putPlan(row: MigratedRow, header: PlanHeader): Promise<void> {
    this.checkPlan(row, header);
    const staging = this.migrated.staging(row.uid);
    if (staging !== undefined && isSamePlan(staging, header)) return;
    await this.endSession(row.uid);
    if (staging !== undefined) await this.dropStaging(row, staging);
    const { journal, clock } = this.core;
    journal.transaction(() => {
      journal.run(
        `INSERT INTO staging (owner, toId, baseId, planDigest, headerJson, isPlanned, isMade, sizeBytes, touchedAt)
         VALUES (?,?,?,?,?,0,0,?,?)`,
        row.uid,
        header.to.pointId,
        header.baseId,
        header.planDigest,
        JSON.stringify(header),
        header.to.sizeBytes,
        clock.nowMs(),
      );
      journal.run(
        "UPDATE migrated SET diverged = ?, revision = revision + 1 WHERE uid = ?",
        Number(header.diverged),
        row.uid,
      );
    });
    this.finishPlan(row, header);
  }

  private checkPlan(row: MigratedRow, header: PlanHeader): void {
    const points = this.migrated.points(row.uid);
    if (points.some((point) => point.pointId === header.to.pointId)) {
      throw new LongshoreError("PlanMismatch", `point ${header.to.pointId} is committed already`);
    }
    const base = header.baseId === null ? undefined : points.find((point) => point.pointId === header.baseId);
    if (header.baseId !== null && base === undefined) {
      throw new LongshoreError("PlanMismatch", `${row.name} has no point ${header.baseId} to start from`);
    }
    if (base !== undefined && base.sizeBytes > header.to.sizeBytes) {
      throw new LongshoreError(
        "ShrinkRefused",
        `${row.name} has ${base.sizeBytes} bytes, the plan ${header.to.sizeBytes}`,
      );
    }
  }

  private putPlanPage(row: MigratedRow, page: PlanPage): void {
    const staging = this.requireStaging(row);
    if (staging.isPlanned === 1) return;
    this.core.journal.transaction(() =>
      this.core.journal.run(
        "INSERT OR REPLACE INTO planPages (owner, first, unitsJson) VALUES (?,?,?)",
        row.uid,
        page.first,
        JSON.stringify(page.units),
      ),
    );
    this.finishPlan(row, JSON.parse(staging.headerJson));
  }

  /** The plan counts once all its units are here and their digest is the one announced. */
  private finishPlan(row: MigratedRow, header: PlanHeader): void {
    const units = this.plannedUnits(row.uid);
    if (units.length < header.unitCount) return;
    const identity = { baseId: header.baseId, toId: header.to.pointId, sizeBytes: header.to.sizeBytes };
    const digest = openPlanDigest(identity);
    digest.add(units);
    const summary = digest.finish();
    const isWhole =
      summary.digest === header.planDigest &&
      summary.unitCount === header.unitCount &&
      summary.bytesData === header.bytesData &&
      summary.bytesPunched === header.bytesPunched;
    if (!isWhole) throw new LongshoreError("PlanMismatch", `the plan of job ${header.job} arrived with another digest`);
    this.core.journal.transaction(() =>
      this.core.journal.run("UPDATE staging SET isPlanned = 1 WHERE owner = ?", row.uid),
    );
  }

  private plannedUnits(uid: string): Unit[] {
    const pages = this.core.journal.all<{ first: number; unitsJson: string }>(
      "SELECT first, unitsJson FROM planPages WHERE owner = ? ORDER BY first",
      uid,
    );
    const units: Unit[] = [];
    for (const page of pages) {
      if (page.first !== units.length) break;
      units.push(...(JSON.parse(page.unitsJson) as Unit[]));
    }
    return units;
  }

  private requireStaging(row: MigratedRow): StagingRow {
    const staging = this.migrated.staging(row.uid);
    if (staging === undefined) throw new LongshoreError("PlanMismatch", `${row.name} has no plan`);
    return staging;
  }

  // ---- Frozen and Stored -------------------------------------------------------------------------------------------

  private async freeze(row: MigratedRow): Promise<FreezeResult> {
    const staging = this.requireStaging(row);
    if (staging.isPlanned === 0) throw new LongshoreError("PlanMismatch", `the plan for ${row.name} is not complete`);
    const header = JSON.parse(staging.headerJson) as PlanHeader;
    const { journal, clock } = this.core;
    journal.transaction(() => {
      journal.run(
        "UPDATE migrated SET frozenSince = coalesce(frozenSince, ?), revision = revision + 1 WHERE uid = ?",
        clock.nowMs(),
        row.uid,
      );
      journal.run("UPDATE staging SET touchedAt = ? WHERE owner = ?", clock.nowMs(), row.uid);
    });
    this.publish(row.uid);
    if (!this.sharesBaseFile(row.uid, header)) await this.openSession(row, staging, header);
    return { stored: rangesOf(this.storedIndexes(row.uid)) };
  }

  /** An empty delta of unchanged size needs no image: the new point lives in the file of its base. */
  private sharesBaseFile(uid: string, header: PlanHeader): boolean {
    if (header.unitCount > 0 || header.baseId === null) return false;
    return pointOf(this.core.journal, uid, header.baseId)?.sizeBytes === header.to.sizeBytes;
  }

  private async openSession(row: MigratedRow, staging: StagingRow, header: PlanHeader): Promise<void> {
    if (this.sessions.has(row.uid)) return;
    await this.checkReserve(header);
    const session = await this.trustedSession(row, staging);
    this.sessions.set(row.uid, session);
  }

  /** What an earlier process stored is read again before it is trusted: a crash or an old disk may have taken it. */
  private async trustedSession(row: MigratedRow, staging: StagingRow): Promise<StagingSession> {
    const units = this.plannedUnits(row.uid);
    const open = async () => new StagingSession(await this.openImage(row, staging), units, this.core.clock);
    const session = await open();
    try {
      if (await this.isAsRecorded(row, session)) return session;
    } catch (error) {
      await session.close();
      throw error;
    }
    await session.close();
    this.core.log.error({ migratedVolume: row.name }, "stored units did not survive; the staging image is made again");
    await this.makeImage(row, staging);
    return open();
  }

  private async openImage(row: MigratedRow, staging: StagingRow) {
    const { storage } = this.core;
    const isMade = this.requireStaging(row).isMade === 1;
    if (isMade) {
      try {
        return await storage.openStaging(row.uid, staging.toId, staging.sizeBytes);
      } catch (error) {
        if (codeOf(error) !== "PointGone") throw error;
        this.core.log.error(
          { migratedVolume: row.name, point: staging.toId },
          "the staging image vanished; it is made again",
        );
      }
    }
    await this.makeImage(row, staging);
    return storage.openStaging(row.uid, staging.toId, staging.sizeBytes);
  }

  private async makeImage(row: MigratedRow, staging: StagingRow): Promise<void> {
    const { journal, storage } = this.core;
    // Rows of units go before the image they were stored in is replaced: they must never vouch for another one.
    journal.transaction(() => {
      journal.run("DELETE FROM storedUnits WHERE owner = ?", row.uid);
      journal.run("UPDATE staging SET isMade = 0 WHERE owner = ?", row.uid);
    });
    const base = staging.baseId === null ? undefined : pointOf(journal, row.uid, staging.baseId);
    if (staging.baseId !== null && base?.state !== "sealed") {
      throw new LongshoreError("PlanMismatch", `the base ${staging.baseId} of ${row.name} is gone`);
    }
    try {
      await storage.stage(row.uid, staging.toId, base && sealedPoint(base), staging.sizeBytes);
    } catch (error) {
      if (codeOf(error) !== "PointGone" || base === undefined) throw error;
      markLost(this.core, base);
      throw new LongshoreError("PlanMismatch", `the base ${staging.baseId} of ${row.name} is gone`, { cause: error });
    }
    journal.transaction(() => journal.run("UPDATE staging SET isMade = 1 WHERE owner = ?", row.uid));
  }

  private async isAsRecorded(row: MigratedRow, session: StagingSession): Promise<boolean> {
    const rows = this.core.journal.all<StoredUnit>("SELECT unit, digest FROM storedUnits WHERE owner = ?", row.uid);
    for (const { unit, digest } of rows) if ((await session.digestOf(unit)).digest !== digest) return false;
    return true;
  }

  private async checkReserve(header: PlanHeader): Promise<void> {
    const { freeBytes } = await this.core.storage.space();
    const neededBytes = header.bytesData + this.core.limits.reserveBytes;
    if (freeBytes >= neededBytes) return;
    throw new LongshoreError(
      "DiskFull",
      `the target has ${freeBytes} bytes free, and needs ${neededBytes} with its reserve`,
    );
  }

  private laneTicket(row: MigratedRow, lane: number): LaneTicket {
    const binding = { owner: row.uid, epoch: row.epoch, lane, peerClusterUid: row.clusterUid };
    const ticket = this.core.lanes.issue(binding, this.session(row).openLane(lane));
    return { ticket, laneAddress: this.core.addresses.laneAddress };
  }

  private session(row: MigratedRow): StagingSession {
    const session = this.sessions.get(row.uid);
    if (session === undefined)
      throw new LongshoreError("StreamTorn", `${row.name} is not open for storing; freeze it first`);
    return session;
  }

  /** Waits for the bytes outside the lock (they come through it from nobody), and settles under it. */
  private async store(caller: Caller, target: PeerTarget, request: StoreRequest): Promise<StoreResult> {
    const session = await this.inTerm(caller, target, async (row) => this.session(row));
    const stored = await this.inTerm(caller, target, async (row) => new Set(this.storedIndexes(row.uid)));
    const missing = request.units.filter(({ index }) => !stored.has(index));
    await session.received(
      request.lane,
      missing.map(({ index }) => index),
    );
    return this.inTerm(caller, target, async (row) => {
      const { good, damaged } = await session.settle(missing);
      this.recordStored(row, target.term, good);
      const verified = good.some((unit) => unit.verified === "memory") ? "memory" : "media";
      const done = request.units.map(({ index }) => index).filter((index) => !damaged.includes(index));
      return { stored: done, damaged, verified };
    });
  }

  private recordStored(row: MigratedRow, term: Term, units: readonly StoredUnit[]): void {
    const { journal } = this.core;
    journal.transaction(() => {
      checkTerm(this.rowOf(row.uid), term);
      for (const { unit, digest, verified } of units) {
        journal.run(
          "INSERT OR REPLACE INTO storedUnits (owner, unit, digest, verified) VALUES (?,?,?,?)",
          row.uid,
          unit,
          digest,
          verified,
        );
      }
      this.migrated.touch(row.uid);
    });
    this.publish(row.uid);
  }

  // ---- Committed ---------------------------------------------------------------------------------------------------

  private async commit(caller: Caller, target: PeerTarget, request: CommitRequest): Promise<CommitRecord> {
    return this.inTerm(caller, target, async (row) => {
      const done = this.commits(row.uid).find(
        (commit) => commit.toId === request.toId && this.isPoint(row, commit.toId),
      );
      if (done !== undefined) {
        if (done.planDigest === request.planDigest) return done;
        throw new LongshoreError("PlanMismatch", `point ${request.toId} was committed with another plan`);
      }
      const staging = this.requireStaging(row);
      const header = this.checkCommit(row, staging, request);
      await this.core.lanes.closeLanes(row.uid);
      const point = this.sharesBaseFile(row.uid, header)
        ? this.baseFile(row, header)
        : await this.sealStaging(row, staging);
      this.core.journal.transaction(() => this.decide(row, header, point));
      await this.endSession(row.uid);
      this.core.log.info(
        { migratedVolume: row.name, job: row.job, epoch: row.epoch, point: header.to.pointId, mode: header.mode.kind },
        "point committed",
      );
      this.thawed(row.uid);
      const record = this.commits(row.uid).find((commit) => commit.toId === request.toId);
      if (record === undefined)
        throw new LongshoreError("PlanMismatch", `the commit of ${request.toId} was not recorded`);
      return record;
    });
  }

  private isPoint(row: MigratedRow, pointId: string): boolean {
    return pointOf(this.core.journal, row.uid, pointId)?.state === "sealed";
  }

  private checkCommit(row: MigratedRow, staging: StagingRow, request: CommitRequest): PlanHeader {
    const header = JSON.parse(staging.headerJson) as PlanHeader;
    const fits =
      staging.planDigest === request.planDigest && staging.toId === request.toId && staging.baseId === request.baseId;
    if (!fits) throw new LongshoreError("PlanMismatch", `${row.name} stages another plan than the one to be committed`);
    const stored = this.migrated.storedUnits(row.uid);
    const isStored = staging.isPlanned === 1 && row.frozenSince !== null && stored === header.unitCount;
    if (!isStored)
      throw new LongshoreError("PlanMismatch", `${row.name} has ${stored} of ${header.unitCount} units stored`);
    const isImageMade = staging.isMade === 1 || this.sharesBaseFile(row.uid, header);
    if (!isImageMade) throw new LongshoreError("PlanMismatch", `${row.name} has no staging image`);
    return header;
  }

  private baseFile(row: MigratedRow, header: PlanHeader): SealedFile {
    const base = header.baseId === null ? undefined : pointOf(this.core.journal, row.uid, header.baseId);
    if (base?.state !== "sealed") throw new LongshoreError("PlanMismatch", `the base of ${row.name} is gone`);
    return { file: base.file, inode: base.inode, fsUuid: base.fsUuid, verified: base.verified ?? "memory" };
  }

  private async sealStaging(row: MigratedRow, staging: StagingRow): Promise<SealedFile> {
    const session = this.session(row);
    const identity = await this.core.storage.seal(row.uid, staging.toId);
    session.checkOpen();
    const memory = this.core.journal.get(
      "SELECT 1 AS one FROM storedUnits WHERE owner = ? AND verified = 'memory' LIMIT 1",
      row.uid,
    );
    return {
      file: staging.toId,
      inode: identity.inode,
      fsUuid: identity.fsUuid,
      verified: memory === undefined ? "media" : "memory",
    };
  }

  /** The one conditional write: from here on the point exists, and everything is finished forward. */
  private decide(row: MigratedRow, header: PlanHeader, point: SealedFile): void {
    const { journal, clock } = this.core;
    checkTerm(this.rowOf(row.uid), row);
    const nowMs = clock.nowMs();
    journal.run(
      `INSERT OR REPLACE INTO commits (owner, toId, job, epoch, baseId, planDigest, committedAt) VALUES (?,?,?,?,?,?,?)`,
      row.uid,
      header.to.pointId,
      header.job,
      row.epoch,
      header.baseId,
      header.planDigest,
      nowMs,
    );
    this.insertPoint(row, header, { ...point, committedAt: nowMs });
    for (const table of ["staging", "planPages", "storedUnits"]) {
      journal.run(`DELETE FROM ${table} WHERE owner = ?`, row.uid);
    }
    journal.run(
      `UPDATE migrated SET frozenSince = NULL, sizeBytes = ?, generationMax = max(generationMax, ?), revision = revision + 1 WHERE uid = ?`,
      header.to.sizeBytes,
      header.to.generation,
      row.uid,
    );
  }

  private insertPoint(row: MigratedRow, header: PlanHeader, point: SealedFile & { committedAt: number }): void {
    const { journal } = this.core;
    // A point that was lost and has now been sent again takes its row back.
    journal.run("DELETE FROM holds WHERE owner = ? AND pointId = ?", row.uid, header.to.pointId);
    journal.run("DELETE FROM points WHERE owner = ? AND pointId = ? AND state = 'lost'", row.uid, header.to.pointId);
    journal.run(
      `INSERT INTO points (owner, pointId, generation, state, file, sizeBytes, sourceTime, committedAt, inode, fsUuid, verified, position)
       VALUES (?,?,?,'sealed',?,?,?,?,?,?,?,?)`,
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
      nextPosition(journal, row.uid),
    );
  }

  // ---- after the decision, or instead of it ------------------------------------------------------------------------

  private abort(caller: Caller, target: PeerTarget, { discard }: { discard: boolean }): Promise<void> {
    return this.inTerm(caller, target, async (row) => {
      await this.endSession(row.uid);
      this.core.journal.transaction(() => {
        checkTerm(this.rowOf(row.uid), row);
        this.core.journal.run(
          "UPDATE migrated SET isTermLive = 0, frozenSince = NULL, revision = revision + 1 WHERE uid = ?",
          row.uid,
        );
      });
      const staging = this.migrated.staging(row.uid);
      if (discard && staging !== undefined) await this.dropStaging(row, staging);
      this.thawed(row.uid);
    });
  }

  /** The term ends; points beyond the number kept are released. */
  private release(caller: Caller, target: PeerTarget): Promise<void> {
    return this.inTerm(caller, target, async (row) => {
      const { journal } = this.core;
      journal.transaction(() =>
        journal.run("UPDATE migrated SET isTermLive = 0, revision = revision + 1 WHERE uid = ?", row.uid),
      );
      await this.prune(row);
      this.publish(row.uid);
    });
  }

  private async prune(row: MigratedRow): Promise<void> {
    const { journal } = this.core;
    const kept = this.sources.byName(row.source)?.spec.pointsKept ?? pointsKeptDefault;
    const points = pointsOf(journal, row.uid).filter((point) => point.state !== "deleting");
    const sealed = points.filter((point) => point.state === "sealed");
    const newestKept = sealed.slice(-kept)[0];
    journal.transaction(() => {
      for (const point of points) {
        const isKept = newestKept === undefined || point.position >= newestKept.position;
        if (!isKept)
          journal.run("UPDATE points SET released = 1 WHERE owner = ? AND pointId = ?", row.uid, point.pointId);
      }
    });
    await sweep(this.core, row.uid);
  }

  private async dropOldStaging(row: MigratedRow): Promise<void> {
    const { clock, limits, lock } = this.core;
    const isOld = (staging: StagingRow | undefined) =>
      staging !== undefined && clock.nowMs() - staging.touchedAt > limits.stagingAgeMs;
    if (!isOld(this.migrated.staging(row.uid))) return;
    await lock.run(migratedLockKey(row), async () => {
      const staging = this.migrated.staging(row.uid);
      const now = this.migrated.byUid(row.uid);
      if (staging !== undefined && now?.isTermLive === 0 && isOld(staging)) await this.dropStaging(now, staging);
    });
  }

  /** The image goes first: a row without image is made again, an image without row would be quarantined. */
  private async dropStaging(row: MigratedRow, staging: StagingRow): Promise<void> {
    const { journal, storage } = this.core;
    const isPointFile = pointsOf(journal, row.uid).some(
      (point) => point.file === staging.toId && point.state !== "lost",
    );
    if (!isPointFile) await storage.deletePoint(row.uid, staging.toId);
    journal.transaction(() => {
      for (const table of ["storedUnits", "planPages", "staging"]) {
        journal.run(`DELETE FROM ${table} WHERE owner = ?`, row.uid);
      }
    });
  }

  /** Lanes closed, writes joined, image closed: nothing of the old term can write any more. */
  private async endSession(uid: string): Promise<void> {
    await this.core.lanes.closeLanes(uid);
    const session = this.sessions.get(uid);
    this.sessions.delete(uid);
    await session?.close();
  }

  /** Waiting clones are queued before anything that asks for the volume later, so the next freeze cannot starve them. */
  private thawed(uid: string): void {
    this.publish(uid);
    this.clones.serveWaiting(uid);
  }

  private rowOf(uid: string): MigratedRow {
    const row = this.migrated.byUid(uid);
    if (row === undefined) throw new LongshoreError("NotFound", `migrated volume ${uid} does not exist`);
    return row;
  }

  private renewLease(uid: string): void {
    this.leaseEndsMs.set(uid, this.core.clock.monotonicMs() + this.core.limits.leaseMs);
  }

  private leaseLeftMs(uid: string): number {
    return (this.leaseEndsMs.get(uid) ?? 0) - this.core.clock.monotonicMs();
  }

  private publish(uid: string): void {
    const row = this.migrated.byUid(uid);
    if (row !== undefined) this.core.feed.publish("migratedVolume", row.name);
  }
}

interface SealedFile {
  readonly file: string;
  readonly inode: string | null;
  readonly fsUuid: string | null;
  readonly verified: "media" | "memory";
}

function checkTerm(row: MigratedRow, term: Term): void {
  if (row.isTermLive === 1 && row.epoch === term.epoch && row.nonce === term.nonce) return;
  throw new LongshoreError("TermLost", `epoch ${term.epoch} no longer holds for ${row.name}`);
}

function isSamePlan(staging: StagingRow, header: PlanHeader): boolean {
  return (
    staging.toId === header.to.pointId && staging.baseId === header.baseId && staging.planDigest === header.planDigest
  );
}

/** Readable, and never the same for two volumes: source, volume, and a hash of what identifies it. */
function migratedName(source: string, clusterUid: string, claim: Claim): string {
  const hash = createHash("sha256").update(`${clusterUid}/${claim.volume}`).digest("hex").slice(0, 10);
  return `${source.slice(0, 40)}-${claim.name.slice(0, 60)}-${hash}`.replaceAll(/[.-]{2,}/g, "-");
}
