// Which jobs are kept, at the API server and at the agents, and how the two know each other's.
import type { MigrationJob } from "../api/migration-job.ts";
import { label, managedByLongshore } from "../api/names.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { keyOfAgentJob } from "../domain/names.ts";
import type { Cluster, Key } from "../kube/cluster.ts";
import type { JobView } from "../wire/schemas.ts";
import { type Agents, findAll, followedAgents, type Held } from "./agents.ts";
import type { ControllerDeps } from "./deps.ts";
import { groupValue, jobsByGroup, jobsByVolume, MigrationJobs, SnapshotSchedules } from "./kinds.ts";
import { hasEnded } from "./volume-facts.ts";

/**
 * The job on its agent. That of a group is on every agent with a part in it: while one has not ended, the one that coordinates
 * tells, or who knows of the latest term; and what one knows to be committed is committed for all.
 */
export function givenJob(agents: Agents, name: string): Held<JobView> | undefined {
  const rank = ({ agent, view }: Held<JobView>) => [
    agent.problem === undefined ? 0 : 1,
    isOver(view) ? 1 : 0,
    view.state === "Succeeded" ? 0 : 1,
    -view.epoch,
    view.participants.some(({ role, agentId }) => role === "coordinator" && agentId === agent.id) ? 0 : 1,
  ];
  const held = findAll(agents, "jobs", name).map((each) => ({ each, rank: rank(each) }));
  return held.sort((left, right) => compare(left.rank, right.rank))[0]?.each;
}

function compare(left: readonly number[], right: readonly number[]): number {
  const at = left.findIndex((value, index) => value !== right[index]);
  return at < 0 ? 0 : (left[at] ?? 0) - (right[at] ?? 0);
}

/** Whether an agent's job has reached a state that it never leaves. */
export function isOver({ state }: JobView): boolean {
  return state === "Succeeded" || state === "Failed" || state === "Cancelled";
}

const historyDefault = 3;

/**
 * The oldest of our ended jobs beyond what the schedule keeps for a location and a volume, or a group. Users' jobs are theirs to
 * delete.
 */
export function surplusJobs(
  job: MigrationJob,
  migration: VolumeMigration | undefined,
  { cluster }: ControllerDeps,
): readonly MigrationJob[] {
  const scheduleName = migration?.spec.policy.schedule;
  const schedule = scheduleName === undefined ? undefined : cluster.get(SnapshotSchedules, { name: scheduleName });
  const ended = siblingsOf(job, cluster)
    .filter((other) => other.spec.location === job.spec.location && isPrunable(other))
    .sort((left, right) => ((left.status?.completionTime ?? "") < (right.status?.completionTime ?? "") ? -1 : 1));
  const succeeded = ended.filter(({ status }) => status?.phase === "Succeeded");
  const others = ended.filter(({ status }) => status?.phase !== "Succeeded");
  return [
    ...succeeded.slice(0, -(schedule?.spec.successfulJobsHistoryLimit ?? historyDefault)),
    ...others.slice(0, -(schedule?.spec.failedJobsHistoryLimit ?? historyDefault)),
  ];
}

function siblingsOf({ spec }: MigrationJob, cluster: Cluster): readonly MigrationJob[] {
  if (spec.group !== undefined) return cluster.find(jobsByGroup, groupValue(spec.group));
  const all = spec.volumeName === undefined ? [] : cluster.find(jobsByVolume, spec.volumeName);
  return all.filter((other) => other.spec.group === undefined);
}

function isPrunable(job: MigrationJob): boolean {
  const { labels, deletionTimestamp } = job.metadata;
  return hasEnded(job) && deletionTimestamp === undefined && labels?.[label.managedBy] === managedByLongshore;
}

/**
 * The object is not seen: what an agent still keeps of it goes as well. One that is away tells of it when it is back; what this
 * misses, the agent's own history limit ends.
 */
export async function sweepAgentJobs(key: Key, deps: ControllerDeps, signal: AbortSignal): Promise<void> {
  const left = followedAgents(deps.agents).flatMap((agent) =>
    agent.jobsOf(key.name).map((view) => ({ api: agent.api, view })),
  );
  if (left.length === 0) return;
  // Asked of the API server: the cache of a leader that has just begun may be behind what the last one made, and gave to its agent.
  const present = await deps.cluster.read(MigrationJobs, key, signal);
  for (const { api, view } of left) {
    const { name, spec } = view;
    if (keyOfAgentJob(name)?.uid === present?.metadata.uid) continue;
    if (isOver(view)) await api.removeJob(name);
    else if (spec.cancel !== true) await api.putJob(name, { ...spec, cancel: true });
  }
}
