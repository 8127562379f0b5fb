// Publication in a namespace where others may do as they like: pinned points, and what becomes of VolumeSnapshots that are
// deleted, forged, displaced or held back. In a world of fakes, with the snapshot-controller's finalizers.
import { expect, test } from "@jest/globals";
import { beingDeleted, boundProtection, runSnapshotControllers } from "../../test/fakes/fake-snapshot-controller.ts";
import { type OperatorWorld, pem, targetWorld } from "../../test/fakes/operator-world.ts";
import { KubeError } from "../kube/errors.ts";
import { MigratedVolumes, MigrationSources, VolumeSnapshotContents, VolumeSnapshots } from "./kinds.ts";

const second = 1_000;
const volume = "east-vol-1";
const place = { namespace: "restore", name: "db-copy" };
const content = { name: `longshore-${volume}` };

/** Runs the operator and the snapshot controllers in turn, until neither has anything to do. */
async function settle(world: OperatorWorld, inUse: readonly string[] = []): Promise<void> {
  for (let turn = 0; turn < 8; turn++) {
    await world.run(turn === 0 ? 0 : second);
    runSnapshotControllers(world.server, inUse);
  }
  await world.run();
}

function arrive(world: OperatorWorld, name = volume, claim = "db"): void {
  const metadata = { "pvc.namespace": "shop", "pvc.name": claim, volumeMode: "Filesystem" };
  world.agent.arrive(name, { source: "east", sourceVolumeUid: `${name}-uid`, metadata });
}

/** Points whose ids differ in their beginnings, as random ones do. */
function commit(world: OperatorWorld, times = 1): void {
  for (let time = 0; time < times; time++) {
    const number = (world.agent.migratedVolumes.get(volume)?.points.length ?? 0) + 1;
    world.agent.freeze(volume);
    world.agent.commit(volume, { pointId: String(number).padEnd(32, "a") });
  }
}

async function publishedWorld(rule: Record<string, unknown> = {}): Promise<OperatorWorld> {
  const world = targetWorld(rule);
  await world.run();
  arrive(world);
  commit(world);
  await settle(world);
  return world;
}

const object = (world: OperatorWorld, name = volume) => world.server.get(MigratedVolumes, { name });
const snapshot = (world: OperatorWorld) => world.server.get(VolumeSnapshots, place);
const contentIn = (world: OperatorWorld) => world.server.get(VolumeSnapshotContents, content);

function published(world: OperatorWorld, name = volume): string {
  const found = object(world, name)?.status?.conditions?.find(({ type }) => type === "Published");
  return found === undefined ? "none" : `${found.status} ${found.reason}`;
}

/** The points' ids, newest first. */
const pointIds = (world: OperatorWorld) =>
  (world.agent.migratedVolumes.get(volume)?.points ?? []).map(({ pointId }) => pointId).reverse();

/** The pinned handles of all contents there are. */
const pins = (world: OperatorWorld) =>
  world.server
    .list(VolumeSnapshotContents)
    .map(({ spec }) => spec.source.snapshotHandle?.split("@")[1])
    .filter((point) => point !== "latest")
    .sort();

test("pinned points are VolumeSnapshots of their own, which stand for one point each, and say which", async () => {
  const world = await publishedWorld({ pinned: { keep: 2 } });
  commit(world, 2);
  await settle(world);
  const [newest = "", older = ""] = pointIds(world);
  expect(pins(world)).toEqual([newest, older].sort());
  const name = `db-copy-${newest.slice(0, 10)}`;
  const pinned = world.server.get(VolumeSnapshots, { namespace: "restore", name });
  expect(pinned?.spec.source.volumeSnapshotContentName).toBe(`longshore.${newest}.${volume}`);
  expect(pinned?.metadata.labels?.["longshore.dev/point"]).toBe(newest);
  const pinnedContent = world.server.get(VolumeSnapshotContents, { name: `longshore.${newest}.${volume}` });
  expect(pinnedContent?.spec).toMatchObject({
    deletionPolicy: "Retain",
    source: { snapshotHandle: `${volume}@${newest}` },
    sourceVolumeMode: "Filesystem",
    volumeSnapshotRef: { namespace: "restore", name },
  });
  expect(published(world)).toBe("True Ok");
  expect(object(world)?.status?.published).toMatchObject([
    { ...place, contentName: content.name },
    { namespace: "restore", name, pointId: newest },
    { namespace: "restore", pointId: older },
  ]);
});

