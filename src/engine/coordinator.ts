// One attempt at a job: from the claim of a term through the five barriers to Released. Every attempt starts from what the
// participants report now; the job's row only remembers what must not be forgotten. See docs/ARCHITECTURE.md.
import { chooseBase } from "../domain/coordinate.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { indexesIn, type Plan, planUnits, type Unit, unitDataBytes, unitExtentsMax } from "../domain/plan.ts";
import type { Changes } from "../storage/backend.ts";
import type { Grant, PeerTarget, PlanHeader, PlanPage, Report } from "../wire/peer.ts";
import type { JobSpec, Mode, PointRef } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import type { PeerConnection } from "./engine-options.ts";
import type { JobRow, JobRows } from "./job-rows.ts";
import type { Locations } from "./locations.ts";
import {
  dropHold,
  type HoldKey,
  type PointRow,
  pointOf,
  pointRef,
  presentPoints,
  sealedPoint,
  takeHold,
} from "./points.ts";
import { sendUnits } from "./units-sender.ts";
import type { VolumeRow, Volumes } from "./volumes.ts";

const pageExtentsMax = 16_384;
const pageUnitsMax = 1024;

/** What a job is about, read afresh for each attempt. */
interface Subject {
  readonly row: JobRow;
  readonly volume: VolumeRow;
  readonly to: PointRow;
}

interface Planned {
  readonly base: PointRow | undefined;
  readonly mode: Mode;
  readonly plan: Plan;
  readonly diverged: boolean;
}

export type AttemptResult = "committed" | "dryRun";

export class Coordinator {
  private readonly core: Core;
  private readonly rows: JobRows;
  private readonly volumes: Volumes;
  private readonly locations: Locations;

  constructor(core: Core, parts: { rows: JobRows; volumes: Volumes; locations: Locations }) {
    this.core = core;
    this.rows = parts.rows;
    this.volumes = parts.volumes;
    this.locations = parts.locations;
  }

  /** Drives the job as far as it goes. Resolves when the target has committed and the base has moved; throws otherwise. */
  async attempt(name: string, connection: PeerConnection, signal: AbortSignal): Promise<AttemptResult> {
    const subject = this.subject(name);
    const spec = JSON.parse(subject.row.specJson) as JobSpec;
    if (spec.dryRun === true) {
      await this.dryRun(subject, connection, signal);
      return "dryRun";
    }
    const hello = await connection.api.hello();
    const grant = await this.claim(subject, connection);
    const target: PeerTarget = { volume: subject.volume.uid, term: grant.term };
    await this.whileRenewing({ connection, target, leaseMs: grant.leaseMs, signal }, (running) =>
      this.drive({ subject, connection, target, grant, clusterUid: hello.clusterUid, signal: running }),
    );
    return "committed";
  }

  /** Asks, under a new term that fences off every earlier request, whether the job's point is committed. */
  async outcome(
    name: string,
    connection: PeerConnection,
  ): Promise<{ isCommitted: boolean; target: PeerTarget; clusterUid: string }> {
    const subject = this.subject(name);
    const hello = await connection.api.hello();
    const grant = await this.claim(subject, connection);
    return {
      isCommitted: isCommitted(grant.report, subject.row.toId),
      target: { volume: subject.volume.uid, term: grant.term },
      clusterUid: hello.clusterUid,
    };
  }

  /** The target has the point: move the base, drop what the old base held, and end the term. */
  async finishForward(
    name: string,
    connection: PeerConnection,
    at: { target: PeerTarget; clusterUid: string },
  ): Promise<void> {
    const subject = this.subject(name);
    this.moveBase(subject, at.clusterUid);
    await connection.api.release(at.target);
    this.rows.save(name, { barrier: "Released" });
  }

  private subject(name: string): Subject {
    const row = this.rows.row(name);
    const volume = this.core.journal.get<VolumeRow>("SELECT * FROM volumes WHERE uid = ?", row.owner);
    if (volume === undefined) throw new LongshoreError("VolumeGone", `the volume of job ${name} was deleted`);
    const to = pointOf(this.core.journal, row.owner, row.toId);
    if (to === undefined) throw new LongshoreError("SnapshotGone", `snapshot ${row.toId} of job ${name} was deleted`);
    return { row, volume, to };
  }

