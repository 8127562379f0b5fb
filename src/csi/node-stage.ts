// A volume comes to its node, and leaves it: attached, with a file system, mounted at the kubelet's staging path. Each step is noted
// before it is taken and looks at what is there, so that a call goes on wherever another one was interrupted; see docs/csi-node.md.
import { metadataKey } from "../api/names.ts";
import { codeOf, describe } from "../domain/errors.ts";
import { isVolumeHandle } from "../domain/handles.ts";
import { type FileSystemType, isFileSystemType, type MountHow } from "../host/file-systems.ts";
import type { Host } from "../host/host.ts";
import type { Device, ImageIdentity } from "../host/loop-devices.ts";
import type { Mounted } from "../host/mounts.ts";
import type { VolumeNote } from "../host/volume-notes.ts";
import type { VolumeView } from "../wire/schemas.ts";
import { planFileSystem } from "./node-file-system.ts";
import { checkMounted, type NodeParts } from "./node-parts.ts";
import type { Wanted, WantedFileSystem } from "./node-requests.ts";
import { CsiError } from "./status.ts";

export interface StageRequest {
  readonly volume: string;
  readonly path: string;
  readonly wanted: Wanted;
}

/** Staged already in the same way is success. */
export async function stage(parts: NodeParts, request: StageRequest): Promise<void> {
  const { host, agent } = parts;
  const { volume, wanted } = request;
  const view = await agent.getVolume(volume);
  requireMode(view, wanted);
  const image = await host.identify(view.path);
  const present = await presentAt(host, request, image);
  const note = await ensureNote(host, volume, { uid: view.uid, image });
  // The log of a file system that was not unmounted is replayed also when it is mounted for reading only, and that takes writing.
  const device = await host.attach(image.path, { isReadOnly: wanted.kind === "block" && wanted.isReadOnly });
  try {
    await bring(parts, request, { view, note, device, present });
  } catch (error) {
    if (present === undefined) await takeBack(host, request, { device, error });
    throw error;
  }
}

interface Attached {
  readonly view: VolumeView;
  readonly note: VolumeNote;
  readonly device: Device;
  /** The type of its file system that is mounted at the staging path already. */
  readonly present: FileSystemType | undefined;
}

async function bring(
  parts: NodeParts,
  { volume, path, wanted }: StageRequest,
  { view, note, device, present }: Attached,
): Promise<void> {
  const { host } = parts;
  const isUsed = wanted.kind === "block" || present !== undefined;
  // From here on what is on the device is its user's, whatever was begun before.
  if (isUsed && note.formatting !== null) await host.writeNote(volume, { ...note, formatting: null });
  if (wanted.kind === "block") return;
  const type = present ?? (await prepare(host, { view, note, device, wanted }));
  const how: MountHow = { type, flags: wanted.flags, isReadOnly: wanted.isReadOnly };
  if (present === undefined) await host.mount(device, path, how);
  if (!wanted.isReadOnly) await grow(parts, { volume, device, path, how });
}

/**
 * A kubelet that is told of a failure for good never unstages the volume, and what is attached cannot be deleted. ABORTED it does not take
 * for the end.
 */
async function takeBack(
  host: Host,
  { volume, path }: StageRequest,
  { device, error: cause }: { device: Device; error: unknown },
): Promise<void> {
  try {
    await host.unmount(path);
    // Pods use it, which a kubelet that was started anew has found.
    if ((await host.mountsOf(device)).length > 0) return;
    await host.detach(device);
    await forget(host, volume);
  } catch (error) {
    const text = `volume ${volume} could not be staged, and what was begun is still there: ${describe(error)}`;
    throw new CsiError("ABORTED", text, { cause });
  }
}

/**
 * What a pod has written raw may look blank, and would be formatted; what it writes raw below a mounted file system ruins that. So a
 * PersistentVolume that was made by hand for a volume of the other mode is refused.
 */
function requireMode({ name, metadata }: VolumeView, { kind }: Wanted): void {
  const asked = kind === "block" ? "Block" : "Filesystem";
  const { [metadataKey.volumeMode]: mode = asked } = metadata;
  if (mode === asked) return;
  const text = `volume ${name} was made with volumeMode ${mode}, and is not used as ${asked}; its PersistentVolume has to say ${mode} as well`;
  throw new CsiError("FAILED_PRECONDITION", text);
}

/** Unstaged already is success. What is still published goes on until it is unpublished. */
export async function unstage(parts: NodeParts, { volumeId, path }: { volumeId: string; path: string }): Promise<void> {
  const { host } = parts;
  await host.unmount(path);
  if (!isVolumeHandle(volumeId)) return;
  const image = await imageOf(parts, volumeId);
  for (const device of image === undefined ? [] : await host.devicesOf(image)) {
    await checkNotShown(host, volumeId, device);
    await host.detach(device);
  }
  await forget(host, volumeId);
}

