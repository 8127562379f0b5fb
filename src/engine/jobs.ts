// The jobs of this node: taken in under the client's names, admitted from one ledger, driven by the coordinator, retried
// within bounds, and ended with a reason. A job that is asked to commit and then hears nothing is `Undecided`, never given up.
import { backoffMs } from "../base/backoff.ts";
import { describe, isRetryable, LongshoreError } from "../domain/errors.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { JobSpec, JobState, JobView } from "../wire/schemas.ts";
import { Coordinator } from "./coordinator.ts";
import { type Core, checkRevision, problemOf } from "./core.ts";
import { type JobRow, JobRows } from "./job-rows.ts";
import type { Locations } from "./locations.ts";
import { dropHold, pointRef, takeHold } from "./points.ts";
import type { Volumes } from "./volumes.ts";

/** Why a running job was interrupted; the job itself goes on from there another time. */
class Interrupted extends Error {
  override readonly name = "Interrupted";
}

export class Jobs {
  private readonly core: Core;
  private readonly rows: JobRows;
  private readonly volumes: Volumes;
  private readonly locations: Locations;
  private readonly coordinator: Coordinator;
  private readonly running = new Map<string, { row: JobRow; stop: AbortController }>();

  constructor(core: Core, parts: { volumes: Volumes; locations: Locations }) {
    this.core = core;
    this.volumes = parts.volumes;
    this.locations = parts.locations;
    this.rows = new JobRows(core);
    this.coordinator = new Coordinator(core, { rows: this.rows, ...parts });
  }

  list(): JobView[] {
    return this.rows.all().map((row) => this.rows.view(row));
  }

  get(name: string): JobView {
    return this.rows.view(this.rows.row(name));
  }

  /** See AgentApi.putJob. */
  put(name: string, spec: JobSpec, { ifMatch }: Precondition): JobView {
    const known = this.rows.find(name);
    checkRevision(`job ${name}`, known?.revision ?? 0, ifMatch);
    if (known === undefined) this.take(name, spec);
    else this.steer(known, spec);
    this.rows.publish(name);
    this.admit();
    return this.get(name);
  }

  /** See AgentApi.removeJob. */
  remove(name: string): void {
    const row = this.rows.find(name);
    if (row === undefined) return;
    if (row.finishedAt === null) throw new LongshoreError("InUse", `job ${name} is ${row.state}; cancel it first`);
    this.core.journal.transaction(() => this.core.journal.run("DELETE FROM jobs WHERE name = ?", name));
    this.core.feed.publish("job", name);
  }

  async *follow(name: string, signal: AbortSignal): AsyncIterable<JobView> {
    const changes = this.core.feed.follow(this.core.feed.sequence, signal);
    let view = this.get(name);
    yield view;
    if (view.finishedAt !== null) return;
    for await (const change of changes) {
      if (change.kind !== "resync" && (change.kind !== "job" || change.name !== name)) continue;
      view = this.get(name);
      yield view;
      if (view.finishedAt !== null) return;
    }
  }

  /** Starts what may run: in the order of asking, one per volume and location, within the limits. */
  admit(): void {
    if (this.core.tasks.signal.aborted) return;
    for (const row of this.rows.unfinished()) {
      if (row.state === "Suspended" || this.running.has(row.name) || !this.hasRoom(row)) continue;
      const stop = new AbortController();
      this.running.set(row.name, { row, stop });
      this.core.tasks.spawn(`job ${row.name}`, (signal) => this.run(row.name, AbortSignal.any([signal, stop.signal])));
    }
  }

  /** Forgets finished jobs past their history. */
  expire(): void {
    const before = this.core.clock.nowMs() - this.core.limits.jobHistoryMs;
    this.core.journal.transaction(() => this.core.journal.run("DELETE FROM jobs WHERE finishedAt < ?", before));
  }

  private take(name: string, spec: JobSpec): void {
    const volume = this.volumes.row(spec.volume);
    const location = this.locations.spec(spec.location);
    const to = this.volumes.requireSnapshot(volume.uid, spec.volume, spec.snapshot);
    const { journal, log } = this.core;
    journal.transaction(() => {
      takeHold(this.core, { owner: volume.uid, pointId: to.pointId, reason: "job", holder: name });
      this.rows.insert(name, spec, { owner: volume.uid, to: pointRef(to) });
      this.volumes.touch(volume.uid);
      if (spec.suspend === true) this.rows.change(name, { state: "Suspended" });
      if (spec.cancel === true) this.rows.change(name, { state: "Cancelled", finishedAt: this.core.clock.nowMs() });
    });
    log.info({ job: name, volume: spec.volume, location: spec.location, cluster: location.clusterName }, "job taken");
  }

