// `longshore job`: what migrates, how far it is, and what a person asks of it.
import type { Command } from "commander";
import { systemClock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import { jobSubject } from "../domain/job-subject.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import type { JobSpec, JobView } from "../wire/schemas.ts";
import { type Asking, type ConnectionOptions, connected, withAgent } from "./connection.ts";
import { exitCodes } from "./failure.ts";
import { jobNamed, oneOfEach, renderJob, renderJobs, renderProgress } from "./job-text.ts";
import type { Streams } from "./streams.ts";

interface CreateOptions extends ConnectionOptions {
  readonly volume?: string;
  readonly group?: string;
  readonly volumes?: string[];
  readonly location: string;
  readonly snapshot: string;
  readonly dryRun?: boolean;
}

export function addJobCommands(program: Command, streams: Streams): void {
  const job = program.command("job").description("Migrations: what runs, what ran.");
  connected(job.command("list").description("All jobs, newest last.")).action((options: ConnectionOptions) =>
    withAgent(options, streams, async (asking) => {
      const jobs = oneOfEach((await asking.api.listJobs()).items);
      asking.show(jobs, () => renderJobs(jobs, { ...asking, nowMs: systemClock.nowMs() }));
    }),
  );
  named(job, "show", "One job, its volumes, and all who take part in it.").action(
    (name: string, options: ConnectionOptions) =>
      withAgent(options, streams, async (asking) => show(await found(name, asking.api), asking)),
  );
  named(job, "follow", "One job as it goes, until it has finished; fails if it does.").action(
    (name: string, options: ConnectionOptions) =>
      withAgent(options, streams, async (asking) => {
        if (!(await follow(name, options, asking))) streams.exitCode = exitCodes.failed.code;
      }),
  );
  addSteering(job, streams);
}

/** A command about one job that is there. */
function named(job: Command, verb: string, description: string): Command {
  const name = "of the job, or of the MigrationJob that it was made for";
  return connected(job.command(verb).description(description).argument("<name>", name));
}

function addSteering(job: Command, streams: Streams): void {
  connected(job.command("create <name>").description("Migrate a snapshot of a volume, or of a group as one, now."))
    .option("--volume <name>", "the volume to migrate")
    .option("--group <name>", "or the group: its volumes arrive together, or not at all")
    .option("--volumes <name...>", "with --group: all volumes of the group")
    .requiredOption("--location <name>", "where to")
    .requiredOption("--snapshot <name>", "of the volume, or the group's")
    .option("--dry-run", "plan, report, and move nothing")
    .action((name: string, options: CreateOptions) =>
      withAgent(options, streams, async (asking) => show(await asking.api.putJob(name, specOf(options)), asking)),
    );
  const asked = { suspend: { suspend: true }, resume: {}, cancel: { cancel: true } } as const;
  const descriptions = {
    suspend: "Stop a job and thaw its target; what has arrived stays for when it is resumed.",
    resume: "Let a suspended job go on.",
    cancel: "End a job that is not committed yet, and drop what has arrived of it.",
  } as const;
  for (const verb of ["suspend", "resume", "cancel"] as const) {
    named(job, verb, descriptions[verb]).action((given: string, options: ConnectionOptions) =>
      withAgent(options, streams, async (asking) => {
        const { name, spec } = await found(given, asking.api);
        const { suspend: _, cancel: __, ...rest } = spec;
        show(await asking.api.putJob(name, { ...rest, ...asked[verb] }), asking);
      }),
    );
  }
}

function specOf({ volume, group, volumes, location, snapshot, dryRun }: CreateOptions): JobSpec {
  if (group === undefined && volumes !== undefined) {
    throw new LongshoreError("BadRequest", "--volumes belongs to a group; name it with --group");
  }
  const names = (volumes ?? []).flatMap((list) => list.split(",")).filter((name) => name !== "");
  const spec: JobSpec = {
    ...(volume !== undefined && { volume }),
    ...(group !== undefined && { group: { name: group, volumes: names } }),
    location,
    snapshot,
    ...(dryRun === true && { dryRun }),
  };
  jobSubject(spec);
  return spec;
}

/** The account of the agent that knows most of it; what is in no list may still be with an agent that does not answer. */
async function found(name: string, api: AgentApi): Promise<JobView> {
  return jobNamed(name, (await api.listJobs()).items) ?? api.getJob(name);
}

function show(job: JobView, asking: Asking): void {
  asking.show(job, () => renderJob(job, asking));
}

/** Whether it did not fail. With JSON, one object a line, for programs that read as it goes. */
async function follow(given: string, { output }: ConnectionOptions, asking: Asking): Promise<boolean> {
  const { name } = await found(given, asking.api);
  let last: JobView | undefined;
  let shown = "";
  for await (const job of asking.api.followJob(name, asking.stop)) {
    last = job;
    const line = output === "json" ? JSON.stringify(job) : renderProgress(job, asking);
    if (line !== shown) asking.out(`${line}\n`);
    shown = line;
  }
  if (last?.error) asking.err(`longshore: ${last.error.detail}\n  next: ${last.error.advice}\n`);
  return last?.state !== "Failed" && last?.state !== "Cancelled";
}