/** The kernel keeps a device for whoever has mounted or opened it. Where it is only shown, another image would come to be seen. */
async function checkNotShown(host: Host, volume: string, device: Device): Promise<void> {
  for (const place of await host.mountsOf(device)) {
    if ((await host.mountAt(place))?.type !== "block") continue;
    const text = `volume ${volume} is still published at ${place}, as a block device; unpublish it there first`;
    throw new CsiError("FAILED_PRECONDITION", text);
  }
}

/** The mark of a format that was not finished stays: without it nobody could tell what that has left from somebody's data. */
async function forget(host: Host, volume: string): Promise<void> {
  const note = await host.readNote(volume);
  if (note !== undefined && note.formatting === null) await host.removeNote(volume);
}

/** The type of the volume's file system that is mounted at the staging path; throws for anything else there. */
async function presentAt(
  host: Host,
  { volume, path, wanted }: StageRequest,
  image: ImageIdentity,
): Promise<FileSystemType | undefined> {
  const present = await host.mountAt(path);
  if (present === undefined) return undefined;
  const device = (await host.devicesOf(image)).find(({ number }) => number === present.device);
  checkMounted(volume, { device }, present);
  const { type } = present;
  if (wanted.kind === "fileSystem" && isAsWanted(present, wanted) && isFileSystemType(type)) return type;
  const how = present.isReadOnly ? "for reading only (as an ext4 becomes when it finds errors)" : "for writing";
  const text = `volume ${volume} is staged at ${path} in another way than is asked for: as ${type}, ${how}; end the pods that use it first`;
  throw new CsiError("ALREADY_EXISTS", text);
}

function isAsWanted(present: Mounted, { type, isReadOnly }: WantedFileSystem): boolean {
  return (type === undefined || type === present.type) && isReadOnly === present.isReadOnly;
}

/** Notes what is about to be attached; what was noted of it before is kept. */
async function ensureNote(
  host: Host,
  volume: string,
  { uid, image }: { uid: string; image: ImageIdentity },
): Promise<VolumeNote> {
  const present = await host.readNote(volume);
  const kept = present?.uid === uid && present.image.inode === image.inode ? present : undefined;
  if (kept !== undefined && isSameRun(kept.image, image)) return kept;
  if (present !== undefined && kept === undefined) {
    // Of a volume that had this name before, or of an image that was replaced: nobody would find its device any more.
    for (const device of await host.devicesOf(present.image)) await host.detach(device);
  }
  const note: VolumeNote = { uid, image, formatting: kept?.formatting ?? null, targets: [] };
  await host.writeNote(volume, note);
  return note;
}

/** Device numbers are given out anew when the machine starts. */
function isSameRun(one: ImageIdentity, other: ImageIdentity): boolean {
  return one.bootId === other.bootId && one.device === other.device;
}

/** The type of the file system on the device, which is made if the device holds nothing. */
async function prepare(
  host: Host,
  { view, note, device, wanted }: { view: VolumeView; note: VolumeNote; device: Device; wanted: WantedFileSystem },
): Promise<FileSystemType> {
  const plan = planFileSystem({
    content: await host.contentOf(device),
    sizeBytes: device.sizeBytes,
    wanted: wanted.type,
    isReadOnly: wanted.isReadOnly,
    isClone: view.lineage !== null || view.from !== undefined,
    isHalfMade: note.formatting !== null,
  });
  if (plan.kind === "refuse") {
    throw new CsiError("FAILED_PRECONDITION", `volume ${view.name} cannot be mounted: ${plan.why}`);
  }
  if (plan.kind === "use") return plan.type;
  await host.writeNote(view.name, { ...note, formatting: plan.type });
  await host.format(device, plan.type);
  // Before it is mounted, never after: what somebody has mounted is never formatted again.
  await host.writeNote(view.name, { ...note, formatting: null });
  return plan.type;
}

interface Staged {
  readonly volume: string;
  readonly device: Device;
  readonly path: string;
  readonly how: MountHow;
}

/** Has the file system take up its device, which may have become larger, or be larger than what it was cloned from. */
async function grow({ host, log }: NodeParts, { volume, device, path, how }: Staged): Promise<void> {
  const growth = await host.grow(device, path, how.type);
  if (growth.kind === "done") return;
  const places = await host.mountsOf(device);
  if (places.length > 1) {
    // Pods use it already; it grows when it is staged the next time, and NodeExpandVolume tells whoever waits for it.
    log.warn({ volume, why: growth.why, places: places.length }, "file system not grown");
    return;
  }
  await host.unmount(path);
  await host.growUnmounted(device, how.type);
  await host.mount(device, path, how);
}

/** What was attached for the volume; by its note or, should that be lost, by what the agent says. */
async function imageOf({ host, agent }: NodeParts, volume: string): Promise<ImageIdentity | undefined> {
  const note = await host.readNote(volume);
  if (note !== undefined) return note.image;
  try {
    return await host.identify((await agent.getVolume(volume)).path);
  } catch (error) {
    if (codeOf(error) === "NotFound" || codeOf(error) === "VolumeGone") return undefined;
    throw error;
  }
}
