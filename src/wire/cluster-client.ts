// A whole storage cluster through any one of its agents: lists of all of them in one, and each request put to the agent that
// has what it is about. Locations and consents are the same on every agent, so they are read from the one asked, and set on all.
import { codeOf, describe, LongshoreError } from "../domain/errors.ts";
import type { AgentApi } from "./agent-api.ts";
import type { List, Member } from "./schemas.ts";

export interface ClusterClientOptions {
  /** The agent that is asked first, and that names the others. */
  readonly first: AgentApi;
  /** The client for one agent at its address. */
  readonly open: (address: string, agentId: string) => AgentApi & { close(): Promise<void> };
  /** Told once of each agent that does not answer; what it has is missing from what is listed. */
  readonly onSilent: (member: Member, problem: string) => void;
}

type Read<T> = (api: AgentApi) => Promise<T>;

export function openClusterClient(options: ClusterClientOptions): AgentApi & { close(): Promise<void> } {
  const cluster = new Cluster(options);
  const { first } = options;
  const merged = <T>(list: Read<List<T>>) => cluster.list(list);
  const ofVolume = (name: string) => cluster.having(`volume ${name}`, (api) => api.getVolume(name));
  const ofJob = (name: string) => cluster.having(`job ${name}`, (api) => api.getJob(name));
  const ofMigrated = (name: string) => cluster.having(`migrated volume ${name}`, (api) => api.getMigratedVolume(name));
  const ofClone = (name: string) => cluster.having(`clone ${name}`, (api) => api.getClone(name));
  return {
    describe: () => first.describe(),
    forgetMember: (agentId) => first.forgetMember(agentId),
    listVolumes: () => merged((api) => api.listVolumes()),
    getVolume: async (name) => (await ofVolume(name)).getVolume(name),
    putVolume: async (name, spec, precondition) =>
      (await cluster.orFirst(ofVolume(name))).putVolume(name, spec, precondition),
    removeVolume: async (name, precondition) =>
      (await cluster.orFirst(ofVolume(name))).removeVolume(name, precondition),
    putSnapshot: async (volume, name) => (await ofVolume(volume)).putSnapshot(volume, name),
    removeSnapshot: async (volume, name) => (await cluster.orFirst(ofVolume(volume))).removeSnapshot(volume, name),
    putGroupSnapshot: (group, name, spec) => first.putGroupSnapshot(group, name, spec),
    putHold: async (volume, snapshot, owner) => (await ofVolume(volume)).putHold(volume, snapshot, owner),
    removeHold: async (volume, snapshot, hold) =>
      (await cluster.orFirst(ofVolume(volume))).removeHold(volume, snapshot, hold),
    listLocations: () => first.listLocations(),
    getLocation: (name) => first.getLocation(name),
    putLocation: (name, spec, precondition) => cluster.onAll((api) => api.putLocation(name, spec, precondition)),
    removeLocation: (name, removal) => cluster.onAll((api) => api.removeLocation(name, removal)),
    listJobs: () => merged((api) => api.listJobs()),
    getJob: async (name) => (await ofJob(name)).getJob(name),
    async putJob(name, spec, precondition) {
      const [volume = ""] = spec.group?.volumes ?? [spec.volume];
      return (await cluster.orWhere(ofJob(name), () => ofVolume(String(volume)))).putJob(name, spec, precondition);
    },
    removeJob: async (name) => (await cluster.orFirst(ofJob(name))).removeJob(name),
    async *followJob(name, signal) {
      yield* (await ofJob(name)).followJob(name, signal);
    },
    listSources: () => first.listSources(),
    getSource: (name) => first.getSource(name),
    putSource: (name, spec, precondition) => cluster.onAll((api) => api.putSource(name, spec, precondition)),
    removeSource: (name, precondition) => cluster.onAll((api) => api.removeSource(name, precondition)),
    listMigratedVolumes: () => merged((api) => api.listMigratedVolumes()),
    getMigratedVolume: async (name) => (await ofMigrated(name)).getMigratedVolume(name),
    removeMigratedVolume: async (name, precondition) =>
      (await cluster.orFirst(ofMigrated(name))).removeMigratedVolume(name, precondition),
    listGroups: () => merged((api) => api.listGroups()),
    getGroup: async (name, choice) =>
      (await cluster.having(`group ${name}`, (api) => api.getGroup(name, choice))).getGroup(name, choice),
    listClones: () => merged((api) => api.listClones()),
    getClone: async (name) => (await ofClone(name)).getClone(name),
    putClone: async (name, spec) =>
      (await cluster.orWhere(ofClone(name), () => ofMigrated(spec.migratedVolume))).putClone(name, spec),
    removeClone: async (name) => (await cluster.orFirst(ofClone(name))).removeClone(name),
    changes: (since, signal) => first.changes(since, signal),
    close: () => cluster.close(),
  };
}

