// Clones at the target: who waits and what they get, over freezes, commits, aborts, crashes and removals.
import { open } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import type { Clock } from "../../src/base/clock.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { CloneSpec, CloneView } from "../../src/wire/schemas.ts";
import { restart } from "../fakes/engines.ts";
import { FakeClock, settledTasks } from "../fakes/fake-clock.ts";
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
  settled,
  snapshot,
  start,
  volumeBytes,
  type World,
} from "../fakes/migration-world.ts";

let world: World;
let gate: ReturnType<typeof closedGate>;
let first: string;
let migratedVolume: string;

/** Holds a migration up while it is frozen, until it is opened. */
function closedGate() {
  const { promise, resolve } = Promise.withResolvers<void>();
  return { promise, open: resolve };
}

beforeEach(async () => {
  world = await openWorld();
  await makeVolume(world, "data");
  await migrate(world, "data", "s1");
  const copy = await requireCopy(world, "data");
  migratedVolume = copy.name;
  first = copy.points[0]?.pointId ?? "";
});
afterEach(async () => {
  gate?.open();
  await world.clusters.close();
});

const api = () => world.target.engine.api;
const ask = (name: string, spec: Partial<CloneSpec> = {}): Promise<CloneView> =>
  api().putClone(name, { migratedVolume, point: "latest", ...spec });

/** A job that is frozen, and stays so until the gate is opened. */
async function frozen(name: string): Promise<string> {
  gate = closedGate();
  const held = gate.promise;
  world.target.onCall = async (method) => {
    if (method === "commit") await held;
  };
  await changeVolume(world, "data");
  await snapshot(world, "data", name);
  const job = await start(world, "data", name);
  await reaches(world.source, job, ({ barrier }) => barrier === "Stored");
  return job;
}

const served = (name: string) =>
  settled(
    () => api().getClone(name),
    ({ state }) => state === "Ready",
  );

test("a clone of the newest point waits while frozen, and is served by the commit with the new point", async () => {
  const job = await frozen("s2");
  const waiting = await ask("c");
  expect(waiting).toMatchObject({ state: "Waiting", path: null, bytesTotal: 139_264, bytesStored: 139_264 });
  expect(await ask("c")).toMatchObject({ state: "Waiting", requestedAt: waiting.requestedAt });
  expect((await requireCopy(world, "data")).waitingClones).toBe(1);
  gate.open();
  const { to } = await ended(world.source, job);
  expect(await served("c")).toMatchObject({ state: "Ready", pointId: to?.pointId, sizeBytes: volumeBytes });
  // The same name is the same clone, whatever `latest` is by now.
  await migrate(world, "data", "s3");
  expect((await ask("c")).pointId).toBe(to?.pointId);
  expect(await flaws(world, "data")).toEqual([]);
});

test("a clone that waits is served between two jobs that follow each other at once", async () => {
  const job = await frozen("s2");
  await ask("c");
  await snapshot(world, "data", "s3");
  const next = await start(world, "data", "s3");
  gate.open();
  const { to } = await ended(world.source, job);
  await ended(world.source, next);
  expect(await served("c")).toMatchObject({ state: "Ready", pointId: to?.pointId });
});

test("an abort thaws, and serves those that wait with the previous point", async () => {
  const job = await frozen("s2");
  await ask("c");
  await world.source.engine.api.putJob(job, { volume: "data", location: "target", snapshot: "s2", cancel: true });
  world.target.onCall = () => undefined;
  gate.open();
  const view = await ended(world.source, job);
  // The commit was on its way already: either way the clone holds what the newest point does.
  const expected = view.state === "Cancelled" ? first : view.to?.pointId;
  expect(await served("c")).toMatchObject({ pointId: expected });
});

test("a transfer that is given up serves those that wait with the previous point", async () => {
  await changeVolume(world, "data");
  await snapshot(world, "data", "s2");
  const waiting = Promise.withResolvers<void>();
  world.target.onCall = async (method) => {
    if (method !== "store") return;
    await ask("c");
    waiting.resolve();
    throw new LongshoreError("BadRequest", "refused for good");
  };
  const job = await start(world, "data", "s2");
  await waiting.promise;
  expect((await ended(world.source, job)).state).toBe("Failed");
  expect(await served("c")).toMatchObject({ state: "Ready", pointId: first });
});

