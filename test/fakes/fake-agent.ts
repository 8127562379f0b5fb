// A whole agent in memory: keeps the promises of AgentApi (idempotence, revisions, holds, the change stream), moves no
// bytes. Transfers and arrivals do not happen by themselves: a test makes them happen through the methods that are not
// of the API (probeFinds, progressJob, succeedJob, failJob, loseSnapshot; arrive, freeze, commit, abort).
import { LongshoreError } from "../../src/domain/errors.ts";
import type { AgentApi, Precondition } from "../../src/wire/agent-api.ts";
import type {
  AgentView,
  Change,
  CloneSpec,
  CloneView,
  GroupView,
  List,
  MigratedPoint,
  MigratedVolumeView,
  PointRef,
  SourceSpec,
  SourceView,
} from "../../src/wire/schemas.ts";
import { check, emptyMigrated, same, type Writable, waiting } from "./fake-rows.ts";
import { FakeSourceSide } from "./fake-source-side.ts";
import type { FakeAgentOptions } from "./fake-store.ts";

export class FakeAgent extends FakeSourceSide implements AgentApi {
  readonly sources = new Map<string, Writable<SourceView>>();
  readonly migratedVolumes = new Map<string, Writable<MigratedVolumeView>>();
  readonly clones = new Map<string, Writable<CloneView>>();
  /** By source cluster and name. */
  readonly groups = new Map<string, Writable<GroupView>>();
  /** Clones that stay until they are deleted: somebody was told that they are ready, or asked for them to stay. */
  readonly #kept = new Set<string>();

  constructor(options: FakeAgentOptions = {}) {
    super(options);
  }

  async describe(): Promise<AgentView> {
    return structuredClone(this.view);
  }

  async forgetMember(agentId: string): Promise<void> {
    const member = this.view.members.find((one) => one.agentId === agentId);
    if (member === undefined) throw new LongshoreError("NotFound", `agent ${agentId} is not known here`);
    if (member.state !== "lost" && member.state !== "unreachable")
      throw new LongshoreError("InUse", `agent ${agentId} answers; stop it first`);
    this.view.members.splice(this.view.members.indexOf(member), 1);
  }

  // ---- consent, migrated volumes, groups, clones ----

  async listSources(): Promise<List<SourceView>> {
    return this.listOf(this.sources);
  }

  async getSource(name: string): Promise<SourceView> {
    return structuredClone(this.getRow(this.sources, name, "source"));
  }

  async putSource(name: string, spec: SourceSpec, precondition?: Precondition): Promise<SourceView> {
    const present = this.sources.get(name);
    check(present, precondition, `source ${name}`);
    if (present && same(present.spec, spec)) return structuredClone(present);
    const known = {
      name,
      clusterUid: spec.clusterUid ?? null,
      volumes: 0,
      usedBytes: 0,
      lastSeenAt: null,
      revision: 0,
    };
    this.storeRow(this.sources, "source", { ...known, ...present, spec: structuredClone(spec) });
    return this.getSource(name);
  }

  async removeSource(name: string, precondition?: Precondition): Promise<void> {
    const present = this.sources.get(name);
    if (present === undefined) return;
    check(present, precondition, `source ${name}`);
    this.dropRow(this.sources, "source", name);
  }

  async listMigratedVolumes(): Promise<List<MigratedVolumeView>> {
    return this.listOf(this.migratedVolumes);
  }

  async getMigratedVolume(name: string): Promise<MigratedVolumeView> {
    return structuredClone(this.getRow(this.migratedVolumes, name, "migrated volume"));
  }

  async removeMigratedVolume(name: string, precondition?: Precondition): Promise<void> {
    const present = this.migratedVolumes.get(name);
    if (present === undefined) return;
    check(present, precondition, `migrated volume ${name}`);
    if (present.state === "Frozen") throw new LongshoreError("Frozen", `migrated volume ${name} is being written`);
    this.dropRow(this.migratedVolumes, "migratedVolume", name);
  }

