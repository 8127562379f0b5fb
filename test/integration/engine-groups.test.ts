// Jobs of consistency groups between clusters of several agents: one commit for all volumes, wherever they are, and a job
// that ends as it must whoever of them dies, is cut off, or comes back late.
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, describe, expect, test } from "@jest/globals";
import type { PeerApi } from "../../src/wire/peer.ts";
import type { JobView } from "../../src/wire/schemas.ts";
import { type Cluster, restart } from "../fakes/engines.ts";
import {
  changeAll,
  copyAt,
  endedEverywhere,
  type GroupWorld,
  type GroupWorldOptions,
  groupFlaws,
  groupPointsOf,
  groupSpec,
  homeOf,
  idOf,
  openGroupWorld,
  snapshotGroup,
  startGroup,
} from "../fakes/group-world.ts";
import { reaches, settled, volumeBytes } from "../fakes/migration-world.ts";
import { backUp } from "../fakes/old-disk.ts";

let world: GroupWorld;
afterEach(() => world.clusters.close());

async function open(options: GroupWorldOptions = {}): Promise<{ first: Cluster; second: Cluster }> {
  world = await openGroupWorld(options);
  const [first, second] = world.sources as [Cluster, Cluster];
  return { first, second };
}

async function allIsWell(): Promise<void> {
  expect(await groupFlaws(world)).toEqual([]);
}

/** Before (or after) that call is carried out at any agent of the target, once. */
function once(method: keyof PeerApi, when: "before" | "after", act: (at: Cluster) => void | Promise<void>): void {
  let isDone = false;
  for (const target of world.targets) {
    const hook = async (called: keyof PeerApi) => {
      if (isDone || called !== method) return;
      isDone = true;
      await act(target);
    };
    if (when === "before") target.onCall = hook;
    else target.onReply = hook;
  }
}

/** Keeps every such call at the target until it is let go. */
function gate(method: keyof PeerApi): { reached: Promise<void>; open: () => void } {
  const reached = Promise.withResolvers<void>();
  const open = Promise.withResolvers<void>();
  for (const target of world.targets) {
    target.onCall = (called) => {
      if (called !== method) return undefined;
      reached.resolve();
      return open.promise;
    };
  }
  return { reached: reached.promise, open: open.resolve };
}

function quiet(): void {
  for (const agent of world.clusters.all) {
    agent.onCall = () => undefined;
    agent.onReply = () => undefined;
    agent.onMemberCall = () => undefined;
  }
}

/** No call passes between the two, either way. */
function part(one: Cluster, others: readonly Cluster[]): void {
  for (const other of others) {
    world.clusters.cut(one, other);
    world.clusters.cut(other, one);
  }
}

const states = (views: readonly JobView[]) => views.map(({ state }) => state);
const succeeded = ["Succeeded", "Succeeded"];

/** The agent that decides, and the other home. */
async function targetRoles(): Promise<{ home: Cluster; other: Cluster }> {
  const uids = await Promise.all(
    world.volumes.map(async (volume) => ({
      volume,
      ...(await homeOf(world, volume).source.engine.api.getVolume(volume)),
    })),
  );
  const lowest = uids.sort((a, b) => (a.uid < b.uid ? -1 : 1))[0]?.volume ?? "";
  const home = homeOf(world, lowest).target;
  return { home, other: world.targets.find((agent) => agent !== home) as Cluster };
}

/** The next job takes over what a failed one has left, and leaves nothing. */
async function nextArrives(): Promise<void> {
  await changeAll(world);
  await snapshotGroup(world, "s2");
  expect(states(await endedEverywhere(world, await startGroup(world, "s2")))).toEqual(succeeded);
  await allIsWell();
}

