// What the services ask of the storage cluster beyond single calls: what is not there as nothing, who is there, and where things lie.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { MergedList } from "../wire/cluster-agents.ts";
import type { ClusterApi } from "../wire/cluster-client.ts";
import type { AgentView, Member } from "../wire/schemas.ts";
import { silentOf } from "./placement.ts";
import { CsiError } from "./status.ts";

/** What is read, or nothing when it does not exist. An agent that might have it and does not answer is an error. */
export async function orNothing<T>(reading: Promise<T>): Promise<T | undefined> {
  try {
    return await reading;
  } catch (error) {
    if (codeOf(error) === "NotFound") return undefined;
    throw error;
  }
}

export interface Roll {
  /** Those that answer. */
  readonly agents: readonly AgentView[];
  /** All that belong to the cluster, as those that answer know it. */
  readonly members: readonly Member[];
}

/** Throws `Unreachable` when nobody answers: then nothing is known of the cluster. */
export async function callRoll(cluster: ClusterApi): Promise<Roll> {
  const agents = await cluster.agents();
  if (agents.length === 0) {
    const advice = "check the pods in longshore-node, port 7420 and the certificate of role csi";
    throw new LongshoreError("Unreachable", `no agent of the storage cluster answers; ${advice}`);
  }
  const known = new Map<string, Member>();
  for (const { members } of agents) for (const member of members) known.set(member.agentId, member);
  // One that answers knows best where it is.
  for (const { agentId, members } of agents) {
    const itself = members.find((member) => member.agentId === agentId);
    if (itself !== undefined) known.set(agentId, itself);
  }
  return { agents, members: [...known.values()] };
}

/** The node that an agent is on. Throws `Unreachable` for one that nobody knows, as just after a start. */
export function nodeOf({ members, agents }: Roll, home: string): string {
  const found = [...agents, ...members].find(({ agentId }) => agentId === home);
  if (found !== undefined) return found.node;
  throw new LongshoreError("Unreachable", `no agent that answers knows agent ${home}`);
}

/**
 * A list that lacks what an agent has would make its readers believe that it is gone. Whoever answers by now may have been silent
 * when it was asked for its part of the list.
 */
export function requireAll({ members }: Roll, { answered }: MergedList<unknown>): void {
  const silent = silentOf({ members, agents: answered.map((agentId) => ({ agentId })) });
  if (silent.length === 0) return;
  const names = silent.map(({ agentId, node }) => `${agentId} on node ${node}`).join(", ");
  throw new CsiError(
    "UNAVAILABLE",
    `agent ${names} did not answer, and the list would lack what it has; one that will not come back is given up by: longshore node forget`,
  );
}
