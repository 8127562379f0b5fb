// A source cluster and its targets as tests of migrations use them: small volumes cut into many units, what every point
// must hold, and what must be true once a run has ended.
import { randomBytes } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { setImmediate as turnOfLoop } from "node:timers/promises";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { JobSpec, JobView, MigratedVolumeView, SnapshotView } from "../../src/wire/schemas.ts";
import { type Cluster, type Clusters, type ClustersOptions, openClusters, pair } from "./engines.ts";

const KiB = 1024;
export const unitBytes = 64 * KiB;
export const volumeBytes = 512 * KiB;

export interface World {
  readonly clusters: Clusters;
  readonly source: Cluster;
  readonly target: Cluster;
  /** Every snapshot's bytes, by point id, as they were when it was taken. */
  readonly truth: Map<string, Buffer>;
}

/** A source and one target (or more, named), paired; volumes are cut into units of {@link unitBytes}, stored one by one. */
export async function openWorld(options: ClustersOptions & { names?: readonly string[] } = {}): Promise<World> {
  const { names = ["source", "target"], limits, ...rest } = options;
  const clusters = await openClusters(names, {
    inMemory: true,
    limits: { unitBytes, windowBytes: 2 * unitBytes, ...limits },
    ...rest,
  });
  const [source, ...targets] = clusters.all as [Cluster, ...Cluster[]];
  for (const target of targets) await pair(source, target);
  return { clusters, source, target: targets[0] as Cluster, truth: new Map() };
}

/** Makes a volume with two units of data, a hole, and data at its end. */
export async function makeVolume({ source }: World, name: string): Promise<void> {
  await source.engine.api.putVolume(name, { sizeBytes: volumeBytes, migrationEnabled: true });
  await write(source, name, 0, randomBytes(2 * unitBytes));
  await write(source, name, volumeBytes - unitBytes, randomBytes(unitBytes));
}

/** Changes a few blocks, so that an increment has three units and a hole. */
export async function changeVolume({ source }: World, name: string): Promise<void> {
  await write(source, name, 0, randomBytes(unitBytes));
  await write(source, name, 2 * unitBytes, randomBytes(unitBytes));
  await write(source, name, 4 * unitBytes, randomBytes(4 * KiB));
  await punchBlock(source, name, unitBytes);
}

export async function write(cluster: Cluster, volume: string, offset: number, data: Uint8Array): Promise<void> {
  const { path } = await cluster.engine.api.getVolume(volume);
  const file = await open(path, "r+");
  await file.write(data, 0, data.length, offset);
  await file.close();
}

function punchBlock(cluster: Cluster, volume: string, offset: number): Promise<void> {
  return write(cluster, volume, offset, new Uint8Array(4 * KiB));
}

/** Takes a snapshot and remembers what it holds. */
export async function snapshot(world: World, volume: string, name: string): Promise<SnapshotView> {
  const { path } = await world.source.engine.api.getVolume(volume);
  const bytes = await readFile(path);
  const view = await world.source.engine.api.putSnapshot(volume, name);
  world.truth.set(view.pointId, bytes);
  return view;
}

export interface JobOptions extends Partial<JobSpec> {
  readonly name?: string;
}

/** Starts the job `<volume>.<snapshot>.<location>` and returns its name. */
export async function start(world: World, volume: string, snapshotName: string, options: JobOptions = {}) {
  const { name = `${volume}.${snapshotName}.${options.location ?? "target"}`, ...spec } = options;
  await world.source.engine.api.putJob(name, { volume, location: "target", snapshot: snapshotName, ...spec });
  return name;
}

/** Snapshots, migrates and waits for the end. */
export async function migrate(
  world: World,
  volume: string,
  snapshotName: string,
  options: JobOptions = {},
): Promise<JobView> {
  await snapshot(world, volume, snapshotName);
  return ended(world.source, await start(world, volume, snapshotName, options));
}