describe("a group with two homes a side", () => {
  test("arrives as a whole: a first copy, and what changed since", async () => {
    const { second } = await open();
    const one = await snapshotGroup(world, "s1");
    expect(states(await endedEverywhere(world, await startGroup(world, "s1")))).toEqual(succeeded);
    await changeAll(world);
    const two = await snapshotGroup(world, "s2");
    const again = await endedEverywhere(world, await startGroup(world, "s2", { at: second }));
    expect(again.map(({ state, mode }) => [state, mode?.kind])).toEqual([
      ["Succeeded", "Delta"],
      ["Succeeded", "Delta"],
    ]);
    expect(await groupPointsOf(world)).toEqual([
      [one, two],
      [one, two],
    ]);
    await allIsWell();
  });

  test("shows who takes part, what each has reached, and one account of all volumes", async () => {
    const { first, second } = await open();
    await snapshotGroup(world, "s1");
    const { reached, open: go } = gate("commitGroup");
    const job = await startGroup(world, "s1");
    await reached;
    const { home, other } = await targetRoles();
    const view = await first.engine.api.getJob(job);
    const ids = await Promise.all([first, second, home, other].map(idOf));
    const [firstId, secondId, homeId, otherId] = ids as [string, string, string, string];
    const shown = view.participants.map(({ agentId, role, barrier, volumes }) => [
      agentId,
      role,
      barrier,
      volumes.length,
    ]);
    expect(shown).toEqual(
      expect.arrayContaining([
        [firstId, "coordinator", "Stored", 1],
        [secondId, "source", "Stored", 1],
        [homeId, "target", "Stored", 1],
        [otherId, "target", "Stored", 1],
        [homeId, "decider", "Stored", 0],
      ]),
    );
    expect(view.participants[1]?.lastHeardAt).not.toBeNull();
    expect(view).toMatchObject({ barrier: "Stored", unitsTotal: 6, unitsStored: 6, mode: { reason: "FirstCopy" } });
    expect(view.volumes.map(({ volume, isPrepared }) => [volume, isPrepared])).toEqual([
      ["v1", true],
      ["v2", true],
    ]);
    go();
    const [ended] = await endedEverywhere(world, job);
    expect(ended).toMatchObject({ unitsTotal: 6, unitsStored: 6, barrier: "Released" });
    const targetsOf = async () => {
      const { participants } = await first.engine.api.getJob(job);
      return participants.filter(({ role }) => role === "target").map(({ agentId }) => agentId);
    };
    expect((await targetsOf()).sort()).toEqual([homeId, otherId].sort());
    const before = await first.engine.api.getJob(job);
    await restart(first);
    // What the others told of it is kept with its end.
    expect(await first.engine.api.getJob(job)).toEqual(before);
    expect((await targetsOf()).sort()).toEqual([homeId, otherId].sort());
    await allIsWell();
  });

  test("is refused when its snapshots are not of one moment, or one of its volumes is not there", async () => {
    const { first, second } = await open();
    for (const [agent, volume] of [
      [first, "v1"],
      [second, "v2"],
    ] as const)
      await agent.engine.api.putSnapshot(volume, "lone");
    await expect(startGroup(world, "lone")).rejects.toMatchObject({ code: "NotFound" });
    await snapshotGroup(world, "s1");
    const spec = { ...groupSpec(world, "s1"), group: { name: "shop", volumes: ["v1", "v3"] } };
    await expect(first.engine.api.putJob("job", spec)).rejects.toMatchObject({ code: "NotFound" });
    expect((await first.engine.api.listJobs()).items).toEqual([]);
    await allIsWell();
  });

  test("waits for a job of one of its volumes alone that is under way", async () => {
    const { second } = await open();
    await second.engine.api.putSnapshot("v2", "alone");
    const bytes = await readFile((await second.engine.api.getVolume("v2")).path);
    world.truth.set((await second.engine.api.getVolume("v2")).snapshots[0]?.pointId ?? "", bytes);
    const { reached, open: go } = gate("commit");
    await second.engine.api.putJob("alone", { volume: "v2", location: "target", snapshot: "alone" });
    await reached;
    await snapshotGroup(world, "s1");
    const job = await startGroup(world, "s1");
    await reaches(world.sources[0] as Cluster, job, ({ state }) => state === "Running");
    expect((await copyAt(homeOf(world, "v2").target, "v2"))?.transfer).toMatchObject({ job: "alone" });
    go();
    expect((await reaches(second, "alone", ({ finishedAt }) => finishedAt !== null)).state).toBe("Succeeded");
    expect(states(await endedEverywhere(world, job))).toEqual(succeeded);
    await allIsWell();
  });
});