test("a retry of the same job does not thaw: who waits gets the new point", async () => {
  await changeVolume(world, "data");
  await snapshot(world, "data", "s2");
  const states: string[] = [];
  let stores = 0;
  world.target.onCall = async (method) => {
    if (method === "store") {
      stores += 1;
      if (stores === 1) await ask("c");
      if (stores <= 2) throw new LongshoreError("Unreachable", "cut off");
    }
    if (stores > 0) states.push((await requireCopy(world, "data")).state);
  };
  const { to } = await ended(world.source, await start(world, "data", "s2"));
  expect(new Set(states.slice(0, -1))).toEqual(new Set(["Frozen"]));
  expect(await served("c")).toMatchObject({ pointId: to?.pointId });
});

test("older points can be cloned by their id at any time, the newest by its id only when it is open", async () => {
  const second = (await migrate(world, "data", "s2")).to?.pointId ?? "";
  const job = await frozen("s3");
  expect(await ask("old", { point: first })).toMatchObject({ state: "Ready", pointId: first });
  expect(await ask("new", { point: second })).toMatchObject({ state: "Waiting" });
  gate.open();
  await ended(world.source, job);
  expect(await served("new")).toMatchObject({ state: "Ready", pointId: second });
  await expect(ask("none", { point: "0".repeat(32) })).rejects.toMatchObject({ code: "PointGone" });
  await expect(api().getClone("none")).rejects.toMatchObject({ code: "NotFound" });
});

test("nothing is handed out of a copy that has no point yet, and its first commit serves who waits", async () => {
  await makeVolume(world, "fresh");
  gate = closedGate();
  const held = gate.promise;
  world.target.onCall = async (method) => {
    if (method === "commit") await held;
  };
  await snapshot(world, "fresh", "s1");
  const job = await start(world, "fresh", "s1");
  await reaches(world.source, job, ({ barrier }) => barrier === "Stored");
  const { name, state } = await requireCopy(world, "fresh");
  expect(state).toBe("Frozen");
  expect(await api().putClone("c", { migratedVolume: name, point: "latest" })).toMatchObject({ state: "Waiting" });
  gate.open();
  const { to } = await ended(world.source, job);
  expect(await served("c")).toMatchObject({ state: "Ready", pointId: to?.pointId });
});

test("a clone is a volume that outlives its point, its copy, and later migrations, and knows where it is from", async () => {
  const { volume, path } = await ask("c", { sizeBytes: 2 * volumeBytes, metadata: { of: "test" } });
  await api().removeMigratedVolume(migratedVolume);
  const clone = await api().getVolume(volume ?? "");
  expect(clone).toMatchObject({ path, sizeBytes: 2 * volumeBytes, metadata: { of: "test" } });
  const { uid: volumeUid } = await world.source.engine.api.getVolume("data");
  expect(clone.lineage).toEqual({ clusterUid: world.source.uid, volumeUid, pointId: first });
  expect(await api().getClone("c")).toMatchObject({ state: "Ready", volume });
  await api().removeClone("c");
  await expect(api().getVolume("c")).rejects.toMatchObject({ code: "NotFound" });
});

test("a clone smaller than its point, or under a name that is taken, is refused and leaves nothing", async () => {
  await api().putVolume("mine", { sizeBytes: 4096 });
  await expect(ask("mine")).rejects.toMatchObject({ code: "NameTaken" });
  await expect(api().getClone("mine")).rejects.toMatchObject({ code: "NotFound" });
  await expect(ask("small", { sizeBytes: 4096 })).rejects.toMatchObject({ code: "ShrinkRefused" });
  await api().removeClone("small");
  await ask("c");
  await expect(ask("c", { point: first })).rejects.toMatchObject({ code: "NameTaken" });
  expect(await flaws(world, "data")).toEqual([]);
  expect(await leftovers(world.clusters)).toEqual([]);
});

