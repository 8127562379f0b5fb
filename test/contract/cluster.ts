// What every Cluster does, the one of a real API server and the fake one alike. Each test uses names of its own, so that all
// of them can share one API server.
import { afterAll, beforeAll, describe, expect, test as jestTest } from "@jest/globals";
import type { Condition, ObjectMeta } from "../../src/api/object.ts";
import {
  type Cluster,
  controlledBy,
  type Draft,
  type EventNote,
  type Index,
  type Key,
  type KindRef,
  type KubeObject,
  keyOf,
} from "../../src/kube/cluster.ts";
import type { KubeError } from "../../src/kube/errors.ts";
import { isSameJson } from "../../src/kube/merge-patch.ts";

/** A cluster-scoped kind with a status subresource; defined by {@link gadgetDefinition}. */
export interface Gadget extends KubeObject {
  readonly metadata: ObjectMeta;
  readonly spec?: { readonly color?: string; readonly size?: number; readonly tags?: readonly string[] };
  readonly status?: {
    readonly phase?: string;
    readonly count?: number;
    readonly seen?: { readonly a?: string; readonly b?: string };
    readonly conditions?: readonly Condition[];
  };
}
export const Gadgets: KindRef<Gadget> = {
  group: "contract.longshore.dev",
  version: "v1",
  plural: "gadgets",
  kind: "Gadget",
  namespaced: false,
};

export interface ConfigMap extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}
export const ConfigMaps: KindRef<ConfigMap> = {
  group: "",
  version: "v1",
  plural: "configmaps",
  kind: "ConfigMap",
  namespaced: true,
};

/** A kind that exists, and that nobody watches. */
const Secrets: KindRef = { group: "", version: "v1", plural: "secrets", kind: "Secret", namespaced: true };

const open = { type: "object", "x-kubernetes-preserve-unknown-fields": true } as const;

export const gadgetDefinition = {
  apiVersion: "apiextensions.k8s.io/v1",
  kind: "CustomResourceDefinition",
  metadata: { name: "gadgets.contract.longshore.dev" },
  spec: {
    group: "contract.longshore.dev",
    scope: "Cluster",
    names: { kind: "Gadget", plural: "gadgets", singular: "gadget", listKind: "GadgetList" },
    versions: [
      {
        name: "v1",
        served: true,
        storage: true,
        subresources: { status: {} },
        schema: { openAPIV3Schema: { type: "object", properties: { spec: open, status: open } } },
      },
    ],
  },
};

export interface ClusterWorld {
  /** Leads, and caches Gadgets and ConfigMaps. */
  readonly cluster: Cluster;
  /** What somebody else does. */
  readonly others: {
    apply<T extends KubeObject>(kind: KindRef<T>, draft: Draft<T>): Promise<void>;
    /** By a merge patch; may set anything but status. */
    edit(kind: KindRef, key: Key, patch: Readonly<Record<string, unknown>>): Promise<void>;
    delete(kind: KindRef, key: Key): Promise<void>;
  };
  /** Resolves as soon as `holds`; fails after a while. */
  eventually(holds: () => boolean | Promise<boolean>): Promise<void>;
  /** The events about objects of this name, in order of their reasons. */
  events(name: string): Promise<readonly (EventNote & { readonly count: number })[]>;
  close(): Promise<void>;
}

const byColor: Index<Gadget> = { kind: Gadgets, valuesOf: ({ spec }) => (spec?.color ? [spec.color] : []) };

const gadget = (
  name: string,
  spec: Gadget["spec"] = { color: "red" },
  labels?: Record<string, string>,
): Draft<Gadget> => ({
  metadata: { name, ...(labels && { labels }) },
  spec,
});

const code = (expected: KubeError["code"]) => expect.objectContaining({ name: "KubeError", code: expected });

/** Where the suite runs: what registers a test, and whether it then runs at all; see test/needs.ts. */
export interface ContractPlace {
  readonly test: (name: string, fn: () => Promise<void>) => void;
  readonly isPossible: boolean;
  readonly startMsMax: number;
}

