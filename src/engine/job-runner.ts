// One job from its admission to its end: attempts, retries within bounds, and the end decided from what the target says. A
// job that was asked to commit and then hears nothing is `Undecided`, never given up.
import { backoffMs } from "../base/backoff.ts";
import { codeOf, describe, isRetryable } from "../domain/errors.ts";
import type { JobSpec, JobState } from "../wire/schemas.ts";
import type { Coordinator } from "./coordinator.ts";
import { type Core, problemOf } from "./core.ts";
import type { JobRow, JobRows } from "./job-rows.ts";
import type { JobSlots, Slot } from "./job-slots.ts";
import type { Locations } from "./locations.ts";
import type { Volumes } from "./volumes.ts";

/** `now`: something else is asked of the job; `later`: try again after a pause. */
type Step = "ended" | "now" | "later";

/** How much trying is left, counted from the last progress. */
interface Patience {
  tries: number;
  progressAtMs: number;
  reached: number;
}

const barriers = ["None", "Joined", "Frozen", "Stored", "Committed", "Released"];

interface Parts {
  readonly rows: JobRows;
  readonly slots: JobSlots;
  readonly coordinator: Coordinator;
  readonly locations: Locations;
  readonly volumes: Volumes;
}

export class JobRunner {
  private readonly core: Core;
  private readonly parts: Parts;

  constructor(core: Core, parts: Parts) {
    this.core = core;
    this.parts = parts;
  }

  /** Drives a job until it has ended or was suspended, or the agent stops: then it goes on after the next start. */
  async run(name: string, slot: Slot, stopping: AbortSignal): Promise<void> {
    const patience: Patience = {
      tries: 0,
      progressAtMs: this.core.clock.monotonicMs(),
      reached: this.reached(name),
    };
    while (!stopping.aborted) {
      slot.stop = new AbortController();
      const signal = AbortSignal.any([stopping, slot.stop.signal]);
      const step = await this.stepSafely(name, patience, signal);
      if (step === "ended") return;
      if (step === "later") await this.pause(slot, patience.tries, signal);
    }
  }

  /** The end: state, reason and holds in one transaction. */
  finish(name: string, state: JobState, reason?: unknown): void {
    const { rows, volumes } = this.parts;
    const { journal, clock, log, metrics } = this.core;
    const row = rows.row(name);
    const errorJson = reason === undefined ? null : JSON.stringify(problemOf(reason));
    journal.transaction(() => {
      rows.change(name, { ...rows.progressOf(name), state, finishedAt: clock.nowMs(), errorJson });
      journal.run("DELETE FROM holds WHERE owner = ? AND reason = 'job' AND holder = ?", row.owner, name);
      volumes.touch(row.owner);
    });
    rows.publish(name);
    metrics.counter("longshore_jobs_finished_total", "Jobs that ended, by state", ["state"]).add({ state });
    log.info({ job: name, state, reason: reason === undefined ? undefined : describe(reason) }, "job finished");
    this.core.tasks.spawn("sweep", () => volumes.sweep(row.owner));
  }

  private async stepSafely(name: string, patience: Patience, signal: AbortSignal): Promise<Step> {
    try {
      return await this.step(name, patience, signal);
    } catch (error) {
      if (this.core.tasks.signal.aborted || this.isOver(name)) return "ended";
      // Such as a journal that cannot be written to: the job can neither go on nor end until it can.
      this.core.log.error({ job: name, err: error }, "the job cannot be recorded; it is tried again");
      patience.tries += 1;
      return "later";
    }
  }

  private async step(name: string, patience: Patience, signal: AbortSignal): Promise<Step> {
    const { rows } = this.parts;
    const { state, startedAt, specJson } = rows.row(name);
    const spec = JSON.parse(specJson) as JobSpec;
    if (spec.cancel === true || spec.suspend === true) return this.windDown(name, spec, patience);
    if (state !== "Undecided") {
      rows.save(name, { state: "Running", startedAt: startedAt ?? this.core.clock.nowMs() });
    }
    try {
      await this.attempt(name, signal);
      return "ended";
    } catch (error) {
      if (this.isOver(name)) return "ended";
      if (signal.aborted) return "now";
      return this.failed(name, error, patience);
    }
  }

  private async attempt(name: string, signal: AbortSignal): Promise<void> {
    const { rows, coordinator, locations } = this.parts;
    const connection = locations.connection(rows.row(name).location);
    const result = await coordinator.attempt(name, connection, signal);
    this.finish(name, "Succeeded");
    if (result === "committed") this.countTransfer(rows.row(name));
  }

  private async failed(name: string, error: unknown, patience: Patience): Promise<Step> {
    const { clock, limits } = this.core;
    if (this.reached(name) > patience.reached) {
      Object.assign(patience, { tries: 0, progressAtMs: clock.monotonicMs(), reached: this.reached(name) });
    }
    patience.tries += 1;
    this.noteFailure(name, error);
    // Waiting for somebody else's lease is not failing.
    const isTried = patience.tries >= limits.attemptsMax && codeOf(error) !== "LeaseHeld";
    const isOver = isTried || clock.monotonicMs() - patience.progressAtMs > limits.deadlineMs;
    if (!isOver && isRetryable(error)) return "later";
    return (await this.giveUp(name, error)) ? "ended" : "later";
  }

