import type { EventNote, KindRef } from "../../src/kube/cluster.ts";
import { FakeCluster } from "../fakes/fake-cluster.ts";
import { ConfigMaps, clusterContract, Gadgets } from "./cluster.ts";

clusterContract("the fake cluster", async () => {
  const cluster = new FakeCluster({ kinds: [Gadgets as KindRef, ConfigMaps as KindRef] });
  const { server } = cluster;
  return {
    cluster,
    others: {
      apply: async (kind, draft) => void server.apply(kind, draft),
      edit: async (kind, key, patch) => void server.edit(kind, key, patch),
      delete: async (kind, key) => server.delete(kind, key),
    },
    eventually: async (holds) => {
      if (!(await holds())) throw new Error("the fake does not make anybody wait, and yet it does not hold");
    },
    events: async (name) =>
      [...server.events.values()]
        .filter(({ about }) => about.endsWith(` ${name}`) || about.endsWith(`/${name}`))
        .sort((left, right) => (left.reason < right.reason ? -1 : 1))
        .map(({ about: _, ...event }): EventNote & { count: number } => event),
    close: async () => undefined,
  };
});
