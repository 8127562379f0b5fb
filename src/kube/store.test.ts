import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { type Index, type KindRef, type KubeObject, keyOf } from "./cluster.ts";
import { isOlder, openStore } from "./store.ts";

interface Claim extends KubeObject {
  readonly spec: { readonly volume: string };
}
const Claims: KindRef<Claim> = { group: "", version: "v1", plural: "claims", kind: "Claim", namespaced: true };
const byVolume: Index = { kind: Claims, valuesOf: (object) => [(object as Claim).spec.volume] };

/** `a@5` is the object a at resourceVersion 5; `a#2@5` has another UID; `a@5=x` has the volume x. */
function claim(text: string): Claim {
  const [, name, uid, version, volume] = /^(\w+)(?:#(\w+))?@(\d+)(?:=(\w+))?$/.exec(text) ?? [];
  return {
    apiVersion: "v1",
    kind: "Claim",
    metadata: {
      name: name ?? "",
      namespace: "default",
      uid: `${name}-${uid ?? "1"}`,
      resourceVersion: version ?? "",
      creationTimestamp: "2026-01-01T00:00:00Z",
    },
    spec: { volume: volume ?? "v" },
  };
}

const show = (object: KubeObject) => {
  const [name, uid] = object.metadata.uid.split("-");
  return `${name}${uid === "1" ? "" : `#${uid}`}@${object.metadata.resourceVersion}`;
};

/** Each step is `list RV: objects`, `add`, `mod`, `del`, `learn`, `forget`, or `mark RV`. */
function play(steps: readonly string[]) {
  const store = openStore();
  const changes: string[] = [];
  store.onChange(({ before, after }) => changes.push(`${before ? show(before) : ""}>${after ? show(after) : ""}`));
  for (const step of steps) {
    const [verb = "", first = "", ...rest] = step.split(" ");
    if (verb === "list") store.replace(rest.map(claim), first);
    else if (verb === "add") store.observe("ADDED", claim(first));
    else if (verb === "mod") store.observe("MODIFIED", claim(first));
    else if (verb === "del") store.observe("DELETED", claim(first));
    else if (verb === "learn") store.learn(claim(first));
    else if (verb === "forget") store.forget({ key: keyOf(claim(first)), uid: claim(first).metadata.uid });
    else if (verb === "mark") store.reached(first);
    else throw new Error(`unknown step ${step}`);
  }
  return { store, changes, held: store.list().map(show).join(" ") };
}

test.each<[string, string[], string]>([
  ["a list is taken", ["list 9 a@3 b@5"], "a@3 b@5"],
  ["what a later list lacks is gone", ["list 9 a@3 b@5", "list 12 b@11"], "b@11"],
  ["lines add, change and delete", ["list 9 a@3", "add b@10", "mod a@11", "del b@12"], "a@11"],
  ["an old line does not undo our own write", ["list 9 a@3", "learn a@12", "mod a@11"], "a@12"],
  ["the line of our own write is no news", ["list 9 a@3", "learn a@12", "mod a@12"], "a@12"],
  ["our own creation is known before the watch tells", ["list 9", "learn a@12"], "a@12"],
  ["our own creation survives a list from before it", ["list 9", "learn a@12", "list 10"], "a@12"],
  ["our own creation goes with a list from after it", ["list 9", "learn a@12", "list 13"], ""],
  ["a late answer does not wake the dead", ["list 9 a@3", "mod a@12", "del a@13", "learn a@12"], ""],
  ["a late answer does not wake what a list lacked", ["list 9 a@3", "list 14", "learn a@12"], ""],
  ["a bookmark outdates late answers", ["list 9", "mark 20", "learn a@12"], ""],
  ["a successor is not deleted with its predecessor", ["list 9 a@3", "learn a#2@14", "del a@13"], "a#2@14"],
  ["our own deletion is known at once", ["list 9 a@3", "forget a@3"], ""],
  ["an old line does not undo our own deletion", ["list 9 a@3", "forget a@3", "mod a@11"], ""],
  ["after our own deletion a successor is seen", ["list 9 a@3", "forget a@3", "del a@12", "add a#2@13"], "a#2@13"],
  ["forgetting a predecessor leaves the successor", ["list 9 a#2@8", "forget a@3"], "a#2@8"],
  ["a list lifts what was forgotten too early", ["list 9 a@3", "forget a@3", "list 12 a@11"], "a@11"],
  ["a cluster restored from a backup is taken as it is", ["list 9 a@3 b@8", "mod a@20", "list 6 a@3"], "a@3"],
])("%s", (_name, steps, held) => {
  expect(play(steps).held).toBe(held);
});

test("listeners hear each change once, with the state before and after", () => {
  const { changes } = play(["list 9 a@3", "mod a@11", "learn a@12", "mod a@12", "del a@13", "del a@13"]);
  expect(changes).toEqual([">a@3", "a@3>a@11", "a@11>a@12", "a@12>"]);
});

describe("an index", () => {
  test("finds by value, follows changes, and forgets values that nothing has", () => {
    const { store } = play(["list 9 a@3=x b@4=y"]);
    const found = (value: string) => store.find(byVolume, value).map(show).join(" ");
    expect([found("x"), found("y"), found("z")]).toEqual(["a@3", "b@4", ""]);
    store.observe("MODIFIED", claim("a@10=y"));
    expect([found("x"), found("y")]).toEqual(["", "a@10 b@4"]);
    store.observe("DELETED", claim("b@11=y"));
    expect(found("y")).toBe("a@10");
  });

  test("always agrees with a walk over all objects", () => {
    const step = fc.record({
      verb: fc.constantFrom("add", "del", "learn"),
      name: fc.constantFrom("a", "b", "c"),
      volume: fc.constantFrom("x", "y"),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), (steps) => {
        const { store } = play(["list 1"]);
        store.find(byVolume, "x");
        steps.forEach(({ verb, name, volume }, at) => {
          const object = claim(`${name}@${at + 2}=${volume}`);
          if (verb === "learn") store.learn(object);
          else store.observe(verb === "del" ? "DELETED" : "ADDED", object);
        });
        const names = store.list().map(({ metadata }) => metadata.name);
        expect(names).toEqual([...names].sort());
        expect(store.list()).toEqual(names.map((name) => store.get({ name, namespace: "default" })));
        for (const value of ["x", "y"]) {
          const walked = store.list().filter((object) => (object as Claim).spec.volume === value);
          expect(store.find(byVolume, value)).toEqual(walked);
        }
      }),
    );
  });
});