  private async claim({ row, volume, to }: Subject, connection: PeerConnection): Promise<Grant> {
    const { agentId, dice } = this.core;
    const grant = await connection.api.claim({
      job: row.name,
      volume: volume.uid,
      name: volume.name,
      metadata: JSON.parse(volume.metadataJson),
      sizeBytes: to.sizeBytes,
      claimant: agentId,
      nonce: dice.hex(16),
      offeredEpoch: row.epoch,
    });
    const { epoch, nonce } = grant.term;
    if (epoch <= row.epoch)
      throw new LongshoreError("TermLost", `epoch ${epoch} granted, ${row.epoch} was seen before`);
    this.rows.save(row.name, { epoch, nonce, state: "Running" });
    this.rows.start(row.name).targetAgent = grant.report.agentId;
    return grant;
  }

  private async whileRenewing(
    term: { connection: PeerConnection; target: PeerTarget; leaseMs: number; signal: AbortSignal },
    work: (signal: AbortSignal) => Promise<void>,
  ): Promise<void> {
    const ended = new AbortController();
    const lost = new AbortController();
    const renewing = this.renew(term, AbortSignal.any([ended.signal, term.signal])).catch((error: unknown) => {
      if (!ended.signal.aborted) lost.abort(error);
    });
    try {
      await work(AbortSignal.any([term.signal, lost.signal]));
    } finally {
      ended.abort();
      await renewing;
    }
  }

  private async renew(
    { connection, target, leaseMs }: { connection: PeerConnection; target: PeerTarget; leaseMs: number },
    signal: AbortSignal,
  ): Promise<void> {
    for (;;) {
      await this.core.clock.sleep(leaseMs / 3, signal);
      try {
        await connection.api.renew(target);
      } catch (error) {
        // One lost renewal is not a lost term; the next call under it tells.
        if (codeOf(error) === "TermLost") throw error;
      }
    }
  }

  private async drive(run: Run): Promise<void> {
    const { subject, grant, connection, target, signal } = run;
    const { name } = subject.row;
    if (isCommitted(grant.report, subject.row.toId)) {
      this.rows.save(name, { barrier: "Committed" });
      return this.finishForward(name, connection, run);
    }
    // The new term fences off every earlier request: what was asked for and is not there will not come any more.
    this.rows.save(name, { commitAsked: 0 });
    const planned = await this.plan(subject, grant.report, signal);
    await this.join(run, planned);
    signal.throwIfAborted();
    const { stored } = await connection.api.freeze(target);
    this.rows.save(name, { barrier: "Frozen", ...progressAt(planned.plan.units, stored) });
    this.rows.start(name).targetAgent = grant.report.agentId;
    await this.stream(run, planned, stored);
    signal.throwIfAborted();
    this.rows.save(name, { barrier: "Stored", commitAsked: 1 });
    const baseId = planned.base?.pointId ?? null;
    await connection.api.commit(target, { baseId, toId: subject.row.toId, planDigest: planned.plan.digest });
    this.rows.save(name, { barrier: "Committed" });
    await this.finishForward(name, connection, run);
  }

  // ---- Joined ------------------------------------------------------------------------------------------------------

