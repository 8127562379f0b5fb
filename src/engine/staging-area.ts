// The target as participant: the image a plan is stored into, the session that writes it, and which units are durably
// there. Everything here runs under the volume's lock and a checked term, but for the waiting for bytes and for whole images.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { rangesOf } from "../domain/plan.ts";
import type { UnitList } from "../domain/unit-list.ts";
import { weakestOf } from "../domain/verification.ts";
import type { Staging } from "../storage/backend.ts";
import type {
  FreezeResult,
  LaneRequest,
  LaneTicket,
  PeerTarget,
  PlanHeader,
  StoreRequest,
  StoreResult,
} from "../wire/peer.ts";
import { type Core, closeLanes } from "./core.ts";
import { plannedBase } from "./lineage.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey, type StagingRow } from "./migrated.ts";
import { headerOf, type Plans } from "./plans.ts";
import { basePoint, markLost, type PointRow, pointsOf } from "./points.ts";
import type { Caller } from "./sources.ts";
import { StagingCheck } from "./staging-check.ts";
import { StagingMaking } from "./staging-making.ts";
import { StagingSession, type StoredUnit } from "./staging-session.ts";
import type { Terms } from "./terms.ts";

/** Who freezes is answered after this long at the latest, if it need not be all there by then. */
const freezeWaitMs = 10_000;
/** Readers are told of what arrives this often at most. */
const publishIntervalMs = 500;

/** What is waited for without the lock before an image is open for storing. */
type Underway = StagingCheck | StagingMaking;

export class StagingArea {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;
  private readonly plans: Plans;
  private readonly terms: Terms;
  private readonly sessions = new Map<string, StagingSession>();
  /** Images that are read again before they are opened for storing. */
  private readonly checks = new Map<string, StagingCheck>();
  /** Images, by owner and plan, that are being made, or were and are not recorded as made yet. */
  private readonly makings = new Map<string, StagingMaking>();
  /** Images, by owner and plan, whose recorded units this very process stored; those of an earlier one are read again. */
  private readonly trusted = new Set<string>();
  /** Of the others: the units that were read again and are right. */
  private readonly found = new Map<string, Set<number>>();
  private readonly publishedMs = new Map<string, number>();

  constructor(core: Core, parts: { migrated: MigratedVolumes; plans: Plans; terms: Terms }) {
    this.core = core;
    this.migrated = parts.migrated;
    this.plans = parts.plans;
    this.terms = parts.terms;
  }

  /**
   * Closes the newest point for clones, and opens the image; answers what is stored already. An image that has to be made, or read
   * again, before is waited for outside the lock; with `isPatient` until it is there, else for a while: undefined when that is over.
   */
  async freeze(
    caller: Caller,
    target: PeerTarget,
    { isPatient }: { isPatient: boolean },
  ): Promise<FreezeResult | undefined> {
    for (;;) {
      const frozen = await this.terms.inTerm(caller, target, (row) => this.tryFreeze(row));
      if (!isUnderway(frozen)) return frozen;
      await (isPatient ? frozen.done : this.patiently(frozen));
      if (frozen.result === undefined) return undefined;
    }
  }

  /** Under the volume's lock: what is to be waited for first, if there is anything. */
  private async tryFreeze(row: MigratedRow): Promise<FreezeResult | Underway> {
    const staging = this.plans.require(row);
    if (staging.isPlanned === 0) throw new LongshoreError("PlanMismatch", `the plan for ${row.name} is not complete`);
    const { journal, clock } = this.core;
    journal.transaction(() => {
      journal.run(
        "UPDATE migrated SET frozenSince = coalesce(frozenSince, ?), revision = revision + 1 WHERE uid = ?",
        clock.nowMs(),
        row.uid,
      );
      journal.run("UPDATE staging SET touchedAt = ? WHERE owner = ?", clock.nowMs(), row.uid);
    });
    this.migrated.published(row.uid);
    const header = headerOf(staging);
    // What was voted for is sealed: nothing is missing, and nothing may be written into it any more.
    const isSealed = this.migrated.vote(row.uid) !== undefined;
    const isStaged = !isSealed && !this.plans.sharesBaseFile(row.uid, header);
    const underway = isStaged ? await this.openSession(row, staging, header) : undefined;
    if (underway !== undefined) return underway;
    return { stored: rangesOf(this.migrated.storedIndexes(row.uid)) };
  }

