// Jobs as rows: what a migration of one volume to one location has durably reached, and how the API shows it.
import { LongshoreError } from "../domain/errors.ts";
import { volumesOf } from "../domain/job-subject.ts";
import type {
  Barrier,
  JobSpec,
  JobState,
  JobView,
  JobVolume,
  Mode,
  ParticipantView,
  PointRef,
  Problem,
} from "../wire/schemas.ts";
import { type Core, timeText } from "./core.ts";
import type { Value } from "./journal.ts";

export interface JobRow {
  readonly name: string;
  readonly specJson: string;
  /** UID of the volume. */
  readonly owner: string;
  readonly location: string;
  readonly toId: string;
  readonly fromJson: string | null;
  readonly toJson: string;
  readonly state: JobState;
  readonly barrier: Barrier;
  /** The highest epoch granted to this job; a term below it is never acted on. */
  readonly epoch: number;
  readonly nonce: string | null;
  readonly attempts: number;
  /** Set before the first request to commit: from then on the outcome may be unknown. */
  readonly commitAsked: number;
  readonly modeJson: string | null;
  readonly planDigest: string | null;
  readonly bytesTotal: number;
  readonly bytesPunched: number;
  readonly bytesSent: number;
  readonly bytesStored: number;
  readonly unitsTotal: number;
  readonly unitsStored: number;
  readonly verified: "media" | "memory" | null;
  readonly createdAt: number;
  readonly startedAt: number | null;
  readonly finishedAt: number | null;
  readonly errorJson: string | null;
  /** Of a volume's share: the group's job it belongs to. */
  readonly parent: string | null;
  /** Of a group's job: a ShareSpec. */
  readonly shareJson: string | null;
  /** The home of the copy was asked to vote under the present epoch. */
  readonly isPrepared: number;
  readonly revision: number;
}

/** What changes by the second: kept in memory, written with the next step that is. */
export interface LiveProgress {
  bytesSent: number;
  bytesStored: number;
  unitsStored: number;
  verified: "media" | "memory" | null;
  readonly startedMs: number;
  readonly bytesStoredAtStart: number;
  targetAgent: string | null;
  targetBarrier: Barrier | null;
}

export type JobChange = { [K in keyof JobRow]?: JobRow[K] };

/** The moves a job's state may make; anything else is a bug. */
export const jobMoves = {
  Pending: ["Running", "Suspended", "Failed", "Cancelled"],
  Running: ["Running", "Pending", "Suspended", "Undecided", "Succeeded", "Failed", "Cancelled"],
  Suspended: ["Pending", "Cancelled", "Failed"],
  Undecided: ["Running", "Undecided", "Succeeded", "Failed", "Cancelled"],
  Succeeded: [],
  Failed: [],
  Cancelled: [],
} as const satisfies Record<JobState, readonly JobState[]>;

const publishIntervalMs = 500;

export class JobRows {
  private readonly core: Core;
  private readonly live = new Map<string, LiveProgress>();
  private readonly publishedMs = new Map<string, number>();

  constructor(core: Core) {
    this.core = core;
  }

  all(): JobRow[] {
    return this.core.journal.all<JobRow>("SELECT * FROM jobs ORDER BY createdAt, name");
  }

  unfinished(): JobRow[] {
    return this.core.journal.all<JobRow>("SELECT * FROM jobs WHERE finishedAt IS NULL ORDER BY createdAt, name");
  }

  find(name: string): JobRow | undefined {
    return this.core.journal.get<JobRow>("SELECT * FROM jobs WHERE name = ?", name);
  }

  /** Throws `NotFound`. */
  row(name: string): JobRow {
    const row = this.find(name);
    if (row === undefined) throw new LongshoreError("NotFound", `job ${name} does not exist`);
    return row;
  }

  /** Within a transaction. */
  insert(name: string, spec: JobSpec, facts: { owner: string; to: PointRef }): void {
    this.core.journal.run(
      `INSERT INTO jobs (name, specJson, owner, location, toId, toJson, state, barrier, epoch, attempts, commitAsked, bytesTotal,
       bytesPunched, bytesSent, bytesStored, unitsTotal, unitsStored, createdAt, revision)
       VALUES (?,?,?,?,?,?,'Pending','None',0,0,0,0,0,0,0,0,0,?,1)`,
      name,
      JSON.stringify(spec),
      facts.owner,
      spec.location,
      facts.to.pointId,
      JSON.stringify(facts.to),
      this.core.clock.nowMs(),
    );
  }

  /** Within a transaction: writes columns, and checks that the state may move so. */
  change(name: string, change: JobChange): void {
    const row = this.row(name);
    if (change.state !== undefined && change.state !== row.state) {
      const moves: readonly JobState[] = jobMoves[row.state];
      if (!moves.includes(change.state)) {
        throw new LongshoreError("Conflict", `job ${name} is ${row.state}; it cannot become ${change.state}`);
      }
    }
    const columns = Object.entries(change) as [string, Value][];
    this.core.journal.run(
      `UPDATE jobs SET ${columns.map(([column]) => `${column} = ?, `).join("")}revision = revision + 1 WHERE name = ?`,
      ...columns.map(([, value]) => value),
      name,
    );
  }

  /** {@link change} in a transaction of its own, told to the readers; progress so far is written with it. */
  save(name: string, change: JobChange): void {
    this.core.journal.transaction(() => this.change(name, { ...this.progressOf(name), ...change }));
    this.publish(name);
  }

