// The plan a job announced, as the target keeps it: header first, then pages of units. It counts once all units are here
// and their digest is the one announced; every write into staging is checked against it.
import { LongshoreError } from "../domain/errors.ts";
import { openPlanDigest } from "../domain/plan.ts";
import { type Unit, UnitList } from "../domain/unit-list.ts";
import type { PlanHeader, PlanPage } from "../wire/peer.ts";
import type { Core } from "./core.ts";
import { keepOriginal, plannedBase } from "./lineage.ts";
import type { MigratedRow, MigratedVolumes, StagingRow } from "./migrated.ts";
import { pointOf, pointsOf } from "./points.ts";

interface Begun {
  readonly header: PlanHeader;
  readonly page: PlanPage | undefined;
}

export class Plans {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;

  constructor(core: Core, parts: { migrated: MigratedVolumes }) {
    this.core = core;
    this.migrated = parts.migrated;
  }

  /**
   * Under the volume's lock; with the header may come the first page. `drop` removes the staging of another plan. Throws
   * `PlanMismatch`, `ShrinkRefused`.
   */
  async put(row: MigratedRow, { header, page }: Begun, drop: (staging: StagingRow) => Promise<void>): Promise<void> {
    this.check(row, header);
    if (page !== undefined) checkPage(header, page);
    const staging = this.migrated.staging(row.uid);
    if (staging !== undefined && isSamePlan(staging, header)) this.takeUp(row, staging, { header, page });
    else {
      if (staging !== undefined) await drop(staging);
      this.begin(row, { header, page });
    }
    this.finish(row, header);
  }

  /** Under the volume's lock. Pages come in order; one that came already changes nothing. */
  putPage(row: MigratedRow, page: PlanPage): void {
    const staging = this.require(row);
    if (staging.isPlanned === 1) return;
    const header = headerOf(staging);
    checkPage(header, page);
    this.core.journal.transaction(() => this.keepPage(row, page));
    this.finish(row, header);
  }

  private keepPage(row: MigratedRow, page: PlanPage): void {
    this.core.journal.run(
      "INSERT OR REPLACE INTO planPages (owner, first, count, unitsJson) VALUES (?,?,?,?)",
      row.uid,
      page.first,
      page.units.length,
      JSON.stringify(page.units),
    );
  }

  /** As far as they have come without a gap. */
  units(uid: string): UnitList {
    return new UnitList(this.arrived(uid));
  }

  /** Page by page: a plan is larger as text than as what it says. */
  private *arrived(uid: string): Generator<Unit> {
    const { journal } = this.core;
    const pages = journal.all<{ first: number }>("SELECT first FROM planPages WHERE owner = ? ORDER BY first", uid);
    let next = 0;
    for (const { first } of pages) {
      if (first !== next) return;
      const page = journal.get<{ unitsJson: string }>(
        "SELECT unitsJson FROM planPages WHERE owner = ? AND first = ?",
        uid,
        first,
      );
      const units = JSON.parse(page?.unitsJson ?? "[]") as Unit[];
      yield* units;
      next += units.length;
    }
  }

  /** The staging row; throws `PlanMismatch` when there is none. */
  require(row: MigratedRow): StagingRow {
    const staging = this.migrated.staging(row.uid);
    if (staging === undefined) throw new LongshoreError("PlanMismatch", `${row.name} has no plan`);
    return staging;
  }

  /** An empty delta of unchanged size needs no image: the new point lives in the file of its base. */
  sharesBaseFile(uid: string, header: PlanHeader): boolean {
    if (header.unitCount > 0 || header.baseId === null) return false;
    return pointOf(this.core.journal, uid, header.baseId)?.sizeBytes === header.to.sizeBytes;
  }

  /** The same plan again, perhaps by another job: what is stored stays; a plan that is not whole begins anew. */
  private takeUp(row: MigratedRow, staging: StagingRow, { header, page }: Begun): void {
    const { journal } = this.core;
    journal.transaction(() => {
      if (staging.isPlanned === 0) journal.run("DELETE FROM planPages WHERE owner = ?", row.uid);
      if (staging.isPlanned === 0 && page !== undefined) this.keepPage(row, page);
      journal.run("UPDATE staging SET headerJson = ? WHERE owner = ?", JSON.stringify(header), row.uid);
      this.note(row, header);
    });
  }

