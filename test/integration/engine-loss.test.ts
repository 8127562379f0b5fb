// What vanishes, is damaged, or does not fit: files taken away behind our back, payload damaged on the wire or on the
// disk, connections torn at any piece, and disks that are full for a while.
import { open, readdir, rename, rm, unlink } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { Cluster } from "../fakes/engines.ts";
import {
  changeVolume,
  cloneBytes,
  ended,
  flaws,
  leftovers,
  makeVolume,
  migrate,
  openWorld,
  reaches,
  requireCopy,
  settled,
  snapshot,
  start,
  unitBytes,
  type World,
} from "../fakes/migration-world.ts";

let world: World;
beforeEach(async () => {
  world = await openWorld({ limits: { attemptsMax: 5 } });
  await makeVolume(world, "data");
});
afterEach(() => world.clusters.close());

async function allIsWell(): Promise<void> {
  expect(await flaws(world, "data")).toEqual([]);
  expect(await leftovers(world.clusters)).toEqual([]);
}

/** Where the image of a point lies at a cluster. */
async function fileOf(cluster: Cluster, point: string): Promise<string> {
  const image = (await cluster.storage.list()).find((one) => one.point === point);
  if (image === undefined) throw new Error(`${cluster.name} has no image of ${point}`);
  return join(cluster.folder, "store", "volumes", image.volume, "points", `${point}.img`);
}

async function pointOf(job: Promise<{ to: { pointId: string } | null; state: string }>): Promise<string> {
  const { to, state } = await job;
  expect(state).toBe("Succeeded");
  return to?.pointId ?? "";
}

async function increment(name: string) {
  await changeVolume(world, "data");
  return migrate(world, "data", name);
}

