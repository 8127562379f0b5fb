// Jobs as users steer them: suspended, cancelled, repeated, side by side, refused; and what may not be taken away under them.
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { SourceSpec } from "../../src/wire/schemas.ts";
import { restart } from "../fakes/engines.ts";
import { FakeClock } from "../fakes/fake-clock.ts";
import {
  changeVolume,
  copyOf,
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
  volumeBytes,
  type World,
} from "../fakes/migration-world.ts";

let world: World;
afterEach(() => world.clusters.close());

const api = () => world.source.engine.api;
const cutOff = new LongshoreError("Unreachable", "cut off");

async function open(options: Parameters<typeof openWorld>[0] = {}): Promise<void> {
  world = await openWorld(options);
  await makeVolume(world, "data");
}

function consent(fields: Partial<SourceSpec> = {}) {
  const { uid } = world.source;
  return world.target.engine.api.putSource("source", {
    clusterName: "source",
    clusterUid: uid,
    caBundle: "ca",
    ...fields,
  });
}

async function allIsWell(volume = "data"): Promise<void> {
  expect(await flaws(world, volume)).toEqual([]);
  expect(await leftovers(world.clusters)).toEqual([]);
}

/** Frames by unit that reach the target. */
function countPieces(): Map<number, number> {
  const counts = new Map<number, number>();
  world.target.lanes.faults.onPiece = (piece, payload) => {
    counts.set(piece.unit, (counts.get(piece.unit) ?? 0) + 1);
    return payload;
  };
  return counts;
}

/** A job of which one unit is stored, and that gets no further. */
async function halfDone(name = "s1"): Promise<string> {
  let stores = 0;
  world.target.onCall = (method) => {
    if (method !== "store") return;
    stores += 1;
    if (stores > 1) throw cutOff;
  };
  await snapshot(world, "data", name);
  const job = await start(world, "data", name);
  await reaches(world.source, job, ({ attempts, unitsStored }) => attempts > 0 && unitsStored > 0);
  return job;
}

function heal(): void {
  world.target.onCall = () => undefined;
  world.target.onReply = () => undefined;
}

