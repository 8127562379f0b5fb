// Failover, test and failback: an application goes on with a clone where its copy is, and what it writes there comes back as
// the difference to what its original cluster still has, into a new copy beside the original.
import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import type { Cluster } from "../fakes/engines.ts";
import { bothWays, contentOf, failOver, reversed } from "../fakes/failback-world.ts";
import { type LoopFs, mountLoop } from "../fakes/loop-fs.ts";
import {
  changeVolume,
  cloneBytes,
  ended,
  flaws,
  leftovers,
  migrate,
  reaches,
  requireCopy,
  settled,
  snapshot,
  start,
  unitBytes,
  volumeBytes,
  type World,
  write,
} from "../fakes/migration-world.ts";
import { needs } from "../needs.ts";

const blockBytes = 4096;
const backTo = { location: "source" };

/** What holds the points of a copy. */
async function holdsOf(world: World): Promise<string[]> {
  const { points } = await requireCopy(world, "data");
  return points.flatMap(({ holds }) => holds.map(({ reason, owner }) => `${reason} ${owner}`));
}

/** All of a volume and its snapshots that must not change. */
async function imageOf(cluster: Cluster, volume: string) {
  const { uid, snapshots } = await cluster.engine.api.getVolume(volume);
  const images = (await cluster.storage.list()).filter((image) => image.volume === uid);
  const live = await contentOf(cluster, volume);
  return { images, live, snapshots: snapshots.map(({ name, state, pointId }) => ({ name, state, pointId })) };
}

const unheld = (holds: readonly string[]) => holds.length === 0;

