// Two clusters of several agents with one consistency group between them: its volumes have their homes on different agents of
// the source, and their copies on different agents of the target.
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { Order } from "../../src/wire/member.ts";
import type { JobSpec, JobView, MigratedVolumeView } from "../../src/wire/schemas.ts";
import { type Cluster, type Clusters, type ClustersOptions, openClusters, pair } from "./engines.ts";
import { cloneBytes, leftovers, reaches, settled, unitBytes, volumeBytes, write } from "./migration-world.ts";

export const group = "shop";

export interface GroupWorld {
  readonly clusters: Clusters;
  /** In the order of their agent ids: the first coordinates. */
  readonly sources: readonly Cluster[];
  readonly targets: readonly Cluster[];
  /** Volume `v1` is at home on the first source and has its copy on the first target, and so on. */
  readonly volumes: readonly string[];
  /** Every snapshot's bytes, by point id, as they were when it was taken. */
  readonly truth: Map<string, Buffer>;
}

export interface GroupWorldOptions extends ClustersOptions {
  readonly sources?: number;
  readonly targets?: number;
}

export async function openGroupWorld(options: GroupWorldOptions = {}): Promise<GroupWorld> {
  const { sources: sourceCount = 2, targets: targetCount = 2, limits, ...rest } = options;
  const clusters = await openClusters(
    { source: sourceCount, target: targetCount },
    {
      inMemory: true,
      limits: { unitBytes, pageUnits: 1, windowBytes: 2 * unitBytes, attemptsMax: 1000, leaseMs: 1_000, ...limits },
      ...rest,
    },
  );
  const sources = await inOrder(clusters.of("source"));
  const targets = await inOrder(clusters.of("target"));
  await pair(sources, targets);
  await allKnown([sources, targets]);
  const volumes = sources.map((_, index) => `v${index + 1}`);
  const world: GroupWorld = { clusters, sources, targets, volumes, truth: new Map() };
  for (const [index, name] of volumes.entries()) {
    const agent = sources[index] as Cluster;
    await agent.engine.api.putVolume(name, { sizeBytes: volumeBytes, migrationEnabled: true });
    await write(agent, name, 0, randomBytes(2 * unitBytes));
    await write(agent, name, volumeBytes - unitBytes, randomBytes(unitBytes));
    await placeAt(world, name, targets[index % targets.length] as Cluster);
  }
  return world;
}

async function inOrder(agents: readonly Cluster[]): Promise<Cluster[]> {
  const ids = await Promise.all(agents.map(async (agent) => ({ agent, id: await idOf(agent) })));
  return ids.sort((a, b) => (a.id < b.id ? -1 : 1)).map(({ agent }) => agent);
}

export async function idOf(agent: Cluster): Promise<string> {
  return (await agent.engine.api.describe()).agentId;
}

async function allKnown(clusters: readonly (readonly Cluster[])[]): Promise<void> {
  for (const agents of clusters) {
    for (const agent of agents) {
      await settled(
        () => agent.engine.api.describe(),
        ({ members }) => members.length === agents.length && members.every(({ state }) => state === "alive"),
      );
    }
  }
}

/** Has the target choose that agent as the home of a volume's copy: the others say that they have no room. */
async function placeAt(world: GroupWorld, volume: string, home: Cluster): Promise<void> {
  const { source } = homeOf(world, volume);
  const { uid } = await source.engine.api.getVolume(volume);
  for (const agent of world.targets) if (agent !== home) agent.freeBytes = 0;
  await home.engine.peer(source.uid, ["source"]).locate({ volumes: [{ volume: uid, sizeBytes: volumeBytes }] });
  for (const agent of world.targets) agent.freeBytes = undefined;
}

/** Where a volume is, and where its copy is. */
export function homeOf(world: GroupWorld, volume: string): { source: Cluster; target: Cluster } {
  const index = world.volumes.indexOf(volume);
  return {
    source: world.sources[index] as Cluster,
    target: world.targets[index % world.targets.length] as Cluster,
  };
}

/** Changes a few blocks of every volume. */
export async function changeAll(world: GroupWorld): Promise<void> {
  for (const volume of world.volumes) {
    const { source } = homeOf(world, volume);
    await write(source, volume, 0, randomBytes(unitBytes));
    await write(source, volume, 3 * unitBytes, randomBytes(unitBytes));
  }
}

/** Takes a snapshot of the group and remembers what each volume holds. */
export async function snapshotGroup(world: GroupWorld, name: string): Promise<string> {
  const bytes = new Map<string, Buffer>();
  for (const volume of world.volumes) {
    const { path } = await homeOf(world, volume).source.engine.api.getVolume(volume);
    bytes.set(volume, await readFile(path));
  }
  const [first] = world.sources as [Cluster];
  const view = await first.engine.api.putGroupSnapshot(group, name, { volumes: [...world.volumes] });
  for (const { volume, pointId } of view.snapshots) world.truth.set(pointId, bytes.get(volume) as Buffer);
  return view.groupPoint;
}

