// The controller's calls about snapshots. Those that schedules take, and the points of migrated volumes, are listed like any other, so
// that a volume can be made of them; deleted they are by the operator only, whatever a user does with the objects that show them.
import { isVolumeHandle, parseSnapshotHandle, type SnapshotHandle } from "../domain/handles.ts";
import type { MergedList } from "../wire/cluster-agents.ts";
import type { ClusterApi } from "../wire/cluster-client.ts";
import type { SnapshotView, VolumeView } from "../wire/schemas.ts";
import { agentNameOf, isOperators } from "./agent-names.ts";
import type {
  CreateSnapshotRequest,
  CreateSnapshotResponse,
  DeleteSnapshotRequest,
  DeleteSnapshotResponse,
  ListSnapshotsRequest,
  ListSnapshotsResponse,
  Snapshot,
} from "./csi-messages.ts";
import { pageOf } from "./listing.ts";
import type { OneOperation } from "./one-operation.ts";
import { checkSnapshotParameters } from "./parameters.ts";
import { isOfCsiGroup, pointMessageOf, pointMessages, snapshotMessage, snapshotsOf } from "./snapshot-messages.ts";
import { CsiError } from "./status.ts";
import { callRoll, orNothing, requireAll } from "./storage-cluster.ts";

export interface SnapshotParts {
  readonly cluster: ClusterApi;
  readonly oneOperation: OneOperation;
  readonly listVolumes: () => Promise<MergedList<VolumeView>>;
}

export function snapshotCalls({ cluster, oneOperation, listVolumes }: SnapshotParts) {
  return {
    async CreateSnapshot(request: CreateSnapshotRequest, signal: AbortSignal): Promise<CreateSnapshotResponse> {
      const { name, sourceVolumeId, parameters } = request;
      if (name === "") throw invalid("name is missing");
      if (sourceVolumeId === "") throw invalid("source_volume_id is missing");
      checkSnapshotParameters(parameters);
      const snapshot = agentNameOf(name);
      const view = await oneOperation.run(`snapshot ${snapshot}`, async () => {
        const volume = await volumeOf(cluster, sourceVolumeId);
        if (volume === undefined) throw new CsiError("NOT_FOUND", `volume ${sourceVolumeId} does not exist`);
        await requireOwnName(volume, snapshot, listVolumes);
        signal.throwIfAborted();
        return cluster.putSnapshot(volume.name, snapshot);
      });
      return { snapshot: snapshotMessage(view) };
    },

    async DeleteSnapshot({ snapshotId }: DeleteSnapshotRequest): Promise<DeleteSnapshotResponse> {
      if (snapshotId === "") throw invalid("snapshot_id is missing");
      const handle = parseSnapshotHandle(snapshotId);
      // No snapshot ever had such a handle, so what is to be deleted is gone.
      if (handle === undefined) return {};
      await oneOperation.run(`snapshot ${snapshotId}`, () => deleteSnapshot(cluster, handle, snapshotId));
      return {};
    },

    async ListSnapshots(request: ListSnapshotsRequest): Promise<ListSnapshotsResponse> {
      // What is wrong with the request is told before anybody is asked.
      pageOf([], request, String);
      const { entries, nextToken } = pageOf(await listed(request), request, ({ snapshotId }) => snapshotId);
      return { entries: entries.map((snapshot) => ({ snapshot })), nextToken };
    },
  };

  async function listed({ snapshotId, sourceVolumeId }: ListSnapshotsRequest): Promise<Snapshot[]> {
    if (snapshotId !== "") {
      const found = await lookUp(cluster, snapshotId);
      return found === undefined || (sourceVolumeId !== "" && found.sourceVolumeId !== sourceVolumeId) ? [] : [found];
    }
    if (sourceVolumeId !== "") return ofOneSource(cluster, sourceVolumeId);
    const [volumes, migrated] = await Promise.all([listVolumes(), cluster.listMigratedVolumes()]);
    const roll = await callRoll(cluster);
    for (const list of [volumes, migrated]) requireAll(roll, list);
    return [
      ...volumes.items.flatMap((volume) => snapshotsOf(volume).map(snapshotMessage)),
      ...migrated.items.flatMap(pointMessages),
    ];
  }
}

/** Throws ALREADY_EXISTS when the name stands for a snapshot of another volume, or of several at once. */
async function requireOwnName(
  volume: VolumeView,
  snapshot: string,
  listVolumes: SnapshotParts["listVolumes"],
): Promise<void> {
  const isNamed = ({ name, released }: SnapshotView) => name === snapshot && !released;
  const own = volume.snapshots.find(isNamed);
  if (own !== undefined && !isOfCsiGroup(own)) return;
  if (own !== undefined) throw taken(`${snapshot} of volume ${volume.name}, taken together with others,`);
  const other = (await listVolumes()).items.find((one) => one.name !== volume.name && one.snapshots.some(isNamed));
  if (other !== undefined) throw taken(`${snapshot} of another volume, ${other.name},`);
}

async function deleteSnapshot(cluster: ClusterApi, handle: SnapshotHandle, snapshotId: string): Promise<void> {
  if (handle.kind === "point") {
    if ((await lookUp(cluster, snapshotId)) === undefined) return;
    throw refused(`${snapshotId} is a point of a migrated volume, which goes with its MigratedVolume`);
  }
  const { volume, snapshot } = handle;
  const view = (await volumeOf(cluster, volume))?.snapshots.find(({ name }) => name === snapshot);
  if (view === undefined || view.released) return;
  if (isOperators(snapshot)) throw refused(`${snapshotId} is a schedule's or a job's, and goes with their retention`);
  if (isOfCsiGroup(view)) throw invalid(`${snapshotId} is a part of a group snapshot; delete the VolumeGroupSnapshot`);
  await cluster.removeSnapshot(volume, snapshot);
}

/** The one snapshot or point of this handle, if it is there. */
async function lookUp(cluster: ClusterApi, snapshotId: string): Promise<Snapshot | undefined> {
  const handle = parseSnapshotHandle(snapshotId);
  if (handle === undefined) return undefined;
  if (handle.kind === "point") {
    const migrated = await orNothing(cluster.getMigratedVolume(handle.migratedVolume));
    return migrated && pointMessageOf(handle, migrated);
  }
  const volume = await volumeOf(cluster, handle.volume);
  const view = volume && snapshotsOf(volume).find(({ name }) => name === handle.snapshot);
  return view && snapshotMessage(view);
}

async function ofOneSource(cluster: ClusterApi, source: string): Promise<Snapshot[]> {
  if (!isVolumeHandle(source)) return [];
  const volume = await orNothing(cluster.getVolume(source));
  if (volume !== undefined) return snapshotsOf(volume).map(snapshotMessage);
  const migrated = await orNothing(cluster.getMigratedVolume(source));
  return migrated === undefined ? [] : pointMessages(migrated);
}

async function volumeOf(cluster: ClusterApi, volumeId: string): Promise<VolumeView | undefined> {
  return isVolumeHandle(volumeId) ? orNothing(cluster.getVolume(volumeId)) : undefined;
}

function taken(which: string): CsiError {
  return new CsiError("ALREADY_EXISTS", `snapshot ${which} exists already`);
}

function refused(why: string): CsiError {
  return new CsiError(
    "FAILED_PRECONDITION",
    `${why}; to delete only the object in Kubernetes, set its deletionPolicy to Retain`,
  );
}

function invalid(message: string): CsiError {
  return new CsiError("INVALID_ARGUMENT", message);
}
