// One volume's part of a job under one granted term: plan, freeze, stream, and at last the base moved. A job of a single
// volume is one share; a participant in a group's job has one for each of its volumes.

import { type Assignment, assignUnits } from "../domain/assign-units.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { indexesIn } from "../domain/plan.ts";
import type { UnitList } from "../domain/unit-list.ts";
import { weakestOf } from "../domain/verification.ts";
import type {
  Claim,
  FreezeResult,
  GroupCommitMember,
  GroupRef,
  PeerApi,
  PeerTarget,
  PlanHeader,
  PlanPage,
  PrepareRequest,
  Report,
  Term,
} from "../wire/peer.ts";
import type { Member, PointRef } from "../wire/schemas.ts";
import { claimedAffinity } from "./affinity.ts";
import { moveBase } from "./bases.ts";
import type { Core } from "./core.ts";
import type { PeerConnection } from "./engine-options.ts";
import { type JobChange, type JobRows, jobOf } from "./job-rows.ts";
import { claimedLineage } from "./lineage.ts";
import type { Locations } from "./locations.ts";
import { type Planned, type Planning, pagesOf, type Subject } from "./planning.ts";
import { pointOf, pointRef, sealedPoint } from "./points.ts";
import { sendUnits } from "./units-sender.ts";
import type { VolumeRow } from "./volume-rows.ts";
import type { Volumes } from "./volumes.ts";

export interface ShareParts {
  readonly rows: JobRows;
  readonly volumes: Volumes;
  readonly locations: Locations;
  readonly planning: Planning;
}

/** Where a copy is: its home, among the agents of the target cluster. */
export interface Destination {
  readonly connection: PeerConnection;
  readonly clusterUid: string;
  readonly home: Member;
  /** Agents of the target cluster that can store units of this copy, by their ids; with local storage only its home. */
  readonly storers: readonly Member[];
}

/** With local storage a copy's home is the one agent that can store its units. */
export function atHome(connection: PeerConnection, clusterUid: string, home: Member): Destination {
  return { connection, clusterUid, home, storers: [home] };
}

/** The group's term, for a share of a group's job. */
export interface GroupTerm extends GroupRef {
  readonly term: Term;
  readonly groupPoint: string;
}

interface ShareOptions {
  readonly name: string;
  readonly destination: Destination;
  readonly group?: GroupTerm;
  /** Ends what the share does, wherever it is. */
  readonly signal: AbortSignal;
}

/** What a job is about, read afresh. Throws `VolumeGone` and `SnapshotGone`. */
export function subjectOf(core: Core, rows: JobRows, name: string): Subject {
  const row = rows.row(name);
  const job = jobOf(row);
  const volume = core.journal.get<VolumeRow>("SELECT * FROM volumes WHERE uid = ?", row.owner);
  if (volume === undefined) throw new LongshoreError("VolumeGone", `the volume of job ${job} was deleted`);
  const to = pointOf(core.journal, row.owner, row.toId);
  if (to === undefined) throw new LongshoreError("SnapshotGone", `snapshot ${row.toId} of job ${job} was deleted`);
  return { row, volume, to };
}

/** Claims the volume's term at the copy's home, or takes the group's there, and remembers its epoch. */
export async function openShare(core: Core, parts: ShareParts, options: ShareOptions): Promise<Share> {
  const { rows } = parts;
  const { destination, name, group } = options;
  const subject = subjectOf(core, rows, name);
  const api = destination.connection.at(destination.home);
  const { term, leaseMs, report } = await api.claim(claimOf(core, subject, group));
  if (group !== undefined && (term.epoch !== group.term.epoch || term.nonce !== group.term.nonce)) {
    throw new LongshoreError("TermLost", `${destination.home.node} granted another term than the group's`);
  }
  if (group === undefined && term.epoch <= subject.row.epoch) {
    throw new LongshoreError("TermLost", `epoch ${term.epoch} granted, ${subject.row.epoch} was seen before`);
  }
  rows.save(name, { epoch: term.epoch, nonce: term.nonce, state: "Running", isPrepared: 0 });
  rows.located(name, destination.home, report.barrier);
  return new Share(core, parts, { ...options, api, leaseMs, report, target: { volume: subject.volume.uid, term } });
}

