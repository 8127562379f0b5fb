// A real XFS, btrfs or ext4 on a loop device over a sparse file, for as long as a test or the demo needs one. Needs root and
// the mkfs of that file system. What was mounted is unmounted and removed when the process exits or is interrupted.
// Detached, it is a disk that can be saved and put back as it was, with its UUID and inode numbers: a restore from an old copy.

import { execFile, spawnSync } from "node:child_process";
import { existsSync, readdirSync, rmSync, statfsSync } from "node:fs";
import { mkdir, mkdtemp, open, rename, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { promisify } from "node:util";
import { onInterrupt } from "../interrupt.ts";

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

export interface LoopFsOptions {
  readonly fs: "xfs" | "btrfs" | "ext4";
  /** XFS takes no less than 300 MiB, btrfs no less than 109 MiB. The file is sparse. */
  readonly sizeBytes: number;
  /** A file to make the disk of, at least as large; it keeps its size and its place. A fresh sparse one unless given. */
  readonly image?: string;
  /** Whether memory holds what is written to it; small ones, unless told. Where there is not enough of it, never. */
  readonly inMemory?: boolean;
  readonly mkfsArgs?: readonly string[];
  /** Options for `mount -o`, in addition to `loop`. */
  readonly mountArgs?: readonly string[];
}

export interface LoopFs {
  readonly path: string;
  /** Takes it off its place, with everything written to it in its image; nothing may use it any more. Waits for other namespaces. */
  detach(): Promise<void>;
  /** Mounts it again where it was. */
  attach(): Promise<void>;
  /** Keeps a copy of the detached disk as it is now; a later one of the same name takes its place. */
  save(name: string): Promise<void>;
  /** Makes the detached disk what it was at {@link save}; the copy stays, to be put back again. */
  restore(name: string): Promise<void>;
  /** Unmounts and removes it with its copies, attached or not; a second call does nothing. */
  unmount(): Promise<void>;
}

/** Unless told otherwise, memory holds what is written to small ones: their fsyncs cost nothing then. */
const inMemoryBytesMax = 2 ** 30;

/** The folders that are to be removed; in each lie the image, its copies, and the place it is mounted at. */
const mounted = new Set<string>();
const attached = new Set<string>();

export async function mountLoop(wanted: LoopFsOptions): Promise<LoopFs> {
  const { fs, sizeBytes, inMemory = sizeBytes <= inMemoryBytesMax, mkfsArgs = [], mountArgs = [] } = wanted;
  cleanUpAtExit();
  const folder = await mkdtemp(join(parentFor(sizeBytes, inMemory), "longshore-loop-"));
  mounted.add(folder);
  try {
    if (wanted.image === undefined) await makeSparse(join(folder, "image"), sizeBytes);
    else await symlink(wanted.image, join(folder, "image"));
    const path = join(folder, "mount");
    await mkdir(path);
    await run(`mkfs.${fs}`, ["-q", fs === "ext4" ? "-F" : "-f", ...mkfsArgs, join(folder, "image")], { env });
    const options = ["loop", ...mountArgs].join(",");
    const attach = async () => {
      await run("mount", ["-t", fs, "-o", options, join(folder, "image"), path], { env });
      attached.add(folder);
    };
    await attach();
    return {
      path,
      attach,
      detach: () => detach(folder),
      save: (name) => copyImage(folder, "image", `image.${name}`),
      restore: (name) => copyImage(folder, `image.${name}`, "image"),
      unmount: () => unmount(folder),
    };
  } catch (error) {
    removeNow(folder);
    throw error;
  }
}

async function makeSparse(path: string, sizeBytes: number): Promise<void> {
  const image = await open(path, "w");
  try {
    await image.truncate(sizeBytes);
  } finally {
    await image.close();
  }
}

function parentFor(sizeBytes: number, inMemory: boolean): string {
  const memory = "/dev/shm";
  if (!inMemory || !existsSync(memory)) return tmpdir();
  const { bavail, bsize } = statfsSync(memory);
  return bavail * bsize > 2 * sizeBytes ? memory : tmpdir();
}

async function detach(folder: string): Promise<void> {
  await run("umount", [join(folder, "mount")], { env });
  attached.delete(folder);
  await isReleased(join(folder, "image"));
}

const releaseMsMax = 60_000;

/**
 * A program that was started in a mount namespace of its own has whatever was mounted at that moment, by a device that a new mount of
 * the image would share, with all that has become of the file system; until it ends.
 */
async function isReleased(image: string): Promise<void> {
  const devices = async () => (await run("losetup", ["--associated", image], { env })).stdout.trim();
  const deadlineMs = performance.now() + releaseMsMax;
  for (let left = await devices(); left !== ""; left = await devices()) {
    if (performance.now() > deadlineMs) throw new Error(`another mount namespace still has ${image} mounted: ${left}`);
    await sleep(50);
  }
}

/** The copy gets a file of its own: a loop device that is still going away keeps the one it had. */
async function copyImage(folder: string, from: string, to: string): Promise<void> {
  if (attached.has(folder)) throw new Error(`the disk in ${folder} is in use; detach it first`);
  const unfinished = join(folder, `${to}.unfinished`);
  await run("cp", ["--sparse=always", join(folder, from), unfinished]);
  await rename(unfinished, join(folder, to));
}

async function unmount(folder: string): Promise<void> {
  if (!mounted.has(folder)) return;
  if (attached.has(folder)) {
    await detach(folder).catch((error) => {
      // Somebody still uses it: it goes away with the last user, and the test hears of it.
      removeNow(folder);
      throw error;
    });
  }
  mounted.delete(folder);
  await rm(folder, { recursive: true });
}

/** Takes a mount away at once, in use or not; the loop device frees itself after its last user. */
function removeNow(folder: string): void {
  mounted.delete(folder);
  attached.delete(folder);
  // Whatever we believe: it may be on its way to being mounted, or to not being so.
  spawnSync("umount", ["--lazy", "--quiet", join(folder, "mount")], { env });
  // Never recursive: if the mount could not be taken away, what is in it is not ours to delete one by one.
  for (const name of readdirSync(folder).filter((name) => name.startsWith("image"))) rmSync(join(folder, name));
  spawnSync("rmdir", ["--ignore-fail-on-non-empty", join(folder, "mount"), folder], { stdio: "ignore" });
}

let isRegistered = false;

function cleanUpAtExit(): void {
  if (isRegistered) return;
  isRegistered = true;
  const removeAll = () => [...mounted].reverse().forEach(removeNow);
  onInterrupt(removeAll);
  // For the demo, when it ends by an error nobody caught; tests take theirs away in afterAll.
  process.on("exit", removeAll);
}