test("a pinned VolumeSnapshot goes when its point is none of the newest any more, and the others are not touched", async () => {
  const world = await publishedWorld({ pinned: { keep: 2 } });
  commit(world);
  await settle(world);
  const [kept = ""] = pointIds(world);
  const versionOf = (name: string) => world.server.get(VolumeSnapshotContents, { name })?.metadata.resourceVersion;
  const before = [versionOf(content.name), versionOf(`longshore.${kept}.${volume}`)];
  commit(world);
  await settle(world);
  expect(pins(world)).toEqual(pointIds(world).slice(0, 2).sort());
  expect([versionOf(content.name), versionOf(`longshore.${kept}.${volume}`)]).toEqual(before);
  // The agent let go of all but the newest.
  const view = world.agent.migratedVolumes.get(volume);
  Object.assign(view ?? {}, { points: view?.points.slice(-1) });
  await settle(world);
  expect(pins(world)).toEqual(pointIds(world));
});

test("a point whose data is lost is not pinned any more", async () => {
  const world = await publishedWorld({ pinned: { keep: 3 } });
  commit(world);
  await settle(world);
  const view = world.agent.migratedVolumes.get(volume);
  const [newest] = pointIds(world);
  Object.assign(view ?? {}, { points: view?.points.map((one, at) => (at === 0 ? { ...one, state: "lost" } : one)) });
  await settle(world);
  expect(pins(world)).toEqual([newest]);
});

test("the volumes of a group have pinned points of one name and one label for each group point", async () => {
  const world = await publishedWorld({ pinned: { keep: 1 } });
  arrive(world, "east-vol-2", "log");
  const groupPoint = "f".repeat(32);
  for (const name of [volume, "east-vol-2"]) {
    world.agent.freeze(name);
    world.agent.commit(name, { groupPoint });
  }
  await settle(world);
  const ofGroup = world.server.list(VolumeSnapshots).filter(({ metadata }) => {
    return metadata.labels?.["longshore.dev/point"] === groupPoint;
  });
  expect(ofGroup.map(({ metadata }) => metadata.name)).toEqual(["db-copy-ffffffffff", "log-copy-ffffffffff"]);
  expect(pins(world)).toEqual([groupPoint, groupPoint]);
});

test("a rule that pins nothing any more, or under other names, has what was pinned withdrawn", async () => {
  const world = await publishedWorld({ pinned: { keep: 2, name: "{claim}-{time}" } });
  commit(world);
  await settle(world);
  expect(pins(world)).toHaveLength(2);
  const rule = (more: Record<string, unknown>) => {
    const publications = [{ namespace: "restore", name: "{claim}-copy", ...more }];
    world.apply(MigrationSources, "east", { spec: { clusterName: "east", caBundle: pem, publications } });
  };
  rule({ pinned: { keep: 2, name: "pin-{point}" } });
  await settle(world);
  const names = world.server.list(VolumeSnapshots).map(({ metadata }) => metadata.name);
  expect(names).toEqual(["db-copy", ...pointIds(world).map((id) => `pin-${id.slice(0, 10)}`)].sort());
  rule({});
  await settle(world);
  expect(pins(world)).toEqual([]);
  expect(world.server.list(VolumeSnapshots).map(({ metadata }) => metadata.name)).toEqual(["db-copy"]);
  expect(published(world)).toBe("True Ok");
});

test("a name that cannot be is told, and what has one is published all the same", async () => {
  const world = await publishedWorld({ pinned: { keep: 1, name: "{point}-" } });
  expect(published(world)).toBe("False NameConflict");
  expect(object(world)?.status?.published).toMatchObject([place]);
});

