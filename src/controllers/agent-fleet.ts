// All agents of the operator's own cluster: any of them names the others, and each is mirrored.

import { describe, LongshoreError } from "../domain/errors.ts";
import { orAborted } from "../kube/abortable.ts";
import type { Enqueue, Key, Source } from "../kube/cluster.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import type { AgentView, Member as MemberView } from "../wire/schemas.ts";
import { AgentMirror, type AgentNews, type MirrorDeps } from "./agent-mirror.ts";
import type { Agents, SeenAgent } from "./agents.ts";

export interface FleetDeps extends Omit<MirrorDeps, "tell"> {
  /** Addresses (host:port) of agents of the own cluster; one that answers yields the others. */
  readonly seeds: readonly string[];
  /**
   * The client for an address, or for one agent at an address; makes no connection yet. Closed when the fleet ends. Where
   * another agent answers than the one that is meant, its calls throw `Unreachable`: what that one has is not its.
   */
  readonly connect: (address: string, agentId?: string) => AgentApi & { close(): Promise<void> };
  /** Which keys of which controllers are concerned by what an agent changed. */
  readonly route: (news: AgentNews) => readonly { readonly controller: string; readonly key: Key }[];
}

/** How often the members are asked for again. */
const membersEveryMs = 15_000;
const seedsEveryMs = 1_000;

interface Member {
  readonly mirror: AgentMirror;
  readonly address: string;
  readonly stop: AbortController;
  readonly running: Promise<void>;
}

/** Mirrors the agents while its source runs, which is while this operator leads. */
export class AgentFleet implements Agents, Source {
  readonly name = "agents";
  readonly #deps: FleetDeps;
  readonly #members = new Map<string, Member>();
  readonly #clients = new Map<string, ReturnType<FleetDeps["connect"]>>();
  readonly #ready = Promise.withResolvers<void>();
  #told: readonly MemberView[] = [];
  /** The ids on the last list that was believed as a whole. */
  #acquainted: ReadonlySet<string> = new Set();

  constructor(deps: FleetDeps) {
    this.#deps = deps;
  }

  /** Settled once every agent has been listed for the first time, or could not be. */
  get ready(): Promise<void> {
    return this.#ready.promise;
  }