describe("a coordinator that does not come back in time", () => {
  const limits = { attemptsMax: 3, leaseMs: 300 };

  test("is followed by the other participant, which ends the job; it ends it the same way when it is back", async () => {
    const { first, second } = await open({ limits });
    await snapshotGroup(world, "s1");
    once("store", "before", () => void first.stop());
    const job = await startGroup(world, "s1");
    const ended = await reaches(second, job, ({ finishedAt }) => finishedAt !== null);
    expect(ended).toMatchObject({ state: "Failed", error: { code: "Unreachable" } });
    expect((await second.engine.api.getVolume("v2")).snapshots[0]?.holds).toEqual([]);
    quiet();
    await first.start();
    expect(states(await endedEverywhere(world, job))).toEqual(["Failed", "Failed"]);
    await nextArrives();
  });

  test("after the commit that nobody heard of: the other finishes forward, and so does it", async () => {
    const { first, second } = await open({ limits });
    const point = await snapshotGroup(world, "s1");
    once("commitGroup", "after", () => {
      void first.stop();
      throw new Error("the reply is lost");
    });
    const job = await startGroup(world, "s1");
    expect((await reaches(second, job, ({ finishedAt }) => finishedAt !== null)).state).toBe("Succeeded");
    quiet();
    await first.start();
    expect(states(await endedEverywhere(world, job))).toEqual(succeeded);
    expect(await groupPointsOf(world)).toEqual([[point], [point]]);
    await allIsWell();
  });

  test("and then goes on as if nothing had happened: it changes nothing", async () => {
    const { first, second } = await open({ limits });
    await snapshotGroup(world, "s1");
    const { reached, open: go } = gate("commitGroup");
    const job = await startGroup(world, "s1");
    await reached;
    // As a process that is stopped: what it has sent is on its way, and nothing more comes.
    part(first, [second, ...world.targets]);
    expect((await reaches(second, job, ({ finishedAt }) => finishedAt !== null)).state).toBe("Failed");
    go();
    world.clusters.heal();
    expect(states(await endedEverywhere(world, job))).toEqual(["Failed", "Failed"]);
    expect(await groupPointsOf(world)).toEqual([[], []]);
    quiet();
    await nextArrives();
  });
});

describe("a target cut off while the commit is asked for", () => {
  const limits = { attemptsMax: 3, leaseMs: 300 };

  describe.each([
    ["it was committed", "after"],
    ["it was not", "before"],
  ] as const)("when %s", (_what, when) => {
    test.each([
      ["the sources hear from the group home first, and then the other home does", "sources"],
      ["the other home hears from the group home first, and then the sources do", "targets"],
    ] as const)("leaves the job undecided until %s", async (_order, firstHealed) => {
      const { first } = await open({ limits });
      const point = await snapshotGroup(world, "s1");
      const { home, other } = await targetRoles();
      once("commitGroup", when, () => {
        part(home, [other, ...world.sources]);
        throw new Error("cut off");
      });
      const job = await startGroup(world, "s1");
      const undecided = await reaches(first, job, ({ state }) => state === "Undecided");
      expect(undecided.finishedAt).toBeNull();
      const { snapshots } = await first.engine.api.getVolume("v1");
      expect(snapshots[0]?.holds).toMatchObject([{ reason: "job", owner: job }]);
      world.clusters.heal();
      if (firstHealed === "sources") {
        part(home, [other]);
        const { attempts } = await first.engine.api.getJob(job);
        await reaches(first, job, (view) => view.attempts > attempts + 1 || view.barrier !== "Stored");
        const volume = world.volumes.find((name) => homeOf(world, name).target === other) ?? "";
        // Nothing is served before the decision is known there.
        expect((await copyAt(other, volume))?.points).toEqual([]);
      } else part(home, world.sources);
      if (firstHealed === "targets") {
        const settledState = when === "after" ? "Available" : "Empty";
        const volume = world.volumes.find((name) => homeOf(world, name).target === other) ?? "";
        const copy = await settled(
          () => copyAt(other, volume),
          (view) => view?.state === settledState,
        );
        expect(copy?.state).toBe(settledState);
      }
      world.clusters.heal();
      const ended = states(await endedEverywhere(world, job));
      // Not committed, it may go on or be given up, for its attempts are spent; but all of it, either way.
      const isArrived = when === "after" || ended[0] === "Succeeded";
      expect(ended).toEqual(isArrived ? succeeded : ["Failed", "Failed"]);
      expect(await groupPointsOf(world)).toEqual(isArrived ? [[point], [point]] : [[], []]);
      await nextArrives();
    });
  });
});