export function clusterContract(
  name: string,
  openWorld: () => Promise<ClusterWorld>,
  { test, isPossible, startMsMax }: ContractPlace = { test: jestTest, isPossible: true, startMsMax: 180_000 },
): void {
  describe(name, () => {
    let world: ClusterWorld;
    let cluster: Cluster;

    beforeAll(async () => {
      if (!isPossible) return;
      world = await openWorld();
      cluster = world.cluster;
    }, startMsMax);

    afterAll(async () => await world?.close(), startMsMax);

    /** Makes a gadget and returns it as the cache has it. */
    async function made(draft: Draft<Gadget>): Promise<Gadget> {
      await cluster.create(Gadgets, draft);
      return present(draft.metadata.name);
    }

    function present(gadgetName: string): Gadget {
      const object = cluster.get(Gadgets, { name: gadgetName });
      if (object === undefined) throw new Error(`no ${gadgetName} in the cache`);
      return object;
    }

    const names = (objects: readonly KubeObject[]) => objects.map(({ metadata }) => metadata.name).join(" ");

    describe("reads", () => {
      test("what was created is in the cache at once, complete, and frozen", async () => {
        const object = await made(gadget("read-1", { color: "red", tags: ["a"] }));
        expect(object).toMatchObject({
          apiVersion: "contract.longshore.dev/v1",
          kind: "Gadget",
          spec: { tags: ["a"] },
        });
        expect(object.metadata).toMatchObject({ name: "read-1", generation: 1 });
        expect(object.metadata.uid).toMatch(/^[0-9a-f-]{36}$/);
        expect(object.metadata.namespace).toBeUndefined();
        expect(() => Object.assign(object.spec ?? {}, { color: "blue" })).toThrow("read only");
      });

      test("lists filter by labels and namespace, in order of name", async () => {
        await made(gadget("list-b", {}, { set: "one" }));
        await made(gadget("list-a", {}, { set: "one" }));
        await made(gadget("list-c", {}, { set: "two" }));
        await cluster.create(ConfigMaps, {
          metadata: { name: "list-d", namespace: "default", labels: { set: "one" } },
        });
        expect(names(cluster.list(Gadgets, { labels: { set: "one" } }))).toBe("list-a list-b");
        expect(names(cluster.list(Gadgets, { labels: { set: "three" } }))).toBe("");
        const labels = { set: "one" };
        expect(names(cluster.list(ConfigMaps, { namespace: "default", labels }))).toBe("list-d");
        expect(names(cluster.list(ConfigMaps, { namespace: "kube-system", labels }))).toBe("");
        expect(names(await cluster.readList(Gadgets, { labels }))).toBe("list-a list-b");
        expect(names(await cluster.readList(ConfigMaps, { namespace: "default", labels }))).toBe("list-d");
      });

      test("an index finds by value, and follows our changes and those of others", async () => {
        await made(gadget("index-a", { color: "teal" }));
        await made(gadget("index-b", { color: "teal" }));
        expect(names(cluster.find(byColor, "teal"))).toBe("index-a index-b");
        await world.others.edit(Gadgets, { name: "index-a" }, { spec: { color: "lime" } });
        await world.eventually(() => names(cluster.find(byColor, "lime")) === "index-a");
        expect(names(cluster.find(byColor, "teal"))).toBe("index-b");
        expect(names(cluster.find(byColor, "black"))).toBe("");
      });

      test("a fresh read sees what others did a moment ago, and the cache with it", async () => {
        await made(gadget("fresh"));
        await world.others.edit(Gadgets, { name: "fresh" }, { spec: { color: "blue" } });
        expect((await cluster.read(Gadgets, { name: "fresh" }))?.spec?.color).toBe("blue");
        expect(present("fresh").spec?.color).toBe("blue");
        await world.others.delete(Gadgets, { name: "fresh" });
        expect(await cluster.read(Gadgets, { name: "fresh" })).toBeUndefined();
        await world.eventually(() => cluster.get(Gadgets, { name: "fresh" }) === undefined);
      });

      test("an object that others delete and make again is another one", async () => {
        const before = await made(gadget("again"));
        await world.others.delete(Gadgets, { name: "again" });
        await world.others.apply(Gadgets, gadget("again", { color: "blue" }));
        await world.eventually(() => cluster.get(Gadgets, { name: "again" })?.spec?.color === "blue");
        expect(present("again").metadata.uid).not.toBe(before.metadata.uid);
      });

      test("a kind that nobody watches can be read freshly, and is a bug to ask the cache for", async () => {
        expect(await cluster.read(Secrets, { name: "none", namespace: "default" })).toBeUndefined();
        expect(() => cluster.get(Secrets, { name: "none", namespace: "default" })).toThrow("no cache of it");
      });

      test("an aborted signal ends a read", async () => {
        const signal = AbortSignal.abort(new Error("enough"));
        await expect(cluster.read(Gadgets, { name: "any" }, signal)).rejects.toThrow("enough");
      });
    });

    describe("create and apply", () => {
      test("creating what exists says so, and changes nothing", async () => {
        await made(gadget("twice"));
        expect(await cluster.create(Gadgets, gadget("twice", { color: "blue" }))).toBe("exists");
        expect((await cluster.read(Gadgets, { name: "twice" }))?.spec?.color).toBe("red");
      });

      test("applying creates, and applying the same again changes nothing", async () => {
        const first = await cluster.apply(Gadgets, gadget("apply-1", { color: "red", size: 1 }));
        expect(first.spec).toEqual({ color: "red", size: 1 });
        const second = await cluster.apply(Gadgets, gadget("apply-1", { color: "red", size: 1 }));
        expect(second.metadata.resourceVersion).toBe(first.metadata.resourceVersion);
      });

      test("applying removes what it named before, and leaves what others set", async () => {
        await cluster.apply(Gadgets, gadget("apply-2", { color: "red", size: 1 }, { ours: "yes", old: "yes" }));
        await world.others.edit(
          Gadgets,
          { name: "apply-2" },
          {
            spec: { tags: ["theirs"] },
            metadata: { labels: { theirs: "yes" } },
          },
        );
        const after = await cluster.apply(Gadgets, gadget("apply-2", { size: 2 }, { ours: "yes" }));
        expect(after.spec).toEqual({ size: 2, tags: ["theirs"] });
        expect(after.metadata.labels).toEqual({ ours: "yes", theirs: "yes" });
        expect(present("apply-2").metadata.resourceVersion).toBe(after.metadata.resourceVersion);
      });

      test("applying the same again repairs what others changed of it", async () => {
        await cluster.apply(Gadgets, gadget("apply-3", { color: "red" }));
        await world.others.edit(Gadgets, { name: "apply-3" }, { spec: { color: "blue" } });
        await world.eventually(() => present("apply-3").spec?.color === "blue");
        expect((await cluster.apply(Gadgets, gadget("apply-3", { color: "red" }))).spec?.color).toBe("red");
      });

      test("annotations are set and removed one by one, whatever else has changed", async () => {
        const stale = await made(gadget("notes"));
        const edit = { metadata: { annotations: { theirs: "1" } }, spec: { size: 3 } };
        await world.others.edit(Gadgets, { name: "notes" }, edit);
        const set = await cluster.patchAnnotations(Gadgets, stale, { a: "1", b: "2", absent: null });
        expect(set.metadata.annotations).toEqual({ theirs: "1", a: "1", b: "2" });
        const removed = await cluster.patchAnnotations(Gadgets, set, { a: null, b: "2" });
        expect(removed.metadata.annotations).toEqual({ theirs: "1", b: "2" });
        const same = await cluster.patchAnnotations(Gadgets, removed, { a: null, b: "2" });
        expect(same.metadata.resourceVersion).toBe(removed.metadata.resourceVersion);
      });

      test("annotations are never set on a successor", async () => {
        const before = await made(gadget("notes-2"));
        await world.others.delete(Gadgets, { name: "notes-2" });
        await expect(cluster.patchAnnotations(Gadgets, before, { a: "1" })).rejects.toEqual(code("NotFound"));
        await world.others.apply(Gadgets, gadget("notes-2"));
        await expect(cluster.patchAnnotations(Gadgets, before, { a: "1" })).rejects.toEqual(code("Conflict"));
      });
    });

    describe("status", () => {
      test("is set whole: what is not in it is removed, the spec and its generation stay", async () => {
        const object = await made(gadget("status-1"));
        const first = await cluster.patchStatus(Gadgets, object, { phase: "Up", count: 1, seen: { a: "x", b: "y" } });
        expect(first.status).toEqual({ phase: "Up", count: 1, seen: { a: "x", b: "y" } });
        const second = await cluster.patchStatus(Gadgets, first, { count: 2, seen: { b: "y" } });
        expect(second.status).toEqual({ count: 2, seen: { b: "y" } });
        expect(second.spec).toEqual({ color: "red" });
        expect(second.metadata.generation).toBe(1);
        expect(present("status-1").status).toEqual({ count: 2, seen: { b: "y" } });
      });

      test("that is so already is not written", async () => {
        const object = await made(gadget("status-2"));
        const first = await cluster.patchStatus(Gadgets, object, { phase: "Up", seen: { a: "x" } });
        const second = await cluster.patchStatus(Gadgets, first, { seen: { a: "x" }, phase: "Up" });
        expect(second.metadata.resourceVersion).toBe(first.metadata.resourceVersion);
      });

      test("judged from an old view is a conflict, and changes nothing", async () => {
        const stale = await made(gadget("status-3"));
        await world.others.edit(Gadgets, { name: "status-3" }, { spec: { size: 9 } });
        await expect(cluster.patchStatus(Gadgets, stale, { phase: "Up" })).rejects.toEqual(code("Conflict"));
        expect((await cluster.read(Gadgets, { name: "status-3" }))?.status).toBeUndefined();
      });

      test("of an object that is gone is NotFound, of its successor a conflict", async () => {
        const before = await made(gadget("status-4"));
        await world.others.delete(Gadgets, { name: "status-4" });
        await expect(cluster.patchStatus(Gadgets, before, { phase: "Up" })).rejects.toEqual(code("NotFound"));
        await world.others.apply(Gadgets, gadget("status-4"));
        await expect(cluster.patchStatus(Gadgets, before, { phase: "Up" })).rejects.toEqual(code("Conflict"));
      });

      test("given when creating or applying is not written", async () => {
        const draft = { ...gadget("status-5"), status: { phase: "Up" } };
        expect((await cluster.apply(Gadgets, draft)).status).toBeUndefined();
      });
    });

    describe("deletion", () => {
      const finalizer = "contract.longshore.dev/a";

      test("removes an object at once, from the cache as well", async () => {
        const { metadata } = await made(gadget("remove-1"));
        expect(await cluster.remove(Gadgets, metadata)).toBe("removed");
        expect(cluster.get(Gadgets, { name: "remove-1" })).toBeUndefined();
        expect(await cluster.remove(Gadgets, metadata)).toBe("gone");
      });

      test("never hits a successor of the same name", async () => {
        const before = await made(gadget("remove-2"));
        await world.others.delete(Gadgets, { name: "remove-2" });
        await world.others.apply(Gadgets, gadget("remove-2"));
        expect(await cluster.remove(Gadgets, before.metadata)).toBe("gone");
        const { uid, ...key } = { ...keyOf(before), uid: before.metadata.uid };
        expect(await cluster.remove(Gadgets, { ...key, uid })).toBe("gone");
        expect(await cluster.read(Gadgets, { name: "remove-2" })).toBeDefined();
      });

      test("of a version that is no longer the present one is a conflict; by UID alone it goes", async () => {
        const stale = await made(gadget("remove-3"));
        await world.others.edit(Gadgets, { name: "remove-3" }, { spec: { size: 9 } });
        await expect(cluster.remove(Gadgets, stale.metadata)).rejects.toEqual(code("Conflict"));
        expect(await cluster.remove(Gadgets, { name: "remove-3", uid: stale.metadata.uid })).toBe("removed");
      });

      test("waits for finalizers, and is over when the last one is removed", async () => {
        const object = await made(gadget("final-1"));
        const held = await cluster.addFinalizer(Gadgets, object, finalizer);
        expect(held.metadata.finalizers).toEqual([finalizer]);
        expect(await cluster.addFinalizer(Gadgets, held, finalizer)).toBe(held);
        expect(await cluster.remove(Gadgets, held.metadata)).toBe("removed");
        const leaving = present("final-1");
        expect(leaving.metadata.deletionTimestamp).toBeDefined();
        await cluster.removeFinalizer(Gadgets, leaving, finalizer);
        expect(cluster.get(Gadgets, { name: "final-1" })).toBeUndefined();
        expect(await cluster.read(Gadgets, { name: "final-1" })).toBeUndefined();
        await cluster.removeFinalizer(Gadgets, leaving, finalizer);
      });

      test("a finalizer is added to and removed from the version that was judged only; those of others stay", async () => {
        const theirs = "contract.longshore.dev/theirs";
        const stale = await made(gadget("final-2"));
        await world.others.edit(Gadgets, { name: "final-2" }, { metadata: { finalizers: [theirs] } });
        await expect(cluster.addFinalizer(Gadgets, stale, finalizer)).rejects.toEqual(code("Conflict"));
        await cluster.read(Gadgets, { name: "final-2" });
        const held = await cluster.addFinalizer(Gadgets, present("final-2"), finalizer);
        expect(held.metadata.finalizers).toEqual([theirs, finalizer]);
        await world.others.edit(Gadgets, { name: "final-2" }, { spec: { size: 9 } });
        await expect(cluster.removeFinalizer(Gadgets, held, finalizer)).rejects.toEqual(code("Conflict"));
        await cluster.read(Gadgets, { name: "final-2" });
        await cluster.removeFinalizer(Gadgets, present("final-2"), finalizer);
        expect(present("final-2").metadata.finalizers).toEqual([theirs]);
        await world.others.edit(Gadgets, { name: "final-2" }, { metadata: { finalizers: null } });
      });

      test("a finalizer for what is being deleted is a bug", async () => {
        const held = await cluster.addFinalizer(Gadgets, await made(gadget("final-3")), finalizer);
        await cluster.remove(Gadgets, held.metadata);
        const other = "contract.longshore.dev/b";
        await expect(cluster.addFinalizer(Gadgets, present("final-3"), other)).rejects.toThrow("being deleted");
        await cluster.removeFinalizer(Gadgets, present("final-3"), finalizer);
      });

      test("takes along what the object was the only owner of", async () => {
        const map = (name: string) => ({ name, namespace: "default" });
        await cluster.create(ConfigMaps, { metadata: map("owner") });
        const owner = cluster.get(ConfigMaps, map("owner"));
        if (owner === undefined) throw new Error("no owner");
        const ownerReferences = [controlledBy(owner)];
        await cluster.create(ConfigMaps, { metadata: { ...map("owned"), ownerReferences } });
        await cluster.remove(ConfigMaps, owner.metadata);
        await world.eventually(() => cluster.get(ConfigMaps, map("owned")) === undefined);
      });
    });

    describe("events", () => {
      test("of one reason are counted with the newest message, those of another stand apart", async () => {
        const object = await made(gadget("eventful"));
        for (const part of ["a quarter", "half", "all"]) {
          cluster.event(object, { type: "Normal", reason: "Filling", message: `${part} is there` });
        }
        cluster.event(object, { type: "Warning", reason: "Overflow", message: "too much" });
        const written = [
          { type: "Normal", reason: "Filling", message: "all is there", count: 3 },
          { type: "Warning", reason: "Overflow", message: "too much", count: 1 },
        ];
        await world.eventually(async () => isSameJson(await world.events("eventful"), written));
      });

      test("of one occasion are told once, however often they are told; those of another occasion stand apart", async () => {
        const object = await made(gadget("occasional"));
        const tell = (message: string, occasion: string) =>
          cluster.event(object, { type: "Normal", reason: "Filling", message, occasion });
        for (const message of ["begun", "begun again"]) tell(message, "start");
        tell("half", "half");
        const written = (messages: readonly string[]) => async () => {
          const found = await world.events("occasional");
          const told = found.map(({ message, count }) => `${message} ${count}`).sort();
          return isSameJson(told, messages);
        };
        await world.eventually(written(["begun 1", "half 1"]));
        tell("begun once more", "start");
        tell("full", "full");
        await world.eventually(written(["begun 1", "full 1", "half 1"]));
      });

      test("about an object in a namespace are found there", async () => {
        await cluster.create(ConfigMaps, { metadata: { name: "eventful-map", namespace: "kube-system" } });
        const object = cluster.get(ConfigMaps, { name: "eventful-map", namespace: "kube-system" });
        if (object === undefined) throw new Error("no map");
        cluster.event(object, { type: "Normal", reason: "Seen", message: "it is there" });
        await world.eventually(async () => (await world.events("eventful-map")).length === 1);
      });
    });
  });
}
