// The job of a single volume: one attempt goes from the claim of a term through the five barriers to Released. Every attempt
// starts from what the home of the copy reports now; the job's row only remembers what must not be forgotten.
import { LongshoreError } from "../domain/errors.ts";
import { emptyReport, type Report } from "../wire/peer.ts";
import type { JobSpec, Member as KnownMember, Lineage } from "../wire/schemas.ts";
import { claimedAffinity } from "./affinity.ts";
import type { Core } from "./core.ts";
import type { PeerConnection } from "./engine-options.ts";
import { interruptible } from "./interruptible.ts";
import type { EndJob } from "./job-ends.ts";
import type { JobRow, JobRows } from "./job-rows.ts";
import type { AttemptResult, Ending, JobDriver, Resolution } from "./job-runner.ts";
import { claimedLineage, lineageOf } from "./lineage.ts";
import type { Locations } from "./locations.ts";
import { Planning } from "./planning.ts";
import {
  atHome,
  type Destination,
  hasPoint,
  openShare,
  type Share,
  type ShareParts,
  subjectOf,
  whatIsPlanned,
} from "./share.ts";
import { openRenewal } from "./term-renewal.ts";
import type { Volumes } from "./volumes.ts";

export class Coordinator implements JobDriver {
  private readonly core: Core;
  private readonly rows: JobRows;
  private readonly locations: Locations;
  private readonly parts: ShareParts;
  private readonly end: EndJob;

  constructor(core: Core, parts: { rows: JobRows; volumes: Volumes; locations: Locations; end: EndJob }) {
    this.core = core;
    this.rows = parts.rows;
    this.locations = parts.locations;
    this.parts = { ...parts, planning: new Planning(core, parts) };
    this.end = parts.end;
  }

  /** Drives the job as far as it goes. Resolves when the target has committed and the base has moved; throws otherwise. */
  async attempt(name: string, signal: AbortSignal): Promise<AttemptResult> {
    const row = this.rows.row(name);
    const connection = interruptible(this.locations.connection(row.location), signal);
    if ((JSON.parse(row.specJson) as JobSpec).dryRun === true) {
      await this.dryRun(name, connection, signal);
      this.end(name, "Succeeded");
    } else {
      const destination = await this.locate(name, connection);
      const renewal = openRenewal(this.core.clock, signal);
      const patient = { ...destination, connection: interruptible(destination.connection, renewal.signal) };
      const share = await openShare(this.core, this.parts, { name, destination: patient, signal: renewal.signal });
      await renewal.during({ leaseMs: share.leaseMs, renew: () => share.renew() }, () => this.drive(share));
      this.end(name, "Succeeded", undefined, { barrier: "Released" });
    }
    return "ended";
  }

  /** Fences off every earlier request and asks the target; what is committed is finished, anything else aborted there. */
  async resolve(name: string, ending: Ending): Promise<Resolution> {
    const row = this.rows.row(name);
    // A job that never had a term has left nothing at the target but, perhaps, a grant that ends by itself.
    if (row.epoch === 0) return this.conclude(name, ending);
    try {
      const destination = await this.locate(name, this.locations.connection(row.location));
      const { signal } = this.core.tasks;
      const share = await openShare(this.core, this.parts, { name, destination, signal });
      if (share.isThere) {
        share.moveBase(share.report);
        await share.release();
        this.end(name, "Succeeded", undefined, { barrier: "Released" });
        return "committed";
      }
      this.rows.save(name, { commitAsked: 0 });
      await share.abort(ending);
    } catch (error) {
      const now = this.rows.find(name);
      if (now === undefined || now.finishedAt !== null) return "ended";
      if (now.barrier === "Committed") {
        // The base has moved; only the end of the term was not acknowledged, and terms end by themselves.
        this.end(name, "Succeeded");
        return "committed";
      }
      this.core.log.warn({ job: name, err: error }, "the outcome at the target could not be asked for");
      if (this.isUncertain(now)) return "open";
    }
    return this.conclude(name, ending);
  }