  /** A term has begun: staging that its plan is likely to need can be made while the source still plans. */
  expect(row: MigratedRow): void {
    if (this.migrated.staging(row.uid) !== undefined) return;
    const base = likelyBase(pointsOf(this.core.journal, row.uid));
    if (base !== undefined) this.core.storage.stageSoon(row.uid, basePoint(base));
  }

  /** Throws `Unsupported` for a transport that this agent does not serve. */
  laneTicket(row: MigratedRow, { lane, transport }: LaneRequest): LaneTicket {
    const server = this.core.lanes[transport];
    if (server === undefined) {
      const advice = "set kernelLaneListen in its agent's configuration, or TLS as the location's transport";
      throw new LongshoreError("Unsupported", `${this.core.node} serves no ${transport} lanes; ${advice}`);
    }
    const binding = { owner: row.uid, epoch: row.epoch, lane, peerClusterUid: row.clusterUid };
    const ticket = server.issue(binding, this.session(row).openLane(lane));
    return { ticket, laneAddress: server.address };
  }

  /** Waits for the bytes outside the lock (they come through it from nobody), and settles under it. */
  async store(caller: Caller, target: PeerTarget, request: StoreRequest): Promise<StoreResult> {
    const { session, missing } = await this.terms.inTerm(caller, target, async (row) => {
      await this.checkReserve(0);
      const session = this.session(row);
      return { session, missing: checkedUnits(request).filter(({ index }) => !session.isKept(index)) };
    });
    await session.received(
      request.lane,
      missing.map(({ index }) => index),
    );
    return this.terms.inTerm(caller, target, async (row) => {
      const { good, damaged } = await session.settle(missing, request.verification);
      this.recordStored(row, good);
      session.keep(good);
      const verified = weakestOf(good.map((unit) => unit.verified)) ?? request.verification;
      const done = request.units.map(({ index }) => index).filter((index) => !damaged.includes(index));
      return { stored: done, damaged, verified };
    });
  }

  /** The open session; throws `StreamTorn` before the freeze, or when it was closed. */
  session(row: MigratedRow): StagingSession {
    const session = this.sessions.get(row.uid);
    if (session === undefined)
      throw new LongshoreError("StreamTorn", `${row.name} is not open for storing; freeze it first`);
    return session;
  }

  /** Lanes closed, writes joined, image closed: nothing of the old term can write any more. */
  async endSession(uid: string): Promise<void> {
    await closeLanes(this.core, uid);
    const session = this.sessions.get(uid);
    const check = this.checks.get(uid);
    this.sessions.delete(uid);
    this.checks.delete(uid);
    this.publishedMs.delete(uid);
    await session?.close();
    await check?.stop();
  }

  /** The image goes first: a row without image is made again, an image without row would be quarantined. */
  async drop(row: MigratedRow, staging: StagingRow): Promise<void> {
    const { journal, storage } = this.core;
    await this.endSession(row.uid);
    await this.makings.get(planKey(staging))?.stop();
    this.makings.delete(planKey(staging));
    const isPointFile = pointsOf(journal, row.uid).some(
      (point) => point.file === staging.toId && point.state !== "lost",
    );
    if (!isPointFile) await storage.deletePoint(row.uid, staging.toId);
    journal.transaction(() => this.forget(row));
  }

  /** Within a transaction: the rows of a plan that became a point, or was given up. */
  forget(row: MigratedRow): void {
    const staging = this.migrated.staging(row.uid);
    if (staging !== undefined) this.distrust(staging);
    this.migrated.forgetStaging(row);
  }

  /** Drops the staging of a volume without term when nobody went on with it for too long. */
  async dropOld(stale: MigratedRow): Promise<void> {
    await this.core.lock.run(migratedLockKey(stale), async () => {
      const row = this.migrated.byUid(stale.uid);
      const staging = this.migrated.staging(stale.uid);
      if (row?.isTermLive !== 0 || staging === undefined || !this.isOld(staging)) return;
      if (this.migrated.vote(row.uid) !== undefined) return;
      await this.drop(row, staging);
      this.core.log.info({ migratedVolume: row.name, point: staging.toId }, "staging nobody went on with is dropped");
    });
  }

