// The source side of the fake agent: volumes, snapshots and their holds, locations, jobs.
import { LongshoreError } from "../../src/domain/errors.ts";
import { volumesOf } from "../../src/domain/job-subject.ts";
import type { ExtentQuery, Precondition } from "../../src/wire/agent-api.ts";
import { problemOf } from "../../src/wire/problem.ts";
import {
  type AgentView,
  type ExtentPage,
  extentsPerPageMax,
  type GroupSnapshotSpec,
  type GroupSnapshotView,
  type Hold,
  type JobSpec,
  type JobState,
  type JobView,
  type List,
  type LocationSpec,
  type LocationView,
  type PointRef,
  type SnapshotView,
  type VolumeSpec,
  type VolumeView,
} from "../../src/wire/schemas.ts";
import { FakeBlocks } from "./fake-blocks.ts";
import { agentView, check, pending, same, unprobed, type Writable } from "./fake-rows.ts";
import { type FakeAgentOptions, FakeStore } from "./fake-store.ts";

type Probe = Pick<LocationView, "state" | "message"> & Partial<LocationView>;

const finished: readonly JobState[] = ["Succeeded", "Failed", "Cancelled"];

export class FakeSourceSide extends FakeStore {
  readonly volumes = new Map<string, Writable<VolumeView>>();
  readonly locations = new Map<string, Writable<LocationView>>();
  readonly jobs = new Map<string, Writable<JobView>>();
  readonly view: Writable<AgentView>;
  /** What the images of volumes are attached to, by volume. */
  readonly attached = new Map<string, string>();
  /** Why group snapshots are not taken at the moment. */
  groupRefusal: LongshoreError | undefined;
  /** All agents of the cluster, this one among them. */
  protected cluster: readonly FakeSourceSide[] = [this];
  readonly #probes = new Map<string, Probe>();
  /** What volumes and snapshots hold, by the UID of the one or the point id of the other. */
  readonly #blocks = new Map<string, FakeBlocks>();

  constructor(options: FakeAgentOptions) {
    super(options);
    const { clusterUid = "fake-cluster-uid", clusterName = "fake", place = 1 } = options;
    this.view = agentView({ clusterUid, clusterName, place });
  }

  /** Makes this agent and the others the members of one cluster. */
  join(others: readonly FakeSourceSide[]): void {
    const cluster = [this, ...others];
    const members = cluster.map(({ view }) => view.members.find(({ agentId }) => agentId === view.agentId));
    for (const agent of cluster) {
      agent.cluster = cluster;
      agent.view.members = members.flatMap((member) => member ?? []);
    }
  }

  // ---- volumes and snapshots ----

  async listVolumes(): Promise<List<VolumeView>> {
    return this.listOf(this.volumes);
  }

  async getVolume(name: string): Promise<VolumeView> {
    return structuredClone(this.getRow(this.volumes, name, "volume"));
  }

  async putVolume(name: string, spec: VolumeSpec, precondition?: Precondition): Promise<VolumeView> {
    const present = this.volumes.get(name);
    check(present, precondition, `volume ${name}`);
    if (present !== undefined) this.#changeVolume(present, spec);
    else if (spec.from === undefined) this.storeRow(this.volumes, "volume", this.newVolume(name, spec));
    else this.#cloneVolume(name, spec, spec.from);
    return this.getVolume(name);
  }

  async removeVolume(name: string, precondition?: Precondition): Promise<void> {
    const present = this.volumes.get(name);
    if (present === undefined) return;
    check(present, precondition, `volume ${name}`);
    const busy = [...this.jobs.values()].find(
      (job) => volumesOf(job.spec).includes(name) && !finished.includes(job.state),
    );
    if (busy) throw new LongshoreError("InUse", `volume ${name} is in use by job ${busy.name}`);
    const device = this.attached.get(name);
    if (device !== undefined) throw new LongshoreError("InUse", `volume ${name} is attached to ${device}`);
    const held = present.snapshots.flatMap(({ holds }) => holds).find(({ reason }) => reason === "user");
    if (held) throw new LongshoreError("InUse", `volume ${name} has a snapshot held by ${held.owner}`);
    this.dropRow(this.volumes, "volume", name);
  }

