// The agent as its own cluster's operator and CSI driver see it. Three things implement it: the engine itself, the HTTP
// client, and the in-memory fake of the tests. Puts are idempotent under the client's names; lists are whole.

import type {
  AgentView,
  Change,
  CloneSpec,
  CloneView,
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

/** Removing what is gone already succeeds. Getting what does not exist throws `NotFound`. */
export interface AgentApi {
  describe(): Promise<AgentView>;
  /**
   * Says that an agent of this cluster, and what it had, will not come back: new copies may be placed without it, and groups it
   * decided for are decided by their members. For good. Throws `InUse` for one that answers.
   */
  forgetMember(agentId: string): Promise<void>;

  listVolumes(): Promise<List<VolumeView>>;
  getVolume(name: string): Promise<VolumeView>;
  /** Makes or grows a volume, and sets metadata and `migrationEnabled` (each left as it is when absent). */
  putVolume(name: string, spec: VolumeSpec, precondition?: Precondition): Promise<VolumeView>;
  /** Throws `InUse` while a job of the volume runs; drops its holds and snapshots otherwise. */
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
  /** Asks for a clone, or asks again: the same name gives the same clone, even if `latest` moved meanwhile. */
  putClone(name: string, spec: CloneSpec): Promise<CloneView>;
  /** Deletes the clone and its volume, or withdraws a waiting request. */
  removeClone(name: string): Promise<void>;

  /** Changes after `since`, as they happen; starts with `resync` when they are no longer known. Ends with the signal. */
  changes(since: number, signal: AbortSignal): AsyncIterable<Change>;
}
