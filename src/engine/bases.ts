// The base of a volume at a location: the newest point both sides hold, from which the next difference is taken. It moves
// only once the target has committed, and with it the hold that keeps the point here.
import { LongshoreError } from "../domain/errors.ts";
import type { Report } from "../wire/peer.ts";
import type { PointRef } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import { type JobRows, jobOf } from "./job-rows.ts";
import { releaseClonedPoint, sweepClonedPoint } from "./lineage.ts";
import type { Subject } from "./planning.ts";
import { dropHold, type HoldKey, type PointRow, pointOf, takeHold } from "./points.ts";
import type { Volumes } from "./volumes.ts";

/**
 * Moves the base and notes the commit, in one transaction; a repeat changes nothing. With a report the base is the newest
 * point both have (the target may have gone further since), and none moves if there is none; without, the job's own.
 */
export function moveBase(
  core: Core,
  { rows, volumes }: { readonly rows: JobRows; readonly volumes: Volumes },
  at: { readonly subject: Subject; readonly clusterUid: string; readonly report?: Report | undefined },
): void {
  const { row, to } = at.subject;
  const { journal } = core;
  const point = at.report === undefined ? to : newestCommon(core, row.owner, at.report, to);
  journal.transaction(() => {
    if (rows.row(row.name).finishedAt !== null) {
      throw new LongshoreError("Cancelled", `job ${jobOf(row)} was given up with its location`);
    }
    if (point !== undefined)
      setBase(core, { owner: row.owner, location: row.location, clusterUid: at.clusterUid }, point);
    releaseClonedPoint(core, at.subject.volume, at);
    rows.change(row.name, { barrier: "Committed" });
    volumes.touch(row.owner);
  });
  rows.publish(row.name);
  volumes.published(row.owner);
  core.tasks.spawn("sweep a clone's point", () => sweepClonedPoint(core, at.subject.volume));
}

function newestCommon({ journal }: Core, owner: string, { points }: Report, to: PointRow): PointRow | undefined {
  const isHere = ({ pointId }: PointRef) => pointOf(journal, owner, pointId)?.state === "sealed";
  const common = points.findLast(isHere);
  if (common !== undefined) return pointOf(journal, owner, common.pointId);
  return points.some(({ pointId }) => pointId === to.pointId) ? to : undefined;
}

/** Within a transaction. */
function setBase(core: Core, key: { owner: string; location: string; clusterUid: string }, point: PointRow): void {
  const { journal, clock } = core;
  const { owner, location, clusterUid } = key;
  const hold = (pointId: string): HoldKey => ({ owner, pointId, reason: "base", holder: location });
  const old = journal.get<{ pointId: string }>(
    "SELECT pointId FROM bases WHERE owner = ? AND location = ?",
    owner,
    location,
  );
  if (old !== undefined) dropHold(journal, hold(old.pointId));
  // A snapshot whose file vanished after it was sent cannot be a base; the next job finds an older one or none.
  if (point.state === "sealed") takeHold(core, hold(point.pointId));
  journal.run(
    `INSERT INTO bases (owner, location, clusterUid, pointId, generation, sourceTime, movedAt) VALUES (?,?,?,?,?,?,?)
     ON CONFLICT (owner, location) DO UPDATE SET clusterUid = excluded.clusterUid, pointId = excluded.pointId,
     generation = excluded.generation, sourceTime = excluded.sourceTime, movedAt = excluded.movedAt`,
    owner,
    location,
    clusterUid,
    point.pointId,
    point.generation,
    point.sourceTime,
    clock.nowMs(),
  );
}
