// Lineage: what a clone has in common with the volume its content came from. The copy a clone was made of is here, the
// original in another cluster; if both still have the point, the first job back sends only what was written since. On
// the way back the original is read and never written: the job makes a new copy beside it.
import { LongshoreError } from "../domain/errors.ts";
import type { Claim, PlanHeader } from "../wire/peer.ts";
import type { Lineage } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import { dropHold, type HoldKey, type PointRow, pointOf, sweep, takeHold } from "./points.ts";
import { publishVolume, touchVolume, type VolumeRow } from "./volume-rows.ts";

type LineageVolume = Pick<VolumeRow, "uid" | "name" | "lineageJson">;

export function lineageOf({ lineageJson }: Pick<VolumeRow, "lineageJson">): Lineage | undefined {
  return lineageJson === null ? undefined : (JSON.parse(lineageJson) as Lineage);
}

/** What a claim says of the volume's lineage; the target goes by it only where the lineage is its own. */
export function claimedLineage(volume: LineageVolume): Pick<Claim, "lineage"> {
  const lineage = lineageOf(volume);
  return lineage === undefined ? {} : { lineage };
}

// ---- where the clone is --------------------------------------------------------------------------------------------

/** The point a clone was made of, in the copy that is kept here; undefined once either is gone. */
export function clonedPoint({ journal }: Pick<Core, "journal">, volume: LineageVolume): PointRow | undefined {
  const lineage = lineageOf(volume);
  const copy =
    lineage &&
    journal.get<{ uid: string }>(
      "SELECT uid FROM migrated WHERE clusterUid = ? AND volumeUid = ? AND deleting = 0",
      lineage.clusterUid,
      lineage.volumeUid,
    );
  return lineage && copy && pointOf(journal, copy.uid, lineage.pointId);
}

/**
 * Within a transaction: keeps the point a clone was made of from when the clone is to be migrated until it has first
 * arrived at its original's cluster; afterwards both sides have a newer point in common. A point that is gone is not held.
 */
export function keepClonedPoint(core: Core, volume: LineageVolume, isMigrated: boolean): void {
  const lineage = lineageOf(volume);
  const point = lineage && clonedPoint(core, volume);
  if (lineage === undefined || point === undefined) return;
  const hold = clonedHold(volume, point);
  const isKept = isMigrated && !hasArrived(core, volume.uid, lineage.clusterUid);
  if (!isKept) dropHold(core.journal, hold);
  else if (point.state === "sealed") takeHold(core, hold);
}

/** Within a transaction: the clone has arrived in a cluster, or goes. {@link sweepClonedPoint} afterwards. */
export function releaseClonedPoint(
  core: Core,
  volume: LineageVolume,
  at: { clusterUid: string } | "volume gone",
): void {
  if (at !== "volume gone" && at.clusterUid !== lineageOf(volume)?.clusterUid) return;
  const point = clonedPoint(core, volume);
  if (point !== undefined) dropHold(core.journal, clonedHold(volume, point));
}

/** Deletes the point a clone was made of if nobody keeps it any more. */
export async function sweepClonedPoint(core: Core, volume: LineageVolume): Promise<void> {
  const point = clonedPoint(core, volume);
  if (point !== undefined) await sweep(core, point.owner);
}

function hasArrived({ journal }: Core, owner: string, clusterUid: string): boolean {
  return journal.get("SELECT 1 AS one FROM bases WHERE owner = ? AND clusterUid = ?", owner, clusterUid) !== undefined;
}

function clonedHold({ name }: LineageVolume, { owner, pointId }: PointRow): HoldKey {
  return { owner, pointId, reason: "base", holder: `lineage/${name}` };
}

// ---- where the original is -----------------------------------------------------------------------------------------

/** The original's point, if this agent has it; undefined for a lineage of another cluster. */
export function originalPoint(
  { journal, cluster }: Pick<Core, "journal" | "cluster">,
  lineage: Lineage | undefined,
): PointRow | undefined {
  if (lineage === undefined || lineage.clusterUid !== cluster.uid) return undefined;
  const volume = journal.get("SELECT 1 AS one FROM volumes WHERE uid = ? AND state = 'ready'", lineage.volumeUid);
  return volume === undefined ? undefined : pointOf(journal, lineage.volumeUid, lineage.pointId);
}

/** The point that a plan starts from: the copy's own or, for the first job back, the original's. */
export function plannedBase(core: Core, owner: string, header: PlanHeader): PointRow | undefined {
  if (header.baseId === null) return undefined;
  return pointOf(core.journal, owner, header.baseId) ?? plannedOriginal(core, header);
}

/** Within a transaction: keeps the original's point while something staged starts from it. */
export function keepOriginal(core: Core, copy: string, header: PlanHeader): void {
  const point = plannedOriginal(core, header);
  if (point === undefined) return;
  if (point.state !== "sealed") throw new LongshoreError("PlanMismatch", `point ${point.pointId} is going`);
  takeHold(core, originalHold(copy, point));
  touchVolume(core, point.owner);
}

/** Within a transaction: what was staged is a point by now, or was given up. */
export function releaseOriginal(core: Core, copy: string, header: PlanHeader): void {
  const point = plannedOriginal(core, header);
  if (point === undefined) return;
  dropHold(core.journal, originalHold(copy, point));
  touchVolume(core, point.owner);
  core.tasks.spawn("sweep an original", async () => {
    // The transaction we are called in comes first; should it fail, the hold is still there.
    await undefined;
    await sweep(core, point.owner);
    publishVolume(core, point.owner);
  });
}

function plannedOriginal(core: Core, { baseId, lineage }: PlanHeader): PointRow | undefined {
  return lineage?.pointId === baseId ? originalPoint(core, lineage) : undefined;
}

function originalHold(copy: string, { owner, pointId }: PointRow): HoldKey {
  return { owner, pointId, reason: "job", holder: `lineage/${copy}` };
}
