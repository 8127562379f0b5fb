// Migrated volumes as rows: what has arrived from other clusters, and how the API shows it. Changes of state are made in
// decisions.ts (the migration) and clones.ts; this file reads, and deletes a whole migrated volume on request.
import { LongshoreError } from "../domain/errors.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { PlanHeader } from "../wire/peer.ts";
import type { MigratedPoint, MigratedVolumeView } from "../wire/schemas.ts";
import { type Core, checkRevision, closeLanes, timeText } from "./core.ts";
import { releaseOriginal } from "./lineage.ts";
import { type Holds, type PointRow, pointsOf, readHolds, sweep } from "./points.ts";

export interface MigratedRow {
  readonly uid: string;
  readonly name: string;
  readonly source: string;
  readonly clusterUid: string;
  readonly clusterName: string;
  readonly volumeUid: string;
  readonly volumeName: string;
  readonly metadataJson: string;
  readonly sizeBytes: number;
  readonly deleting: number;
  readonly frozenSince: number | null;
  readonly diverged: number;
  readonly generationMax: number;
  readonly epoch: number;
  readonly nonce: string;
  readonly claimant: string;
  readonly job: string;
  readonly isTermLive: number;
  /** The group whose term it has, or had last, and the agent that decides for it; null for a term of its own. */
  readonly groupName: string | null;
  readonly groupHome: string | null;
  /** As the source told it with its last claim; see affinity.ts. */
  readonly affinity: string | null;
  readonly revision: number;
}

/** A member's vote: what is sealed becomes a point, or not, as the group home decides. */
export interface VoteRow {
  readonly owner: string;
  readonly groupPoint: string;
  /** The one it was given under. */
  readonly epoch: number;
  readonly requestJson: string;
  readonly sealedJson: string;
}

export interface StagingRow {
  readonly owner: string;
  readonly toId: string;
  readonly baseId: string | null;
  readonly planDigest: string;
  readonly headerJson: string;
  /** All pages of the plan are here and their digest matches. */
  readonly isPlanned: number;
  /** The image exists. */
  readonly isMade: number;
  readonly sizeBytes: number;
  readonly touchedAt: number;
}

/** The lock under which everything that changes a migrated volume runs. */
export function migratedLockKey(row: Pick<MigratedRow, "clusterUid" | "volumeUid">): string {
  return `migrated ${row.clusterUid}/${row.volumeUid}`;
}

export class MigratedVolumes {
  private readonly core: Core;
  /** Those that have voted, and whose group home does not answer, or has not decided in time. */
  private readonly undecided = new Set<string>();

  constructor(core: Core) {
    this.core = core;
  }

  rows(): MigratedRow[] {
    return this.core.journal.all<MigratedRow>("SELECT * FROM migrated ORDER BY name");
  }

  byUid(uid: string): MigratedRow | undefined {
    return this.core.journal.get<MigratedRow>("SELECT * FROM migrated WHERE uid = ?", uid);
  }

  bySource(clusterUid: string, volumeUid: string): MigratedRow | undefined {
    return this.core.journal.get<MigratedRow>(
      "SELECT * FROM migrated WHERE clusterUid = ? AND volumeUid = ?",
      clusterUid,
      volumeUid,
    );
  }

  /** Throws `NotFound`. */
  row(name: string): MigratedRow {
    const row = this.core.journal.get<MigratedRow>("SELECT * FROM migrated WHERE name = ?", name);
    if (row === undefined || row.deleting === 1) {
      throw new LongshoreError("NotFound", `migrated volume ${name} does not exist`);
    }
    return row;
  }

  staging(uid: string): StagingRow | undefined {
    return this.core.journal.get<StagingRow>("SELECT * FROM staging WHERE owner = ?", uid);
  }

  storedUnits(uid: string): number {
    return this.core.journal.get<{ n: number }>("SELECT count(*) AS n FROM storedUnits WHERE owner = ?", uid)?.n ?? 0;
  }

  storedIndexes(uid: string): number[] {
    return this.core.journal
      .all<{ unit: number }>("SELECT unit FROM storedUnits WHERE owner = ? ORDER BY unit", uid)
      .map(({ unit }) => unit);
  }

  /** Bytes that first copies under way are still going to take: what their plans have left, or all of their volumes. */
  bytesExpected(): number {
    const rows = this.core.journal.all<MigratedRow>(
      `SELECT * FROM migrated WHERE deleting = 0
       AND NOT EXISTS (SELECT 1 FROM points WHERE points.owner = migrated.uid AND points.state = 'sealed')
       AND (isTermLive = 1 OR EXISTS (SELECT 1 FROM staging WHERE staging.owner = migrated.uid))`,
    );
    return rows.reduce((sum, row) => sum + this.bytesLeft(row), 0);
  }

