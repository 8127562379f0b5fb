// The file systems that volumes may have: how each is made, checked, mounted and grown with the node's tools.
import type { Log } from "../base/log.ts";
import { type Commands, checkMsMax, failed, workMsMax } from "./command.ts";
import { HostError } from "./host-error.ts";

export const fileSystemTypes = ["ext4", "xfs", "btrfs"] as const;
export type FileSystemType = (typeof fileSystemTypes)[number];

/** Made where nobody says which. */
export const usualFileSystem: FileSystemType = "ext4";

export function isFileSystemType(value: unknown): value is FileSystemType {
  return fileSystemTypes.some((type) => type === value);
}

/**
 * What is made no smaller than this. The tools of XFS and btrfs refuse less, or nearly so; that of ext4 would leave out the journal, and
 * then a loss of power may leave what only a person can repair.
 */
export const leastFileSystemBytes: Readonly<Record<FileSystemType, number>> = {
  ext4: 8 * 2 ** 20,
  xfs: 300 * 2 ** 20,
  btrfs: 256 * 2 ** 20,
};

/** Without `force` they ask, or refuse, when they find what an interrupted try has left. */
const making: Readonly<Record<FileSystemType, readonly string[]>> = {
  // Nothing is kept back for root: the volume belongs to whoever mounts it.
  ext4: ["mkfs.ext4", "-q", "-F", "-m0"],
  xfs: ["mkfs.xfs", "-q", "-f"],
  btrfs: ["mkfs.btrfs", "-q", "-f"],
};

/** Makes a file system on a device, over whatever is there. */
export async function makeFileSystem(commands: Commands, device: string, type: FileSystemType): Promise<void> {
  await commands.run([...making[type], device], workMsMax);
}

/** How a file system is mounted. */
export interface MountHow {
  readonly type: FileSystemType;
  /** As they are given to mount, such as `noatime`. */
  readonly flags: readonly string[];
  readonly isReadOnly: boolean;
}

/** For `mount -o`; empty for none. */
export function mountOptions({ type, flags, isReadOnly }: MountHow): string {
  // A clone has the UUID of its origin, and both may be mounted on one node.
  const own = [...(isReadOnly ? ["ro"] : []), ...(type === "xfs" ? ["nouuid"] : [])];
  return [...new Set([...own, ...flags])].join(",");
}

/**
 * Puts a file system that was not unmounted in order, as far as that needs no decision. To be done before it is mounted for writing.
 * XFS and btrfs do so themselves. Throws {@link HostError} when a person is needed.
 */
export async function checkFileSystem(
  { commands, log }: { commands: Commands; log: Log },
  device: string,
  { type, isWhole = false }: { type: FileSystemType; isWhole?: boolean },
): Promise<void> {
  if (type !== "ext4") return;
  const words = ["e2fsck", "-p", ...(isWhole ? ["-f"] : []), device];
  const outcome = await commands.attempt(words, checkMsMax);
  // It is mounted where this process does not see it, as in a container that got a copy of the mount. So it is in order; and mounting fails
  // by itself when it is somebody else who has the device.
  const isInUse = outcome.status > 3 && outcome.stdout.includes(`${device} is in use`);
  if (isInUse && !isWhole) return;
  // 1: errors were corrected. 2: the machine should be started anew, if it were mounted.
  if (outcome.status > 3) {
    const repair = "needs a repair by hand: end its pods, attach its image with losetup, and run e2fsck on that";
    const what = isInUse ? "is in use elsewhere, as by a mount in some other container" : repair;
    throw new HostError(`the file system on ${device} ${what}`, { cause: failed(words, outcome) });
  }
  if (outcome.status > 0) log.warn({ device, said: outcome.stdout.trim() }, "file system corrected");
}

/** `refused`: it cannot be done while it is mounted, and nothing has changed. */
export type Growth = { readonly kind: "done" } | { readonly kind: "refused"; readonly why: string };

/** Has a mounted file system take up its device; one that does so already stays as it is. */
export async function growMounted(
  commands: Commands,
  { device, path, type }: { device: string; path: string; type: FileSystemType },
): Promise<Growth> {
  if (type === "ext4") return growMountedExt4(commands, device);
  const words = type === "xfs" ? ["xfs_growfs", "-d", path] : ["btrfs", "filesystem", "resize", "max", path];
  await commands.run(words, workMsMax);
  return { kind: "done" };
}

async function growMountedExt4(commands: Commands, device: string): Promise<Growth> {
  const words = ["resize2fs", device];
  const outcome = await commands.attempt(words, workMsMax);
  if (outcome.status === 0) return { kind: "done" };
  // Without CAP_SYS_RESOURCE, and when errors are recorded in the file system.
  if (/Permission denied to resize/.test(outcome.stderr)) {
    return { kind: "refused", why: "the kernel does not let this ext4 grow while it is mounted" };
  }
  throw failed(words, outcome);
}

/** The same for one that is mounted nowhere; only ext4 can grow so, and only ext4 has to. */
export async function growUnmounted(
  tools: { commands: Commands; log: Log },
  device: string,
  type: FileSystemType,
): Promise<void> {
  if (type !== "ext4") throw new HostError(`a file system of type ${type} grows only while it is mounted`);
  // Its tool insists on a whole check.
  await checkFileSystem(tools, device, { type, isWhole: true });
  await tools.commands.run(["resize2fs", device], workMsMax);
}
