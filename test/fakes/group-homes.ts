// A target cluster of several agents, and a group's coordinator by hand: every call of the protocol in its order, any of
// which may meet an agent that dies before it, or after it with its reply.
import { createHash, randomBytes } from "node:crypto";
import { LongshoreError } from "../../src/domain/errors.ts";
import { planUnits } from "../../src/domain/plan.ts";
import type { Unit } from "../../src/domain/unit-list.ts";
import type {
  Grant,
  GroupCommitMember,
  GroupCommitRecord,
  GroupGrant,
  PeerApi,
  PeerTarget,
  PlanHeader,
  PrepareRequest,
  Report,
  Term,
} from "../../src/wire/peer.ts";
import type { MigratedVolumeView } from "../../src/wire/schemas.ts";
import { type Cluster, type Clusters, openClusters, restart } from "./engines.ts";
import { FakeClock } from "./fake-clock.ts";
import { cloneBytes, settled } from "./migration-world.ts";

export const leaseMs = 10_000;
const unitBytes = 16_384;
const sizeBytes = 4 * unitBytes;
const sourceUid = "uid-source";
const group = "shop";

/** A volume of the group: what its snapshots hold, and the agent that is its home. */
export interface Part {
  readonly uid: string;
  readonly home: Cluster;
}

export interface GroupHomes {
  readonly clock: FakeClock;
  readonly clusters: Clusters;
  readonly agents: readonly Cluster[];
  /** The agent that decides. */
  readonly decider: Cluster;
  readonly parts: readonly [Part, Part];
  /** Every point's bytes, by its id. */
  readonly truth: Map<string, Buffer>;
  idOf(agent: Cluster): string;
  /** The protocol as the source cluster uses it. */
  peer(agent: Cluster): PeerApi;
  crash(agent: Cluster): Promise<void>;
  close(): Promise<void>;
}

/** Three agents; the volumes are at home on the first two, and `decider` decides, which is one of those or the third. */
export async function openGroupHomes({ decider = 0 }: { decider?: 0 | 2 } = {}): Promise<GroupHomes> {
  const clock = new FakeClock();
  const limits = { leaseMs, memberIntervalMs: 500, stagingAgeMs: 6 * leaseMs };
  const clusters = await openClusters({ target: 3 }, { inMemory: true, clock, limits });
  const agents = clusters.of("target") as [Cluster, Cluster, Cluster];
  const ids = new Map<Cluster, string>();
  for (const agent of agents) {
    await agent.engine.api.putSource("source", { clusterName: "source", clusterUid: sourceUid, caBundle: "ca" });
    ids.set(agent, (await agent.engine.api.describe()).agentId);
  }
  const world: GroupHomes = {
    clock,
    clusters,
    agents,
    decider: agents[decider],
    parts: [
      { uid: "volume-1", home: agents[0] },
      { uid: "volume-2", home: agents[1] },
    ],
    truth: new Map(),
    idOf: (agent) => ids.get(agent) as string,
    peer: (agent) => agent.engine.peer(sourceUid, ["source"]),
    crash: restart,
    close: () => clusters.close(),
  };
  await until(world, async () => {
    await clock.advance(500);
    const views = await Promise.all(agents.map(({ engine }) => engine.api.describe()));
    return views.every(({ members }) => members.length === 3);
  });
  return world;
}

/** Lets whatever can happen without time happen until `isThere`. */
export async function until({ clock }: Pick<GroupHomes, "clock">, isThere: () => Promise<boolean>): Promise<void> {
  const look = async () => {
    await clock.advance(0);
    return isThere();
  };
  if (!(await settled(look, Boolean))) throw new Error("it did not come to that");
}

export async function pass({ clock }: Pick<GroupHomes, "clock">, ms: number): Promise<void> {
  for (let done = 0; done < ms; done += 500) {
    await clock.advance(500);
    // Work on disk needs turns of the loop that no clock counts.
    for (let turn = 0; turn < 5; turn++) await clock.advance(0);
  }
}