test("a clone that is being made keeps its point, which pruning wants, until it is done or dropped", async () => {
  await world.target.engine.api.putSource("source", {
    clusterName: "source",
    clusterUid: world.source.uid,
    caBundle: "ca",
    pointsKept: 1,
  });
  world.target.onStorage = (step, when) => {
    if (step === "clone" && when === "before") throw new LongshoreError("DiskFull", "full");
  };
  await expect(ask("c")).rejects.toMatchObject({ code: "DiskFull" });
  await expect(api().removeMigratedVolume(migratedVolume)).rejects.toMatchObject({ code: "InUse" });
  await changeVolume(world, "data");
  await migrate(world, "data", "s2");
  await migrate(world, "data", "s3");
  world.target.onStorage = () => undefined;
  await ask("c");
  expect(await served("c")).toMatchObject({ state: "Ready", pointId: first });
  const files = await settled(
    async () => (await world.target.storage.list()).filter(({ kind }) => kind === "point").length,
    (count) => count === 1,
  );
  expect(files).toBe(1);
  expect(await flaws(world, "data")).toEqual([]);
  expect(await leftovers(world.clusters)).toEqual([]);
});

test("a clone of a pinned point that waits is served by the commit, though pruning wants the point", async () => {
  const source = { clusterName: "source", clusterUid: world.source.uid, caBundle: "ca", pointsKept: 1 };
  await world.target.engine.api.putSource("source", source);
  const job = await frozen("s2");
  expect(await ask("c", { point: first })).toMatchObject({ state: "Waiting" });
  gate.open();
  await ended(world.source, job);
  expect(await served("c")).toMatchObject({ state: "Ready", pointId: first });
  const kept = async () => (await requireCopy(world, "data")).points.map(({ pointId }) => pointId);
  expect(await settled(kept, (points) => !points.includes(first))).toHaveLength(1);
  expect(await leftovers(world.clusters)).toEqual([]);
});

test("a clone that waits for a volume which is not frozen any more is served by the next start", async () => {
  await frozen("s2");
  expect(await ask("c")).toMatchObject({ state: "Waiting" });
  await world.source.stop();
  await world.target.stop();
  // What a process leaves that ends between the transaction that thaws and the clones that are served after it.
  const journal = new DatabaseSync(join(world.target.folder, "state.db"));
  journal.exec("UPDATE migrated SET frozenSince = NULL, isTermLive = 0");
  journal.close();
  await world.target.start();
  expect(await served("c")).toMatchObject({ state: "Ready", pointId: first });
  await world.source.start();
});

test.each(["before", "after"] as const)(
  "a crash %s the image of a clone is made is finished by the next start",
  async (moment) => {
    world.target.onStorage = (step, when) => {
      if (step === "clone" && when === moment) throw new Error("killed");
    };
    await expect(ask("c")).rejects.toThrow("killed");
    await world.target.stop();
    world.target.onStorage = () => undefined;
    await world.target.start();
    expect(await served("c")).toMatchObject({ state: "Ready", pointId: first });
    expect(await leftovers(world.clusters)).toEqual([]);
  },
);

