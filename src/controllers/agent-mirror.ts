// Follows one agent: lists everything once, then asks only for what its change stream names. After an interruption it
// lists again, so nothing that happened meanwhile is missed. While it is not followed, reconcilers ask it nothing.
import { backoffMs } from "../base/backoff.ts";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import { codeOf, describe, LongshoreError } from "../domain/errors.ts";
import { orAborted } from "../kube/abortable.ts";
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
import { JobRows } from "./job-rows.ts";
import { steady } from "./refusal.ts";

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
  readonly revision: number;
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
  readonly jobs = new JobRows();
  readonly sources = new Map<string, SourceView>();
  readonly migratedVolumes = new Map<string, MigratedVolumeView>();
  readonly clones = new Map<string, CloneView>();
  /** Settled once it has been listed for the first time, or could not be. */
  readonly tried: Promise<void>;
  readonly #deps: MirrorDeps;
  readonly #agent: AgentApi;
  readonly #tables: Readonly<Record<TableKind, Table>>;
  readonly #tried = Promise.withResolvers<void>();
  /** Aborts when the agent, which is followed now, is lost. */
  #following = new AbortController();

  constructor(id: string, api: AgentApi, deps: MirrorDeps) {
    this.id = id;
    this.tried = this.#tried.promise;
    this.#deps = deps;
    this.#agent = api;
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
    this.api = asked(api, { followed: () => this.#followed(), learn: (kind, row) => this.#learn(kind, row) });
  }

  jobsOf(migrationJob: string): readonly JobView[] {
    return this.jobs.of(migrationJob);
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
        if (signal.aborted) break;
        failures++;
        const before = this.problem;
        if (before === undefined || failures === 1) log.warn({ agent: this.id, err: error }, "agent is not followed");
        // One whose stream merely broke, and that can be listed again, was there all the time.
        const isAway = before !== undefined || failures > 1 || isSilence(error);
        if (isAway) this.#lose(steady(describe(error), before));
        // That one stays away is no news.
        if (this.problem !== before) tell({ kind: "lost", name: this.id });
        await clock.sleep(backoffMs(failures, retry, dice), signal).catch(() => undefined);
      }
    }
    this.#lose("it is not followed any more");
  }

  #lose(problem: string): void {
    this.problem = problem;
    this.#tried.resolve();
    this.#following.abort(this.#away());
  }

  /** Throws while the agent is not followed. */
  #followed(): AbortSignal {
    if (this.problem !== undefined) throw this.#away();
    return this.#following.signal;
  }

  #away(): LongshoreError {
    return new LongshoreError("Unreachable", `agent ${this.id} is away: ${this.problem}`);
  }

  /** An answer that is late must not hide what the stream has told meanwhile, and perhaps never tells again. */
  #learn(kind: TableKind, row: Named): void {
    const { rows } = this.#tables[kind];
    const present = rows.get(row.name);
    if (present === undefined || present.revision <= row.revision) rows.set(row.name, row);
  }

  /** Lists everything and follows the changes; returns when the stream ends, throws when it breaks. */
  async #follow(signal: AbortSignal, onSynced: () => void): Promise<void> {
    const since = await this.#listAll();
    onSynced();
    this.problem = undefined;
    if (this.#following.signal.aborted) this.#following = new AbortController();
    this.#tried.resolve();
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
    for await (const change of this.#agent.changes(since, signal)) {
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

/** Whether nobody answered, as apart from a connection that broke. */
function isSilence(error: unknown): boolean {
  const code = codeOf(error);
  return code === "Unreachable" || code === "Timeout";
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

/** These answer with streams, which end by their own signals. */
const streams: readonly (string | symbol)[] = ["changes", "followJob"] satisfies (keyof AgentApi)[];

interface Asking {
  /** Aborts when the agent is lost; throws when it is not followed. */
  followed(): AbortSignal;
  learn(kind: TableKind, row: Named): void;
}

/**
 * The agent as reconcilers ask it. What it answers is taken into the mirror at once: what is seen is never behind what we did
 * ourselves. One that is away is asked nothing, and what it has not answered when it is lost is given up: nobody waits for it.
 */
function asked(api: AgentApi, { followed, learn }: Asking): AgentApi {
  return new Proxy(api, {
    get(target, method) {
      const call = target[method as keyof AgentApi] as ((...parts: unknown[]) => unknown) | undefined;
      if (typeof call !== "function") return call;
      if (streams.includes(method)) return call.bind(target);
      const kind = answersWith[method as keyof AgentApi];
      return async (...parts: unknown[]) => {
        const signal = followed();
        const answer = await orAborted(Promise.resolve(call.apply(target, parts)), signal);
        if (kind !== undefined) learn(kind, answer as Named);
        return answer;
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
