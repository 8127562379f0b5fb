// The agent as its own cluster's operator and CSI driver see it. Three things implement it: the engine itself, the HTTP
// client, and the in-memory fake of the tests. Puts are idempotent under the client's names; lists are whole.

import type {
  AgentView,
  Change,
  CloneSpec,
  CloneView,
  ExtentPage,
  GroupSnapshotSpec,
  GroupSnapshotView,
  GroupView,
  JobSpec,
  JobView,
  List,
  LocationSpec,
  LocationView,
  MigratedVolumeView,
  SnapshotView,
  SourceSpec,
  SourceView,
  VolumeSpec,
  VolumeView,
} from "./schemas.ts";

/** `ifMatch`: the revision the caller decided on; a differing one throws `PreconditionFailed` and changes nothing. */
export interface Precondition {
  readonly ifMatch?: number | undefined;
}

/** Which part of a snapshot's extents is asked for. */
export interface ExtentQuery {
  /** An older sealed snapshot of the same volume. */
  readonly base?: string | undefined;
  /** The byte to begin at; an extent that reaches over it is cut there. */
  readonly from?: number | undefined;
  /** How many at most, up to 4,096, which is what is given unless said. */
  readonly max?: number | undefined;
}

/** Removing what is gone already succeeds. Getting what does not exist throws `NotFound`. */
export interface AgentApi {
  /** Throws `Unreachable` where this agent was forgotten: who there is, another one knows. */
  describe(): Promise<AgentView>;
  /**
   * Says that an agent of this cluster, and what it had, will not come back: new copies may be placed without it, and groups it
   * decided for are decided by their members. For good. Throws `InUse` for one that answers, and `Forbidden` where this agent was
   * forgotten itself.
   */
  forgetMember(agentId: string): Promise<void>;

  listVolumes(): Promise<List<VolumeView>>;
  getVolume(name: string): Promise<VolumeView>;
  /**
   * Makes or grows a volume, and sets metadata, `migrationEnabled` and `affinity` (each left as it is when absent). A new one throws
   * `Conflict` when another agent of the cluster has the name, and `Unreachable` when one that is away may have it. With `from` it
   * is made as a clone of what this very agent has, of at least that size (`ShrinkRefused`): of a snapshot, which is held meanwhile
   * (`NotFound`, `SnapshotGone`), or of what the volume holds now. The same again is the same volume, also when what it was made of
   * is gone; `NameTaken` for one that was made of something else. A clone that fails half-way leaves nothing.
   */
  putVolume(name: string, spec: VolumeSpec, precondition?: Precondition): Promise<VolumeView>;
  /**
   * Throws `InUse` while its image is attached on its node (the message names the device), a job of the volume runs, a user holds
   * one of its snapshots, or one of them is being cloned; drops its holds and snapshots otherwise.
   */
  removeVolume(name: string, precondition?: Precondition): Promise<void>;

  /** Takes a snapshot; the same name again returns the same snapshot. Resolves when it is sealed. */
  putSnapshot(volume: string, name: string): Promise<SnapshotView>;
  /**
   * Snapshots volumes of this cluster at one moment, wherever in it they are: all frozen, all snapshotted, all thawed. They
   * share a group point and count only together. The same name again is the same group snapshot. `GroupInvalid` when they
   * were not all frozen at one moment.
   */
  putGroupSnapshot(group: string, name: string, spec: GroupSnapshotSpec): Promise<GroupSnapshotView>;
  /** Releases a snapshot: its file goes now, or when its last hold is dropped. Returns what is still there, if anything. */
  removeSnapshot(volume: string, name: string): Promise<SnapshotView | undefined>;
  /**
   * What is allocated in a sealed snapshot or, with `base`, a superset of what differs from that older one: blocks with other
   * content, and blocks that have become holes. As a rule it is just these; where the file system cannot tell soundly what
   * changed, it is everything that either of the two has allocated. `BadRequest` for a base that is not older, `NotFound`, and
   * `SnapshotGone` for one that is being deleted or whose file is gone.
   */
  listExtents(volume: string, snapshot: string, query: ExtentQuery): Promise<ExtentPage>;
  /** A hold of reason `user`. Throws `SnapshotDeleting` for one on its way out. */
  putHold(volume: string, snapshot: string, owner: string): Promise<SnapshotView>;
  /** Drops a `user` hold, or, knowingly, the `base` hold of a location that will not come back. */
  removeHold(volume: string, snapshot: string, hold: { reason: "user" | "base"; owner: string }): Promise<void>;

  listLocations(): Promise<List<LocationView>>;
  getLocation(name: string): Promise<LocationView>;
  /** Sets a location and probes it at once in the background. */
  putLocation(name: string, spec: LocationSpec, precondition?: Precondition): Promise<LocationView>;
  /** Throws `InUse` while volumes have a base or job there, unless `force`: then their base holds are dropped. */
  removeLocation(name: string, options?: Precondition & { force?: boolean | undefined }): Promise<void>;

  listJobs(): Promise<List<JobView>>;
  getJob(name: string): Promise<JobView>;
  /** Starts a job; afterwards only `suspend` and `cancel` may differ (`NameTaken` otherwise). */
  putJob(name: string, spec: JobSpec, precondition?: Precondition): Promise<JobView>;
  /** Forgets a finished job; `InUse` for one that is not finished. */
  removeJob(name: string): Promise<void>;
  /** The job now, and again at every change, until it has finished. */
  followJob(name: string, signal: AbortSignal): AsyncIterable<JobView>;

  listSources(): Promise<List<SourceView>>;
  getSource(name: string): Promise<SourceView>;
  putSource(name: string, spec: SourceSpec, precondition?: Precondition): Promise<SourceView>;
  /** Withdraws consent; what has arrived stays. */
  removeSource(name: string, precondition?: Precondition): Promise<void>;

  listMigratedVolumes(): Promise<List<MigratedVolumeView>>;
  getMigratedVolume(name: string): Promise<MigratedVolumeView>;
  /** Deletes the copy and its points; clones live on. Throws `Frozen` while a transfer runs. */
  removeMigratedVolume(name: string, precondition?: Precondition): Promise<void>;

  /** The groups whose home this very agent is. */
  listGroups(): Promise<List<GroupView>>;
  /** `clusterUid` tells groups of one name of several source clusters apart; `BadRequest` when it is needed. */
  getGroup(name: string, options?: { clusterUid?: string | undefined }): Promise<GroupView>;

  listClones(): Promise<List<CloneView>>;
  getClone(name: string): Promise<CloneView>;
  /**
   * Asks for a clone, or asks again: the same name gives the same clone, even if `latest` moved meanwhile. One that `expires` goes
   * with its volume when, for as long as a request waits (`cloneWait`) after it was served, nobody was told so by asking, and nobody
   * has used it. Who is told that it is ready, or asks without `expires`, keeps it.
   */
  putClone(name: string, spec: CloneSpec): Promise<CloneView>;
  /** Deletes the clone and its volume, or withdraws a waiting request. */
  removeClone(name: string): Promise<void>;

  /** Changes after `since`, as they happen; starts with `resync` when they are no longer known. Ends with the signal. */
  changes(since: number, signal: AbortSignal): AsyncIterable<Change>;
}
