// Jobs as the API shows them: how far each volume is, and the state machine as it stands, every agent that takes part with
// what was heard of it last. Of a group's job every participant shows what it knows itself; the coordinator hears from all.
import { estimatedSeconds, type PastTransfer } from "../domain/transfer-time.ts";
import { weakestOf } from "../domain/verification.ts";
import type { ShareReport, ShareSpec } from "../wire/member.ts";
import type { GroupRef } from "../wire/peer.ts";
import type {
  Barrier,
  JobSpec,
  JobView,
  JobVolume,
  Member,
  Mode,
  ParticipantView,
  PointRef,
  Problem,
} from "../wire/schemas.ts";
import { type Core, timeText } from "./core.ts";
import { isGroup, type JobChange, type JobRow, type JobRows } from "./job-rows.ts";
import type { Locations } from "./locations.ts";

/** What a participant was heard to say last. */
export interface Heard {
  readonly report: ShareReport | undefined;
  /** Why it did not answer when it was asked last; null when it did. */
  readonly silence: string | null;
  readonly heardAtMs: number | null;
}

/** What this agent has heard of a group's job since it started; of one that has ended, what it had heard by then. */
export interface Hearsay {
  coordinator: string | null;
  group: GroupRef | null;
  /** Agents of the target cluster. */
  targets: readonly Member[];
  readonly participants: Map<string, Heard>;
}

/** As it is kept with a job that has ended. */
type KeptHearsay = Omit<Hearsay, "participants"> & { readonly participants: readonly [string, Heard][] };

const barriers: readonly Barrier[] = ["None", "Joined", "Frozen", "Stored", "Committed", "Released"];

/** So many of the last transfers to a location tell how long the next one would take. */
const pastTransfers = 8;

export class JobViews {
  private readonly core: Core;
  private readonly rows: JobRows;
  private readonly locations: Locations;
  private readonly hearsay = new Map<string, Hearsay>();

  constructor(core: Core, parts: { rows: JobRows; locations: Locations }) {
    this.core = core;
    this.rows = parts.rows;
    this.locations = parts.locations;
  }

  view(row: JobRow): JobView {
    const volumes = this.volumes(row);
    const spec = JSON.parse(row.specJson) as JobSpec;
    // A share's row knows more than its group's while it moves; once all have ended, the group's row has the sums.
    const sums =
      isGroup(row) && row.finishedAt === null ? sumsOf(volumes) : { ...row, ...this.rows.progressOf(row.name) };
    const [first] = volumes;
    const rate = row.finishedAt === null ? this.rate(row) : null;
    const bytesLeft = Math.max(0, sums.bytesTotal - sums.bytesStored);
    return {
      name: row.name,
      spec,
      state: row.state,
      barrier: row.barrier,
      epoch: row.epoch,
      attempts: row.attempts,
      from: isGroup(row) ? null : (first?.from ?? null),
      to: JSON.parse(row.toJson) as PointRef,
      mode: modeOf(volumes),
      bytesTotal: sums.bytesTotal,
      bytesPunched: sums.bytesPunched,
      bytesSent: sums.bytesSent,
      bytesStored: sums.bytesStored,
      unitsTotal: sums.unitsTotal,
      unitsStored: sums.unitsStored,
      bytesPerSecond: rate,
      etaSeconds: spec.dryRun === true ? this.estimate(row) : rate === null || rate <= 0 ? null : bytesLeft / rate,
      verified: sums.verified,
      createdAt: timeText(row.createdAt),
      startedAt: row.startedAt === null ? null : timeText(row.startedAt),
      finishedAt: row.finishedAt === null ? null : timeText(row.finishedAt),
      durationMs: row.startedAt === null || row.finishedAt === null ? null : row.finishedAt - row.startedAt,
      error: row.errorJson === null ? null : (JSON.parse(row.errorJson) as Problem),
      participants: isGroup(row) ? this.groupParticipants(row, volumes) : this.pairOf(row, spec),
      volumes,
      revision: row.revision,
    };
  }

  /** How long what was planned would take, by the last transfers there. */
  private estimate({ location, bytesTotal, finishedAt }: JobRow): number | null {
    if (finishedAt === null) return null;
    const past = this.core.journal.all<PastTransfer>(
      `SELECT bytesStored AS bytes, finishedAt - startedAt AS durationMs FROM jobs WHERE location = ? AND state = 'Succeeded'
       AND parent IS NULL AND startedAt IS NOT NULL AND bytesStored > 0 ORDER BY finishedAt DESC LIMIT ${pastTransfers}`,
      location,
    );
    return estimatedSeconds(bytesTotal, past, this.locations.limits(location).bytesPerSecondMax) ?? null;
  }

