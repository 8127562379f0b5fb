// The jobs of this node: taken in under the client's names, steered by their spec, admitted from one ledger, and shown.
// Driving them is job-runner.ts; what one attempt does is coordinator.ts, and for groups group-coordinator.ts.
import { LongshoreError } from "../domain/errors.ts";
import { type JobGroup, jobSubject } from "../domain/job-subject.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { MemberApi } from "../wire/member.ts";
import type { JobSpec, JobView } from "../wire/schemas.ts";
import { Coordinator } from "./coordinator.ts";
import { type Core, checkRevision } from "./core.ts";
import { GroupCoordinator } from "./group-coordinator.ts";
import { GroupJobs } from "./group-jobs.ts";
import { type EndJob, jobEnds } from "./job-ends.ts";
import { isGroup, type JobRow, JobRows } from "./job-rows.ts";
import { JobRunner } from "./job-runner.ts";
import { JobSlots, type Slot } from "./job-slots.ts";
import { JobViews } from "./job-views.ts";
import type { Locations } from "./locations.ts";
import { Participants } from "./participants.ts";
import { Planning } from "./planning.ts";
import { pointRef, takeHold } from "./points.ts";
import type { Volumes } from "./volumes.ts";

/** Why a running job was interrupted: something else is asked of it. */
class Interrupted extends Error {
  override readonly name = "Interrupted";
}

/** Finished jobs that are forgotten in one go: the next go comes within a second. */
const expiredAtOnce = 500;

export class Jobs {
  private readonly core: Core;
  private readonly rows: JobRows;
  private readonly volumes: Volumes;
  private readonly locations: Locations;
  private readonly slots: JobSlots;
  private readonly runner: JobRunner;
  private readonly views: JobViews;
  private readonly participants: Participants;
  private readonly groups: GroupJobs;
  private readonly end: EndJob;

  constructor(core: Core, parts: { volumes: Volumes; locations: Locations }) {
    this.core = core;
    this.volumes = parts.volumes;
    this.locations = parts.locations;
    this.rows = new JobRows(core);
    const { jobsMax, jobsPerLocationMax } = core.limits;
    this.slots = new JobSlots({
      node: jobsMax,
      location: (name) => parts.locations.limits(name).jobsMax ?? jobsPerLocationMax,
    });
    this.views = new JobViews(core, { rows: this.rows, locations: parts.locations });
    this.end = jobEnds(core, { rows: this.rows, views: this.views, ...parts });
    const shared = { rows: this.rows, views: this.views, slots: this.slots, end: this.end, ...parts };
    this.participants = new Participants(core, {
      ...shared,
      planning: new Planning(core, parts),
      onSteered: (job) => this.steered(job),
    });
    this.groups = new GroupJobs(core, { participants: this.participants });
    this.runner = new JobRunner(core, {
      ...shared,
      volume: new Coordinator(core, shared),
      group: new GroupCoordinator(core, { ...shared, participants: this.participants }),
    });
  }

  /** What the other agents of the cluster may ask of this one's jobs. */
  get member(): Pick<MemberApi, "takeShare" | "shareReport" | "order" | "pauseShare"> {
    const { participants } = this;
    return {
      takeShare: async (job, share) => participants.take(job, share),
      shareReport: async (job) => participants.report(job),
      order: (job, order) => participants.order(job, order),
      pauseShare: async (job, term) => {
        participants.pause(job, term);
        this.admit();
      },
    };
  }

  list(): JobView[] {
    return this.rows.all().map((row) => this.views.view(row));
  }

  get(name: string): JobView {
    return this.views.view(this.rows.row(name));
  }

  /** See AgentApi.putJob. */
  async put(name: string, spec: JobSpec, { ifMatch }: Precondition): Promise<JobView> {
    const subject = jobSubject(spec);
    const known = this.rows.find(name);
    checkRevision(`job ${name}`, known?.revision ?? 0, ifMatch);
    if (known !== undefined) await this.steer(known, spec);
    else if (subject.kind === "volume") this.take(name, spec, subject.volume);
    else await this.takeGroup(name, spec, subject.group);
    // Those that wait already do so because there is no room for them.
    if (known === undefined) this.admit([this.rows.row(name)].filter(({ finishedAt }) => finishedAt === null));
    return this.get(name);
  }

