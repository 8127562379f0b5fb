// One job from its admission to its end: attempts, retries within bounds, and the end decided from what the target says. A
// job that was asked to commit and then hears nothing is `Undecided`, never given up. What an attempt is, and how the
// outcome is found, is the driver's: coordinator.ts for a volume, group-coordinator.ts for a group.
import { backoffMs } from "../base/backoff.ts";
import { codeOf, isRetryable } from "../domain/errors.ts";
import type { Barrier, JobSpec } from "../wire/schemas.ts";
import { type Core, problemOf } from "./core.ts";
import { isGroup, type JobRows } from "./job-rows.ts";
import type { JobSlots, Slot } from "./job-slots.ts";

/** `elsewhere`: another agent coordinates the job. */
export type AttemptResult = "ended" | "elsewhere";

/** How a job ends that is not committed. */
export interface Ending {
  readonly state: "Failed" | "Cancelled" | "Suspended";
  readonly reason?: unknown;
  /** Whether staging at the target is dropped as well. */
  readonly discard: boolean;
}

/** `committed`: it was, and has succeeded; `ended`: as it was asked to; `open`: nobody can tell yet, every hold stays. */
export type Resolution = "committed" | "ended" | "open" | "elsewhere";

export interface JobDriver {
  /** Drives the job as far as it goes; throws what keeps it from going on. The job has ended when it resolves. */
  attempt(name: string, signal: AbortSignal): Promise<AttemptResult>;
  /** Finds out whether the job was committed; ends it as Succeeded if so, and as asked otherwise. */
  resolve(name: string, ending: Ending): Promise<Resolution>;
  /** What the job has durably gained. */
  reached(name: string): { readonly barrier: Barrier; readonly units: number };
}

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
  readonly volume: JobDriver;
  readonly group: JobDriver;
}

export class JobRunner {
  private readonly core: Core;
  private readonly parts: Parts;

  constructor(core: Core, parts: Parts) {
    this.core = core;
    this.parts = parts;
  }

  /** Drives a job until it has ended, was suspended or is another agent's, or this one stops: it goes on after the next start. */
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
      await this.driver(name).attempt(name, signal);
      return "ended";
    } catch (error) {
      if (this.isOver(name)) return "ended";
      if (signal.aborted) return "now";
      return this.failed(name, error, patience);
    }
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
    return this.resolve(name, { state: "Failed", reason: error, discard: false });
  }

  /** A number that grows with whatever the job has durably gained. */
  private reached(name: string): number {
    const { barrier, units } = this.driver(name).reached(name);
    return barriers.indexOf(barrier) * 2 ** 32 + units;
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

  /** Suspended or cancelled by the user: undone at the target, unless the target has committed already. */
  private windDown(name: string, spec: JobSpec, patience: Patience): Promise<Step> {
    patience.tries += 1;
    const isCancelled = spec.cancel === true;
    return this.resolve(name, { state: isCancelled ? "Cancelled" : "Suspended", discard: isCancelled });
  }

  private async resolve(name: string, ending: Ending): Promise<Step> {
    return (await this.driver(name).resolve(name, ending)) === "open" ? "later" : "ended";
  }

  private driver(name: string): JobDriver {
    return isGroup(this.parts.rows.row(name)) ? this.parts.group : this.parts.volume;
  }

  private isOver(name: string): boolean {
    const row = this.parts.rows.find(name);
    return row === undefined || row.finishedAt !== null;
  }
}
