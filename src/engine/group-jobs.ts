// A group's job as it is asked for at any agent that holds a part: who has which volume is found out, all snapshots must be of
// one moment, and then every participant is given its share.
import { LongshoreError } from "../domain/errors.ts";
import type { JobGroup as Group } from "../domain/job-subject.ts";
import type { Holdings, ShareSpec } from "../wire/member.ts";
import type { JobSpec, Lineage, PointRef, SnapshotView } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import { withinLease } from "./interruptible.ts";
import type { JobRow } from "./job-rows.ts";
import { type Participants, steeringOf } from "./participants.ts";

/** Participants of a suspended job ask each other this often. */
const leasesBetweenLooks = 2;

interface Held {
  readonly agentId: string;
  readonly name: string;
  readonly uid: string;
  readonly lineage: Lineage | undefined;
  readonly snapshot: SnapshotView;
}

export class GroupJobs {
  private readonly core: Core;
  private readonly participants: Participants;
  private readonly lookedAtMs = new Map<string, number>();

  constructor(core: Core, parts: { participants: Participants }) {
    this.core = core;
    this.participants = parts.participants;
  }

  /**
   * Takes a new job in here, and gives the others their shares; who cannot be told now is told by the coordinator. Throws
   * `NotFound`, `GroupInvalid`, and `Unreachable` when an agent that may have a volume of the group does not answer.
   */
  async take(job: string, spec: JobSpec, group: Group): Promise<void> {
    const held = await this.find(group, spec.snapshot);
    const share = shareSpec(spec, held);
    if (!share.participants.some(({ agentId }) => agentId === this.core.agentId)) {
      throw new LongshoreError("NotFound", `this agent holds no volume of group ${group.name}; ask one that does`);
    }
    this.participants.take(job, share);
    await this.pass(job, share);
  }

  /** Suspends, resumes or cancels: here at once, and wherever the job is, as far as it can be reached now. */
  async steer(row: JobRow, { suspend = false, cancel = false }: JobSpec): Promise<void> {
    const known = steeringOf(row);
    if (known.suspend === suspend && known.cancel === cancel) return;
    this.participants.steer(row.name, { steered: known.steered + 1, suspend, cancel });
    await this.pass(row.name, this.participants.spec(row.name));
  }

  /**
   * A suspended job is not coordinated by anybody, so its participants ask each other now and then, in the background,
   * whether something else is asked of it by now; `onEnded` is called when it has ended elsewhere.
   */
  lookAround(row: JobRow, onEnded: () => void): void {
    const { clock, limits, tasks, agentId: self } = this.core;
    const sinceMs = clock.monotonicMs() - (this.lookedAtMs.get(row.name) ?? Number.NEGATIVE_INFINITY);
    if (sinceMs < leasesBetweenLooks * limits.leaseMs) return;
    this.lookedAtMs.set(row.name, clock.monotonicMs());
    const others = this.participants.spec(row.name).participants.filter(({ agentId }) => agentId !== self);
    for (const { agentId } of others) {
      tasks.spawn(`look at ${row.name} on ${agentId}`, () => this.lookAt(row.name, agentId, onEnded));
    }
  }

  /** Of a job that is not suspended, or whose row is gone. */
  forget(job: string): void {
    this.lookedAtMs.delete(job);
  }

  private async lookAt(job: string, agentId: string, onEnded: () => void): Promise<void> {
    try {
      const report = await this.core.members.api(agentId).shareReport(job);
      if (report === undefined) return;
      this.participants.steer(job, report.steering);
      if (report.finishedAs !== null) onEnded();
    } catch (error) {
      this.core.log.debug({ job, agentId, err: error }, "participant of a suspended job does not answer");
    }
  }

  private async pass(job: string, share: ShareSpec): Promise<void> {
    const { agentId: self, tasks, log } = this.core;
    const others = share.participants.filter(({ agentId }) => agentId !== self);
    await Promise.all(
      others.map(async ({ agentId }) => {
        try {
          await withinLease(this.core, { agentId, signal: tasks.signal }, (api) => api.takeShare(job, share));
        } catch (error) {
          log.warn({ job, agentId, err: error }, "participant could not be told; the coordinator will");
        }
      }),
    );
  }

  /** The volumes of the group with their snapshots of that name, which are of one moment. */
  private async find(group: Group, snapshot: string): Promise<Held[]> {
    const { members } = this.core;
    const agentIds = members.counting();
    const request = { volumes: [...group.volumes] };
    const answers = await Promise.allSettled(agentIds.map((agentId) => members.api(agentId).holdings(request)));
    const silent = answers.flatMap((answer) => (answer.status === "rejected" ? [answer.reason] : []));
    const holdings = answers.flatMap((answer, index) =>
      answer.status === "fulfilled" ? heldBy(agentIds[index] ?? "", answer.value, snapshot) : [],
    );
    const held = group.volumes.map((volume) => {
      const found = holdings.find(({ name }) => name === volume);
      if (found !== undefined) return found;
      if (silent.length > 0) throw silent[0];
      throw new LongshoreError("NotFound", `volume ${volume} of group ${group.name} has no group snapshot ${snapshot}`);
    });
    const points = new Set(held.map((one) => one.snapshot.groupPoint));
    if (points.size === 1) return held;
    throw new LongshoreError("GroupInvalid", `snapshots ${snapshot} of group ${group.name} were not taken together`);
  }
}

function heldBy(agentId: string, { volumes }: Holdings, snapshot: string): Held[] {
  return volumes.flatMap(({ name, uid, snapshots, lineage }) => {
    const found = snapshots.find(
      (one) => one.name === snapshot && one.state === "sealed" && one.groupPoint !== undefined,
    );
    return found === undefined ? [] : [{ agentId, name, uid, lineage, snapshot: found }];
  });
}

function shareSpec(spec: JobSpec, held: readonly Held[]): ShareSpec {
  const agentIds = [...new Set(held.map(({ agentId }) => agentId))].sort();
  const participants = agentIds.map((agentId) => ({
    agentId,
    volumes: held
      .filter((one) => one.agentId === agentId)
      .map(({ name, uid, snapshot, lineage }) => ({
        name,
        uid,
        toId: snapshot.pointId,
        sizeBytes: snapshot.sizeBytes,
        ...(lineage && { lineage }),
      })),
  }));
  const snapshots = held.map(({ snapshot }) => snapshot);
  const groupPoint = snapshots[0]?.groupPoint as string;
  const to: PointRef = {
    pointId: groupPoint,
    generation: Math.max(...snapshots.map(({ generation }) => generation)),
    sourceTime: snapshots.map(({ createdAt }) => createdAt).sort()[0] as string,
    sizeBytes: snapshots.reduce((sum, { sizeBytes }) => sum + sizeBytes, 0),
  };
  return { spec, steered: 0, groupPoint, to, participants };
}