test.each([
  ["knows no such kind", VolumeSnapshotContents, "NotFound"],
  ["has no such namespace", VolumeSnapshots, "NotFound"],
  ["refuses it by a policy", VolumeSnapshots, "Invalid"],
] as const)(
  "where the API server %s, that is told, and what the volume is like all the same",
  async (_, kind, code) => {
    const world = targetWorld();
    const create = world.server.create.bind(world.server);
    world.server.create = (made, draft) => {
      if (made.plural === kind.plural) throw new KubeError(code, "no");
      return create(made, draft);
    };
    arrive(world);
    commit(world);
    await world.run(second);
    expect(published(world)).toBe("False NamespaceMissing");
    expect(object(world)?.status).toMatchObject({ state: "Available", pointCount: 1 });
    world.server.create = create;
    await settle(world);
    expect(published(world)).toBe("True Ok");
  },
);

test("a VolumeSnapshot that a tenant deletes is made anew and bound anew, and no point is lost", async () => {
  const world = await publishedWorld();
  const before = [snapshot(world)?.metadata.uid, contentIn(world)?.metadata.uid];
  const points = pointIds(world);
  world.server.delete(VolumeSnapshots, place);
  await settle(world);
  expect(before).not.toContain(snapshot(world)?.metadata.uid);
  expect(before).not.toContain(contentIn(world)?.metadata.uid);
  expect(contentIn(world)?.spec.volumeSnapshotRef.uid).toBe(snapshot(world)?.metadata.uid);
  expect([published(world), pointIds(world)]).toEqual(["True Ok", points]);
});

test("a tenant who takes the finalizers off before deleting leaves no content behind that hangs for ever", async () => {
  const world = await publishedWorld();
  const before = contentIn(world)?.metadata.uid;
  world.server.edit(VolumeSnapshots, place, { metadata: { finalizers: null } });
  world.server.delete(VolumeSnapshots, place);
  expect(snapshot(world)).toBeUndefined();
  await world.run();
  // Nobody else says so, for the VolumeSnapshot was gone at once.
  expect(contentIn(world)?.metadata).toMatchObject({ annotations: { [beingDeleted]: "yes" }, uid: before });
  await settle(world);
  expect(contentIn(world)?.metadata.uid).not.toBe(before);
  expect([published(world), contentIn(world)?.metadata.finalizers]).toEqual(["True Ok", [boundProtection]]);
});

test("what is deleted while a claim is restored from it is made anew once it is gone", async () => {
  const world = await publishedWorld();
  const before = snapshot(world)?.metadata.uid;
  world.server.delete(VolumeSnapshots, place);
  await settle(world, [place.name]);
  expect([snapshot(world)?.metadata.uid, published(world)]).toEqual([before, "False Remaking"]);
  await settle(world);
  expect([snapshot(world)?.metadata.uid === before, published(world)]).toEqual([false, "True Ok"]);
});

test("a VolumeSnapshot forged onto the content of another namespace gets nothing, and is left alone", async () => {
  const world = await publishedWorld();
  const forged = { namespace: "elsewhere", name: "mine" };
  const { labels, ownerReferences } = snapshot(world)?.metadata ?? {};
  const spec = { source: { volumeSnapshotContentName: content.name } };
  world.apply(VolumeSnapshots, forged.name, { spec }, { namespace: forged.namespace, labels, ownerReferences });
  const before = contentIn(world)?.metadata.resourceVersion;
  await settle(world);
  expect(world.server.get(VolumeSnapshots, forged)?.spec).toEqual(spec);
  expect(contentIn(world)?.spec.volumeSnapshotRef).toMatchObject({ ...place, uid: snapshot(world)?.metadata.uid });
  expect([published(world), contentIn(world)?.metadata.resourceVersion]).toEqual(["True Ok", before]);
  // Nor when the one that is meant goes: the content made anew is for that place again.
  world.server.delete(VolumeSnapshots, place);
  await settle(world);
  expect(contentIn(world)?.spec.volumeSnapshotRef).toMatchObject(place);
  expect(world.server.get(VolumeSnapshots, forged)?.spec).toEqual(spec);
});

