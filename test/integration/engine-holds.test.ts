// The ledger of holds under random use: snapshots, releases, holds of users, jobs that end in every way, and restarts. A
// snapshot that somebody holds is there, with its file; one that nobody holds and its owner released is gone.
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import fc from "fast-check";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { SnapshotView } from "../../src/wire/schemas.ts";
import { restart } from "../fakes/engines.ts";
import {
  changeVolume,
  ended,
  leftovers,
  makeVolume,
  openWorld,
  settled,
  snapshot,
  type World,
} from "../fakes/migration-world.ts";

let world: World;
afterEach(() => world.clusters.close());

const ends = ["Succeeded", "Failed", "Cancelled", "reply lost"] as const;
const pick = fc.nat(7);
const command = fc.oneof(
  fc.record({ do: fc.constant("snapshot" as const) }),
  fc.record({ do: fc.constant("release" as const), which: pick }),
  fc.record({ do: fc.constant("hold" as const), which: pick, owner: fc.constantFrom("ann", "bob") }),
  fc.record({ do: fc.constant("unhold" as const), which: pick, owner: fc.constantFrom("ann", "bob") }),
  fc.record({ do: fc.constant("unbase" as const), which: pick }),
  fc.record({ do: fc.constant("migrate" as const), which: pick, end: fc.constantFrom(...ends) }),
  fc.record({ do: fc.constant("restart" as const), side: fc.constantFrom("source", "target") }),
);
type Command = typeof command extends fc.Arbitrary<infer C> ? C : never;

const refusals = ["SnapshotDeleting", "SnapshotGone", "NotFound", "PointGone"];

/** What the test itself knows to be held, by snapshot name. */
class Model {
  readonly volume: string;
  readonly held = new Map<string, Set<string>>();
  taken = 0;
  jobs = 0;

  constructor(volume: string) {
    this.volume = volume;
  }

  owners(name: string): Set<string> {
    const owners = this.held.get(name) ?? new Set();
    this.held.set(name, owners);
    return owners;
  }
}

async function present(model: Model): Promise<readonly SnapshotView[]> {
  return (await world.source.engine.api.getVolume(model.volume)).snapshots;
}

async function run(model: Model, what: Command): Promise<void> {
  const { api } = world.source.engine;
  const snapshots = await present(model);
  const chosen = "which" in what ? snapshots[what.which % Math.max(1, snapshots.length)] : undefined;
  switch (what.do) {
    case "snapshot":
      await changeVolume(world, model.volume);
      await snapshot(world, model.volume, `s${++model.taken}`);
      return;
    case "restart": {
      const cluster = what.side === "source" ? world.source : world.target;
      await restart(cluster);
      return;
    }
  }
  if (chosen === undefined) return;
  switch (what.do) {
    case "release":
      await api.removeSnapshot(model.volume, chosen.name);
      return;
    case "hold":
      if (await isDone(api.putHold(model.volume, chosen.name, what.owner))) model.owners(chosen.name).add(what.owner);
      return;
    case "unhold":
      await isDone(api.removeHold(model.volume, chosen.name, { reason: "user", owner: what.owner }));
      model.owners(chosen.name).delete(what.owner);
      return;
    case "unbase":
      await isDone(api.removeHold(model.volume, chosen.name, { reason: "base", owner: "target" }));
      return;
    case "migrate":
      await migrateTo(model, chosen.name, what.end);
  }
}

async function isDone(call: Promise<unknown>): Promise<boolean> {
  try {
    await call;
    return true;
  } catch (error) {
    if (error instanceof LongshoreError && refusals.includes(error.code)) return false;
    throw error;
  }
}

