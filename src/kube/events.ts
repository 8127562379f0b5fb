// Events for people, on the objects that they concern. The same thing said again within a window counts up the Event that
// exists instead of making another, also after a restart, for its name follows from what it says; and what is told once for
// an occasion is not even counted. Losing an Event is acceptable; holding up a reconcile, or flooding the API server, is not.
import { hash } from "node:crypto";
import { backoffMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import type { CounterMetric, Metrics } from "../base/metrics.ts";
import type { Api } from "./api.ts";
import type { EventNote, EventSubject, KindRef, KubeObject } from "./cluster.ts";
import { renderTime } from "./conditions.ts";
import { isAlreadyExists, isKubeError } from "./errors.ts";
import { fieldManager } from "./kube-cluster.ts";
import { collectionPath, objectPath } from "./resource-path.ts";
import { WorkQueue } from "./work-queue.ts";

export interface EventLimits {
  /** Repeats within this time after the last occurrence count up; later ones begin anew. */
  readonly windowMs: number;
  /** Repeats are written at most this often, for each event. */
  readonly foldMs: number;
  /** Writes a second, all events together, and how many may come at once after a pause. */
  readonly writesPerSecond: number;
  readonly writesBurst: number;
  /** How many different events are remembered; the oldest are forgotten first, written or not. */
  readonly eventsMax: number;
  /** Tries of one write before it is given up. */
  readonly attemptsMax: number;
}

export const defaultEventLimits: EventLimits = {
  windowMs: 600_000,
  foldMs: 10_000,
  writesPerSecond: 5,
  writesBurst: 50,
  eventsMax: 2_000,
  attemptsMax: 4,
};

export interface EventRecorder {
  /** Returns at once. */
  record(subject: EventSubject, note: EventNote): void;
  /** Writes what was recorded until the signal aborts; then returns, and what is left is lost. */
  run(signal: AbortSignal): Promise<void>;
}

export interface EventDeps {
  readonly api: Api;
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
  readonly metrics: Metrics;
  readonly limits?: Partial<EventLimits>;
}

interface CoreEvent extends KubeObject {
  readonly count?: number;
  readonly firstTimestamp?: string;
  readonly lastTimestamp?: string;
}
const Events: KindRef<CoreEvent> = { group: "", version: "v1", plural: "events", kind: "Event", namespaced: true };

/** One thing said about one object, and how often. */
interface Entry {
  readonly name: string;
  readonly namespace: string;
  readonly subject: EventSubject;
  note: EventNote;
  count: number;
  firstMs: number;
  lastMs: number;
  writtenMs: number;
  /** Whether we have seen its Event in the API server. */
  isPlaced: boolean;
  attempts: number;
}

export function openEventRecorder(deps: EventDeps): EventRecorder {
  return new FoldingRecorder(deps);
}

class FoldingRecorder implements EventRecorder {
  readonly #deps: EventDeps;
  readonly #limits: EventLimits;
  readonly #queue: WorkQueue<string>;
  /** By name, the one that occurred longest ago first. */
  readonly #entries = new Map<string, Entry>();
  readonly #dropped: CounterMetric;
  #tokens: number;
  #refilledMs: number;

  constructor(deps: EventDeps) {
    this.#deps = deps;
    this.#limits = { ...defaultEventLimits, ...deps.limits };
    this.#queue = new WorkQueue(deps.clock, (name) => name);
    this.#dropped = deps.metrics.counter("longshore_kube_events_dropped_total", "Events given up", ["reason"]);
    this.#tokens = this.#limits.writesBurst;
    this.#refilledMs = deps.clock.monotonicMs();
  }

  record(subject: EventSubject, note: EventNote): void {
    const { clock } = this.#deps;
    const id = nameOf(subject, note);
    const nowMs = clock.nowMs();
    const known = this.#entries.get(id);
    // What is told once for its occasion has been told.
    if (known !== undefined && note.occasion !== undefined) return;
    const entry =
      known !== undefined && nowMs - known.lastMs <= this.#limits.windowMs ? known : opened(subject, note, nowMs, id);
    this.#entries.delete(id);
    this.#entries.set(id, entry);
    entry.count++;
    entry.note = note;
    entry.lastMs = nowMs;
    this.#queue.add(id, Math.max(0, entry.writtenMs + this.#limits.foldMs - clock.monotonicMs()));
    this.#evict();
  }

  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        const id = await this.#queue.take(signal);
        // What was evicted meanwhile costs nothing.
        const entry = this.#entries.get(id);
        if (entry !== undefined) await this.#flush(entry, signal);
        this.#queue.done(id);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    }
  }

  #evict(): void {
    for (const [id, entry] of this.#entries) {
      if (this.#entries.size <= this.#limits.eventsMax) return;
      this.#entries.delete(id);
      if (entry.writtenMs === never) this.#dropped.add({ reason: "TooMany" });
    }
  }

  /** Waits until a write is allowed, and takes its token. */
  async #pace(signal: AbortSignal): Promise<void> {
    const { clock } = this.#deps;
    const { writesPerSecond, writesBurst } = this.#limits;
    const refill = () => {
      const nowMs = clock.monotonicMs();
      this.#tokens = Math.min(writesBurst, this.#tokens + ((nowMs - this.#refilledMs) * writesPerSecond) / 1000);
      this.#refilledMs = nowMs;
    };
    refill();
    while (this.#tokens < 1) {
      await clock.sleep(Math.ceil(((1 - this.#tokens) * 1000) / writesPerSecond), signal);
      refill();
    }
    this.#tokens--;
  }

  async #flush(entry: Entry, signal: AbortSignal): Promise<void> {
    const { clock, dice, log } = this.#deps;
    await this.#pace(signal);
    try {
      await this.#write(entry, signal);
      entry.writtenMs = clock.monotonicMs();
      entry.attempts = 0;
    } catch (error) {
      if (signal.aborted) throw error;
      entry.attempts++;
      const isHopeless = isKubeError(error, "Invalid", "Forbidden");
      if (!isHopeless && entry.attempts < this.#limits.attemptsMax) {
        this.#queue.add(entry.name, backoffMs(entry.attempts, { baseMs: 1000, maxMs: 30_000 }, dice) + 1);
        return;
      }
      this.#dropped.add({ reason: isHopeless ? "Refused" : "Unreachable" });
      log.warn({ err: error, event: entry.note.reason, namespace: entry.namespace }, "event given up");
      this.#entries.delete(entry.name);
    }
  }

  async #write(entry: Entry, signal: AbortSignal): Promise<void> {
    if (entry.isPlaced && (await this.#update(entry, signal))) return;
    const path = collectionPath(Events, entry.namespace);
    try {
      await this.#deps.api.request({ method: "POST", path, query: { fieldManager }, body: bodyOf(entry), signal });
    } catch (error) {
      if (!isAlreadyExists(error)) throw error;
      // An earlier process has told it.
      if (entry.note.occasion !== undefined) return;
      await this.#adopt(entry, signal);
      entry.isPlaced = await this.#update(entry, signal);
      return;
    }
    entry.isPlaced = true;
  }

  /** Writes the count into the Event that exists; `false` when it has expired meanwhile. */
  async #update({ name, namespace, ...entry }: Entry, signal: AbortSignal): Promise<boolean> {
    const path = objectPath(Events, { name, namespace });
    const body = occurrences(entry);
    const contentType = "application/merge-patch+json";
    try {
      await this.#deps.api.request({ method: "PATCH", path, query: { fieldManager }, contentType, body, signal });
      return true;
    } catch (error) {
      if (isKubeError(error, "NotFound")) return false;
      throw error;
    }
  }

  /** Counts on from what an earlier process wrote, unless that is long ago. */
  async #adopt(entry: Entry, signal: AbortSignal): Promise<void> {
    const path = objectPath(Events, { name: entry.name, namespace: entry.namespace });
    const found = (await this.#deps.api.request({ method: "GET", path, signal })) as CoreEvent;
    const foundLastMs = Date.parse(found.lastTimestamp ?? "");
    // Written so that a time that cannot be read counts as long ago.
    const isRecent = entry.firstMs - foundLastMs <= this.#limits.windowMs;
    if (!isRecent) return;
    entry.count += found.count ?? 1;
    entry.firstMs = Date.parse(found.firstTimestamp ?? "") || entry.firstMs;
  }
}

const never = Number.NEGATIVE_INFINITY;

function opened(subject: EventSubject, note: EventNote, nowMs: number, name: string): Entry {
  // Events about cluster-scoped objects live in the namespace `default`, where kubectl looks for them.
  const namespace = subject.metadata.namespace ?? "default";
  const times = { firstMs: nowMs, lastMs: nowMs, writtenMs: never };
  return { name, namespace, subject, note, count: 0, ...times, isPlaced: false, attempts: 0 };
}

/** The Event's name: the same for the same reason about the same object, on the same occasion. */
function nameOf({ metadata }: EventSubject, { type, reason, occasion }: EventNote): string {
  const said = [metadata.uid, type, reason, ...(occasion === undefined ? [] : [occasion])];
  const digest = hash("sha256", said.join("/")).slice(0, 16);
  return `${metadata.name.slice(0, 200).replace(/[-.]+$/, "")}.${digest}`;
}

const messageCharactersMax = 1000;

function occurrences({ note, count, firstMs, lastMs }: Pick<Entry, "note" | "count" | "firstMs" | "lastMs">) {
  return {
    message: note.message.slice(0, messageCharactersMax),
    count,
    firstTimestamp: renderTime(firstMs),
    lastTimestamp: renderTime(lastMs),
  };
}

function bodyOf(entry: Entry) {
  const { apiVersion, kind, metadata } = entry.subject;
  const { name, namespace, uid } = metadata;
  return {
    apiVersion: "v1",
    kind: "Event",
    metadata: { name: entry.name, namespace: entry.namespace },
    involvedObject: { apiVersion, kind, name, ...(namespace !== undefined && { namespace }), uid },
    type: entry.note.type,
    reason: entry.note.reason,
    source: { component: fieldManager },
    reportingComponent: fieldManager,
    ...occurrences(entry),
  };
}
