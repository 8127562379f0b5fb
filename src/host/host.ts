// The node as the CSI driver uses it: loop devices over images, file systems on them, mounts, and notes of what is under way. Each call is
// one step that may be repeated; what to do in which order is decided by whoever calls.
import { isAbsolute, join, relative } from "node:path";
import type { Clock } from "../base/clock.ts";
import { makeFolderDurably } from "../base/durable-folder.ts";
import type { Log } from "../base/log.ts";
import { mountHolding } from "../base/mount-table.ts";
import { openCommands } from "./command.ts";
import { type Content, contentOf } from "./content.ts";
import {
  checkFileSystem,
  type FileSystemType,
  type Growth,
  growMounted,
  growUnmounted,
  type MountHow,
  makeFileSystem,
} from "./file-systems.ts";
import { attempt } from "./host-error.ts";
import { type Device, deviceBytes, type ImageIdentity, openLoopDevices } from "./loop-devices.ts";
import { type BindHow, type Mounted, mountTable, openMounts } from "./mounts.ts";
import { syncDevice, type Usage, usageOfFileSystem } from "./usage.ts";
import { openVolumeNotes, type VolumeNote } from "./volume-notes.ts";

/** Throws `HostError` for what the node does not do, `Timeout` for a tool that had to be ended, and what is named at each call. */
export interface Host {
  /** Whether what is mounted at this path is seen by the kubelet and by pods. */
  reaches(path: string): boolean;

  /** What was noted of a volume; on disk when {@link writeNote} and {@link removeNote} resolve. */
  readNote(volume: string): Promise<VolumeNote | undefined>;
  writeNote(volume: string, note: VolumeNote): Promise<void>;
  removeNote(volume: string): Promise<void>;

  /** Throws `VolumeGone` when there is no such file. */
  identify(image: string): Promise<ImageIdentity>;
  /**
   * A loop device over all of the image, as large as it is now: the one there is, or a new one. `VolumeBusy` when there is one that cannot be
   * taken: for reading only (or not so) unlike what is asked for, over a part of it, or more than one.
   */
  attach(image: string, options: { readonly isReadOnly: boolean }): Promise<Device>;
  /** The loop devices over all of an image, whatever it is called by now. None after the machine was started again. */
  devicesOf(image: ImageIdentity): Promise<readonly Device[]>;
  /** Has the device be as large as its image is by now. */
  resize(device: Device): Promise<Device>;
  /** Detached already is success. One that is in use goes with its last user. */
  detach(device: Device): Promise<void>;

  contentOf(device: Device): Promise<Content>;
  /** Makes a file system, over whatever is there; on disk when it resolves. */
  format(device: Device, type: FileSystemType): Promise<void>;

  /** What is seen at a path because it is mounted there. */
  mountAt(path: string): Promise<Mounted | undefined>;
  /** Where file systems on the device, or the device itself, are mounted, as far as this process can see. */
  mountsOf(device: Device): Promise<readonly string[]>;
  /** Mounts a file system, checked before where its type needs that; makes the folder if it is missing. */
  mount(device: Device, path: string, how: MountHow): Promise<void>;
  /** Takes away all that is mounted at a path, if anything is. `VolumeBusy` while it is in use. */
  unmount(path: string): Promise<void>;
  /** Shows a mounted folder, or a device, at another path as well, and makes that. */
  bind(source: string, target: string, how: BindHow): Promise<void>;
  /** Takes it away again, with the folder or file it was shown at. What is not an empty one is left, and told. */
  unbind(target: string): Promise<void>;

  /** Has the file system of this type, mounted at `path`, take up its device. */
  grow(device: Device, path: string, type: FileSystemType): Promise<Growth>;
  /** The same for one that is mounted nowhere and refused to grow while it was. */
  growUnmounted(device: Device, type: FileSystemType): Promise<void>;
  usage(mounted: Mounted): Promise<Usage>;
}

export interface HostOptions {
  /** For notes; it must outlive the process, and the machine's next start. */
  readonly stateDir: string;
  /** The kubelet's folder, under the path it has for the kubelet. */
  readonly kubeletDir: string;
  readonly log: Log;
  readonly clock: Clock;
}

/** The node that this process runs on, as root. */
export async function openHost({ stateDir, kubeletDir, log, clock }: HostOptions): Promise<Host> {
  const commands = openCommands(clock);
  const tools = { commands, log };
  const notes = await openVolumeNotes(join(stateDir, "volumes"));
  const privateFolder = join(stateDir, "private");
  await attempt(`make ${privateFolder}`, () => makeFolderDurably(privateFolder, 0o700));
  const loops = openLoopDevices(tools);
  const mounts = openMounts(commands, privateFolder);
  await warnIfUnseen(kubeletDir, log);
  return {
    reaches: (path) => isBelow(path, kubeletDir),
    readNote: (volume) => notes.read(volume),
    writeNote: (volume, note) => notes.write(volume, note),
    removeNote: (volume) => notes.remove(volume),
    identify: (image) => loops.identify(image),
    attach: (image, options) => loops.attach(image, options),
    devicesOf: (image) => loops.devicesOf(image),
    resize: (device) => loops.resize(device),
    detach: (device) => loops.detach(device),
    contentOf: (device) => contentOf(commands, device),
    async format(device, type) {
      await makeFileSystem(commands, device.path, type);
      await attempt(`sync ${device.path}`, () => syncDevice(device.path));
    },
    mountAt: (path) => mounts.at(path),
    mountsOf: (device) => mounts.of(device),
    async mount(device, path, how) {
      // What is mounted already is in order, and must not be touched from below.
      const isFirst = (await mounts.of(device)).length === 0;
      if (isFirst && !how.isReadOnly) await checkFileSystem(tools, device.path, { type: how.type });
      await mounts.mount(device, path, how);
    },
    unmount: (path) => mounts.unmount(path),
    bind: (source, target, how) => mounts.bind(source, target, how),
    unbind: (target) => mounts.unbind(target),
    grow: (device, path, type) => growMounted(commands, { device: device.path, path, type }),
    growUnmounted: (device, type) => growUnmounted(tools, device.path, type),
    async usage({ path, type, device }) {
      if (type === "block") return { kind: "block", totalBytes: await deviceBytes(device ?? "") };
      return attempt(`ask the file system at ${path}`, () => usageOfFileSystem(path));
    },
  };
}

/** Whether a path, free of detours, lies within a folder. */
export function isBelow(path: string, folder: string): boolean {
  if (!isAbsolute(path) || path.split("/").some((part) => part === "." || part === "..")) return false;
  const way = relative(folder, path);
  return way !== "" && way !== ".." && !way.startsWith("../");
}

/** Without propagation a pod would find an empty folder where its volume should be, and write to the node's own disk. */
async function warnIfUnseen(kubeletDir: string, log: Log): Promise<void> {
  const holding = mountHolding(await mountTable(), kubeletDir);
  if (holding?.isShared) return;
  const text = "the kubelet's folder is not shared: outside of this mount namespace nobody sees what is mounted in it";
  log.warn({ kubeletDir, mount: holding?.path }, text);
}