/** The job once it has ended, however often its agent is restarted meanwhile. */
export function ended(cluster: Cluster, job: string): Promise<JobView> {
  return reaches(cluster, job, (view) => view.finishedAt !== null);
}

/**
 * How long a test waits for what has to come: not measured by how long that takes, but less than Jest's limit, so that it is told
 * what did not come. Not counted in turns of the event loop: on a busy machine thousands go by before a file is written.
 */
export const patienceMs = 45_000;

/** The job once `isThere`; follows it over restarts of its agent. */
export async function reaches(cluster: Cluster, job: string, isThere: (view: JobView) => boolean): Promise<JobView> {
  const signal = AbortSignal.timeout(patienceMs);
  let last: JobView | undefined;
  while (!signal.aborted) {
    const { engine } = cluster;
    try {
      for await (const view of engine.api.followJob(job, AbortSignal.any([signal, cluster.stopping]))) {
        last = view;
        if (isThere(view)) return view;
      }
      if (last?.finishedAt != null) break;
    } catch (error) {
      if (!cluster.stopping.aborted) throw error;
    }
    await cluster.running;
  }
  throw new Error(`job ${job} did not get there: ${JSON.stringify(last)}`);
}

/** The copy of a volume at a target; undefined before its first claim. */
export async function copyOf(
  world: World,
  volume: string,
  target = world.target,
): Promise<MigratedVolumeView | undefined> {
  const { uid } = await world.source.engine.api.getVolume(volume);
  const { items } = await target.engine.api.listMigratedVolumes();
  return items.find((item) => item.sourceVolumeUid === uid);
}

export async function requireCopy(world: World, volume: string, target = world.target): Promise<MigratedVolumeView> {
  const copy = await copyOf(world, volume, target);
  if (copy === undefined) throw new Error(`${target.name} has no copy of ${volume}`);
  return copy;
}

/** The UID a target keeps a copy under, from the folders of its store. */
async function imagesOf(cluster: Cluster, pointIds: ReadonlySet<string>) {
  const images = await cluster.storage.list();
  const owners = new Set(images.filter((image) => pointIds.has(image.point ?? "")).map((image) => image.volume));
  return images.filter((image) => owners.has(image.volume));
}

/** What is wrong with a volume and its copies after everything has ended; nothing, if all is as it must be. */
export async function flaws(world: World, volume: string, target = world.target): Promise<string[]> {
  return [...(await sourceFlaws(world, volume)), ...(await targetFlaws(world, volume, target))];
}

/** Reads again, until it fits, what background work (such as deleting files) is about to settle; the last value read. */
export async function settled<T>(read: () => Promise<T>, isSettled: (value: T) => boolean): Promise<T> {
  const endMs = performance.now() + patienceMs;
  for (;;) {
    const value = await read();
    if (isSettled(value) || performance.now() > endMs) return value;
    await turnOfLoop();
  }
}

function sourceFlaws(world: World, volume: string): Promise<string[]> {
  return settled(
    () => sourceFlawsNow(world, volume),
    (found) => found.length === 0,
  );
}

async function sourceFlawsNow({ source }: World, volume: string): Promise<string[]> {
  const found: string[] = [];
  const { items } = await source.engine.api.listJobs();
  for (const job of items) if (job.finishedAt === null) found.push(`job ${job.name} is ${job.state}`);
  const { snapshots, bases, uid } = await source.engine.api.getVolume(volume);
  for (const one of snapshots) {
    const expected = bases.filter((base) => base.pointId === one.pointId).map((base) => base.location);
    const holds = one.holds.filter((hold) => hold.reason !== "user").map(({ reason, owner }) => `${reason} ${owner}`);
    const isFit = holds.join() === expected.map((location) => `base ${location}`).join();
    if (!isFit) found.push(`snapshot ${one.name} has the holds ${holds.join() || "none"}`);
    if (one.released && one.holds.length === 0) found.push(`snapshot ${one.name} is released and still there`);
  }
  const images = (await source.storage.list()).filter((image) => image.volume === uid && image.kind === "point");
  if (images.length !== snapshots.length) found.push(`${images.length} files for ${snapshots.length} snapshots`);
  return found;
}

