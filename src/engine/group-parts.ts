// This agent's parts of group snapshots: its volumes are frozen, snapshotted and thawed as the coordinator of the snapshot says
// (group-snapshots.ts), and count only when that confirms it. What is frozen is known in memory alone: after a start nothing is.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { FrozenVolume } from "../storage/backend.ts";
import type { FreezeRequest, FrozenRef, GroupSnapshotPart, Holdings, HoldingsRequest, Thawed } from "../wire/member.ts";
import type { SnapshotView } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import { claimedLineage } from "./lineage.ts";
import { type PointRow, pointsOf, readHolds } from "./points.ts";
import { isUnconfirmed, observeStall } from "./snapshots.ts";
import { type VolumeRow, volumeLockKey } from "./volume-rows.ts";
import type { Volumes } from "./volumes.ts";

/** How many answers to thaws are kept for those who ask again. */
const thawsKept = 1000;

/** The volumes here that are held up for one group point, and locked against all other changes meanwhile. */
interface Round {
  readonly group: string;
  readonly frozen: Map<VolumeRow, FrozenVolume>;
  readonly locks: (() => void)[];
  /** Settles when all are frozen, or none. */
  ready: Promise<void>;
  /** Settles when no snapshot is under way. */
  work: Promise<unknown>;
  ended: Promise<Thawed> | undefined;
}

export class GroupParts {
  private readonly core: Core;
  private readonly volumes: Volumes;
  private readonly rounds = new Map<string, Round>();
  /** By group point; what has ended cannot begin again, however late a call arrives. */
  private readonly thaws = new Map<string, Thawed>();

  constructor(core: Core, parts: { volumes: Volumes }) {
    this.core = core;
    this.volumes = parts.volumes;
  }

  /** See MemberApi.holdings. */
  async holdings({ volumes, groupPoint }: HoldingsRequest): Promise<Holdings> {
    const withPoint = groupPoint === undefined ? [] : this.partsOf(groupPoint).map(({ row }) => row.name);
    const found = [...new Set([...volumes, ...withPoint])].flatMap((name) => {
      const row = this.volumes.find(name);
      if (row?.state !== "ready") return [];
      const points = pointsOf(this.core.journal, row.uid).filter((point) => point.groupPoint !== null);
      const holds = readHolds(this.core.journal, row.uid);
      const snapshots = points.map((point) => this.volumes.snapshots.view(name, point, holds));
      return [{ name, uid: row.uid, snapshots, ...claimedLineage(row) }];
    });
    return { volumes: found };
  }

  /** See MemberApi.freeze. */
  async freeze(request: FreezeRequest): Promise<void> {
    const { group, groupPoint } = request;
    const known = this.rounds.get(groupPoint);
    if (known !== undefined) return known.ready;
    if (this.thaws.has(groupPoint)) throw new LongshoreError("Conflict", `group point ${groupPoint} is over`);
    const round: Round = {
      group,
      frozen: new Map(),
      locks: [],
      ready: Promise.resolve(),
      work: Promise.resolve(),
      ended: undefined,
    };
    this.rounds.set(groupPoint, round);
    round.ready = this.begin(round, request);
    try {
      await round.ready;
    } catch (error) {
      await this.end(groupPoint, round, false);
      throw error;
    }
    this.core.tasks.spawn(`thaw group point ${groupPoint}`, async (signal) => {
      try {
        await this.core.clock.sleep(request.timeoutMs, signal);
      } finally {
        await this.end(groupPoint, round, false);
      }
    });
  }

  /** See MemberApi.snapshotFrozen. */
  async snapshotFrozen({ group, groupPoint, name }: GroupSnapshotPart): Promise<void> {
    const round = this.rounds.get(groupPoint);
    await round?.ready;
    if (round === undefined || round.ended !== undefined) {
      throw new LongshoreError("Conflict", `nothing is frozen here for group point ${groupPoint}`);
    }
    // One after the other: a repeat that comes while the first is under way must find its snapshots, not half of them.
    const taking = round.work.then(() => this.take(round, { group, groupPoint, name }));
    round.work = Promise.allSettled([taking]);
    await taking;
  }