/** What is to be copied of one volume: a snapshot's bytes, and where they differ from the base. */
interface Copying {
  readonly part: Part;
  readonly bytes: Buffer;
  readonly units: readonly Unit[];
  readonly header: PlanHeader;
}

export interface JobOptions {
  readonly job?: string;
  readonly groupPoint?: string;
  readonly claimant?: string;
  /** On top of these points, by volume; everything is sent otherwise. */
  readonly bases?: readonly (string | null)[];
  /** Units of 16 KiB that are sent; none: an empty delta. */
  readonly changed?: readonly number[];
  /** The point ids, when they are to be those of an earlier job; its bytes as well. */
  readonly toIds?: readonly string[];
}

export type Fault = "before" | "lostReply";

/** One job of the group, as its coordinator: made anew, it is a coordinator that knows nothing but the snapshots. */
export class GroupJob {
  readonly world: GroupHomes;
  readonly job: string;
  readonly groupPoint: string;
  readonly claimant: string;
  readonly copying: readonly Copying[];
  /** Calls made so far, by name; the n-th one may meet a fault. */
  readonly calls: string[] = [];
  fault: { readonly call: number; readonly how: Fault } | undefined;
  offeredEpoch = 0;
  term: Term = { epoch: 0, nonce: "" };

  constructor(world: GroupHomes, options: JobOptions = {}) {
    this.world = world;
    this.job = options.job ?? "job-1";
    this.groupPoint = options.groupPoint ?? id();
    this.claimant = options.claimant ?? "agent-a";
    this.copying = world.parts.map((part, index) => copyingOf(this, { part, index, options }));
  }

  /** Another coordinator for the same job. */
  again(claimant = this.claimant): GroupJob {
    const { world, job, groupPoint, copying } = this;
    const next = new GroupJob(world, { job, groupPoint, claimant });
    Object.assign(next, { copying });
    return next;
  }

  toId(index: number): string {
    return this.at(index).header.to.pointId;
  }

  target(index: number, term = this.term): PeerTarget {
    return { volume: this.at(index).part.uid, term };
  }

  peerOf(index: number): PeerApi {
    return this.world.peer(this.at(index).part.home);
  }

  get decider(): PeerApi {
    return this.world.peer(this.world.decider);
  }

  // ---- the calls, one by one ----

  async claimGroup(nonce = randomBytes(16).toString("hex")): Promise<GroupGrant> {
    const { job, groupPoint, claimant, offeredEpoch } = this;
    const claim = { group, job, groupPoint, claimant, nonce, offeredEpoch };
    const grant = await this.call("claimGroup", this.world.decider, () => this.decider.claimGroup(claim));
    this.term = grant.term;
    return grant;
  }

  claim(index: number): Promise<Grant> {
    const { part } = this.at(index);
    const { job, claimant, term } = this;
    const { uid: volume } = part;
    const home = this.world.idOf(this.world.decider);
    const claim = { job, volume, name: `data-${index}`, metadata: {}, sizeBytes, claimant, offeredEpoch: term.epoch };
    const asked = { ...claim, nonce: randomBytes(16).toString("hex"), group: { name: group, home, term } };
    return this.call("claim", part.home, () => this.peerOf(index).claim(asked));
  }

  async plan(index: number): Promise<void> {
    const { header, units, part } = this.at(index);
    const target = this.target(index);
    await this.call("putPlan", part.home, () => this.peerOf(index).putPlan(target, header));
    if (units.length === 0) return;
    const page = {
      first: 0,
      units: units.map((unit) => unit.map((extent) => [...extent] as [number, number, number])),
    };
    await this.call("putPlanPage", part.home, () => this.peerOf(index).putPlanPage(target, page as never));
  }