describe("a member that has its point by a job of its own", () => {
  /** The second volume has arrived alone, by the snapshot that it has of the group. */
  async function arrivedAlone(): Promise<{ first: Cluster; point: string }> {
    const { first, second } = await open({ limits: { leaseMs: 300 } });
    const point = await snapshotGroup(world, "s1");
    await second.engine.api.putJob("alone", { volume: "v2", location: "target", snapshot: "s1" });
    expect((await reaches(second, "alone", ({ finishedAt }) => finishedAt !== null)).state).toBe("Succeeded");
    return { first, point };
  }

  test("proves no commit, when the group's job fails between the other's vote and that: it goes on to it", async () => {
    const { point } = await arrivedAlone();
    once("commitGroup", "before", () => {
      throw new Error("cut off");
    });
    expect(states(await endedEverywhere(world, await startGroup(world, "s1")))).toEqual(succeeded);
    expect(await groupPointsOf(world)).toEqual([[point], [point]]);
    await allIsWell();
  });

  /** The group's points as its home tells them: which volumes each names. */
  async function decided(): Promise<number[]> {
    const { home } = await targetRoles();
    const { points } = await home.engine.api.getGroup("shop");
    return points.map(({ members }) => members.length);
  }

  /** A clone of the second volume's part of the group point, wherever its copy is. */
  async function cloneOf(point: string): Promise<string> {
    const { target } = homeOf(world, "v2");
    const { name } = (await copyAt(target, "v2")) ?? { name: "" };
    return (await target.engine.api.putClone("c", { migratedVolume: name, point })).state;
  }

  test("is named by the group's decision, and can be cloned by the group point", async () => {
    const { point } = await arrivedAlone();
    const { target } = homeOf(world, "v2");
    const before = await copyAt(target, "v2");
    expect(states(await endedEverywhere(world, await startGroup(world, "s1")))).toEqual(succeeded);
    expect([await groupPointsOf(world), await decided(), await cloneOf(point)]).toEqual([
      [[point], [point]],
      [2],
      "Ready",
    ]);
    expect((await copyAt(target, "v2"))?.points).toEqual(before?.points.map((one) => ({ ...one, groupPoint: point })));
    await changeAll(world);
    await snapshotGroup(world, "s2");
    const next = await endedEverywhere(world, await startGroup(world, "s2"));
    expect(next.map(({ state, mode }) => [state, mode?.kind])).toEqual(Array(2).fill(["Succeeded", "Delta"]));
    await allIsWell();
  });

  test("is named as well where all have theirs so: the decision is about nothing else", async () => {
    const { first, point } = await arrivedAlone();
    await first.engine.api.putJob("alone-too", { volume: "v1", location: "target", snapshot: "s1" });
    expect((await reaches(first, "alone-too", ({ finishedAt }) => finishedAt !== null)).state).toBe("Succeeded");
    expect(states(await endedEverywhere(world, await startGroup(world, "s1")))).toEqual(succeeded);
    expect([await groupPointsOf(world), await decided()]).toEqual([[[point], [point]], [2]]);
    await allIsWell();
  });

  test.each([
    ["is asked for its vote", "prepare", "before"],
    ["was asked for its vote", "prepare", "after"],
    ["is told of the decision", "joinGroupPoint", "before"],
    ["has noted the decision", "joinGroupPoint", "after"],
  ] as const)("is a part of the group point although its home dies when it %s", async (_when, method, when) => {
    const { point } = await arrivedAlone();
    const { target } = homeOf(world, "v2");
    let isDone = false;
    const die = async (called: keyof PeerApi) => {
      if (isDone || called !== method) return;
      isDone = true;
      // Only begins to: the process waits for the very work that this is called from.
      void restart(target);
      throw new Error("died");
    };
    if (when === "before") target.onCall = die;
    else target.onReply = die;
    expect(states(await endedEverywhere(world, await startGroup(world, "s1")))).toEqual(succeeded);
    expect([isDone, await groupPointsOf(world), await decided()]).toEqual([true, [[point], [point]], [2]]);
    quiet();
    await allIsWell();
  });

  test("is a part of the group point although the coordinator dies when it is decided", async () => {
    const { first, point } = await arrivedAlone();
    once("commitGroup", "after", () => {
      void restart(first);
      throw new Error("died");
    });
    expect(states(await endedEverywhere(world, await startGroup(world, "s1")))).toEqual(succeeded);
    expect([await groupPointsOf(world), await decided()]).toEqual([[[point], [point]], [2]]);
    quiet();
    await allIsWell();
  });

  test("is not a part of a group point that was not decided, whoever says so", async () => {
    const { point } = await arrivedAlone();
    const { source, target } = homeOf(world, "v2");
    const { uid } = await source.engine.api.getVolume("v2");
    const { home } = await targetRoles();
    const group = { name: "shop", home: await idOf(home) };
    await target.engine.peer(source.uid, ["source"]).joinGroupPoint(uid, { group, groupPoint: point });
    expect(await groupPointsOf(world)).toEqual([[], []]);
  });

  test("and loses it before its share begins is sent it again, and its vote is the one that is decided", async () => {
    const { point } = await arrivedAlone();
    const { target } = homeOf(world, "v2");
    const [image] = (await target.storage.list()).filter(({ kind }) => kind === "point");
    // By then the coordinator was told that it is there.
    once("claimGroup", "before", () => target.storage.deletePoint(image?.volume ?? "", image?.point ?? ""));
    expect(states(await endedEverywhere(world, await startGroup(world, "s1")))).toEqual(succeeded);
    expect([await groupPointsOf(world), await decided()]).toEqual([[[point], [point]], [2]]);
    await allIsWell();
  });

  test("does not keep the group's job from being cancelled after the other's vote", async () => {
    const { first } = await arrivedAlone();
    const { reached, open: go } = gate("commitGroup");
    const job = await startGroup(world, "s1");
    await reached;
    await first.engine.api.putJob(job, groupSpec(world, "s1", { cancel: true }));
    expect(states(await endedEverywhere(world, job))).toEqual(["Cancelled", "Cancelled"]);
    quiet();
    go();
    const points = async (volume: string) => (await copyAt(homeOf(world, volume).target, volume))?.points.length;
    expect([await points("v1"), await points("v2")]).toEqual([0, 1]);
    await allIsWell();
  });
});