  private async plan(subject: Subject, report: Report, signal: AbortSignal): Promise<Planned> {
    const { row, to, volume } = subject;
    const points = await presentPoints(this.core, row.owner);
    const choice = chooseBase({
      sourcePoints: points.map((point) => point.pointId),
      targetPoints: report.points.map((point) => point.pointId),
      to: row.toId,
    });
    this.keepGenerationAhead(volume, report);
    switch (choice.kind) {
      case "gone":
        throw new LongshoreError(
          "SnapshotGone",
          `the file of snapshot ${to.name} vanished; the next snapshot carries its changes`,
        );
      case "behind":
        throw new LongshoreError("PlanMismatch", `the target holds point ${choice.newest}, newer than ${row.toId}`);
      case "done":
        throw new LongshoreError("PlanMismatch", `point ${row.toId} was committed meanwhile`);
      case "none":
        return { ...(await this.allocated(subject, choice.reason, signal)), diverged: choice.diverged };
      case "base": {
        const base = this.holdBase(row, choice.pointId);
        return { ...(await this.changedSince(subject, base, signal)), diverged: choice.diverged };
      }
    }
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
    this.core.journal.transaction(() =>
      takeHold(this.core, { owner: row.owner, pointId, reason: "job", holder: row.name }),
    );
    const base = pointOf(this.core.journal, row.owner, pointId);
    if (base === undefined) throw new LongshoreError("SnapshotGone", `base ${pointId} of job ${row.name} is gone`);
    return base;
  }

  private async changedSince(subject: Subject, base: PointRow, signal: AbortSignal) {
    const { to, row } = subject;
    const changes = await this.core.storage.changed(row.owner, sealedPoint(base), sealedPoint(to), signal);
    // Without a sound difference the target starts from nothing: what the base has and `to` has not must not stay.
    if (changes.mode.kind === "allocated") return this.planned(subject, undefined, changes);
    return this.planned(subject, base, changes);
  }

  private async allocated(subject: Subject, reason: string, signal: AbortSignal) {
    const { to, row } = subject;
    const { extents } = await this.core.storage.allocated(row.owner, sealedPoint(to), signal);
    return this.planned(subject, undefined, { extents, mode: { kind: "allocated", reason } });
  }

  private planned({ to }: Subject, base: PointRow | undefined, { extents, mode }: Changes): Omit<Planned, "diverged"> {
    const plan = planUnits(
      { baseId: base?.pointId ?? null, toId: to.pointId, sizeBytes: to.sizeBytes, extents },
      { unitBytesMax: this.core.limits.unitBytes, unitExtentsMax },
    );
    const shown: Mode =
      mode.kind === "delta"
        ? { kind: "Delta", reason: mode.unshared ? "Unshared" : "CommonBase" }
        : { kind: "Allocated", reason: mode.reason };
    return { base, plan, mode: shown };
  }

  private async join({ subject, connection, target }: Run, { base, mode, plan, diverged }: Planned): Promise<void> {
    const { row, to } = subject;
    const header: PlanHeader = {
      job: row.name,
      baseId: base?.pointId ?? null,
      to: pointRef(to),
      mode,
      unitCount: plan.units.length,
      bytesData: plan.bytesData,
      bytesPunched: plan.bytesPunched,
      planDigest: plan.digest,
      diverged,
    };
    await connection.api.putPlan(target, header);
    for (const page of pagesOf(plan.units)) await connection.api.putPlanPage(target, page);
    this.rows.save(row.name, {
      barrier: "Joined",
      fromJson: base === undefined ? null : JSON.stringify(pointRef(base)),
      modeJson: JSON.stringify(mode),
      planDigest: plan.digest,
      bytesTotal: plan.bytesData,
      bytesPunched: plan.bytesPunched,
      unitsTotal: plan.units.length,
    });
    this.core.log.info(
      { job: row.name, mode: mode.kind, reason: mode.reason, bytes: plan.bytesData },
      "migration planned",
    );
  }

  private async dryRun(subject: Subject, connection: PeerConnection, signal: AbortSignal): Promise<void> {
    const report = await connection.api.report(subject.volume.uid);
    const { base, mode, plan } = await this.plan(subject, report ?? emptyReport, signal);
    this.rows.save(subject.row.name, {
      fromJson: base === undefined ? null : JSON.stringify(pointRef(base)),
      modeJson: JSON.stringify(mode),
      bytesTotal: plan.bytesData,
      bytesPunched: plan.bytesPunched,
      unitsTotal: plan.units.length,
    });
  }

  // ---- Frozen and Stored -------------------------------------------------------------------------------------------