function claimOf({ agentId, dice }: Core, { row, volume, to }: Subject, group: GroupTerm | undefined): Claim {
  return {
    job: jobOf(row),
    volume: volume.uid,
    name: volume.name,
    metadata: JSON.parse(volume.metadataJson),
    sizeBytes: to.sizeBytes,
    claimant: agentId,
    nonce: group?.term.nonce ?? dice.hex(16),
    offeredEpoch: group === undefined ? row.epoch : group.term.epoch - 1,
    ...(group && { group: { name: group.name, home: group.home, term: group.term } }),
    ...claimedLineage(volume),
    ...claimedAffinity(volume),
  };
}

export class Share {
  readonly name: string;
  readonly target: PeerTarget;
  readonly leaseMs: number;
  /** What the home reported when the term began. */
  readonly report: Report;
  private readonly core: Core;
  private readonly parts: ShareParts;
  private readonly options: ShareOptions;
  private readonly api: PeerApi;
  private planned: Planned | undefined;
  private isFrozen = false;
  /** What ends the term was asked for. */
  private isEnding = false;
  private stored: readonly (readonly [number, number])[] = [];

  constructor(
    core: Core,
    parts: ShareParts,
    options: ShareOptions & { api: PeerApi; leaseMs: number; report: Report; target: PeerTarget },
  ) {
    this.core = core;
    this.parts = parts;
    this.options = options;
    this.name = options.name;
    this.api = options.api;
    this.leaseMs = options.leaseMs;
    this.report = options.report;
    this.target = options.target;
  }

  /** The copy has the point already. A commit counts while the point is there; one whose file was lost is sent again. */
  get isThere(): boolean {
    return hasPoint(this.report, this.subject().row.toId);
  }

  /** From when something is asked for that ends the term, its own answer tells whether the term was lost. */
  async renew(): Promise<void> {
    try {
      await this.api.renew(this.target);
    } catch (error) {
      if (!this.isEnding || codeOf(error) !== "TermLost") throw error;
    }
  }

  /** To be called before anybody is asked for what ends the term. */
  expectEnd(): void {
    this.isEnding = true;
  }

  /** Joined: plans, and has the target persist the plan. Whoever waits for nobody else is Frozen with it. */
  async join(): Promise<void> {
    const { rows, planning } = this.parts;
    if (this.isThere) return;
    const subject = this.subject();
    const planned = await planning.plan(subject, this.report, this.options.signal);
    this.planned = planned;
    const { plan, mode } = planned;
    const frozen = await this.putPlan(this.header(subject, planned), plan.units);
    const change = { planDigest: plan.digest, ...whatIsPlanned(planned) };
    if (frozen !== null) this.noteFrozen(frozen, change);
    else {
      rows.save(this.name, { barrier: "Joined", ...change });
      rows.located(this.name, this.options.destination.home, "Joined");
    }
    this.core.log.info(
      {
        job: jobOf(subject.row),
        volume: subject.volume.name,
        mode: mode.kind,
        reason: mode.reason,
        bytes: plan.bytesData,
      },
      "migration planned",
    );
  }

  /** Frozen: no clones of the newest point; staging is there. What is stored already is not sent again. */
  async freeze(): Promise<void> {
    if (this.isThere || this.isFrozen) return;
    const { plan } = this.requirePlan();
    this.options.signal.throwIfAborted();
    // A member that has voted for this very plan has sealed it: there is nothing left to freeze or to send.
    this.noteFrozen(this.hasVoted() ? { stored: everyUnit(plan.units) } : await this.askFreeze());
  }

  /** A target makes its staging image, or reads again what an earlier process stored, for as long as that takes. */
  private async askFreeze(): Promise<FreezeResult> {
    const { clock, limits } = this.core;
    for (;;) {
      const result = await this.api.freeze(this.target, { inParts: true });
      if (result.isChecking !== true) return result;
      await clock.sleep(limits.retryDelayMs, this.options.signal);
    }
  }