test("a decision whose record is lost is made again, by who has heard of it, for those who have not", async () => {
  await open({ limits: { leaseMs: 300 } });
  const point = await snapshotGroup(world, "s1");
  const { home, other } = await targetRoles();
  const cutOff = (what: string) => (method: string) => {
    if (method === what) throw new Error("cut off");
  };
  // The other home hears of nothing: neither when it is told to ask, nor when it asks by itself.
  other.onCall = cutOff("settle");
  home.onMemberCall = cutOff("decision");
  const job = await startGroup(world, "s1");
  const volume = world.volumes.find((name) => homeOf(world, name).target === home) ?? "";
  const isThere = (copy: Awaited<ReturnType<typeof copyAt>>) => copy?.points.length === 1;
  expect(isThere(await settled(() => copyAt(home, volume), isThere))).toBe(true);
  await home.stop();
  const database = new DatabaseSync(join(home.folder, "state.db"));
  database.exec("DELETE FROM groupCommits");
  database.close();
  await home.start();
  quiet();
  expect(states(await endedEverywhere(world, job))).toEqual(succeeded);
  expect(await groupPointsOf(world)).toEqual([[point], [point]]);
  await allIsWell();
});

test("a term that was ended by its own release does not interrupt those that are still to be released", async () => {
  const { first } = await open({ sources: 1, targets: 1, limits: { leaseMs: 900 } });
  const [target] = world.targets as [Cluster];
  await first.engine.api.putVolume("v2", { sizeBytes: volumeBytes, migrationEnabled: true });
  const group = { name: "shop", volumes: ["v1", "v2"] };
  await first.engine.api.putGroupSnapshot(group.name, "s1", { volumes: group.volumes });
  let released: string | undefined;
  let renewals = 0;
  const enough = Promise.withResolvers<void>();
  target.onCall = (method, [about]) => {
    const volume = (about as { volume?: string } | undefined)?.volume;
    if (method === "renew" && volume === released && ++renewals === 2) enough.resolve();
    if (method !== "release") return undefined;
    if (released !== undefined) return enough.promise;
    released = volume;
    return undefined;
  };
  await first.engine.api.putJob("job", { group, location: "target", snapshot: "s1" });
  const ended = await reaches(first, "job", ({ finishedAt }) => finishedAt !== null);
  expect([ended.state, ended.attempts]).toEqual(["Succeeded", 0]);
  expect(renewals).toBeGreaterThan(1);
});