  async store(index: number): Promise<void> {
    const { units, part, bytes } = this.at(index);
    const target = this.target(index);
    const { stored } = await this.call("freeze", part.home, () => this.peerOf(index).freeze(target));
    const missing = units.map((_, unit) => unit).filter((unit) => !stored.some(([a, b]) => unit >= a && unit <= b));
    if (missing.length === 0) return;
    const { ticket } = await this.call("laneTicket", part.home, () =>
      this.peerOf(index).laneTicket(target, { lane: 0, transport: "tls" }),
    );
    const read = async (offset: number, into: Uint8Array) => into.set(bytes.subarray(offset, offset + into.length));
    const lane = await part.home.lanes.open({ ticket, source: { fd: -1, read }, hasDigests: true });
    for (const index of missing) {
      await lane.send({ index, extents: (units[index] ?? []).map(([offset, length]) => [offset, length] as const) });
    }
    const sent = missing.map((unit) => ({ index: unit, digest: digestOf(units[unit] ?? [], bytes) }));
    await this.call("store", part.home, () =>
      this.peerOf(index).store(target, { lane: 0, verification: "media", units: sent }),
    );
    await lane.close();
  }

  prepareRequest(index: number): PrepareRequest {
    const { header } = this.at(index);
    const members = this.copying.map(({ part }) => ({ volume: part.uid, agentId: this.world.idOf(part.home) }));
    return {
      baseId: header.baseId,
      toId: header.to.pointId,
      planDigest: header.planDigest,
      groupPoint: this.groupPoint,
      members,
    };
  }

  prepare(index: number): Promise<void> {
    const { part } = this.at(index);
    return this.call("prepare", part.home, () =>
      this.peerOf(index).prepare(this.target(index), this.prepareRequest(index)),
    );
  }

  get members(): GroupCommitMember[] {
    return this.copying.map(({ part, header }) => ({
      volume: part.uid,
      agentId: this.world.idOf(part.home),
      baseId: header.baseId,
      toId: header.to.pointId,
      planDigest: header.planDigest,
    }));
  }

  commitGroup(): Promise<GroupCommitRecord> {
    const { groupPoint, members, term } = this;
    return this.call("commitGroup", this.world.decider, () =>
      this.decider.commitGroup({ group, term }, { groupPoint, members }),
    );
  }

  abortGroup(): Promise<void> {
    return this.call("abortGroup", this.world.decider, () => this.decider.abortGroup({ group, term: this.term }));
  }

  settle(index: number): Promise<Report | undefined> {
    const { part } = this.at(index);
    return this.call("settle", part.home, () => this.peerOf(index).settle(part.uid));
  }

  release(index: number): Promise<void> {
    return this.call("release", this.at(index).part.home, () => this.peerOf(index).release(this.target(index)));
  }

  releaseGroup(): Promise<void> {
    return this.call("releaseGroup", this.world.decider, () => this.decider.releaseGroup({ group, term: this.term }));
  }

  report(index: number): Promise<Report | undefined> {
    return this.peerOf(index).report(this.at(index).part.uid);
  }

  // ---- and in order ----

  /** Up to what the argument names, all of it unless given. What is committed already is finished forward. */
  async run(until: "joined" | "stored" | "prepared" | "committed" | "released" = "released"): Promise<void> {
    await this.offer();
    const { report } = await this.claimGroup();
    const isDone = report.commits.some(({ groupPoint }) => groupPoint === this.groupPoint);
    for (const index of [0, 1]) await this.claim(index);
    if (!isDone) {
      for (const index of [0, 1]) await this.plan(index);
      if (until === "joined") return;
      for (const index of [0, 1]) await this.store(index);
      if (until === "stored") return;
      for (const index of [0, 1]) await this.prepare(index);
      if (until === "prepared") return;
      await this.commitGroup();
    }
    if (until === "committed") return;
    for (const index of [0, 1]) await this.settle(index);
    for (const index of [0, 1]) await this.release(index);
    await this.releaseGroup();
  }