  private begin(row: MigratedRow, { header, page }: Begun): void {
    const { journal, clock } = this.core;
    const units = (page?.units ?? []) as Unit[];
    journal.transaction(() => {
      if (page !== undefined) this.keepPage(row, page);
      journal.run(
        `INSERT INTO staging (owner, toId, baseId, planDigest, headerJson, isPlanned, isMade, sizeBytes, touchedAt)
         VALUES (?,?,?,?,?,?,0,?,?)`,
        row.uid,
        header.to.pointId,
        header.baseId,
        header.planDigest,
        JSON.stringify(header),
        // Most plans are whole at once: one page, or none.
        Number(header.unitCount === units.length && isWhole(header, units)),
        header.to.sizeBytes,
        clock.nowMs(),
      );
      keepOriginal(this.core, row.name, header);
      this.note(row, header);
    });
  }

  private note(row: MigratedRow, header: PlanHeader): void {
    this.core.journal.run(
      "UPDATE migrated SET diverged = ?, revision = revision + 1 WHERE uid = ?",
      Number(header.diverged),
      row.uid,
    );
  }

  private check(row: MigratedRow, header: PlanHeader): void {
    // One that is lost may be sent again; any other, released ones too, has its file under this very name.
    const known = pointOf(this.core.journal, row.uid, header.to.pointId);
    const isFile = pointsOf(this.core.journal, row.uid).some(
      (point) => point.file === header.to.pointId && point.state !== "lost",
    );
    if ((known !== undefined && known.state !== "lost") || isFile) {
      throw new LongshoreError("PlanMismatch", `point ${header.to.pointId} is committed already`);
    }
    const base = plannedBase(this.core, row.uid, header);
    const isOpen = base?.state === "sealed" && (base.owner !== row.uid || base.released === 0);
    if (header.baseId !== null && !isOpen) {
      throw new LongshoreError("PlanMismatch", `${row.name} has no point ${header.baseId} to start from`);
    }
    if (base !== undefined && base.sizeBytes > header.to.sizeBytes) {
      throw new LongshoreError(
        "ShrinkRefused",
        `${row.name} has ${base.sizeBytes} bytes, the plan ${header.to.sizeBytes}`,
      );
    }
  }

  private finish(row: MigratedRow, header: PlanHeader): void {
    const { journal } = this.core;
    if (this.require(row).isPlanned === 1) return;
    const here = journal.get<{ n: number }>(
      "SELECT coalesce(sum(count), 0) AS n FROM planPages WHERE owner = ?",
      row.uid,
    );
    if ((here?.n ?? 0) < header.unitCount) return;
    if (!isWhole(header, this.arrived(row.uid))) {
      throw new LongshoreError("PlanMismatch", `the plan of job ${header.job} arrived with another digest`);
    }
    journal.transaction(() => journal.run("UPDATE staging SET isPlanned = 1 WHERE owner = ?", row.uid));
  }
}

export function headerOf(staging: StagingRow): PlanHeader {
  return JSON.parse(staging.headerJson) as PlanHeader;
}

function checkPage({ unitCount }: PlanHeader, { first, units }: PlanPage): void {
  const end = first + units.length;
  if (units.length > 0 && end <= unitCount) return;
  throw new LongshoreError("BadRequest", `the page ${first}..${end} is not of a plan of ${unitCount}`);
}

function isWhole(header: PlanHeader, units: Iterable<Unit>): boolean {
  const digest = openPlanDigest({
    baseId: header.baseId,
    toId: header.to.pointId,
    sizeBytes: header.to.sizeBytes,
  });
  digest.add(units);
  const summary = digest.finish();
  return (
    summary.digest === header.planDigest &&
    summary.unitCount === header.unitCount &&
    summary.bytesData === header.bytesData &&
    summary.bytesPunched === header.bytesPunched
  );
}

function isSamePlan(staging: StagingRow, header: PlanHeader): boolean {
  return (
    staging.toId === header.to.pointId && staging.baseId === header.baseId && staging.planDigest === header.planDigest
  );
}
