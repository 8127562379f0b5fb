// `longshore job`: what migrates, and how far it is.
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { renderBytes } from "../domain/quantity.ts";
import type { JobView } from "../wire/schemas.ts";
import { type Asking, type ConnectionOptions, connected, withAgent } from "./connection.ts";
import { exitCodes } from "./failure.ts";
import type { Streams } from "./streams.ts";
import { ageOf, type Column, renderFields, renderTable, stateText } from "./table.ts";

export function addJobCommands(program: Command, streams: Streams): void {
  const job = program.command("job").description("Migrations: what runs, what ran.");
  connected(job.command("list").description("All jobs, newest last.")).action((options: ConnectionOptions) =>
    withAgent(options, streams, async (asking) => {
      const { items } = await asking.api.listJobs();
      const sorted = [...items].sort((a, b) => a.createdAt.localeCompare(b.createdAt));
      asking.show(sorted, () => renderTable(columns(asking), sorted, "no jobs"));
    }),
  );
  connected(job.command("show <name>").description("One job with its participants.")).action(
    (name: string, options: ConnectionOptions) =>
      withAgent(options, streams, async (asking) => {
        const found = await asking.api.getJob(name);
        asking.show(found, () => detail(found, asking));
      }),
  );
  connected(
    job.command("follow <name>").description("One job as it goes, until it has finished; fails if it does."),
  ).action((name: string, options: ConnectionOptions) =>
    withAgent(options, streams, async (asking) => {
      if (!(await follow(name, options, asking))) streams.exitCode = exitCodes.failed.code;
    }),
  );
}

/** Whether it did not fail. With JSON, one object a line, for programs that read as it goes. */
async function follow(name: string, { output }: ConnectionOptions, asking: Asking): Promise<boolean> {
  let last: JobView | undefined;
  let shown = "";
  for await (const job of asking.api.followJob(name, asking.stop)) {
    last = job;
    const line = output === "json" ? JSON.stringify(job) : progress(job, asking);
    if (line !== shown) asking.out(`${line}\n`);
    shown = line;
  }
  if (last?.error) asking.err(`longshore: ${last.error.detail}\n  next: ${last.error.advice}\n`);
  return last?.state !== "Failed" && last?.state !== "Cancelled";
}

function columns(asking: Asking): Column<JobView>[] {
  const nowMs = systemClock.nowMs();
  return [
    { title: "NAME", of: (job) => job.name },
    { title: "VOLUME", of: ({ spec }) => spec.volume ?? `group ${spec.group?.name}` },
    { title: "LOCATION", of: (job) => job.spec.location },
    { title: "MODE", of: (job) => job.mode?.kind },
    { title: "STATE", of: (job) => stateText(job.state, asking) },
    { title: "BARRIER", of: (job) => job.barrier },
    { title: "STORED", of: (job) => share(job), align: "right" },
    { title: "BYTES", of: (job) => renderBytes(job.bytesTotal), align: "right" },
    { title: "ATTEMPTS", of: (job) => job.attempts, align: "right" },
    { title: "AGE", of: (job) => ageOf(job.createdAt, nowMs), align: "right" },
  ];
}

function share({ bytesStored, bytesTotal, state }: JobView): string {
  if (bytesTotal === 0) return state === "Succeeded" ? "100%" : "";
  return `${Math.floor((100 * bytesStored) / bytesTotal)}%`;
}

function progress(job: JobView, streams: Asking): string {
  const rate = job.bytesPerSecond === null ? "" : `  ${renderBytes(job.bytesPerSecond)}/s`;
  const eta = job.etaSeconds === null ? "" : `  ${Math.ceil(job.etaSeconds)}s left`;
  const stored = `${renderBytes(job.bytesStored)} of ${renderBytes(job.bytesTotal)}`;
  return `${stateText(job.state, streams)}  ${job.barrier}  ${stored}${rate}${eta}`;
}

function detail(job: JobView, streams: Asking): string {
  const { from, to, mode, spec } = job;
  const fields = renderFields({
    job: job.name,
    volume: spec.volume,
    group: spec.group?.name,
    volumes: spec.group?.volumes.join(", "),
    location: spec.location,
    snapshot: spec.snapshot,
    state: stateText(job.state, streams),
    barrier: job.barrier,
    mode: mode === null ? null : `${mode.kind} (${mode.reason})`,
    from: from === null ? "nothing" : `generation ${from.generation} of ${from.sourceTime}`,
    to: to === null ? null : `generation ${to.generation} of ${to.sourceTime}`,
    stored: `${renderBytes(job.bytesStored)} of ${renderBytes(job.bytesTotal)}, ${job.unitsStored} of ${job.unitsTotal} units`,
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
  if (job.participants.length === 0) return fields;
  const participants = renderTable(
    [
      { title: "PARTICIPANT", of: (one) => one.agentId },
      { title: "ROLE", of: (one) => one.role },
      { title: "BARRIER", of: (one) => one.barrier },
      { title: "UNITS", of: (one) => one.unitsDone, align: "right" },
      { title: "LAST ERROR", of: (one) => one.lastError },
    ],
    job.participants,
    "",
  );
  return `${fields}\n${participants}`;
}
