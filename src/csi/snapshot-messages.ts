// Snapshots of this cluster's volumes, and points of migrated ones, as Kubernetes sees them.
import { type PointHandle, renderGroupSnapshotHandle, renderSnapshotHandle } from "../domain/handles.ts";
import { isCloneSnapshot } from "../domain/names.ts";
import type { MigratedPoint, MigratedVolumeView, SnapshotView, VolumeView } from "../wire/schemas.ts";
import type { Snapshot, Timestamp } from "./csi-messages.ts";

/** The agents' name for the groups of volumes that Kubernetes has snapshotted together; the operator's groups have a dot. */
export const csiGroup = "csi";

/** Whether it was taken of several volumes at once for a VolumeGroupSnapshot, and goes with that only. */
export function isOfCsiGroup({ group }: SnapshotView): boolean {
  return group === csiGroup;
}

export function snapshotMessage(view: SnapshotView): Snapshot {
  return {
    sizeBytes: view.sizeBytes,
    snapshotId: renderSnapshotHandle({ kind: "snapshot", volume: view.volume, snapshot: view.name }),
    sourceVolumeId: view.volume,
    creationTime: timestampOf(view.createdAt),
    // One whose file is lost is shown, so that it can be deleted.
    readyToUse: view.state === "sealed",
    groupSnapshotId: isOfCsiGroup(view) ? renderGroupSnapshotHandle({ group: csiGroup, name: view.name }) : "",
  };
}

/** What can be made a volume of, or deleted: not what is being taken, on its way out, or an agent's own while it clones a volume. */
export function snapshotsOf({ snapshots }: VolumeView): SnapshotView[] {
  const isSettled = ({ state }: SnapshotView) => state === "sealed" || state === "lost";
  return snapshots.filter((snapshot) => isSettled(snapshot) && !snapshot.released && !isCloneSnapshot(snapshot.name));
}

/** All points of a migrated volume, and the newest under its floating handle, which is ready even while a transfer runs: clones wait. */
export function pointMessages(migrated: MigratedVolumeView): Snapshot[] {
  const points = sealedPoints(migrated);
  const newest = points.at(-1);
  if (newest === undefined) return [];
  const message = (meant: MigratedPoint, point: PointHandle["point"]) =>
    pointMessage(migrated, meant, { kind: "point", migratedVolume: migrated.name, point });
  return [message(newest, "latest"), ...points.map((point) => message(point, point.pointId))];
}

/** What a handle of a migrated volume's point stands for now; nothing when there is no such point. */
export function pointMessageOf(handle: PointHandle, migrated: MigratedVolumeView): Snapshot | undefined {
  const points = sealedPoints(migrated);
  const isMeant = ({ pointId, groupPoint }: MigratedPoint) => pointId === handle.point || groupPoint === handle.point;
  const point = handle.point === "latest" ? points.at(-1) : points.find(isMeant);
  return point && pointMessage(migrated, point, handle);
}

export function timestampOf(time: string): Timestamp {
  const ms = Date.parse(time);
  const seconds = Math.floor(ms / 1000);
  return { seconds, nanos: (ms - seconds * 1000) * 1_000_000 };
}

function sealedPoints({ points }: MigratedVolumeView): MigratedPoint[] {
  return points.filter(({ state }) => state === "sealed");
}

function pointMessage(migrated: MigratedVolumeView, point: MigratedPoint, handle: PointHandle): Snapshot {
  return {
    sizeBytes: point.sizeBytes,
    snapshotId: renderSnapshotHandle(handle),
    // The volume itself is in another cluster; here its copy stands for it.
    sourceVolumeId: migrated.name,
    creationTime: timestampOf(point.sourceTime),
    readyToUse: true,
    groupSnapshotId: "",
  };
}
