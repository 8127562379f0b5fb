// Rows of sealed images, and the holds ledger: why a point may not be deleted yet. Taking a hold and marking a point
// `deleting` are transactions on the same row, so a point is never deleted under somebody who was told it is kept.

import { assert } from "../base/assert.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { Verification } from "../domain/verification.ts";
import type { BasePoint, SealedPoint } from "../storage/backend.ts";
import type { Hold, PointRef } from "../wire/schemas.ts";
import { type Core, timeText } from "./core.ts";
import type { Journal } from "./journal.ts";

export interface PointRow {
  readonly owner: string;
  readonly pointId: string;
  readonly name: string | null;
  readonly generation: number;
  readonly state: "creating" | "sealed" | "deleting" | "lost";
  /** The point whose file holds this one's bytes: its own id, or an earlier one's after an empty delta. */
  readonly file: string;
  readonly sizeBytes: number;
  readonly sourceTime: number;
  readonly committedAt: number | null;
  readonly inode: string | null;
  readonly fsUuid: string | null;
  readonly stallMs: number;
  readonly released: number;
  readonly verified: Verification | null;
  /** The group it was taken, or committed, with; `groupPoint` is shared by all that were. */
  readonly groupName: string | null;
  readonly groupPoint: string | null;
  /** 0 while it is a snapshot of a group that may still turn out not to be of one moment; it is `creating` then. */
  readonly isValid: number;
  /** Order of making within the owner; the only order that counts. */
  readonly position: number;
}

export type HoldReason = Hold["reason"];

export interface HoldKey {
  readonly owner: string;
  readonly pointId: string;
  readonly reason: HoldReason;
  readonly holder: string;
}

export function pointsOf(journal: Journal, owner: string): PointRow[] {
  return journal.all<PointRow>("SELECT * FROM points WHERE owner = ? ORDER BY position", owner);
}

export function pointOf(journal: Journal, owner: string, pointId: string): PointRow | undefined {
  return journal.get<PointRow>("SELECT * FROM points WHERE owner = ? AND pointId = ?", owner, pointId);
}

/** The position for the next point of an owner. */
export function nextPosition(journal: Journal, owner: string): number {
  const row = journal.get<{ next: number }>(
    "SELECT coalesce(max(position), 0) + 1 AS next FROM points WHERE owner = ?",
    owner,
  );
  return row?.next ?? 1;
}

/** The holds on points: of those of one owner or, for a listing, of all. */
export type Holds = (point: Pick<PointRow, "owner" | "pointId">) => Hold[];

/** As they are now, read at once however many points there are. */
export function readHolds(journal: Journal, owner?: string): Holds {
  const order = "ORDER BY reason, holder";
  const rows =
    owner === undefined
      ? journal.all<HoldRow>(`SELECT * FROM holds ${order}`)
      : journal.all<HoldRow>(`SELECT * FROM holds WHERE owner = ? ${order}`, owner);
  const byPoint = Map.groupBy(rows, keyOf);
  return (point) =>
    (byPoint.get(keyOf(point)) ?? []).map(({ reason, holder, since }) => ({
      reason,
      owner: holder,
      since: timeText(since),
    }));
}

interface HoldRow extends HoldKey {
  readonly since: number;
}

function keyOf({ owner, pointId }: Pick<PointRow, "owner" | "pointId">): string {
  return `${owner} ${pointId}`;
}

const holdRefusals = { creating: "Conflict", deleting: "SnapshotDeleting", lost: "PointGone" } as const;

/** Within a transaction. Taking a hold that is held already changes nothing; a point on its way out cannot be held. */
export function takeHold(core: Pick<Core, "journal" | "clock">, hold: HoldKey): void {
  const point = pointOf(core.journal, hold.owner, hold.pointId);
  if (point === undefined) throw new LongshoreError("SnapshotGone", `point ${hold.pointId} does not exist`);
  if (point.state !== "sealed") {
    const code = holdRefusals[point.state];
    throw new LongshoreError(code, `point ${hold.pointId} is ${point.state}; it cannot be held`);
  }
  core.journal.run(
    "INSERT INTO holds (owner, pointId, reason, holder, since) VALUES (?,?,?,?,?) ON CONFLICT DO NOTHING",
    hold.owner,
    hold.pointId,
    hold.reason,
    hold.holder,
    core.clock.nowMs(),
  );
}

/** Within a transaction. Dropping a hold that is not there changes nothing; {@link sweep} afterwards. */
export function dropHold(journal: Journal, hold: HoldKey): void {
  journal.run(
    "DELETE FROM holds WHERE owner = ? AND pointId = ? AND reason = ? AND holder = ?",
    hold.owner,
    hold.pointId,
    hold.reason,
    hold.holder,
  );
}

/** A sealed row as the storage backend wants it. */
export function sealedPoint(row: PointRow): SealedPoint {
  assert(row.inode !== null && row.fsUuid !== null, `point ${row.pointId} has no identity`);
  return { point: row.file, identity: { inode: row.inode, fsUuid: row.fsUuid, sizeBytes: row.sizeBytes } };
}

