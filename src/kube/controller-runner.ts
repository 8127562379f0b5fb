// Runs one controller: takes keys from its queue, reconciles each, and decides when to look again. A reconcile that throws is
// tried again with growing waits for that key alone, which news does not undercut; one that takes too long is aborted.
import { assert } from "../base/assert.ts";
import { backoffMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { withDeadline } from "./abortable.ts";
import { type Controller, type Key, type Outcome, renderKey } from "./cluster.ts";
import { isKubeError, KubeError } from "./errors.ts";
import { WorkQueue } from "./work-queue.ts";

export interface RunnerLimits {
  /** Waits after an error: the first, and the longest. */
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  /** Waits after a conflict, which is over once the cache has caught up. */
  readonly conflictBaseMs: number;
  readonly conflictMaxMs: number;
  /** News about a key that has just failed brings it forward to no sooner than this after the failure. */
  readonly newsHeldMs: number;
  /** A reconcile that has not ended by then is aborted, and counts as failed. */
  readonly reconcileTimeoutMs: number;
}

export const defaultRunnerLimits: RunnerLimits = {
  retryBaseMs: 500,
  retryMaxMs: 120_000,
  conflictBaseMs: 50,
  conflictMaxMs: 5_000,
  newsHeldMs: 5_000,
  reconcileTimeoutMs: 120_000,
};

/** How many keys of a lane a controller reconciles at once unless it says otherwise. */
const defaultConcurrency = 4;

export interface RunnerDeps {
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly limits?: Partial<RunnerLimits>;
}

export interface ControllerRunner {
  readonly controller: Controller;
  enqueue(key: Key, afterMs?: number): void;
  /** Reconciles until the signal aborts; returns once the reconciles under way have ended. To be called once. */
  run(signal: AbortSignal): Promise<void>;
}

export function openControllerRunner(controller: Controller, deps: RunnerDeps): ControllerRunner {
  return new QueueRunner(controller, deps);
}

type Result = Outcome["kind"] | "conflict" | "error" | "aborted";

interface Failures {
  readonly inARow: number;
  /** Until when news does not bring the key forward, on the monotonic clock. */
  readonly heldUntilMs: number;
}

class QueueRunner implements ControllerRunner {
  readonly controller: Controller;
  readonly #deps: RunnerDeps;
  readonly #limits: RunnerLimits;
  readonly #queue: WorkQueue<Key>;
  readonly #running = new Set<Promise<void>>();
  /** By key, for those whose last reconcile failed. */
  readonly #failures = new Map<string, Failures>();
  readonly #report: (result: Result, startedMs: number) => void;
  readonly #reportDepth: () => void;

  constructor(controller: Controller, deps: RunnerDeps) {
    this.controller = controller;
    this.#deps = deps;
    this.#limits = { ...defaultRunnerLimits, ...deps.limits };
    const laneOf = (key: Key) => controller.laneOf?.(key) ?? "";
    this.#queue = new WorkQueue(deps.clock, renderKey, { laneOf, width: controller.concurrency ?? defaultConcurrency });
    this.#report = reporter(controller.name, deps);
    this.#reportDepth = depthReporter(controller.name, deps.metrics, this.#queue);
  }

  enqueue(key: Key, afterMs = 0): void {
    const { heldUntilMs = 0 } = this.#failures.get(renderKey(key)) ?? {};
    this.#queue.add(key, Math.max(afterMs, heldUntilMs - this.#deps.clock.monotonicMs()));
    this.#reportDepth();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const key = await this.#queue.take(signal).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
      if (key !== undefined) this.#start(key, signal);
    }
    await Promise.all(this.#running);
  }

  #start(key: Key, signal: AbortSignal): void {
    this.#reportDepth();
    const task = this.#reconcile(key, signal).finally(() => {
      this.#running.delete(task);
    });
    this.#running.add(task);
  }

  /** Never rejects: what a controller throws ends here. */
  async #reconcile(key: Key, signal: AbortSignal): Promise<void> {
    const { clock, dice } = this.#deps;
    const reconcileId = dice.hex(8);
    const log = this.#deps.log.child({ controller: this.controller.name, key: renderKey(key), reconcileId });
    const startedMs = clock.monotonicMs();
    const timeoutMs = this.#limits.reconcileTimeoutMs;
    const late = new Error(`the reconcile has not ended after ${timeoutMs} ms`);
    try {
      const outcome = await withDeadline({ clock, timeoutMs, signal, late }, (bounded) =>
        this.controller.reconcile(key, { signal: bounded, log, reconcileId }),
      );
      this.#settle(key, outcome);
      this.#report(outcome.kind, startedMs);
    } catch (error) {
      this.#report(this.#retry(key, { error, log, signal }), startedMs);
    }
  }

  #settle(key: Key, outcome: Outcome): void {
    const afterMs = outcome.kind === "again" ? outcome.afterMs : undefined;
    const isTime = afterMs === undefined || (afterMs >= 0 && Number.isFinite(afterMs));
    assert(isTime, `${this.controller.name} asked for another look after ${afterMs} ms`);
    this.#failures.delete(renderKey(key));
    this.#queue.done(key);
    if (afterMs !== undefined) this.enqueue(key, afterMs);
  }

  #retry(key: Key, { error, log, signal }: { error: unknown; log: Log; signal: AbortSignal }): Result {
    if (signal.aborted) {
      this.#queue.done(key);
      return "aborted";
    }
    const name = renderKey(key);
    const failures = (this.#failures.get(name)?.inARow ?? 0) + 1;
    // Both mean that the decision was made on an old view. They cure themselves, so they are not worth a warning.
    const isStale = isKubeError(error, "Conflict", "NotFound");
    const waitMs = this.#waitMs(error, isStale, failures);
    const heldUntilMs = this.#deps.clock.monotonicMs() + Math.min(waitMs, this.#limits.newsHeldMs);
    this.#failures.set(name, { inARow: failures, heldUntilMs });
    this.#queue.done(key, waitMs);
    this.#reportDepth();
    const fields = { err: error, failures, waitMs: Math.round(waitMs) };
    if (isStale && failures < staleWarnAfter) log.debug(fields, "reconcile met a newer state");
    else log.error(fields, "reconcile failed");
    return isStale ? "conflict" : "error";
  }

  #waitMs(error: unknown, isStale: boolean, failures: number): number {
    const { retryBaseMs, retryMaxMs, conflictBaseMs, conflictMaxMs } = this.#limits;
    const limits = isStale
      ? { baseMs: conflictBaseMs, maxMs: conflictMaxMs }
      : { baseMs: retryBaseMs, maxMs: retryMaxMs };
    const askedMs = error instanceof KubeError ? (error.retryAfterMs ?? 0) : 0;
    // At least a little: a wait of nothing would bring the key back before anything can have changed.
    return Math.max(askedMs, limits.baseMs / 2, backoffMs(failures, limits, this.#deps.dice));
  }
}

/** So many conflicts in a row are no longer the usual race. */
const staleWarnAfter = 5;

function reporter(controller: string, { metrics, clock }: RunnerDeps): (result: Result, startedMs: number) => void {
  const count = metrics.counter("longshore_reconcile_total", "Reconciles by result", ["controller", "result"]);
  const duration = metrics.histogram("longshore_reconcile_duration_seconds", "Time of a reconcile", ["controller"]);
  return (result, startedMs) => {
    count.add({ controller, result });
    duration.observe((clock.monotonicMs() - startedMs) / 1000, { controller });
  };
}

function depthReporter(controller: string, metrics: Metrics, queue: WorkQueue<Key>): () => void {
  const ready = metrics.gauge("longshore_queue_depth", "Keys that wait for a free worker", ["controller"]);
  const delayed = metrics.gauge("longshore_queue_delayed", "Keys that wait for their time", ["controller"]);
  return () => {
    ready.set(queue.depth, { controller });
    delayed.set(queue.delayed, { controller });
  };
}