  /** So is one that was touched far in the future: the wall clock was set back since, and it would stay until then. */
  isOld(staging: StagingRow): boolean {
    return Math.abs(this.core.clock.nowMs() - staging.touchedAt) > this.core.limits.stagingAgeMs;
  }

  async close(): Promise<void> {
    for (const uid of new Set([...this.sessions.keys(), ...this.checks.keys()])) await this.endSession(uid);
    await Promise.all([...this.makings.values()].map((making) => making.stop()));
  }

  // ---- the image ---------------------------------------------------------------------------------------------------

  /** What has to end before, if there is anything. */
  private async openSession(row: MigratedRow, staging: StagingRow, header: PlanHeader): Promise<Underway | undefined> {
    if (this.sessions.has(row.uid)) return undefined;
    const check = this.checks.get(row.uid);
    const making = this.makings.get(planKey(staging));
    const underway = [check, making].find((one) => one !== undefined && one.result === undefined);
    if (underway !== undefined) return underway;
    if (check !== undefined) return this.conclude(row, staging, check);
    const units = this.plans.units(row.uid);
    await this.checkReserve(this.bytesMissing(row, staging, { header, units }));
    const image = await this.openImage(row, staging);
    if (image instanceof StagingMaking) return image;
    const session = new StagingSession(image, units);
    const stored = this.storedUnits(row.uid);
    if (stored.length > 0 && !this.trusted.has(planKey(staging))) {
      const check = new StagingCheck(session, { stored, found: this.foundIn(staging) });
      this.checks.set(row.uid, check);
      return check;
    }
    this.begin(row, staging, session);
    return undefined;
  }

  /** What is recorded as stored is there: the session takes the rest. */
  private begin(row: MigratedRow, staging: StagingRow, session: StagingSession): void {
    session.keep(this.storedUnits(row.uid));
    this.trusted.add(planKey(staging));
    this.found.delete(planKey(staging));
    this.sessions.set(row.uid, session);
  }

  /**
   * Opens what was read again, or has it made again. Throws why reading failed: the next freeze reads what was not found to be right
   * by then.
   */
  private async conclude(
    row: MigratedRow,
    staging: StagingRow,
    { session, result }: StagingCheck,
  ): Promise<StagingMaking | undefined> {
    this.checks.delete(row.uid);
    if (result?.kind === "right") {
      this.begin(row, staging, session);
      return undefined;
    }
    await session.close();
    if (result?.kind === "failed") throw result.error;
    this.core.log.error({ migratedVolume: row.name }, "stored units did not survive; the staging image is made again");
    return this.makeImage(row, staging);
  }

  private async patiently({ done }: Underway): Promise<void> {
    const { clock, limits, tasks } = this.core;
    const over = new AbortController();
    const waited = clock.sleep(
      Math.min(freezeWaitMs, limits.leaseMs / 3),
      AbortSignal.any([over.signal, tasks.signal]),
    );
    await Promise.race([done, waited.catch(() => undefined)]);
    over.abort();
  }

  private foundIn(staging: StagingRow): Set<number> {
    const found = this.found.get(planKey(staging)) ?? new Set<number>();
    this.found.set(planKey(staging), found);
    return found;
  }

  private distrust(staging: StagingRow): void {
    this.trusted.delete(planKey(staging));
    this.found.delete(planKey(staging));
  }

  private bytesMissing(
    row: MigratedRow,
    staging: StagingRow,
    { header, units }: { header: PlanHeader; units: UnitList },
  ): number {
    if (staging.isMade === 0) return header.bytesData;
    const stored = this.migrated.storedIndexes(row.uid);
    return stored.reduce((bytes, index) => bytes - units.dataBytesOf(index), header.bytesData);
  }

  /** The image, or that it is being made. Throws why the last try at that failed. */
  private async openImage(row: MigratedRow, staging: StagingRow): Promise<Staging | StagingMaking> {
    const { storage } = this.core;
    if (this.isMadeNow(staging) || staging.isMade === 1) {
      try {
        return await storage.openStaging(row.uid, staging.toId, staging.sizeBytes);
      } catch (error) {
        if (codeOf(error) !== "PointGone") throw error;
        const about = { migratedVolume: row.name, point: staging.toId };
        this.core.log.error(about, "the staging image vanished; it is made again");
      }
    }
    return this.makeImage(row, staging);
  }