  private steer(row: JobRow, spec: JobSpec): void {
    const old = JSON.parse(row.specJson) as JobSpec;
    const isSame =
      old.volume === spec.volume &&
      old.location === spec.location &&
      old.snapshot === spec.snapshot &&
      (old.dryRun ?? false) === (spec.dryRun ?? false);
    if (!isSame) throw new LongshoreError("NameTaken", `job ${row.name} exists with other parameters`);
    if (row.finishedAt !== null || JSON.stringify(old) === JSON.stringify(spec)) return;
    this.core.journal.transaction(() => {
      this.rows.change(row.name, { specJson: JSON.stringify(spec) });
      if (spec.suspend !== true && row.state === "Suspended") this.rows.change(row.name, { state: "Pending" });
    });
    if (row.state === "Suspended" && spec.cancel !== true) return;
    if (spec.cancel === true || spec.suspend === true) {
      const running = this.running.get(row.name);
      if (running !== undefined) running.stop.abort(new Interrupted("asked to stop"));
      else if (spec.cancel === true) this.finish(row.name, "Cancelled");
      else this.rows.save(row.name, { state: "Suspended" });
    }
  }

  private hasRoom(row: JobRow): boolean {
    const { jobsMax, jobsPerLocationMax } = this.core.limits;
    const others = [...this.running.values()].map((other) => other.row);
    const there = others.filter((other) => other.location === row.location);
    const max = this.locations.jobsMax(row.location) ?? jobsPerLocationMax;
    return others.length < jobsMax && there.length < max && !there.some((other) => other.owner === row.owner);
  }

  private async run(name: string, signal: AbortSignal): Promise<void> {
    try {
      const { state, startedAt, specJson } = this.rows.row(name);
      const { suspend, cancel } = JSON.parse(specJson) as JobSpec;
      if (state !== "Undecided") {
        this.rows.save(name, { state: "Running", startedAt: startedAt ?? this.core.clock.nowMs() });
      }
      if (suspend !== true && cancel !== true) await this.retrying(name, signal);
      else await this.interrupted(name);
      if (this.rows.row(name).state === "Undecided") await this.pause(1, signal);
    } finally {
      this.running.delete(name);
      this.rows.stop(name);
      if (!this.core.tasks.signal.aborted) this.admit();
    }
  }

  /** Attempts until the job has ended. Attempts and time count from the last progress. */
  private async retrying(name: string, signal: AbortSignal): Promise<void> {
    const { clock, limits } = this.core;
    let tries = 0;
    let progressAtMs = clock.monotonicMs();
    let reached = this.reached(name);
    for (;;) {
      try {
        await this.attempt(name, signal);
        return;
      } catch (error) {
        if (signal.aborted) return this.interrupted(name);
        if (this.reached(name) > reached) {
          reached = this.reached(name);
          tries = 0;
          progressAtMs = clock.monotonicMs();
        }
        tries += 1;
        this.noteFailure(name, error);
        const isOver = tries >= limits.attemptsMax || clock.monotonicMs() - progressAtMs > limits.deadlineMs;
        if (isOver || !isRetryable(error)) {
          if (await this.giveUp(name, error)) return;
        }
        if (!(await this.pause(tries, signal))) return this.interrupted(name);
      }
    }
  }

  private async attempt(name: string, signal: AbortSignal): Promise<void> {
    const connection = this.locations.connection(this.rows.row(name).location);
    const result = await this.coordinator.attempt(name, connection, signal);
    const { bytesTotal, bytesSent } = this.rows.view(this.rows.row(name));
    this.finish(name, "Succeeded");
    if (result === "dryRun") return;
    this.countTransfer(name, { bytesTotal, bytesSent });
  }

  /** A number that grows with whatever the job has durably gained. */
  private reached(name: string): number {
    const barriers = ["None", "Joined", "Frozen", "Stored", "Committed", "Released"];
    const { barrier, unitsStored } = { ...this.rows.row(name), ...this.rows.progressOf(name) };
    return barriers.indexOf(barrier) * 2 ** 32 + (unitsStored ?? 0);
  }

  private noteFailure(name: string, error: unknown): void {
    const row = this.rows.row(name);
    this.rows.save(name, { attempts: row.attempts + 1, errorJson: JSON.stringify(problemOf(error)) });
    this.core.log.warn({ job: name, barrier: row.barrier, attempt: row.attempts + 1, err: error }, "attempt failed");
    this.core.metrics
      .counter("longshore_job_attempts_failed_total", "Attempts that failed, by reason", ["code"])
      .add({ code: problemOf(error).code });
  }

