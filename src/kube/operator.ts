// The operator process: caches of all kinds that its controllers need, leadership, and the controllers while it lasts.

import { backoffMs } from "../base/backoff.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { type Dice, systemDice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { type Api, type ApiLimits, openApi } from "./api.ts";
import type { Cluster, Controller, Enqueue, Source } from "./cluster.ts";
import { type KubeconfigSource, loadKubeconfig, openConnection } from "./connection.ts";
import { type ControllerRunner, openControllerRunner, type RunnerLimits } from "./controller-runner.ts";
import { type Dispatch, kindsOf, openDispatch } from "./dispatch.ts";
import { type EventLimits, type EventRecorder, openEventRecorder } from "./events.ts";
import { type InformerLimits, openInformer } from "./informer.ts";
import { type Fence, openCluster } from "./kube-cluster.ts";
import { acquireLeadership, type Leadership, type LeaseOptions } from "./lease.ts";
import { LongshoreOperator } from "./longshore-operator.ts";

/** `syncing`: filling the caches; `standby`: waiting for leadership; `leading`: reconciling; `ended`: nothing runs any more. */
export type OperatorPhase = "syncing" | "standby" | "leading" | "ended";

export interface OperatorOptions {
  readonly kubeconfig: KubeconfigSource;
  /** Called once, before anything is read; the cluster may be used from the first reconcile on. */
  readonly controllers: (cluster: Cluster) => readonly Controller[];
  /** What gives keys from outside of Kubernetes; runs while this process leads. */
  readonly sources?: (cluster: Cluster) => readonly Source[];
  /** Absent: this process is the only one, and leads from the start. */
  readonly leaderElection?: LeaseOptions;
  readonly metrics: Metrics;
  readonly log: Log;
  /** Stops the operator: reconciles are aborted and awaited, then the lease is given back. */
  readonly signal: AbortSignal;
  /** For readiness: told at each change. Must not throw. */
  readonly onPhase?: (phase: OperatorPhase) => void;
  readonly limits?: {
    readonly api?: Partial<ApiLimits>;
    readonly informer?: Partial<InformerLimits>;
    readonly runner?: Partial<RunnerLimits>;
    readonly events?: Partial<EventLimits>;
    /** How long reconciles may take to end once they are aborted. */
    readonly graceMs?: number;
  };
  readonly clock?: Clock;
  readonly dice?: Dice;
}

const graceMsDefault = 10_000;

/**
 * Runs until the signal aborts (`stopped`) or leadership is lost (`deposed`; the process should exit with an error, so that
 * it is started afresh). Broken connections and an API server that is away are waited out, however long. Throws on
 * a kubeconfig that cannot be used, and on bugs.
 *
 * The framework reads the default kubeconfig as well, though nothing uses it; so whoever starts this with a file of their
 * own should set $KUBECONFIG to it, or a default one that is broken gets into the way.
 *
 * ```ts
 * const ended = await runOperator({
 *   kubeconfig: { kind: "default" },
 *   controllers: (cluster) => [locationController({ cluster, agents, clock })],
 *   sources: () => [agentChanges(agents)],
 *   leaderElection: { lease: { namespace: "longshore-system", name: "operator" }, identity: `${hostname}_${dice.uuid()}` },
 *   metrics, log, signal,
 * });
 * ```
 */
export async function runOperator(options: OperatorOptions): Promise<"stopped" | "deposed"> {
  const parts = assemble(options);
  const phase = options.onPhase ?? (() => undefined);
  try {
    phase("syncing");
    await parts.operator.start();
    await parts.operator.synced(options.signal);
    phase("standby");
    parts.fence.lead(await leadershipOf(options, parts));
    phase("leading");
    return await lead(options, parts);
  } catch (error) {
    if (options.signal.aborted) return "stopped";
    throw error;
  } finally {
    await parts.operator.close();
    parts.api.close();
    phase("ended");
  }
}

interface Shared {
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
  readonly metrics: Metrics;
}

interface Parts {
  readonly api: Api;
  readonly shared: Shared;
  readonly fence: LeaderFence;
  readonly operator: LongshoreOperator;
  readonly runners: readonly ControllerRunner[];
  readonly dispatch: Dispatch;
  readonly recorder: EventRecorder;
  readonly sources: readonly Source[];
}

function assemble(options: OperatorOptions): Parts {
  const { log, metrics, limits = {}, clock = systemClock, dice = systemDice } = options;
  const shared: Shared = { clock, dice, log, metrics };
  const config = loadKubeconfig(options.kubeconfig);
  const api = openApi(openConnection(config, clock), metrics, limits.api);
  const fence = new LeaderFence();
  const recorder = openEventRecorder({ ...shared, api, ...(limits.events && { limits: limits.events }) });
  const cluster = openCluster({
    api,
    fence,
    storeOf: (kind) => operator.storeOf(kind),
    recordEvent: (subject, note) => recorder.record(subject, note),
  });
  const controllers = options.controllers(cluster);
  const runnerDeps = { ...shared, ...(limits.runner && { limits: limits.runner }) };
  const runners = controllers.map((controller) => openControllerRunner(controller, runnerDeps));
  const dispatch = openDispatch(runners, log);
  const informerDeps = { ...shared, api, ...(limits.informer && { limits: limits.informer }) };
  const operator: LongshoreOperator = new LongshoreOperator({
    config,
    api,
    log,
    kinds: kindsOf(controllers),
    openInformer: (kind) => openInformer(kind, informerDeps),
    onChange: (kind, { before, after }) => dispatch.changed(kind, before, after),
    onListed: dispatch.listed,
  });
  return { api, shared, fence, operator, runners, dispatch, recorder, sources: options.sources?.(cluster) ?? [] };
}