/** A job to a snapshot, made to end in this way as far as it can: the target may have the point already. */
async function migrateTo(model: Model, name: string, end: (typeof ends)[number]): Promise<void> {
  const { api } = world.source.engine;
  const job = `${model.volume}.${++model.jobs}`;
  const spec = { volume: model.volume, location: "target", snapshot: name };
  let isLost = false;
  world.target.onCall = async (method) => {
    if (method !== "commit") return;
    if (end === "Failed") throw new LongshoreError("BadRequest", "refused for good");
    if (end === "Cancelled") await api.putJob(job, { ...spec, cancel: true });
  };
  world.target.onReply = (method) => {
    if (method !== "commit" || end !== "reply lost" || isLost) return;
    isLost = true;
    throw new LongshoreError("Unreachable", "cut off");
  };
  if (await isDone(api.putJob(job, spec))) await ended(world.source, job);
  world.target.onCall = () => undefined;
  world.target.onReply = () => undefined;
}

/** (I4) What is held is listed, and its file is there. */
async function checkHeld(model: Model): Promise<void> {
  const snapshots = await present(model);
  const { uid, bases } = await world.source.engine.api.getVolume(model.volume);
  const files = (await world.source.storage.list()).filter(({ volume }) => volume === uid).map(({ point }) => point);
  for (const [name, owners] of model.held) {
    const found = snapshots.find((one) => one.name === name)?.holds.filter(({ reason }) => reason === "user") ?? [];
    expect([name, found.map(({ owner }) => owner)]).toEqual([name, [...owners].sort()]);
  }
  for (const one of snapshots.filter(({ holds }) => holds.length > 0)) {
    expect([one.name, one.state, files.includes(one.pointId)]).toEqual([one.name, "sealed", true]);
  }
  for (const base of bases) {
    const held = snapshots.find(({ pointId }) => pointId === base.pointId)?.holds.map(({ reason }) => reason);
    expect([base.pointId, held]).toEqual([base.pointId, expect.arrayContaining(["base"])]);
  }
}

/** With every snapshot released and every user's hold dropped, the base alone is left, and its file. */
async function checkEnd(model: Model): Promise<void> {
  // What a failed job has staged waits for the next one.
  await run(model, { do: "snapshot" });
  await migrateTo(model, `s${model.taken}`, "Succeeded");
  const { api } = world.source.engine;
  for (const { name, holds } of await present(model)) {
    for (const { reason, owner } of holds) {
      if (reason === "user") await isDone(api.removeHold(model.volume, name, { reason, owner }));
    }
    await api.removeSnapshot(model.volume, name);
  }
  const { bases, uid } = await api.getVolume(model.volume);
  const left = await settled(
    async () => (await world.source.storage.list()).filter((one) => one.volume === uid && one.kind === "point"),
    (images) => images.length <= bases.length,
  );
  expect(left.map(({ point }) => point)).toEqual(bases.map(({ pointId }) => pointId));
  expect((await present(model)).map(({ pointId }) => pointId)).toEqual(bases.map(({ pointId }) => pointId));
}

beforeEach(async () => {
  world = await openWorld({ limits: { attemptsMax: 3 } });
});

test("whatever is done in whatever order, what is held is kept, and what nobody needs is gone", async () => {
  let runs = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(command, { minLength: 4, maxLength: 16 }), async (commands) => {
      const model = new Model(`v${++runs}`);
      await makeVolume(world, model.volume);
      for (const what of commands) {
        await run(model, what);
        await checkHeld(model);
      }
      await checkEnd(model);
    }),
    { numRuns: 25 },
  );
  expect(await leftovers(world.clusters)).toEqual([]);
}, 60_000);

test("a snapshot on its way out cannot be held any more", async () => {
  await makeVolume(world, "data");
  await snapshot(world, "data", "s1");
  const deleting = Promise.withResolvers<void>();
  const gate = Promise.withResolvers<void>();
  world.source.onStorage = async (step, when) => {
    if (step !== "deletePoint" || when !== "before") return;
    deleting.resolve();
    await gate.promise;
  };
  const { api } = world.source.engine;
  const removed = api.removeSnapshot("data", "s1");
  await deleting.promise;
  await expect(api.putHold("data", "s1", "ann")).rejects.toMatchObject({ code: "SnapshotDeleting" });
  const job = { volume: "data", location: "target", snapshot: "s1" };
  await expect(api.putJob("job", job)).rejects.toMatchObject({ code: "SnapshotDeleting" });
  gate.resolve();
  expect(await removed).toBeUndefined();
});