  /** The parts of a job: this node's from its rows, the others' as they were heard last. */
  volumes(row: JobRow): JobVolume[] {
    if (!isGroup(row)) return [this.rows.volume(row)];
    const own = this.rows.sharesOf(row.name).map((share) => this.rows.volume(share));
    const { agentId } = this.core;
    const heard = [...this.heard(row).participants].filter(([id]) => id !== agentId);
    const known = [...own, ...heard.flatMap(([, { report }]) => report?.shares ?? [])];
    const { participants } = shareOf(row);
    const all = participants.flatMap(({ volumes }) => volumes);
    return all.map(({ name, uid, toId }) => known.find((one) => one.uid === uid) ?? unheardOf(name, uid, toId));
  }

  /** What was heard of a group's job; empty after a start, unless the job has ended. */
  heard({ name, heardJson }: Pick<JobRow, "name" | "heardJson">): Hearsay {
    if (heardJson === null) return this.hearsay.get(name) ?? unheard();
    const { participants, ...rest } = JSON.parse(heardJson) as KeptHearsay;
    return { ...rest, participants: new Map(participants) };
  }

  /** Notes what was heard of a group's job; of one that has ended, or is not known here, nothing is kept. */
  note(job: string, change: (heard: Hearsay) => void): void {
    if (this.rows.find(job)?.finishedAt !== null) return;
    const heard = this.hearsay.get(job) ?? unheard();
    this.hearsay.set(job, heard);
    change(heard);
  }

  /** What is kept of it when the job ends, as its row has it. */
  heardText(job: string): string {
    const { participants, ...rest } = this.hearsay.get(job) ?? unheard();
    return JSON.stringify({ ...rest, participants: [...participants] } satisfies KeptHearsay);
  }

  forget(job: string): void {
    this.hearsay.delete(job);
  }

  private rate(row: JobRow): number | null {
    const names = isGroup(row) ? this.rows.sharesOf(row.name).map(({ name }) => name) : [row.name];
    const rates = names.flatMap((name) => this.rows.rate(name) ?? []);
    return rates.length === 0 ? null : rates.reduce((sum, rate) => sum + rate, 0);
  }

  // ---- participants ------------------------------------------------------------------------------------------------

  private pairOf(row: JobRow, spec: JobSpec): ParticipantView[] {
    const { agentId, node } = this.core;
    const common = {
      state: stateOf(row),
      volumes: spec.volume === undefined ? [] : [spec.volume],
      barrier: row.barrier,
      unitsDone: this.rows.progressOf(row.name).unitsStored ?? row.unitsStored,
      epoch: row.epoch,
    };
    const heard = { lastError: lastErrorOf(row), lastHeardAt: null };
    const here: ParticipantView = { agentId, node, role: "coordinator", ...common, ...heard };
    const target = this.rows.target(row);
    if (target === null) return [here];
    const { agentId: home, node: homeNode, barrier, heardAtMs } = target;
    const lastHeardAt = timeText(heardAtMs);
    const there = { agentId: home, node: homeNode, role: "decider" as const, barrier, lastError: null, lastHeardAt };
    return [here, { ...common, ...there }];
  }

  private groupParticipants(row: JobRow, volumes: readonly JobVolume[]): ParticipantView[] {
    const { coordinator, group, targets } = this.heard(row);
    const sources = shareOf(row).participants.map((one) => this.sourceView(row, one, volumes));
    const homes = new Set(volumes.flatMap(({ targetAgent }) => targetAgent ?? []));
    const node = (agentId: string) => targets.find((one) => one.agentId === agentId)?.node ?? null;
    const copies = [...homes].map((agentId): ParticipantView => {
      const there = volumes.filter(({ targetAgent }) => targetAgent === agentId);
      const reported = there.map(({ targetBarrier }) => targetBarrier ?? "None");
      return { ...partOf(row, there), agentId, node: node(agentId), role: "target", barrier: lowest(reported) };
    });
    const bare = { ...partOf(row, []), barrier: row.barrier, role: "decider" as const };
    const decider: ParticipantView[] = group === null ? [] : [{ ...bare, agentId: group.home, node: node(group.home) }];
    const isFirst = ({ agentId }: ParticipantView) => (agentId === coordinator ? 0 : 1);
    const ordered = sources.sort((a, b) => isFirst(a) - isFirst(b));
    return [...ordered, ...copies, ...decider];
  }

