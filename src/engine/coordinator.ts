// One attempt at a job: from the claim of a term through the five barriers to Released. Every attempt starts from what the
// participants report now; the job's row only remembers what must not be forgotten. See docs/ARCHITECTURE.md.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { indexesIn, type Unit, unitDataBytes } from "../domain/plan.ts";
import type { Grant, PeerApi, PeerTarget, PlanHeader, Report } from "../wire/peer.ts";
import type { JobSpec, PointRef } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import type { PeerConnection } from "./engine-options.ts";
import type { JobChange, JobRows } from "./job-rows.ts";
import type { Locations } from "./locations.ts";
import { type Planned, Planning, pagesOf, type Subject } from "./planning.ts";
import { dropHold, type HoldKey, pointOf, pointRef, sealedPoint, takeHold } from "./points.ts";
import { sendUnits } from "./units-sender.ts";
import type { VolumeRow } from "./volume-rows.ts";
import type { Volumes } from "./volumes.ts";

export type AttemptResult = "committed" | "dryRun";

export class Coordinator {
  private readonly core: Core;
  private readonly rows: JobRows;
  private readonly volumes: Volumes;
  private readonly locations: Locations;
  private readonly planning: Planning;

  constructor(core: Core, parts: { rows: JobRows; volumes: Volumes; locations: Locations }) {
    this.core = core;
    this.rows = parts.rows;
    this.volumes = parts.volumes;
    this.locations = parts.locations;
    this.planning = new Planning(core, parts);
  }

  /** Drives the job as far as it goes. Resolves when the target has committed and the base has moved; throws otherwise. */
  async attempt(name: string, to: PeerConnection, signal: AbortSignal): Promise<AttemptResult> {
    const connection = { ...to, api: interruptible(to.api, signal) };
    const subject = this.subject(name);
    const spec = JSON.parse(subject.row.specJson) as JobSpec;
    if (spec.dryRun === true) {
      await this.dryRun(subject, connection, signal);
      return "dryRun";
    }
    const clusterUid = await this.identify(subject, connection);
    const grant = await this.claim(subject, connection);
    const target: PeerTarget = { volume: subject.volume.uid, term: grant.term };
    await this.whileRenewing({ connection, target, leaseMs: grant.leaseMs, signal }, (running) => {
      const patient = { ...connection, api: interruptible(connection.api, running) };
      return this.drive({ subject, connection: patient, target, grant, clusterUid, signal: running });
    });
    return "committed";
  }

  /** Asks, under a new term that fences off every earlier request, whether the job's point is committed. */
  async outcome(name: string, connection: PeerConnection): Promise<Outcome> {
    const subject = this.subject(name);
    const clusterUid = await this.identify(subject, connection);
    const grant = await this.claim(subject, connection);
    const target = { volume: subject.volume.uid, term: grant.term };
    return { isCommitted: isCommitted(grant.report, subject.row.toId), report: grant.report, target, clusterUid };
  }

  /** The target has the point: move the base, drop what the old base held, and end the term. */
  async finishForward(
    name: string,
    connection: PeerConnection,
    at: { target: PeerTarget; clusterUid: string; report?: Report },
  ): Promise<void> {
    const subject = this.subject(name);
    this.moveBase(subject, { clusterUid: at.clusterUid, baseId: this.baseAfter(subject, at.report) });
    await connection.api.release(at.target);
    this.rows.save(name, { barrier: "Released" });
  }

  /** The cluster that answers; throws `Untrusted` unless it may be the location's. */
  private async identify({ row }: Subject, connection: PeerConnection): Promise<string> {
    const { clusterUid } = await connection.api.hello();
    this.locations.checkIdentity(row.location, clusterUid);
    return clusterUid;
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
    const { clock } = this.core;
    let heardMs = clock.monotonicMs();
    for (;;) {
      await clock.sleep(leaseMs / 3, signal);
      try {
        await connection.api.renew(target);
        heardMs = clock.monotonicMs();
      } catch (error) {
        // One lost renewal is not a lost term. When none gets through for a whole lease, the target has taken it away.
        const isOver = clock.monotonicMs() - heardMs >= leaseMs;
        if (codeOf(error) === "TermLost" || isOver) throw error;
      }
    }
  }

  private async drive(run: Run): Promise<void> {
    const { subject, grant, connection, target, signal } = run;
    const { name } = subject.row;
    if (isCommitted(grant.report, subject.row.toId)) {
      return this.finishForward(name, connection, { ...run, report: grant.report });
    }
    // The new term fences off every earlier request: what was asked for and is not there will not come any more.
    this.rows.save(name, { commitAsked: 0 });
    const planned = await this.planning.plan(subject, grant.report, signal);
    await this.join(run, planned);
    signal.throwIfAborted();
    const { stored } = await connection.api.freeze(target);
    this.rows.save(name, { barrier: "Frozen", ...progressAt(planned.plan.units, stored) });
    this.rows.start(name);
    await this.stream(run, planned, stored);
    signal.throwIfAborted();
    this.rows.save(name, { barrier: "Stored", commitAsked: 1 });
    const baseId = planned.base?.pointId ?? null;
    await connection.api.commit(target, { baseId, toId: subject.row.toId, planDigest: planned.plan.digest });
    await this.finishForward(name, connection, run);
  }

  // ---- Joined ------------------------------------------------------------------------------------------------------