describe("a job", () => {
  beforeEach(() => open({ limits: { attemptsMax: 1000 } }));

  const spec = { volume: "data", location: "target", snapshot: "s1" };

  test("that is suspended thaws the target, survives restarts, and resumes at the units that are stored", async () => {
    const job = await halfDone();
    await api().putJob(job, { ...spec, suspend: true });
    await reaches(world.source, job, ({ state }) => state === "Suspended");
    expect((await requireCopy(world, "data")).state).toBe("Empty");
    for (const cluster of world.clusters.all) {
      await restart(cluster);
    }
    expect((await api().getJob(job)).state).toBe("Suspended");
    heal();
    const pieces = countPieces();
    await api().putJob(job, spec);
    expect((await ended(world.source, job)).state).toBe("Succeeded");
    expect([...pieces.keys()].sort()).toEqual([1, 2]);
    await allIsWell();
  });

  test.each([
    ["resumed", { suspend: false }, "Succeeded"],
    ["cancelled", { suspend: true, cancel: true }, "Cancelled"],
  ] as const)("that is %s while it is still being suspended", async (_how, then, state) => {
    const { promise: held, resolve: open } = Promise.withResolvers<void>();
    const reached = Promise.withResolvers<void>();
    world.target.onCall = async (method) => {
      if (method === "laneTicket") await held;
      if (method !== "abort") return;
      reached.resolve();
      await held;
    };
    await snapshot(world, "data", "s1");
    const job = await start(world, "data", "s1");
    await reaches(world.source, job, ({ barrier }) => barrier === "Frozen");
    await api().putJob(job, { ...spec, suspend: true });
    await reached.promise;
    await api().putJob(job, { ...spec, ...then });
    open();
    expect((await ended(world.source, job)).state).toBe(state);
    await allIsWell();
  });

  test("that is suspended from the start waits, and starts when it no longer is", async () => {
    await snapshot(world, "data", "s1");
    await api().putJob("job", { ...spec, suspend: true });
    expect(await api().getJob("job")).toMatchObject({ state: "Suspended", epoch: 0 });
    expect(await copyOf(world, "data")).toBeUndefined();
    await api().putJob("job", { ...spec, suspend: false });
    expect((await ended(world.source, "job")).state).toBe("Succeeded");
    await allIsWell();
  });

  test.each([
    ["while it runs", false],
    ["while it is suspended", true],
  ])("that is cancelled %s discards its staging, thaws, and drops its holds", async (_when, isSuspended) => {
    const job = await halfDone();
    if (isSuspended) {
      await api().putJob(job, { ...spec, suspend: true });
      await reaches(world.source, job, ({ state }) => state === "Suspended");
    }
    await api().putJob(job, { ...spec, suspend: isSuspended, cancel: true });
    expect((await ended(world.source, job)).state).toBe("Cancelled");
    expect(await world.target.storage.list()).toEqual([]);
    await api().removeSnapshot("data", "s1");
    heal();
    await allIsWell();
  });

  test("that is cancelled before it began, or taken in as cancelled, leaves no hold", async () => {
    await snapshot(world, "data", "s1");
    await api().putJob("one", { ...spec, suspend: true });
    await api().putJob("one", { ...spec, suspend: true, cancel: true });
    await api().putJob("two", { ...spec, cancel: true });
    for (const job of ["one", "two"]) expect((await ended(world.source, job)).state).toBe("Cancelled");
    expect((await api().getVolume("data")).snapshots[0]?.holds).toEqual([]);
  });

  test("that is cancelled while its commit is on the way has succeeded, if the commit was first", async () => {
    await snapshot(world, "data", "s1");
    world.target.onReply = async (method) => {
      if (method !== "commit") return;
      await api().putJob("job", { ...spec, cancel: true });
      throw cutOff;
    };
    await api().putJob("job", spec);
    expect((await ended(world.source, "job")).state).toBe("Succeeded");
    await allIsWell();
  });

  test("that is asked for again changes nothing; with other parameters it is refused; old revisions are", async () => {
    await snapshot(world, "data", "s1");
    await snapshot(world, "data", "s2");
    const made = await api().putJob("job", { ...spec, suspend: true });
    expect(await api().putJob("job", { ...spec, suspend: true })).toEqual(made);
    await expect(api().putJob("job", { ...spec, snapshot: "s2" })).rejects.toMatchObject({ code: "NameTaken" });
    await expect(api().putJob("job", spec, { ifMatch: made.revision + 1 })).rejects.toMatchObject({
      code: "PreconditionFailed",
    });
    await expect(api().putJob("new", spec, { ifMatch: 1 })).rejects.toMatchObject({ code: "PreconditionFailed" });
    await expect(api().removeJob("job")).rejects.toMatchObject({ code: "InUse" });
  });

  test.each([
    ["volume", { volume: "none" }],
    ["location", { location: "none" }],
    ["snapshot", { snapshot: "none" }],
  ])("with a %s that does not exist is refused", async (_what, change) => {
    await snapshot(world, "data", "s1");
    await expect(api().putJob("job", { ...spec, ...change })).rejects.toMatchObject({ code: "NotFound" });
    expect((await api().listJobs()).items).toEqual([]);
  });

  test("to a snapshot on its way out is refused", async () => {
    await snapshot(world, "data", "s1");
    await api().removeSnapshot("data", "s1");
    await expect(api().putJob("job", spec)).rejects.toMatchObject({ code: "NotFound" });
  });

  test("that only plans tells what would move, and moves nothing", async () => {
    await snapshot(world, "data", "s1");
    await api().putJob("plan", { ...spec, dryRun: true });
    expect(await ended(world.source, "plan")).toMatchObject({
      state: "Succeeded",
      mode: { kind: "Allocated", reason: "FirstCopy" },
      bytesTotal: 3 * unitBytes,
      bytesSent: 0,
      etaSeconds: null,
    });
    expect(await copyOf(world, "data")).toBeUndefined();
    await migrate(world, "data", "s2");
    const before = await requireCopy(world, "data");
    for (const name of ["s2", "s3"]) {
      if (name === "s3") {
        await changeVolume(world, "data");
        await snapshot(world, "data", name);
      }
      await api().putJob(`plan-${name}`, { ...spec, snapshot: name, dryRun: true });
      expect((await ended(world.source, `plan-${name}`)).state).toBe("Succeeded");
    }
    // By what the one transfer there was has taken.
    expect(await api().getJob("plan-s3")).toMatchObject({ mode: { kind: "Delta" }, etaSeconds: expect.any(Number) });
    expect(await requireCopy(world, "data")).toEqual(before);
    await allIsWell();
  });

  test("that only plans fails without touching the target when it cannot be reached", async () => {
    await world.clusters.close();
    await open({ limits: { attemptsMax: 2 } });
    await snapshot(world, "data", "s1");
    const calls: string[] = [];
    world.target.onCall = (method) => {
      calls.push(method);
      if (method === "report") throw cutOff;
    };
    await api().putJob("plan", { ...spec, dryRun: true });
    expect(await ended(world.source, "plan")).toMatchObject({ state: "Failed", error: { code: "Unreachable" } });
    expect(calls).not.toContain("claim");
    expect((await api().getVolume("data")).snapshots[0]?.holds).toEqual([]);
  });

  test("to a point older than the target's fails at once, and says so", async () => {
    const { pointId } = await snapshot(world, "data", "s1");
    await migrate(world, "data", "s2");
    const job = await ended(world.source, await start(world, "data", "s1"));
    expect(job).toMatchObject({ state: "Failed", attempts: 1, error: { code: "PointBehind" } });
    expect((await requireCopy(world, "data")).points.map((point) => point.pointId)).not.toContain(pointId);
    await allIsWell();
  });
});

