// Jobs as rows: what a migration to one location has durably reached. A group's job has a row of its own and one more for each
// of its volumes on this node, its shares. How the API shows them is job-views.ts.

import { LongshoreError } from "../domain/errors.ts";
import type { Verification } from "../domain/verification.ts";
import type { Barrier, JobSpec, JobState, JobVolume, Member, Mode, PointRef } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
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
  readonly verified: Verification | null;
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
  /** A HeardTarget, once the home of the copy is known. */
  readonly targetJson: string | null;
  /** Of a group's job that has ended: what was heard of it by then (job-views.ts). */
  readonly heardJson: string | null;
  readonly revision: number;
}

/** What changes by the second: kept in memory, written with the next step that is. */
export interface LiveProgress {
  bytesSent: number;
  bytesStored: number;
  unitsStored: number;
  verified: Verification | null;
  readonly startedMs: number;
  readonly bytesStoredAtStart: number;
  target: HeardTarget | null;
}

/** The home of a copy, and what was heard of it last. */
export interface HeardTarget {
  readonly agentId: string;
  readonly node: string;
  readonly barrier: Barrier;
  readonly heardAtMs: number;
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
    return this.core.journal.all<JobRow>("SELECT * FROM jobs WHERE parent IS NULL ORDER BY createdAt, name");
  }

  unfinished(): JobRow[] {
    const sql = "SELECT * FROM jobs WHERE finishedAt IS NULL AND parent IS NULL ORDER BY createdAt, name";
    return this.core.journal.all<JobRow>(sql);
  }

  /** The shares of a group's job that are this node's, in the order of the group; none for a job of one volume. */
  sharesOf(name: string): JobRow[] {
    return this.core.journal.all<JobRow>("SELECT * FROM jobs WHERE parent = ? ORDER BY rowid", name);
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
  insert(
    name: string,
    spec: JobSpec,
    facts: { owner: string; to: PointRef; parent?: string; shareJson?: string },
  ): void {
    this.core.journal.run(
      `INSERT INTO jobs (name, specJson, owner, location, toId, toJson, parent, shareJson, state, barrier, epoch, attempts,
       commitAsked, bytesTotal, bytesPunched, bytesSent, bytesStored, unitsTotal, unitsStored, createdAt, revision)
       VALUES (?,?,?,?,?,?,?,?,'Pending','None',0,0,0,0,0,0,0,0,0,?,1)`,
      name,
      JSON.stringify(spec),
      facts.owner,
      spec.location,
      facts.to.pointId,
      JSON.stringify(facts.to),
      facts.parent ?? null,
      facts.shareJson ?? null,
      this.core.clock.nowMs(),
    );
  }

  /** Within a transaction: with the shares of a group's job. */
  remove(name: string): void {
    this.core.journal.run("DELETE FROM jobs WHERE parent = ?", name);
    this.core.journal.run("DELETE FROM jobs WHERE name = ?", name);
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

  /** A share is shown as a part of its group's job. */
  publish(name: string): void {
    // Of what does not move, nothing has to be held back.
    if (this.live.has(name)) this.publishedMs.set(name, this.core.clock.monotonicMs());
    this.core.feed.publish("job", shownAs(name));
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
      target: this.live.get(name)?.target ?? null,
    };
    this.live.set(name, progress);
    return progress;
  }

  /** What the home of the copy was heard to have reached. */
  located(name: string, { agentId, node }: Pick<Member, "agentId" | "node">, barrier: Barrier): void {
    const live = this.live.get(name) ?? this.start(name);
    live.target = { agentId, node, barrier, heardAtMs: this.core.clock.nowMs() };
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
    const { bytesSent, bytesStored, unitsStored, verified, target } = live;
    return { bytesSent, bytesStored, unitsStored, verified, ...(target && { targetJson: JSON.stringify(target) }) };
  }

  /** One volume's part of a job, from its row. */
  volume(row: JobRow): JobVolume {
    const now = { ...row, ...this.progressOf(row.name) };
    const target = this.target(row);
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
      targetAgent: target?.agentId ?? null,
      targetBarrier: target?.barrier ?? null,
    };
  }

  /** The home of a copy, as it was heard of last; null before it is known. */
  target({ name, targetJson }: Pick<JobRow, "name" | "targetJson">): HeardTarget | null {
    const heard = this.live.get(name)?.target;
    if (heard !== undefined && heard !== null) return heard;
    return targetJson === null ? null : (JSON.parse(targetJson) as HeardTarget);
  }

  /** Bytes stored in a second since the present attempt began to stream; null when there is nothing to tell. */
  rate(name: string): number | null {
    const live = this.live.get(name);
    if (live === undefined) return null;
    const seconds = (this.core.clock.monotonicMs() - live.startedMs) / 1000;
    return seconds < 0.05 ? null : (live.bytesStored - live.bytesStoredAtStart) / seconds;
  }
}

/** The job that a row belongs to, as everybody else knows it: its own name, or that of the group's job. */
export function jobOf({ name, parent }: Pick<JobRow, "name" | "parent">): string {
  return parent ?? name;
}

export function isGroup({ shareJson }: Pick<JobRow, "shareJson">): boolean {
  return shareJson !== null;
}

/** Names that clients give have no slash in them, so a share's row is nobody else's. */
export function shareName(job: string, index: number): string {
  return `${job}/${index}`;
}

function shownAs(name: string): string {
  return name.split("/")[0] as string;
}
