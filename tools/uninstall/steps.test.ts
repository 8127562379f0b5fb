import { expect, test } from "@jest/globals";
import { Cluster } from "./cluster.ts";
import type { KubeObject } from "./decisions.ts";
import { steps } from "./steps.ts";

/** One that has these objects, and loop devices on its node; it tells what it was asked to change. */
class FakeCluster extends Cluster {
  readonly changes: string[] = [];
  readonly #objects: Readonly<Record<string, readonly object[]>>;
  readonly #losetup: string;

  constructor(objects: Readonly<Record<string, readonly object[]>>, losetup = "") {
    super({ isDryRun: false, waitMs: 0, tell: () => undefined });
    this.#objects = objects;
    this.#losetup = losetup;
  }

  override async list<T extends KubeObject>(kind: string, ...more: string[]): Promise<T[]> {
    const selected = more.some((option) => option.includes("--selector")) ? `${kind} selected` : kind;
    return (this.#objects[selected] ?? []) as T[];
  }

  override async execute(): Promise<string> {
    return this.#losetup;
  }

  override async change(...args: string[]): Promise<void> {
    this.changes.push(args.slice(0, 3).join(" "));
  }
}

const used = {
  persistentvolumes: [{ metadata: { name: "pv" }, spec: { csi: { driver: "csi.longshore.dev" } } }],
  persistentvolumeclaims: [{ metadata: { namespace: "shop", name: "data" }, spec: { volumeName: "pv" } }],
  pods: [
    {
      metadata: { namespace: "shop", name: "db-0" },
      spec: { volumes: [{ name: "data", persistentVolumeClaim: { claimName: "data" } }] },
    },
  ],
};

const stopNodes = (cluster: Cluster) => {
  const step = steps.find(({ title }) => title === "Agents and node plugin stop");
  if (step === undefined) throw new Error("no such step");
  return step.run(cluster, { forgetSnapshots: false });
};

test("the node plugin stays for a pod that came up since the first step looked", async () => {
  const cluster = new FakeCluster(used);
  await expect(stopNodes(cluster)).rejects.toThrow("shop/db-0 (claim data)");
  expect(cluster.changes).toEqual([]);
});

test("the node plugin stays for what was attached since the second step looked", async () => {
  const node = { metadata: { name: "longshore-node-1" }, status: { phase: "Running" } };
  const cluster = new FakeCluster({ "pods selected": [node] }, "/dev/loop3 /var/lib/longshore/volumes/v1/live.img\n");
  await expect(stopNodes(cluster)).rejects.toThrow("longshore-node-1: /dev/loop3");
  expect(cluster.changes).toEqual([]);
});

test("a group snapshot that a user took is in the way of an uninstall, whatever became of its parts", async () => {
  const ref = { namespace: "shop", name: "all" };
  const content = { metadata: { name: "group" }, spec: { driver: "csi.longshore.dev", volumeGroupSnapshotRef: ref } };
  const cluster = new FakeCluster({ "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io": [content] });
  await expect(steps[0]?.run(cluster, { forgetSnapshots: false })).rejects.toThrow("shop/all");
});

test("the node plugin goes where nobody uses it", async () => {
  const cluster = new FakeCluster({});
  await stopNodes(cluster);
  expect(cluster.changes).toEqual(["delete daemonset longshore-node"]);
});
