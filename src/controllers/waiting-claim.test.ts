// What the claim of a clone is told while it waits for a thaw, in a world of fakes: at the start, at quarters, at the end, once each,
// and nothing that is not its own.
import { expect, test } from "@jest/globals";
import { type OperatorWorld, targetWorld } from "../../test/fakes/operator-world.ts";
import { PersistentVolumeClaims } from "./kinds.ts";

const second = 1_000;
const minute = 60 * second;
const volume = "east-vol-1";
const key = { namespace: "restore", name: "db" };

/** What is told about the claim, as `Reason: message`, each with how often. */
const told = (world: OperatorWorld) =>
  [...world.server.events.values()]
    .filter(({ about }) => about === "PersistentVolumeClaim restore/db")
    .map(({ reason, message, count }) => `${count} ${reason}: ${message}`);

const reasons = (world: OperatorWorld) => told(world).map((text) => text.replace(/:.*$/, ""));

const percents = (world: OperatorWorld) => told(world).map((text) => /\((\d+)%\)/.exec(text)?.[1]);

/** A claim that is to be a clone; its UID. */
function claim(world: OperatorWorld): string {
  world.apply(PersistentVolumeClaims, key.name, { spec: {} }, { namespace: key.namespace });
  return world.server.get(PersistentVolumeClaims, key)?.metadata.uid ?? "";
}

/** As csi-provisioner and the CSI driver do it for a claim. */
async function ask(world: OperatorWorld, uid: string, name = key.name): Promise<void> {
  const metadata = { "pvc.namespace": key.namespace, "pvc.name": name };
  await world.agent.putClone(`pvc-${uid}`, { migratedVolume: volume, point: "latest", metadata });
}

function stored(world: OperatorWorld, bytesStored: number): void {
  const { transfer } = world.agent.migratedVolumes.get(volume) ?? {};
  world.agent.freeze(volume, { ...transfer, bytesStored });
}

async function frozenWorld(): Promise<OperatorWorld> {
  const world = targetWorld({ name: "host-disk" });
  world.agent.arrive(volume, { source: "east" });
  world.agent.freeze(volume, { bytesTotal: 400 });
  world.agent.commit(volume);
  world.agent.freeze(volume, { bytesTotal: 400 });
  await world.run();
  return world;
}

test("a claim that waits is told so at the start, at each quarter and at the end, however often it is looked at", async () => {
  const world = await frozenWorld();
  await ask(world, claim(world));
  await world.run(minute);
  expect(told(world)).toEqual([expect.stringMatching(/^1 WaitingForThaw: .*0 B of 400 B stored \(0%\)/)]);
  for (const bytes of [50, 110, 120, 210, 305, 399]) {
    stored(world, bytes);
    await world.run(10 * second);
  }
  expect(percents(world)).toEqual(["0", "27", "52", "76"]);
  world.agent.commit(volume);
  await world.run(10 * second);
  // Processes came and went all the while; each looked at everything.
  expect(reasons(world)).toEqual([
    "1 WaitingForThaw",
    "1 WaitingForThaw",
    "1 WaitingForThaw",
    "1 WaitingForThaw",
    "1 Thawed",
  ]);
  await world.run(minute);
  expect(told(world)).toHaveLength(5);
});

test("one process sees the progress and the end while it runs, although nobody asks for the clone again", async () => {
  const world = await frozenWorld();
  await ask(world, claim(world));
  const halfway = world.clock.sleep(5 * second).then(() => stored(world, 200));
  const over = world.clock.sleep(15 * second).then(() => world.agent.commit(volume));
  await world.run(30 * second);
  await Promise.all([halfway, over]);
  expect(percents(world)).toEqual(["0", "50", undefined]);
  expect(reasons(world).at(-1)).toBe("1 Thawed");
});

test("a claim waits for the first commit as well, also while nothing is on its way", async () => {
  const world = targetWorld();
  world.agent.arrive(volume, { source: "east" });
  await ask(world, claim(world));
  await world.run(minute);
  expect(told(world)).toEqual([expect.stringContaining("has no point in time yet")]);
  world.agent.freeze(volume, { bytesTotal: 400 });
  world.agent.commit(volume);
  await world.run(minute);
  expect(reasons(world)).toEqual(["1 WaitingForThaw", "1 Thawed"]);
});

test("a claim whose clone is made at once is told nothing", async () => {
  const world = await frozenWorld();
  world.agent.commit(volume);
  await world.run(minute);
  await ask(world, claim(world));
  await world.run(minute);
  expect(told(world)).toEqual([]);
});

test("a clone that was made long ago is told of no more", async () => {
  const world = await frozenWorld();
  await ask(world, claim(world));
  world.agent.commit(volume);
  await world.clock.advance(60 * minute);
  await world.run(minute);
  expect(told(world)).toEqual([]);
});

test("a claim that is gone, or going, is told nothing, and one made anew nothing of the old one's clone", async () => {
  const world = await frozenWorld();
  const uid = claim(world);
  world.server.edit(PersistentVolumeClaims, key, { metadata: { finalizers: ["kubernetes.io/pvc-protection"] } });
  world.server.delete(PersistentVolumeClaims, key);
  await ask(world, uid);
  await world.run(minute);
  world.server.edit(PersistentVolumeClaims, key, { metadata: { finalizers: null } });
  expect(claim(world)).not.toBe(uid);
  await world.run(minute);
  world.agent.commit(volume);
  await world.run(minute);
  expect(told(world)).toEqual([]);
});

test("a clone that says it is another claim's is not told of, nor one that has no claim's name", async () => {
  const world = await frozenWorld();
  await ask(world, claim(world), "another");
  await world.agent.putClone("by-hand", { migratedVolume: volume, point: "latest" });
  await world.run(minute);
  expect(told(world)).toEqual([]);
  expect(world.server.events.size).toBe(1); // That the volume was published.
});
