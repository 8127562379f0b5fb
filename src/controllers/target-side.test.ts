// The reconcilers of the target side together, in a world of fakes: consent, what arrives, and its publication; and that it all
// happens as well when the process is killed at any of its effects.
import { expect, test } from "@jest/globals";
import { CrashPoint } from "../../test/fakes/crash-point.ts";
import { location, OperatorWorld, pem, targetWorld } from "../../test/fakes/operator-world.ts";
import type { VolumeSnapshot } from "../api/core.ts";
import type { KubeObject } from "../kube/cluster.ts";
import { routeNews } from "./controllers.ts";
import { controllerName } from "./deps.ts";
import {
  MigratedVolumes,
  MigrationLocations,
  MigrationSources,
  VolumeSnapshotContents,
  VolumeSnapshots,
} from "./kinds.ts";

const second = 1_000;

const metadata = {
  "pvc.namespace": "shop",
  "pvc.name": "db",
  "pvc.labels": '{"app":"db"}',
  volumeMode: "Filesystem",
};

/** A volume of the source arrives as `east-vol-1`, frozen while its first transfer runs. */
function arrive(world: OperatorWorld, name = "east-vol-1"): void {
  world.agent.arrive(name, { source: "east", sourceVolumeUid: `${name}-uid`, metadata });
  world.agent.freeze(name, { bytesTotal: 100 });
}

const object = (world: OperatorWorld, name = "east-vol-1") => world.server.get(MigratedVolumes, { name });

function condition(world: OperatorWorld, type: string, name = "east-vol-1"): string {
  const found = object(world, name)?.status?.conditions?.find((each) => each.type === type);
  return found === undefined ? "none" : `${found.status} ${found.reason}`;
}

const snapshotKey = { namespace: "restore", name: "db-copy" };
const published = (world: OperatorWorld) => world.server.get(VolumeSnapshots, snapshotKey);
const content = (world: OperatorWorld) => world.server.get(VolumeSnapshotContents, { name: "longshore-east-vol-1" });

/** What the snapshot-controller does: binds the content to the VolumeSnapshot, by its UID. */
function bind(world: OperatorWorld): void {
  const uid = published(world)?.metadata.uid;
  world.server.edit(VolumeSnapshotContents, { name: "longshore-east-vol-1" }, { spec: { volumeSnapshotRef: { uid } } });
}

async function publishedWorld(): Promise<OperatorWorld> {
  const world = targetWorld();
  await world.run();
  arrive(world);
  world.agent.commit("east-vol-1");
  await world.run();
  bind(world);
  await world.run();
  return world;
}

test("a volume that came with a group says with which, and what of its points belongs together", async () => {
  const world = await publishedWorld();
  const groupPoint = "f".repeat(32);
  const home = world.agent.view.agentId;
  world.agent.freeze("east-vol-1");
  Object.assign(world.agent.migratedVolumes.get("east-vol-1") ?? {}, { group: { name: "shop.db", home } });
  world.agent.commit("east-vol-1", { groupPoint });
  await world.run();
  const { status } = object(world) ?? {};
  expect(status?.group).toEqual({ name: "shop.db", home });
  expect(status?.points?.map((point) => point.groupPoint)).toEqual([undefined, groupPoint]);
  expect(status?.newestPoint?.groupPoint).toBe(groupPoint);
});

test("a volume whose group home does not decide is undecided: since when, and what to do, until it is decided", async () => {
  const world = await publishedWorld();
  const view = world.agent.migratedVolumes.get("east-vol-1");
  world.agent.freeze("east-vol-1");
  Object.assign(view ?? {}, { group: { name: "shop.db", home: "agent-9" }, state: "Undecided" });
  await world.run();
  expect(object(world)?.status?.state).toBe("Undecided");
  expect(condition(world, "Available")).toBe("False Undecided");
  const found = object(world)?.status?.conditions?.find(({ type }) => type === "Undecided");
  expect(found).toMatchObject({
    status: "True",
    message: expect.stringContaining("Agent agent-9, the home of group shop.db"),
  });
  // The points that are there stay published.
  expect(condition(world, "Published")).toBe("True Ok");
  world.agent.commit("east-vol-1");
  await world.run();
  expect([condition(world, "Undecided"), condition(world, "Available")]).toEqual(["none", "True Ok"]);
});

