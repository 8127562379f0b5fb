// The agents of a storage cluster, one by one and all together: who there is, as any of them tells; a connection to each; and
// who of them does not answer at the moment.
import type { Clock } from "../base/clock.ts";
import { codeOf, describe, LongshoreError } from "../domain/errors.ts";
import type { AgentApi } from "./agent-api.ts";
import type { AgentView, List, Member } from "./schemas.ts";

/** What the agents that answered have, together. */
export interface MergedList<T> extends List<T> {
  /** The ids of those agents: what any other one has is missing. */
  readonly answered: readonly string[];
}

type Connection = AgentApi & { close(): Promise<void> };
export type Read<T> = (api: AgentApi) => Promise<T>;

export interface ClusterAgentsOptions {
  /** Any agent of the cluster: it names the others, and does what any agent can do. */
  readonly first: AgentApi;
  /** `first` is always one and the same agent, and is reached that way only: it need not be at the address that others use. */
  readonly isFirstOneAgent?: boolean;
  /** The client for one agent at its address; calls of it must fail where another one answers. */
  readonly open: (address: string, agentId: string) => Connection;
  /** Told of each agent that does not answer, once until it does again; what it has is missing from what is listed. */
  readonly onSilent: (member: Member, problem: string) => void;
  readonly clock: Clock;
}

/** Who there is is asked again after so long. */
const membersMs = 10_000;

interface Known {
  /** The agent that told comes first. */
  readonly members: readonly Member[];
  readonly readMs: number;
}

/** What the agents that answered have said, and the ids of those that did not. */
interface Asked<T> {
  readonly answers: readonly T[];
  readonly silent: readonly string[];
}

/** Where it is, if it is there, and else how an agent said that it is not. */
interface Looked<T> {
  readonly found: Found<T> | undefined;
  readonly missing: unknown;
  readonly silent: readonly string[];
}

interface Found<T> {
  readonly api: AgentApi;
  readonly agentId: string;
  readonly value: T;
}

export class ClusterAgents {
  private readonly options: ClusterAgentsOptions;
  /** By {@link keyOf}. */
  private readonly opened = new Map<string, Connection>();
  /** Those that did not answer when they were asked last. */
  private readonly silent = new Set<string>();
  private firstId: string | undefined;
  private known: Known | undefined;
  private reading: Promise<Known> | undefined;

  constructor(options: ClusterAgentsOptions) {
    this.options = options;
  }

  /** What all agents have, together; the sequence is that of the agent that names the others. */
  async list<T>(list: Read<List<T>>): Promise<MergedList<T>> {
    const members = await this.members();
    const { answers, silent } = await this.askThem(members, list);
    return {
      items: answers.flatMap(({ items }) => items),
      sequence: answers[0]?.sequence ?? 0,
      answered: members.map(({ agentId }) => agentId).filter((agentId) => !silent.includes(agentId)),
    };
  }

  /** The agent that has it. Throws `NotFound`, or `Unreachable` when an agent that does not answer may have it. */
  async having(what: string, read: Read<unknown>): Promise<AgentApi> {
    return (await this.find(what, read)).api;
  }

  /** As {@link having}, with what was read there; the agent `first`, if it is there, is asked before the others. */
  async find<T>(what: string, read: Read<T>, first?: string): Promise<Found<T>> {
    const members = await this.members();
    const isLikely = ({ agentId }: Member) => agentId === first;
    const likely = await this.look(members.filter(isLikely), read);
    if (likely.found !== undefined) return likely.found;
    const others = await this.look(
      members.filter((member) => !isLikely(member)),
      read,
    );
    if (others.found !== undefined) return others.found;
    const silent = [...likely.silent, ...others.silent];
    if (silent.length === 0) throw likely.missing ?? others.missing;
    const advice = "bring it back or, if it will not come back: longshore node forget";
    const text = `no agent that answers has ${what}; agent ${silent.join(", ")} does not answer; ${advice}`;
    throw new LongshoreError("Unreachable", text);
  }

  /** The same of every agent, but for those that do not answer. */
  async ask<T>(read: Read<T>): Promise<Asked<T>> {
    return this.askThem(await this.members(), read);
  }

  /** The same on every agent that is not lost; throws when one does not answer. The answer is the first agent's. */
  async onAll<T>(set: Read<T>): Promise<T> {
    const members = (await this.members()).filter(({ state }) => state !== "lost");
    const answers = await Promise.all(members.map(async (member) => set(this.api(member))));
    return answers[0] as T;
  }

  /** One agent by its id. Throws `NotFound` for one that is not of the cluster. */
  async at(agentId: string): Promise<AgentApi> {
    const member = (await this.members()).find((one) => one.agentId === agentId);
    if (member === undefined) throw new LongshoreError("NotFound", `agent ${agentId} is not of this cluster`);
    return this.api(member);
  }