  async listGroups(): Promise<List<GroupView>> {
    return this.listOf(this.groups);
  }

  async getGroup(name: string, options: { clusterUid?: string | undefined } = {}): Promise<GroupView> {
    const { clusterUid } = options;
    const named = [...this.groups.values()].filter((group) => group.name === name);
    const found = named.filter((group) => clusterUid === undefined || group.sourceClusterUid === clusterUid);
    if (found.length > 1) throw new LongshoreError("BadRequest", `group ${name} is of several clusters: say which`);
    if (found[0] === undefined) throw new LongshoreError("NotFound", `no group ${name}`);
    return structuredClone(found[0]);
  }

  async listClones(): Promise<List<CloneView>> {
    return this.listOf(this.clones);
  }

  async getClone(name: string): Promise<CloneView> {
    return structuredClone(this.getRow(this.clones, name, "clone"));
  }

  async putClone(name: string, spec: CloneSpec): Promise<CloneView> {
    const present = this.clones.get(name);
    if (present) {
      const asked = ({ expires: _, ...rest }: CloneSpec) => rest;
      if (!same(asked(present.spec), asked(spec)))
        throw new LongshoreError("NameTaken", `clone ${name} exists with another spec`);
      return this.#answered(present, spec);
    }
    const from = this.getRow(this.migratedVolumes, spec.migratedVolume, "migrated volume");
    if (this.volumes.has(name)) throw new LongshoreError("NameTaken", `a volume ${name} exists already`);
    const point = pointOf(from, spec);
    if (point && spec.sizeBytes !== undefined && spec.sizeBytes < point.sizeBytes)
      throw new LongshoreError("ShrinkRefused", `clone ${name} would be smaller than its point`);
    this.storeRow(this.clones, "clone", { ...waiting(name, spec), requestedAt: this.now() });
    if (point && mayServe(from, point)) this.#serve(name, from, point);
    else this.#countWaiting(from);
    return this.#answered(this.getRow(this.clones, name, "clone"), spec);
  }

  async removeClone(name: string): Promise<void> {
    const present = this.clones.get(name);
    if (present === undefined) return;
    if (present.volume !== null) await this.removeVolume(present.volume);
    this.dropRow(this.clones, "clone", name);
    this.#kept.delete(name);
    const from = this.migratedVolumes.get(present.spec.migratedVolume);
    if (from && present.state === "Waiting") this.#countWaiting(from);
  }

  changes(since: number, signal: AbortSignal): AsyncIterable<Change> {
    return this.feed.follow(since, signal);
  }

  // ---- what a test makes happen: the target side ----

  /** A volume of a consented source arrives; it has no point yet. */
  arrive(name: string, fields: Partial<MigratedVolumeView> & { source: string }): MigratedVolumeView {
    this.storeRow(this.migratedVolumes, "migratedVolume", {
      ...emptyMigrated(name, this.view.agentId),
      ...fields,
      revision: 0,
    });
    return structuredClone(this.getRow(this.migratedVolumes, name, "migrated volume"));
  }

  /** A transfer begins: the newest point is closed for new clones. */
  freeze(name: string, transfer: Partial<NonNullable<MigratedVolumeView["transfer"]>> = {}): void {
    const volume = this.getRow(this.migratedVolumes, name, "migrated volume");
    volume.state = "Frozen";
    const to = this.#pointRef(volume);
    const fresh = { job: "job-1", epoch: 1, since: this.now(), to, bytesTotal: 0, bytesStored: 0 };
    volume.transfer = { ...fresh, ...transfer };
    this.touch("migratedVolume", volume);
  }