  async putSnapshot(volume: string, name: string): Promise<SnapshotView> {
    const owner = this.getRow(this.volumes, volume, "volume");
    const present = owner.snapshots.find((snapshot) => snapshot.name === name);
    if (present?.state === "deleting") throw deleting(volume, name);
    return structuredClone(present ?? this.#take(owner, name));
  }

  async putGroupSnapshot(group: string, name: string, { volumes }: GroupSnapshotSpec): Promise<GroupSnapshotView> {
    const owned = volumes.map((volume) => this.#ownerOf(volume));
    const present = owned.map(({ row }) => row.snapshots.find((snapshot) => snapshot.name === name));
    const found = present.filter((snapshot) => snapshot !== undefined);
    const groupPoint = found[0]?.groupPoint;
    const isWhole = present.every((one) => one?.group === group && one.groupPoint === groupPoint);
    if (found.length > 0 && !isWhole)
      throw new LongshoreError("NameTaken", `snapshot ${name} was not taken of all of group ${group} together`);
    if (found.length === 0 && this.groupRefusal !== undefined) throw this.groupRefusal;
    const tie = { group, groupPoint: groupPoint ?? this.id() };
    const snapshots = owned.map(({ agent, row }, at) => {
      const one = present[at];
      return one === undefined ? agent.#take(row, name, tie) : agent.#confirm(row, one);
    });
    return { group, name, groupPoint: tie.groupPoint, snapshots: structuredClone(snapshots), frozenMs: 1 };
  }

  #confirm(owner: Writable<VolumeView>, part: SnapshotView): SnapshotView {
    if (part.state !== "creating") return part;
    const confirmed = { ...part, state: "sealed" as const };
    this.#setSnapshot(owner, confirmed);
    return confirmed;
  }

  #take(owner: Writable<VolumeView>, name: string, tie: { group?: string; groupPoint?: string } = {}): SnapshotView {
    const made: SnapshotView = {
      name,
      volume: owner.name,
      pointId: this.id(),
      generation: owner.generation,
      state: "sealed",
      released: false,
      sizeBytes: owner.sizeBytes,
      createdAt: this.now(),
      stallMs: 1,
      holds: [],
      ...tie,
    };
    owner.snapshots = [...owner.snapshots, made];
    this.#blocks.set(made.pointId, this.#blocksOf(owner.uid).copy());
    owner.generation++;
    this.touch("volume", owner);
    return made;
  }

