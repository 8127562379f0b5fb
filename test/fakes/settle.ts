// Drives controllers against a FakeCluster, one reconcile at a time and in a fixed order, until nothing more happens: what a
// test of a reconciler waits for, without waiting.
import { seededDice } from "../../src/base/dice.ts";
import { silentLog } from "../../src/base/log.ts";
import { type Controller, type Enqueue, type Key, renderKey } from "../../src/kube/cluster.ts";
import type { ControllerRunner } from "../../src/kube/controller-runner.ts";
import { openDispatch } from "../../src/kube/dispatch.ts";
import { DueQueue } from "../../src/kube/due-queue.ts";
import { FakeCrash } from "./crash-point.ts";
import type { FakeClock } from "./fake-clock.ts";
import type { FakeCluster } from "./fake-cluster.ts";

export interface SettleOptions {
  readonly cluster: FakeCluster;
  readonly clock: FakeClock;
  readonly controllers: readonly Controller[];
  /** Time may pass so far, for reconciles that ask for another look; none unless given. */
  readonly horizonMs?: number;
  /** More reconciles than this are taken for a loop without end, and throw. */
  readonly reconcilesMax?: number;
  /** Called once at the start, for what is enqueued from outside. */
  readonly start?: (enqueue: Enqueue) => void;
}

export interface Settled {
  /** Whether the process was killed on the way. */
  readonly crashed: boolean;
  /** `controller key`, in order. */
  readonly reconciles: readonly string[];
  /** What reconciles threw, other than by being killed; each was tried again. */
  readonly errors: readonly unknown[];
}

interface Job {
  readonly controller: Controller;
  readonly key: Key;
}

/** A failed reconcile is tried again at once so often, for a lost answer or a conflict; then after a time, on the fake clock. */
const retriesAtOnce = 3;
const retryMs = 1_000;

/** Reconciles everything, and then what follows, until nothing is due within the horizon. */
export async function settle(options: SettleOptions): Promise<Settled> {
  return await new Settling(options).run();
}

class Settling {
  readonly #options: SettleOptions;
  readonly #ready = new Map<string, Job>();
  readonly #delayed = new DueQueue<Job>();
  readonly #reconciles: string[] = [];
  readonly #errors: unknown[] = [];
  /** In a row, by job. */
  readonly #failures = new Map<string, number>();
  readonly #endMs: number;

  constructor(options: SettleOptions) {
    this.#options = options;
    this.#endMs = options.clock.monotonicMs() + (options.horizonMs ?? 0);
  }

  async run(): Promise<Settled> {
    try {
      this.#subscribe();
      while (await this.#advance()) await this.#drain();
      return { crashed: false, reconciles: this.#reconciles, errors: this.#errors };
    } catch (error) {
      if (!(error instanceof FakeCrash)) throw error;
      return { crashed: true, reconciles: this.#reconciles, errors: this.#errors };
    }
  }

  #subscribe(): void {
    const { cluster, controllers, start } = this.#options;
    const runners = controllers.map((controller): ControllerRunner => {
      const enqueue = (key: Key, afterMs = 0) => this.#add({ controller, key }, afterMs);
      return { controller, enqueue, run: async () => undefined };
    });
    const dispatch = openDispatch(runners, silentLog);
    cluster.onChange(dispatch.changed);
    for (const { kind, watches = [] } of controllers) {
      for (const watched of watches) cluster.list(watched.kind);
      dispatch.listed(kind, cluster.list(kind));
    }
    start?.(dispatch.enqueue);
  }

  #add(job: Job, afterMs: number): void {
    const id = idOf(job);
    if (afterMs > 0) {
      if (!this.#ready.has(id)) this.#delayed.set(id, job, this.#options.clock.monotonicMs() + afterMs);
      return;
    }
    this.#delayed.delete(id);
    this.#ready.set(id, job);
  }

  /** Lets time pass to the next due reconcile; `false` when there is none within the horizon. */
  async #advance(): Promise<boolean> {
    const { clock } = this.#options;
    if (this.#ready.size > 0) return true;
    const nextMs = this.#delayed.nextMs();
    if (nextMs === undefined || nextMs > this.#endMs) return false;
    await clock.advance(nextMs - clock.monotonicMs());
    for (let job = this.#take(); job !== undefined; job = this.#take()) this.#ready.set(idOf(job), job);
    return true;
  }

  #take(): Job | undefined {
    return this.#delayed.takeDue(this.#options.clock.monotonicMs());
  }

  async #drain(): Promise<void> {
    for (;;) {
      const [first] = this.#ready;
      if (first === undefined) return;
      this.#ready.delete(first[0]);
      await this.#reconcile(first[1]);
    }
  }

  async #reconcile(job: Job): Promise<void> {
    const { controller, key } = job;
    this.#reconciles.push(idOf(job));
    const reconcilesMax = this.#options.reconcilesMax ?? 1_000;
    if (this.#reconciles.length > reconcilesMax) {
      throw new Error(`not settled after ${reconcilesMax} reconciles: ${this.#reconciles.slice(-10).join(", ")}`);
    }
    const reconcileId = seededDice(this.#reconciles.length).hex(8);
    try {
      const { signal } = new AbortController();
      const outcome = await controller.reconcile(key, { signal, log: silentLog, reconcileId });
      this.#failures.delete(idOf(job));
      if (outcome.kind === "again") this.#add(job, outcome.afterMs);
    } catch (error) {
      // A reconcile that wraps what it was thrown is killed all the same.
      if (this.#options.cluster.crash.isDead) throw error instanceof FakeCrash ? error : new FakeCrash(String(error));
      this.#errors.push(error);
      const failures = (this.#failures.get(idOf(job)) ?? 0) + 1;
      this.#failures.set(idOf(job), failures);
      this.#add(job, failures <= retriesAtOnce ? 0 : retryMs);
    }
  }
}

function idOf({ controller, key }: Job): string {
  return `${controller.name} ${renderKey(key)}`;
}
