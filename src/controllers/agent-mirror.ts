// Follows one agent: lists everything once, then asks only for what its change stream names. After an interruption it
// lists again, so nothing that happened meanwhile is missed.
import { backoffMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import { codeOf, describe } from "../domain/errors.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import type {
  Change,
  CloneView,
  JobView,
  List,
  LocationView,
  MigratedVolumeView,
  SourceView,
  VolumeView,
} from "../wire/schemas.ts";
import type { SeenAgent } from "./agents.ts";

/**
 * What an agent was seen to change; `synced` and `lost` are about our following the agent, `member` about what the
 * other agents say of it.
 */
export interface AgentNews {
  readonly kind: TableKind | "synced" | "lost" | "member";
  /** The name of what changed; the agent's id for the last three. */
  readonly name: string;
}

export interface MirrorDeps {
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
  readonly tell: (news: AgentNews) => void;
}

const retry = { baseMs: 250, maxMs: 15_000 };

const gatherMs = 50;

/** Past so many changes of one kind at once, one list is cheaper than asking for each. */
const getsMax = 16;

interface Named {
  readonly name: string;
}

interface Table<T extends Named = Named> {
  readonly rows: Map<string, T>;
  list(): Promise<List<T>>;
  get(name: string): Promise<T>;
}

type TableKind = "volume" | "location" | "job" | "source" | "migratedVolume" | "clone";
type Dirty = Map<TableKind, Set<string> | "all">;

export class AgentMirror implements SeenAgent {
  readonly id: string;
  readonly api: AgentApi;
  problem: string | undefined = "not asked yet";
  readonly volumes = new Map<string, VolumeView>();
  readonly locations = new Map<string, LocationView>();
  readonly jobs = new Map<string, JobView>();
  readonly sources = new Map<string, SourceView>();
  readonly migratedVolumes = new Map<string, MigratedVolumeView>();
  readonly clones = new Map<string, CloneView>();
  readonly #deps: MirrorDeps;
  readonly #tables: Readonly<Record<TableKind, Table>>;

  constructor(id: string, api: AgentApi, deps: MirrorDeps) {
    this.id = id;
    this.#deps = deps;
    this.#tables = {
      volume: tableOf(
        this.volumes,
        () => api.listVolumes(),
        (name) => api.getVolume(name),
      ),
      location: tableOf(
        this.locations,
        () => api.listLocations(),
        (name) => api.getLocation(name),
      ),
      job: tableOf(
        this.jobs,
        () => api.listJobs(),
        (name) => api.getJob(name),
      ),
      source: tableOf(
        this.sources,
        () => api.listSources(),
        (name) => api.getSource(name),
      ),
      migratedVolume: tableOf(
        this.migratedVolumes,
        () => api.listMigratedVolumes(),
        (name) => api.getMigratedVolume(name),
      ),
      clone: tableOf(
        this.clones,
        () => api.listClones(),
        (name) => api.getClone(name),
      ),
    };
    this.api = learning(api, (kind, row) => this.#tables[kind].rows.set(row.name, row));
  }