describe("jobs side by side", () => {
  test("of one volume and location run one after the other, in the order of asking", async () => {
    await open();
    await snapshot(world, "data", "s1");
    await changeVolume(world, "data");
    await snapshot(world, "data", "s2");
    const claims: unknown[] = [];
    let running = 0;
    world.target.onCall = (method, args) => {
      if (method === "claim") claims.push((args[0] as { job: string }).job);
      if (method === "claim") running += 1;
      expect(running).toBeLessThanOrEqual(1);
    };
    world.target.onReply = (method) => {
      if (method === "commit") running -= 1;
    };
    const jobs = [await start(world, "data", "s1"), await start(world, "data", "s2")];
    for (const job of jobs) expect((await ended(world.source, job)).state).toBe("Succeeded");
    expect(claims).toEqual(jobs);
    await allIsWell();
  });

  test("to different locations do not wait for each other, and one that is down holds up nobody", async () => {
    await open({ names: ["source", "target", "other"], limits: { jobsMax: 1, attemptsMax: 1000 } });
    const other = world.clusters.all[2] as World["target"];
    world.target.onCall = () => {
      throw cutOff;
    };
    await snapshot(world, "data", "s1");
    const stuck = await start(world, "data", "s1");
    await reaches(world.source, stuck, ({ attempts }) => attempts > 1);
    const job = await start(world, "data", "s1", { location: "other" });
    expect((await ended(world.source, job)).state).toBe("Succeeded");
    expect((await api().getJob(stuck)).finishedAt).toBeNull();
    heal();
    expect((await ended(world.source, stuck)).state).toBe("Succeeded");
    expect(await flaws(world, "data", other)).toEqual([]);
    await allIsWell();
  });

  test("keep to the limits of the node and of the location", async () => {
    await open({ limits: { jobsMax: 3, jobsPerLocationMax: 2 }, names: ["source", "target", "other"] });
    const other = world.clusters.all[2] as World["target"];
    const busy = { target: 0, other: 0, most: 0, mostAll: 0 };
    for (const cluster of [world.target, other]) {
      const name = cluster.name as "target" | "other";
      cluster.onReply = (method) => {
        if (method === "claim") busy[name] += 1;
        if (method === "commit") busy[name] -= 1;
        busy.most = Math.max(busy.most, busy.target, busy.other);
        busy.mostAll = Math.max(busy.mostAll, busy.target + busy.other);
      };
    }
    const jobs: string[] = [];
    for (const volume of ["a", "b", "c", "d"]) {
      await makeVolume(world, volume);
      await snapshot(world, volume, "s1");
    }
    for (const volume of ["a", "b", "c", "d"]) {
      for (const location of ["target", "other"]) jobs.push(await start(world, volume, "s1", { location }));
    }
    for (const job of jobs) expect((await ended(world.source, job)).state).toBe("Succeeded");
    expect(busy.most).toBe(2);
    expect(busy.mostAll).toBe(3);
  });

  test("to one cluster under two location names wait for each other's term", async () => {
    await open({ limits: { attemptsMax: 3, leaseMs: 60_000 } });
    const { spec } = await api().getLocation("target");
    await api().putLocation("alias", spec);
    await snapshot(world, "data", "s1");
    const gate = Promise.withResolvers<void>();
    world.target.onCall = async (method) => {
      if (method === "commit") await gate.promise;
    };
    const first = await start(world, "data", "s1");
    await reaches(world.source, first, ({ barrier }) => barrier === "Stored");
    const second = await start(world, "data", "s1", { location: "alias" });
    await reaches(world.source, second, ({ attempts, error }) => attempts > 5 && error?.code === "LeaseHeld");
    gate.resolve();
    for (const job of [first, second]) expect((await ended(world.source, job)).state).toBe("Succeeded");
    expect((await requireCopy(world, "data")).points).toHaveLength(1);
    await allIsWell();
  });
});