describe("a file that vanishes", () => {
  test("the snapshot to be sent: the job fails for good with the reason, and the next one carries its changes", async () => {
    await migrate(world, "data", "s1");
    await changeVolume(world, "data");
    const { pointId } = await snapshot(world, "data", "s2");
    await unlink(await fileOf(world.source, pointId));
    const job = await ended(world.source, await start(world, "data", "s2"));
    expect(job).toMatchObject({ state: "Failed", error: { code: "SnapshotGone" } });
    const { snapshots } = await world.source.engine.api.getVolume("data");
    expect(snapshots.map(({ name, state, holds }) => [name, state, holds.length])).toEqual([
      ["s1", "sealed", 1],
      ["s2", "lost", 0],
    ]);
    expect(await increment("s3")).toMatchObject({ state: "Succeeded", mode: { kind: "Delta" } });
    await world.source.engine.api.removeSnapshot("data", "s2");
    await allIsWell();
  });

  test("the source's base: everything is sent, with the reason", async () => {
    const base = await pointOf(migrate(world, "data", "s1"));
    await unlink(await fileOf(world.source, base));
    expect(await increment("s2")).toMatchObject({
      state: "Succeeded",
      mode: { kind: "Allocated", reason: "NoCommonPoint" },
    });
    await world.source.engine.api.removeSnapshot("data", "s1");
    await allIsWell();
  });

  test("the snapshot while it is being sent: the job goes on with the file it has open", async () => {
    const { pointId } = await snapshot(world, "data", "s1");
    const file = await fileOf(world.source, pointId);
    let pieces = 0;
    world.target.lanes.faults.onPiece = async (_, payload) => {
      pieces += 1;
      if (pieces === 2) await unlink(file);
      return payload;
    };
    expect((await ended(world.source, await start(world, "data", "s1"))).state).toBe("Succeeded");
    // It is no base then: the next job finds out, and sends everything.
    expect(await increment("s2")).toMatchObject({ state: "Succeeded", mode: { reason: "NoCommonPoint" } });
    await world.source.engine.api.removeSnapshot("data", "s1");
    await allIsWell();
  });

  test("the target's newest point: the next job starts from the one before", async () => {
    const first = await pointOf(migrate(world, "data", "s1"));
    const second = await pointOf(increment("s2"));
    await unlink(await fileOf(world.target, second));
    const third = await increment("s3");
    expect(third).toMatchObject({ state: "Succeeded", mode: { kind: "Delta" }, from: { pointId: first } });
    expect((await requireCopy(world, "data")).points.map(({ state }) => state)).toEqual(["sealed", "lost", "sealed"]);
  });

  test("a point of the target that the source still has can be sent again", async () => {
    await pointOf(migrate(world, "data", "s1"));
    const second = await pointOf(increment("s2"));
    await unlink(await fileOf(world.target, second));
    const again = await start(world, "data", "s2", { name: "again" });
    expect(await ended(world.source, again)).toMatchObject({ state: "Succeeded", mode: { kind: "Delta" } });
    expect((await requireCopy(world, "data")).points.map(({ pointId }) => pointId).at(-1)).toBe(second);
    await allIsWell();
  });

  test("the target's base while the source plans: the job plans again", async () => {
    const first = await pointOf(migrate(world, "data", "s1"));
    await changeVolume(world, "data");
    await snapshot(world, "data", "s2");
    let isGone = false;
    world.target.onCall = async (method) => {
      if (method !== "putPlan" || isGone) return;
      isGone = true;
      await unlink(await fileOf(world.target, first));
    };
    expect(await ended(world.source, await start(world, "data", "s2"))).toMatchObject({
      state: "Succeeded",
      mode: { kind: "Allocated", reason: "NoCommonPoint" },
    });
  });

  test("the base of an empty difference before its commit: no point is made of nothing", async () => {
    const first = await pointOf(migrate(world, "data", "s1"));
    await snapshot(world, "data", "s2");
    let isGone = false;
    world.target.onCall = async (method) => {
      if (method !== "commit" || isGone) return;
      isGone = true;
      await unlink(await fileOf(world.target, first));
    };
    expect((await ended(world.source, await start(world, "data", "s2"))).state).toBe("Succeeded");
    const { name, points } = await requireCopy(world, "data");
    const newest = points.at(-1)?.pointId ?? "";
    expect(points.map(({ state }) => state)).toEqual(["lost", "sealed"]);
    expect((await cloneBytes(world.target, name, newest)).equals(world.truth.get(newest) as Buffer)).toBe(true);
  });

  test("the staging image: it is made again, and its units are sent again", async () => {
    await migrate(world, "data", "s1");
    await changeVolume(world, "data");
    const { pointId } = await snapshot(world, "data", "s2");
    let stores = 0;
    world.target.onCall = async (method) => {
      if (method !== "store") return;
      stores += 1;
      if (stores !== 2) return;
      await unlink(await fileOf(world.target, pointId));
      throw new LongshoreError("Unreachable", "cut off");
    };
    expect((await ended(world.source, await start(world, "data", "s2"))).state).toBe("Succeeded");
    await allIsWell();
  });

  test("the live image: told with the volume, and forgotten when it is back", async () => {
    const { path } = await world.source.engine.api.getVolume("data");
    await rename(path, `${path}.away`);
    await expect(world.source.engine.api.putSnapshot("data", "s1")).rejects.toMatchObject({ code: "VolumeGone" });
    const { problem, snapshots } = await world.source.engine.api.getVolume("data");
    expect([problem?.code, snapshots]).toEqual(["VolumeGone", []]);
    await rename(`${path}.away`, path);
    await snapshot(world, "data", "s1");
    expect((await world.source.engine.api.getVolume("data")).problem).toBeNull();
  });
});

describe("a connection", () => {
  test("torn at any piece is opened again, and the job goes on", async () => {
    for (let n = 1; ; n++) {
      let pieces = 0;
      world.target.lanes.faults.onPiece = (_, payload) => {
        pieces += 1;
        if (pieces === n) throw new LongshoreError("StreamTorn", "torn");
        return payload;
      };
      expect((await increment(`s${n}`)).state).toBe("Succeeded");
      if (pieces < n) {
        expect(n).toBeGreaterThan(3);
        break;
      }
    }
    await allIsWell();
  });
});

