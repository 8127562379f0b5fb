// The agents of the operator's own cluster, as last seen. What they hold is mirrored here from bulk lists and change
// streams (agent-mirror.ts), so that no reconcile asks an agent in order to observe; it asks only to act.
import type { AgentApi } from "../wire/agent-api.ts";
import type {
  CloneView,
  JobView,
  LocationView,
  Member,
  MigratedVolumeView,
  SourceView,
  VolumeView,
} from "../wire/schemas.ts";

/** One agent and what it was last seen to hold, by name. May be behind the agent by a moment. */
export interface SeenAgent {
  readonly id: string;
  /** Throws `Unreachable` at once while the agent is not followed, and as soon as it is lost. */
  readonly api: AgentApi;
  /** Why it is not followed at the moment; what is below is then from before, or empty. */
  readonly problem: string | undefined;
  readonly volumes: ReadonlyMap<string, VolumeView>;
  readonly locations: ReadonlyMap<string, LocationView>;
  readonly jobs: ReadonlyMap<string, JobView>;
  readonly sources: ReadonlyMap<string, SourceView>;
  readonly migratedVolumes: ReadonlyMap<string, MigratedVolumeView>;
  readonly clones: ReadonlyMap<string, CloneView>;
  /** Those of its jobs that were made for a MigrationJob of this name, whatever its UID. */
  jobsOf(migrationJob: string): readonly JobView[];
}

export interface Agents {
  /** Every agent of the cluster that is known of and not lost, in a fixed order. */
  all(): readonly SeenAgent[];
  /** The agents as they see each other, the lost ones among them; as the one that was asked last told. */
  members(): readonly Member[];
}

/** Something an agent holds, and the agent. */
export interface Held<T> {
  readonly agent: SeenAgent;
  readonly view: T;
}

type Collection = "volumes" | "locations" | "jobs" | "sources" | "migratedVolumes" | "clones";
type ViewOf<C extends Collection> = SeenAgent[C] extends ReadonlyMap<string, infer V> ? V : never;

/** What each agent holds under this name. */
export function findAll<C extends Collection>(agents: Agents, collection: C, name: string): readonly Held<ViewOf<C>>[] {
  return agents.all().flatMap((agent) => {
    const view = (agent[collection] as ReadonlyMap<string, ViewOf<C>>).get(name);
    return view === undefined ? [] : [{ agent, view }];
  });
}

/** What the agents hold under a name that is unique in the cluster. */
export function findOne<C extends Collection>(
  agents: Agents,
  collection: C,
  name: string,
): Held<ViewOf<C>> | undefined {
  return findAll(agents, collection, name)[0];
}

/** A lane for what is asked of the agent that holds this: one that hangs keeps waiting nobody but its own. */
export function laneOfHolder(agents: Agents, collection: Collection, name: string): string {
  return findOne(agents, collection, name)?.agent.id ?? "";
}

/** What is wrong with an agent, by its name; `undefined` when it is followed. */
export function awayBecause({ id, problem }: SeenAgent): string | undefined {
  return problem === undefined ? undefined : `agent ${id}: ${problem}`;
}

/** Those that are followed at the moment. */
export function followedAgents(agents: Agents): readonly SeenAgent[] {
  return agents.all().filter(({ problem }) => problem === undefined);
}

/** The agent of this id, if its node came back without its data. */
export function lostAgent(members: readonly Member[], agentId: string | undefined): Member | undefined {
  return members.find((member) => member.agentId === agentId && member.state === "lost");
}

/** Why what the agents hold is not wholly known; `undefined` when it is, so that what is not seen is not there. */
export function agentsProblem(agents: Agents): string | undefined {
  const all = agents.all();
  if (all.length === 0) return "no agent of this cluster has answered yet";
  const lacking = all.flatMap((agent) => awayBecause(agent) ?? []);
  return lacking.length === 0 ? undefined : lacking.join("; ");
}