describe("what a job needs", () => {
  beforeEach(() => open({ limits: { attemptsMax: 3 } }));

  test("is not taken away while it runs: neither its volume, nor its location, nor its snapshots", async () => {
    const gate = Promise.withResolvers<void>();
    world.target.onCall = async (method) => {
      if (method === "commit") await gate.promise;
    };
    await migrateHalf();
    await expect(api().removeVolume("data")).rejects.toMatchObject({ code: "InUse" });
    await expect(api().removeLocation("target")).rejects.toMatchObject({ code: "InUse" });
    expect(await api().removeSnapshot("data", "s1")).toMatchObject({ released: true, state: "sealed" });
    gate.resolve();
    expect((await ended(world.source, "data.s1.target")).state).toBe("Succeeded");
    await expect(api().removeLocation("target")).rejects.toMatchObject({ code: "InUse" });
    const { sequence } = await api().listVolumes();
    const { revision } = await api().getVolume("data");
    await api().removeLocation("target", { force: true });
    const volume = await settled(
      () => api().getVolume("data"),
      ({ snapshots }) => snapshots.length === 0,
    );
    expect([volume.bases, volume.snapshots]).toEqual([[], []]);
    // Whoever follows the changes learns that the volume has no base any more.
    expect(volume.revision).toBeGreaterThan(revision);
    const stop = new AbortController();
    for await (const { kind, name } of api().changes(sequence, stop.signal)) {
      if (kind === "volume" && name === "data") stop.abort();
    }
    expect(stop.signal.aborted).toBe(true);
  });

  async function migrateHalf(): Promise<void> {
    await snapshot(world, "data", "s1");
    await reaches(world.source, await start(world, "data", "s1"), ({ barrier }) => barrier === "Stored");
  }

  test("may lead to another cluster from one job to the next: that one gets everything, the first keeps what it has", async () => {
    await world.clusters.close();
    await open({ names: ["source", "target", "other"] });
    const other = world.clusters.all[2] as World["target"];
    const first = await migrate(world, "data", "s1");
    const { spec } = await api().getLocation("other");
    await api().putLocation("target", spec);
    await changeVolume(world, "data");
    expect(await migrate(world, "data", "s2")).toMatchObject({ mode: { kind: "Allocated", reason: "FirstCopy" } });
    expect((await api().getVolume("data")).bases).toMatchObject([{ location: "target", clusterUid: other.uid }]);
    expect((await requireCopy(world, "data")).points.map(({ pointId }) => pointId)).toEqual([first.to?.pointId]);
    expect(await flaws(world, "data", other)).toEqual([]);
    await allIsWell();
  });

  test("may lead to another cluster in the middle of a job, which then begins anew there", async () => {
    await world.clusters.close();
    await open({ names: ["source", "target", "other"], limits: { attemptsMax: 1000, leaseMs: 300 } });
    const other = world.clusters.all[2] as World["target"];
    const job = await halfDone();
    const { spec } = await api().getLocation("other");
    await api().putLocation("target", spec);
    expect((await ended(world.source, job)).state).toBe("Succeeded");
    expect(await flaws(world, "data", other)).toEqual([]);
  });

  test("must be the cluster that its location names, and never this one itself", async () => {
    const { spec } = await api().getLocation("target");
    await api().putLocation("target", { ...spec, clusterUid: "uid-else" });
    expect(await migrate(world, "data", "s1")).toMatchObject({ state: "Failed", error: { code: "Untrusted" } });
    await world.source.engine.api.putSource("self", { clusterName: "self", caBundle: "ca" });
    await api().putLocation("target", { ...spec, seeds: ["source:1"] });
    expect(await migrate(world, "data", "s2")).toMatchObject({ state: "Failed", error: { code: "Untrusted" } });
    const { state } = await settled(
      () => api().getLocation("target"),
      (view) => view.state === "untrusted",
    );
    expect(state).toBe("untrusted");
  });

  test("is a consent: a job without one fails, and with it the next one goes on; what was stored stays", async () => {
    await world.clusters.close();
    await open({ limits: { lanesPerJob: 1 } });
    let isWithdrawn = false;
    world.target.onReply = async (method) => {
      if (method !== "store" || isWithdrawn) return;
      isWithdrawn = true;
      await world.target.engine.api.removeSource("source");
    };
    expect(await migrate(world, "data", "s1")).toMatchObject({ state: "Failed", error: { code: "NotConsented" } });
    heal();
    await consent();
    const again = await start(world, "data", "s1", { name: "again" });
    const pieces = countPieces();
    expect((await ended(world.source, again)).state).toBe("Succeeded");
    expect([...pieces.keys()].sort()).toEqual([1, 2]);
    await allIsWell();
  });

  test("is room in the quota, counted by the size of what has arrived", async () => {
    await consent({ quotaBytes: 2 * volumeBytes - 1 });
    await migrate(world, "data", "s1");
    await makeVolume(world, "more");
    expect(await migrate(world, "more", "s1")).toMatchObject({ state: "Failed", error: { code: "QuotaExceeded" } });
    expect(await copyOf(world, "more")).toBeUndefined();
    await api().putVolume("data", { sizeBytes: volumeBytes + unitBytes });
    expect((await migrate(world, "data", "s2")).state).toBe("Succeeded");
    await consent({ quotaBytes: 3 * volumeBytes });
    expect((await migrate(world, "more", "s2")).state).toBe("Succeeded");
    await allIsWell();
  });
});