  async close(): Promise<void> {
    const opened = [...this.opened.values()];
    this.opened.clear();
    for (const api of opened) await api.close();
  }

  private async look<T>(members: readonly Member[], read: Read<T>): Promise<Looked<T>> {
    let missing: unknown;
    const { answers, silent } = await this.askThem(members, async (api, { agentId }): Promise<Found<T> | undefined> => {
      try {
        return { api, agentId, value: await read(api) };
      } catch (error) {
        if (codeOf(error) !== "NotFound") throw error;
        missing ??= error;
        return undefined;
      }
    });
    return { found: answers.find((answer) => answer !== undefined), missing, silent };
  }

  private async askThem<T>(
    members: readonly Member[],
    read: (api: AgentApi, member: Member) => Promise<T>,
  ): Promise<Asked<T>> {
    const answers = await Promise.all(members.map((member) => this.orSilent(member, read)));
    return {
      answers: answers.flatMap((answer) => (answer === undefined ? [] : [answer.value])),
      silent: members.filter((_, index) => answers[index] === undefined).map(({ agentId }) => agentId),
    };
  }

  private async orSilent<T>(
    member: Member,
    read: (api: AgentApi, member: Member) => Promise<T>,
  ): Promise<{ value: T } | undefined> {
    const { agentId } = member;
    try {
      if (member.state === "lost") throw new LongshoreError("Unreachable", "its node came back without its data");
      const value = await read(this.api(member), member);
      this.silent.delete(agentId);
      return { value };
    } catch (error) {
      if (!isSilence(error)) throw error;
      if (!this.silent.has(agentId)) this.options.onSilent(member, describe(error));
      this.silent.add(agentId);
      return undefined;
    }
  }

  /** Read anew when it was read too long ago; all who ask meanwhile wait for the same answer. */
  private async members(): Promise<readonly Member[]> {
    const { known } = this;
    if (known !== undefined && this.options.clock.monotonicMs() - known.readMs < membersMs) return known.members;
    this.reading ??= this.read().finally(() => {
      this.reading = undefined;
    });
    return (await this.reading).members;
  }

  private async read(): Promise<Known> {
    const { agentId: teller, members } = await this.told();
    const order = ({ agentId }: Member) => Number(agentId !== teller);
    const all = [...members, ...this.leftOut(teller, members)].sort((a, b) => order(a) - order(b));
    const known = { members: all, readMs: this.options.clock.monotonicMs() };
    this.known = known;
    await this.disconnectOld(all);
    return known;
  }

  /** Members that were known and are not told of by an agent that was not: one that is new has perhaps not met them yet. */
  private leftOut(teller: string, told: readonly Member[]): Member[] {
    const known = this.known?.members ?? [];
    const has = (members: readonly Member[], id: string) => members.some(({ agentId }) => agentId === id);
    return has(known, teller) ? [] : known.filter(({ agentId }) => !has(told, agentId));
  }

  /**
   * Any agent names all of them: where the one that is usually asked is away, another one does. One that is new, and cannot know who else
   * there is, is never believed to.
   */
  private async told(): Promise<AgentView> {
    const others = (this.known?.members ?? []).filter(({ state }) => state !== "lost");
    let failure: unknown;
    for (const member of [undefined, ...others]) {
      try {
        const view = await (member === undefined ? this.options.first : this.api(member)).describe();
        if (member === undefined) this.firstId = view.agentId;
        if (view.isAcquainted !== false) return view;
        const text = `agent ${view.agentId} is new and does not know yet who else there is; start the others, or ask one of them`;
        throw new LongshoreError("Unreachable", text);
      } catch (error) {
        if (!isSilence(error)) throw error;
        failure ??= error;
      }
    }
    throw failure;
  }

  private api(member: Member): AgentApi {
    const { first, isFirstOneAgent, open } = this.options;
    if (isFirstOneAgent === true && member.agentId === this.firstId) return first;
    const key = keyOf(member);
    const api = this.opened.get(key) ?? open(member.address, member.agentId);
    this.opened.set(key, api);
    return api;
  }

  /** Those that went, or moved. */
  private async disconnectOld(members: readonly Member[]): Promise<void> {
    const present = new Set(members.map(keyOf));
    const old = [...this.opened].filter(([key]) => !present.has(key));
    for (const [key] of old) this.opened.delete(key);
    for (const [, api] of old) await api.close();
    const ids = new Set(members.map(({ agentId }) => agentId));
    for (const agentId of this.silent) if (!ids.has(agentId)) this.silent.delete(agentId);
  }
}

function keyOf({ agentId, address }: Member): string {
  return `${agentId} at ${address}`;
}

function isSilence(error: unknown): boolean {
  const code = codeOf(error);
  return code === "Unreachable" || code === "Timeout" || code === "StreamTorn";
}