  private async take(round: Round, { group, groupPoint, name }: GroupSnapshotPart): Promise<void> {
    if (round.ended !== undefined) throw new LongshoreError("Conflict", `group point ${groupPoint} is being thawed`);
    const snapshots = [...round.frozen.keys()].map((row) =>
      this.volumes.snapshots.takePart(row, name, { group, groupPoint }),
    );
    await Promise.allSettled(snapshots);
    await Promise.all(snapshots);
  }

  /** See MemberApi.thaw. */
  async thaw({ groupPoint }: FrozenRef): Promise<Thawed> {
    const round = this.rounds.get(groupPoint);
    return round === undefined ? this.thawOf(groupPoint) : this.end(groupPoint, round, true);
  }

  /** See MemberApi.confirmGroup. */
  async confirm({ group, groupPoint }: GroupSnapshotPart): Promise<{ snapshots: SnapshotView[] }> {
    const { journal, feed, log } = this.core;
    const confirmed = journal.transaction(() => {
      const parts = this.partsOf(groupPoint);
      const isWhole = parts.every(({ point }) => point.isValid === 1 || isUnconfirmed(point));
      if (parts.length === 0 || !isWhole) {
        throw new LongshoreError("SnapshotGone", `the parts of group point ${groupPoint} were dropped here`);
      }
      const pending = parts.filter(({ point }) => isUnconfirmed(point));
      for (const { point } of pending) this.volumes.snapshots.confirm(point);
      return pending;
    });
    for (const { row, point } of confirmed) {
      feed.publish("volume", row.name);
      const about = { volume: row.name, snapshot: point.name, point: point.pointId, stallMs: point.stallMs };
      log.info({ ...about, group, groupPoint }, "snapshot taken");
    }
    return {
      snapshots: this.partsOf(groupPoint).map(({ row, point }) => this.volumes.snapshots.view(row.name, point)),
    };
  }

  /** See MemberApi.discardGroup. */
  async discard({ groupPoint }: GroupSnapshotPart): Promise<void> {
    const round = this.rounds.get(groupPoint);
    if (round !== undefined) await this.end(groupPoint, round, false);
    // A freeze that is still on its way comes too late.
    else this.thawOf(groupPoint);
    // None can be confirmed from here on: a confirmation that comes between two of them must not find what is left for all.
    const parts = this.core.journal.transaction(() => {
      const found = this.partsOf(groupPoint);
      if (found.some(({ point }) => point.isValid === 1)) {
        throw new LongshoreError("Conflict", `group point ${groupPoint} was confirmed; its snapshots stay`);
      }
      return found.filter(({ point }) => this.volumes.snapshots.giveUp(point));
    });
    for (const { row, point } of parts) {
      await this.core.lock.run(volumeLockKey(row.name), () => this.volumes.snapshots.drop(point));
    }
  }

  /** Group points with parts here that were neither confirmed nor dropped, and are not being taken now. */
  leftovers(): { readonly group: string; readonly groupPoint: string; readonly name: string }[] {
    const rows = this.core.journal.all<PointRow>(
      "SELECT * FROM points WHERE state = 'creating' AND isValid = 0 AND groupPoint IS NOT NULL GROUP BY groupPoint",
    );
    return rows.flatMap(({ groupName, groupPoint, name }) =>
      groupName === null || groupPoint === null || name === null || this.rounds.has(groupPoint)
        ? []
        : [{ group: groupName, groupPoint, name }],
    );
  }

  /** Thaws everything. */
  async close(): Promise<void> {
    await Promise.all([...this.rounds].map(([groupPoint, round]) => this.end(groupPoint, round, false)));
  }

  private async begin(round: Round, { volumes, timeoutMs }: FreezeRequest): Promise<void> {
    this.core.members.checkPresent();
    await this.volumes.checkReserve(0);
    for (const name of volumes) await this.lock(round, name);
    // Under their locks: nothing else changes them from here on.
    const rows = volumes.map((name) => this.volumes.row(name));
    const freezes = rows.map(async (row) => {
      round.frozen.set(row, await this.core.storage.freeze(row.uid, timeoutMs));
    });
    await Promise.allSettled(freezes);
    await Promise.all(freezes);
  }

