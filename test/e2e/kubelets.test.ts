// Whether clusters of real kubelets work at all, and go away again: what csi-clusters.test.ts stands on.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import { type TemporaryFolder, temporaryFolder } from "../fakes/temporary-folder.ts";
import { missing, needs } from "../needs.ts";
import { processesNaming } from "../processes.ts";
import { cgroupsNamed } from "./kubelets/cgroup-root.ts";
import {
  type KubeletCluster,
  type KubeletNetwork,
  openKubeletNetwork,
  startKubeletCluster,
} from "./kubelets/cluster.ts";
import { archiveOf, makeImages } from "./kubelets/image-archives.ts";
import { runPod, startPod } from "./kubelets/pods.ts";
import { eventually } from "./process.ts";

const test = needs("kubelets");
// The images are made first, which takes minutes on a fresh machine.
const startMsMax = 1_800_000;
const testMsMax = 600_000;

/** What a cluster may leave on this machine, by name and number. */
interface Traces {
  readonly network: string;
  readonly link: string;
  readonly folder: string;
  readonly planeFolder: string;
  readonly volumes: string;
  readonly cgroup: string;
  readonly pids: readonly number[];
}

function tracesOf({ network }: KubeletNetwork, cluster: KubeletCluster, folder: string): Traces {
  const node = cluster.node("node-1");
  return {
    network: network.name,
    link: network.link,
    folder,
    planeFolder: cluster.plane.folder,
    volumes: node.volumesFolder,
    cgroup: node.cgroup,
    pids: node.pids(),
  };
}

function left({ network, link, folder, planeFolder, volumes, cgroup, pids }: Traces): string[] {
  const isMount = (line: string) => line.includes(folder) || line.includes(volumes);
  return [
    ...readdirSync("/run/netns").filter((name) => name.startsWith(network)),
    ...readdirSync("/sys/class/net").filter((name) => name === link),
    ...readFileSync("/proc/mounts", "utf8").split("\n").filter(isMount),
    ...[folder, planeFolder].flatMap((path) => processesNaming(path)),
    ...[folder, planeFolder, volumes].filter((path) => existsSync(path)),
    ...cgroupsNamed(cgroup),
    ...pids.filter((pid) => existsSync(`/proc/${pid}`)).map((pid) => `process ${pid}`),
  ];
}