describe("a clone whose image takes long to make", () => {
  /** How many images of clones are begun; each is held up there. */
  let begun: number;

  /** Asks for a clone, whose image is held up until the gate is opened. */
  async function begin(name: string): Promise<{ asked: Promise<CloneView> }> {
    gate = closedGate();
    const held = gate.promise;
    const reached = Promise.withResolvers<void>();
    begun = 0;
    world.target.onStorage = (step, when) => {
      if (step !== "clone" || when !== "before") return undefined;
      begun += 1;
      reached.resolve();
      return held;
    };
    const asked = ask(name);
    await reached.promise;
    return { asked };
  }

  test("keeps nobody waiting: the next job comes and goes meanwhile, and it is of the point that was the newest", async () => {
    await world.target.engine.api.putSource("source", {
      clusterName: "source",
      clusterUid: world.source.uid,
      caBundle: "ca",
      pointsKept: 1,
    });
    const { asked } = await begin("c");
    await changeVolume(world, "data");
    expect((await migrate(world, "data", "s2")).state).toBe("Succeeded");
    // It holds its point, which pruning wants.
    expect((await world.target.storage.list()).map(({ point }) => point)).toContain(first);
    expect(await api().getClone("c")).toMatchObject({ state: "Waiting", pointId: first });
    gate.open();
    expect(await asked).toMatchObject({ state: "Ready", pointId: first });
    const points = async () => (await world.target.storage.list()).flatMap(({ point }) => point ?? []);
    expect(await settled(points, (left) => !left.includes(first))).toHaveLength(1);
    expect(await flaws(world, "data")).toEqual([]);
    expect(await leftovers(world.clusters)).toEqual([]);
  });

  test("is made once, however many ask for it meanwhile", async () => {
    const { asked } = await begin("c");
    const again = ask("c");
    await expect(ask("c", { point: first })).rejects.toMatchObject({ code: "NameTaken" });
    gate.open();
    expect([(await asked).state, (await again).state, begun]).toEqual(["Ready", "Ready", 1]);
  });

  test("is removed when it is there, and keeps nobody waiting until then; its copy stays as long", async () => {
    const { asked } = await begin("c");
    const removed = api().removeClone("c");
    await expect(api().removeMigratedVolume(migratedVolume)).rejects.toMatchObject({ code: "InUse" });
    gate.open();
    await Promise.all([asked, removed]);
    expect((await api().listVolumes()).items).toEqual([]);
    expect(await leftovers(world.clusters)).toEqual([]);
  });

  test("fails for all who ask for it, and is made when it is asked for again", async () => {
    gate = closedGate();
    const held = gate.promise;
    world.target.onStorage = async (step, when) => {
      if (step !== "clone" || when !== "before") return;
      await held;
      throw new LongshoreError("DiskFull", "full");
    };
    const both = Promise.allSettled([ask("c"), ask("c")]);
    gate.open();
    expect(await both).toEqual(
      Array(2).fill({ status: "rejected", reason: expect.objectContaining({ code: "DiskFull" }) }),
    );
    world.target.onStorage = () => undefined;
    expect(await ask("c")).toMatchObject({ state: "Ready", pointId: first });
  });
});

test("a clone whose point vanishes before anything of it was made is of the next one", async () => {
  await migrate(world, "data", "s2");
  await changeVolume(world, "data");
  const third = (await migrate(world, "data", "s3")).to?.pointId;
  const image = (await world.target.storage.list()).find(({ point }) => point === third);
  let isGone = false;
  world.target.onStorage = async (step, when) => {
    if (step !== "clone" || when !== "before" || isGone) return;
    isGone = true;
    await world.target.storage.deletePoint(image?.volume ?? "", third ?? "");
  };
  await expect(ask("c")).rejects.toMatchObject({ code: "PointGone" });
  const { state, pointId } = await ask("c");
  expect([state, pointId === third]).toEqual(["Ready", false]);
  expect(await leftovers(world.clusters)).toEqual([]);
});

test("a clone can be withdrawn while it waits, and deleted when it is ready; doing so again changes nothing", async () => {
  const job = await frozen("s2");
  await ask("c");
  await api().removeClone("c");
  await api().removeClone("c");
  expect((await requireCopy(world, "data")).waitingClones).toBe(0);
  gate.open();
  await ended(world.source, job);
  await ask("c");
  await api().removeClone("c");
  expect((await api().listVolumes()).items).toEqual([]);
  expect(await flaws(world, "data")).toEqual([]);
});

test("a clone that is in use is not deleted, and stays what it was", async () => {
  await ask("c");
  await api().putSnapshot("c", "s1");
  await api().putHold("c", "s1", "ann");
  await expect(api().removeClone("c")).rejects.toMatchObject({ code: "InUse" });
  expect(await api().getClone("c")).toMatchObject({ state: "Ready" });
  await restart(world.target);
  await api().removeHold("c", "s1", { reason: "user", owner: "ann" });
  await api().removeClone("c");
  await expect(api().getClone("c")).rejects.toMatchObject({ code: "NotFound" });
});

test("a copy that is deleted takes along the requests that wait for it", async () => {
  world.target.onCall = (method) => {
    if (method === "putPlan") throw new LongshoreError("BadRequest", "refused for good");
  };
  await makeVolume(world, "fresh");
  await migrate(world, "fresh", "s1");
  const { name } = await requireCopy(world, "fresh");
  expect(await api().putClone("c", { migratedVolume: name, point: "latest" })).toMatchObject({ state: "Waiting" });
  await api().removeMigratedVolume(name);
  await expect(api().getClone("c")).rejects.toMatchObject({ code: "NotFound" });
  await expect(api().putClone("c", { migratedVolume: name, point: "latest" })).rejects.toMatchObject({
    code: "NotFound",
  });
});

