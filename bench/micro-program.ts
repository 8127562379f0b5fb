// Measures one backend on one image in pieces, in a process of its own so that its memory is seen: `node
// bench/micro-program.ts FOLDER EXTENTS`, with a folder on a file system that can share extents. Prints JSON.
import { open } from "node:fs/promises";
import { keepHeapSmall } from "../src/base/memory.ts";
import { fiemap } from "../src/native/file-calls.ts";
import { openBackend } from "../src/storage/open.ts";
import { blockBytes } from "./cases.ts";
import { resetPeak, residentMiB } from "./process-memory.ts";
import { median } from "./statistics.ts";

const repeats = 5;
/** What changes between the two points that are compared. */
const changedBlocks = 64;
const volume = "volume";

export interface MicroMeasurement {
  readonly extents: number;
  readonly extentsWalked: number;
  readonly trackingMs: number;
  readonly growthMiB: number;
  readonly stallMs: number;
}

/** As many extents as asked for, or a few more: every other block of a written image is written anew after a snapshot. */
async function run(root: string, extents: number): Promise<MicroMeasurement> {
  const storage = await openBackend({ kind: "reflink", root });
  const sizeBytes = Math.ceil((extents * blockBytes) / 2 ** 20) * 2 ** 20;
  await storage.create(volume, sizeBytes);
  const live = await open(storage.livePath(volume), "r+");
  const write = async (blocks: number, stride: number, fill: number) => {
    const block = Buffer.alloc(blockBytes, fill);
    for (let index = 0; index < blocks; index++) await live.write(block, 0, blockBytes, index * stride * blockBytes);
    await live.sync();
  };
  await write(sizeBytes / blockBytes, 1, 1);
  await storage.snapshot(volume, "whole");
  await write(sizeBytes / blockBytes / 2, 2, 2);
  const base = { point: "base", identity: (await storage.snapshot(volume, "base")).identity };
  const stalls: number[] = [];
  let next = base;
  for (let repeat = 0; repeat < repeats; repeat++) {
    await write(changedBlocks, 16, 3 + repeat);
    const { identity, stallMs } = await storage.snapshot(volume, `next-${repeat}`);
    stalls.push(stallMs);
    next = { point: `next-${repeat}`, identity };
  }
  const counts = [
    await extentsOf(`${root}/volumes/${volume}/points/base.img`),
    await extentsOf(`${root}/volumes/${volume}/points/${next.point}.img`),
  ];
  const pid = process.pid;
  const idleMiB = residentMiB(pid, "now") ?? 0;
  resetPeak(pid);
  const times: number[] = [];
  for (let repeat = 0; repeat < repeats; repeat++) {
    const begin = performance.now();
    const { extents } = await storage.changed(volume, base, next);
    times.push(performance.now() - begin);
    const found = [...extents];
    if (found.length !== changedBlocks) throw new Error(`${found.length} extents were told, not ${changedBlocks}`);
  }
  const growthMiB = Math.max(0, (residentMiB(pid, "peak") ?? 0) - idleMiB);
  await live.close();
  await storage.close();
  const [ofBase = 0, ofNext = 0] = counts;
  return {
    extents: ofNext,
    extentsWalked: 2 * ofBase + ofNext,
    trackingMs: median(times),
    growthMiB,
    stallMs: median(stalls),
  };
}

async function extentsOf(path: string): Promise<number> {
  const image = await open(path);
  try {
    const { size } = await image.stat();
    let count = 0;
    for (let offset = 0; offset < size; ) {
      const found = await fiemap(image.fd, { offset, length: size - offset });
      const last = found.at(found.count - 1);
      if (last === undefined) break;
      count += found.count;
      offset = last.logical + last.length;
    }
    return count;
  } finally {
    await image.close();
  }
}

// As an agent does.
keepHeapSmall();
const [folder = "", extents = ""] = process.argv.slice(2);
process.stdout.write(JSON.stringify(await run(folder, Number(extents))));