describe("a volume", () => {
  beforeEach(() => open());

  test("made again under the name of one that was deleted is another one at the target as well", async () => {
    await migrate(world, "data", "s1");
    await api().removeVolume("data");
    await makeVolume(world, "data");
    expect(await migrate(world, "data", "s1", { name: "again" })).toMatchObject({ mode: { reason: "FirstCopy" } });
    const { items } = await world.target.engine.api.listMigratedVolumes();
    expect(items.map(({ sourceVolumeName, points }) => [sourceVolumeName, points.length])).toEqual([
      ["data", 1],
      ["data", 1],
    ]);
    expect(new Set(items.map(({ name }) => name)).size).toBe(2);
    await allIsWell();
  });

  test("asked for in another size after a try that failed half-way has that size", async () => {
    const { api: agent } = world.source.engine;
    world.source.onStorage = (step, when) => {
      if (step === "create" && when === "after") throw new Error("killed");
    };
    await expect(agent.putVolume("more", { sizeBytes: 4096 })).rejects.toThrow("killed");
    await expect(agent.putVolume("more", { sizeBytes: 8192 })).rejects.toThrow("killed");
    world.source.onStorage = () => undefined;
    expect(await agent.putVolume("more", { sizeBytes: 4096 })).toMatchObject({ sizeBytes: 4096 });
    await expect(agent.putVolume("more", { sizeBytes: 0 })).rejects.toMatchObject({ code: "ShrinkRefused" });
    expect(await leftovers(world.clusters)).toEqual([]);
  });
});

test("objects that others changed meanwhile are not changed by who has not seen that", async () => {
  await open();
  await migrate(world, "data", "s1");
  const there = world.target.engine.api;
  const { spec: location } = await api().getLocation("target");
  const { spec: source } = await there.getSource("source");
  const { name } = await requireCopy(world, "data");
  const stale = { ifMatch: 999 };
  for (const attempt of [
    () => api().putVolume("data", { sizeBytes: 2 * volumeBytes }, stale),
    () => api().removeVolume("data", stale),
    () => api().putLocation("target", { ...location, jobsMax: 7 }, stale),
    () => api().removeLocation("target", { ...stale, force: true }),
    () => there.putSource("source", { ...source, quotaBytes: 1 }, stale),
    () => there.removeSource("source", stale),
    () => there.removeMigratedVolume(name, stale),
  ]) {
    await expect(attempt()).rejects.toMatchObject({ code: "PreconditionFailed" });
  }
  await allIsWell();
});

