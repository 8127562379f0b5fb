import { describe, expect, test } from "@jest/globals";
import {
  again,
  type Cluster,
  type Controller,
  controlledBy,
  type KindRef,
  ownerOf,
  settled,
  watching,
} from "../../src/kube/cluster.ts";
import { ConfigMaps, type Gadget, Gadgets } from "../contract/cluster.ts";
import { type CrashMode, CrashPoint } from "./crash-point.ts";
import { FakeClock } from "./fake-clock.ts";
import { FakeCluster } from "./fake-cluster.ts";
import { FakeKubernetes } from "./fake-kubernetes.ts";
import { settle } from "./settle.ts";

const finalizer = "contract.longshore.dev/copies";

/** Keeps as many ConfigMaps for a Gadget as its size says; one effect at a time, as reconcilers should. */
function copies(cluster: Cluster): Controller {
  return {
    name: "copies",
    kind: Gadgets as KindRef,
    watches: [watching(ConfigMaps, ownerOf(Gadgets as KindRef))],
    async reconcile(key) {
      const gadget = cluster.get(Gadgets, key);
      if (gadget === undefined) return settled;
      const held = cluster.list(ConfigMaps, { labels: { gadget: key.name } });
      if (gadget.metadata.deletionTimestamp !== undefined) {
        const [first] = held;
        if (first === undefined) await cluster.removeFinalizer(Gadgets, gadget, finalizer);
        else await cluster.remove(ConfigMaps, first.metadata);
        return settled;
      }
      if (!gadget.metadata.finalizers?.includes(finalizer)) {
        await cluster.addFinalizer(Gadgets, gadget, finalizer);
        return settled;
      }
      const size = gadget.spec?.size ?? 0;
      if (held.length < size) {
        const name = `${key.name}-${held.length + 1}`;
        const metadata = {
          name,
          namespace: "default",
          labels: { gadget: key.name },
          ownerReferences: [controlledBy(gadget)],
        };
        await cluster.apply(ConfigMaps, { metadata, data: { of: key.name } });
        return settled;
      }
      await cluster.patchStatus(Gadgets, gadget, { count: held.length });
      return settled;
    },
  };
}

interface World {
  readonly server: FakeKubernetes;
  run(crash?: CrashPoint): Promise<{ crashed: boolean }>;
}

function newWorld(controllerOf: (cluster: Cluster) => Controller): World {
  const clock = new FakeClock();
  const server = new FakeKubernetes(clock);
  server.create(Gadgets, { metadata: { name: "g" }, spec: { size: 3 } });
  const run = async (crash = new CrashPoint()) => {
    const cluster = new FakeCluster({ server, crash });
    return await settle({ cluster, clock, controllers: [controllerOf(cluster)] });
  };
  return { server, run };
}

describe("settling", () => {
  test("ends when nothing more happens, with the world as it should be", async () => {
    const world = newWorld(copies);
    expect(await world.run()).toMatchObject({ crashed: false });
    expect(Object.keys(world.server.summary())).toEqual([
      "ConfigMap default/g-1",
      "ConfigMap default/g-2",
      "ConfigMap default/g-3",
      "Gadget g",
    ]);
    world.server.delete(Gadgets as KindRef, { name: "g" });
    await world.run();
    expect(world.server.summary()).toEqual({});
  });

  test("lets time pass as far as the horizon for those who ask for another look", async () => {
    const clock = new FakeClock();
    const cluster = new FakeCluster({ server: new FakeKubernetes(clock) });
    await cluster.create(Gadgets, { metadata: { name: "g" } });
    const controllers = [{ name: "ticking", kind: Gadgets as KindRef, reconcile: async () => again(1_000) }];
    const { reconciles } = await settle({ cluster, clock, controllers, horizonMs: 10_000 });
    expect([reconciles.length, clock.monotonicMs()]).toEqual([11, 10_000]);
  });

  test("gives up on reconciles that never come to an end", async () => {
    const world = newWorld((cluster) => ({
      name: "restless",
      kind: Gadgets as KindRef,
      async reconcile(key) {
        const gadget = cluster.get(Gadgets, key) as Gadget;
        await cluster.patchStatus(Gadgets, gadget, { count: (gadget.status?.count ?? 0) + 1 });
        return settled;
      },
    }));
    await expect(world.run()).rejects.toThrow("not settled after 1000 reconciles");
  });
});

describe.each<CrashMode>(["before", "after", "lostReply"])("a failure %s an effect", (mode) => {
  test("at any effect leaves a world from which a good reconciler settles to the same end", async () => {
    const reference = newWorld(copies);
    await reference.run();
    let failures = 0;
    for (let effect = 1; ; effect++) {
      const world = newWorld(copies);
      const crash = new CrashPoint({ effect, mode });
      const { crashed } = await world.run(crash);
      expect(crashed).toBe(crash.wasReached && mode !== "lostReply");
      if (!crash.wasReached) break;
      failures++;
      await world.run();
      expect(world.server.summary()).toEqual(reference.server.summary());
    }
    // Finalizer, three copies, status.
    expect(failures).toBe(5);
  });
});

test("a reconciler that relies on two effects happening together is found out", async () => {
  const careless = (cluster: Cluster): Controller => ({
    name: "careless",
    kind: Gadgets as KindRef,
    async reconcile(key) {
      const gadget = cluster.get(Gadgets, key);
      if (gadget === undefined || gadget.status?.count !== undefined) return settled;
      const counted = await cluster.patchStatus(Gadgets, gadget, { count: 1 });
      await cluster.apply(ConfigMaps, { metadata: { name: counted.metadata.name, namespace: "default" } });
      return settled;
    },
  });
  const reference = newWorld(careless);
  await reference.run();
  const world = newWorld(careless);
  await world.run(new CrashPoint({ effect: 1, mode: "after" }));
  await world.run();
  expect(world.server.summary()).not.toEqual(reference.server.summary());
});

test("a process that was killed has no more effects, and sees nothing", async () => {
  const cluster = new FakeCluster({ crash: new CrashPoint({ effect: 1, mode: "after" }) });
  await expect(cluster.create(Gadgets, { metadata: { name: "a" } })).rejects.toThrow("killed after create Gadget a");
  await expect(cluster.create(Gadgets, { metadata: { name: "b" } })).rejects.toThrow("was killed");
  await expect(cluster.read(Gadgets, { name: "a" })).rejects.toThrow("was killed");
  expect(() => cluster.get(Gadgets, { name: "a" })).toThrow("was killed");
  expect(cluster.restarted().get(Gadgets, { name: "a" })).toBeDefined();
});

test("a cache that is held back shows the past, except for what the process did itself", async () => {
  const cluster = new FakeCluster();
  const { server } = cluster;
  server.create(Gadgets, { metadata: { name: "a" }, spec: { size: 1 } });
  expect(cluster.get(Gadgets, { name: "a" })?.spec?.size).toBe(1);
  cluster.holdBack();
  server.edit(Gadgets, { name: "a" }, { spec: { size: 2 } });
  await cluster.create(Gadgets, { metadata: { name: "b" } });
  expect(cluster.get(Gadgets, { name: "a" })?.spec?.size).toBe(1);
  expect(cluster.get(Gadgets, { name: "b" })).toBeDefined();
  const stale = cluster.get(Gadgets, { name: "a" });
  if (stale === undefined) throw new Error("not there");
  await expect(cluster.patchStatus(Gadgets, stale, { phase: "Up" })).rejects.toThrow("has been modified");
  cluster.catchUp();
  expect(cluster.get(Gadgets, { name: "a" })?.spec?.size).toBe(2);
});