  private async join({ subject, connection, target }: Run, planned: Planned): Promise<void> {
    const { row, to } = subject;
    const { base, mode, plan, diverged } = planned;
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
    this.rows.save(row.name, { barrier: "Joined", planDigest: plan.digest, ...whatIsPlanned(planned) });
    this.core.log.info(
      { job: row.name, mode: mode.kind, reason: mode.reason, bytes: plan.bytesData },
      "migration planned",
    );
  }

  private async dryRun(subject: Subject, connection: PeerConnection, signal: AbortSignal): Promise<void> {
    await this.identify(subject, connection);
    const report = (await connection.api.report(subject.volume.uid)) ?? emptyReport;
    // Nothing to move is an answer as well.
    if (isCommitted(report, subject.row.toId)) return;
    const planned = await this.planning.plan(subject, report, signal);
    this.rows.save(subject.row.name, whatIsPlanned(planned));
  }

  // ---- Frozen and Stored -------------------------------------------------------------------------------------------

  private async stream(run: Run, { plan }: Planned, stored: readonly (readonly [number, number])[]): Promise<void> {
    const { subject, connection, target, clusterUid, signal } = run;
    const have = new Set(indexesIn(stored));
    const missing = plan.units.map((_, index) => index).filter((index) => !have.has(index));
    if (missing.length === 0) return;
    const { name } = subject.row;
    const live = this.rows.start(name);
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

  /** The newest point both sides have: the job's own, unless the target had it already and has gone further since. */
  private baseAfter({ row }: Subject, report: Report | undefined): string {
    const isHere = ({ pointId }: PointRef) => pointOf(this.core.journal, row.owner, pointId)?.state === "sealed";
    return report?.points.findLast(isHere)?.pointId ?? row.toId;
  }

  /** Moves the base and notes the commit, in one transaction. */
  private moveBase({ row, to }: Subject, { clusterUid, baseId }: { clusterUid: string; baseId: string }): void {
    const { journal, clock } = this.core;
    const hold = (pointId: string): HoldKey => ({ owner: row.owner, pointId, reason: "base", holder: row.location });
    const point = pointOf(journal, row.owner, baseId) ?? to;
    journal.transaction(() => {
      if (this.rows.row(row.name).finishedAt !== null) {
        throw new LongshoreError("Cancelled", `job ${row.name} was given up with its location`);
      }
      const old = journal.get<{ pointId: string }>(
        "SELECT pointId FROM bases WHERE owner = ? AND location = ?",
        row.owner,
        row.location,
      );
      if (old !== undefined) dropHold(journal, hold(old.pointId));
      // A snapshot whose file vanished after it was sent cannot be a base; the next job finds an older one or none.
      if (point.state === "sealed") takeHold(this.core, hold(point.pointId));
      journal.run(
        `INSERT INTO bases (owner, location, clusterUid, pointId, generation, sourceTime, movedAt) VALUES (?,?,?,?,?,?,?)
         ON CONFLICT (owner, location) DO UPDATE SET clusterUid = excluded.clusterUid, pointId = excluded.pointId,
         generation = excluded.generation, sourceTime = excluded.sourceTime, movedAt = excluded.movedAt`,
        row.owner,
        row.location,
        clusterUid,
        point.pointId,
        point.generation,
        point.sourceTime,
        clock.nowMs(),
      );
      this.rows.change(row.name, { barrier: "Committed" });
      this.volumes.touch(row.owner);
    });
    this.rows.publish(row.name);
    this.volumes.published(row.owner);
  }
}

/** The same protocol, but nobody waits for an answer past the signal; what is carried out later is fenced off by its term. */
function interruptible(api: PeerApi, signal: AbortSignal): PeerApi {
  return new Proxy(api, {
    get(_, method: keyof PeerApi) {
      const call = api[method] as (...args: unknown[]) => Promise<unknown>;
      return (...args: unknown[]) => orAborted(() => call.apply(api, args), signal);
    },
  });
}

async function orAborted<T>(call: () => Promise<T>, signal: AbortSignal): Promise<T> {
  signal.throwIfAborted();
  const { promise, reject } = Promise.withResolvers<never>();
  const abort = () => reject(signal.reason);
  signal.addEventListener("abort", abort, { once: true });
  try {
    return await Promise.race([call(), promise]);
  } finally {
    signal.removeEventListener("abort", abort);
  }
}

export interface Outcome {
  readonly isCommitted: boolean;
  readonly report: Report;
  readonly target: PeerTarget;
  readonly clusterUid: string;
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
  epoch: 0,
};

/** A commit counts while the point is there; one whose file was lost since is sent again. */
function isCommitted(report: Report, toId: string): boolean {
  return report.points.some((point: PointRef) => point.pointId === toId);
}

/** What a job's row tells of its plan, also when nothing is moved. */
function whatIsPlanned({ base, mode, plan }: Planned): JobChange {
  return {
    fromJson: base === undefined ? null : JSON.stringify(pointRef(base)),
    modeJson: JSON.stringify(mode),
    bytesTotal: plan.bytesData,
    bytesPunched: plan.bytesPunched,
    unitsTotal: plan.units.length,
  };
}

function progressAt(units: readonly Unit[], stored: readonly (readonly [number, number])[]) {
  const indexes = [...indexesIn(stored)];
  const bytesStored = indexes.reduce((sum, index) => sum + unitDataBytes(units[index] ?? []), 0);
  return { unitsStored: indexes.length, bytesStored };
}
