// Disks in memory: XFS or btrfs on loop devices over files on tmpfs, one for each side of a tool.
import { type LoopFs, mountLoop } from "../test/fakes/loop-fs.ts";
import type { Case } from "./cases.ts";
import { runCommand } from "./command.ts";
import type { FileSystem } from "./options.ts";

export interface Disks {
  readonly source: string;
  readonly target: string;
  /** Gives space of deleted files back to the memory, so that each run finds the disks alike. */
  trim(): Promise<void>;
  unmount(): Promise<void>;
}

const mebibyte = 2 ** 20;

/** Room for a volume, what changes between a few points, and what the file system itself needs. Sparse. */
function diskBytes({ volumes, volumeBytes }: Case, copies: number): number {
  return Math.max(640 * mebibyte, copies * volumes * volumeBytes + 512 * mebibyte);
}

/** `targetCopies`: how often the target holds the volumes in full at most. */
export async function mountDisks(fs: FileSystem, measured: Case, targetCopies = 2): Promise<Disks> {
  const mounted: LoopFs[] = [];
  const unmount = async () => {
    for (const disk of mounted.splice(0).reverse()) await disk.unmount();
  };
  try {
    // Two: increments of 10 % come one after the other, and the file system takes more than it holds.
    for (const copies of [2, targetCopies]) {
      mounted.push(await mountLoop({ fs, sizeBytes: diskBytes(measured, copies) }));
    }
    const [source = "", target = ""] = mounted.map(({ path }) => path);
    const trim = async () => {
      for (const path of [source, target]) await runCommand("fstrim", [path]);
    };
    return { source, target, trim, unmount };
  } catch (error) {
    await unmount();
    throw error;
  }
}

/** Writes everything on the file system out, as the last step of what does not do so by itself. */
export async function syncFileSystem(path: string): Promise<void> {
  await runCommand("sync", ["--file-system", path]);
}
