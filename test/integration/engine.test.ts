// Migrations between whole engines in one process: the way from a snapshot to a clone, and what interrupts it.
import { randomBytes } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import type { JobView, MigratedVolumeView } from "../../src/wire/schemas.ts";
import { type Cluster, type Clusters, openClusters, pair } from "../fakes/engines.ts";
import { ended } from "../fakes/migration-world.ts";

const MiB = 1 << 20;
const sizeBytes = 24 * MiB;

let clusters: Clusters;
let source: Cluster;
let target: Cluster;

beforeEach(async () => {
  clusters = await openClusters(["source", "target"]);
  [source, target] = clusters.all as [Cluster, Cluster];
  await pair(source, target);
  await source.engine.api.putVolume("data", { sizeBytes, migrationEnabled: true });
});
afterEach(() => clusters.close());

async function write(offset: number, data: Uint8Array): Promise<void> {
  const { path } = await source.engine.api.getVolume("data");
  const file = await open(path, "r+");
  await file.write(data, 0, data.length, offset);
  await file.close();
}

async function migrate(name: string): Promise<JobView> {
  await source.engine.api.putSnapshot("data", name);
  await source.engine.api.putJob(`job-${name}`, { volume: "data", location: "target", snapshot: name });
  return ended(source, `job-${name}`);
}

async function arrived(cluster = target): Promise<MigratedVolumeView> {
  const { items } = await cluster.engine.api.listMigratedVolumes();
  expect(items).toHaveLength(1);
  return items[0] as MigratedVolumeView;
}

/** The bytes that a clone of the newest point holds. */
async function cloned(name: string): Promise<Buffer> {
  const { name: migratedVolume } = await arrived();
  const clone = await target.engine.api.putClone(name, { migratedVolume, point: "latest" });
  expect(clone.state).toBe("Ready");
  return readFile(clone.path as string);
}

async function live(): Promise<Buffer> {
  return readFile((await source.engine.api.getVolume("data")).path);
}

test("the first job sends what is allocated, the second only what changed, and clones hold exactly the source's bytes", async () => {
  await write(0, randomBytes(9 * MiB));
  const first = await migrate("s1");
  expect(first).toMatchObject({
    state: "Succeeded",
    barrier: "Released",
    mode: { kind: "Allocated", reason: "FirstCopy" },
    bytesTotal: 9 * MiB,
    from: null,
  });
  expect((await cloned("c1")).equals(await live())).toBe(true);

  await write(4 * MiB, randomBytes(8192));
  await write(20 * MiB, randomBytes(4096));
  const second = await migrate("s2");
  expect(second).toMatchObject({ state: "Succeeded", mode: { kind: "Delta" }, bytesTotal: 12_288 });
  expect(second.from?.pointId).toBe(first.to?.pointId);
  expect(second.bytesSent).toBeLessThanOrEqual(12_288 * 1.05);
  expect((await cloned("c2")).equals(await live())).toBe(true);

  const { snapshots, bases } = await source.engine.api.getVolume("data");
  expect(bases.map((base) => base.pointId)).toEqual([second.to?.pointId]);
  expect(snapshots.map(({ name, holds }) => [name, holds.map((hold) => hold.reason)])).toEqual([
    ["s1", []],
    ["s2", ["base"]],
  ]);
});

test("an unchanged volume commits a new point without moving a byte", async () => {
  await write(0, randomBytes(MiB));
  await migrate("s1");
  const job = await migrate("s2");
  expect(job).toMatchObject({ state: "Succeeded", mode: { kind: "Delta" }, bytesTotal: 0, bytesSent: 0 });
  expect((await arrived()).points).toHaveLength(2);
  expect((await cloned("c")).equals(await live())).toBe(true);
});

test("holes that appear are holes at the target, and a volume that grew arrives grown", async () => {
  await write(0, randomBytes(4 * MiB));
  await migrate("s1");
  await source.engine.api.putVolume("data", { sizeBytes: sizeBytes + 8 * MiB });
  await write(MiB, new Uint8Array(2 * MiB));
  await write(sizeBytes + MiB, randomBytes(4096));
  expect((await migrate("s2")).state).toBe("Succeeded");
  const bytes = await cloned("c");
  expect(bytes.length).toBe(sizeBytes + 8 * MiB);
  expect(bytes.equals(await live())).toBe(true);
});

test("a released snapshot stays while a location needs it as its base", async () => {
  await write(0, randomBytes(MiB));
  await migrate("s1");
  const kept = await source.engine.api.removeSnapshot("data", "s1");
  expect(kept).toMatchObject({ state: "sealed", released: true, holds: [{ reason: "base", owner: "target" }] });
  await migrate("s2");
  expect(await source.engine.api.removeSnapshot("data", "s1")).toBeUndefined();
  const { snapshots } = await source.engine.api.getVolume("data");
  expect(snapshots.map(({ name }) => name)).toEqual(["s2"]);
});