  /** Stored: every unit that was not, is now, verified. */
  async stream(): Promise<void> {
    if (this.isThere) return;
    const { plan } = this.requirePlan();
    const have = new Set(indexesIn(this.stored));
    const { reader: self, signal } = { reader: this.core.agentId, signal: this.options.signal };
    // Units that other agents read are theirs to send.
    for (const assignment of this.assignments().filter(({ reader }) => reader === self)) {
      const missing = [...indexesIn(assignment.ranges)].filter((index) => !have.has(index));
      if (missing.length > 0) await this.send(plan.units, missing, assignment);
    }
    signal.throwIfAborted();
    this.parts.rows.located(this.name, this.options.destination.home, "Stored");
  }

  /** Records that all is stored; a job of this volume alone does so when it asks for the commit. */
  noteStored(): void {
    if (this.isThere) return;
    this.parts.rows.save(this.name, { barrier: "Stored" });
  }

  /** The decision, for a job of this volume alone, and with it Released: recorded, together with Stored, before it is asked for. */
  async commit(): Promise<void> {
    const { plan, base } = this.requirePlan();
    this.parts.rows.save(this.name, { barrier: "Stored", commitAsked: 1 });
    const { toId } = this.subject().row;
    this.expectEnd();
    await this.api.commit(this.target, {
      baseId: base?.pointId ?? null,
      toId,
      planDigest: plan.digest,
      releases: true,
    });
  }

  /**
   * The home's vote. From the moment it is asked for, the outcome is the group home's. A home that has the point already only says
   * that it has, and that no other vote of it is open: so the decision can name it as well.
   */
  async prepare(request: Pick<PrepareRequest, "groupPoint" | "members">): Promise<void> {
    const part = this.part();
    if (part === undefined) return;
    this.parts.rows.save(this.name, { isPrepared: 1, planDigest: part.planDigest });
    await this.api.prepare(this.target, { ...request, ...part });
  }

  /** What is voted for, or was committed before; undefined when that is not remembered there any more. */
  private part(): MemberPart | undefined {
    const { toId } = this.subject().row;
    if (this.isThere) return committedAs(this.report, toId);
    const { plan, base } = this.requirePlan();
    return { baseId: base?.pointId ?? null, toId, planDigest: plan.digest };
  }

  /** Committed: moves the base to the newest point both sides have. */
  moveBase(report?: Report): void {
    moveBase(this.core, this.parts, {
      subject: this.subject(),
      clusterUid: this.options.destination.clusterUid,
      report,
    });
  }

  /** Released: ends the term. The caller records it, with whatever else ends then. */
  release(): Promise<void> {
    this.expectEnd();
    return this.api.release(this.target);
  }

  abort(options: { discard: boolean }): Promise<void> {
    this.expectEnd();
    return this.api.abort(this.target, options);
  }

  /** Which agents read and store which units. */
  assignments(): Assignment[] {
    const { storers } = this.options.destination;
    const { units } = this.requirePlan().plan;
    return assignUnits({
      unitBytes: Array.from({ length: units.length }, (_, index) => units.dataBytesOf(index)),
      readers: [this.core.agentId],
      storers: storers.map(({ agentId }) => agentId),
    });
  }

  /** What freezing answered, if that went along. */
  private async putPlan(header: PlanHeader, units: UnitList): Promise<FreezeResult | null> {
    const freezes = (page?: PlanPage) =>
      this.options.group === undefined && (page === undefined ? 0 : page.first + page.units.length) === units.length;
    const pages = pagesOf(units, this.core.limits.pageUnits);
    const { value: first } = pages.next();
    const extras = { ...(first && { page: first }), freezes: freezes(first) };
    let { frozen } = await this.api.putPlan(this.target, header, extras);
    for (const page of pages) ({ frozen } = await this.api.putPlanPage(this.target, page, { freezes: freezes(page) }));
    return frozen;
  }

  private noteFrozen({ stored }: FreezeResult, change: JobChange = {}): void {
    this.stored = stored;
    this.isFrozen = true;
    const { rows } = this.parts;
    rows.save(this.name, { barrier: "Frozen", ...change, ...progressAt(this.requirePlan().plan.units, stored) });
    rows.start(this.name);
    rows.located(this.name, this.options.destination.home, "Frozen");
  }

