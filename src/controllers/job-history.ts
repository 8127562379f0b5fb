// Which jobs are kept, at the API server and at the agents, and how the two know each other's.
import type { MigrationJob } from "../api/migration-job.ts";
import { label, managedByLongshore } from "../api/names.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import type { Key } from "../kube/cluster.ts";
import type { ControllerDeps } from "./deps.ts";
import { jobsByVolume, SnapshotSchedules } from "./kinds.ts";
import { hasEnded } from "./volume-facts.ts";

/** The agent's name for a job: a job made anew under a name is another one. */
export function agentJobName({ metadata }: { readonly metadata: { readonly name: string; readonly uid: string } }) {
  return `${metadata.name}.${metadata.uid}`;
}

/** The MigrationJob that an agent's job was made for; `undefined` for jobs that others made. */
export function keyOfAgentJob(name: string): (Key & { readonly uid: string }) | undefined {
  const [, job, uid] = /^(.+)\.([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})$/.exec(name) ?? [];
  return job === undefined || uid === undefined ? undefined : { name: job, uid };
}

const historyDefault = 3;

/** The oldest of our ended jobs beyond what the schedule keeps for a volume and location. Users' jobs are theirs to delete. */
export function surplusJobs(
  job: MigrationJob,
  migration: VolumeMigration | undefined,
  { cluster }: ControllerDeps,
): readonly MigrationJob[] {
  const scheduleName = migration?.spec.policy.schedule;
  const schedule = scheduleName === undefined ? undefined : cluster.get(SnapshotSchedules, { name: scheduleName });
  const ended = cluster
    .find(jobsByVolume, job.spec.volumeName)
    .filter((other) => other.spec.location === job.spec.location && isPrunable(other))
    .sort((left, right) => ((left.status?.completionTime ?? "") < (right.status?.completionTime ?? "") ? -1 : 1));
  const succeeded = ended.filter(({ status }) => status?.phase === "Succeeded");
  const others = ended.filter(({ status }) => status?.phase !== "Succeeded");
  return [
    ...succeeded.slice(0, -(schedule?.spec.successfulJobsHistoryLimit ?? historyDefault)),
    ...others.slice(0, -(schedule?.spec.failedJobsHistoryLimit ?? historyDefault)),
  ];
}

function isPrunable(job: MigrationJob): boolean {
  const { labels, deletionTimestamp } = job.metadata;
  return hasEnded(job) && deletionTimestamp === undefined && labels?.[label.managedBy] === managedByLongshore;
}

/** The object is gone: what an agent still keeps of it goes as well. What this misses, the agent's own history limit ends. */
export async function sweepAgentJobs(jobName: string, { agents }: ControllerDeps): Promise<void> {
  for (const { api, jobs } of agents.all()) {
    for (const { name, state, spec } of jobs.values()) {
      if (keyOfAgentJob(name)?.name !== jobName) continue;
      if (state === "Succeeded" || state === "Failed" || state === "Cancelled") await api.removeJob(name);
      else if (spec.cancel !== true) await api.putJob(name, { ...spec, cancel: true });
    }
  }
}