  #ownerOf(volume: string): { agent: FakeSourceSide; row: Writable<VolumeView> } {
    for (const agent of this.cluster) {
      const row = agent.volumes.get(volume);
      if (row !== undefined) return { agent, row };
    }
    throw new LongshoreError("NotFound", `no volume ${volume}`);
  }

  async removeSnapshot(volume: string, name: string): Promise<SnapshotView | undefined> {
    const owner = this.volumes.get(volume);
    const present = owner?.snapshots.find((snapshot) => snapshot.name === name);
    if (owner === undefined || present === undefined) return undefined;
    if (!present.released) this.#setSnapshot(owner, { ...present, released: true });
    return structuredClone(owner.snapshots.find((snapshot) => snapshot.name === name));
  }

  async listExtents(volume: string, snapshot: string, query: ExtentQuery): Promise<ExtentPage> {
    const { base: baseName, from = 0, max = extentsPerPageMax } = query;
    if (max < 1 || max > extentsPerPageMax) throw new LongshoreError("BadRequest", `max: not ${max}`);
    const owner = this.getRow(this.volumes, volume, "volume");
    const point = readable(owner, snapshot);
    const base = baseName === undefined ? undefined : readable(owner, baseName);
    if (base !== undefined && owner.snapshots.indexOf(base) > owner.snapshots.indexOf(point))
      throw new LongshoreError("BadRequest", `base: ${base.name} is newer than ${snapshot}`);
    const all = this.#blocksOf(point.pointId).extents(base && this.#blocksOf(base.pointId));
    const left = all.filter(({ offset, length }) => offset + length > from);
    const extents = left.slice(0, max).map(({ offset, length }) => {
      const start = Math.max(offset, from);
      return { offset: start, length: offset + length - start };
    });
    return { sizeBytes: point.sizeBytes, extents, next: left[max]?.offset ?? null };
  }

  async putHold(volume: string, snapshot: string, owner: string): Promise<SnapshotView> {
    return this.#hold(volume, snapshot, { reason: "user", owner });
  }

  async removeHold(volume: string, snapshot: string, hold: { reason: "user" | "base"; owner: string }): Promise<void> {
    const owner = this.volumes.get(volume);
    if (owner === undefined) return;
    if (hold.reason === "base") {
      const present = owner.snapshots.find((candidate) => candidate.name === snapshot);
      owner.bases = owner.bases.filter((base) => base.location !== hold.owner || base.pointId !== present?.pointId);
    }
    this.#unhold(owner, (name, held) => name === snapshot && held.reason === hold.reason && held.owner === hold.owner);
  }

  // ---- locations ----

  async listLocations(): Promise<List<LocationView>> {
    return this.listOf(this.locations);
  }

  async getLocation(name: string): Promise<LocationView> {
    return structuredClone(this.getRow(this.locations, name, "location"));
  }

  async putLocation(name: string, spec: LocationSpec, precondition?: Precondition): Promise<LocationView> {
    const present = this.locations.get(name);
    check(present, precondition, `location ${name}`);
    if (present && same(present.spec, spec)) return structuredClone(present);
    const made = { ...unprobed(name), revision: present?.revision ?? 0, spec: structuredClone(spec) };
    this.storeRow(this.locations, "location", made);
    const answer = structuredClone(made);
    queueMicrotask(() => this.#probed(name));
    return answer;
  }

  async removeLocation(name: string, options?: Precondition & { force?: boolean | undefined }): Promise<void> {
    const present = this.locations.get(name);
    if (present === undefined) return;
    check(present, options, `location ${name}`);
    const users = this.#usersOf(name);
    if (users.length > 0 && !options?.force)
      throw new LongshoreError("InUse", `location ${name} is used by ${users.join(", ")}`);
    for (const volume of this.volumes.values()) this.#dropBase(volume, name);
    for (const job of this.jobs.values()) if (job.spec.location === name) this.#end(job, "Cancelled");
    this.dropRow(this.locations, "location", name);
  }

  // ---- jobs ----

  async listJobs(): Promise<List<JobView>> {
    return this.listOf(this.jobs);
  }

  async getJob(name: string): Promise<JobView> {
    return structuredClone(this.getRow(this.jobs, name, "job"));
  }

  async putJob(name: string, spec: JobSpec, precondition?: Precondition): Promise<JobView> {
    const present = this.jobs.get(name);
    check(present, precondition, `job ${name}`);
    if (present === undefined) this.#startJob(name, spec);
    else {
      refuseOther(present, spec);
      for (const agent of this.cluster) agent.#changeJob(name, spec);
    }
    return this.getJob(name);
  }

  async removeJob(name: string): Promise<void> {
    const present = this.jobs.get(name);
    if (present === undefined) return;
    if (!finished.includes(present.state)) throw new LongshoreError("InUse", `job ${name} is ${present.state}`);
    this.dropRow(this.jobs, "job", name);
  }

  async *followJob(name: string, signal: AbortSignal): AsyncGenerator<JobView> {
    let seen = await this.getJob(name);
    const since = this.feed.sequence;
    yield seen;
    if (finished.includes(seen.state)) return;
    for await (const change of this.feed.follow(since, signal)) {
      if (change.kind !== "resync" && (change.kind !== "job" || change.name !== name)) continue;
      const now = this.jobs.get(name);
      if (now === undefined) return;
      if (now.revision === seen.revision) continue;
      seen = structuredClone(now);
      yield seen;
      if (finished.includes(seen.state)) return;
    }
  }

  // ---- what a test makes happen: the source side ----

  /** An application writes to a volume. */
  write(volume: string, offset: number, length: number): void {
    this.#blocksOf(this.getRow(this.volumes, volume, "volume").uid).write(offset, length);
  }

  /** An application discards a part of a volume. */
  discard(volume: string, offset: number, length: number): void {
    this.#blocksOf(this.getRow(this.volumes, volume, "volume").uid).discard(offset, length);
  }

  /** What the next and all later probes of a location find; applied at once when the location is known. */
  probeFinds(location: string, probe: Probe): void {
    this.#probes.set(location, probe);
    this.#probed(location);
  }

  /** Sets fields of a running job, such as its barrier and progress, as this agent tells of it. */
  progressJob(name: string, fields: Partial<JobView>): void {
    const job = this.getRow(this.jobs, name, "job");
    Object.assign(job, { state: "Running", startedAt: job.startedAt ?? this.now() }, fields);
    this.touch("job", job);
  }

  /** The target has committed: bases move, old holds are dropped, wherever in the cluster a part of the job is. */
  succeedJob(name: string, fields: Partial<JobView> = {}): void {
    const { spec } = this.getRow(this.jobs, name, "job");
    for (const volume of volumesOf(spec)) {
      const { agent, row } = this.#ownerOf(volume);
      const snapshot = row.snapshots.find((candidate) => candidate.name === spec.snapshot);
      if (snapshot && !spec.dryRun) agent.#moveBase(row, spec.location, snapshot);
    }
    this.#endAll(name, "Succeeded", { barrier: "Released", ...fields });
  }

  failJob(name: string, error: LongshoreError): void {
    this.getRow(this.jobs, name, "job");
    this.#endAll(name, "Failed", { error: problemOf(error.code, error.message) });
  }

  #endAll(name: string, state: JobState, fields: Partial<JobView>): void {
    for (const agent of this.cluster) {
      const job = agent.jobs.get(name);
      if (job !== undefined) agent.#end(job, state, fields);
    }
  }

  /** The snapshot's file vanished behind our back. */
  loseSnapshot(volume: string, name: string): void {
    this.#setState(volume, name, "lost");
  }

  /** It was decided that a group's snapshot counts, and this agent has not heard of it. */
  unconfirmSnapshot(volume: string, name: string): void {
    this.#setState(volume, name, "creating");
  }

  #setState(volume: string, name: string, state: SnapshotView["state"]): void {
    const owner = this.getRow(this.volumes, volume, "volume");
    owner.snapshots = owner.snapshots.map((one) => (one.name === name ? { ...one, state } : one));
    this.touch("volume", owner);
  }

  // ---- inside ----

  protected newVolume(name: string, spec: VolumeSpec): VolumeView {
    return {
      name,
      uid: this.id(),
      sizeBytes: spec.sizeBytes,
      metadata: structuredClone(spec.metadata ?? {}),
      migrationEnabled: spec.migrationEnabled ?? false,
      affinity: spec.affinity || null,
      home: this.view.agentId,
      path: `/fake/${name}`,
      createdAt: this.now(),
      generation: 1,
      lineage: null,
      problem: null,
      snapshots: [],
      bases: [],
      revision: 0,
    };
  }

  /** By what it holds now or, of a snapshot, held then. */
  #blocksOf(key: string): FakeBlocks {
    const blocks = this.#blocks.get(key) ?? new FakeBlocks();
    this.#blocks.set(key, blocks);
    return blocks;
  }

  #cloneVolume(name: string, spec: VolumeSpec, from: NonNullable<VolumeSpec["from"]>): void {
    const source = this.getRow(this.volumes, from.volume, "volume");
    const snapshot = from.snapshot === undefined ? undefined : readable(source, from.snapshot);
    if (spec.sizeBytes < (snapshot ?? source).sizeBytes)
      throw new LongshoreError("ShrinkRefused", `volume ${name} would be smaller than what it is made of`);
    const made = { ...this.newVolume(name, spec), from: structuredClone(from) };
    this.#blocks.set(made.uid, this.#blocksOf(snapshot?.pointId ?? source.uid).copy());
    this.storeRow(this.volumes, "volume", made);
  }

  #changeVolume(present: Writable<VolumeView>, spec: VolumeSpec): void {
    if (spec.from !== undefined && !same(spec.from, present.from))
      throw new LongshoreError("NameTaken", `volume ${present.name} was not made of that`);
    if (spec.sizeBytes < present.sizeBytes)
      throw new LongshoreError("ShrinkRefused", `volume ${present.name} has ${present.sizeBytes} bytes`);
    const { sizeBytes, metadata = present.metadata, migrationEnabled = present.migrationEnabled } = spec;
    const affinity = spec.affinity === undefined ? present.affinity : spec.affinity || null;
    const before = [present.sizeBytes, present.metadata, present.migrationEnabled, present.affinity];
    if (same(before, [sizeBytes, metadata, migrationEnabled, affinity])) return;
    Object.assign(present, { sizeBytes, metadata: structuredClone(metadata), migrationEnabled, affinity });
    this.touch("volume", present);
  }

  #hold(volume: string, snapshot: string, hold: Omit<Hold, "since">): SnapshotView {
    const owner = this.getRow(this.volumes, volume, "volume");
    const present = owner.snapshots.find((candidate) => candidate.name === snapshot);
    if (present === undefined) throw new LongshoreError("NotFound", `no snapshot ${snapshot} of volume ${volume}`);
    if (present.state === "deleting") throw deleting(volume, snapshot);
    const held = present.holds.some((one) => one.reason === hold.reason && one.owner === hold.owner);
    if (held) return structuredClone(present);
    const changed = { ...present, holds: [...present.holds, { ...hold, since: this.now() }] };
    this.#setSnapshot(owner, changed);
    return structuredClone(changed);
  }

  #unhold(owner: Writable<VolumeView>, matches: (snapshot: string, hold: Hold) => boolean): void {
    for (const snapshot of owner.snapshots) {
      const holds = snapshot.holds.filter((hold) => !matches(snapshot.name, hold));
      if (holds.length < snapshot.holds.length) this.#setSnapshot(owner, { ...snapshot, holds });
    }
  }

  /** A released snapshot without holds goes at once. */
  #setSnapshot(owner: Writable<VolumeView>, changed: SnapshotView): void {
    const goes = changed.released && changed.holds.length === 0;
    owner.snapshots = goes
      ? owner.snapshots.filter((snapshot) => snapshot.name !== changed.name)
      : owner.snapshots.map((snapshot) => (snapshot.name === changed.name ? changed : snapshot));
    this.touch("volume", owner);
  }

  #moveBase(volume: Writable<VolumeView>, location: string, to: SnapshotView): void {
    this.#hold(volume.name, to.name, { reason: "base", owner: location });
    this.#unhold(volume, (name, hold) => hold.reason === "base" && hold.owner === location && name !== to.name);
    const { pointId, generation, createdAt: sourceTime } = to;
    const clusterUid = this.locations.get(location)?.clusterUid ?? "unknown";
    const base = { location, clusterUid, pointId, generation, sourceTime, movedAt: this.now() };
    volume.bases = [...volume.bases.filter((one) => one.location !== location), base];
    this.touch("volume", volume);
  }

  #dropBase(volume: Writable<VolumeView>, location: string): void {
    volume.bases = volume.bases.filter((base) => base.location !== location);
    this.#unhold(volume, (_, hold) => hold.reason === "base" && hold.owner === location);
  }

  #usersOf(location: string): string[] {
    const bases = [...this.volumes.values()].filter((one) => one.bases.some((base) => base.location === location));
    const jobs = [...this.jobs.values()].filter(
      (job) => job.spec.location === location && !finished.includes(job.state),
    );
    return [...bases.map((volume) => `volume ${volume.name}`), ...jobs.map((job) => `job ${job.name}`)];
  }

  #probed(name: string): void {
    const location = this.locations.get(name);
    if (location === undefined) return;
    const found = this.#probes.get(name) ?? { state: "reachable", message: "", roundTripMs: 1, freeBytes: 2 ** 30 };
    const clusterUid = location.spec.clusterUid ?? `uid-of-${location.spec.clusterName}`;
    const identity = found.state === "reachable" ? { clusterUid } : {};
    Object.assign(location, identity, { probedAt: this.now() }, found);
    this.touch("location", location);
  }

  /** Every agent with a part in it has a row of the job. */
  #startJob(name: string, spec: JobSpec): void {
    if (spec.group !== undefined && spec.dryRun === true)
      throw new LongshoreError("BadRequest", "a dry run is of one volume; ask for each volume of the group");
    const owned = volumesOf(spec).map((volume) => this.#ownerOf(volume));
    const agents = [...new Set(owned.map(({ agent }) => agent))];
    for (const agent of new Set([this, ...agents])) agent.getRow(agent.locations, spec.location, "location");
    const taken = owned.map(({ row }) => row.snapshots.find((snapshot) => snapshot.name === spec.snapshot));
    if (spec.group !== undefined) refuseLoose(spec, taken);
    const held = owned.map(({ agent, row }) => agent.#hold(row.name, spec.snapshot, { reason: "job", owner: name }));
    for (const agent of agents) {
      agent.storeRow(agent.jobs, "job", {
        ...pending(name, structuredClone(spec)),
        to: pointOf(spec, held),
        createdAt: this.now(),
      });
      agent.#steer(agent.getRow(agent.jobs, name, "job"));
    }
  }

  #changeJob(name: string, spec: JobSpec): void {
    const present = this.jobs.get(name);
    if (present === undefined || same(present.spec, spec)) return;
    present.spec = structuredClone(spec);
    this.touch("job", present);
    this.#steer(present);
  }

  #steer(job: Writable<JobView>): void {
    if (finished.includes(job.state)) return;
    if (job.spec.cancel) {
      this.#end(job, "Cancelled");
      return;
    }
    const state = job.spec.suspend ? "Suspended" : job.state === "Suspended" ? "Pending" : job.state;
    if (state === job.state) return;
    job.state = state;
    this.touch("job", job);
  }

  #end(job: Writable<JobView>, state: JobState, fields: Partial<JobView> = {}): void {
    if (finished.includes(job.state)) return;
    Object.assign(job, { state, finishedAt: this.now(), durationMs: 1 }, fields);
    for (const name of volumesOf(job.spec)) {
      const volume = this.volumes.get(name);
      if (volume) this.#unhold(volume, (_, hold) => hold.reason === "job" && hold.owner === job.name);
    }
    this.touch("job", job);
  }
}