describe("what a person asks of a group's job", () => {
  test.each([
    ["coordinates it", 0],
    ["only takes part", 1],
  ])("at an agent that %s: suspended it thaws, and resumed it goes on to the end", async (_who, index) => {
    const { first } = await open();
    const agent = world.sources[index] as Cluster;
    await snapshotGroup(world, "s1");
    const { reached, open: go } = gate("commitGroup");
    const job = await startGroup(world, "s1");
    await reached;
    await agent.engine.api.putJob(job, groupSpec(world, "s1", { suspend: true }));
    for (const one of world.sources) await reaches(one, job, ({ state }) => state === "Suspended");
    quiet();
    go();
    for (const volume of world.volumes) {
      const { target } = homeOf(world, volume);
      const copy = await settled(
        () => copyAt(target, volume),
        (view) => view?.state === "Empty",
      );
      expect(copy?.state).toBe("Empty");
    }
    await restart(first);
    await agent.engine.api.putJob(job, groupSpec(world, "s1"));
    expect(states(await endedEverywhere(world, job))).toEqual(succeeded);
    await allIsWell();
  });

  test.each([
    ["coordinates it", 0],
    ["only takes part", 1],
  ])("at an agent that %s: cancelled it leaves nothing behind, at either side", async (_who, index) => {
    await open();
    const agent = world.sources[index] as Cluster;
    await snapshotGroup(world, "s1");
    const { reached, open: go } = gate("commitGroup");
    const job = await startGroup(world, "s1");
    await reached;
    await agent.engine.api.putJob(job, groupSpec(world, "s1", { cancel: true }));
    expect(states(await endedEverywhere(world, job))).toEqual(["Cancelled", "Cancelled"]);
    quiet();
    go();
    for (const target of world.targets) {
      const images = await settled(
        () => target.storage.list(),
        (list) => list.length === 0,
      );
      expect(images).toEqual([]);
    }
    await allIsWell();
  });

  test("suspends one that was cut off then as well, once it is back", async () => {
    const { first, second } = await open({ limits: { leaseMs: 300 } });
    await snapshotGroup(world, "s1");
    const { reached, open: go } = gate("commitGroup");
    const job = await startGroup(world, "s1");
    await reached;
    part(second, [first, ...world.targets]);
    await first.engine.api.putJob(job, groupSpec(world, "s1", { suspend: true }));
    await reaches(first, job, ({ state }) => state === "Suspended");
    quiet();
    go();
    world.clusters.heal();
    expect((await reaches(second, job, ({ state }) => state === "Suspended")).barrier).toBe("None");
    await first.engine.api.putJob(job, groupSpec(world, "s1"));
    expect(states(await endedEverywhere(world, job))).toEqual(succeeded);
    await allIsWell();
  });

  test("is told to all at once, and one that hangs keeps nobody waiting for longer than a lease", async () => {
    await open({ sources: 3, limits: { leaseMs: 300 } });
    const [, second, third] = world.sources as [Cluster, Cluster, Cluster];
    await snapshotGroup(world, "s1");
    const hang = Promise.withResolvers<void>();
    const told = Promise.withResolvers<void>();
    second.onMemberCall = (method) => (method === "takeShare" ? hang.promise : undefined);
    let isLost = true;
    third.onMemberCall = (method) => {
      if (method !== "takeShare") return;
      // So that it is its coordinator that tells it, after the one that hangs.
      if (isLost) {
        isLost = false;
        throw new Error("cut off");
      }
      told.resolve();
    };
    const job = await startGroup(world, "s1");
    await told.promise;
    hang.resolve();
    quiet();
    await settled(
      () => second.engine.api.listJobs(),
      ({ items }) => items.length > 0,
    );
    expect(states(await endedEverywhere(world, job))).toEqual([...succeeded, "Succeeded"]);
    await allIsWell();
  });

  test("while one of them cannot be reached holds for it as well, once it is back", async () => {
    const { first, second } = await open({ limits: { leaseMs: 300 } });
    await snapshotGroup(world, "s1");
    const job = await startGroup(world, "s1", { suspend: true });
    await second.stop();
    await first.engine.api.putJob(job, groupSpec(world, "s1", { cancel: true }));
    await reaches(first, job, ({ state }) => state === "Cancelled");
    await second.start();
    expect(states(await endedEverywhere(world, job))).toEqual(["Cancelled", "Cancelled"]);
    await allIsWell();
  });
});