  publish(name: string): void {
    this.publishedMs.set(name, this.core.clock.monotonicMs());
    this.core.feed.publish("job", name);
  }

  start(name: string): LiveProgress {
    const row = this.row(name);
    const progress: LiveProgress = {
      bytesSent: row.bytesSent,
      bytesStored: row.bytesStored,
      unitsStored: row.unitsStored,
      verified: row.verified,
      startedMs: this.core.clock.monotonicMs(),
      bytesStoredAtStart: row.bytesStored,
      targetAgent: this.live.get(name)?.targetAgent ?? null,
      targetBarrier: this.live.get(name)?.targetBarrier ?? null,
    };
    this.live.set(name, progress);
    return progress;
  }

  /** Progress moved; readers are told at most twice a second. */
  progressed(name: string): void {
    const sinceMs = this.core.clock.monotonicMs() - (this.publishedMs.get(name) ?? Number.NEGATIVE_INFINITY);
    if (sinceMs >= publishIntervalMs) this.publish(name);
  }

  stop(name: string): void {
    this.live.delete(name);
    this.publishedMs.delete(name);
  }

  progressOf(name: string): JobChange {
    const live = this.live.get(name);
    if (live === undefined) return {};
    const { bytesSent, bytesStored, unitsStored, verified } = live;
    return { bytesSent, bytesStored, unitsStored, verified };
  }

  view(row: JobRow): JobView {
    const now = { ...row, ...this.progressOf(row.name) };
    const live = this.live.get(row.name);
    const rate = live && row.finishedAt === null ? this.rate(live) : null;
    return {
      name: row.name,
      spec: JSON.parse(row.specJson) as JobSpec,
      state: row.state,
      barrier: row.barrier,
      epoch: row.epoch,
      attempts: row.attempts,
      from: row.fromJson === null ? null : (JSON.parse(row.fromJson) as PointRef),
      to: JSON.parse(row.toJson) as PointRef,
      mode: row.modeJson === null ? null : (JSON.parse(row.modeJson) as Mode),
      bytesTotal: now.bytesTotal,
      bytesPunched: now.bytesPunched,
      bytesSent: now.bytesSent,
      bytesStored: now.bytesStored,
      unitsTotal: now.unitsTotal,
      unitsStored: now.unitsStored,
      bytesPerSecond: rate,
      etaSeconds: rate === null || rate <= 0 ? null : Math.max(0, now.bytesTotal - now.bytesStored) / rate,
      verified: now.verified,
      createdAt: timeText(row.createdAt),
      startedAt: row.startedAt === null ? null : timeText(row.startedAt),
      finishedAt: row.finishedAt === null ? null : timeText(row.finishedAt),
      durationMs: row.startedAt === null || row.finishedAt === null ? null : row.finishedAt - row.startedAt,
      error: row.errorJson === null ? null : (JSON.parse(row.errorJson) as Problem),
      participants: this.participants(row, live),
      volumes: [this.volume(row)],
      revision: row.revision,
    };
  }

  /** One volume's part of a job, from its row. */
  volume(row: JobRow): JobVolume {
    const now = { ...row, ...this.progressOf(row.name) };
    const live = this.live.get(row.name);
    return {
      volume: (JSON.parse(row.specJson) as JobSpec).volume ?? "",
      uid: row.owner,
      toId: row.toId,
      barrier: row.barrier,
      isPrepared: row.isPrepared === 1,
      from: row.fromJson === null ? null : (JSON.parse(row.fromJson) as PointRef),
      mode: row.modeJson === null ? null : (JSON.parse(row.modeJson) as Mode),
      planDigest: row.planDigest,
      bytesTotal: now.bytesTotal,
      bytesPunched: now.bytesPunched,
      bytesSent: now.bytesSent,
      bytesStored: now.bytesStored,
      unitsTotal: now.unitsTotal,
      unitsStored: now.unitsStored,
      verified: now.verified,
      targetAgent: live?.targetAgent ?? null,
      targetBarrier: live?.targetBarrier ?? null,
    };
  }

  private rate(live: LiveProgress): number | null {
    const seconds = (this.core.clock.monotonicMs() - live.startedMs) / 1000;
    return seconds < 0.05 ? null : (live.bytesStored - live.bytesStoredAtStart) / seconds;
  }

  private participants(row: JobRow, live: LiveProgress | undefined): ParticipantView[] {
    const error = row.errorJson === null ? null : (JSON.parse(row.errorJson) as Problem).detail;
    const common = {
      state: participantState(row),
      volumes: [...volumesOf(JSON.parse(row.specJson) as JobSpec)],
      barrier: row.barrier,
      epoch: row.epoch,
      unitsDone: live?.unitsStored ?? row.unitsStored,
      lastHeardAt: null,
    };
    const { agentId, node } = this.core;
    const here: ParticipantView = { agentId, node, role: "coordinator", ...common, lastError: error };
    const there = live?.targetAgent;
    if (there == null) return [here];
    return [here, { agentId: there, node: null, role: "decider", ...common, lastError: null }];
  }
}

function participantState({ state, finishedAt }: JobRow): ParticipantView["state"] {
  if (finishedAt !== null) return "finished";
  return state === "Running" ? "running" : "idle";
}
