// Disks in memory: XFS or btrfs on loop devices over files on tmpfs, one for each side of a tool.
import { statSync } from "node:fs";
import { open, truncate } from "node:fs/promises";
import { freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { type LoopFs, mountLoop } from "../test/fakes/loop-fs.ts";
import type { Case } from "./cases.ts";
import { runCommand } from "./command.ts";
import type { FileSystem } from "./options.ts";

export interface Disks {
  readonly source: string;
  readonly target: string;
  unmount(): Promise<void>;
}

const sides = ["source", "target"] as const;
type Side = (typeof sides)[number];

const mebibyte = 2 ** 20;
const pieceBytes = 4 * mebibyte;
/** For increments of 10 % that come one after the other: the points kept, the one that comes, and one that is still being deleted. */
const usualCopies = 1.6;

/** Room for the volumes, so often, and what the file system itself needs. */
function diskBytes({ volumes, volumeBytes }: Case, copies: number): number {
  const bytes = Math.max(640 * mebibyte, copies * volumes * volumeBytes + 512 * mebibyte);
  return Math.ceil(bytes / pieceBytes) * pieceBytes;
}

function imageOf(side: Side): string {
  return join(tmpdir(), `disk-${side}`);
}

/**
 * Takes the memory for the disks of these cases, in the folder for temporary files; all tools have their turn in it. Where a
 * machine gives free memory back to its host, each page costs anew to take (2 GiB of them took as long as the copy that
 * was measured), so that it is taken once, beforehand. Without it, disks take their memory as they fill.
 */
export async function takeMemory(cases: readonly Case[]): Promise<void> {
  const bytes = Math.max(...cases.map((measured) => diskBytes(measured, usualCopies)));
  const gibibytes = (of: number) => (of / 2 ** 30).toFixed(1);
  if (sides.length * bytes > freemem()) {
    throw new Error(
      `the disks take ${sides.length} times ${gibibytes(bytes)} GiB of memory, and ${gibibytes(freemem())} GiB are free: measure smaller cases (CASES)`,
    );
  }
  const zeros = Buffer.alloc(pieceBytes);
  for (const side of sides) {
    const image = await open(imageOf(side), "w");
    try {
      for (let at = 0; at < bytes; at += pieceBytes) await image.write(zeros, 0, pieceBytes, at);
    } finally {
      await image.close();
    }
  }
}

/** `targetCopies`: how often the target holds the volumes in full at most. */
export async function mountDisks(fs: FileSystem, measured: Case, targetCopies = usualCopies): Promise<Disks> {
  const mounted: LoopFs[] = [];
  const ends: (() => Promise<void>)[] = [];
  const unmount = async () => {
    for (const disk of mounted.splice(0).reverse()) await disk.unmount();
    for (const end of ends.splice(0)) await end();
  };
  try {
    for (const side of sides) {
      const sizeBytes = diskBytes(measured, side === "target" ? targetCopies : usualCopies);
      const image = await imageFor(side, sizeBytes);
      if (image !== undefined) ends.push(image.shrink);
      // Nothing is discarded: what is free stays in memory.
      const kept = { mkfsArgs: ["-K"], mountArgs: ["nodiscard"] };
      mounted.push(await mountLoop({ fs, sizeBytes, ...kept, ...(image && { image: image.path }) }));
    }
    const [source = "", target = ""] = mounted.map(({ path }) => path);
    return { source, target, unmount };
  } catch (error) {
    await unmount();
    throw error;
  }
}

/** The memory that was taken, for as long as it is used with whatever it lacks. */
async function imageFor(side: Side, sizeBytes: number) {
  const path = imageOf(side);
  const takenBytes = statSync(path, { throwIfNoEntry: false })?.size;
  if (takenBytes === undefined) return undefined;
  if (takenBytes < sizeBytes) await truncate(path, sizeBytes);
  return { path, shrink: () => truncate(path, takenBytes) };
}

/** Writes everything on the file system out, as the last step of what does not do so by itself. */
export async function syncFileSystem(path: string): Promise<void> {
  await runCommand("sync", ["--file-system", path]);
}
