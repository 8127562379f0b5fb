// A whole storage cluster through any one of its agents: lists of all of them in one, and each request put to the agent that
// has what it is about. Locations and consents are the same on every agent, so they are read from the one asked, and set on all.
// Fit for a process that lives for months: who there is is asked anew, and who fell silent is asked again.
import { type Clock, systemClock } from "../base/clock.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { AgentApi } from "./agent-api.ts";
import { ClusterAgents, type ClusterAgentsOptions, type MergedList, type Read } from "./cluster-agents.ts";
import { nameClaims } from "./routes.ts";
import type { AgentView, List, MigratedVolumeView, VolumeSpec, VolumeView } from "./schemas.ts";

/** The agents of a cluster as one; `NotFound` is thrown only when every agent has said so, `Unreachable` when one may have it. */
export interface ClusterApi extends AgentApi {
  /** All agents that answer. */
  agents(): Promise<readonly AgentView[]>;
  listVolumes(): Promise<MergedList<VolumeView>>;
  listMigratedVolumes(): Promise<MergedList<MigratedVolumeView>>;
  /**
   * Makes, or changes, a volume at this agent. Throws `NameTaken` when another one has a volume of that name, and `Unreachable` when one
   * that does not answer may have it: one name must never stand for two volumes.
   */
  putVolumeAt(agentId: string, name: string, spec: VolumeSpec): Promise<VolumeView>;
  close(): Promise<void>;
}

export interface ClusterClientOptions extends Omit<ClusterAgentsOptions, "clock"> {
  readonly clock?: Clock;
}

/** A volume where it is. */
interface Located {
  readonly api: AgentApi;
  readonly agentId: string;
  readonly view: VolumeView;
}

/** How many volumes' agents are remembered. */
const homesMax = 10_000;

export function openClusterClient({ clock = systemClock, ...options }: ClusterClientOptions): ClusterApi {
  const { first } = options;
  const agents = new ClusterAgents({ ...options, clock });
  const volumes = new VolumeHomes(agents);
  const merged = <T>(list: Read<List<T>>) => agents.list(list);
  const ofVolume = async (name: string) => (await volumes.find(name)).api;
  const ofJob = (name: string) => agents.having(`job ${name}`, (api) => api.getJob(name));
  const ofMigrated = (name: string) => agents.having(`migrated volume ${name}`, (api) => api.getMigratedVolume(name));
  const ofClone = (name: string) => agents.having(`clone ${name}`, (api) => api.getClone(name));
  const orFirst = (one: Promise<AgentApi>) => unlessNotFound(one, first);
  return {
    describe: () => first.describe(),
    agents: () => agents.ask((api) => api.describe()).then(({ answers }) => answers),
    forgetMember: (agentId) => first.forgetMember(agentId),
    ...volumeCalls({ agents, volumes, first }),
    listVolumes: () => merged((api) => api.listVolumes()),
    listLocations: () => first.listLocations(),
    getLocation: (name) => first.getLocation(name),
    putLocation: (name, spec, precondition) => agents.onAll((api) => api.putLocation(name, spec, precondition)),
    removeLocation: (name, removal) => agents.onAll((api) => api.removeLocation(name, removal)),
    listJobs: () => merged((api) => api.listJobs()),
    getJob: async (name) => (await ofJob(name)).getJob(name),
    async putJob(name, spec, precondition) {
      const [volume = ""] = spec.group?.volumes ?? [spec.volume];
      return (await orWhere(ofJob(name), () => ofVolume(String(volume)))).putJob(name, spec, precondition);
    },
    removeJob: async (name) => (await orFirst(ofJob(name))).removeJob(name),
    async *followJob(name, signal) {
      yield* (await ofJob(name)).followJob(name, signal);
    },
    listSources: () => first.listSources(),
    getSource: (name) => first.getSource(name),
    putSource: (name, spec, precondition) => agents.onAll((api) => api.putSource(name, spec, precondition)),
    removeSource: (name, precondition) => agents.onAll((api) => api.removeSource(name, precondition)),
    listMigratedVolumes: () => merged((api) => api.listMigratedVolumes()),
    getMigratedVolume: async (name) => (await ofMigrated(name)).getMigratedVolume(name),
    removeMigratedVolume: async (name, precondition) =>
      (await orFirst(ofMigrated(name))).removeMigratedVolume(name, precondition),
    listGroups: () => merged((api) => api.listGroups()),
    getGroup: async (name, choice) =>
      (await agents.having(`group ${name}`, (api) => api.getGroup(name, choice))).getGroup(name, choice),
    listClones: () => merged((api) => api.listClones()),
    getClone: async (name) => (await ofClone(name)).getClone(name),
    putClone: async (name, spec) =>
      (await orWhere(ofClone(name), () => ofMigrated(spec.migratedVolume))).putClone(name, spec),
    removeClone: async (name) => (await orFirst(ofClone(name))).removeClone(name),
    changes: (since, signal) => first.changes(since, signal),
    close: () => agents.close(),
  };
}