  private async send(units: UnitList, missing: readonly number[], { storer }: Assignment): Promise<void> {
    const { row, to } = this.subject();
    const { destination, signal } = this.options;
    const { connection, clusterUid, storers, home } = destination;
    const { rows, locations } = this.parts;
    const { transport = "tls", verification = "media" } = locations.spec(row.location);
    const live = rows.start(this.name);
    const reader = await this.core.storage.openPoint(row.owner, sealedPoint(to));
    try {
      await sendUnits({
        api: connection.at(storers.find(({ agentId }) => agentId === storer) ?? home),
        transport,
        dialer: connection.lanes[transport],
        verification,
        target: this.target,
        peerClusterUid: clusterUid,
        reader,
        units,
        missing,
        lanes: this.core.limits.lanesPerJob,
        windowBytes: this.core.limits.windowBytes,
        signal,
        pace: (bytes, stop) => locations.pace(row.location, bytes, stop),
        progress: {
          sent: (bytes) => {
            live.bytesSent += bytes;
          },
          stored: (count, bytes, verified) => {
            live.unitsStored += count;
            live.bytesStored += bytes;
            live.verified = weakestOf([verified, live.verified ?? verified]) ?? verified;
            rows.progressed(this.name);
          },
        },
      });
    } finally {
      await reader.close();
    }
  }

  private header({ row, to }: Subject, { base, mode, plan, diverged, lineage }: Planned): PlanHeader {
    const { group } = this.options;
    return {
      job: jobOf(row),
      baseId: base?.pointId ?? null,
      to: pointRef(to),
      mode,
      unitCount: plan.units.length,
      bytesData: plan.bytesData,
      bytesPunched: plan.bytesPunched,
      planDigest: plan.digest,
      diverged,
      ...(group && { groupPoint: group.groupPoint }),
      ...(lineage && { lineage }),
    };
  }

  /** For the point and the plan of now: a vote for another plan was void as soon as this one was put. */
  private hasVoted(): boolean {
    const { prepared, staging } = this.report;
    const isForThis = prepared !== undefined && prepared.groupPoint === this.options.group?.groupPoint;
    return isForThis && staging?.planDigest === this.requirePlan().plan.digest;
  }

  private requirePlan(): Planned {
    if (this.planned !== undefined) return this.planned;
    throw new LongshoreError("PlanMismatch", `job ${jobOf(this.subject().row)} has not planned under this term`);
  }

  private subject(): Subject {
    return subjectOf(this.core, this.parts.rows, this.name);
  }
}

/** A member's part of a group's decision. */
export type MemberPart = Pick<GroupCommitMember, "baseId" | "toId" | "planDigest">;

/** The part that is there, as it was committed, by whatever job. */
export function committedAs({ commits }: Report, toId: string): MemberPart | undefined {
  const done = commits.find((commit) => commit.toId === toId);
  return done && { baseId: done.baseId, toId, planDigest: done.planDigest };
}

export function hasPoint(report: Report, toId: string): boolean {
  return report.points.some((point: PointRef) => point.pointId === toId);
}

/** What a job's row tells of its plan, also when nothing is moved. */
export function whatIsPlanned({ base, mode, plan }: Planned): JobChange {
  return {
    fromJson: base === undefined ? null : JSON.stringify(pointRef(base)),
    modeJson: JSON.stringify(mode),
    bytesTotal: plan.bytesData,
    bytesPunched: plan.bytesPunched,
    unitsTotal: plan.units.length,
  };
}

function everyUnit(units: UnitList): [number, number][] {
  return units.length === 0 ? [] : [[0, units.length - 1]];
}

function progressAt(units: UnitList, stored: readonly (readonly [number, number])[]) {
  const indexes = [...indexesIn(stored)];
  const bytesStored = indexes.reduce((sum, index) => sum + units.dataBytesOf(index), 0);
  return { unitsStored: indexes.length, bytesStored };
}