  all(): readonly SeenAgent[] {
    return [...this.#members.values()].map(({ mirror }) => mirror).sort((a, b) => (a.id < b.id ? -1 : 1));
  }

  members(): readonly MemberView[] {
    return this.#told;
  }

  async run(enqueue: Enqueue, signal: AbortSignal): Promise<void> {
    try {
      while (!signal.aborted) {
        const isAnswered = await this.#refresh(enqueue, signal);
        const tried = [...this.#members.values()].map(({ mirror }) => mirror.tried);
        // After the first time this changes nothing any more.
        void Promise.all(tried).then(() => this.#ready.resolve());
        const pauseMs = isAnswered ? membersEveryMs : seedsEveryMs;
        await this.#deps.clock.sleep(pauseMs, signal).catch(() => undefined);
      }
    } finally {
      await Promise.all([...this.#members.keys()].map((id) => this.#drop(id)));
      await Promise.all([...this.#clients.keys()].map((key) => this.#disconnect(key)));
    }
  }

  /** Whether any agent answered. */
  async #refresh(enqueue: Enqueue, signal: AbortSignal): Promise<boolean> {
    const problems: string[] = [];
    for (const address of this.#addresses()) {
      try {
        const members = this.#believed(await orAborted(this.#client(address).describe(), signal));
        await this.#adopt(members, enqueue, signal);
        this.#learn(members, enqueue);
        await this.#disconnectOld();
        return true;
      } catch (error) {
        if (signal.aborted) return false;
        problems.push(`${address}: ${describe(error)}`);
      }
    }
    const error = new LongshoreError("Unreachable", `no agent of this cluster answers: ${problems.join("; ")}`);
    this.#deps.log.warn({ err: error }, "no agent answers");
    return false;
  }

  /** Whom to ask, in this order: one that is away, and perhaps hangs, not before the others. */
  #addresses(): ReadonlySet<string> {
    const members = [...this.#members.values()];
    const isAway = ({ mirror }: Member) => mirror.problem !== undefined;
    const ordered = [...members.filter((member) => !isAway(member)), ...members.filter(isAway)];
    return new Set([...ordered.map(({ address }) => address), ...this.#deps.seeds]);
  }

  /**
   * The members as told, and those whom the one who tells may have left out because it does not know them: an agent that has come
   * back without its data has yet to meet the others. Only one that was on the last list itself may leave somebody out of the next,
   * unless none of that list is left to say so: where they were, others are.
   */
  #believed({ agentId, members, isAcquainted }: AgentView): readonly MemberView[] {
    if (this.#told.length === 0 && isAcquainted === false) {
      throw new LongshoreError("Unreachable", `agent ${agentId} is new and does not know yet who else there is`);
    }
    const listed = new Set(members.map((member) => member.agentId));
    const nodes = new Set(members.map(({ node }) => node));
    const missed = this.#told.filter((member) => !listed.has(member.agentId));
    const isAllNew = missed.every(({ node }) => nodes.has(node)) && this.#acquainted.isDisjointFrom(listed);
    if (missed.length > 0 && !this.#acquainted.has(agentId) && !isAllNew) return [...members, ...missed];
    this.#acquainted = listed;
    return members;
  }

  async #adopt(members: readonly MemberView[], enqueue: Enqueue, signal: AbortSignal): Promise<void> {
    // Where a lost one was, another may answer now.
    const followed = members.filter(({ state }) => state !== "lost");
    const present = new Map(followed.map(({ agentId, address }) => [agentId, address]));
    for (const [id, { address }] of this.#members) if (present.get(id) !== address) await this.#drop(id);
    for (const [id, address] of present) if (!this.#members.has(id)) this.#follow(id, address, enqueue, signal);
  }

  /** Who was lost, came back, or was given up for good, is told to those whose volumes it had. */
  #learn(members: readonly MemberView[], enqueue: Enqueue): void {
    const before = new Map(this.#told.map(({ agentId, state }) => [agentId, state]));
    const present = new Set(members.map(({ agentId }) => agentId));
    this.#told = members;
    const changed = members.filter(({ agentId, state }) => before.get(agentId) !== state);
    const left = [...before.keys()].filter((agentId) => !present.has(agentId));
    const names = [...changed.map(({ agentId }) => agentId), ...left];
    for (const name of names) this.#tell({ kind: "member", name }, enqueue);
  }

  #tell(news: AgentNews, enqueue: Enqueue): void {
    for (const { controller, key } of this.#deps.route(news)) enqueue(controller, key);
  }

  #follow(id: string, address: string, enqueue: Enqueue, signal: AbortSignal): void {
    const tell = (news: AgentNews) => this.#tell(news, enqueue);
    const mirror = new AgentMirror(id, this.#client(address, id), { ...this.#deps, tell });
    const stop = new AbortController();
    const running = mirror.run(AbortSignal.any([signal, stop.signal]));
    this.#members.set(id, { mirror, address, stop, running });
  }

  #client(address: string, agentId?: string): AgentApi {
    const key = keyOf(address, agentId);
    const client = this.#clients.get(key) ?? this.#deps.connect(address, agentId);
    this.#clients.set(key, client);
    return client;
  }

  async #drop(id: string): Promise<void> {
    const member = this.#members.get(id);
    if (member === undefined) return;
    this.#members.delete(id);
    member.stop.abort();
    // What has not been answered ends with its client: one that hangs holds up nobody.
    await this.#disconnect(keyOf(member.address, id));
    await member.running;
  }

  /** Closes the clients for addresses where nobody is expected any more. */
  async #disconnectOld(): Promise<void> {
    const used = new Set([
      ...this.#deps.seeds.map((seed) => keyOf(seed)),
      ...[...this.#members].flatMap(([id, { address }]) => [keyOf(address), keyOf(address, id)]),
    ]);
    for (const key of [...this.#clients.keys()]) if (!used.has(key)) await this.#disconnect(key);
  }

  async #disconnect(key: string): Promise<void> {
    const client = this.#clients.get(key);
    this.#clients.delete(key);
    await client?.close();
  }
}

function keyOf(address: string, agentId = "anyone"): string {
  return `${agentId} at ${address}`;
}