test.each([
  ["of a claim of theirs", { persistentVolumeClaimName: "own" }],
  ["of another volume's content", { volumeSnapshotContentName: "longshore-east-vol-2" }],
])("a tenant's own VolumeSnapshot %s is left alone in that place, until it goes", async (_, of) => {
  const world = await publishedWorld();
  arrive(world, "east-vol-2", "log");
  world.agent.freeze("east-vol-2");
  world.agent.commit("east-vol-2");
  await settle(world);
  world.server.edit(VolumeSnapshots, place, { metadata: { finalizers: null } });
  world.server.delete(VolumeSnapshots, place);
  world.apply(VolumeSnapshots, place.name, { spec: { source: of } }, { namespace: place.namespace });
  await settle(world);
  expect([snapshot(world)?.spec.source, published(world)]).toEqual([of, "False NameConflict"]);
  const other = world.server.get(VolumeSnapshotContents, { name: "longshore-east-vol-2" });
  expect(other?.spec.volumeSnapshotRef).toMatchObject({ namespace: "restore", name: "log-copy" });
  expect(published(world, "east-vol-2")).toBe("True Ok");
  world.server.delete(VolumeSnapshots, place);
  await settle(world);
  expect([snapshot(world)?.spec.source, published(world)]).toEqual([
    { volumeSnapshotContentName: content.name },
    "True Ok",
  ]);
});

test("labels and owners that a tenant takes off are not needed to find what is to be withdrawn", async () => {
  const world = await publishedWorld();
  world.server.edit(VolumeSnapshots, place, { metadata: { labels: null, ownerReferences: null } });
  const publications = [{ namespace: "elsewhere" }];
  world.apply(MigrationSources, "east", { spec: { clusterName: "east", caBundle: pem, publications } });
  await settle(world);
  expect(snapshot(world)).toBeUndefined();
  expect(world.server.get(VolumeSnapshots, { namespace: "elsewhere", name: "db" })).toBeDefined();
  expect(published(world)).toBe("True Ok");
});

test.each([
  ["policy", { deletionPolicy: "Delete" }],
  ["handle", { source: { snapshotHandle: "east-vol-2@latest" } }],
  ["driver", { driver: "csi.example.com" }],
])("a content whose %s is not as we make it is made anew, with its VolumeSnapshot", async (_, spec) => {
  const world = await publishedWorld();
  const before = snapshot(world)?.metadata.uid;
  world.server.edit(VolumeSnapshotContents, content, { spec });
  await settle(world);
  expect(contentIn(world)?.spec).toMatchObject({
    deletionPolicy: "Retain",
    driver: "csi.longshore.dev",
    source: { snapshotHandle: `${volume}@latest` },
  });
  expect([snapshot(world)?.metadata.uid === before, published(world)]).toEqual([false, "True Ok"]);
});

test("what a tenant holds back does not keep the copy from being deleted", async () => {
  const world = await publishedWorld({ pinned: { keep: 1 } });
  world.server.edit(VolumeSnapshots, place, { metadata: { finalizers: ["tenant.example.com/mine"] } });
  world.server.delete(MigratedVolumes, { name: volume });
  await settle(world);
  expect([object(world), world.agent.migratedVolumes.size]).toEqual([undefined, 0]);
  expect(world.server.list(VolumeSnapshotContents)).toEqual([]);
  expect(snapshot(world)?.metadata.deletionTimestamp).toBeDefined();
});

test("what a source tells and nobody can be called, or have, is not believed", async () => {
  const world = targetWorld({ name: "host-disk" });
  const metadata = { "pvc.namespace": "Shop!", "pvc.name": "x".repeat(4_000), volumeMode: "Tape" };
  world.agent.arrive(volume, { source: "east", metadata });
  commit(world);
  await settle(world);
  expect(object(world)?.status).not.toHaveProperty("claim");
  expect(object(world)?.status).not.toHaveProperty("volumeMode");
  expect(contentIn(world)?.spec).not.toHaveProperty("sourceVolumeMode");
  expect(published(world)).toBe("True Ok");
});