test("a copy is not deleted while it is frozen", async () => {
  const job = await frozen("s2");
  await expect(api().removeMigratedVolume(migratedVolume)).rejects.toMatchObject({ code: "Frozen" });
  gate.open();
  await ended(world.source, job);
  await settled(
    () => requireCopy(world, "data"),
    ({ transfer }) => transfer === null,
  );
  await api().removeMigratedVolume(migratedVolume);
  expect(await world.target.storage.list()).toEqual([]);
});

/** A world by this clock, in which the clone `half` fails half-way for as long as it is asked for. */
async function askInVain(clock: Clock): Promise<void> {
  world = await openWorld({ clock, limits: { memberIntervalMs: 60_000 } });
  await makeVolume(world, "data");
  await migrate(world, "data", "s1");
  migratedVolume = (await requireCopy(world, "data")).name;
  world.target.onStorage = (step, when) => {
    if (step === "clone" && when === "before") throw new LongshoreError("DiskFull", "full");
  };
  await expect(ask("half")).rejects.toMatchObject({ code: "DiskFull" });
}

test("a request nobody repeats for fifteen minutes is dropped, also one that failed half-way", async () => {
  await world.clusters.close();
  const clock = new FakeClock();
  await askInVain(clock);
  await clock.advance(10 * 60_000);
  await expect(ask("half")).rejects.toMatchObject({ code: "DiskFull" });
  await clock.advance(10 * 60_000);
  expect(await api().getClone("half")).toMatchObject({ state: "Waiting" });
  await clock.advance(6 * 60_000);
  const left = await settled(
    () => api().listClones(),
    ({ items }) => items.length === 0,
  );
  expect(left.items).toEqual([]);
  expect(await leftovers(world.clusters)).toEqual([]);
});

test("a request nobody repeats is dropped although the wall clock was set back since", async () => {
  await world.clusters.close();
  const fake = new FakeClock();
  let skewMs = 0;
  const clock: Clock = {
    nowMs: () => fake.nowMs() + skewMs,
    monotonicMs: () => fake.monotonicMs(),
    sleep: (durationMs, signal) => fake.sleep(durationMs, signal),
  };
  await askInVain(clock);
  skewMs = -10 * 60_000;
  await fake.advance(60_000);
  expect((await api().listClones()).items).toHaveLength(1);
  skewMs = -24 * 3_600_000;
  await fake.advance(60_000);
  const left = await settled(
    () => api().listClones(),
    ({ items }) => items.length === 0,
  );
  expect(left.items).toEqual([]);
});

