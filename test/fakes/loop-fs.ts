// A real XFS, btrfs or ext4 on a loop device over a sparse file, for as long as a test or the demo needs one. Needs root and
// the mkfs of that file system. What was mounted is unmounted and removed when the process exits or is interrupted.

import { execFile, spawnSync } from "node:child_process";
import { existsSync, rmSync, statfsSync } from "node:fs";
import { mkdir, mkdtemp, open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { onInterrupt } from "../interrupt.ts";

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

export interface LoopFsOptions {
  readonly fs: "xfs" | "btrfs" | "ext4";
  /** XFS takes no less than 300 MiB, btrfs no less than 109 MiB. The file is sparse. */
  readonly sizeBytes: number;
  readonly mkfsArgs?: readonly string[];
  /** Options for `mount -o`, in addition to `loop`. */
  readonly mountArgs?: readonly string[];
}

export interface LoopFs {
  readonly path: string;
  /** Unmounts and removes it; a second call does nothing. */
  unmount(): Promise<void>;
}

/** Memory holds what is written to small ones: their fsyncs cost nothing then. */
const inMemoryBytesMax = 2 ** 30;

const mounted = new Set<string>();

export async function mountLoop({ fs, sizeBytes, mkfsArgs = [], mountArgs = [] }: LoopFsOptions): Promise<LoopFs> {
  cleanUpAtExit();
  const folder = await mkdtemp(join(parentFor(sizeBytes), "longshore-loop-"));
  mounted.add(folder);
  try {
    const image = await open(join(folder, "image"), "w");
    await image.truncate(sizeBytes);
    await image.close();
    const path = join(folder, "mount");
    await mkdir(path);
    await run(`mkfs.${fs}`, ["-q", fs === "ext4" ? "-F" : "-f", ...mkfsArgs, join(folder, "image")], { env });
    await run("mount", ["-t", fs, "-o", ["loop", ...mountArgs].join(","), join(folder, "image"), path], { env });
    return { path, unmount: () => unmount(folder) };
  } catch (error) {
    removeNow(folder);
    throw error;
  }
}

function parentFor(sizeBytes: number): string {
  const memory = "/dev/shm";
  if (sizeBytes > inMemoryBytesMax || !existsSync(memory)) return tmpdir();
  const { bavail, bsize } = statfsSync(memory);
  return bavail * bsize > 2 * sizeBytes ? memory : tmpdir();
}

async function unmount(folder: string): Promise<void> {
  if (!mounted.has(folder)) return;
  await run("umount", [join(folder, "mount")], { env }).catch((error) => {
    // Somebody still uses it: it goes away with the last user, and the test hears of it.
    removeNow(folder);
    throw error;
  });
  mounted.delete(folder);
  await rm(folder, { recursive: true });
}

/** Takes a mount away at once, in use or not; the loop device frees itself after its last user. */
function removeNow(folder: string): void {
  mounted.delete(folder);
  spawnSync("umount", ["--lazy", "--quiet", join(folder, "mount")], { env });
  // Never recursive: if the mount could not be taken away, what is in it is not ours to delete one by one.
  rmSync(join(folder, "image"), { force: true });
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
