// Where volumes are accessible from: each from one node, that of the agent which is its home.
import type { Topology, TopologyRequirement } from "./csi-messages.ts";

/** Its value is the agent's node, which is the Kubernetes node's name. */
export const topologyKey = "longshore.dev/node";

export function topologyOf(node: string): Topology {
  return { segments: { [topologyKey]: node } };
}

/** Whether what lies on this node is accessible from that topology; one that says nothing is anywhere. */
export function isIn({ segments }: Topology, node: string): boolean {
  return Object.entries(segments).every(([key, value]) => key === topologyKey && value === node);
}

/** Whether a volume may lie on this node. What is only preferred forbids nothing. */
export function mayLieOn(requirement: TopologyRequirement | null, node: string): boolean {
  const requisite = requirement?.requisite ?? [];
  return requisite.length === 0 || requisite.some((topology) => isIn(topology, node));
}
