// The handles by which Kubernetes knows volumes and snapshots of the CSI driver. They are kept in PersistentVolumes and
// VolumeSnapshotContents for ever, so their forms never change. A volume's handle is its name at the agents.

/** What a snapshot handle stands for. */
export type SnapshotHandle =
  /** A snapshot of a volume of this cluster: `VOLUME/SNAPSHOT`. */
  { readonly kind: "snapshot"; readonly volume: string; readonly snapshot: string } | PointHandle;

/**
 * A point of a migrated volume: the newest one of the moment (`MIGRATED@latest`), or a pinned one by its id or its group point's
 * (`MIGRATED@POINT`).
 */
export interface PointHandle {
  readonly kind: "point";
  readonly migratedVolume: string;
  readonly point: "latest" | (string & {});
}

const name = "[a-z0-9](?:[a-z0-9.-]{0,118}[a-z0-9])?";
const snapshotForm = new RegExp(`^(${name})/(${name})$`);
const pointForm = new RegExp(`^(${name})@(latest|[0-9a-f]{32})$`);
const groupForm = new RegExp(`^(${name})//(${name})$`);
const volumeForm = new RegExp(`^${name}$`);

/** `undefined` for what no handle of ours looks like. */
export function parseSnapshotHandle(text: string): SnapshotHandle | undefined {
  const [, volume, snapshot] = snapshotForm.exec(text) ?? [];
  if (volume !== undefined && snapshot !== undefined) return { kind: "snapshot", volume, snapshot };
  const [, migratedVolume, point] = pointForm.exec(text) ?? [];
  return migratedVolume === undefined || point === undefined ? undefined : { kind: "point", migratedVolume, point };
}

export function renderSnapshotHandle(handle: SnapshotHandle): string {
  return handle.kind === "snapshot"
    ? `${handle.volume}/${handle.snapshot}`
    : `${handle.migratedVolume}@${handle.point}`;
}

/** A group snapshot of volumes of this cluster: `GROUP//NAME`. */
export interface GroupSnapshotHandle {
  readonly group: string;
  readonly name: string;
}

export function parseGroupSnapshotHandle(text: string): GroupSnapshotHandle | undefined {
  const [, group, snapshot] = groupForm.exec(text) ?? [];
  return group === undefined || snapshot === undefined ? undefined : { group, name: snapshot };
}

export function renderGroupSnapshotHandle({ group, name: snapshot }: GroupSnapshotHandle): string {
  return `${group}//${snapshot}`;
}

/** Whether a volume of an agent may have this handle. */
export function isVolumeHandle(text: string): boolean {
  return volumeForm.test(text);
}
