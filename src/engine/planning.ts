// What one attempt at a job has to move: the base from the points both sides have now, the difference, and its units.
import { chooseBase } from "../domain/coordinate.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { type Plan, planUnits, unitExtentsMax } from "../domain/plan.ts";
import type { Unit } from "../domain/unit-list.ts";
import type { Changes } from "../storage/backend.ts";
import type { PlanPage, Report } from "../wire/peer.ts";
import type { Lineage, Mode } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import { type JobRow, jobOf } from "./job-rows.ts";
import { clonedPoint, lineageOf } from "./lineage.ts";
import { basePoint, isPresent, type PointRow, pointOf, presentPoints, sealedPoint, takeHold } from "./points.ts";
import type { VolumeRow } from "./volume-rows.ts";
import type { Volumes } from "./volumes.ts";

const pageExtentsMax = 16_384;

/** What a job is about, read afresh for each attempt. */
export interface Subject {
  readonly row: JobRow;
  readonly volume: VolumeRow;
  readonly to: PointRow;
}

export interface Planned {
  readonly base: PointRow | undefined;
  /** The base is the point this clone was made of: neither the volume's own nor the copy's. */
  readonly lineage?: Lineage;
  readonly mode: Mode;
  readonly plan: Plan;
  readonly diverged: boolean;
}

export class Planning {
  private readonly core: Core;
  private readonly volumes: Volumes;

  constructor(core: Core, parts: { volumes: Volumes }) {
    this.core = core;
    this.volumes = parts.volumes;
  }

  /**
   * Chooses the base, holds it for the job, and finds what changed since. Throws `SnapshotGone` when the file of the
   * point to be sent is gone, and `PointBehind` when the target holds a newer one.
   */
  async plan(subject: Subject, report: Report, signal: AbortSignal): Promise<Planned> {
    const { row, to, volume } = subject;
    const targetPoints = report.points.map((point) => point.pointId);
    const points = await presentPoints(this.core, row.owner, new Set([...targetPoints, row.toId]));
    const cloned = await this.cloned(volume, report);
    const choice = chooseBase({
      sourcePoints: points.map((point) => point.pointId),
      targetPoints,
      hasCommitted: targetPoints.length > 0 || report.commits.length > 0,
      to: row.toId,
      ...(cloned && { lineage: cloned }),
    });
    this.keepGenerationAhead(volume, report);
    switch (choice.kind) {
      case "gone":
        throw new LongshoreError(
          "SnapshotGone",
          `the file of snapshot ${to.name} vanished; the next snapshot carries its changes`,
        );
      case "behind":
        throw new LongshoreError("PointBehind", `the target holds point ${choice.newest}, newer than ${row.toId}`);
      case "done":
        throw new LongshoreError("PlanMismatch", `point ${row.toId} was committed meanwhile`);
      case "none":
        return { ...(await this.allocated(subject, choice.reason, signal)), diverged: choice.diverged };
      case "lineage": {
        const changes = await this.changedSince(subject, clonedPoint(this.core, volume) as PointRow, signal);
        return { ...changes, ...this.asLineage(volume, changes), diverged: choice.diverged };
      }
      case "base": {
        const base = this.holdBase(row, choice.pointId);
        return { ...(await this.changedSince(subject, base, signal)), diverged: choice.diverged };
      }
    }
  }

  /** For a clone whose original's cluster has answered: whether both sides have the point it was made of. */
  private async cloned(volume: VolumeRow, { lineage }: Report) {
    const known = lineageOf(volume);
    if (known === undefined || lineage === undefined) return undefined;
    const here = lineage?.pointId === known.pointId ? clonedPoint(this.core, volume) : undefined;
    return { pointId: known.pointId, isCommon: here !== undefined && (await isPresent(this.core, here)) };
  }

  private asLineage(volume: VolumeRow, { base, mode }: Pick<Planned, "base" | "mode">) {
    const lineage = lineageOf(volume);
    return base === undefined || lineage === undefined ? {} : { lineage, mode: { ...mode, reason: "Lineage" } };
  }

