// What a deletion asks of the API server, and what it makes of the refusals: with no other right than to delete.
import { expect, test } from "@jest/globals";
import type { Api, ApiRequest } from "./api.ts";
import type { KindRef, KubeObject } from "./cluster.ts";
import { KubeError } from "./errors.ts";
import { openCluster } from "./kube-cluster.ts";
import { openStore } from "./store.ts";

const Gadgets: KindRef = {
  group: "contract.longshore.dev",
  version: "v1",
  plural: "gadgets",
  kind: "Gadget",
  namespaced: false,
};

const gadget: KubeObject = {
  apiVersion: "contract.longshore.dev/v1",
  kind: "Gadget",
  metadata: { name: "one", uid: "uid-1", resourceVersion: "7", creationTimestamp: "2026-01-01T00:00:00Z" },
};

/** A cluster whose API server refuses whatever is asked in these words, and what was asked. */
function refusing(code: "Conflict" | "NotFound", words: string) {
  const asked: ApiRequest[] = [];
  const api: Api = {
    request: async (request) => {
      asked.push(request);
      throw new KubeError(code, `${request.method} ${request.path}: ${words}`);
    },
    watch: () => {
      throw new Error("nobody watches");
    },
    close: () => undefined,
  };
  const store = openStore();
  store.replace([gadget], "7");
  const fence = { check: () => undefined, signal: new AbortController().signal };
  const cluster = openCluster({ api, fence, storeOf: () => store, recordEvent: () => undefined });
  return { cluster, asked };
}

test.each([
  [
    "Conflict",
    "409 the UID in the precondition (uid-1) does not match the UID in record (uid-2). The object might have been deleted and then recreated",
  ],
  ["Conflict", "409 Precondition failed: UID in precondition: uid-1, UID in object meta: uid-2"],
  ["NotFound", '404 gadgets "one" not found'],
] as const)("a deletion that is refused with %s, %s: it is gone, and nobody is asked again", async (code, words) => {
  const { cluster, asked } = refusing(code, words);
  expect(await cluster.remove(Gadgets, gadget.metadata)).toBe("gone");
  expect(asked.map(({ method }) => method)).toEqual(["DELETE"]);
  expect(asked[0]?.body).toMatchObject({ preconditions: { uid: "uid-1", resourceVersion: "7" } });
  expect(cluster.get(Gadgets, { name: "one" })).toBeUndefined();
});

test.each([
  "409 the ResourceVersion in the precondition (7) does not match the ResourceVersion in record (8). The object might have been modified",
  "409 admission webhook refuses",
])("a deletion that is refused with %s is a conflict", async (words) => {
  const { cluster, asked } = refusing("Conflict", words);
  await expect(cluster.remove(Gadgets, gadget.metadata)).rejects.toMatchObject({ code: "Conflict" });
  expect(asked.map(({ method }) => method)).toEqual(["DELETE"]);
  expect(cluster.get(Gadgets, { name: "one" })).toBeDefined();
});