  /** The transfer commits: its point is the newest now, and waiting clones are served. */
  commit(name: string, fields: Partial<MigratedPoint> = {}): MigratedPoint {
    const volume = this.getRow(this.migratedVolumes, name, "migrated volume");
    const to = volume.transfer?.to ?? this.#pointRef(volume);
    const verified = { state: "sealed", verified: "memory" } as const;
    const point: MigratedPoint = { ...to, ...verified, committedAt: this.now(), holds: [], ...fields };
    volume.points = [...volume.points, point];
    this.#thaw(volume);
    return structuredClone(point);
  }

  /** The transfer is aborted: back to the previous point. */
  abort(name: string): void {
    this.#thaw(this.getRow(this.migratedVolumes, name, "migrated volume"));
  }

  /** So much time passes that clones which expire are removed, but for those that somebody asked for or uses. */
  async outwaitClones(): Promise<void> {
    for (const { name, spec, state, volume } of [...this.clones.values()]) {
      if (spec.expires !== true || state !== "Ready" || this.#kept.has(name)) continue;
      const row = this.volumes.get(volume ?? "");
      const isMarked = row !== undefined && (row.migrationEnabled || row.snapshots.length > 0);
      const isUsed = isMarked || this.attached.has(volume ?? "");
      if (isUsed) this.#kept.add(name);
      else await this.removeClone(name);
    }
  }

  // ---- inside ----

  #answered(clone: CloneView, spec: CloneSpec): CloneView {
    if (clone.state === "Ready" || spec.expires !== true) this.#kept.add(clone.name);
    return structuredClone(clone);
  }

  #pointRef(volume: MigratedVolumeView): PointRef {
    const generation = (volume.points.at(-1)?.generation ?? 0) + 1;
    return { pointId: this.id(), generation, sourceTime: this.now(), sizeBytes: volume.sizeBytes };
  }

  #thaw(volume: Writable<MigratedVolumeView>): void {
    volume.transfer = null;
    volume.state = volume.points.length === 0 ? "Empty" : "Available";
    for (const clone of this.clones.values()) {
      if (clone.spec.migratedVolume !== volume.name || clone.state !== "Waiting") continue;
      const point = pointOf(volume, clone.spec);
      if (point) this.#serve(clone.name, volume, point);
    }
    this.#countWaiting(volume);
  }

  #serve(name: string, from: MigratedVolumeView, point: MigratedPoint): void {
    const clone = this.getRow(this.clones, name, "clone");
    const { sizeBytes = point.sizeBytes, metadata = from.metadata } = clone.spec;
    const lineage = { clusterUid: from.sourceClusterUid, volumeUid: from.sourceVolumeUid, pointId: point.pointId };
    const volume = { ...this.newVolume(name, { sizeBytes, metadata }), lineage };
    this.storeRow(this.volumes, "volume", volume);
    const { pointId, sourceTime } = point;
    const served = { volume: name, path: volume.path, sizeBytes, servedAt: this.now() };
    Object.assign(clone, { state: "Ready", pointId, sourceTime, ...served });
    this.touch("clone", clone);
  }

  #countWaiting(volume: Writable<MigratedVolumeView>): void {
    const waitingHere = [...this.clones.values()].filter(
      (clone) => clone.spec.migratedVolume === volume.name && clone.state === "Waiting",
    );
    volume.waitingClones = waitingHere.length;
    this.touch("migratedVolume", volume);
  }
}

/** The point a clone asks for, `undefined` while there is none to be had. */
function pointOf(from: MigratedVolumeView, spec: CloneSpec): MigratedPoint | undefined {
  if (spec.point === "latest") return from.points.at(-1);
  const found = from.points.find(({ pointId, groupPoint }) => pointId === spec.point || groupPoint === spec.point);
  if (found === undefined) throw new LongshoreError("PointGone", `no point ${spec.point} of ${from.name}`);
  return found;
}

/** The newest point is closed while frozen; older ones may be cloned at any time. */
function mayServe(from: MigratedVolumeView, point: MigratedPoint): boolean {
  return from.state !== "Frozen" || point.pointId !== from.points.at(-1)?.pointId;
}
