// All agents of the operator's own cluster: any of them names the others, and each is mirrored.

import { describe, LongshoreError } from "../domain/errors.ts";
import type { Enqueue, Key, Source } from "../kube/cluster.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import type { Member as MemberView } from "../wire/schemas.ts";
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
  #told: readonly MemberView[] = [];

  constructor(deps: FleetDeps) {
    this.#deps = deps;
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
        const pauseMs = isAnswered ? membersEveryMs : seedsEveryMs;
        await this.#deps.clock.sleep(pauseMs, signal).catch(() => undefined);
      }
    } finally {
      await Promise.all([...this.#members.keys()].map((id) => this.#drop(id)));
      const clients = [...this.#clients.values()];
      this.#clients.clear();
      await Promise.all(clients.map((client) => client.close()));
    }
  }

  /** Whether any agent answered. */
  async #refresh(enqueue: Enqueue, signal: AbortSignal): Promise<boolean> {
    const addresses = new Set([...[...this.#members.values()].map(({ address }) => address), ...this.#deps.seeds]);
    const problems: string[] = [];
    for (const address of addresses) {
      try {
        const { members } = await this.#client(address).describe();
        await this.#adopt(members, enqueue, signal);
        this.#learn(members, enqueue);
        return true;
      } catch (error) {
        problems.push(`${address}: ${describe(error)}`);
      }
    }
    const error = new LongshoreError("Unreachable", `no agent of this cluster answers: ${problems.join("; ")}`);
    this.#deps.log.warn({ err: error }, "no agent answers");
    return false;
  }

  async #adopt(members: readonly MemberView[], enqueue: Enqueue, signal: AbortSignal): Promise<void> {
    // Where a lost one was, another may answer now.
    const followed = members.filter(({ state }) => state !== "lost");
    const present = new Map(followed.map(({ agentId, address }) => [agentId, address]));
    for (const [id, { address }] of this.#members) if (present.get(id) !== address) await this.#drop(id);
    for (const [id, address] of present) if (!this.#members.has(id)) this.#follow(id, address, enqueue, signal);
  }

  /** Who was lost, or came back, is told to those whose volumes it had. */
  #learn(members: readonly MemberView[], enqueue: Enqueue): void {
    const before = new Map(this.#told.map(({ agentId, state }) => [agentId, state]));
    this.#told = members;
    const changed = members.filter(({ agentId, state }) => before.get(agentId) !== state);
    for (const { agentId } of changed) this.#tell({ kind: "member", name: agentId }, enqueue);
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
    const key = `${agentId ?? "anyone"} at ${address}`;
    const client = this.#clients.get(key) ?? this.#deps.connect(address, agentId);
    this.#clients.set(key, client);
    return client;
  }

  async #drop(id: string): Promise<void> {
    const member = this.#members.get(id);
    this.#members.delete(id);
    member?.stop.abort();
    await member?.running;
  }
}