export function groupSpec(world: GroupWorld, snapshot: string, fields: Partial<JobSpec> = {}): JobSpec {
  return { group: { name: group, volumes: [...world.volumes] }, location: "target", snapshot, ...fields };
}

/** Starts the job `<group>.<snapshot>` at an agent and returns its name. */
export async function startGroup(
  world: GroupWorld,
  snapshot: string,
  { at = world.sources[0] as Cluster, ...fields }: Partial<JobSpec> & { at?: Cluster } = {},
): Promise<string> {
  const name = `${group}.${snapshot}`;
  await at.engine.api.putJob(name, groupSpec(world, snapshot, fields));
  return name;
}

/** The job at every source agent, once it has ended there; agents that are down come back first. */
export function endedEverywhere(world: GroupWorld, job: string): Promise<JobView[]> {
  return Promise.all(world.sources.map((agent) => reaches(agent, job, (view) => view.finishedAt !== null)));
}

export async function copyAt(agent: Cluster, volume: string): Promise<MigratedVolumeView | undefined> {
  const { items } = await agent.engine.api.listMigratedVolumes();
  return items.find((item) => item.sourceVolumeName === volume);
}

/** Ids of the group points that every member of the group has at its home, oldest first. */
export async function groupPointsOf(world: GroupWorld): Promise<string[][]> {
  return Promise.all(
    world.volumes.map(async (volume) => {
      const copy = await copyAt(homeOf(world, volume).target, volume);
      return (copy?.points ?? []).flatMap(({ groupPoint }) => groupPoint ?? []);
    }),
  );
}

/** What is wrong after every job has ended; nothing, if all is as it must be. */
export async function groupFlaws(world: GroupWorld): Promise<string[]> {
  const found = await settled(
    () => flawsNow(world),
    (list) => list.length === 0,
  );
  return [...found, ...(await contentFlaws(world)), ...(found.length > 0 ? [] : await leftovers(world.clusters))];
}

async function flawsNow(world: GroupWorld): Promise<string[]> {
  const found: string[] = [];
  for (const volume of world.volumes) {
    const { source, target } = homeOf(world, volume);
    const { snapshots, bases } = await source.engine.api.getVolume(volume);
    for (const { name, pointId, holds } of snapshots) {
      const isBase = bases.some((base) => base.pointId === pointId);
      const expected = isBase ? "base target" : "";
      const held = holds.map(({ reason, owner }) => `${reason} ${owner}`).join();
      if (held !== expected) found.push(`${volume}: snapshot ${name} has the holds ${held || "none"}`);
    }
    const { uid } = await source.engine.api.getVolume(volume);
    const peer = target.engine.peer(source.uid, ["source"]);
    const copy = await copyAt(target, volume);
    if (copy === undefined) continue;
    const barrier = (await peer.report(uid))?.barrier;
    if (barrier !== "None") found.push(`${volume}: the copy is at ${barrier}`);
    if (copy.state !== "Available" && copy.state !== "Empty") found.push(`${volume}: the copy is ${copy.state}`);
    if (copy.transfer !== null) found.push(`${volume}: a transfer is shown`);
  }
  for (const agent of world.targets) {
    const decided = await agent.engine.peer(world.sources[0]?.uid ?? "", ["source"]).reportGroup(group);
    if (decided?.isTermLive) found.push(`${agent.name}: the group's term is live`);
    if (agent.lanes.openLanes > 0) found.push(`${agent.name}: ${agent.lanes.openLanes} lanes are open`);
  }
  return found;
}

/** (I1) Clones of every point hold, byte for byte, what the source's snapshot of that id held. */
async function contentFlaws(world: GroupWorld): Promise<string[]> {
  const found: string[] = [];
  for (const volume of world.volumes) {
    const { target } = homeOf(world, volume);
    const copy = await copyAt(target, volume);
    for (const point of copy?.points ?? []) {
      const bytes = await cloneBytes(target, (copy as MigratedVolumeView).name, point.pointId);
      const expected = world.truth.get(point.pointId);
      if (expected === undefined || !bytes.equals(expected)) found.push(`${volume}: point ${point.generation} differs`);
    }
  }
  return found;
}

/** Calls back once, when the first order to that step reaches one of the agents. */
export function onOrder(agents: readonly Cluster[], step: Order["step"], act: (agent: Cluster) => void): void {
  let isDone = false;
  for (const agent of agents) {
    agent.onMemberCall = (method, args) => {
      if (isDone || method !== "order" || (args[1] as Order).step !== step) return;
      isDone = true;
      act(agent);
    };
  }
}
