// Two storage clusters of one real agent each, joined as source and target, to be killed, stopped, filled and set back by
// tests. What every point has to hold is noted when its snapshot is taken, and compared after each test.
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { glob, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import type { MigratedVolumeView, Transport } from "../../src/wire/schemas.ts";
import { type LoopFs, type LoopFsOptions, mountLoop } from "../fakes/loop-fs.ts";
import { temporaryFolder } from "../fakes/temporary-folder.ts";
import { eventually, type Process } from "./process.ts";
import { type StorageCluster, startStorageCluster } from "./storage-cluster.ts";

/** Generous: that a machine is busy is no reason to fail. */
export const patience = { timeoutMs: 60_000 };
export const mebibyte = 2 ** 20;

/** What may be on its way and not yet stored, at most; it is lost with a connection. */
export const windowBytes = 512 * 1024;

const limits = {
  unit: "128Ki",
  window: "512Ki",
  retryDelay: "100ms",
  retryDelayMax: "1s",
  // Trying is bounded by the tests, not by the engine: how often a busy machine makes it try is not known.
  attemptsMax: 10_000,
};

export type Backend = "reflink" | "copy";

export interface PairOptions {
  /** Added to the limits of both agents. */
  readonly limits?: Readonly<Record<string, string | number>>;
  /** How data travels; `tls` unless given. */
  readonly transport?: Transport;
  /** Has both agents keep their data on disks of their own, which with `reflink` they always do. */
  readonly disk?: LoopFsOptions;
}

/** A storage cluster with the disk its data lie on, if that is one of its own. */
export interface Side extends StorageCluster {
  readonly disk: LoopFs | undefined;
}

export interface Pair {
  readonly folder: string;
  readonly backend: Backend;
  readonly source: Side;
  readonly target: Side;
  /** SHA-256 of the volume at the moment of each snapshot, by point id. */
  readonly truth: Map<string, string>;
  /** Points whose files a test took away. */
  readonly vanished: Set<string>;
  /** Starts what does not run, and lets go on what was stopped. */
  ready(): Promise<void>;
  /** What has arrived of a volume; throws while there is nothing. */
  arrived(volumeUid: string): Promise<MigratedVolumeView>;
  /** Throws unless every sealed point on either side is what the volume was when the snapshot of that id was taken. */
  checkEveryPoint(): Promise<void>;
  close(): Promise<void>;
}

export async function openPair(backend: Backend, options: PairOptions = {}): Promise<Pair> {
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    const folder = await temporaryFolder("pair");
    closers.push(() => folder.remove());
    const open = (name: string) => openSide(name, { ...options, backend, folder: folder.path }, closers);
    const source = await open("source");
    const target = await open("target");
    await target.api.putSource("source", { ...source.asSource(), pointsKept: 3 });
    return joined({ folder: folder.path, backend, source, target, truth: new Map(), vanished: new Set() }, close);
  } catch (error) {
    await close();
    throw error;
  }
}

async function openSide(
  name: string,
  options: PairOptions & { backend: Backend; folder: string },
  closers: (() => Promise<void>)[],
): Promise<Side> {
  const { backend } = options;
  const folder = join(options.folder, name);
  await mkdir(folder);
  const wanted: LoopFsOptions | undefined =
    options.disk ?? (backend === "reflink" ? { fs: "xfs", sizeBytes: 320 * mebibyte } : undefined);
  const disk = wanted && (await mountLoop(wanted));
  if (disk !== undefined) closers.push(() => disk.unmount());
  const dataDir = disk && { dataDir: join(disk.path, "longshore") };
  const cluster = await startStorageCluster({
    name,
    folder,
    backend,
    ...dataDir,
    ...(options.transport && { transport: options.transport }),
    limits: { ...limits, ...options.limits },
  });
  closers.push(async () => {
    await cluster.agent().signal("SIGCONT");
    await cluster.stop();
  });
  return Object.assign(cluster, { disk });
}

/** The same two the other way round, for what goes back. The source has to be let in once: `putSource`. */
export function reversed({ source, target, close, ...pair }: Pair): Pair {
  return joined({ ...pair, source: target, target: source }, close);
}

type Joined = Pick<Pair, "folder" | "backend" | "source" | "target" | "truth" | "vanished">;

function joined(facts: Joined, close: () => Promise<void>): Pair {
  const { source, target, truth, vanished } = facts;
  return {
    ...facts,
    close,
    async ready() {
      for (const side of [source, target]) {
        await side.agent().signal("SIGCONT");
        if (endOf(side.agent()) !== undefined) await side.start();
      }
    },
    async arrived(volumeUid) {
      const { items } = await target.api.listMigratedVolumes();
      const found = items.find((item) => item.sourceVolumeUid === volumeUid);
      assert.ok(found, `nothing has arrived of volume ${volumeUid}`);
      return found;
    },
    async checkEveryPoint() {
      const { items: volumes } = await source.api.listVolumes();
      const { items: copies } = await target.api.listMigratedVolumes();
      const sides = [
        [source, volumes.flatMap((volume) => volume.snapshots)],
        [target, copies.flatMap((copy) => copy.points)],
      ] as const;
      for (const [side, points] of sides) {
        for (const { pointId, state } of points) {
          if (state !== "sealed" || vanished.has(pointId)) continue;
          const digest = await digestOf(await pointFile(side, pointId));
          assert.equal(digest, truth.get(pointId), `point ${pointId} at the ${side.name} is not what was snapshotted`);
        }
      }
    },
  };
}

/** The image of a point, wherever it lies under the data of a side. */
export async function pointFile(side: Side, pointId: string): Promise<string> {
  for await (const found of glob(`volumes/*/points/${pointId}.img`, { cwd: side.dataDir })) {
    return join(side.dataDir, found);
  }
  throw new Error(`the ${side.name} has no file of point ${pointId}`);
}

export async function digestOf(path: string): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path, { highWaterMark: mebibyte }), hash);
  return hash.digest("hex");
}

/** How a process ended, with the end of its log; `undefined` while it runs. */
export function endOf(process: Process): string | undefined {
  try {
    process.checkRunning();
    return undefined;
  } catch (error) {
    return String(error);
  }
}

/** Ends both agents' processes at the same moment, or one's. */
export async function kill(...sides: readonly Side[]): Promise<void> {
  await Promise.all(sides.map((side) => side.agent().signal("SIGKILL")));
}

/** {@link eventually}, patiently. */
export function soon<T>(what: string, probe: () => Promise<T | undefined>): Promise<T> {
  return eventually(what, probe, patience);
}
