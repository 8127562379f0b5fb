// What the parts cost by themselves: finding what has changed, and holding writers up for a snapshot, for images in more
// and more pieces.
import { join } from "node:path";
import { mountLoop } from "../test/fakes/loop-fs.ts";
import { blockBytes, type Size } from "./cases.ts";
import { runCommand } from "./command.ts";
import type { MicroMeasurement } from "./micro-program.ts";
import type { FileSystem } from "./options.ts";
import { tell } from "./progress.ts";
import { type Micro, rounded } from "./results.ts";

const extentCounts: Readonly<Record<Size, readonly number[]>> = { full: [1_000, 40_000, 300_000], small: [1_000] };
const program = join(import.meta.dirname, "micro-program.ts");

export async function measureMicro(size: Size): Promise<Micro> {
  const found: (MicroMeasurement & { readonly fileSystem: FileSystem })[] = [];
  for (const fileSystem of ["xfs", "btrfs"] as const) {
    for (const extents of extentCounts[size]) {
      tell(`micro: ${extents} extents on ${fileSystem}`);
      found.push({ fileSystem, ...(await measureExtents(fileSystem, extents)) });
    }
  }
  return {
    changeTracking: found.map(({ fileSystem, extents, extentsWalked, trackingMs, growthMiB }) => ({
      fileSystem,
      extents,
      extentsWalked,
      microsecondsPerExtent: (trackingMs * 1000) / extentsWalked,
      totalMs: rounded(trackingMs),
      growthMiB: rounded(growthMiB),
    })),
    snapshotStall: found.map(({ fileSystem, extents, stallMs }) => ({
      fileSystem,
      extents,
      stallMs: rounded(stallMs),
      microsecondsPerExtent: (stallMs * 1000) / extents,
    })),
  };
}

async function measureExtents(fileSystem: FileSystem, extents: number): Promise<MicroMeasurement> {
  const disk = await mountLoop({ fs: fileSystem, sizeBytes: 640 * 2 ** 20 + 3 * extents * blockBytes });
  try {
    // The agent's own: see src/bin/longshore.ts.
    const settings = ["--max-semi-space-size=8", "--disable-warning=ExperimentalWarning"];
    const args = [...settings, program, join(disk.path, "longshore"), String(extents)];
    return JSON.parse(await runCommand(process.execPath, args, { env: { MALLOC_ARENA_MAX: "2" } })) as MicroMeasurement;
  } finally {
    await disk.unmount();
  }
}
