// A storage cluster of fake agents, as the client for a whole cluster has it: each request goes to the agent that has what it is about,
// and an agent that does not answer may have anything.
import { LongshoreError } from "../../src/domain/errors.ts";
import { silentMax } from "../../src/domain/name-claim.ts";
import type { MergedList } from "../../src/wire/cluster-agents.ts";
import type { ClusterApi } from "../../src/wire/cluster-client.ts";
import type { List, VolumeView } from "../../src/wire/schemas.ts";
import { FakeAgent } from "./fake-agent.ts";

export interface FakeStorageCluster {
  readonly api: ClusterApi;
  readonly agents: readonly FakeAgent[];
  /** Those that do not answer. */
  readonly silent: Set<FakeAgent>;
  /** Called before and after each call that changes something; may throw. */
  onEffect: (method: string, when: "before" | "after") => void;
}

const effects: ReadonlySet<unknown> = new Set<keyof ClusterApi>([
  "putVolume",
  "putVolumeAt",
  "removeVolume",
  "putSnapshot",
  "putGroupSnapshot",
  "removeSnapshot",
  "putClone",
  "removeClone",
]);

/** The volumes, but for those of an agent that does not answer while they are read, and does again a moment later. */
export async function listWithout(
  { api, silent }: FakeStorageCluster,
  agent: FakeAgent,
): Promise<MergedList<VolumeView>> {
  silent.add(agent);
  const list = await api.listVolumes();
  silent.delete(agent);
  return list;
}

/** Agents on node-1, node-2, … */
export function fakeStorageCluster(count = 3): FakeStorageCluster {
  const agents = Array.from({ length: count }, (_, index) => new FakeAgent({ place: index + 1 }));
  const [first, ...others] = agents as [FakeAgent, ...FakeAgent[]];
  first.join(others);
  const silent = new Set<FakeAgent>();
  const cluster: FakeStorageCluster = {
    api: observed(apiOf(agents, silent), (method, when) => cluster.onEffect(method, when)),
    agents,
    silent,
    onEffect: () => undefined,
  };
  return cluster;
}

type Has = (agent: FakeAgent) => boolean;

function apiOf(agents: readonly FakeAgent[], silent: ReadonlySet<FakeAgent>): ClusterApi {
  function answering(): [FakeAgent, ...FakeAgent[]] {
    const [first, ...others] = agents.filter((agent) => !silent.has(agent));
    if (first === undefined) throw new LongshoreError("Unreachable", "no agent answers");
    return [first, ...others];
  }
  function having(what: string, has: Has): FakeAgent {
    const found = answering().find(has);
    if (found !== undefined) return found;
    if (silent.size > 0) throw new LongshoreError("Unreachable", `${what} may be with an agent that does not answer`);
    throw new LongshoreError("NotFound", `no ${what}`);
  }
  const orFirst = (has: Has) => answering().find(has) ?? (silent.size > 0 ? having("it", has) : answering()[0]);
  const ofVolume = (name: string) => having(`volume ${name}`, (agent) => agent.volumes.has(name));
  const ofMigrated = (name: string) => having(`migrated volume ${name}`, (agent) => agent.migratedVolumes.has(name));
  async function merged<T>(list: (agent: FakeAgent) => Promise<List<T>>): Promise<MergedList<T>> {
    const asked = answering();
    const lists = await Promise.all(asked.map(list));
    return {
      items: lists.flatMap(({ items }) => items),
      sequence: lists[0]?.sequence ?? 0,
      answered: asked.map(({ view }) => view.agentId),
    };
  }
  const own: Partial<ClusterApi> = {
    agents: () => Promise.all(agents.filter((agent) => !silent.has(agent)).map((agent) => agent.describe())),
    listVolumes: () => merged((agent) => agent.listVolumes()),
    listMigratedVolumes: () => merged((agent) => agent.listMigratedVolumes()),
    listClones: () => merged((agent) => agent.listClones()),
    getVolume: async (name) => ofVolume(name).getVolume(name),
    async putVolume(name, spec, precondition) {
      const has: Has = (agent) => agent.volumes.has(name) || agent.volumes.has(spec.from?.volume ?? name);
      return orFirst(has).putVolume(name, spec, precondition);
    },
    async putVolumeAt(agentId, name, spec) {
      const found = answering().find((agent) => agent.volumes.has(name));
      // What one that is away has, the others know; of two, they do not.
      const isAway = silent.size > silentMax || [...silent].some((agent) => agent.volumes.has(name));
      if (found === undefined && isAway) throw new LongshoreError("Unreachable", `${name} may be elsewhere`);
      if (found !== undefined && found.view.agentId !== agentId)
        throw new LongshoreError("NameTaken", `${found.view.node} has a volume ${name}`);
      const home = answering().find(({ view }) => view.agentId === agentId);
      if (home === undefined) throw new LongshoreError("Unreachable", `agent ${agentId} does not answer`);
      return home.putVolume(name, spec);
    },
    removeVolume: async (name, precondition) =>
      orFirst((agent) => agent.volumes.has(name)).removeVolume(name, precondition),
    putSnapshot: async (volume, name) => ofVolume(volume).putSnapshot(volume, name),
    removeSnapshot: async (volume, name) => orFirst((agent) => agent.volumes.has(volume)).removeSnapshot(volume, name),
    listExtents: async (volume, snapshot, query) => ofVolume(volume).listExtents(volume, snapshot, query),
    putGroupSnapshot: async (group, name, spec) => answering()[0].putGroupSnapshot(group, name, spec),
    getMigratedVolume: async (name) => ofMigrated(name).getMigratedVolume(name),
    async putClone(name, spec) {
      const known = answering().find((agent) => agent.clones.has(name));
      return (known ?? ofMigrated(spec.migratedVolume)).putClone(name, spec);
    },
    removeClone: async (name) => orFirst((agent) => agent.clones.has(name)).removeClone(name),
    close: async () => undefined,
  };
  return own as ClusterApi;
}

/** What the driver has no need of is not there: a call of it fails by itself. */
function observed(api: ClusterApi, tell: (method: string, when: "before" | "after") => void): ClusterApi {
  return new Proxy(api, {
    get(target, name) {
      const call: unknown = Reflect.get(target, name);
      if (typeof call !== "function" || !effects.has(name)) return call;
      return async (...args: unknown[]) => {
        tell(String(name), "before");
        const result: unknown = await call.apply(target, args);
        tell(String(name), "after");
        return result;
      };
    },
  });
}
