// A migration as a person reads it: a line in a list, a line of progress, and the whole state machine of one job.
import { LongshoreError } from "../domain/errors.ts";
import { keyOfAgentJob } from "../domain/names.ts";
import { renderBytes } from "../domain/quantity.ts";
import type { JobView, JobVolume, ParticipantView } from "../wire/schemas.ts";
import type { Streams } from "./streams.ts";
import { ageOf, type Column, renderFields, renderTable, stateText } from "./table.ts";

type Colours = Pick<Streams, "isColoured">;

/** A group's job is told by every agent that takes part; of each job the account that knows most, oldest job first. */
export function oneOfEach(views: readonly JobView[]): JobView[] {
  const best = new Map<string, JobView>();
  for (const view of views) {
    const known = best.get(view.name);
    if (known === undefined || knowsMore(view, known)) best.set(view.name, view);
  }
  return [...best.values()].sort((a, b) => a.createdAt.localeCompare(b.createdAt));
}

/**
 * The account of the job of this name that knows most; else of the only job that was made for the MigrationJob of this name.
 * Throws `BadRequest` when several were.
 */
export function jobNamed(name: string, views: readonly JobView[]): JobView | undefined {
  const jobs = oneOfEach(views);
  const exact = jobs.find((job) => job.name === name);
  if (exact !== undefined) return exact;
  const [only, ...others] = jobs.filter((job) => keyOfAgentJob(job.name)?.name === name);
  if (only === undefined || others.length === 0) return only;
  const names = [only, ...others].map((job) => job.name).join(", ");
  throw new LongshoreError(
    "BadRequest",
    `${name} is a MigrationJob that several jobs were made for; name one: ${names}`,
  );
}

/** Who coordinates hears from all the others; once nobody does any more, who has the sums of all volumes knows most. */
function knowsMore(view: JobView, other: JobView): boolean {
  const heard = ({ participants }: JobView) => participants.filter(({ lastHeardAt }) => lastHeardAt !== null).length;
  const by = [view.epoch - other.epoch, heard(view) - heard(other), view.unitsTotal - other.unitsTotal];
  return (by.find((difference) => difference !== 0) ?? 0) > 0;
}

export function renderJobs(jobs: readonly JobView[], { nowMs, ...colours }: Colours & { nowMs: number }): string {
  const columns: Column<JobView>[] = [
    { title: "NAME", of: (job) => job.name },
    { title: "VOLUME", of: subjectText },
    { title: "LOCATION", of: (job) => job.spec.location },
    { title: "MODE", of: (job) => job.mode?.kind },
    { title: "STATE", of: (job) => stateText(job.state, colours) },
    { title: "BARRIER", of: (job) => job.barrier },
    { title: "STORED", of: storedText, align: "right" },
    { title: "BYTES", of: (job) => renderBytes(job.bytesTotal), align: "right" },
    { title: "ATTEMPTS", of: (job) => job.attempts, align: "right" },
    { title: "AGE", of: (job) => ageOf(job.createdAt, nowMs), align: "right" },
  ];
  return renderTable(columns, jobs, "no jobs");
}

export function renderProgress(job: JobView, colours: Colours): string {
  const rate = job.bytesPerSecond === null ? "" : `  ${renderBytes(job.bytesPerSecond)}/s`;
  const eta = job.etaSeconds === null ? "" : `  ${Math.ceil(job.etaSeconds)}s left`;
  const stored = `${renderBytes(job.bytesStored)} of ${renderBytes(job.bytesTotal)}`;
  return `${stateText(job.state, colours)}  ${job.barrier}  ${stored}${rate}${eta}`;
}

export function renderJob(job: JobView, colours: Colours): string {
  const { spec } = job;
  const parts = [fields(job, colours)];
  if (spec.group !== undefined) parts.push(renderTable(volumeColumns(job), job.volumes, ""));
  if (job.participants.length > 0) parts.push(renderTable(participantColumns(colours), job.participants, ""));
  return parts.join("\n");
}

function fields(job: JobView, colours: Colours): string {
  const { from, to, mode, spec } = job;
  return renderFields({
    job: job.name,
    volume: spec.volume,
    group: spec.group?.name,
    location: spec.location,
    snapshot: spec.snapshot,
    state: stateText(job.state, colours),
    barrier: job.barrier,
    mode: mode === null ? null : `${mode.kind} (${mode.reason})`,
    from:
      spec.group !== undefined
        ? null
        : from === null
          ? "nothing"
          : `generation ${from.generation} of ${from.sourceTime}`,
    to: to === null ? null : `generation ${to.generation} of ${to.sourceTime}`,
    stored: `${renderBytes(job.bytesStored)} of ${renderBytes(job.bytesTotal)}, ${job.unitsStored} of ${job.unitsTotal} units`,
    estimated: job.spec.dryRun === true && job.etaSeconds !== null ? `${job.etaSeconds.toFixed(1)} s` : null,
    punched: renderBytes(job.bytesPunched),
    sent: renderBytes(job.bytesSent),
    verified: job.verified,
    attempts: job.attempts,
    epoch: job.epoch,
    started: job.startedAt,
    finished: job.finishedAt,
    error: job.error?.detail,
    next: job.error?.advice,
  });
}

function volumeColumns({ participants }: JobView): Column<JobVolume>[] {
  const nodeOf = (agentId: string | null) => participants.find((one) => one.agentId === agentId)?.node ?? agentId;
  return [
    { title: "VOLUME", of: (one) => one.volume },
    { title: "BARRIER", of: (one) => one.barrier },
    { title: "VOTED", of: (one) => (one.isPrepared ? "asked" : "no") },
    { title: "MODE", of: (one) => one.mode?.kind },
    { title: "FROM", of: (one) => (one.from === null ? null : `generation ${one.from.generation}`) },
    { title: "STORED", of: (one) => renderBytes(one.bytesStored), align: "right" },
    { title: "BYTES", of: (one) => renderBytes(one.bytesTotal), align: "right" },
    { title: "UNITS", of: (one) => `${one.unitsStored}/${one.unitsTotal}`, align: "right" },
    { title: "COPY ON", of: (one) => nodeOf(one.targetAgent) },
  ];
}

function participantColumns(colours: Colours): Column<ParticipantView>[] {
  return [
    { title: "PARTICIPANT", of: (one) => one.node ?? one.agentId },
    { title: "ROLE", of: (one) => one.role },
    { title: "STATE", of: (one) => stateText(one.state, colours) },
    { title: "BARRIER", of: (one) => one.barrier },
    { title: "EPOCH", of: (one) => one.epoch, align: "right" },
    { title: "UNITS", of: (one) => one.unitsDone, align: "right" },
    { title: "VOLUMES", of: (one) => volumesText(one.volumes) },
    { title: "LAST HEARD", of: (one) => one.lastHeardAt },
    { title: "LAST ERROR", of: (one) => one.lastError },
  ];
}

const volumesShown = 3;

function volumesText(names: readonly string[]): string {
  const more = names.length - volumesShown;
  return more > 0 ? `${names.slice(0, volumesShown).join(",")} and ${more} more` : names.join(",");
}

function subjectText({ spec }: JobView): string {
  return spec.volume ?? `${spec.group?.name} (${spec.group?.volumes.length} volumes)`;
}

function storedText({ bytesStored, bytesTotal, state }: JobView): string {
  if (bytesTotal === 0) return state === "Succeeded" ? "100%" : "";
  return `${Math.floor((100 * bytesStored) / bytesTotal)}%`;
}