describe("a clone that expires", () => {
  const expires = { expires: true };
  let clock: FakeClock;

  beforeEach(async () => {
    await world.clusters.close();
    clock = new FakeClock();
    world = await openWorld({ clock, limits: { memberIntervalMs: 60_000 } });
    await makeVolume(world, "data");
    await migrate(world, "data", "s1");
    migratedVolume = (await requireCopy(world, "data")).name;
  });

  /** Asked for while frozen, and served when nobody asks any more. */
  async function servedAlone(...names: string[]): Promise<void> {
    const job = await frozen("s2");
    for (const name of names) expect(await ask(name, expires)).toMatchObject({ state: "Waiting" });
    gate.open();
    await ended(world.source, job);
    for (const name of names) await served(name);
  }

  const left = (count: number) =>
    settled(
      async () => (await api().listClones()).items.map(({ name }) => name),
      (names) => names.length === count,
    );

  test("goes with its volume a quarter of an hour after it was served, also over a restart", async () => {
    await servedAlone("c");
    await clock.advance(10 * 60_000);
    await restart(world.target);
    await clock.advance(4 * 60_000);
    expect(await api().getClone("c")).toMatchObject({ state: "Ready" });
    await clock.advance(2 * 60_000);
    expect(await left(0)).toEqual([]);
    await expect(api().getVolume("c")).rejects.toMatchObject({ code: "NotFound" });
    expect(await leftovers(world.clusters)).toEqual([]);
  });

  test("stays once it was asked for, or is told to be ready at once, or was asked for without that word", async () => {
    await servedAlone("again", "forgotten", "plainly");
    await ask("again", expires);
    await ask("plainly");
    await ask("at-once", expires);
    await clock.advance(16 * 60_000);
    expect(await left(3)).toEqual(["again", "at-once", "plainly"]);
    await clock.advance(60 * 60_000);
    expect(await left(3)).toEqual(["again", "at-once", "plainly"]);
  });

  test("stays when it was used, though nobody has asked for it: attached once, snapshotted, or migrated", async () => {
    await servedAlone("attached", "forgotten", "migrated", "snapshotted");
    const writer = await open((await api().getVolume("attached")).path, "r+");
    const noted = Promise.withResolvers<void>();
    world.target.onStorage = (step, when) => {
      if (step !== "attachedTo" || when !== "after") return;
      world.target.onTransaction = (moment) => {
        if (moment === "after") noted.resolve();
      };
    };
    // Looked at every ten seconds.
    await clock.advance(10_000);
    await noted.promise;
    await writer.close();
    await api().putSnapshot("snapshotted", "s1");
    await api().putVolume("migrated", { sizeBytes: volumeBytes, migrationEnabled: true });
    await clock.advance(16 * 60_000);
    expect(await left(3)).toEqual(["attached", "migrated", "snapshotted"]);
  });

  test("that is asked for while it is being removed is made anew", async () => {
    await servedAlone("c");
    const uid = (await api().getVolume("c")).uid;
    const [reached, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    world.target.onStorage = async (step, when) => {
      if (step !== "remove" || when !== "before") return;
      reached.resolve();
      await go.promise;
    };
    await clock.advance(16 * 60_000);
    await reached.promise;
    const again = ask("c", expires);
    go.resolve();
    expect(await again).toMatchObject({ state: "Ready" });
    expect((await api().getVolume("c")).uid).not.toBe(uid);
  });

  test("stays when something is done with it while it is looked at, and is looked at again", async () => {
    await servedAlone("c");
    await clock.advance(14 * 60_000);
    let looks = 0;
    world.target.onStorage = async (step, when) => {
      if (step !== "attachedTo" || when !== "after") return;
      looks += 1;
      await api().putVolume("c", { sizeBytes: volumeBytes + looks * 4096 });
    };
    await clock.advance(61_000);
    const lookedAt = async () => {
      await clock.advance(1_000);
      return looks;
    };
    expect(await settled(lookedAt, (times) => times >= 8)).toBeGreaterThanOrEqual(8);
    expect(await api().getClone("c")).toMatchObject({ state: "Ready" });
    expect((await api().getVolume("c")).sizeBytes).toBeGreaterThan(volumeBytes);
    world.target.onStorage = () => undefined;
    // The last look may still be under way at one tick or another.
    const lookedFor = async () => {
      await clock.advance(1_000);
      return (await api().listClones()).items;
    };
    expect(await settled(lookedFor, (items) => items.length === 0)).toEqual([]);
  });

  test("is not said to be ready while it is dropped, though its copy was deleted meanwhile", async () => {
    await servedAlone("c");
    const [deleting, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    world.target.onStorage = async (step, when) => {
      if (step !== "deletePoint" || when !== "before") return;
      deleting.resolve();
      await go.promise;
    };
    const deleted = api().removeMigratedVolume(migratedVolume);
    await deleting.promise;
    // To be dropped as soon as the copy is gone; before that nobody looks at it any more but whoever drops it.
    await clock.advance(16 * 60_000);
    const [looking, drop] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    world.target.onStorage = async (step, when) => {
      if (step !== "attachedTo" || when !== "after") return;
      looking.resolve();
      await drop.promise;
    };
    go.resolve();
    await deleted;
    await looking.promise;
    const told = ask("c", expires).then(
      ({ state }) => state,
      ({ code }) => code,
    );
    for (let turn = 0; turn < 5; turn++) await settledTasks();
    drop.resolve();
    expect([await told, await left(0)]).toEqual(["NotFound", []]);
  });
});