async function leadershipOf(options: OperatorOptions, { api, shared }: Parts): Promise<Leadership> {
  if (options.leaderElection === undefined) return undisputed();
  const leadership = await acquireLeadership(options.leaderElection, { ...shared, api }, options.signal);
  shared.log.info({ identity: options.leaderElection.identity }, "leadership acquired");
  return leadership;
}

async function lead(options: OperatorOptions, parts: Parts): Promise<"stopped" | "deposed"> {
  const { fence, shared } = parts;
  const leads = shared.metrics.gauge("longshore_leader", "Whether this process leads");
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, fence.signal, failed.signal]);
  // A task that fails is a bug and ends all the others, which are waited for all the same.
  const work = Promise.all(tasksOf(parts, signal).map((task) => task.catch((error: unknown) => failed.abort(error))));
  leads.set(1);
  try {
    await aborted(signal);
    const graceMs = options.limits?.graceMs ?? graceMsDefault;
    const hasEnded = await endsWithin(graceMs, work, shared.clock);
    if (!hasEnded) shared.log.error({ graceMs }, "reconciles did not end when aborted");
    // While something may still act, nobody else may: the lease then has to run out.
    await (hasEnded ? fence.leadership?.release() : fence.leadership?.abandon());
  } finally {
    leads.set(0);
  }
  if (failed.signal.aborted) throw failed.signal.reason;
  if (options.signal.aborted) return "stopped";
  shared.log.error("leadership lost");
  return "deposed";
}

function tasksOf(
  { runners, recorder, sources, dispatch, operator, shared }: Parts,
  signal: AbortSignal,
): Promise<void>[] {
  for (const { controller } of runners) {
    dispatch.listed(controller.kind, operator.storeOf(controller.kind)?.list() ?? []);
  }
  const begun = sourcesBegun(sources, shared, signal);
  return [
    ...runners.map((runner) => begun.then(() => runner.run(signal))),
    recorder.run(signal),
    ...sources.map((source) => runSource(source, dispatch.enqueue, shared, signal)),
  ];
}

/** Reconciles begin after this at the latest, for what they do without the sources. */
const sourcesBegunMsMax = 10_000;

/** What no source has told yet would be taken for missing, and written into every status. Never rejects. */
async function sourcesBegun(sources: readonly Source[], { clock, log }: Shared, signal: AbortSignal): Promise<void> {
  const enough = new AbortController();
  const late = clock.sleep(sourcesBegunMsMax, AbortSignal.any([signal, enough.signal])).then(
    () => log.warn({ sources: sources.map(({ name }) => name) }, "reconciles begin before all sources have"),
    () => undefined, // They have begun, or the signal aborted.
  );
  await Promise.race([Promise.all(sources.map(({ ready }) => ready)), late]);
  enough.abort();
}

const sourceRetry = { baseMs: 1_000, maxMs: 60_000 };

/** Runs a source for as long as the signal lasts, starting it again whenever it ends. Never rejects. */
async function runSource(source: Source, enqueue: Enqueue, { clock, dice, log }: Shared, signal: AbortSignal) {
  for (let attempt = 1; !signal.aborted; attempt++) {
    try {
      await source.run(enqueue, signal);
      if (!signal.aborted) log.warn({ source: source.name }, "source ended early");
    } catch (error) {
      if (!signal.aborted) log.error({ source: source.name, err: error }, "source failed");
    }
    await clock.sleep(backoffMs(attempt, sourceRetry, dice), signal).catch(() => undefined); // Aborted: the loop ends.
  }
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener("abort", () => resolve(), { once: true });
  });
}

async function endsWithin(timeoutMs: number, work: Promise<unknown>, clock: Clock): Promise<boolean> {
  const enough = new AbortController();
  const late = clock.sleep(timeoutMs, enough.signal).then(
    () => false,
    () => true, // The work ended first.
  );
  const ended = await Promise.race([work.then(() => true), late]);
  enough.abort();
  return ended;
}

/** Lets effects pass while the leadership it was given holds. */
class LeaderFence implements Fence {
  #leadership: Leadership | undefined;
  readonly #none = new AbortController();

  get leadership(): Leadership | undefined {
    return this.#leadership;
  }

  get signal(): AbortSignal {
    return this.#leadership?.signal ?? this.#none.signal;
  }

  lead(leadership: Leadership): void {
    this.#leadership = leadership;
  }

  check(): void {
    if (this.#leadership?.isHeld()) return;
    throw new Error("this process does not lead, so it must not change anything");
  }
}

function undisputed(): Leadership {
  const given = new AbortController();
  const end = async () => given.abort(new Error("leadership was given back"));
  return { signal: given.signal, isHeld: () => !given.signal.aborted, release: end, abandon: end };
}
