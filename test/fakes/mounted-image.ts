// A file system in an image file, mounted as an application has it. Needs root. When it goes away it is thawed first, for a
// file system that is unmounted frozen stays so, out of everybody's reach.

import { execFile, spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import { mkdtemp, rmdir } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { onInterrupt } from "../interrupt.ts";

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

export interface MountedImage {
  /** Where it is mounted. */
  readonly path: string;
  /** Thaws it if it is frozen, unmounts it, and frees its loop device; a second call does nothing. */
  unmount(): Promise<void>;
}

export interface MountedImageOptions {
  readonly fs: "xfs" | "ext4" | "btrfs";
  /** Mounts what is there already. */
  readonly isMade?: boolean;
}

/** Makes a file system in the image and mounts it. */
export async function mountImage(image: string, { fs, isMade = false }: MountedImageOptions): Promise<MountedImage> {
  if (!isMade) await run(`mkfs.${fs}`, ["-q", fs === "ext4" ? "-F" : "-f", image], { env });
  const path = await mkdtemp(join(tmpdir(), "longshore-mounted-"));
  const undo = () => {
    thawNow(path);
    spawnSync("umount", ["--lazy", "--quiet", path], { env });
    rmSync(path, { recursive: false, force: true });
  };
  const forget = onInterrupt(undo);
  try {
    await run("mount", ["-t", fs, "-o", "loop", image, path], { env });
  } catch (error) {
    forget();
    await rmdir(path);
    throw error;
  }
  let isMounted = true;
  return {
    path,
    async unmount() {
      if (!isMounted) return;
      isMounted = false;
      thawNow(path);
      try {
        await run("umount", [path], { env });
        await rmdir(path);
      } catch (error) {
        // Somebody still uses it: it goes away with the last user, and the test hears of it.
        undo();
        throw error;
      } finally {
        forget();
      }
    },
  };
}

/** Thaws the file system mounted at `path`; answers whether it was frozen. */
export function thawNow(path: string): boolean {
  return spawnSync("fsfreeze", ["--unfreeze", path], { env }).status === 0;
}