class Cluster {
  private readonly options: ClusterClientOptions;
  private readonly opened = new Map<string, AgentApi & { close(): Promise<void> }>();
  private readonly silent = new Set<string>();
  private firstId: string | undefined;
  private known: Promise<readonly Member[]> | undefined;

  constructor(options: ClusterClientOptions) {
    this.options = options;
  }

  /** What all agents have, together; the sequence is that of the agent asked first. */
  async list<T>(list: Read<List<T>>): Promise<List<T>> {
    const lists = await this.ask(list);
    return { items: lists.flatMap(({ items }) => items), sequence: lists[0]?.sequence ?? 0 };
  }

  /** The agent that has it. Throws `NotFound`, or `Unreachable` when an agent that does not answer may have it. */
  async having(what: string, read: Read<unknown>): Promise<AgentApi> {
    let missing: unknown;
    const found = await this.ask(async (api) => {
      try {
        await read(api);
        return api;
      } catch (error) {
        if (codeOf(error) !== "NotFound") throw error;
        missing ??= error;
        return undefined;
      }
    });
    const api = found.find((one) => one !== undefined);
    if (api !== undefined) return api;
    if (this.silent.size === 0) throw missing;
    const agents = [...this.silent].join(", ");
    throw new LongshoreError("Unreachable", `no agent that answers has ${what}; agent ${agents} does not answer`);
  }

  /** The agent that has it, or the one asked first where nobody has it. */
  orFirst(one: Promise<AgentApi>): Promise<AgentApi> {
    return one.catch((error: unknown) => {
      if (codeOf(error) !== "NotFound") throw error;
      return this.options.first;
    });
  }

  /** The agent that has it, or the one that has what it is about: that it can only be at, if that one answers. */
  orWhere(one: Promise<AgentApi>, other: () => Promise<AgentApi>): Promise<AgentApi> {
    return one.catch((error: unknown) => {
      if (codeOf(error) !== "NotFound" && codeOf(error) !== "Unreachable") throw error;
      return other();
    });
  }

  /** The same on every agent that is not lost; throws when one does not answer. The answer is the first agent's. */
  async onAll<T>(set: Read<T>): Promise<T> {
    const members = (await this.members()).filter(({ state }) => state !== "lost");
    const answers = await Promise.all(members.map((member) => set(this.api(member))));
    return answers[0] as T;
  }

  async close(): Promise<void> {
    for (const api of this.opened.values()) await api.close();
    this.opened.clear();
  }

  private async ask<T>(read: Read<T>): Promise<T[]> {
    const members = await this.members();
    const answers = await Promise.all(members.map((member) => this.orSilent(member, read)));
    return answers.flatMap((answer) => (answer === undefined ? [] : [answer.value]));
  }

  private async orSilent<T>(member: Member, read: Read<T>): Promise<{ value: T } | undefined> {
    try {
      if (member.state === "lost") throw new LongshoreError("Unreachable", "its node came back without its data");
      return { value: await read(this.api(member)) };
    } catch (error) {
      if (!isSilence(error)) throw error;
      if (!this.silent.has(member.agentId)) this.options.onSilent(member, describe(error));
      this.silent.add(member.agentId);
      return undefined;
    }
  }

  /** The agent asked first comes first. */
  private members(): Promise<readonly Member[]> {
    this.known ??= this.options.first.describe().then(({ agentId, members }) => {
      this.firstId = agentId;
      return [...members].sort((a, b) => order(a, agentId) - order(b, agentId));
    });
    return this.known;
  }

  /** The first is reached the way it was reached before: it need not be at the address that others use. */
  private api({ agentId, address }: Member): AgentApi {
    if (agentId === this.firstId) return this.options.first;
    const api = this.opened.get(agentId) ?? this.options.open(address, agentId);
    this.opened.set(agentId, api);
    return api;
  }
}

function isSilence(error: unknown): boolean {
  const code = codeOf(error);
  return code === "Unreachable" || code === "Timeout" || code === "StreamTorn";
}

function order(member: Member, first: string): number {
  return member.agentId === first ? 0 : 1;
}