test("a volume whose agent lost its data says so, and what to do next", async () => {
  const world = await publishedWorld();
  const { agentId } = world.agent.view;
  world.agent.view.members = world.agent.view.members.map((one) => ({ ...one, state: "lost" as const }));
  await world.run();
  expect(condition(world, "Available")).toBe("False HomeLost");
  const found = object(world)?.status?.conditions?.find(({ type }) => type === "Available");
  expect(found?.message).toContain(`longshore node forget ${agentId}`);
});

test("consent is given to the agents, and withdrawn before the object goes", async () => {
  const world = targetWorld();
  world.apply(MigrationSources, "east", {
    spec: { clusterName: "east", caBundle: pem, quota: { bytes: "1Ti" }, pointsKept: 5 },
  });
  await world.run();
  expect(world.agent.sources.get("east")?.spec).toEqual({
    clusterName: "east",
    caBundle: pem,
    quotaBytes: 2 ** 40,
    pointsKept: 5,
  });
  expect(world.server.get(MigrationSources, { name: "east" })?.status).toMatchObject({
    agents: 1,
    informedAgents: 1,
    conditions: [{ type: "Ready", status: "True" }],
  });
  world.agentProblem = "connection refused";
  world.server.delete(MigrationSources, { name: "east" });
  await world.run();
  // An agent that is away would still take volumes.
  expect(world.server.get(MigrationSources, { name: "east" })?.status?.conditions).toMatchObject([
    { type: "Ready" },
    { type: "Deletable", message: expect.stringMatching(/connection refused\. .*: longshore node forget\.$/) },
  ]);
  world.agentProblem = undefined;
  await world.run();
  expect([world.server.get(MigrationSources, { name: "east" }), world.agent.sources.size]).toEqual([undefined, 0]);
});

test("what arrives becomes an object, and is published only when its first point is complete", async () => {
  const world = targetWorld();
  await world.run();
  arrive(world);
  await world.run();
  expect(object(world)?.spec).toEqual({
    source: "east",
    sourceClusterUid: "source-uid",
    sourceVolume: "east-vol-1-uid",
    volume: "east-vol-1",
  });
  expect(object(world)?.status).toMatchObject({ state: "Frozen", claim: { namespace: "shop", name: "db" } });
  expect([condition(world, "Available"), condition(world, "Published"), published(world)]).toEqual([
    "False Frozen",
    "Unknown NotAsked",
    undefined,
  ]);
  world.agent.commit("east-vol-1");
  await world.run();
  expect(object(world)?.status).toMatchObject({
    state: "Available",
    pointCount: 1,
    newestPoint: { generation: 1 },
    published: [{ ...snapshotKey, contentName: "longshore-east-vol-1" }],
  });
  expect([condition(world, "Available"), condition(world, "Published")]).toEqual(["True Ok", "True Ok"]);
});

test("the publication is an ordinary pre-provisioned VolumeSnapshot of constant name and handle", async () => {
  const world = await publishedWorld();
  expect(published(world)?.spec).toEqual({ source: { volumeSnapshotContentName: "longshore-east-vol-1" } });
  expect(content(world)?.spec).toMatchObject({
    deletionPolicy: "Retain",
    driver: "csi.longshore.dev",
    source: { snapshotHandle: "east-vol-1@latest" },
    sourceVolumeMode: "Filesystem",
    volumeSnapshotRef: snapshotKey,
  });
  const before = [published(world)?.metadata.resourceVersion, content(world)?.metadata.resourceVersion];
  world.agent.freeze("east-vol-1");
  world.agent.commit("east-vol-1");
  await world.run();
  expect(object(world)?.status).toMatchObject({ pointCount: 2, newestPoint: { generation: 2 } });
  expect([published(world)?.metadata.resourceVersion, content(world)?.metadata.resourceVersion]).toEqual(before);
});