async function targetFlaws(world: World, volume: string, target: Cluster): Promise<string[]> {
  const found = await settled(
    () => targetFlawsNow(world, volume, target),
    (list) => list.length === 0,
  );
  return [...found, ...(await contentFlaws(world, await requireCopy(world, volume, target), target))];
}

async function targetFlawsNow(world: World, volume: string, target: Cluster): Promise<string[]> {
  const found: string[] = [];
  const copy = await requireCopy(world, volume, target);
  if (copy.state === "Frozen" || copy.transfer !== null) found.push(`the copy is ${copy.state}`);
  if (target.lanes.openLanes > 0) found.push(`${target.lanes.openLanes} lanes are open`);
  const { points } = copy;
  for (const point of points) if (point.holds.length > 0) found.push(`point ${point.generation} is held`);
  const images = await imagesOf(target, new Set(points.map((point) => point.pointId)));
  const known = new Set(points.map((point) => point.pointId));
  for (const { point } of images) if (!known.has(point ?? "")) found.push(`the file ${point} is left over`);
  return found;
}

/** (I1) Clones of every point hold, byte for byte, what the source's snapshot of that id held. */
async function contentFlaws({ truth }: World, copy: MigratedVolumeView, target: Cluster): Promise<string[]> {
  const found: string[] = [];
  for (const point of copy.points.filter(({ state }) => state === "sealed")) {
    const bytes = await cloneBytes(target, copy.name, point.pointId);
    const expected = truth.get(point.pointId);
    if (expected === undefined || !bytes.equals(expected)) found.push(`point ${point.generation} holds other bytes`);
  }
  return found;
}

/** The bytes of a clone, which is removed again. */
export async function cloneBytes(target: Cluster, migratedVolume: string, point: string): Promise<Buffer> {
  const name = `check-${randomBytes(6).toString("hex")}`;
  const { path, state } = await target.engine.api.putClone(name, { migratedVolume, point });
  if (path === null) throw new LongshoreError("Frozen", `clone ${name} is ${state}`);
  const bytes = await readFile(path);
  await target.engine.api.removeClone(name);
  return bytes;
}

/** Rows that must not be left once everything has ended. The engines are closed for it. */
export async function leftovers(clusters: Clusters): Promise<string[]> {
  const found: string[] = [];
  for (const cluster of clusters.all) {
    await cluster.stop();
    const database = new DatabaseSync(join(cluster.folder, "state.db"), { readOnly: true });
    const count = (sql: string) => (database.prepare(sql).get() as { n: number }).n;
    const rows: Record<string, string> = {
      staging: "SELECT count(*) AS n FROM staging",
      "plan pages": "SELECT count(*) AS n FROM planPages",
      "stored units": "SELECT count(*) AS n FROM storedUnits",
      "live terms": "SELECT count(*) AS n FROM migrated WHERE isTermLive = 1 OR frozenSince IS NOT NULL",
      "unfinished jobs": "SELECT count(*) AS n FROM jobs WHERE finishedAt IS NULL",
      "clones on their way": "SELECT count(*) AS n FROM clones WHERE state <> 'Ready'",
      "unfinished volumes": "SELECT count(*) AS n FROM volumes WHERE state <> 'ready'",
      "unfinished points": "SELECT count(*) AS n FROM points WHERE state NOT IN ('sealed', 'lost')",
      "job holds": "SELECT count(*) AS n FROM holds WHERE reason IN ('job', 'clone')",
      "base holds without base": `SELECT count(*) AS n FROM holds WHERE reason = 'base' AND NOT EXISTS (SELECT 1 FROM bases
        WHERE bases.owner = holds.owner AND bases.pointId = holds.pointId AND bases.location = holds.holder)`,
    };
    for (const [what, sql] of Object.entries(rows)) if (count(sql) > 0) found.push(`${cluster.name}: ${what}`);
    database.close();
    await cluster.start();
  }
  return found;
}
