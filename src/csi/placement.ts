// Which agent a new volume is made at: the nodes that Kubernetes prefers, in its order, then those that it allows, the one with
// the most room first. A decision; reads nothing, changes nothing.
import type { TopologyRequirement } from "./csi-messages.ts";
import { isIn, mayLieOn } from "./topology.ts";

/** An agent that answers. */
export interface Candidate {
  readonly agentId: string;
  readonly node: string;
  readonly freeBytes: number;
}

/** An agent that belongs to the cluster, whether it answers or not. */
export interface KnownAgent {
  readonly agentId: string;
  readonly node: string;
  readonly state?: "alive" | "unreachable" | "lost" | undefined;
}

export interface PlacementFacts {
  readonly agents: readonly Candidate[];
  readonly members: readonly KnownAgent[];
}

export type Placement =
  /** Best first, never none. */
  | { readonly kind: "homes"; readonly agentIds: readonly string[] }
  /** It has to wait for one of these nodes, whose agents do not answer. */
  | { readonly kind: "silent"; readonly nodes: readonly string[] }
  /** No node that fits has an agent. */
  | { readonly kind: "nowhere" };

/** Whether another agent may have the volume already, is for whoever makes it. */
export function placeVolume(requirement: TopologyRequirement | null, facts: PlacementFacts): Placement {
  const fits = ({ node }: { readonly node: string }) => mayLieOn(requirement, node);
  const homes = facts.agents.filter(fits).sort((a, b) => compare(requirement, a, b));
  if (homes.length > 0) return { kind: "homes", agentIds: homes.map(({ agentId }) => agentId) };
  const silent = silentOf(facts).filter(fits);
  return silent.length > 0 ? { kind: "silent", nodes: silent.map(({ node }) => node) } : { kind: "nowhere" };
}

interface Attendance<T extends KnownAgent> {
  readonly agents: readonly Pick<Candidate, "agentId">[];
  readonly members: readonly T[];
}

/** The agents of the cluster that do not answer; what has been lost for good is not waited for. */
export function silentOf<T extends KnownAgent>({ agents, members }: Attendance<T>): T[] {
  const answering = new Set(agents.map(({ agentId }) => agentId));
  return members.filter(({ agentId, state }) => state !== "lost" && !answering.has(agentId));
}

function compare(requirement: TopologyRequirement | null, a: Candidate, b: Candidate): number {
  const byRank = rankOf(requirement, a.node) - rankOf(requirement, b.node);
  if (byRank !== 0) return byRank;
  if (a.freeBytes !== b.freeBytes) return b.freeBytes - a.freeBytes;
  // As good as each other; the same one at each try.
  return a.agentId < b.agentId ? -1 : 1;
}

/** The place among what is preferred; whatever is not comes last. */
function rankOf(requirement: TopologyRequirement | null, node: string): number {
  const preferred = requirement?.preferred ?? [];
  const place = preferred.findIndex((topology) => isIn(topology, node));
  return place === -1 ? preferred.length : place;
}