test("a VolumeSnapshot that a tenant deletes is made anew, with a content that can be bound again", async () => {
  const world = await publishedWorld();
  const before = [published(world)?.metadata.uid, content(world)?.metadata.uid];
  world.server.delete(VolumeSnapshots, snapshotKey);
  await world.run(5 * second);
  expect(published(world)).toBeDefined();
  expect(content(world)?.spec.volumeSnapshotRef.uid).toBeUndefined();
  expect(before).not.toContain(published(world)?.metadata.uid);
  expect(before).not.toContain(content(world)?.metadata.uid);
});

test("a content that is deleted is made anew", async () => {
  const world = await publishedWorld();
  const before = content(world)?.metadata.uid;
  world.server.delete(VolumeSnapshotContents, { name: "longshore-east-vol-1" });
  await world.run();
  expect(content(world)?.metadata.uid).not.toBe(before);
  expect(condition(world, "Published")).toBe("True Ok");
});

test("a VolumeSnapshot of a tenant's own in that place is not touched, and is said to be in the way", async () => {
  const world = targetWorld();
  const own: VolumeSnapshot["spec"] = { source: { persistentVolumeClaimName: "db" } };
  world.apply(VolumeSnapshots, "db-copy", { spec: own }, { namespace: "restore" });
  arrive(world);
  world.agent.commit("east-vol-1");
  await world.run();
  expect(condition(world, "Published")).toBe("False NameConflict");
  const conditions = world.server.get(MigratedVolumes, { name: "east-vol-1" })?.status?.conditions;
  expect(conditions?.find(({ type }) => type === "Published")?.message).toContain("is not ours; delete it, or publish");
  expect(published(world)?.spec).toEqual(own);
  world.server.delete(VolumeSnapshots, snapshotKey);
  await world.run(60 * second);
  expect(condition(world, "Published")).toBe("True Ok");
});

test("two volumes that ask for one name do not fight for it", async () => {
  const world = await publishedWorld();
  arrive(world, "east-vol-2");
  world.agent.commit("east-vol-2");
  await world.run();
  expect(condition(world, "Published", "east-vol-1")).toBe("True Ok");
  expect(condition(world, "Published", "east-vol-2")).toBe("False NameConflict");
});

test("a rule that changes moves the publication, and one that goes withdraws it", async () => {
  const world = await publishedWorld();
  const rule = (publications: unknown[]) =>
    world.apply(MigrationSources, "east", { spec: { clusterName: "east", caBundle: pem, publications } });
  rule([{ namespace: "elsewhere" }]);
  await world.run(5 * second);
  expect(published(world)).toBeUndefined();
  expect(world.server.get(VolumeSnapshots, { namespace: "elsewhere", name: "db" })).toBeDefined();
  expect(content(world)?.spec.volumeSnapshotRef).toMatchObject({ namespace: "elsewhere", name: "db" });
  rule([]);
  await world.run(5 * second);
  expect([world.server.list(VolumeSnapshots), world.server.list(VolumeSnapshotContents)]).toEqual([[], []]);
  expect(condition(world, "Published")).toBe("Unknown NotAsked");
});

test("without its MigrationSource nothing stays published, and the data stays", async () => {
  const world = await publishedWorld();
  world.server.delete(MigrationSources, { name: "east" });
  await world.run(5 * second);
  expect(world.server.list(VolumeSnapshots)).toEqual([]);
  expect(world.agent.migratedVolumes.size).toBe(1);
});

test("progress is written at most every 30 seconds, and the commit at once", async () => {
  const world = targetWorld();
  await world.run();
  arrive(world);
  await world.run();
  const progress = (bytesStored: number) => {
    const transfer = world.agent.migratedVolumes.get("east-vol-1")?.transfer;
    world.agent.freeze("east-vol-1", { ...transfer, bytesStored });
  };
  await world.run(10 * second);
  progress(10);
  await world.run();
  expect(object(world)?.status?.progress?.bytesStored).toBe(0);
  await world.run(25 * second);
  expect(object(world)?.status?.progress?.bytesStored).toBe(10);
  world.agent.commit("east-vol-1");
  await world.run();
  expect(object(world)?.status?.progress).toBeUndefined();
});