  /** Does not wait for others: applications that are held up already would wait too. */
  private async lock(round: Round, name: string): Promise<void> {
    const { lock } = this.core;
    if (!lock.isFree(volumeLockKey(name))) {
      throw new LongshoreError("VolumeBusy", `volume ${name} is being snapshotted or changed; try again`);
    }
    const taken = Promise.withResolvers<void>();
    const released = Promise.withResolvers<void>();
    const held = lock.run(volumeLockKey(name), () => {
      taken.resolve();
      return released.promise;
    });
    round.locks.push(() => released.resolve());
    await Promise.race([taken.promise, held]);
  }

  private end(groupPoint: string, round: Round, isAsked: boolean): Promise<Thawed> {
    round.ended ??= this.thawRound(groupPoint, round, isAsked);
    return round.ended;
  }

  private async thawRound(groupPoint: string, round: Round, isAsked: boolean): Promise<Thawed> {
    const isReady = await round.ready.then(
      () => true,
      () => false,
    );
    const thaws = await Promise.allSettled(
      [...round.frozen].map(async ([row, frozen]) => ({ row, frozen, ...(await frozen.thaw()) })),
    );
    const done = thaws.flatMap((thaw) => (thaw.status === "fulfilled" ? [thaw.value] : []));
    for (const { reason } of thaws.filter((thaw) => thaw.status === "rejected")) {
      this.core.log.error({ err: reason, group: round.group, groupPoint }, "a volume could not be thawed");
    }
    await round.work;
    const mounted = done.filter(({ frozen }) => frozen.isMounted);
    try {
      for (const { row, frozenMs } of mounted) this.recordStall(row, groupPoint, frozenMs);
    } catch (error) {
      // Such as a full disk: it is a figure for people, and no reason to keep the volumes locked.
      this.core.log.error({ err: error, groupPoint }, "how long writers were held up could not be recorded");
    }
    for (const release of round.locks) release();
    this.rounds.delete(groupPoint);
    return this.thawOf(groupPoint, {
      wasFrozen: isAsked && isReady && done.length === thaws.length && done.every(({ wasFrozen }) => wasFrozen),
      frozenMs: Math.max(0, ...mounted.map(({ frozenMs }) => frozenMs)),
    });
  }

  private recordStall(row: VolumeRow, groupPoint: string, frozenMs: number): void {
    const { journal } = this.core;
    observeStall(this.core, frozenMs);
    journal.transaction(() =>
      journal.run(
        "UPDATE points SET stallMs = ? WHERE owner = ? AND groupPoint = ? AND isValid = 0",
        frozenMs,
        row.uid,
        groupPoint,
      ),
    );
  }

  /** The answer given before, or this one from now on; that of a group point nobody froze here is that it was not frozen. */
  private thawOf(groupPoint: string, thawed: Thawed = { wasFrozen: false, frozenMs: 0 }): Thawed {
    const known = this.thaws.get(groupPoint);
    if (known !== undefined) return known;
    this.thaws.set(groupPoint, thawed);
    const [oldest] = this.thaws.keys();
    if (this.thaws.size > thawsKept && oldest !== undefined) this.thaws.delete(oldest);
    return thawed;
  }

  /** Of volumes; what has arrived from elsewhere may have group points as well. */
  private partsOf(groupPoint: string): { row: VolumeRow; point: PointRow }[] {
    const { journal } = this.core;
    const points = journal.all<PointRow>("SELECT * FROM points WHERE groupPoint = ? ORDER BY owner", groupPoint);
    return points.flatMap((point) => {
      const row = journal.get<VolumeRow>("SELECT * FROM volumes WHERE uid = ?", point.owner);
      return row === undefined ? [] : [{ row, point }];
    });
  }
}

/** Whether the answer of a member means that its parts can no longer be confirmed. */
export function isGone(error: unknown): boolean {
  return codeOf(error) === "SnapshotGone";
}
