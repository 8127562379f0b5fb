// An agent that comes back with an older copy of its disk, on either side: no difference ever lands on a base that is not
// the same point, people see that histories diverged, and the next migration puts things right by itself.
import { cp, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import type { Cluster } from "../fakes/engines.ts";
import {
  changeVolume,
  ended,
  flaws,
  leftovers,
  makeVolume,
  migrate,
  openWorld,
  reaches,
  requireCopy,
  snapshot,
  start,
  type World,
} from "../fakes/migration-world.ts";
import { backUp } from "../fakes/old-disk.ts";

let world: World;
beforeEach(async () => {
  world = await openWorld({ limits: { attemptsMax: 20 } });
  await makeVolume(world, "data");
});
afterEach(() => world.clusters.close());

async function advance(name: string) {
  await changeVolume(world, "data");
  const job = await migrate(world, "data", name);
  expect([name, job.state, job.error]).toEqual([name, "Succeeded", null]);
  return job;
}

async function generations(): Promise<number[]> {
  return (await requireCopy(world, "data")).points.map((point) => point.generation);
}

async function allIsWell(): Promise<void> {
  expect(await flaws(world, "data")).toEqual([]);
  expect(await leftovers(world.clusters)).toEqual([]);
}

test("a source put back before points that the target has goes on from the last one both have", async () => {
  const first = await migrate(world, "data", "s1");
  const backup = await backUp(world.source);
  await advance("s2");
  await backup.restore();
  const other = await advance("s2-anew");
  expect(other).toMatchObject({ mode: { kind: "Delta" }, from: { pointId: first.to?.pointId } });
  expect((await requireCopy(world, "data")).diverged).toBe(true);
  const next = await advance("s3");
  expect(next.from?.pointId).toBe(other.to?.pointId);
  expect(await requireCopy(world, "data")).toMatchObject({ diverged: false });
  expect((await generations()).at(-1)).toBeGreaterThan(2);
  await allIsWell();
});

test("a source put back before every point that the target still has sends everything, and says why", async () => {
  await world.target.engine.api.putSource("source", {
    clusterName: "source",
    clusterUid: world.source.uid,
    caBundle: "ca",
    pointsKept: 1,
  });
  await migrate(world, "data", "s1");
  const backup = await backUp(world.source);
  await advance("s2");
  await backup.restore();
  const job = await advance("s2-anew");
  expect(job.mode).toEqual({ kind: "Allocated", reason: "NoCommonPoint" });
  expect((await requireCopy(world, "data")).diverged).toBe(true);
  await allIsWell();
});

test("a job that an old source takes up again, though it was done long ago, ends without moving a byte or the base back", async () => {
  await snapshot(world, "data", "s1");
  await world.source.engine.api.putJob("old", { volume: "data", location: "target", snapshot: "s1", suspend: true });
  const backup = await backUp(world.source);
  await world.source.engine.api.putJob("old", { volume: "data", location: "target", snapshot: "s1" });
  await ended(world.source, "old");
  await backup.restore();
  await world.source.engine.api.putJob("old", { volume: "data", location: "target", snapshot: "s1" });
  expect(await ended(world.source, "old")).toMatchObject({ state: "Succeeded", bytesSent: 0 });
  await advance("s2");
  await allIsWell();
});

test("a job to a point that the target has gone past succeeds, and the base stays at the newest point both have", async () => {
  await migrate(world, "data", "s1");
  const second = await advance("s2");
  const again = await start(world, "data", "s1", { name: "again" });
  expect(await ended(world.source, again)).toMatchObject({ state: "Succeeded", bytesSent: 0 });
  const { bases } = await world.source.engine.api.getVolume("data");
  expect(bases.map(({ pointId }) => pointId)).toEqual([second.to?.pointId]);
  await allIsWell();
});

test("a target put back before the base goes on from an older point, as long as the source has it", async () => {
  const first = await migrate(world, "data", "s1");
  const backup = await backUp(world.target);
  await advance("s2");
  await backup.restore();
  const third = await advance("s3");
  expect(third).toMatchObject({ mode: { kind: "Delta" }, from: { pointId: first.to?.pointId } });
  await allIsWell();
});

test("a target put back before every point that the source has kept gets everything again", async () => {
  await migrate(world, "data", "s1");
  const backup = await backUp(world.target);
  await advance("s2");
  await world.source.engine.api.removeSnapshot("data", "s1");
  await backup.restore();
  expect((await advance("s3")).mode).toEqual({ kind: "Allocated", reason: "NoCommonPoint" });
  expect((await requireCopy(world, "data")).diverged).toBe(true);
  await allIsWell();
});

test("a target put back to before it knew the volume gets everything", async () => {
  const backup = await backUp(world.target);
  await migrate(world, "data", "s1");
  await backup.restore();
  expect((await advance("s2")).mode).toEqual({ kind: "Allocated", reason: "FirstCopy" });
  await allIsWell();
});

test.each([
  ["everything", "all"],
  ["its journal alone", "journal"],
  ["its files alone", "files"],
] as const)(
  "a target of which %s is put back in the middle of a transfer trusts no unit that is not there",
  async (_what, what) => {
    await migrate(world, "data", "s1");
    await changeVolume(world, "data");
    await snapshot(world, "data", "s2");
    // One unit is stored; then the disk is kept aside, and the job goes on for another unit.
    let stores = 0;
    let isHeld = true;
    const held = Promise.withResolvers<void>();
    world.target.onCall = (method) => {
      if (method !== "store" || !isHeld) return;
      stores += 1;
      if (stores > 1) throw new Error("held");
    };
    const job = await start(world, "data", "s2");
    await reaches(world.source, job, ({ attempts, unitsStored }) => attempts > 0 && unitsStored > 0);
    await world.source.engine.api.putJob(job, { volume: "data", location: "target", snapshot: "s2", suspend: true });
    await reaches(world.source, job, ({ state }) => state === "Suspended");
    const backup = await backUp(world.target, what);
    stores = 0;
    await world.source.engine.api.putJob(job, { volume: "data", location: "target", snapshot: "s2" });
    await reaches(world.source, job, ({ unitsStored }) => unitsStored > 1);
    await world.source.engine.api.putJob(job, { volume: "data", location: "target", snapshot: "s2", suspend: true });
    await reaches(world.source, job, ({ state }) => state === "Suspended");
    await backup.restore();
    isHeld = false;
    held.resolve();
    await world.source.engine.api.putJob(job, { volume: "data", location: "target", snapshot: "s2" });
    expect((await ended(world.source, job)).state).toBe("Succeeded");
    await allIsWell();
  },
);

test("a disk restored file by file is not the disk that was sealed: everything is sent again, once", async () => {
  await migrate(world, "data", "s1");
  for (const cluster of [world.source, world.target]) {
    await cluster.stop();
    await cp(cluster.folder, `${cluster.folder}-copy`, { recursive: true, preserveTimestamps: true });
    await rm(cluster.folder, { recursive: true });
    await rename(`${cluster.folder}-copy`, cluster.folder);
    await cluster.start();
  }
  expect((await requireCopy(world, "data")).points.map(({ state }) => state)).toEqual(["lost"]);
  expect((await advance("s2")).mode?.kind).toBe("Allocated");
  expect((await advance("s3")).mode?.kind).toBe("Delta");
  expect((await requireCopy(world, "data")).points.map(({ state }) => state)).toEqual(["lost", "sealed", "sealed"]);
});

test.each([
  ["source", (one: World): Cluster => one.source],
  ["target", (one: World): Cluster => one.target],
])("points of the %s whose disk was not there at a start count again when it is back", async (_side, pick) => {
  await migrate(world, "data", "s1");
  const cluster = pick(world);
  const volumes = join(cluster.folder, "store", "volumes");
  await cluster.stop();
  await rename(volumes, `${volumes}-away`);
  await cluster.start();
  await cluster.stop();
  await rm(volumes, { recursive: true });
  await rename(`${volumes}-away`, volumes);
  await cluster.start();
  expect((await world.source.engine.api.getVolume("data")).problem).toBeNull();
  expect((await advance("s2")).mode).toEqual({ kind: "Delta", reason: "CommonBase" });
  await allIsWell();
});