describe("payload that is damaged", () => {
  const damaged = (payload: Uint8Array) => {
    const other = Buffer.from(payload);
    other[100] = (other[100] ?? 0) ^ 1;
    return other;
  };

  test("on the wire is sent again", async () => {
    let pieces = 0;
    world.target.lanes.faults.onPiece = (_, payload) => {
      pieces += 1;
      return pieces === 2 || pieces === 3 ? damaged(payload) : payload;
    };
    const job = await migrate(world, "data", "s1");
    expect(job).toMatchObject({ state: "Succeeded", attempts: 0, bytesTotal: 3 * unitBytes });
    expect(job.bytesSent).toBeGreaterThan(5 * unitBytes);
    await allIsWell();
  });

  test("time and again ends the job with the reason, after a bounded number of tries", async () => {
    await migrate(world, "data", "s1");
    let pieces = 0;
    world.target.lanes.faults.onPiece = (piece, payload) => {
      if (piece.offset !== 0) return payload;
      pieces += 1;
      return damaged(payload);
    };
    expect(await increment("s2")).toMatchObject({ state: "Failed", error: { code: "ChecksumMismatch" } });
    expect(pieces).toBeLessThanOrEqual(5 * 5);
    expect((await requireCopy(world, "data")).state).toBe("Available");
    delete world.target.lanes.faults.onPiece;
    expect((await increment("s3")).state).toBe("Succeeded");
    await allIsWell();
  });

  test("on its way to the disk is found by reading back, and sent again", async () => {
    const { pointId } = await snapshot(world, "data", "s1");
    let syncs = 0;
    world.target.onStorage = async (step, when) => {
      if (step !== "openStaging.sync" || when !== "after") return;
      syncs += 1;
      if (syncs !== 2) return;
      const file = await open(await fileOf(world.target, pointId), "r+");
      await file.write(Buffer.from("not what was sent"), 0, 17, unitBytes);
      await file.sync();
      await file.close();
    };
    expect(await ended(world.source, await start(world, "data", "s1"))).toMatchObject({
      state: "Succeeded",
      attempts: 0,
    });
    await allIsWell();
  });
});