test("progress is written, although a clock that was ahead has written it last", async () => {
  const world = targetWorld();
  await world.run();
  arrive(world);
  await world.run();
  const { status } = world.server.require(MigratedVolumes, { name: "east-vol-1" });
  const progress = { ...status?.progress, lastProgressTime: "2026-01-03T12:00:00.000Z" };
  world.server.setStatus(MigratedVolumes, { name: "east-vol-1" }, { ...status, progress });
  world.agent.freeze("east-vol-1", { bytesTotal: 100, bytesStored: 50 });
  await world.run();
  expect(object(world)?.status?.progress).toMatchObject({
    bytesStored: 50,
    lastProgressTime: "2026-01-01T00:00:00.000Z",
  });
});

test("diverged histories are shown", async () => {
  const world = targetWorld();
  world.agent.arrive("east-vol-1", { source: "east", metadata, diverged: true });
  await world.run();
  expect(condition(world, "Diverged")).toBe("True UnknownPoint");
});

test("an object that is deleted while the agent of its copy is away says so, and goes with the copy once that is back", async () => {
  const world = await publishedWorld();
  world.agentProblem = "connection refused";
  world.server.delete(MigratedVolumes, { name: "east-vol-1" });
  await world.run();
  // Nobody finds it any more, and only its agent can delete it.
  expect([published(world), content(world)]).toEqual([undefined, undefined]);
  expect(condition(world, "Available")).toBe("Unknown AgentUnreachable");
  expect(world.agent.migratedVolumes.size).toBe(1);
  world.agentProblem = undefined;
  await world.run();
  await world.run(10 * second);
  expect([object(world), world.agent.migratedVolumes.size]).toEqual([undefined, 0]);
});

test("deleting the object deletes the data, after nobody can find it any more, and it does not come back", async () => {
  const world = await publishedWorld();
  world.agent.freeze("east-vol-1");
  world.server.delete(MigratedVolumes, { name: "east-vol-1" });
  await world.run(5 * second);
  // A transfer runs: the data cannot go yet, and the object says so by being there.
  expect([object(world) === undefined, published(world)]).toEqual([false, undefined]);
  world.agent.commit("east-vol-1");
  await world.run(20 * second);
  expect([object(world), content(world), world.agent.migratedVolumes.size]).toEqual([undefined, undefined, 0]);
});

test("a copy whose agent is away says so, beside what was last seen of it, and is what it was when that is back", async () => {
  const world = await publishedWorld();
  const before = object(world)?.status;
  world.agentProblem = "connection refused";
  await world.run();
  expect(condition(world, "Available")).toBe("Unknown AgentUnreachable");
  expect(object(world)?.status).toMatchObject({ state: "Available", points: before?.points });
  expect(condition(world, "Published")).toBe("True Ok");
  world.agentProblem = undefined;
  await world.run();
  expect(condition(world, "Available")).toBe("True Ok");
});

test("an agent that is away is news to the copies it has", async () => {
  const world = await publishedWorld();
  const concerned = routeNews(world.cluster)({ kind: "lost", name: world.agent.view.agentId });
  expect(concerned).toContainEqual({ controller: controllerName.migratedVolume, key: { name: "east-vol-1" } });
});

test("a copy that its agent lost is said to be missing; the object stays until a user gives it up", async () => {
  const world = await publishedWorld();
  world.agentProblem = "connection refused";
  world.agent.migratedVolumes.delete("east-vol-1");
  await world.run();
  expect(condition(world, "Available")).toBe("Unknown AgentUnreachable");
  world.agentProblem = undefined;
  await world.run();
  expect(condition(world, "Available")).toBe("False Missing");
  world.server.delete(MigratedVolumes, { name: "east-vol-1" });
  await world.run(10 * second);
  expect(object(world)).toBeUndefined();
});