test("lists filter by namespace and labels, sorted by name", () => {
  const store = openStore();
  const labelled = (text: string, namespace: string, labels: Record<string, string>): KubeObject => {
    const object = claim(text);
    return { ...object, metadata: { ...object.metadata, namespace, labels } };
  };
  store.replace(
    [labelled("b@2", "n", { app: "x" }), labelled("a@3", "n", { app: "y" }), labelled("c@4", "m", { app: "x" })],
    "9",
  );
  expect(store.list().map(show)).toEqual(["c@4", "a@3", "b@2"]);
  expect(store.list({ namespace: "n" }).map(show)).toEqual(["a@3", "b@2"]);
  expect(store.list({ labels: { app: "x" } }).map(show)).toEqual(["c@4", "b@2"]);
  expect(store.list({ namespace: "n", labels: { app: "x" } }).map(show)).toEqual(["b@2"]);
});

test("objects are frozen, and field managers' bookkeeping is dropped", () => {
  const store = openStore();
  const object = claim("a@3");
  store.replace(
    [{ ...object, metadata: { ...object.metadata, managedFields: [{ manager: "x" }] } } as KubeObject],
    "9",
  );
  const held = store.get({ name: "a", namespace: "default" }) as Claim;
  expect(held.metadata).not.toHaveProperty("managedFields");
  expect(() => Object.assign(held.spec, { volume: "w" })).toThrow("read only");
  expect(() => (store.list() as KubeObject[]).push(held)).toThrow("not extensible");
});

test.each([
  ["9", "10", true],
  ["10", "9", false],
  ["10", "10", false],
  ["99999999999999999998", "99999999999999999999", true],
])("resourceVersion %s is older than %s: %s", (left, right, older) => {
  expect(isOlder(left, right)).toBe(older);
});
