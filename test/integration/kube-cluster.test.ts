import { expect } from "@jest/globals";
import type { Api } from "../../src/kube/api.ts";
import { type KindRef, settled } from "../../src/kube/cluster.ts";
import { type ClusterWorld, ConfigMaps, clusterContract, Gadgets } from "../contract/cluster.ts";
import { startControlPlane } from "../e2e/control-plane.ts";
import { missing, needs } from "../needs.ts";
import { adminApi, defineGadgets, othersOf, startMsMax, startOperator, until } from "./kube-bench.ts";

interface EventList {
  readonly items: readonly {
    readonly involvedObject: { readonly name: string };
    readonly type: "Normal" | "Warning";
    readonly reason: string;
    readonly message: string;
    readonly count: number;
  }[];
}

async function realWorld(): Promise<ClusterWorld> {
  const plane = await startControlPlane({ name: "contract" });
  await defineGadgets(plane);
  const reads = [ConfigMaps as KindRef];
  const operator = startOperator(plane, {
    controllers: () => [{ name: "idle", kind: Gadgets as KindRef, reads, reconcile: async () => settled }],
    limits: { events: { foldMs: 200 } },
  });
  await operator.leading;
  const api = adminApi(plane);
  return {
    cluster: operator.cluster,
    others: othersOf(api),
    eventually: (holds) => until("what the test says", holds),
    events: (name) => eventsOf(api, name),
    close: async () => {
      expect(await operator.stop()).toBe("stopped");
      api.close();
      await plane.stop();
    },
  };
}

async function eventsOf(api: Api, name: string) {
  const { items } = (await api.request({ method: "GET", path: "/api/v1/events" })) as EventList;
  return items
    .filter((item) => item.involvedObject.name === name)
    .map(({ type, reason, message, count }) => ({ type, reason, message, count }))
    .sort((left, right) => (left.reason < right.reason ? -1 : 1));
}

clusterContract("the cluster of a real API server", realWorld, {
  test: needs("controlplane"),
  isPossible: missing("controlplane") === undefined,
  startMsMax,
});