describe("a participant", () => {
  test("whose snapshot vanished makes the whole job fail, with the reason, at once", async () => {
    const { second } = await open();
    await snapshotGroup(world, "s1");
    const { uid, snapshots } = await second.engine.api.getVolume("v2");
    await second.storage.deletePoint(uid, snapshots[0]?.pointId ?? "");
    const views = await endedEverywhere(world, await startGroup(world, "s1"));
    expect(views.map(({ state, error }) => [state, error?.code])).toEqual([
      ["Failed", "SnapshotGone"],
      ["Failed", "SnapshotGone"],
    ]);
  });

  test("put back on an old disk that has the snapshots is given its share again", async () => {
    const { first, second } = await open();
    await snapshotGroup(world, "s1");
    const backup = await backUp(second);
    const { reached, open: go } = gate("store");
    const job = await startGroup(world, "s1");
    await reached;
    await backup.restore();
    quiet();
    go();
    expect((await reaches(first, job, ({ finishedAt }) => finishedAt !== null)).state).toBe("Succeeded");
    expect(states(await endedEverywhere(world, job))).toEqual(succeeded);
    await allIsWell();
  });

  test("put back on an old disk without them makes the job fail, with the reason", async () => {
    const { first, second } = await open();
    const backup = await backUp(second);
    await snapshotGroup(world, "s1");
    const { reached, open: go } = gate("store");
    const job = await startGroup(world, "s1");
    await reached;
    await backup.restore();
    quiet();
    go();
    const ended = await reaches(first, job, ({ finishedAt }) => finishedAt !== null);
    expect([ended.state, ended.error?.code]).toEqual(["Failed", "SnapshotGone"]);
    expect((await second.engine.api.listJobs()).items).toEqual([]);
  });
});
