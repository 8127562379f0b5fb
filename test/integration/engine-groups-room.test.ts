// Room for jobs on several agents at once: a group's job asks for it agent by agent, and keeps none while it pauses, so that no two
// jobs each have what the other one waits for, and nobody waits for a job that does nothing.
import { afterEach, expect, test } from "@jest/globals";
import type { Order } from "../../src/wire/member.ts";
import type { Cluster } from "../fakes/engines.ts";
import {
  endedEverywhere,
  type GroupWorld,
  groupFlaws,
  onOrder,
  openGroupWorld,
  snapshotGroup,
  startGroup,
} from "../fakes/group-world.ts";
import { reaches, volumeBytes } from "../fakes/migration-world.ts";

let world: GroupWorld;
afterEach(() => world.clusters.close());

/** Three sources with room for one job each; commits of jobs of a single volume are kept until they are let go. */
async function open(limits: { leaseMs: number; retryDelayMs: number }) {
  const { retryDelayMs } = limits;
  world = await openGroupWorld({
    sources: 3,
    targets: 1,
    limits: { jobsPerLocationMax: 1, retryDelayMsMax: retryDelayMs, ...limits },
  });
  const [target] = world.targets as [Cluster];
  const go = Promise.withResolvers<void>();
  target.onCall = (method) => (method === "commit" ? go.promise : undefined);
  const [first, second, third] = world.sources as [Cluster, Cluster, Cluster];
  return { first, second, third, letGo: go.resolve };
}

/** All that a job of one volume alone needs; what is returned starts it. */
async function single(agent: Cluster, name: string): Promise<() => Promise<unknown>> {
  const { api } = agent.engine;
  await api.putVolume(name, { sizeBytes: volumeBytes, migrationEnabled: true });
  await api.putSnapshot(name, "s1");
  return () => api.putJob(name, { volume: name, location: "target", snapshot: "s1" });
}

async function startSingle(agent: Cluster, name: string): Promise<void> {
  const begin = await single(agent, name);
  await begin();
}

/** Once its commit is asked for, it has its room for as long as the test wants. */
async function isUnderWay(agent: Cluster, job: string): Promise<void> {
  await reaches(agent, job, ({ barrier }) => barrier === "Stored");
}

async function allEnd(group: string, ...singles: (readonly [Cluster, string])[]): Promise<void> {
  for (const [agent, job] of singles) {
    expect((await reaches(agent, job, ({ finishedAt }) => finishedAt !== null)).state).toBe("Succeeded");
  }
  expect((await endedEverywhere(world, group)).map(({ state }) => state)).toEqual(Array(3).fill("Succeeded"));
  expect(await groupFlaws(world)).toEqual([]);
}

test("who waits for room on one agent takes none on those that come after it", async () => {
  const { first, second, third, letGo } = await open({ leaseMs: 500, retryDelayMs: 50 });
  await startSingle(second, "busy");
  await isUnderWay(second, "busy");
  const orders: string[] = [];
  third.onMemberCall = (method, args) => {
    if (method === "order") orders.push((args[1] as Order).step);
  };
  await snapshotGroup(world, "s1");
  const job = await startGroup(world, "s1");
  const waiting = await reaches(first, job, ({ attempts }) => attempts > 1);
  expect(waiting.error).toMatchObject({ code: "LeaseHeld", detail: expect.stringContaining("limit of jobs") });
  expect(orders).toEqual([]);
  letGo();
  await allEnd(job, [second, "busy"]);
});

test("what a job has on one agent is free for others there while it pauses for want of room on another", async () => {
  const { first, second, third, letGo } = await open({ leaseMs: 3_000, retryDelayMs: 1_500 });
  await startSingle(third, "busy");
  await isUnderWay(third, "busy");
  const startNext = await single(second, "next");
  await snapshotGroup(world, "s1");
  const ordered = Promise.withResolvers<void>();
  onOrder([third], "Joined", () => ordered.resolve());
  const job = await startGroup(world, "s1");
  await ordered.promise;
  // The group's job waits for a lease only: nothing that takes its time may come in between.
  await startNext();
  expect((await second.engine.api.getJob("next")).state).toBe("Pending");
  await isUnderWay(second, "next");
  expect((await first.engine.api.getJob(job)).finishedAt).toBeNull();
  letGo();
  await allEnd(job, [second, "next"], [third, "busy"]);
});
