// Longshore is taken out of both clusters: not while it is used; then wholly, without anything that hangs; and the data stays. What
// its accounts were seen to do until then is all that they have rights for.
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { delimiter, join } from "node:path";
import { promisify } from "node:util";
import { expect } from "@jest/globals";
import { parseAllDocuments } from "yaml";
import { controlPlaneAssets } from "../control-plane-program.ts";
import type { Manifest } from "../kube-client.ts";
import { eventually } from "../process.ts";
import { eventsOf, grantsOf, missing, parseAuditLog, type RbacObject, unusedRules } from "../rbac-audit.ts";
import { everyComponent } from "./install.ts";
import { apply, inPod, podIsReady } from "./kube.ts";
import { namespaces } from "./objects.ts";
import type { TestCluster } from "./test-cluster.ts";
import type { World } from "./world.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../../..");
const uninstallMsMax = 400_000;

/** Where pods that only look at data run. */
const namespace = "steady";

export async function isTakenOutAndLeavesTheData({ source, target }: World): Promise<void> {
  await expect(uninstall(source)).rejects.toThrow(/pods use volumes of Longshore/);
  // Devices are this machine's, whichever cluster has a volume on them.
  await Promise.all([source, target].map(endPods));
  for (const cluster of [source, target]) {
    await eventually(`${cluster.name} having nothing mounted`, () => isFree(cluster), { timeoutMs: 120_000 });
    await apply(cluster, ...lookers(cluster));
    const before = await dataOf(cluster);
    await uninstall(cluster);
    const after = await dataOf(cluster);
    expect(after.live).toEqual(before.live);
    // Snapshots of a schedule come and go until it is taken away; what has arrived from elsewhere does not.
    if (cluster === target) expect(after.points).toEqual(before.points);
    await nothingIsLeftOf(cluster);
  }
}

/** A dry run tells what is in the way, and changes nothing. */
async function isFree(cluster: TestCluster): Promise<true> {
  await uninstall(cluster, "--dry-run");
  return true;
}

/** `make uninstall`; throws what it says when it refuses. */
async function uninstall({ kubeconfig, home }: TestCluster, ...options: readonly string[]): Promise<void> {
  const path = [controlPlaneAssets, process.env.PATH].join(delimiter);
  const env = { ...process.env, KUBECONFIG: kubeconfig, HOME: home, PATH: path };
  const program = ["--disable-warning=ExperimentalWarning", join(root, "tools/uninstall.ts"), ...options];
  await run(process.execPath, program, { env, timeout: uninstallMsMax, maxBuffer: 2 ** 24 });
}

/** All pods of the scenarios. */
async function endPods(cluster: TestCluster): Promise<void> {
  const all = ["statefulsets,pods", "--all", "--wait=true", "--timeout=150s"];
  await Promise.all(namespaces.map((each) => cluster.kubectl(["delete", ...all, "--namespace", each])));
}

/** On each node a pod that sees the node's data as it lies there. */
function lookers({ nodes }: TestCluster): Manifest[] {
  const container = {
    name: "main",
    image: "busybox:test",
    command: ["sh", "-c", "sleep 86400"],
    volumeMounts: [{ name: "data", mountPath: "/data" }],
  };
  return nodes.map((nodeName) => ({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: lookerOn(nodeName), namespace },
    spec: {
      nodeName,
      terminationGracePeriodSeconds: 1,
      containers: [container],
      volumes: [{ name: "data", hostPath: { path: "/var/lib/longshore" } }],
    },
  }));
}

const lookerOn = (node: string) => `looker-${node}`;

interface Data {
  /** What the volumes hold, and what files there are of points in time. */
  readonly live: string;
  readonly points: string;
}

async function dataOf(cluster: TestCluster): Promise<Data> {
  const say = async (command: string) => {
    const said: string[] = [];
    for (const node of cluster.nodes) {
      const looker = { kind: "pod", namespace, name: lookerOn(node) };
      await podIsReady(cluster, namespace, looker.name);
      // A node may have none.
      said.push(`${node}:\n${await inPod(cluster, looker, `${command} 2>/dev/null || true`)}`);
    }
    return said.join("");
  };
  const live = await say("sha256sum /data/volumes/*/live.img");
  const points = await say("stat --format '%n %s %b' /data/volumes/*/points/*.img");
  expect(live + points).toMatch(/\.img/);
  return { live, points };
}

async function nothingIsLeftOf(cluster: TestCluster): Promise<void> {
  const names = async (what: string) => (await cluster.kubectl(["get", what, "-o", "name"])).stdout;
  expect(await names("crd")).not.toMatch(/longshore\.dev/);
  for (const what of ["namespaces", "clusterroles", "csidrivers"]) expect(await names(what)).not.toMatch(/longshore/);
  // Claims can be deleted, although nobody is there any more who knows their volumes.
  const all = ["pvc", "--all", "--wait=true", "--timeout=60s"];
  await Promise.all(namespaces.map((each) => cluster.kubectl(["delete", ...all, "--namespace", each])));
}

/** Each account, and where its rights are written. */
const accounts = [
  { namespace: "longshore-system", name: "longshore-operator", manifests: everyComponent },
  { namespace: "longshore-system", name: "longshore-csi", manifests: everyComponent },
  { namespace: "kube-system", name: "snapshot-controller", manifests: "manifests/snapshot-controller" },
] as const;

/** By both clusters' audit logs; only clusters of the tests' own have them. */
export async function everyRightIsUsed({ source, target }: World): Promise<void> {
  const logs = [source, target].map(({ own }) => own?.auditLog ?? "");
  const events = (await Promise.all(logs.map((log) => readFile(log, "utf8")))).flatMap(parseAuditLog);
  for (const { manifests, ...account } of accounts) {
    const { stdout } = await source.kubectl(["kustomize", join(root, manifests)]);
    const objects = parseAllDocuments(stdout).map((document) => document.toJS() as RbacObject);
    const used = eventsOf(events, account);
    expect({ account, unused: unusedRules(grantsOf(objects, account), used) }).toEqual({ account, unused: [] });
    expect({ account, missing: missing(used) }).toEqual({ account, missing: [] });
  }
}