  private bytesLeft({ uid, sizeBytes }: MigratedRow): number {
    const staging = this.staging(uid);
    if (staging === undefined) return sizeBytes;
    const header = JSON.parse(staging.headerJson) as PlanHeader;
    return Math.max(0, header.bytesData - this.bytesStored(uid, header));
  }

  vote(uid: string): VoteRow | undefined {
    return this.core.journal.get<VoteRow>("SELECT * FROM votes WHERE owner = ?", uid);
  }

  /** Those that have voted and do not know yet what was decided. */
  voted(): MigratedRow[] {
    return this.core.journal.all<MigratedRow>("SELECT * FROM migrated WHERE uid IN (SELECT owner FROM votes)");
  }

  isUndecided(uid: string): boolean {
    return this.undecided.has(uid);
  }

  /** Shows, or no longer shows, that a vote waits for a decision that does not come. */
  setUndecided(uid: string, isUndecided: boolean): void {
    if (this.undecided.has(uid) === isUndecided) return;
    if (isUndecided) this.undecided.add(uid);
    else this.undecided.delete(uid);
    this.core.journal.transaction(() => this.touch(uid));
    this.published(uid);
  }

  /** Those a coordinator holds a term of. */
  inTerm(): MigratedRow[] {
    return this.core.journal.all<MigratedRow>("SELECT * FROM migrated WHERE isTermLive = 1");
  }

  /** Those with a staging image, or with the plan of one. */
  staged(): { row: MigratedRow; staging: StagingRow }[] {
    return this.core.journal.all<StagingRow>("SELECT * FROM staging").flatMap((staging) => {
      const row = this.byUid(staging.owner);
      return row === undefined ? [] : [{ row, staging }];
    });
  }

  /** Throws `NotFound`. */
  require(uid: string): MigratedRow {
    const row = this.byUid(uid);
    if (row === undefined) throw new LongshoreError("NotFound", `migrated volume ${uid} does not exist`);
    return row;
  }

  published(uid: string): void {
    const row = this.byUid(uid);
    if (row !== undefined) this.core.feed.publish("migratedVolume", row.name);
  }

  /** Committed points that were not found missing, oldest first. */
  points(uid: string): PointRow[] {
    return pointsOf(this.core.journal, uid).filter((point) => point.state === "sealed" && point.released === 0);
  }

  list(): MigratedVolumeView[] {
    const holds = readHolds(this.core.journal);
    return this.rows()
      .filter((row) => row.deleting === 0)
      .map((row) => this.view(row, holds));
  }

  get(name: string): MigratedVolumeView {
    return this.view(this.row(name));
  }

  /** Within a transaction: the view changed. */
  touch(uid: string): void {
    this.core.journal.run("UPDATE migrated SET revision = revision + 1 WHERE uid = ?", uid);
  }

  /** See AgentApi.removeMigratedVolume. `drop` ends whatever is at work on what is staged, and removes it. */
  async remove(
    name: string,
    { ifMatch }: Precondition,
    drop: (row: MigratedRow, staging: StagingRow) => Promise<void>,
  ): Promise<void> {
    const { core } = this;
    const found = core.journal.get<MigratedRow>("SELECT * FROM migrated WHERE name = ?", name);
    if (found === undefined) return;
    await core.lock.run(migratedLockKey(found), async () => {
      const row = this.byUid(found.uid);
      if (row === undefined) return;
      checkRevision(`migrated volume ${name}`, row.revision, ifMatch);
      const waiting = core.journal.all<{ name: string }>(
        "SELECT name FROM clones WHERE migrated = ? AND state = 'Waiting'",
        row.uid,
      );
      core.journal.transaction(() => this.markDeleting(row));
      for (const clone of waiting) core.feed.publish("clone", clone.name);
      core.feed.publish("migratedVolume", name);
      const staging = this.staging(row.uid);
      if (staging !== undefined) await drop(row, staging);
      await this.finishRemoval(row);
      core.feed.publish("migratedVolume", name);
    });
  }

  /** Within a transaction: the rows of a plan that became a point, or was given up, and its hold on an original's point. */
  forgetStaging({ uid, name }: Pick<MigratedRow, "uid" | "name">): void {
    const staging = this.staging(uid);
    if (staging !== undefined) releaseOriginal(this.core, name, JSON.parse(staging.headerJson) as PlanHeader);
    for (const table of ["storedUnits", "planPages", "staging"]) {
      this.core.journal.run(`DELETE FROM ${table} WHERE owner = ?`, uid);
    }
  }