  /** As {@link run} to the end, begun anew after each call that failed. */
  async finish(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      try {
        return await this.run();
      } catch (error) {
        if (!(error instanceof LongshoreError) || attempt === 5) throw error;
      }
    }
  }

  /** The highest epoch that anybody knows of, for the next claim. */
  async offer(): Promise<void> {
    const reports = await Promise.all([0, 1].map((index) => this.report(index)));
    const epochs = reports.map((report) => report?.epoch ?? 0);
    this.offeredEpoch = Math.max(this.offeredEpoch, this.term.epoch, ...epochs);
  }

  private at(index: number): Copying {
    return this.copying[index] as Copying;
  }

  private async call<T>(name: string, agent: Cluster, work: () => Promise<T>): Promise<T> {
    const number = this.calls.push(name);
    const isHit = this.fault?.call === number;
    const cutOff = () => new LongshoreError("Unreachable", `${agent.name} died at ${name}`);
    if (isHit && this.fault?.how === "before") {
      await this.world.crash(agent);
      throw cutOff();
    }
    const result = await work();
    if (!isHit) return result;
    await this.world.crash(agent);
    throw cutOff();
  }
}

function copyingOf(job: GroupJob, at: { part: Part; index: number; options: JobOptions }): Copying {
  const { truth } = job.world;
  const { part, index, options } = at;
  const baseId = options.bases?.[index] ?? null;
  const toId = options.toIds?.[index] ?? id();
  const changed = options.changed ?? [0, 2];
  const bytes = Buffer.from(truth.get(baseId ?? "") ?? Buffer.alloc(sizeBytes));
  for (const unit of changed) randomBytes(unitBytes).copy(bytes, unit * unitBytes);
  const known = truth.get(toId) ?? bytes;
  truth.set(toId, known);
  const extents = changed.map((unit) => ({ offset: unit * unitBytes, length: unitBytes, kind: "data" as const }));
  const plan = planUnits({ baseId, toId, sizeBytes, extents }, { unitBytesMax: unitBytes, unitExtentsMax: 8 });
  const header: PlanHeader = {
    job: job.job,
    baseId,
    to: { pointId: toId, generation: truth.size, sourceTime: "2026-01-01T00:00:00.000Z", sizeBytes },
    mode: baseId === null ? { kind: "Allocated", reason: "FirstCopy" } : { kind: "Delta", reason: "CommonBase" },
    unitCount: plan.units.length,
    bytesData: plan.bytesData,
    bytesPunched: plan.bytesPunched,
    planDigest: plan.digest,
    diverged: false,
    groupPoint: job.groupPoint,
  };
  return { part, bytes: known, units: [...plan.units], header };
}

function digestOf(unit: Unit, bytes: Buffer): string {
  const hash = createHash("sha256");
  for (const [offset, length] of unit) hash.update(bytes.subarray(offset, offset + length));
  return hash.digest("hex");
}

export function id(): string {
  return randomBytes(16).toString("hex");
}

// ---- what is there -----------------------------------------------------------------------------------------------------

export async function copyAt({ parts }: GroupHomes, index: number): Promise<MigratedVolumeView> {
  const part = parts[index] as Part;
  const { items } = await part.home.engine.api.listMigratedVolumes();
  const copy = items.find(({ sourceVolumeUid }) => sourceVolumeUid === part.uid);
  if (copy === undefined) throw new Error(`${part.home.name} has no copy of ${part.uid}`);
  return copy;
}

/** (I1) and more: every point of every copy is byte for byte its snapshot, and nothing is left half-way. */
export async function flawsOf(world: GroupHomes): Promise<string[]> {
  const found: string[] = [];
  for (const [index, { home, uid }] of world.parts.entries()) {
    const copy = await copyAt(world, index);
    if (copy.state !== "Available" && copy.state !== "Empty") found.push(`${uid} is ${copy.state}`);
    for (const point of copy.points) {
      if (point.holds.length > 0) found.push(`${uid}: point ${point.generation} is held`);
      const bytes = await cloneBytes(home, copy.name, point.pointId);
      if (!bytes.equals(world.truth.get(point.pointId) as Buffer))
        found.push(`${uid}: ${point.pointId} holds other bytes`);
    }
    const report = await world.peer(home).report(uid);
    if (report?.prepared !== undefined) found.push(`${uid} has a vote`);
    if (home.lanes.openLanes > 0) found.push(`${uid}: lanes are open`);
  }
  return found;
}