  /** See AgentApi.removeJob. */
  remove(name: string): void {
    const row = this.rows.find(name);
    if (row === undefined) return;
    if (row.finishedAt === null) throw new LongshoreError("InUse", `job ${name} is ${row.state}; cancel it first`);
    this.core.journal.transaction(() => this.rows.remove(name));
    this.forget(name);
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
  admit(waiting: readonly JobRow[] = this.rows.unfinished()): void {
    const { tasks } = this.core;
    if (tasks.signal.aborted) return;
    const full = new Set<string>();
    for (const row of waiting) {
      // A group's job may have its room already.
      if (full.has(row.location) && !isGroup(row)) continue;
      if (this.slots.find(row.name) !== undefined || !this.isReady(row)) continue;
      const slot = this.slots.take(row);
      if (slot !== undefined) tasks.spawn(`job ${row.name}`, (signal) => this.run(row.name, slot, signal));
      else if (!this.slots.hasRoom(row.name, row.location)) full.add(row.location);
    }
  }

  /** Ends the jobs of a location that is removed although nobody can be asked how they stand. */
  abandon(location: string): void {
    for (const { name } of this.rows.unfinished().filter((row) => row.location === location)) {
      this.end(name, "Cancelled", new LongshoreError("Cancelled", `location ${location} was removed`));
      this.participants.abandon(name);
      this.groups.forget(name);
      this.slots.find(name)?.stop.abort(new Interrupted("its location was removed"));
    }
  }

  /** Forgets finished jobs past their history. */
  expire(): void {
    const { journal, clock, limits } = this.core;
    const before = clock.nowMs() - limits.jobHistoryMs;
    const sql = `SELECT name FROM jobs WHERE finishedAt < ? AND parent IS NULL LIMIT ${expiredAtOnce}`;
    const old = journal.all<{ name: string }>(sql, before);
    if (old.length === 0) return;
    journal.transaction(() => {
      for (const { name } of old) this.rows.remove(name);
    });
    for (const { name } of old) this.forget(name);
  }

  /** A job whose row is gone. */
  private forget(name: string): void {
    this.views.forget(name);
    this.participants.forget(name);
    this.groups.forget(name);
    this.rows.publish(name);
    this.rows.stop(name);
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

  private take(name: string, spec: JobSpec, volumeName: string): void {
    const volume = this.volumes.row(volumeName);
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
    if (spec.cancel === true) this.end(name, "Cancelled");
  }

  private async takeGroup(name: string, spec: JobSpec, group: JobGroup): Promise<void> {
    if (spec.dryRun === true) {
      throw new LongshoreError("BadRequest", "a dry run is of one volume; ask for each volume of the group");
    }
    this.locations.spec(spec.location);
    await this.groups.take(name, spec, group);
  }

  private async steer(row: JobRow, spec: JobSpec): Promise<void> {
    const old = JSON.parse(row.specJson) as JobSpec;
    const isSame =
      JSON.stringify(jobSubject(old)) === JSON.stringify(jobSubject(spec)) &&
      old.location === spec.location &&
      old.snapshot === spec.snapshot &&
      (old.dryRun ?? false) === (spec.dryRun ?? false);
    if (!isSame) throw new LongshoreError("NameTaken", `job ${row.name} exists with other parameters`);
    if (row.finishedAt !== null || JSON.stringify(old) === JSON.stringify(spec)) return;
    if (isGroup(row)) return this.groups.steer(row, spec);
    this.rows.save(row.name, { specJson: JSON.stringify(spec) });
    this.steered(row.name);
  }

  /** Something else is asked of a job, here or elsewhere; or a job that others wait for has ended. */
  private steered(name: string): void {
    const row = this.rows.find(name);
    if (row !== undefined && row.finishedAt === null) {
      const spec = JSON.parse(row.specJson) as JobSpec;
      const slot = this.slots.find(name);
      if (slot === undefined) this.steerIdle(row, spec);
      else if (spec.cancel === true || spec.suspend === true) slot.stop.abort(new Interrupted("asked to stop"));
    }
    this.admit();
  }

  /** A job that is not under way: what it has left at the target, if anything, is undone by a run of its own. */
  private steerIdle(row: JobRow, spec: JobSpec): void {
    if (spec.cancel === true && row.epoch === 0 && !isGroup(row)) this.end(row.name, "Cancelled");
    else if (row.state === "Suspended" && (spec.cancel === true || spec.suspend !== true)) {
      this.rows.save(row.name, { state: "Pending" });
    } else if (row.state === "Pending" && spec.suspend === true && spec.cancel !== true) {
      this.rows.save(row.name, { state: "Suspended" });
    }
  }

  /** A suspended job of which others have taken leave is looked at once more, and ends as it has there. */
  private endedElsewhere(name: string): void {
    if (this.rows.find(name)?.state !== "Suspended") return;
    this.rows.save(name, { state: "Pending" });
    this.admit();
  }

  private isReady(row: JobRow): boolean {
    const { suspend, cancel } = JSON.parse(row.specJson) as JobSpec;
    if (row.state === "Suspended") {
      if (suspend === true && cancel !== true) {
        if (isGroup(row)) this.groups.lookAround(row, () => this.endedElsewhere(row.name));
        return false;
      }
      // It was being suspended when something else was asked of it, or an order that came late has suspended it again.
      this.rows.save(row.name, { state: "Pending" });
    }
    this.groups.forget(row.name);
    return !isGroup(row) || this.participants.isDue(row);
  }
}
