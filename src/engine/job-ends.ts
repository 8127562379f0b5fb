// The end of a job, of a single volume or of a group: states, reason and holds in one transaction, so that no way a job
// can end leaves a hold of it behind.
import { describe } from "../domain/errors.ts";
import type { JobSpec } from "../wire/schemas.ts";
import { type Core, problemOf } from "./core.ts";
import { isGroup, type JobChange, type JobRow, type JobRows, jobOf } from "./job-rows.ts";
import type { JobViews } from "./job-views.ts";
import type { Volumes } from "./volumes.ts";

export type FinishedState = "Succeeded" | "Failed" | "Cancelled";

/** Ends a job as a whole; one that has ended stays as it ended. `facts` are written with its end. */
export type EndJob = (name: string, state: FinishedState, reason?: unknown, facts?: JobChange) => void;

interface Parts {
  readonly rows: JobRows;
  readonly views: JobViews;
  readonly volumes: Volumes;
}

export function jobEnds(core: Core, { rows, views, volumes }: Parts): EndJob {
  return (name, state, reason, facts = {}) => {
    const row = rows.row(name);
    if (row.finishedAt !== null) return;
    const all = isGroup(row) ? [row, ...rows.sharesOf(name)] : [row];
    const errorJson = reason === undefined ? null : JSON.stringify(problemOf(reason));
    core.journal.transaction(() => {
      const finishedAt = core.clock.nowMs();
      for (const one of all) {
        rows.change(one.name, { ...rows.progressOf(one.name), state, finishedAt, errorJson });
        dropJobHolds(core, one);
        volumes.touch(one.owner);
      }
      rows.change(name, { ...facts, ...(isGroup(row) && { heardJson: views.heardText(name) }) });
    });
    views.forget(name);
    rows.publish(name);
    tell(core, rows.row(name), state, reason);
    for (const { owner } of all) core.tasks.spawn("sweep", () => volumes.sweep(owner));
  };
}

/** Within a transaction: exactly the holds that this row's job has on the points of its volume. */
function dropJobHolds({ journal }: Core, row: JobRow): void {
  journal.run("DELETE FROM holds WHERE owner = ? AND reason = 'job' AND holder = ?", row.owner, jobOf(row));
}

function tell({ metrics, log }: Core, row: JobRow, state: FinishedState, reason: unknown): void {
  metrics.counter("longshore_jobs_finished_total", "Jobs that ended, by state", ["state"]).add({ state });
  log.info({ job: row.name, state, reason: reason === undefined ? undefined : describe(reason) }, "job finished");
  const { location, modeJson, bytesTotal, bytesSent, specJson } = row;
  if (state !== "Succeeded" || (JSON.parse(specJson) as JobSpec).dryRun === true) return;
  const mode = modeJson === null ? "none" : (JSON.parse(modeJson) as { kind: string }).kind;
  const labels = { location, mode };
  metrics
    .counter("longshore_migrated_bytes_total", "Changed bytes that were migrated", ["location", "mode"])
    .add(labels, bytesTotal);
  metrics
    .counter("longshore_sent_bytes_total", "Bytes put on the wire for them", ["location", "mode"])
    .add(labels, bytesSent);
}
