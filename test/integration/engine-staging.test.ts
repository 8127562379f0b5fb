// What a target does with what it has stored so far: how it is told of, and how it is trusted again after a start.
import { randomBytes } from "node:crypto";
import * as fs from "node:fs/promises";
import { afterEach, describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import { punchHole } from "../../src/native/file-calls.ts";
import type { StorageBackend } from "../../src/storage/backend.ts";
import type { PeerApi, StoreResult } from "../../src/wire/peer.ts";
import { restart } from "../fakes/engines.ts";
import { FakeClock } from "../fakes/fake-clock.ts";
import {
  ended,
  flaws,
  leftovers,
  makeVolume,
  migrate,
  openWorld,
  reaches,
  settled,
  snapshot,
  start,
  unitBytes,
  volumeBytes,
  type World,
  write,
} from "../fakes/migration-world.ts";

let world: World;
afterEach(() => world.clusters.close());

test("what arrives is told twice a second, not with each batch", async () => {
  world = await openWorld({ clock: new FakeClock(), limits: { leaseMs: 10_000 } });
  await makeVolume(world, "data");
  await snapshot(world, "data", "s1");
  const { target } = world;
  const sequence = async () => (await target.engine.api.listMigratedVolumes()).sequence;
  const seen = new Map<keyof PeerApi, number>();
  let stores = 0;
  target.onCall = async (method) => {
    if (method === "store") stores += 1;
    if (!seen.has(method)) seen.set(method, await sequence());
  };
  expect((await ended(world.source, await start(world, "data", "s1"))).state).toBe("Succeeded");
  expect(stores).toBeGreaterThan(1);
  expect((seen.get("commit") ?? 0) - (seen.get("store") ?? 0)).toBe(1);
});

test("a target that is killed between sealing an image and recording that goes on from there", async () => {
  world = await openWorld({ limits: { attemptsMax: 1000, leaseMs: 900 } });
  const { source, target } = world;
  await makeVolume(world, "data");
  expect((await migrate(world, "data", "s1")).state).toBe("Succeeded");
  await write(source, "data", 0, randomBytes(4096));
  const live = await fs.open((await source.engine.api.getVolume("data")).path, "r+");
  await punchHole(live.fd, unitBytes, 4096);
  await live.close();
  let isSealed = false;
  target.onStorage = (step, when) => {
    if (step !== "seal" || when !== "after" || isSealed) return;
    isSealed = true;
    // Only begins to: the process waits for the very work that this is called from.
    void restart(target);
    throw new LongshoreError("Unreachable", "it is ending");
  };
  const job = await migrate(world, "data", "s2");
  expect([job.state, job.error, isSealed]).toEqual(["Succeeded", null, true]);
  expect(await flaws(world, "data")).toEqual([]);
  expect(await leftovers(world.clusters)).toEqual([]);
});

/** A few freezes are answered in time, each that the target is still at it. */
async function freezesAreAnsweredPatiently(): Promise<void> {
  const answers: unknown[] = [];
  const enough = Promise.withResolvers<void>();
  world.target.onReply = (method, _args, result) => {
    if (method !== "freeze") return;
    answers.push(result);
    if (answers.length === 3) enough.resolve();
  };
  await enough.promise;
  expect(answers).toEqual(Array(3).fill({ stored: [], isChecking: true }));
}

describe("a staging image that takes long to make", () => {
  let job: string;
  let made: number;
  let gate: ReturnType<typeof Promise.withResolvers<void>>;

  /** What the next job sends is a delta. */
  async function ready(leaseMs = 30_000): Promise<void> {
    world = await openWorld({ limits: { leaseMs } });
    await makeVolume(world, "data");
    await migrate(world, "data", "s1");
    await write(world.source, "data", 0, randomBytes(4096));
    await snapshot(world, "data", "s2");
    gate = Promise.withResolvers<void>();
  }

  /** A delta, whose image is held up until the gate is opened. Who asks for it is told after a third of a lease that it is being made. */
  async function begun(leaseMs?: number): Promise<void> {
    await ready(leaseMs);
    const reached = Promise.withResolvers<void>();
    made = 0;
    world.target.onStorage = (step, when) => {
      if (step !== "stage" || when !== "before") return undefined;
      made += 1;
      reached.resolve();
      return gate.promise;
    };
    job = await start(world, "data", "s2");
    await reached.promise;
  }
  afterEach(() => gate.resolve());

  const peer = () => world.target.engine.peer(world.source.uid, ["source"]);
  const claimOf = async (name: string) => {
    const { uid: volume } = await world.source.engine.api.getVolume("data");
    const { agentId: claimant } = world.source.engine;
    const claim = { job: name, volume, name: "data", metadata: {}, sizeBytes: volumeBytes, claimant };
    return { ...claim, nonce: randomBytes(16).toString("hex"), offeredEpoch: 0 };
  };

  async function arrives(): Promise<void> {
    expect((await ended(world.source, job)).state).toBe("Succeeded");
    expect(await flaws(world, "data")).toEqual([]);
    expect(await leftovers(world.clusters)).toEqual([]);
  }

  test("keeps nobody waiting, and costs the job no attempt however long it takes", async () => {
    await begun(900);
    await freezesAreAnsweredPatiently();
    const { volume } = await claimOf(job);
    expect(await peer().report(volume)).toMatchObject({ barrier: "Frozen", staging: { stored: [] } });
    gate.resolve();
    expect((await ended(world.source, job)).attempts).toBe(0);
    expect(made).toBe(1);
    await arrives();
  });

  test("is made once, though another term begins meanwhile, and whoever freezes under it waits for the same", async () => {
    await begun();
    const claim = await claimOf(job);
    await world.source.stop();
    const { term } = await peer().claim(claim);
    const target = { volume: claim.volume, term };
    const both = Promise.all([peer().freeze(target), peer().freeze(target)]);
    gate.resolve();
    expect([await both, made]).toEqual([[{ stored: [] }, { stored: [] }], 1]);
    await peer().abort(target, { discard: false });
    await world.source.start();
    await arrives();
    expect(made).toBe(1);
  });

  test("is ended and goes when its plan is given up, and the next one is made anew", async () => {
    await begun();
    const claim = await claimOf(job);
    await world.source.stop();
    const { term } = await peer().claim(claim);
    const dropped = peer().abort({ volume: claim.volume, term }, { discard: true });
    gate.resolve();
    await dropped;
    const points = (await world.target.storage.list()).filter(({ kind }) => kind === "point");
    expect(points).toHaveLength(1);
    await world.source.start();
    await arrives();
    expect(made).toBe(2);
  });

  test("is ended when the copy that it is for is removed, which does not wait for all of it", async () => {
    await ready();
    const underway = Promise.withResolvers<AbortSignal>();
    const stage: StorageBackend["stage"] = (_volume, _point, _base, _sizeBytes, signal) => {
      underway.resolve(signal as AbortSignal);
      return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
    };
    Object.assign(world.target.storage, { stage });
    job = await start(world, "data", "s2");
    const signal = await underway.promise;
    const claim = await claimOf(job);
    await world.source.stop();
    const { term } = await peer().claim(claim);
    await peer().abort({ volume: claim.volume, term }, { discard: false });
    expect(signal.aborted).toBe(false);
    const { api } = world.target.engine;
    const [copy] = (await api.listMigratedVolumes()).items;
    await api.removeMigratedVolume(String(copy?.name));
    expect(signal.aborted).toBe(true);
    expect(await world.target.storage.list()).toEqual([]);
  });

  test("counts for nothing when its process ends before that is recorded: it is made again", async () => {
    await begun();
    await world.source.stop();
    world.target.onStorage = () => undefined;
    const { target } = world;
    const stopped = target.stop();
    gate.resolve();
    await stopped;
    await target.start();
    let again = 0;
    target.onStorage = (step, when) => {
      if (step === "stage" && when === "after") again += 1;
    };
    await world.source.start();
    await arrives();
    expect(again).toBe(1);
  });

  test("whose base is found to be gone is not made: the job plans again, on what is there", async () => {
    await begun();
    const { volume: uid, point = "" } = (await world.target.storage.list()).find(({ kind }) => kind === "point") ?? {};
    await world.target.storage.deletePoint(uid ?? "", point);
    gate.resolve();
    expect((await ended(world.source, job)).mode).toMatchObject({ kind: "Allocated" });
    await arrives();
  });
});

describe("a target that starts again with a copy that is half stored", () => {
  /** Units that were sent although the target had told that it has them. */
  const resent: number[] = [];
  let stored: Set<number>;
  let job: string;

  /** Two of three units are stored when the target's process ends; the next one reads them again once it is let. */
  async function halfStored(leaseMs = 30_000): Promise<{ reading: () => number; open: () => void }> {
    world = await openWorld({ limits: { attemptsMax: 1000, leaseMs } });
    const { target } = world;
    await makeVolume(world, "data");
    await snapshot(world, "data", "s1");
    resent.length = 0;
    stored = new Set();
    const gate = Promise.withResolvers<void>();
    let reading = 0;
    let isBack: boolean | undefined;
    target.lanes.faults.onPiece = ({ unit }, payload) => {
      if (stored.has(unit)) resent.push(unit);
      return payload;
    };
    target.onCall = (method) => {
      if (method === "store" && isBack === false) throw new LongshoreError("Unreachable", "it is ending");
    };
    target.onReply = (method, _args, result) => {
      if (method !== "store") return;
      for (const unit of (result as StoreResult).stored) stored.add(unit);
      if (stored.size < 2 || isBack !== undefined) return;
      isBack = false;
      target.onStorage = (step, when) => {
        if (step !== "openStaging.digest" || when !== "before") return undefined;
        reading += 1;
        return gate.promise;
      };
      // Only begins to: the process waits for the very work that this is called from.
      void restart(target).then(() => {
        isBack = true;
      });
    };
    job = await start(world, "data", "s1");
    await settled(
      async () => reading,
      (count) => count > 1,
    );
    return { reading: () => reading, open: gate.resolve };
  }

  async function arrives(): Promise<void> {
    expect((await ended(world.source, job)).state).toBe("Succeeded");
    expect(resent).toEqual([]);
    expect(await flaws(world, "data")).toEqual([]);
    expect(await leftovers(world.clusters)).toEqual([]);
  }

  test("reads several units of it at once, and answers all others meanwhile", async () => {
    const { reading, open } = await halfStored();
    expect(reading()).toBe(2);
    const { uid } = await world.source.engine.api.getVolume("data");
    const peer = world.target.engine.peer(world.source.uid, ["source"]);
    expect(await peer.report(uid)).toMatchObject({ barrier: "Frozen", staging: { stored: [[0, 1]] } });
    const [copy] = (await world.target.engine.api.listMigratedVolumes()).items;
    const clone = await world.target.engine.api.putClone("c", { migratedVolume: copy?.name ?? "", point: "latest" });
    expect(clone.state).toBe("Waiting");
    await world.target.engine.api.removeClone("c");
    open();
    await arrives();
  });

  test("tells its source in time that it is at it, which costs the job no attempt however long it takes", async () => {
    const { open } = await halfStored(900);
    const { attempts } = await world.source.engine.api.getJob(job);
    await freezesAreAnsweredPatiently();
    open();
    const { attempts: spent } = await reaches(world.source, job, ({ finishedAt }) => finishedAt !== null);
    expect(spent).toBe(attempts);
    await arrives();
  });

  test("goes on where it was with another term: what was read again is not read once more", async () => {
    const { reading, open } = await halfStored();
    const { uid } = await world.source.engine.api.getVolume("data");
    const { agentId: claimant } = world.source.engine;
    await world.source.stop();
    // Both are under way when the next term ends it; they are found to be right, and that stays.
    const peer = world.target.engine.peer(world.source.uid, ["source"]);
    const claim = { job, volume: uid, name: "data", metadata: {}, sizeBytes: volumeBytes, claimant };
    const claimed = peer.claim({ ...claim, nonce: "0".repeat(32), offeredEpoch: 0 });
    open();
    const { term, report } = await claimed;
    expect(report.staging?.stored).toEqual([[0, 1]]);
    expect(await peer.freeze({ volume: uid, term })).toEqual({ stored: [[0, 1]] });
    expect(reading()).toBe(2);
    await peer.abort({ volume: uid, term }, { discard: false });
    await world.source.start();
    await arrives();
  });
});
