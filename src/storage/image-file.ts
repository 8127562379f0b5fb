// The life of one image file. Its permission bits say where it stands, so that a crash at any moment leaves a file
// that tells by itself whether it may be believed:
//
//   0000  being made; whoever finds it removes it and begins again
//   0600  complete and written to: a live image, or staging
//   0444  sealed: complete, on disk, and never written again (with the immutable attribute too, where allowed)
//
// The bits change only after the content is on disk, and are on disk themselves before anybody is told.

import { type BigIntStats, constants } from "node:fs";
import * as fs from "node:fs/promises";
import { dirname } from "node:path";
import { makeFolderDurably, syncFolder } from "../base/durable-folder.ts";
import { errnoOf, unlessErrno } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";
import { giveName, isImmutable, setImmutable } from "../native/file-calls.ts";
import type { SealedIdentity } from "./backend.ts";

export type ImageState = "missing" | "unfinished" | "writable" | "sealed";

const modes = { unfinished: 0o000, writable: 0o600, sealed: 0o444 } as const;

/** Where an image stands, by its permission bits. Something that is not a regular file counts as missing. */
export async function imageState(path: string): Promise<ImageState> {
  const stat = await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.lstat(path, { bigint: true }));
  return stat === undefined ? "missing" : stateOf(stat);
}

function stateOf(stat: BigIntStats): ImageState {
  if (!stat.isFile()) return "missing";
  const bits = Number(stat.mode & 0o777n);
  if ((bits & 0o222) !== 0) return "writable";
  return bits === modes.unfinished ? "unfinished" : "sealed";
}

/**
 * Makes an image under its final name: `fill` gives it its content and size, then it is made durable, then it counts
 * as `finish`. What stands under the name already is removed first. When anything fails nothing is left.
 */
export async function buildImage(
  path: string,
  finish: "writable" | "sealed",
  fill: (image: fs.FileHandle) => Promise<void>,
): Promise<void> {
  await clearName(path);
  await makeFolderDurably(dirname(path));
  const image = await fs.open(path, constants.O_CREAT | constants.O_EXCL | constants.O_RDWR, modes.unfinished);
  try {
    await fill(image);
    await image.sync();
    await syncFolder(dirname(path));
    if (finish === "sealed") await image.chmod(modes.sealed);
    else await image.chmod(modes.writable);
    await image.sync();
  } catch (error) {
    await removeImage(path);
    throw error;
  } finally {
    await image.close();
  }
}

/** Makes a complete file that has no name an image to be written to; what stands under the name already is removed first. */
export async function adoptImage(path: string, image: fs.FileHandle): Promise<void> {
  await clearName(path);
  await makeFolderDurably(dirname(path));
  await image.chmod(modes.writable);
  await image.sync();
  giveName(image.fd, path);
  try {
    await syncFolder(dirname(path));
  } catch (error) {
    await removeImage(path);
    throw error;
  }
}

/** Makes the file sealed, durably, content included; one that is sealed stays so. */
export async function sealImage(image: fs.FileHandle, wantsImmutable: boolean): Promise<void> {
  const state = stateOf(await image.stat({ bigint: true }));
  await image.sync();
  if (state !== "sealed") await image.chmod(modes.sealed);
  if (wantsImmutable) makeImmutable(image.fd);
  await image.sync();
}

// Without the capability, or where the file system has no such attribute, the permission bits are the seal. That is
// enough for soundness: moved extents are noticed by the comparison.
const immutableRefusals = ["EPERM", "EACCES", "ENOTTY", "EOPNOTSUPP", "EINVAL"];

function makeImmutable(fd: number): void {
  try {
    if (!isImmutable(fd)) setImmutable(fd, true);
  } catch (error) {
    if (!immutableRefusals.includes(errnoOf(error) ?? "")) throw error;
  }
}

/**
 * Unlinks an image, immutable or not, durably. Gone already is success, and is made durable as well: whoever unlinked it may
 * have died before.
 */
export async function removeImage(path: string): Promise<void> {
  await unlinkImage(path);
  await unlessErrno(["ENOENT", "ENOTDIR"], () => syncFolder(dirname(path)));
}

/** Makes room for an image that is made under this name, durable together with it. */
async function clearName(path: string): Promise<void> {
  if (await unlinkImage(path)) await syncFolder(dirname(path));
}

/** Whether there was one. */
async function unlinkImage(path: string): Promise<boolean> {
  try {
    await fs.unlink(path);
  } catch (error) {
    const errno = errnoOf(error);
    if (errno === "ENOENT" || errno === "ENOTDIR") return false;
    if (errno !== "EPERM") throw error;
    await clearImmutable(path);
    await fs.unlink(path);
  }
  return true;
}

/** Takes the immutable attribute off a file that carries it. */
export async function clearImmutable(path: string): Promise<void> {
  const image = await fs.open(path, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    setImmutable(image.fd, false);
  } finally {
    await image.close();
  }
}

/** Opens an image that must be a regular file (no symbolic link is followed). */
export function openImage(path: string, access: "read" | "write"): Promise<fs.FileHandle> {
  return fs.open(path, (access === "read" ? constants.O_RDONLY : constants.O_RDWR) | constants.O_NOFOLLOW);
}

/**
 * What identifies the open file. The birth time stands beside the inode number because inode numbers are used again:
 * a file restored under the same name is another file.
 */
export async function identityOf(image: fs.FileHandle, fsUuid: string): Promise<SealedIdentity> {
  const stat = await image.stat({ bigint: true });
  return { inode: `${stat.ino}.${stat.birthtimeNs}`, fsUuid, sizeBytes: Number(stat.size) };
}

/** Throws `PointGone` unless the open file answers to the identity recorded for it. */
export async function verifyIdentity(
  name: string,
  image: fs.FileHandle,
  { recorded, fsUuid }: { recorded: SealedIdentity; fsUuid: string },
): Promise<void> {
  const found = await identityOf(image, fsUuid);
  const complaint = identityComplaints.find(([isWrong]) => isWrong(found, recorded))?.[1];
  if (complaint !== undefined) throw new LongshoreError("PointGone", `${name} ${complaint}`);
}

type Complaint = readonly [(found: SealedIdentity, recorded: SealedIdentity) => boolean, string];
const identityComplaints: readonly Complaint[] = [
  [(found, recorded) => found.fsUuid !== recorded.fsUuid, "lies on another file system than the one it was sealed on"],
  [(found, recorded) => found.inode !== recorded.inode, "is another file than the one that was sealed"],
  [(found, recorded) => found.sizeBytes !== recorded.sizeBytes, "has another size than when it was sealed"],
];