describe("a target that takes calls and never answers", () => {
  const never = new Promise<void>(() => {});

  test("does not keep a job from being cancelled", async () => {
    await open({ limits: { attemptsMax: 2 } });
    await snapshot(world, "data", "s1");
    const hanging = Promise.withResolvers<void>();
    let isHung = false;
    world.target.onCall = (method) => {
      if (method !== "store" || isHung) return undefined;
      isHung = true;
      hanging.resolve();
      return never;
    };
    const job = await start(world, "data", "s1");
    await hanging.promise;
    await api().putJob(job, { volume: "data", location: "target", snapshot: "s1", cancel: true });
    expect((await ended(world.source, job)).state).toBe("Cancelled");
    expect(await world.target.storage.list()).toEqual([]);
  });

  test("has lost the coordinator when no renewal got through for a lease, and the job tries again", async () => {
    const clock = new FakeClock();
    await open({ clock, limits: { leaseMs: 9_000 } });
    await snapshot(world, "data", "s1");
    const hanging = Promise.withResolvers<void>();
    let isDown = false;
    world.target.onCall = (method) => {
      if (method === "store" && !isDown) {
        isDown = true;
        hanging.resolve();
        return never;
      }
      if (isDown && method === "renew") throw cutOff;
      return undefined;
    };
    const job = await start(world, "data", "s1");
    await hanging.promise;
    await clock.advance(6_500);
    expect(await api().getJob(job)).toMatchObject({ attempts: 0 });
    await clock.advance(3_000);
    await reaches(world.source, job, ({ attempts }) => attempts === 1);
    heal();
    await clock.advance(1_000);
    await settled(
      async () => {
        await clock.advance(100);
        return api().getJob(job);
      },
      ({ finishedAt }) => finishedAt !== null,
    );
    expect((await api().getJob(job)).state).toBe("Succeeded");
  });

  test("is given up when nothing has moved until the deadline, however few attempts that were", async () => {
    const clock = new FakeClock();
    await open({
      clock,
      limits: { deadlineMs: 60_000, attemptsMax: 1_000_000, retryDelayMs: 10_000, retryDelayMsMax: 10_000 },
    });
    await snapshot(world, "data", "s1");
    world.target.onCall = () => {
      throw cutOff;
    };
    const job = await start(world, "data", "s1");
    const { state, error } = await settled(
      async () => {
        await clock.advance(1_000);
        return api().getJob(job);
      },
      ({ finishedAt }) => finishedAt !== null,
    );
    expect([state, error?.code]).toEqual(["Failed", "Unreachable"]);
    expect(clock.monotonicMs()).toBeGreaterThan(60_000);
    expect(clock.monotonicMs()).toBeLessThan(90_000);
  });
});

test("finished jobs are forgotten after their history, unfinished ones never", async () => {
  const clock = new FakeClock();
  await open({ clock, limits: { jobHistoryMs: 60_000 } });
  await migrate(world, "data", "s1");
  await snapshot(world, "data", "s2");
  await start(world, "data", "s2", { suspend: true });
  await clock.advance(59_000);
  expect((await api().listJobs()).items).toHaveLength(2);
  await clock.advance(5_000);
  const { items } = await api().listJobs();
  expect(items.map(({ state }) => state)).toEqual(["Suspended"]);
});

test("staging that nobody goes on with is dropped when it is old", async () => {
  const clock = new FakeClock();
  await open({ clock, limits: { attemptsMax: 1, stagingAgeMs: 3_600_000, memberIntervalMs: 3_600_000 } });
  world.target.onCall = (method) => {
    if (method === "store") throw cutOff;
  };
  expect((await migrate(world, "data", "s1")).state).toBe("Failed");
  expect(await world.target.storage.list()).toHaveLength(1);
  await clock.advance(3_500_000);
  expect(await world.target.storage.list()).toHaveLength(1);
  await clock.advance(200_000);
  const images = await settled(
    () => world.target.storage.list(),
    (list) => list.length === 0,
  );
  expect(images).toEqual([]);
  expect(await leftovers(world.clusters)).toEqual([]);
});
