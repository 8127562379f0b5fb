// Copies of volumes that are used together get one home among the agents of a target cluster, where there is room.
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { type Cluster, type Clusters, openClusters, pair } from "../fakes/engines.ts";
import { ended } from "../fakes/migration-world.ts";

const MiB = 2 ** 20;
let clusters: Clusters;
let east: Cluster;
let west: readonly [Cluster, Cluster, Cluster];

beforeEach(async () => {
  clusters = await openClusters({ east: 1, west: 3 }, { inMemory: true });
  [east] = clusters.of("east") as [Cluster];
  west = clusters.of("west") as unknown as typeof west;
  await pair(east, west);
  for (const { engine } of west) while ((await engine.api.describe()).members.length < 3) await pause(5);
  free(100 * MiB, 200 * MiB, 300 * MiB);
});

afterEach(() => clusters.close());

/** How much room the agents of the target say they have. */
function free(...bytes: readonly [number, number, number]): void {
  for (const [index, agent] of west.entries()) agent.freeBytes = bytes[index];
}

/** The agent of west that a new copy would be placed at, by its number; whoever is asked. */
async function placed(volume: string, affinity?: string, sizeBytes = MiB): Promise<number> {
  const asked = { volume, sizeBytes, ...(affinity !== undefined && { affinity }) };
  const { homes } = await west[1].engine.peer(east.uid, ["east"]).locate({ volumes: [asked] });
  return 1 + west.findIndex(({ engine }) => engine.agentId === homes[0]?.agentId);
}

/** Makes a volume if need be, and brings it over; the number of the agent that has its copy. */
async function migrated(name: string, snapshot: string, affinity?: string): Promise<number> {
  const { api } = east.engine;
  await api.putVolume(name, { sizeBytes: MiB, ...(affinity !== undefined && { affinity }) });
  await api.putSnapshot(name, snapshot);
  await api.putJob(`${name}-${snapshot}`, { volume: name, location: "west", snapshot });
  expect(await ended(east, `${name}-${snapshot}`)).toMatchObject({ state: "Succeeded" });
  for (const [index, { engine }] of west.entries()) {
    const { items } = await engine.api.listMigratedVolumes();
    if (items.some(({ sourceVolumeName }) => sourceVolumeName === name)) return index + 1;
  }
  throw new Error(`nobody has a copy of ${name}`);
}

test("a new copy goes where one of its affinity was placed, others where most is free", async () => {
  expect(await placed("v1", "pod-a")).toBe(3);
  free(100 * MiB, 300 * MiB, 50 * MiB);
  expect(await placed("v2", "pod-a")).toBe(3);
  expect(await placed("v3", "pod-b")).toBe(2);
  expect(await placed("v4")).toBe(2);
  expect(await placed("v5", "pod-a", 60 * MiB)).toBe(2);
  // What was placed stays, wherever those of its affinity go.
  expect(await placed("v2", "pod-b")).toBe(3);
});

test("copies of two clusters are not drawn to each other", async () => {
  expect(await placed("v1", "pod-a")).toBe(3);
  free(100 * MiB, 300 * MiB, 50 * MiB);
  await west[0].engine.api.putSource("north", { clusterName: "north", clusterUid: "uid-north", caBundle: "ca" });
  const volumes = [{ volume: "v9", sizeBytes: MiB, affinity: "pod-a" }];
  const { homes } = await west[0].engine.peer("uid-north", ["north"]).locate({ volumes });
  expect(homes).toEqual([{ volume: "v9", agentId: west[1].engine.agentId }]);
});

test("the members of a group stay together where one of their affinity is", async () => {
  expect(await placed("v1", "pod-a")).toBe(3);
  free(100 * MiB, 300 * MiB, 50 * MiB);
  const volumes = [
    { volume: "v2", sizeBytes: MiB },
    { volume: "v3", sizeBytes: MiB, affinity: "pod-a" },
  ];
  const { homes } = await west[0].engine.peer(east.uid, ["east"]).locate({ volumes, group: "shop.db" });
  expect(homes.map(({ agentId }) => agentId)).toEqual([west[2].engine.agentId, west[2].engine.agentId]);
});

test("a job tells the volume's affinity, and a copy that arrived before is one to go to from then on", async () => {
  expect(await migrated("data", "s1")).toBe(3);
  free(100 * MiB, 300 * MiB, 50 * MiB);
  expect(await placed("before", "pod-a")).toBe(2);
  expect(await migrated("data", "s2", "pod-b")).toBe(3);
  expect(await migrated("logs", "s1", "pod-b")).toBe(3);
  expect(await migrated("other", "s1")).toBe(2);
  free(400 * MiB, 300 * MiB, 50 * MiB);
  expect(await migrated("data", "s3", "pod-c")).toBe(3);
  expect(await migrated("late", "s1", "pod-c")).toBe(3);
});