  private async stream(run: Run, { plan }: Planned, stored: readonly (readonly [number, number])[]): Promise<void> {
    const { subject, connection, target, clusterUid, signal } = run;
    const have = new Set(indexesIn(stored));
    const missing = plan.units.map((_, index) => index).filter((index) => !have.has(index));
    if (missing.length === 0) return;
    const { name } = subject.row;
    const live = this.rows.start(name);
    live.targetAgent = run.grant.report.agentId;
    const reader = await this.core.storage.openPoint(subject.row.owner, sealedPoint(subject.to));
    try {
      await sendUnits({
        connection,
        target,
        peerClusterUid: clusterUid,
        reader,
        units: plan.units,
        missing,
        lanes: this.core.limits.lanesPerJob,
        windowBytes: this.core.limits.windowBytes,
        signal,
        pace: (bytes, stop) => this.locations.pace(subject.row.location, bytes, stop),
        progress: {
          sent: (bytes) => {
            live.bytesSent += bytes;
          },
          stored: (units, bytes, verified) => {
            live.unitsStored += units;
            live.bytesStored += bytes;
            live.verified = live.verified === "memory" ? "memory" : verified;
            this.rows.progressed(name);
          },
        },
      });
    } finally {
      await reader.close();
    }
  }

  // ---- Committed ---------------------------------------------------------------------------------------------------

  private moveBase({ row, to }: Subject, clusterUid: string): void {
    const { journal, clock } = this.core;
    const hold = (pointId: string): HoldKey => ({ owner: row.owner, pointId, reason: "base", holder: row.location });
    journal.transaction(() => {
      const old = journal.get<{ pointId: string }>(
        "SELECT pointId FROM bases WHERE owner = ? AND location = ?",
        row.owner,
        row.location,
      );
      if (old?.pointId === to.pointId) return;
      // A snapshot whose file vanished after it was sent cannot be a base; the next job finds an older one or none.
      if (to.state === "sealed") takeHold(this.core, hold(to.pointId));
      if (old !== undefined) dropHold(journal, hold(old.pointId));
      journal.run(
        `INSERT INTO bases (owner, location, clusterUid, pointId, generation, sourceTime, movedAt) VALUES (?,?,?,?,?,?,?)
         ON CONFLICT (owner, location) DO UPDATE SET clusterUid = excluded.clusterUid, pointId = excluded.pointId,
         generation = excluded.generation, sourceTime = excluded.sourceTime, movedAt = excluded.movedAt`,
        row.owner,
        row.location,
        clusterUid,
        to.pointId,
        to.generation,
        to.sourceTime,
        clock.nowMs(),
      );
      this.volumes.touch(row.owner);
    });
    this.volumes.published(row.owner);
  }
}

interface Run {
  readonly subject: Subject;
  readonly connection: PeerConnection;
  readonly target: PeerTarget;
  readonly grant: Grant;
  readonly clusterUid: string;
  readonly signal: AbortSignal;
}

const emptyReport: Report = {
  agentId: "none",
  barrier: "None",
  points: [],
  staging: null,
  commits: [],
  generationMax: 0,
};

/** A commit counts while the point is there; one whose file was lost since is sent again. */
function isCommitted(report: Report, toId: string): boolean {
  return report.points.some((point: PointRef) => point.pointId === toId);
}

function progressAt(units: readonly Unit[], stored: readonly (readonly [number, number])[]) {
  const indexes = [...indexesIn(stored)];
  const bytesStored = indexes.reduce((sum, index) => sum + unitDataBytes(units[index] ?? []), 0);
  return { unitsStored: indexes.length, bytesStored };
}

/** Pages small enough for one request each. */
function* pagesOf(units: readonly Unit[]): Generator<PlanPage> {
  let first = 0;
  while (first < units.length) {
    let end = first;
    let extents = 0;
    while (end < units.length && end - first < pageUnitsMax && (end === first || extents < pageExtentsMax)) {
      extents += units[end]?.length ?? 0;
      end += 1;
    }
    yield {
      first,
      units: units.slice(first, end).map((unit) => unit.map(([offset, length, data]) => [offset, length, data])),
    };
    first = end;
  }
}