function story(open: () => Promise<World>): void {
  let world: World;
  beforeEach(async () => {
    world = await open();
  });
  afterEach(() => world.clusters.close());

  async function allIsWell(...ways: (readonly [World, string])[]): Promise<void> {
    for (const [way, volume] of ways) expect(await flaws(way, volume)).toEqual([]);
    expect(await leftovers(world.clusters)).toEqual([]);
  }

  test("a test is a clone: it disturbs nothing and leaves nothing", async () => {
    const { name } = await requireCopy(world, "data");
    await world.target.engine.api.putClone("try", { migratedVolume: name, point: "latest" });
    await write(world.target, "try", 0, randomBytes(unitBytes));
    await changeVolume(world, "data");
    expect(await migrate(world, "data", "s3")).toMatchObject({ state: "Succeeded", mode: { kind: "Delta" } });
    expect(await holdsOf(world)).toEqual([]);
    await world.target.engine.api.removeClone("try");
    await allIsWell([world, "data"]);
  });

  test("the first job back sends what was written since, beside the original, which stays as it was", async () => {
    const back = reversed(world);
    const original = await imageOf(world.source, "data");
    await failOver(world, "data-2");
    expect(await holdsOf(world)).toEqual(["base lineage/data-2"]);
    await write(world.target, "data-2", 3 * unitBytes, randomBytes(2 * blockBytes));
    await write(world.target, "data-2", 0, new Uint8Array(blockBytes));

    const first = await migrate(back, "data-2", "b1", backTo);
    expect(first).toMatchObject({ state: "Succeeded", mode: { kind: "Delta", reason: "Lineage" } });
    expect(first.bytesTotal + first.bytesPunched).toBeLessThanOrEqual(3 * blockBytes);
    // Each frame has a few bytes of its own.
    expect(first.bytesSent).toBeLessThan(4 * blockBytes);
    expect(await settled(() => holdsOf(world), unheld)).toEqual([]);
    expect(await imageOf(world.source, "data")).toMatchObject({ live: original.live, snapshots: original.snapshots });

    await write(world.target, "data-2", 5 * unitBytes, randomBytes(blockBytes));
    const second = await migrate(back, "data-2", "b2", backTo);
    expect(second).toMatchObject({ mode: { kind: "Delta", reason: "CommonBase" }, bytesTotal: blockBytes });
    await allIsWell([world, "data"], [back, "data-2"]);
  });

  test("the original goes on being migrated, and both arrive", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    for (const name of ["s3", "s4", "s5", "s6", "s7"]) {
      await changeVolume(world, "data");
      expect((await migrate(world, "data", name)).state).toBe("Succeeded");
    }
    // Its own cluster keeps five newer points, yet the clone's is still there.
    expect((await migrate(back, "data-2", "b1", backTo)).mode).toEqual({ kind: "Delta", reason: "Lineage" });
    expect(await settled(() => holdsOf(world), unheld)).toEqual([]);
    await allIsWell([world, "data"], [back, "data-2"]);
  });

  test("a clone nothing was written to comes back without a byte, as an image of its own", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    const job = await migrate(back, "data-2", "b1", backTo);
    expect(job).toMatchObject({ state: "Succeeded", mode: { reason: "Lineage" }, bytesTotal: 0, bytesSent: 0 });
    await world.source.engine.api.removeVolume("data");
    await allIsWell([back, "data-2"]);
  });

  test("a clone that was grown comes back grown", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    await world.target.engine.api.putVolume("data-2", { sizeBytes: 2 * volumeBytes, migrationEnabled: true });
    await write(world.target, "data-2", volumeBytes + unitBytes, randomBytes(blockBytes));
    const job = await migrate(back, "data-2", "b1", backTo);
    expect(job).toMatchObject({ mode: { kind: "Delta", reason: "Lineage" }, bytesTotal: blockBytes });
    await allIsWell([world, "data"], [back, "data-2"]);
  });

  test("a dry run tells what the first job back would send, and leaves nothing", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    await write(world.target, "data-2", 0, randomBytes(blockBytes));
    await snapshot(back, "data-2", "b1");
    const dry = await ended(world.target, await start(back, "data-2", "b1", { ...backTo, name: "dry", dryRun: true }));
    expect(dry).toMatchObject({ mode: { kind: "Delta", reason: "Lineage" }, bytesTotal: blockBytes, bytesSent: 0 });
    expect((await world.source.engine.api.listMigratedVolumes()).items).toEqual([]);
    await world.source.engine.api.removeVolume("data");
    const lost = await ended(
      world.target,
      await start(back, "data-2", "b1", { ...backTo, name: "dry-2", dryRun: true }),
    );
    expect(lost.mode).toEqual({ kind: "Allocated", reason: "LineageGone" });
  });

  test("when the original's point is gone, everything is sent, with the reason", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    await changeVolume(world, "data");
    await migrate(world, "data", "s3");
    await world.source.engine.api.removeSnapshot("data", "s2");
    const job = await migrate(back, "data-2", "b1", backTo);
    expect(job).toMatchObject({ state: "Succeeded", mode: { kind: "Allocated", reason: "LineageGone" } });
    expect(await settled(() => holdsOf(world), unheld)).toEqual([]);
    await allIsWell([world, "data"], [back, "data-2"]);
  });

  test("when the copy that the clone was made of is gone, everything is sent, with the reason", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    await world.target.engine.api.removeMigratedVolume((await requireCopy(world, "data")).name);
    const job = await migrate(back, "data-2", "b1", backTo);
    expect(job).toMatchObject({ state: "Succeeded", mode: { kind: "Allocated", reason: "LineageGone" } });
    await allIsWell([back, "data-2"]);
  });

  test("when the original itself is gone, everything is sent, with the reason", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    await world.source.engine.api.removeVolume("data");
    const job = await migrate(back, "data-2", "b1", backTo);
    expect(job).toMatchObject({ state: "Succeeded", mode: { kind: "Allocated", reason: "LineageGone" } });
    await allIsWell([back, "data-2"]);
  });

  test("the hold goes with the clone, and with its wish to be migrated", async () => {
    await failOver(world, "data-2");
    await failOver(world, "data-3");
    expect(await holdsOf(world)).toEqual(["base lineage/data-2", "base lineage/data-3"]);
    await world.target.engine.api.putVolume("data-3", { sizeBytes: volumeBytes, migrationEnabled: false });
    expect(await holdsOf(world)).toEqual(["base lineage/data-2"]);
    await world.target.engine.api.removeVolume("data-2");
    expect(await holdsOf(world)).toEqual([]);
    await allIsWell([world, "data"]);
  });

  test("the original's point is kept while the way back lasts, though it was released meanwhile", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    await write(world.target, "data-2", 0, randomBytes(unitBytes));
    let released: string[] | undefined;
    world.source.onCall = async (method) => {
      if (method !== "laneTicket" || released !== undefined) return;
      released = [];
      await changeVolume(world, "data");
      await migrate(world, "data", "s3");
      await world.source.engine.api.removeSnapshot("data", "s2");
      const { snapshots } = await world.source.engine.api.getVolume("data");
      released = snapshots.flatMap(({ name, holds }) => holds.map(({ owner }) => `${name} ${owner}`));
    };
    const job = await migrate(back, "data-2", "b1", backTo);
    expect(job).toMatchObject({ state: "Succeeded", mode: { reason: "Lineage" } });
    const copy = await requireCopy(back, "data-2");
    expect(released).toEqual([`s2 lineage/${copy.name}`, "s3 target"]);
    const names = async () => (await world.source.engine.api.getVolume("data")).snapshots.map(({ name }) => name);
    expect(await settled(names, (left) => !left.includes("s2"))).toEqual(["s1", "s3"]);
    await allIsWell([world, "data"], [back, "data-2"]);
  });

  test("the original's point is let go when what has half arrived from it is deleted", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    await write(world.target, "data-2", 0, randomBytes(unitBytes));
    const { promise: held, resolve: open } = Promise.withResolvers<void>();
    world.source.onCall = async (method) => {
      if (method === "laneTicket") await held;
    };
    await snapshot(back, "data-2", "b1");
    const job = await start(back, "data-2", "b1", backTo);
    await reaches(back.source, job, ({ barrier }) => barrier === "Frozen");
    const holds = async () => {
      const { snapshots } = await world.source.engine.api.getVolume("data");
      return snapshots.flatMap((one) => one.holds.map(({ owner }) => `${one.name} ${owner}`));
    };
    const copy = await requireCopy(back, "data-2");
    expect(await holds()).toContain(`s2 lineage/${copy.name}`);
    await back.source.engine.api.putJob(job, { volume: "data-2", snapshot: "b1", ...backTo, suspend: true });
    open();
    await reaches(back.source, job, ({ state }) => state === "Suspended");
    await world.source.engine.api.removeMigratedVolume(copy.name);
    expect(await holds()).not.toContain(`s2 lineage/${copy.name}`);
  });

  test("there and back again: a clone of what came back has its lineage in the other cluster", async () => {
    const back = reversed(world);
    await failOver(world, "data-2");
    await write(world.target, "data-2", 0, randomBytes(blockBytes));
    await migrate(back, "data-2", "b1", backTo);
    const copy = await requireCopy(back, "data-2");
    await world.source.engine.api.putClone("data-3", { migratedVolume: copy.name, point: "latest" });
    await world.source.engine.api.putVolume("data-3", { sizeBytes: volumeBytes, migrationEnabled: true });
    await write(world.source, "data-3", unitBytes, randomBytes(blockBytes));
    const job = await migrate(world, "data-3", "c1");
    expect(job).toMatchObject({ mode: { kind: "Delta", reason: "Lineage" }, bytesTotal: blockBytes });
    await allIsWell([world, "data"], [back, "data-2"], [world, "data-3"]);
  });
}

describe("with the copy backend", () => story(bothWays));

needs("root", "xfs")(
  "with the reflink backend, the first job back sends what was written since",
  async () => {
    let disk: LoopFs | undefined;
    let world: World | undefined;
    try {
      disk = await mountLoop({ fs: "xfs", sizeBytes: 320 << 20 });
      world = await bothWays({ parent: disk.path, backend: "reflink" });
      const back = reversed(world);
      await failOver(world, "data-2");
      await write(world.target, "data-2", 3 * unitBytes, randomBytes(2 * blockBytes));
      const job = await migrate(back, "data-2", "b1", backTo);
      expect(job).toMatchObject({ mode: { kind: "Delta", reason: "Lineage" }, bytesTotal: 2 * blockBytes });
      // The new copy shares what it has in common with the original's point.
      const { name } = await requireCopy(back, "data-2");
      expect(
        (await cloneBytes(world.source, name, job.to?.pointId ?? "")).equals(await contentOf(world.target, "data-2")),
      ).toBe(true);
      expect(await flaws(back, "data-2")).toEqual([]);
      expect(await leftovers(world.clusters)).toEqual([]);
    } finally {
      await world?.clusters.close();
      await disk?.unmount();
    }
  },
  60_000,
);
