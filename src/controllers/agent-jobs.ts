// The agents' jobs that a MigrationJob is carried out by: one; or, to plan for a group, one for each of its volumes, for a dry run
// is of one volume to the agents. What they tell is taken together.
import type { MigrationJob } from "../api/migration-job.ts";
import { agentJobName } from "../domain/names.ts";
import type { JobSpec, JobView } from "../wire/schemas.ts";
import type { Agents, Held } from "./agents.ts";
import { givenJob } from "./job-history.ts";
import type { JobPart, JobSubject } from "./job-subject.ts";

export interface AgentJob {
  /** The agent's name for it. */
  readonly name: string;
  readonly parts: readonly JobPart[];
  /** What it is about, in the agents' terms; `undefined` while no agent is seen to hold all of it. */
  readonly about: Pick<JobSpec, "volume" | "group"> | undefined;
  /** The job on its agent. */
  readonly given: Held<JobView> | undefined;
}

export function agentJobsOf(job: MigrationJob, { group, parts }: JobSubject, agents: Agents): readonly AgentJob[] {
  const name = agentJobName(job);
  if (group === undefined || job.spec.dryRun !== true) {
    const volumes = parts.flatMap(({ held }) => held?.view.name ?? []);
    const whole = volumes.length === parts.length && volumes[0] !== undefined;
    const about = group === undefined ? { volume: volumes[0] ?? "" } : { group: { name: group.agentName, volumes } };
    return [{ name, parts, about: whole ? about : undefined, given: givenJob(agents, name) }];
  }
  return parts.map((part, index) => {
    const own = `${name}.${index}`;
    const about = part.held && { volume: part.held.view.name };
    return { name: own, parts: [part], about, given: givenJob(agents, own) };
  });
}

/** What the agents tell of all of it; `undefined` while one of them does not have its job. */
export function viewOf({ group, parts }: JobSubject, jobs: readonly AgentJob[]): JobView | undefined {
  const views = jobs.flatMap(({ given }) => given?.view ?? []);
  const [first] = views;
  if (first === undefined || views.length < jobs.length) return undefined;
  if (views.length === 1 || group === undefined) return first;
  const leading = views.toSorted((left, right) => order.indexOf(left.state) - order.indexOf(right.state))[0] ?? first;
  const { volume: _, ...spec } = first.spec;
  const sum = (field: "bytesTotal" | "bytesPunched" | "bytesSent" | "bytesStored" | "unitsTotal" | "unitsStored") =>
    views.reduce((total, view) => total + view[field], 0);
  const groupPoint = parts[0]?.snapshot?.groupPoint;
  return {
    ...leading,
    spec: { ...spec, group: { name: group.agentName, volumes: views.flatMap((view) => view.spec.volume ?? []) } },
    to: first.to && { ...first.to, pointId: groupPoint ?? first.to.pointId },
    mode: worstMode(views),
    bytesTotal: sum("bytesTotal"),
    bytesPunched: sum("bytesPunched"),
    bytesSent: sum("bytesSent"),
    bytesStored: sum("bytesStored"),
    unitsTotal: sum("unitsTotal"),
    unitsStored: sum("unitsStored"),
    participants: [],
  };
}

/** One that is not over speaks for all; then one that did not end well. */
const order: readonly JobView["state"][] = [
  "Running",
  "Pending",
  "Suspended",
  "Undecided",
  "Failed",
  "Cancelled",
  "Succeeded",
];

const modes = ["Full", "Allocated", "Delta"];

function worstMode(views: readonly JobView[]): JobView["mode"] {
  const known = views.flatMap(({ mode }) => mode ?? []);
  return known.toSorted((left, right) => modes.indexOf(left.kind) - modes.indexOf(right.kind))[0] ?? null;
}
