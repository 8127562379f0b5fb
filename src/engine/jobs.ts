// The jobs of this node: taken in under the client's names, steered by their spec, admitted from one ledger, and shown.
// Driving them is job-runner.ts; what one attempt does is coordinator.ts.
import { LongshoreError } from "../domain/errors.ts";
import { jobSubject } from "../domain/job-subject.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { JobSpec, JobView } from "../wire/schemas.ts";
import { Coordinator } from "./coordinator.ts";
import { type Core, checkRevision } from "./core.ts";
import { type JobRow, JobRows } from "./job-rows.ts";
import { JobRunner } from "./job-runner.ts";
import { JobSlots, type Slot } from "./job-slots.ts";
import type { Locations } from "./locations.ts";
import { pointRef, takeHold } from "./points.ts";
import type { Volumes } from "./volumes.ts";

/** Why a running job was interrupted: something else is asked of it. */
class Interrupted extends Error {
  override readonly name = "Interrupted";
}

export class Jobs {
  private readonly core: Core;
  private readonly rows: JobRows;
  private readonly volumes: Volumes;
  private readonly locations: Locations;
  private readonly slots: JobSlots;
  private readonly runner: JobRunner;

  constructor(core: Core, parts: { volumes: Volumes; locations: Locations }) {
    this.core = core;
    this.volumes = parts.volumes;
    this.locations = parts.locations;
    this.rows = new JobRows(core);
    const { jobsMax, jobsPerLocationMax } = core.limits;
    this.slots = new JobSlots({
      node: jobsMax,
      location: (name) => parts.locations.jobsMax(name) ?? jobsPerLocationMax,
    });
    const coordinator = new Coordinator(core, { rows: this.rows, ...parts });
    this.runner = new JobRunner(core, { rows: this.rows, slots: this.slots, coordinator, ...parts });
  }

  list(): JobView[] {
    return this.rows.all().map((row) => this.rows.view(row));
  }

  get(name: string): JobView {
    return this.rows.view(this.rows.row(name));
  }

  /** See AgentApi.putJob. */
  put(name: string, spec: JobSpec, { ifMatch }: Precondition): JobView {
    const known = this.rows.find(name);
    checkRevision(`job ${name}`, known?.revision ?? 0, ifMatch);
    if (known === undefined) this.take(name, spec);
    else this.steer(known, spec);
    this.admit();
    return this.get(name);
  }

  /** See AgentApi.removeJob. */
  remove(name: string): void {
    const row = this.rows.find(name);
    if (row === undefined) return;
    if (row.finishedAt === null) throw new LongshoreError("InUse", `job ${name} is ${row.state}; cancel it first`);
    this.core.journal.transaction(() => this.core.journal.run("DELETE FROM jobs WHERE name = ?", name));
    this.core.feed.publish("job", name);
  }

  async *follow(name: string, signal: AbortSignal): AsyncIterable<JobView> {
    const changes = this.core.feed.follow(this.core.feed.sequence, signal);
    let view = this.get(name);
    yield view;
    if (view.finishedAt !== null) return;
    for await (const change of changes) {
      if (change.kind !== "resync" && (change.kind !== "job" || change.name !== name)) continue;
      view = this.get(name);
      yield view;
      if (view.finishedAt !== null) return;
    }
  }

  /** Starts what may run: in the order of asking, one per volume and location, within the limits. */
  admit(): void {
    const { tasks } = this.core;
    if (tasks.signal.aborted) return;
    for (const row of this.rows.unfinished()) {
      if (row.state === "Suspended" || this.slots.find(row.name) !== undefined) continue;
      const slot = this.slots.take(row);
      if (slot !== undefined) tasks.spawn(`job ${row.name}`, (signal) => this.run(row.name, slot, signal));
    }
  }

  /** Ends the jobs of a location that is removed although nobody can be asked how they stand. */
  abandon(location: string): void {
    for (const { name } of this.rows.unfinished().filter((row) => row.location === location)) {
      this.runner.finish(name, "Cancelled", new LongshoreError("Cancelled", `location ${location} was removed`));
      this.slots.find(name)?.stop.abort(new Interrupted("its location was removed"));
    }
  }

  /** Forgets finished jobs past their history. */
  expire(): void {
    const { journal, clock, limits, feed } = this.core;
    const before = clock.nowMs() - limits.jobHistoryMs;
    const old = journal.all<{ name: string }>("SELECT name FROM jobs WHERE finishedAt < ?", before);
    if (old.length === 0) return;
    journal.transaction(() => journal.run("DELETE FROM jobs WHERE finishedAt < ?", before));
    for (const { name } of old) feed.publish("job", name);
  }

  private async run(name: string, slot: Slot, signal: AbortSignal): Promise<void> {
    try {
      await this.runner.run(name, slot, signal);
    } finally {
      this.slots.drop(slot);
      this.rows.stop(name);
      this.admit();
    }
  }

  private take(name: string, spec: JobSpec): void {
    const subject = jobSubject(spec);
    if (subject.kind === "group") throw new LongshoreError("Unsupported", "jobs of groups are not run yet");
    const volume = this.volumes.row(subject.volume);
    const location = this.locations.spec(spec.location);
    const to = this.volumes.snapshots.require(volume.uid, volume.name, spec.snapshot);
    const { journal, log } = this.core;
    journal.transaction(() => {
      takeHold(this.core, { owner: volume.uid, pointId: to.pointId, reason: "job", holder: name });
      this.rows.insert(name, spec, { owner: volume.uid, to: pointRef(to) });
      this.volumes.touch(volume.uid);
      if (spec.suspend === true) this.rows.change(name, { state: "Suspended" });
    });
    log.info({ job: name, volume: volume.name, location: spec.location, cluster: location.clusterName }, "job taken");
    this.rows.publish(name);
    this.volumes.published(volume.uid);
    if (spec.cancel === true) this.runner.finish(name, "Cancelled");
  }

  private steer(row: JobRow, spec: JobSpec): void {
    const old = JSON.parse(row.specJson) as JobSpec;
    const isSame =
      JSON.stringify(jobSubject(old)) === JSON.stringify(jobSubject(spec)) &&
      old.location === spec.location &&
      old.snapshot === spec.snapshot &&
      (old.dryRun ?? false) === (spec.dryRun ?? false);
    if (!isSame) throw new LongshoreError("NameTaken", `job ${row.name} exists with other parameters`);
    if (row.finishedAt !== null || JSON.stringify(old) === JSON.stringify(spec)) return;
    this.rows.save(row.name, { specJson: JSON.stringify(spec) });
    const slot = this.slots.find(row.name);
    if (slot === undefined) this.steerIdle(row, spec);
    else if (spec.cancel === true || spec.suspend === true) slot.stop.abort(new Interrupted("asked to stop"));
  }

  /** A job that is not under way: what it has left at the target, if anything, is undone by a run of its own. */
  private steerIdle(row: JobRow, spec: JobSpec): void {
    if (spec.cancel === true && row.epoch === 0) this.runner.finish(row.name, "Cancelled");
    else if (row.state === "Suspended" && (spec.cancel === true || spec.suspend !== true)) {
      this.rows.save(row.name, { state: "Pending" });
    } else if (row.state === "Pending" && spec.suspend === true && spec.cancel !== true) {
      this.rows.save(row.name, { state: "Suspended" });
    }
  }
}