  /** A number that grows with whatever the job has durably gained. */
  private reached(name: string): number {
    const { rows } = this.parts;
    const { barrier, unitsStored } = { ...rows.row(name), ...rows.progressOf(name) };
    return barriers.indexOf(barrier) * 2 ** 32 + (unitsStored ?? 0);
  }

  private noteFailure(name: string, error: unknown): void {
    const { rows } = this.parts;
    const row = rows.row(name);
    rows.save(name, { attempts: row.attempts + 1, errorJson: JSON.stringify(problemOf(error)) });
    this.core.log.warn({ job: name, barrier: row.barrier, attempt: row.attempts + 1, err: error }, "attempt failed");
    this.core.metrics
      .counter("longshore_job_attempts_failed_total", "Attempts that failed, by reason", ["code"])
      .add({ code: problemOf(error).code });
  }

  /** Ends early when something else is asked of the job, or the agent stops. */
  private async pause(slot: Slot, tries: number, signal: AbortSignal): Promise<void> {
    const { retryDelayMs, retryDelayMsMax } = this.core.limits;
    const times = Math.min(Math.max(tries, 1), 30);
    const delayMs = backoffMs(times, { baseMs: retryDelayMs, maxMs: retryDelayMsMax }, this.core.dice);
    this.parts.slots.pause(slot);
    try {
      await this.core.clock.sleep(delayMs, signal);
    } catch (error) {
      if (!signal.aborted) throw error;
    }
    await this.parts.slots.resume(slot, signal);
  }

  /**
   * The end of retrying, decided from the participants' states: committed is finished forward, anything else is Failed
   * once it is certain. False while it is not: after a commit was asked for, only the target knows.
   */
  private async giveUp(name: string, reason: unknown): Promise<boolean> {
    const outcome = await this.resolve(name, { discard: false });
    if (outcome === "committed") return true;
    if (this.isUncertain(name, outcome)) return false;
    this.finish(name, "Failed", reason);
    return true;
  }

  /** Suspended or cancelled by the user: undone at the target, unless the target has committed already. */
  private async windDown(name: string, spec: JobSpec, patience: Patience): Promise<Step> {
    patience.tries += 1;
    const outcome = await this.resolve(name, { discard: spec.cancel === true });
    if (outcome === "committed") return "ended";
    if (this.isUncertain(name, outcome)) return "later";
    if (spec.cancel === true) this.finish(name, "Cancelled");
    else this.parts.rows.save(name, { state: "Suspended", barrier: "None" });
    return "ended";
  }

  /** Fences off every earlier request and asks the target; what is committed is finished, anything else aborted there. */
  private async resolve(name: string, options: { discard: boolean }): Promise<"committed" | "aborted" | "unknown"> {
    const { rows, coordinator, locations } = this.parts;
    const row = rows.row(name);
    // A job that never had a term has left nothing at the target but, perhaps, a grant that ends by itself.
    if (row.epoch === 0) return "aborted";
    try {
      const connection = locations.connection(row.location);
      const outcome = await coordinator.outcome(name, connection);
      if (outcome.isCommitted) {
        await coordinator.finishForward(name, connection, outcome);
        this.finish(name, "Succeeded");
        return "committed";
      }
      rows.save(name, { commitAsked: 0 });
      await connection.api.abort(outcome.target, options);
      return "aborted";
    } catch (error) {
      if (this.isOver(name)) return "committed";
      if (rows.row(name).barrier === "Committed") {
        // The base has moved; only the end of the term was not acknowledged, and terms end by themselves.
        this.finish(name, "Succeeded");
        return "committed";
      }
      this.core.log.warn({ job: name, err: error }, "the outcome at the target could not be asked for");
      return "unknown";
    }
  }

  /** Whether the target may have committed without our knowing; the job is Undecided then. */
  private isUncertain(name: string, outcome: "aborted" | "unknown"): boolean {
    const { rows } = this.parts;
    const row = rows.row(name);
    if (outcome === "aborted" || row.commitAsked === 0) return false;
    if (row.state !== "Undecided") {
      rows.save(name, { state: "Undecided" });
      this.core.log.error({ job: name }, "undecided: the target was asked to commit, and does not answer");
    }
    return true;
  }

  private isOver(name: string): boolean {
    const row = this.parts.rows.find(name);
    return row === undefined || row.finishedAt !== null;
  }

  private countTransfer({ location, modeJson, bytesTotal, bytesSent }: JobRow): void {
    const mode = modeJson === null ? "none" : (JSON.parse(modeJson) as { kind: string }).kind;
    const { metrics } = this.core;
    const labels = { location, mode };
    metrics
      .counter("longshore_migrated_bytes_total", "Changed bytes that were migrated", ["location", "mode"])
      .add(labels, bytesTotal);
    metrics
      .counter("longshore_sent_bytes_total", "Bytes put on the wire for them", ["location", "mode"])
      .add(labels, bytesSent);
  }
}