  /** Records what was made for this very plan since the last freeze. */
  private isMadeNow(staging: StagingRow): boolean {
    const { journal } = this.core;
    const making = this.makings.get(planKey(staging));
    this.makings.delete(planKey(staging));
    if (making?.result?.kind === "failed") throw making.result.error;
    if (making === undefined) return false;
    journal.transaction(() => journal.run("UPDATE staging SET isMade = 1 WHERE owner = ?", staging.owner));
    return true;
  }

  /** Begins to make the image; it counts once it is made, and the next freeze has recorded that. */
  private makeImage(row: MigratedRow, staging: StagingRow): StagingMaking {
    const { journal, storage } = this.core;
    // Rows of units go before the image they were stored in is replaced: they must never vouch for another one.
    this.distrust(staging);
    journal.transaction(() => {
      journal.run("DELETE FROM storedUnits WHERE owner = ?", row.uid);
      journal.run("UPDATE staging SET isMade = 0 WHERE owner = ?", row.uid);
    });
    const gone = (cause?: unknown) =>
      new LongshoreError("PlanMismatch", `the base ${staging.baseId} of ${row.name} is gone`, { cause });
    const base = plannedBase(this.core, row.uid, headerOf(staging));
    if (staging.baseId !== null && base?.state !== "sealed") throw gone();
    const making = new StagingMaking(async (signal) => {
      try {
        await storage.stage(row.uid, staging.toId, base && basePoint(base), staging.sizeBytes, signal);
      } catch (error) {
        if (codeOf(error) !== "PointGone" || base === undefined) throw error;
        markLost(this.core, base);
        throw gone(error);
      }
    });
    this.makings.set(planKey(staging), making);
    return making;
  }

  private async checkReserve(bytes: number): Promise<void> {
    const { freeBytes } = await this.core.storage.space();
    const neededBytes = bytes + this.core.limits.reserveBytes;
    if (freeBytes >= neededBytes) return;
    throw new LongshoreError(
      "DiskFull",
      `the target has ${freeBytes} bytes free, and needs ${neededBytes} with its reserve`,
    );
  }

  // ---- stored units ------------------------------------------------------------------------------------------------

  private storedUnits(uid: string): StoredUnit[] {
    return this.core.journal.all<StoredUnit>("SELECT unit, digest, verified FROM storedUnits WHERE owner = ?", uid);
  }

  private recordStored(row: MigratedRow, units: readonly StoredUnit[]): void {
    const { journal } = this.core;
    journal.transaction(() => {
      for (const { unit, digest, verified } of units) {
        journal.run(
          "INSERT OR REPLACE INTO storedUnits (owner, unit, digest, verified) VALUES (?,?,?,?)",
          row.uid,
          unit,
          digest,
          verified,
        );
      }
      journal.run("UPDATE staging SET touchedAt = ? WHERE owner = ?", this.core.clock.nowMs(), row.uid);
      this.migrated.touch(row.uid);
    });
    this.progressed(row.uid);
  }

  /** Whoever follows has all units counted for each telling; what comes after the last one is told with the end of the term. */
  private progressed(uid: string): void {
    const nowMs = this.core.clock.monotonicMs();
    if (nowMs - (this.publishedMs.get(uid) ?? Number.NEGATIVE_INFINITY) < publishIntervalMs) return;
    this.publishedMs.set(uid, nowMs);
    this.migrated.published(uid);
  }
}

/**
 * What the next plan for a copy with these points most likely starts from: the newest. Where that one came without changes,
 * and so without a file of its own, the next one may as well, and none is named.
 */
export function likelyBase(points: readonly PointRow[]): PointRow | undefined {
  const newest = points.findLast(({ state }) => state === "sealed");
  return newest?.file === newest?.pointId ? newest : undefined;
}

function isUnderway(frozen: FreezeResult | Underway): frozen is Underway {
  return frozen instanceof StagingCheck || frozen instanceof StagingMaking;
}

function planKey(staging: StagingRow): string {
  return `${staging.owner} ${staging.planDigest}`;
}

function checkedUnits({ units }: StoreRequest): StoreRequest["units"] {
  if (new Set(units.map(({ index }) => index)).size === units.length) return units;
  throw new LongshoreError("BadRequest", "a unit is named twice in one request to store");
}