describe("a full disk", () => {
  const full = new LongshoreError("DiskFull", "no space left on device");

  /** From the n-th effect on nothing fits, until `frees` more have failed. */
  function fills(cluster: Cluster, effects: RegExp, n: number, frees: number): { readonly wasHit: boolean } {
    const seen = { count: 0, wasHit: false };
    cluster.onStorage = (step, when) => {
      if (when !== "before" || !effects.test(step)) return;
      seen.count += 1;
      if (seen.count < n || seen.count >= n + frees) return;
      seen.wasHit = true;
      throw full;
    };
    return seen;
  }

  test("at the target holds a job up, wherever it comes, and it goes on when there is room", async () => {
    for (let n = 1; ; n++) {
      await changeVolume(world, "data");
      await snapshot(world, "data", `s${n}`);
      const disk = fills(world.target, /stage|seal|\.write|\.punch|\.sync/, n, 2);
      const job = await ended(world.source, await start(world, "data", `s${n}`));
      expect([n, job.state]).toEqual([n, "Succeeded"]);
      if (!disk.wasHit) {
        expect(n).toBeGreaterThan(5);
        break;
      }
    }
    await allIsWell();
  });

  test("that stays full ends the job with the reason, and thaws the target at the previous point", async () => {
    await migrate(world, "data", "s1");
    fills(world.target, /\.write/, 2, Number.POSITIVE_INFINITY);
    expect(await increment("s2")).toMatchObject({ state: "Failed", error: { code: "DiskFull" } });
    expect((await requireCopy(world, "data")).state).toBe("Available");
    world.target.onStorage = () => undefined;
    expect((await increment("s3")).state).toBe("Succeeded");
    await allIsWell();
  });

  test("takes no new volume or snapshot below its reserve", async () => {
    const { api } = world.source.engine;
    world.source.freeBytes = -1;
    await expect(api.putVolume("more", { sizeBytes: unitBytes })).rejects.toMatchObject({ code: "DiskFull" });
    await expect(api.putSnapshot("data", "s1")).rejects.toMatchObject({ code: "DiskFull" });
    expect((await api.listVolumes()).items.map(({ name }) => name)).toEqual(["data"]);
  });

  test("needs room only for what is not stored yet, and stops when even that is gone", async () => {
    world.target.freeBytes = 3 * unitBytes;
    let stores = 0;
    world.target.onReply = (method) => {
      if (method !== "store") return;
      stores += 1;
      world.target.freeBytes = (3 - stores) * unitBytes;
      if (stores === 2) throw new LongshoreError("StreamTorn", "cut off");
    };
    expect(await migrate(world, "data", "s1")).toMatchObject({ state: "Succeeded", attempts: 1 });
    world.target.onReply = (method) => {
      if (method === "laneTicket") world.target.freeBytes = -1;
    };
    world.target.freeBytes = 10 * unitBytes;
    expect(await increment("s2")).toMatchObject({ state: "Failed", error: { code: "DiskFull" } });
  });

  test("at the source fails a volume or snapshot that is asked for, and leaves nothing of it", async () => {
    const { api } = world.source.engine;
    for (const [effect, ask] of [
      ["create", () => api.putVolume("more", { sizeBytes: unitBytes })],
      ["snapshot", () => api.putSnapshot("data", "s1")],
    ] as const) {
      fills(world.source, new RegExp(`^${effect}$`), 1, 1);
      await expect(ask()).rejects.toMatchObject({ code: "DiskFull" });
      await ask();
    }
    expect((await api.getVolume("data")).snapshots.map(({ state }) => state)).toEqual(["sealed"]);
    expect(await leftovers(world.clusters)).toEqual([]);
  });

  test("at the target fails a clone, which is made when it is asked for again", async () => {
    await migrate(world, "data", "s1");
    const { name: migratedVolume } = await requireCopy(world, "data");
    const { api } = world.target.engine;
    fills(world.target, /^clone$/, 1, 1);
    const ask = () => api.putClone("c", { migratedVolume, point: "latest" });
    await expect(ask()).rejects.toMatchObject({ code: "DiskFull" });
    expect((await ask()).state).toBe("Ready");
    await allIsWell();
  });
});

test("a snapshot that was never finished is taken afresh when it is asked for again", async () => {
  let isBroken = true;
  world.source.onStorage = (step, when) => {
    if (isBroken && (step === "snapshot" || step === "deletePoint") && when === "before") throw new Error("i/o error");
  };
  await expect(world.source.engine.api.putSnapshot("data", "s1")).rejects.toThrow("i/o error");
  isBroken = false;
  expect((await snapshot(world, "data", "s1")).state).toBe("sealed");
  await allIsWellAtTheSource();
});

async function allIsWellAtTheSource(): Promise<void> {
  const files = await settled(
    async () => (await world.source.storage.list()).filter(({ kind }) => kind === "point").length,
    (count) => count === 1,
  );
  expect(files).toBe(1);
  expect(await leftovers(world.clusters)).toEqual([]);
}

test("files nobody knows are moved out of the way at a start, never deleted", async () => {
  const job = await start(world, "data", (await snapshot(world, "data", "s1")).name);
  await reaches(world.source, job, ({ state }) => state === "Succeeded");
  await world.source.stop();
  await rm(join(world.source.folder, "state.db"));
  await world.source.start();
  expect((await world.source.engine.api.listVolumes()).items).toEqual([]);
  expect(await world.source.storage.list()).toEqual([]);
  expect(await readdir(join(world.source.folder, "store", "quarantine"))).toHaveLength(2);
});