  private sourceView(
    row: JobRow,
    { agentId, volumes: shared }: ShareSpec["participants"][number],
    volumes: readonly JobVolume[],
  ): ParticipantView {
    const { coordinator, participants } = this.heard(row);
    const own = volumes.filter(({ uid }) => shared.some((one) => one.uid === uid));
    const part = {
      ...partOf(row, own),
      role: agentId === coordinator ? ("coordinator" as const) : ("source" as const),
    };
    const member = this.core.members.all().find((one) => one.agentId === agentId);
    const node = member?.node ?? null;
    const heard = participants.get(agentId);
    const lastHeardAt = heard?.heardAtMs == null ? null : timeText(heard.heardAtMs);
    if (agentId === this.core.agentId) return { ...part, agentId, node, lastError: lastErrorOf(row), lastHeardAt };
    const epoch = heard?.report?.epoch ?? 0;
    const lastError = heard?.silence ?? heard?.report?.problem?.detail ?? null;
    const state = heard?.silence == null ? (heard?.report?.state ?? "idle") : "unreachable";
    return { ...part, agentId, node, epoch, state, lastError, lastHeardAt };
  }
}

function unheard(): Hearsay {
  return { coordinator: null, group: null, targets: [], participants: new Map() };
}

/** A group's job as it was taken in. */
export function shareOf({ shareJson }: JobRow): ShareSpec {
  return JSON.parse(shareJson ?? "null") as ShareSpec;
}

/** The barrier that all of them have reached. */
export function lowest(reached: readonly Barrier[]): Barrier {
  return barriers[Math.min(...reached.map((barrier) => barriers.indexOf(barrier)))] ?? "None";
}

/** What all volumes of a job come to. */
export function sumsOf(volumes: readonly JobVolume[]) {
  const sum = (of: (volume: JobVolume) => number) => volumes.reduce((total, volume) => total + of(volume), 0);
  const weakest = weakestOf(volumes.flatMap((volume) => volume.verified ?? []));
  return {
    bytesTotal: sum(({ bytesTotal }) => bytesTotal),
    bytesPunched: sum(({ bytesPunched }) => bytesPunched),
    bytesSent: sum(({ bytesSent }) => bytesSent),
    bytesStored: sum(({ bytesStored }) => bytesStored),
    unitsTotal: sum(({ unitsTotal }) => unitsTotal),
    unitsStored: sum(({ unitsStored }) => unitsStored),
    verified: weakest ?? null,
  } satisfies JobChange;
}

/** The mode that costs most: a group of which one volume is sent whole is not shown as a delta. */
function modeOf(volumes: readonly JobVolume[]): Mode | null {
  const modes = volumes.flatMap(({ mode }) => mode ?? []);
  return modes.find(({ kind }) => kind !== "Delta") ?? modes[0] ?? null;
}

function partOf(row: JobRow, volumes: readonly JobVolume[]) {
  return {
    state: stateOf(row),
    volumes: volumes.map(({ volume }) => volume),
    barrier: lowest(volumes.map(({ barrier }) => barrier)),
    unitsDone: volumes.reduce((sum, { unitsStored }) => sum + unitsStored, 0),
    epoch: row.epoch,
    lastError: null,
    lastHeardAt: null,
  };
}

function lastErrorOf({ errorJson }: JobRow): string | null {
  return errorJson === null ? null : (JSON.parse(errorJson) as Problem).detail;
}

function stateOf({ state, finishedAt }: JobRow): ParticipantView["state"] {
  if (finishedAt !== null) return "finished";
  return state === "Running" ? "running" : "idle";
}

function unheardOf(volume: string, uid: string, toId: string): JobVolume {
  const counts = { bytesTotal: 0, bytesPunched: 0, bytesSent: 0, bytesStored: 0, unitsTotal: 0, unitsStored: 0 };
  const unknown = { from: null, mode: null, planDigest: null, verified: null, targetAgent: null, targetBarrier: null };
  return { volume, uid, toId, barrier: "None", isPrepared: false, ...counts, ...unknown };
}