  /** Goes on with what {@link remove} began. */
  async finishRemoval(row: MigratedRow): Promise<void> {
    const { core } = this;
    await closeLanes(core, row.uid);
    const staging = this.staging(row.uid);
    if (staging !== undefined) await core.storage.deletePoint(row.uid, staging.toId);
    await sweep(core, row.uid);
    await core.storage.remove(row.uid);
    core.journal.transaction(() => {
      this.forgetStaging(row);
      for (const table of ["commits", "bases"]) core.journal.run(`DELETE FROM ${table} WHERE owner = ?`, row.uid);
      core.journal.run("DELETE FROM migrated WHERE uid = ?", row.uid);
    });
    core.log.info({ migratedVolume: row.name }, "migrated volume deleted");
  }

  private markDeleting(row: MigratedRow): void {
    const { journal } = this.core;
    if (this.vote(row.uid) !== undefined) {
      throw new LongshoreError(
        "Undecided",
        `${row.name} has voted with group ${row.groupName}, and awaits its decision`,
      );
    }
    if (row.frozenSince !== null) {
      throw new LongshoreError("Frozen", `migrated volume ${row.name} receives job ${row.job}; cancel it first`);
    }
    const hold = journal.get<{ holder: string }>(
      "SELECT holder FROM holds WHERE owner = ? AND reason = 'clone'",
      row.uid,
    );
    if (hold !== undefined) throw new LongshoreError("InUse", `${row.name} is being cloned to ${hold.holder}`);
    journal.run("UPDATE migrated SET deleting = 1, isTermLive = 0, revision = revision + 1 WHERE uid = ?", row.uid);
    journal.run("DELETE FROM holds WHERE owner = ?", row.uid);
    journal.run("UPDATE points SET released = 1 WHERE owner = ?", row.uid);
    journal.run("DELETE FROM clones WHERE migrated = ? AND state = 'Waiting'", row.uid);
  }

  view(row: MigratedRow, holds: Holds = readHolds(this.core.journal, row.uid)): MigratedVolumeView {
    const points = pointsOf(this.core.journal, row.uid).filter((point) => point.released === 0);
    const waiting = this.core.journal.get<{ n: number }>(
      "SELECT count(*) AS n FROM clones WHERE migrated = ? AND state = 'Waiting'",
      row.uid,
    );
    const isEmpty = !points.some((point) => point.state === "sealed");
    return {
      name: row.name,
      source: row.source,
      sourceClusterUid: row.clusterUid,
      sourceClusterName: row.clusterName,
      sourceVolumeUid: row.volumeUid,
      sourceVolumeName: row.volumeName,
      metadata: JSON.parse(row.metadataJson),
      sizeBytes: row.sizeBytes,
      home: this.core.agentId,
      state: this.stateOf(row, isEmpty),
      ...(row.groupName !== null && row.groupHome !== null && { group: { name: row.groupName, home: row.groupHome } }),
      diverged: row.diverged === 1,
      transfer: this.transfer(row),
      points: points.map((point) => pointView(point, holds)),
      waitingClones: waiting?.n ?? 0,
      revision: row.revision,
    };
  }

  private stateOf(row: MigratedRow, isEmpty: boolean): MigratedVolumeView["state"] {
    if (row.frozenSince !== null) return this.isUndecided(row.uid) ? "Undecided" : "Frozen";
    return isEmpty ? "Empty" : "Available";
  }

  /** What is arriving now; null unless frozen. */
  transfer(row: MigratedRow): MigratedVolumeView["transfer"] {
    const staging = this.staging(row.uid);
    if (row.frozenSince === null || staging === undefined) return null;
    const header = JSON.parse(staging.headerJson) as PlanHeader;
    return {
      job: row.job,
      epoch: row.epoch,
      since: timeText(row.frozenSince),
      to: header.to,
      bytesTotal: header.bytesData,
      bytesStored: Math.min(header.bytesData, this.bytesStored(row.uid, header)),
    };
  }

  /** Units are of nearly one size, so their share tells the bytes without reading the plan. */
  private bytesStored(uid: string, header: PlanHeader): number {
    return header.unitCount === 0 ? 0 : Math.floor((header.bytesData * this.storedUnits(uid)) / header.unitCount);
  }
}

function pointView(row: PointRow, holds: Holds): MigratedPoint {
  return {
    pointId: row.pointId,
    generation: row.generation,
    sourceTime: timeText(row.sourceTime),
    committedAt: timeText(row.committedAt ?? row.sourceTime),
    sizeBytes: row.sizeBytes,
    state: row.state === "creating" ? "lost" : row.state,
    verified: row.verified ?? "memory",
    ...(row.groupPoint !== null && { groupPoint: row.groupPoint }),
    holds: holds(row),
  };
}
