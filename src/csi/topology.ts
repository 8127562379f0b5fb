// Where volumes are accessible from: each from one node, that of the agent which is its home.
import { labelValueOf } from "../domain/names.ts";
import type { Topology, TopologyRequirement } from "./csi-messages.ts";

/** Its value follows from the agent's node, which is the Kubernetes node's name: the kubelet makes a label of it, and those are shorter than names may be. */
export const topologyKey = "longshore.dev/node";

export function topologyOf(node: string): Topology {
  return { segments: { [topologyKey]: labelValueOf(node) } };
}

/** Whether what lies on this node is accessible from that topology; one that says nothing is anywhere. */
export function isIn({ segments }: Topology, node: string): boolean {
  const own = labelValueOf(node);
  return Object.entries(segments).every(([key, value]) => key === topologyKey && value === own);
}

/** Whether a volume may lie on this node. What is only preferred forbids nothing. */
export function mayLieOn(requirement: TopologyRequirement | null, node: string): boolean {
  const requisite = requirement?.requisite ?? [];
  return requisite.length === 0 || requisite.some((topology) => isIn(topology, node));
}
