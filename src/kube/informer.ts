// Keeps the cache of one kind true: list, then watch from there, for ever. A watch that ends is taken up where it ended; when
// that point is no longer known, the list is compared with the cache, so that deletions in the gap are seen. Every kind of
// failure, and a server that ends each watch at once, leads to growing waits with jitter: never to an exit, never to a storm.
import { backoffMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { orAborted } from "./abortable.ts";
import type { Api, WatchLine } from "./api.ts";
import type { KindRef } from "./cluster.ts";
import { isKubeError, KubeError } from "./errors.ts";
import { listAll, withKind } from "./list.ts";
import { isRecord } from "./merge-patch.ts";
import { collectionPath } from "./resource-path.ts";
import { openStore, type Store } from "./store.ts";

export interface InformerLimits {
  /** The first wait after a failure, and the longest one. */
  readonly retryBaseMs: number;
  readonly retryMaxMs: number;
  /** A watch that lasted so long without an error counts as healthy, and so ends the row of failures. */
  readonly healthyAfterMs: number;
  /** The server is asked to end a watch after a time between this and its double, so that load spreads over API servers. */
  readonly watchMinMs: number;
  /** Everything is listed anew this often, whatever the watch says; up to a tenth more. */
  readonly relistMs: number;
}

export const defaultInformerLimits: InformerLimits = {
  retryBaseMs: 500,
  retryMaxMs: 30_000,
  healthyAfterMs: 5_000,
  watchMinMs: 300_000,
  relistMs: 600_000,
};

export interface Informer {
  readonly kind: KindRef;
  readonly store: Store;
  /** Resolves once the store has held everything; rejects with the signal's reason. */
  synced(signal: AbortSignal): Promise<void>;
  /** Called after each full list, the first included. */
  onListed(listener: () => void): void;
  /** Runs until the signal aborts; then returns. */
  run(signal: AbortSignal): Promise<void>;
}

export interface InformerDeps {
  readonly api: Api;
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly limits?: Partial<InformerLimits>;
}

export function openInformer(kind: KindRef, deps: InformerDeps): Informer {
  return new ListWatchInformer(kind, deps);
}

class ListWatchInformer implements Informer {
  readonly kind: KindRef;
  readonly store = openStore();
  readonly #deps: InformerDeps;
  readonly #limits: InformerLimits;
  readonly #listed = Promise.withResolvers<void>();
  readonly #listeners: (() => void)[] = [];
  /** Where to watch from; `undefined` asks for a list. */
  #resourceVersion: string | undefined;
  #relistAtMs = 0;
  /** Failures in a row. */
  #failures = 0;

  constructor(kind: KindRef, deps: InformerDeps) {
    this.kind = kind;
    this.#deps = deps;
    this.#limits = { ...defaultInformerLimits, ...deps.limits };
  }

  onListed(listener: () => void): void {
    this.#listeners.push(listener);
  }

  async synced(signal: AbortSignal): Promise<void> {
    await orAborted(this.#listed.promise, signal);
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        this.#resourceVersion ??= await this.#list(signal);
        await this.#watch(this.#resourceVersion, signal);
      } catch (error) {
        if (signal.aborted) return;
        await this.#recover(error, signal);
      }
    }
  }

  async #list(signal: AbortSignal): Promise<string> {
    const { clock, dice, metrics } = this.#deps;
    const { objects, resourceVersion } = await this.#fetch(signal);
    metrics.counter("longshore_kube_lists_total", "Full lists by informers", ["kind"]).add({ kind: this.kind.kind });
    this.#relistAtMs = clock.monotonicMs() + this.#limits.relistMs * (1 + dice.random() / 10);
    this.store.replace(objects, resourceVersion);
    this.#listed.resolve();
    for (const listener of this.#listeners) listener();
    return resourceVersion;
  }

  async #fetch(signal: AbortSignal): ReturnType<typeof listAll> {
    try {
      return await listAll(this.#deps.api, this.kind, { signal });
    } catch (error) {
      if (!this.kind.optional || !isKubeError(error, "NotFound")) throw error;
      return { objects: [], resourceVersion: notInstalled };
    }
  }

  /** One watch, to its end. Throws what broke it; one that ends much too early counts as broken as well. */
  async #watch(resourceVersion: string, signal: AbortSignal): Promise<void> {
    const { api, clock } = this.#deps;
    if (resourceVersion === notInstalled) return await this.#waitForKind(signal);
    const startedMs = clock.monotonicMs();
    const timeoutMs = this.#watchTimeoutMs(startedMs);
    if (timeoutMs <= 0) return this.#startOver();
    const query = { resourceVersion, allowWatchBookmarks: "true", timeoutSeconds: String(Math.ceil(timeoutMs / 1000)) };
    const isHealthy = () => clock.monotonicMs() - startedMs >= Math.min(timeoutMs, this.#limits.healthyAfterMs);
    try {
      for await (const line of api.watch({ path: collectionPath(this.kind), query, signal })) this.#take(line);
    } finally {
      if (isHealthy()) this.#failures = 0;
    }
    if (!isHealthy()) throw new KubeError("Unreachable", "the watch ended at once");
  }

  #watchTimeoutMs(nowMs: number): number {
    return Math.min(this.#limits.watchMinMs * (1 + this.#deps.dice.random()), this.#relistAtMs - nowMs);
  }

  #startOver(): void {
    this.#resourceVersion = undefined;
  }

  async #waitForKind(signal: AbortSignal): Promise<void> {
    await this.#deps.clock.sleep(this.#limits.retryMaxMs * (0.5 + this.#deps.dice.random()), signal);
    this.#startOver();
  }

  #take(line: WatchLine): void {
    if (line.type === "ERROR") throw errorOf(line.object);
    const object = withKind(line.object, this.kind);
    if (line.type === "BOOKMARK") this.store.reached(object.metadata.resourceVersion);
    else this.store.observe(line.type, object);
    this.#resourceVersion = object.metadata.resourceVersion;
  }

  async #recover(error: unknown, signal: AbortSignal): Promise<void> {
    const { clock, dice, log, metrics } = this.#deps;
    const { retryBaseMs, retryMaxMs } = this.#limits;
    const code = isKubeError(error) ? error.code : "Bug";
    // Whatever is not a broken connection may come from where we watch from, so the way out is a new list.
    if (code !== "Unreachable" && code !== "Throttled") this.#startOver();
    this.#failures++;
    const askedMs = isKubeError(error) ? (error.retryAfterMs ?? 0) : 0;
    const waitMs = Math.max(askedMs, backoffMs(this.#failures, { baseMs: retryBaseMs, maxMs: retryMaxMs }, dice));
    metrics
      .counter("longshore_kube_informer_failures_total", "Lists and watches that failed", ["kind", "code"])
      .add({ kind: this.kind.kind, code });
    const fields = { kind: this.kind.kind, code, failures: this.#failures, waitMs: Math.round(waitMs), err: error };
    // One broken watch is everyday life; a row of failures is not.
    if (this.#failures === 1) log.info(fields, "watch interrupted");
    else log.warn(fields, "watch interrupted repeatedly");
    await clock.sleep(waitMs, signal).catch(() => undefined); // Aborted: the loop ends by its own condition.
  }
}

/** Stands for the resourceVersion of an optional kind that the cluster does not know. */
const notInstalled = "0";

function errorOf(status: unknown): KubeError {
  const { code, message } = isRecord(status) ? status : {};
  return new KubeError(code === 410 ? "Expired" : "Unreachable", `the watch reported: ${String(message)}`);
}