  /** False when the signal ended the wait. */
  private async pause(tries: number, signal: AbortSignal): Promise<boolean> {
    const { retryDelayMs, retryDelayMsMax } = this.core.limits;
    const delayMs = backoffMs(Math.min(tries, 30), { baseMs: retryDelayMs, maxMs: retryDelayMsMax }, this.core.dice);
    try {
      await this.core.clock.sleep(delayMs, signal);
      return true;
    } catch (error) {
      if (!signal.aborted) throw error;
      return false;
    }
  }

  /**
   * The end of retrying, decided from the participants' states: committed is finished forward, anything else is Failed
   * once it is certain. False while it is not: after a commit was asked for, only the target knows.
   */
  private async giveUp(name: string, reason: unknown): Promise<boolean> {
    const outcome = await this.resolve(name, { discard: false });
    if (outcome === "committed") return true;
    if (outcome === "unknown" && this.rows.row(name).commitAsked === 1) {
      this.undecided(name);
      return false;
    }
    this.finish(name, "Failed", reason);
    return true;
  }

  /** Fences off every earlier request and asks the target; what is committed is finished, anything else aborted there. */
  private async resolve(name: string, options: { discard: boolean }): Promise<"committed" | "aborted" | "unknown"> {
    try {
      const connection = this.locations.connection(this.rows.row(name).location);
      const outcome = await this.coordinator.outcome(name, connection);
      if (!outcome.isCommitted) {
        await connection.api.abort(outcome.target, options);
        return "aborted";
      }
      await this.coordinator.finishForward(name, connection, outcome);
      this.finish(name, "Succeeded");
      return "committed";
    } catch (error) {
      this.core.log.warn({ job: name, err: error }, "the outcome at the target could not be asked for");
      return "unknown";
    }
  }

  private undecided(name: string): void {
    if (this.rows.row(name).state !== "Undecided") this.rows.save(name, { state: "Undecided" });
  }

  /** Stopped by the agent's end (it goes on after the next start), or by the user: suspended or cancelled. */
  private async interrupted(name: string): Promise<void> {
    if (this.core.tasks.signal.aborted) return;
    const row = this.rows.row(name);
    const { cancel } = JSON.parse(row.specJson) as JobSpec;
    // A job that never had a term has left nothing at the target.
    const outcome = row.epoch === 0 ? "aborted" : await this.resolve(name, { discard: cancel === true });
    if (outcome === "committed") return;
    if (outcome === "unknown" && row.commitAsked === 1) this.undecided(name);
    else if (cancel === true) this.finish(name, "Cancelled");
    else this.rows.save(name, { state: "Suspended", barrier: "None" });
  }

  /** The end: state, reason and holds in one transaction. */
  private finish(name: string, state: JobState, reason?: unknown): void {
    const row = this.rows.row(name);
    const { journal, clock, log } = this.core;
    const errorJson = reason === undefined ? null : JSON.stringify(problemOf(reason));
    journal.transaction(() => {
      this.rows.change(name, { ...this.rows.progressOf(name), state, finishedAt: clock.nowMs(), errorJson });
      for (const { pointId } of journal.all<{ pointId: string }>(
        "SELECT pointId FROM holds WHERE owner = ? AND reason = 'job' AND holder = ?",
        row.owner,
        name,
      )) {
        dropHold(journal, { owner: row.owner, pointId, reason: "job", holder: name });
      }
      this.volumes.touch(row.owner);
    });
    this.rows.publish(name);
    this.core.metrics.counter("longshore_jobs_finished_total", "Jobs that ended, by state", ["state"]).add({ state });
    log.info({ job: name, state, reason: reason === undefined ? undefined : describe(reason) }, "job finished");
    this.core.tasks.spawn("sweep", () => this.volumes.sweep(row.owner));
  }

  private countTransfer(name: string, bytes: { bytesTotal: number; bytesSent: number }): void {
    const { location, modeJson } = this.rows.row(name);
    const mode = modeJson === null ? "none" : (JSON.parse(modeJson) as { kind: string }).kind;
    const { metrics } = this.core;
    const labels = { location, mode };
    metrics
      .counter("longshore_migrated_bytes_total", "Changed bytes that were migrated", ["location", "mode"])
      .add(labels, bytes.bytesTotal);
    metrics
      .counter("longshore_sent_bytes_total", "Bytes put on the wire for them", ["location", "mode"])
      .add(labels, bytes.bytesSent);
  }
}