  /** Follows until the signal aborts. */
  async run(signal: AbortSignal): Promise<void> {
    const { clock, dice, log, tell } = this.#deps;
    for (let failures = 0; !signal.aborted; ) {
      try {
        await this.#follow(signal, () => {
          failures = 0;
        });
      } catch (error) {
        if (signal.aborted) return;
        failures++;
        const wasFollowed = this.problem === undefined;
        this.problem = describe(error);
        if (wasFollowed || failures === 1) log.warn({ agent: this.id, err: error }, "agent is not followed");
        tell({ kind: "lost", name: this.id });
        await clock.sleep(backoffMs(failures, retry, dice), signal).catch(() => undefined);
      }
    }
  }

  /** Lists everything and follows the changes; returns when the stream ends, throws when it breaks. */
  async #follow(signal: AbortSignal, onSynced: () => void): Promise<void> {
    const since = await this.#listAll();
    onSynced();
    this.problem = undefined;
    this.#deps.tell({ kind: "synced", name: this.id });
    const stop = new AbortController();
    const bounded = AbortSignal.any([signal, stop.signal]);
    const dirty: Dirty = new Map();
    const wake = signalling();
    const reading = this.#read(since, { dirty, wake, signal: bounded }).finally(() => {
      stop.abort();
      wake.fire();
    });
    // Whichever of the two fails first ends the other.
    await Promise.all([
      reading,
      this.#refresh({ dirty, wake, signal: bounded }).catch((error: unknown) => {
        stop.abort();
        throw error;
      }),
    ]);
    signal.throwIfAborted();
    throw new Error("the change stream ended");
  }

  async #read(since: number, { dirty, wake, signal }: Pending): Promise<void> {
    for await (const change of this.api.changes(since, signal)) {
      note(dirty, change);
      wake.fire();
    }
  }

  async #refresh({ dirty, wake, signal }: Pending): Promise<void> {
    while (!signal.aborted) {
      await wake.fired();
      // Changes come in bursts: what is gathered for a moment is asked for at once.
      await this.#deps.clock.sleep(gatherMs, signal).catch(() => undefined);
      if (signal.aborted) return;
      const batch = [...dirty];
      dirty.clear();
      for (const [kind, names] of batch) await this.#refreshKind(kind, names);
    }
  }

  async #refreshKind(kind: TableKind, names: Set<string> | "all"): Promise<void> {
    const table = this.#tables[kind];
    if (names === "all" || names.size > getsMax) {
      await this.#list(kind);
      return;
    }
    for (const name of names) {
      const row = await table.get(name).catch((error: unknown) => {
        if (codeOf(error) === "NotFound") return undefined;
        throw error;
      });
      if (row === undefined) table.rows.delete(name);
      else table.rows.set(name, row);
      this.#deps.tell({ kind, name });
    }
  }

  /** The sequence from which on changes may have been missed by the lists. */
  async #listAll(): Promise<number> {
    let since = Number.POSITIVE_INFINITY;
    for (const kind of tableKinds) since = Math.min(since, await this.#list(kind));
    return since;
  }

  async #list(kind: TableKind): Promise<number> {
    const { rows, list } = this.#tables[kind];
    const { items, sequence } = await list();
    const gone = new Set(rows.keys());
    for (const item of items) {
      gone.delete(item.name);
      rows.set(item.name, item);
      this.#deps.tell({ kind, name: item.name });
    }
    for (const name of gone) {
      rows.delete(name);
      this.#deps.tell({ kind, name });
    }
    return sequence;
  }
}

const tableKinds: readonly TableKind[] = ["volume", "location", "job", "source", "migratedVolume", "clone"];

function tableOf<T extends Named>(
  rows: Map<string, T>,
  list: () => Promise<List<T>>,
  get: (name: string) => Promise<T>,
): Table {
  // A row is only ever put back where it came from, so that the narrower type holds.
  return { rows: rows as Map<string, Named>, list, get };
}

/** Which calls answer with what the agent holds now. */
const answersWith: Readonly<Partial<Record<keyof AgentApi, TableKind>>> = {
  putVolume: "volume",
  putLocation: "location",
  putJob: "job",
  putSource: "source",
};

/** The agent, with what it answers taken into the mirror at once: what is seen is never behind what we did ourselves. */
function learning(api: AgentApi, learn: (kind: TableKind, row: Named) => void): AgentApi {
  return new Proxy(api, {
    get(target, method) {
      const call = target[method as keyof AgentApi] as ((...parts: unknown[]) => unknown) | undefined;
      if (typeof call !== "function") return call;
      const kind = answersWith[method as keyof AgentApi];
      if (kind === undefined) return call.bind(target);
      return async (...parts: unknown[]) => {
        const row = (await call.apply(target, parts)) as Named;
        learn(kind, row);
        return row;
      };
    },
  });
}

interface Pending {
  readonly dirty: Dirty;
  readonly wake: Signalling;
  readonly signal: AbortSignal;
}

interface Signalling {
  fire(): void;
  /** Resolves at once when fired since the last time, else when fired next. */
  fired(): Promise<void>;
}

function signalling(): Signalling {
  let isFired = false;
  let resolve: (() => void) | undefined;
  return {
    fire: () => {
      isFired = true;
      resolve?.();
    },
    fired: async () => {
      if (!isFired) await new Promise<void>((done) => (resolve = done));
      isFired = false;
    },
  };
}

function note(dirty: Dirty, { kind, name }: Change): void {
  if (kind === "resync") {
    for (const each of tableKinds) dirty.set(each, "all");
    return;
  }
  const names = dirty.get(kind) ?? new Set();
  if (names === "all") return;
  dirty.set(kind, names.add(name));
}