interface Parts {
  readonly agents: ClusterAgents;
  readonly volumes: VolumeHomes;
  readonly first: AgentApi;
}

/** What is about one volume goes to the agent that has it, and is not sent before that one has said so. */
function volumeCalls({ agents, volumes, first }: Parts) {
  const at = async (name: string) => (await volumes.find(name)).api;
  const atOrFirst = (name: string) => unlessNotFound(at(name), first);
  return {
    getVolume: async (name) => (await volumes.find(name)).view,
    async putVolume(name, spec, precondition) {
      const { from } = spec;
      // A clone can only be where what it is made of is.
      const api = await (from === undefined ? atOrFirst(name) : orWhere(at(name), () => at(from.volume)));
      return api.putVolume(name, spec, precondition);
    },
    async putVolumeAt(agentId, name, spec) {
      const found = await unlessNotFound(volumes.find(name), undefined).catch(async (error: unknown) => {
        if (codeOf(error) !== "Unreachable") throw error;
        // It finds out with the others whether one that is away may have the name; one of an earlier version does not.
        const { understands = [] } = await (await agents.at(agentId)).describe();
        if (!understands.includes(nameClaims)) throw inDoubt(name, error);
        return undefined;
      });
      if (found !== undefined && found.agentId !== agentId) {
        throw new LongshoreError("NameTaken", `agent ${found.agentId} has a volume ${name} already`);
      }
      return (await agents.at(agentId)).putVolume(name, spec);
    },
    removeVolume: async (name, precondition) => (await atOrFirst(name)).removeVolume(name, precondition),
    putSnapshot: async (volume, name) => (await at(volume)).putSnapshot(volume, name),
    removeSnapshot: async (volume, name) => (await atOrFirst(volume)).removeSnapshot(volume, name),
    listExtents: async (volume, snapshot, query) => (await at(volume)).listExtents(volume, snapshot, query),
    putGroupSnapshot: (group, name, spec) => first.putGroupSnapshot(group, name, spec),
    putHold: async (volume, snapshot, owner) => (await at(volume)).putHold(volume, snapshot, owner),
    removeHold: async (volume, snapshot, hold) => (await atOrFirst(volume)).removeHold(volume, snapshot, hold),
  } satisfies Partial<ClusterApi>;
}

/** Which agent has which volume: the one that had it the last time is asked first, and the others only when it has it no more. */
class VolumeHomes {
  private readonly agents: ClusterAgents;
  /** Agent ids by name; what was found last comes last. */
  private readonly known = new Map<string, string>();

  constructor(agents: ClusterAgents) {
    this.agents = agents;
  }

  /** As {@link ClusterAgents.having}. */
  async find(name: string): Promise<Located> {
    const read = (api: AgentApi) => api.getVolume(name);
    const first = this.known.get(name);
    this.known.delete(name);
    const { api, agentId, value } = await this.agents.find(`volume ${name}`, read, first);
    this.known.set(name, agentId);
    const [oldest] = this.known.keys();
    if (this.known.size > homesMax && oldest !== undefined) this.known.delete(oldest);
    return { api, agentId, view: value };
  }
}

/** Of a volume that is not made, for an agent that does not answer may have one of its name. */
function inDoubt(name: string, cause: unknown): LongshoreError {
  const text = `volume ${name} is not made while an agent that may have one of that name is away`;
  return new LongshoreError("Unreachable", text, { cause });
}

/** What was looked for, or something else where nobody has it. */
function unlessNotFound<T, U>(one: Promise<T>, otherwise: U): Promise<T | U> {
  return one.catch((error: unknown) => {
    if (codeOf(error) !== "NotFound") throw error;
    return otherwise;
  });
}

/** The agent that has it, or the one that has what it is about: that it can only be at, if that one answers. */
function orWhere(one: Promise<AgentApi>, other: () => Promise<AgentApi>): Promise<AgentApi> {
  return one.catch((error: unknown) => {
    if (codeOf(error) !== "NotFound" && codeOf(error) !== "Unreachable") throw error;
    return other();
  });
}