  /** Grows with whatever the job has durably gained. */
  reached(name: string) {
    const { barrier, unitsStored } = { ...this.rows.row(name), ...this.rows.progressOf(name) };
    return { barrier, units: unitsStored };
  }

  /** Whether the target may have committed without our knowing. */
  private isUncertain({ name, commitAsked, state }: JobRow): boolean {
    if (commitAsked === 0) return false;
    if (state !== "Undecided") {
      this.rows.save(name, { state: "Undecided" });
      this.core.log.error({ job: name }, "undecided: the target was asked to commit, and does not answer");
    }
    return true;
  }

  private conclude(name: string, { state, reason }: Ending): Resolution {
    if (state === "Suspended") this.rows.save(name, { state, barrier: "None" });
    else this.end(name, state, reason);
    return "ended";
  }

  /** Where the copy is. Throws `Untrusted` unless the cluster that answers may be the location's. */
  private async locate(name: string, connection: PeerConnection): Promise<Destination> {
    const { volume, to, row } = subjectOf(this.core, this.rows, name);
    const ties = { ...claimedLineage(volume), ...claimedAffinity(volume) };
    const request = { volumes: [{ volume: volume.uid, sizeBytes: to.sizeBytes, ...ties }] };
    const { clusterUid, homes, members } = await connection.api.locate(request);
    this.locations.checkIdentity(row.location, clusterUid);
    const home = members.find(({ agentId }) => agentId === homes[0]?.agentId);
    if (home === undefined) throw new LongshoreError("Unreachable", `no home is known for the copy of ${volume.name}`);
    return atHome(connection, clusterUid, home);
  }

  private async drive(share: Share): Promise<void> {
    if (share.isThere) {
      share.moveBase(share.report);
      return share.release();
    }
    // The new term fences off every earlier request: what was asked for and is not there will not come any more.
    if (this.rows.row(share.name).commitAsked === 1) this.rows.save(share.name, { commitAsked: 0 });
    await share.join();
    await share.freeze();
    await share.stream();
    await share.commit();
    share.moveBase();
  }

  // ---- dry runs ----------------------------------------------------------------------------------------------------

  /** Plans from what the target reports, and leaves nothing there: not even a home is chosen for a copy that is new. */
  private async dryRun(name: string, connection: PeerConnection, signal: AbortSignal): Promise<void> {
    const subject = subjectOf(this.core, this.rows, name);
    const hello = await connection.api.hello();
    this.locations.checkIdentity(subject.row.location, hello.clusterUid);
    const lineage = lineageOf(subject.volume);
    const known = await this.reportOf({ volume: subject.volume.uid, lineage }, connection, hello.members);
    // Where the original is and nobody has the clone's point, it is gone.
    const isGone = known?.lineage === undefined && lineage?.clusterUid === hello.clusterUid;
    const report = { ...(known ?? emptyReport), ...(isGone && { lineage: null }) };
    // Nothing to move is an answer as well.
    if (hasPoint(report, subject.row.toId)) return;
    const planned = await this.parts.planning.plan(subject, report, signal);
    this.rows.save(name, whatIsPlanned(planned));
  }

  /** The report of whichever agent has the copy. Throws what kept an agent from answering, if none of the others has it. */
  private async reportOf(
    { volume, lineage }: { volume: string; lineage: Lineage | undefined },
    connection: PeerConnection,
    members: readonly KnownMember[],
  ): Promise<Report | undefined> {
    const answers = await Promise.allSettled(members.map((member) => connection.at(member).report(volume, lineage)));
    const reports = answers.flatMap((answer) => (answer.status === "fulfilled" ? (answer.value ?? []) : []));
    const isOrigin = ({ lineage }: Report) => Number(lineage != null);
    const [fullest] = reports.sort((a, b) => b.points.length - a.points.length || isOrigin(b) - isOrigin(a));
    const failed = answers.find((answer) => answer.status === "rejected");
    if (fullest === undefined && failed !== undefined) throw failed.reason;
    return fullest;
  }
}