test("what waits for an agent that is away is looked at as soon as that is given up", async () => {
  const world = new OperatorWorld({ agents: 2 });
  world.apply(MigrationSources, "east", { spec: { clusterName: "east", caBundle: pem } });
  location(world, "west");
  const left = () =>
    [MigrationSources, MigrationLocations]
      .flatMap((kind) => world.server.list<KubeObject>(kind))
      .map(({ metadata }) => metadata.name);
  await world.run();
  const { agentId } = world.agents[1]?.view ?? { agentId: "" };
  world.agentProblems.set(agentId, "connection refused");
  world.server.delete(MigrationSources, { name: "east" });
  world.server.delete(MigrationLocations, { name: "west" });
  await world.run();
  expect(left()).toEqual(["east", "west"]);
  expect(routeNews(world.cluster)({ kind: "member", name: agentId })).toEqual([
    { controller: "migration-location", key: { name: "west" } },
    { controller: "migration-source", key: { name: "east" } },
  ]);
  for (const member of world.agent.view.members) if (member.agentId === agentId) member.state = "lost";
  await world.run(60 * second);
  expect(left()).toEqual([]);
});

test("a source that tells nonsense about its labels is published all the same", async () => {
  const world = targetWorld();
  world.agent.arrive("east-vol-1", { source: "east", metadata: { ...metadata, "pvc.labels": "[not json" } });
  world.agent.freeze("east-vol-1");
  world.agent.commit("east-vol-1");
  await world.run();
  expect(condition(world, "Published")).toBe("True Ok");
});

function summary(world: OperatorWorld): unknown {
  return {
    sources: [...world.agent.sources.values()].map(({ name, spec }) => ({ name, spec })),
    migrated: [...world.agent.migratedVolumes.keys()],
    objects: world.server.list(MigratedVolumes).map(({ metadata: { name, finalizers }, spec, status }) => ({
      name,
      finalizers,
      spec,
      state: status?.state,
      published: status?.published,
    })),
    contents: world.server.list(VolumeSnapshotContents).map(({ metadata: { name }, spec }) => [name, spec.source]),
    snapshots: world.server
      .list(VolumeSnapshots)
      .map(({ metadata: { name, namespace }, spec }) => [namespace, name, spec]),
  };
}

/** Arrival, commit, publication, a tenant's deletion, a volume that is given up, another commit, and consent that is withdrawn. */
async function story(crash?: CrashPoint): Promise<OperatorWorld> {
  const world = targetWorld({ pinned: { keep: 1, name: "{claim}-{time}" } });
  const go = async (toSeconds: number) =>
    world.runUntil(toSeconds * second, crash?.isDead === false ? crash : undefined);
  await go(1);
  for (const name of ["east-vol-1", "east-vol-2"]) {
    world.agent.arrive(name, { source: "east", metadata: { ...metadata, "pvc.name": name } });
    world.agent.freeze(name);
    world.agent.commit(name);
  }
  await go(60);
  world.server.delete(VolumeSnapshots, { namespace: "restore", name: "east-vol-1-copy" });
  world.server.delete(MigratedVolumes, { name: "east-vol-2" });
  await go(120);
  // Another point is pinned in the place of the first.
  world.agent.freeze("east-vol-1");
  world.agent.commit("east-vol-1");
  world.apply(MigrationSources, "west", { spec: { clusterName: "west", caBundle: pem } });
  await go(180);
  world.server.delete(MigrationSources, { name: "west" });
  await go(240);
  return world;
}

test.each(["before", "after", "lostReply"] as const)(
  "killed %s any effect, and started again, it comes to the same end",
  async (mode) => {
    const expected = summary(await story());
    for (let effect = 1; ; effect++) {
      const crash = new CrashPoint({ effect, mode });
      const world = await story(crash);
      if (!crash.wasReached) {
        expect(effect).toBeGreaterThan(20);
        break;
      }
      const name = crash.effects[effect - 1];
      expect([effect, name, summary(world)]).toEqual([effect, name, expected]);
    }
  },
  600_000,
);