/** A sealed row as the base of a difference or of a staging image, whichever volume these are of. */
export function basePoint(row: PointRow): BasePoint {
  return { volume: row.owner, ...sealedPoint(row) };
}

export function pointRef(row: PointRow): PointRef {
  const { pointId, generation, sizeBytes } = row;
  return { pointId, generation, sizeBytes, sourceTime: timeText(row.sourceTime) };
}

/**
 * Deletes the released points of an owner that nothing holds: marked first, the file next, the row last, so that a crash
 * anywhere is finished by the next sweep. Points that are being made are not touched.
 */
export async function sweep(core: Core, owner: string): Promise<void> {
  const { journal } = core;
  journal.transaction(() =>
    journal.run(
      `UPDATE points SET state = 'deleting' WHERE owner = ? AND released = 1 AND state IN ('sealed','lost') AND NOT EXISTS
       (SELECT 1 FROM holds WHERE holds.owner = points.owner AND holds.pointId = points.pointId)`,
      owner,
    ),
  );
  for (const point of pointsOf(journal, owner).filter((row) => row.state === "deleting")) {
    // Another sweep may have deleted it meanwhile, and what has its name now may have come after that.
    if (pointOf(journal, owner, point.pointId)?.state !== "deleting") continue;
    const sharers = pointsOf(journal, owner).filter((row) => row.file === point.file && row.pointId !== point.pointId);
    if (sharers.length === 0) await core.storage.deletePoint(owner, point.file);
    journal.transaction(() =>
      journal.run("DELETE FROM points WHERE owner = ? AND pointId = ? AND state = 'deleting'", owner, point.pointId),
    );
    core.log.info({ owner, point: point.pointId, generation: point.generation }, "point deleted");
  }
}

/**
 * The points of an owner whose file is there and is the one that was sealed, oldest first; only those in `among`, if
 * given. One whose file is gone is marked `lost`: it is shown, never read, and never a base. One that is back (a disk
 * that was not mounted at the start) counts again.
 */
export async function presentPoints(core: Core, owner: string, among?: ReadonlySet<string>): Promise<PointRow[]> {
  const present: PointRow[] = [];
  for (const row of pointsOf(core.journal, owner)) {
    const isAsked = among === undefined || among.has(row.pointId);
    if (isAsked && (await isPresent(core, row))) present.push(row);
  }
  return present;
}

/** Whether a point is sealed and its file answers to its identity; `lost` is recorded, and taken back, accordingly. */
export async function isPresent(core: Core, row: PointRow): Promise<boolean> {
  if (row.state !== "sealed" && row.state !== "lost") return false;
  // It is being sent again. What is staged under its name, sealed perhaps, counts once it is committed and not before.
  if (row.state === "lost" && isStaged(core, row)) return false;
  if (!(await hasFile(core, row))) {
    markLost(core, row);
    return false;
  }
  if (row.state === "lost") setState(core, row, { from: "lost", to: "sealed" });
  return true;
}

/** Whether a point's file is there, and is the one that was sealed. */
export async function hasFile(core: Core, row: PointRow): Promise<boolean> {
  try {
    const reader = await core.storage.openPoint(row.owner, sealedPoint(row));
    await reader.close();
    return true;
  } catch (error) {
    if (codeOf(error) !== "PointGone") throw error;
    return false;
  }
}

function isStaged({ journal }: Core, { owner, file }: PointRow): boolean {
  return journal.get("SELECT 1 AS one FROM staging WHERE owner = ? AND toId = ?", owner, file) !== undefined;
}

/** Records that a point's file is missing or replaced. */
export function markLost(core: Core, row: PointRow): void {
  setState(core, row, { from: "sealed", to: "lost" });
}

function setState(core: Core, row: PointRow, { from, to }: { from: PointRow["state"]; to: PointRow["state"] }): void {
  const { journal } = core;
  const isChanged = journal.transaction(() => {
    const sql = "UPDATE points SET state = ? WHERE owner = ? AND pointId = ? AND state = ?";
    if (journal.run(sql, to, row.owner, row.pointId, from) === 0) return false;
    for (const table of ["volumes", "migrated"]) {
      journal.run(`UPDATE ${table} SET revision = revision + 1 WHERE uid = ?`, row.owner);
    }
    return true;
  });
  if (!isChanged) return;
  tellOwner(core, row.owner);
  const about = { owner: row.owner, point: row.pointId };
  if (to === "lost") core.log.error(about, "the point's file is missing or replaced");
  else core.log.warn(about, "the point's file is back");
}

function tellOwner({ journal, feed }: Core, owner: string): void {
  const name = (table: string) => journal.get<{ name: string }>(`SELECT name FROM ${table} WHERE uid = ?`, owner)?.name;
  const volume = name("volumes");
  const migrated = name("migrated");
  if (volume !== undefined) feed.publish("volume", volume);
  if (migrated !== undefined) feed.publish("migratedVolume", migrated);
}