  /** After a restore from an old disk, people should still see numbers that grow: the next one is above both sides'. */
  private keepGenerationAhead(volume: VolumeRow, report: Report): void {
    if (report.generationMax < volume.generation) return;
    this.core.journal.transaction(() => {
      this.core.journal.run("UPDATE volumes SET generation = ? WHERE uid = ?", report.generationMax + 1, volume.uid);
      this.volumes.touch(volume.uid);
    });
  }

  private holdBase(row: JobRow, pointId: string): PointRow {
    const { core } = this;
    try {
      return core.journal.transaction(() => {
        takeHold(core, { owner: row.owner, pointId, reason: "job", holder: jobOf(row) });
        return pointOf(core.journal, row.owner, pointId) as PointRow;
      });
    } catch (error) {
      if (codeOf(error) === undefined) throw error;
      // It was released and went between the choice and the hold: another attempt chooses another one.
      throw new LongshoreError("PlanMismatch", `base ${pointId} of job ${jobOf(row)} is going`, { cause: error });
    }
  }

  private async changedSince(subject: Subject, base: PointRow, signal: AbortSignal) {
    const { to, row } = subject;
    const changes = await this.core.storage.changed(row.owner, basePoint(base), sealedPoint(to), signal);
    // Without a sound difference the target starts from nothing: what the base has and `to` has not must not stay.
    if (changes.mode.kind === "allocated") {
      this.core.log.warn({ job: jobOf(row), reason: changes.mode.reason }, "no sound difference; all is sent");
      return this.planned(subject, undefined, changes);
    }
    return this.planned(subject, base, changes);
  }

  private async allocated(subject: Subject, reason: string, signal: AbortSignal) {
    const { to, row } = subject;
    const { extents } = await this.core.storage.allocated(row.owner, sealedPoint(to), signal);
    return this.planned(subject, undefined, { extents, mode: { kind: "allocated", reason } });
  }

  private planned({ to }: Subject, base: PointRow | undefined, { extents, mode }: Changes): Omit<Planned, "diverged"> {
    const identity = { baseId: base?.pointId ?? null, toId: to.pointId, sizeBytes: to.sizeBytes };
    // On a base that is empty there is nothing to punch.
    const sent = base === undefined ? Iterator.from(extents).filter(({ kind }) => kind === "data") : extents;
    const limits = { unitBytesMax: this.core.limits.unitBytes, unitExtentsMax };
    return { base, plan: planUnits({ ...identity, extents: sent }, limits), mode: shownMode(mode) };
  }
}

/** The mode with a reason in CamelCase, as status and metrics show it; what storage says in words is for the log. */
export function shownMode(mode: Changes["mode"]): Mode {
  if (mode.kind === "delta") return { kind: "Delta", reason: mode.unshared ? "Unshared" : "CommonBase" };
  return { kind: "Allocated", reason: allocatedReason(mode.reason) };
}

function allocatedReason(reason: string): string {
  if (/^[A-Z][A-Za-z]*$/.test(reason)) return reason;
  return /\bmov(ed|ing)\b/.test(reason) ? "BaseMoved" : "MappingUnsound";
}

/** Pages small enough for one request each. */
export function* pagesOf(units: Plan["units"], pageUnitsMax: number): Generator<PlanPage, undefined> {
  let first = 0;
  while (first < units.length) {
    let end = first;
    let extents = 0;
    while (end < units.length && end - first < pageUnitsMax && (end === first || extents < pageExtentsMax)) {
      extents += units.extentsOf(end);
      end += 1;
    }
    yield { first, units: Array.from({ length: end - first }, (_, nth) => wireUnit(units.at(first + nth))) };
    first = end;
  }
}

function wireUnit(unit: Unit = []): PlanPage["units"][number] {
  return unit.map(([offset, length, data]) => [offset, length, data]);
}