/** A snapshot whose content may be read. */
function readable({ name: volume, snapshots }: VolumeView, name: string): SnapshotView {
  const found = snapshots.find((snapshot) => snapshot.name === name);
  if (found === undefined) throw new LongshoreError("NotFound", `no snapshot ${name} of volume ${volume}`);
  if (found.state === "creating") throw new LongshoreError("Conflict", `snapshot ${name} is being taken`);
  if (found.state === "sealed" && !found.released) return found;
  throw new LongshoreError("SnapshotGone", `snapshot ${name} of volume ${volume} is gone or going`);
}

function deleting(volume: string, snapshot: string): LongshoreError {
  return new LongshoreError("SnapshotDeleting", `snapshot ${snapshot} of volume ${volume} is being deleted`);
}

function refuseOther({ name, spec: present }: JobView, spec: JobSpec): void {
  const fixed = ({ suspend: _, cancel: __, dryRun = false, ...rest }: JobSpec) => ({ ...rest, dryRun });
  if (!same(fixed(present), fixed(spec))) throw new LongshoreError("NameTaken", `job ${name} exists with another spec`);
}

/** A group's job brings over what was taken together. */
function refuseLoose({ snapshot, group }: JobSpec, taken: readonly (SnapshotView | undefined)[]): void {
  if (taken.some((one) => one?.state !== "sealed" || one.groupPoint === undefined))
    throw new LongshoreError("NotFound", `a volume of group ${group?.name} has no group snapshot ${snapshot}`);
  if (new Set(taken.map((one) => one?.groupPoint)).size > 1)
    throw new LongshoreError("GroupInvalid", `snapshots ${snapshot} of group ${group?.name} were not taken together`);
}

/** Of a group, what stands for all of it: its point, the highest generation, all sizes together. */
function pointOf({ group }: JobSpec, held: readonly SnapshotView[]): PointRef {
  const [{ pointId, generation, createdAt: sourceTime, sizeBytes, groupPoint }] = held as [SnapshotView];
  if (group === undefined) return { pointId, generation, sourceTime, sizeBytes };
  return {
    pointId: groupPoint ?? pointId,
    generation: Math.max(...held.map((one) => one.generation)),
    sourceTime,
    sizeBytes: held.reduce((sum, one) => sum + one.sizeBytes, 0),
  };
}