describe("a cluster of one node", () => {
  let folder: TemporaryFolder;
  let network: KubeletNetwork;
  let cluster: KubeletCluster;

  beforeAll(async () => {
    if (missing("kubelets") !== undefined) return;
    await makeImages();
    folder = await temporaryFolder("kubelets");
    network = await openKubeletNetwork(["node-1"]);
    const images = (["pause", "busybox", "longshore"] as const).map(archiveOf);
    cluster = await startKubeletCluster(network, folder.path, { name: "small", nodes: ["node-1"], images });
  }, startMsMax);

  afterAll(async () => {
    await cluster?.stop();
    await network?.network.close();
    await folder?.remove();
  }, testMsMax);

  const read = async (what: string, path: string) =>
    (await cluster.plane.kubectl(["get", what, "-o", `jsonpath={${path}}`])).stdout;

  test(
    "a pod runs, at an address that is reached from this machine",
    async () => {
      const serve = "mkdir -p /tmp/www; echo hello >/tmp/www/index.html; exec busybox httpd -f -p 8080 -h /tmp/www";
      await startPod(cluster.plane, { name: "answering", script: serve });
      const address = await read("pod/answering", ".status.podIP");
      const said = await eventually("the pod answering", async () => (await fetch(`http://${address}:8080/`)).text());
      expect(said).toBe("hello\n");
    },
    testMsMax,
  );

  test(
    "a command that is run in a pod reads its input and gives its output",
    async () => {
      await startPod(cluster.plane, { name: "entered", script: "sleep 600" });
      const input = "there and back";
      const { stdout } = await cluster.plane.kubectl(["exec", "-i", "entered", "--", "cat"], { input });
      expect(stdout).toBe(input);
    },
    testMsMax,
  );

  test(
    "names of Services are found",
    async () => {
      const script = "busybox nslookup kubernetes.default.svc.cluster.local 2>&1; true";
      expect(await runPod(cluster.plane, { name: "asking", script })).toMatch(/10\.0\.0\.1\b/);
    },
    testMsMax,
  );

  test(
    "a program with the token of its service account reaches the API server by name",
    async () => {
      const program = `
        const { readFileSync } = require("node:fs");
        const folder = "/var/run/secrets/kubernetes.io/serviceaccount";
        const headers = { authorization: "Bearer " + readFileSync(folder + "/token", "utf8") };
        const who = { apiVersion: "authentication.k8s.io/v1", kind: "SelfSubjectReview" };
        const path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        const asked = fetch("https://kubernetes.default.svc" + path, {
          method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(who),
        });
        asked.then((answer) => answer.json()).then(({ status }) => console.log(status.userInfo.username));`;
      const said = await runPod(cluster.plane, {
        name: "reviewing",
        script: `exec node -e '${program}'`,
        image: "longshore:0.1.0",
        container: {
          env: [{ name: "NODE_EXTRA_CA_CERTS", value: "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt" }],
        },
      });
      expect(said).toBe("system:serviceaccount:default:default\n");
    },
    testMsMax,
  );

  test(
    "a pod on the node's network writes into the node's folder, and what it mounts is seen on the node",
    async () => {
      const below = "/var/lib/kubelet/seen";
      await startPod(cluster.plane, {
        name: "mounting",
        script: `echo here >/data/note; mkdir -p ${below}/inner; mount -t tmpfs none ${below}/inner; sleep 600`,
        pod: {
          hostNetwork: true,
          volumes: [
            { name: "data", hostPath: { path: "/var/lib/longshore" } },
            { name: "kubelet", hostPath: { path: "/var/lib/kubelet" } },
          ],
        },
        container: {
          securityContext: { privileged: true },
          volumeMounts: [
            { name: "data", mountPath: "/data" },
            { name: "kubelet", mountPath: "/var/lib/kubelet", mountPropagation: "Bidirectional" },
          ],
        },
      });
      const node = cluster.node("node-1");
      await eventually("the mount being seen", async () => node.mountPoints(below).length === 1 || undefined);
      expect(readFileSync(join(node.volumesFolder, "note"), "utf8")).toBe("here\n");
      const address = await read("pod/mounting", ".status.podIP");
      expect(address).toBe(network.network.host("node-1").controlAddress);
    },
    testMsMax,
  );

  test(
    "pods go on while the kubelet is killed and started again",
    async () => {
      await startPod(cluster.plane, { name: "lasting", script: "sleep 601" });
      const node = cluster.node("node-1");
      const before = node.pids(/sleep 601/);
      await node.restartKubelet();
      // It is the new one that makes this pod.
      expect(await runPod(cluster.plane, { name: "later", script: "echo made" })).toBe("made\n");
      expect(before.length).toBeGreaterThan(0);
      expect(node.pids(/sleep 601/)).toEqual(before);
    },
    testMsMax,
  );

  test(
    "after the end nothing of it is left: no process, mount, namespace, link, cgroup or file",
    async () => {
      const traces = tracesOf(network, cluster, folder.path);
      expect(left(traces).length).toBeGreaterThan(10);
      await cluster.stop();
      await network.network.close();
      await folder.remove();
      expect(left(traces)).toEqual([]);
    },
    testMsMax,
  );
});

test(
  "a run that is interrupted leaves nothing, with pods still running",
  async () => {
    await makeImages();
    const here = (file: string) => JSON.stringify(join(import.meta.dirname, file));
    const program = `
      import { openKubeletNetwork, startKubeletCluster } from ${here("kubelets/cluster.ts")};
      import { archiveOf } from ${here("kubelets/image-archives.ts")};
      import { startPod } from ${here("kubelets/pods.ts")};
      import { temporaryFolder } from ${here("../fakes/temporary-folder.ts")};
      const folder = await temporaryFolder("kubelets");
      const network = await openKubeletNetwork(["node-1"]);
      const images = ["pause", "busybox"].map(archiveOf);
      const cluster = await startKubeletCluster(network, folder.path, { name: "short", nodes: ["node-1"], images });
      await startPod(cluster.plane, { name: "running", script: "sleep 600" });
      const node = cluster.node("node-1");
      const { name, link } = network.network;
      console.log(JSON.stringify({ network: name, link, folder: folder.path, planeFolder: cluster.plane.folder,
        volumes: node.volumesFolder, cgroup: node.cgroup, pids: node.pids() }));
      setInterval(() => undefined, 1000);`;
    const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const traces: Traces = JSON.parse(await firstLine(child));
    const before = left(traces);
    child.kill("SIGINT");
    await once(child, "exit");
    expect(before.length).toBeGreaterThan(10);
    await eventually("the last trace going away", async () => left(traces).length === 0 || undefined);
  },
  startMsMax,
);

async function firstLine({ stdout }: ChildProcess): Promise<string> {
  if (stdout === null) throw new Error("its output was not asked for");
  for await (const line of createInterface(stdout)) return line;
  throw new Error("it ended without a word");
}
