import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readdirSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import { missing, needs } from "../needs.ts";
import { processesNaming } from "../processes.ts";
import { type ControlPlane, startControlPlane } from "./control-plane.ts";
import { areEstablished } from "./kubectl.ts";

const test = needs("controlplane");
const startMsMax = 300_000;

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await holds())) await sleep(50);
}

const boundVolume = [
  { apiVersion: "v1", kind: "Namespace", metadata: { name: "shop" } },
  {
    apiVersion: "v1",
    kind: "PersistentVolume",
    metadata: { name: "pv-orders" },
    spec: {
      capacity: { storage: "1Gi" },
      accessModes: ["ReadWriteOnce"],
      storageClassName: "migrating",
      csi: { driver: "csi.longshore.dev", volumeHandle: "orders" },
    },
  },
  {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name: "orders", namespace: "shop" },
    spec: {
      accessModes: ["ReadWriteOnce"],
      storageClassName: "migrating",
      volumeName: "pv-orders",
      resources: { requests: { storage: "1Gi" } },
    },
  },
];

describe("two control planes side by side", () => {
  let east: ControlPlane;
  let west: ControlPlane;

  beforeAll(async () => {
    if (missing("controlplane") !== undefined) return;
    [east, west] = await Promise.all([startControlPlane({ name: "east" }), startControlPlane({ name: "west" })]);
  }, startMsMax);

  afterAll(async () => {
    await Promise.all([east?.stop(), west?.stop()]);
  });

  test("what is made in one does not exist in the other", async () => {
    await east.kubectl(["create", "namespace", "only-east"]);
    await expect(west.kubectl(["get", "namespace", "only-east"])).rejects.toThrow(/NotFound/);
  });

  test("a pre-provisioned volume of our driver is bound to its claim", async () => {
    const input = boundVolume.map((object) => JSON.stringify(object)).join("\n---\n");
    await east.kubectl(["apply", "-f", "-"], { input });
    await east.kubectl(["wait", "--for=jsonpath={.status.phase}=Bound", "-n", "shop", "pvc/orders", "--timeout=60s"]);
    const { stdout } = await east.kubectl(["get", "pv", "pv-orders", "-o", "jsonpath={.spec.claimRef.name}"]);
    expect(stdout).toBe("orders");
  });

  test("the VolumeSnapshot definitions are at hand and can be applied", async () => {
    await west.kubectl(["apply", "-f", join(import.meta.dirname, "../../.cache/controlplane/crds")]);
    await areEstablished(west, "crd/volumesnapshots.snapshot.storage.k8s.io");
  });

  test("a service account may do what its role says, and nothing else", async () => {
    await west.kubectl(["create", "serviceaccount", "reader"]);
    await west.kubectl(["create", "clusterrole", "read-volumes", "--verb=get,list", "--resource=persistentvolumes"]);
    await west.kubectl([
      "create",
      "clusterrolebinding",
      "r",
      "--clusterrole=read-volumes",
      "--serviceaccount=default:reader",
    ]);
    const kubeconfig = await west.serviceAccountKubeconfig("default", "reader");
    await west.kubectl(["get", "persistentvolumes"], { kubeconfig });
    await expect(west.kubectl(["get", "secrets"], { kubeconfig })).rejects.toThrow(/Forbidden/);
  });

  test(
    "objects, tokens and the address outlive a restart of the API server, which is down meanwhile",
    async () => {
      await west.kubectl(["create", "configmap", "before", "--from-literal=a=b"]);
      await west.restartApiServer(async () => {
        await expect(west.kubectl(["get", "--raw", "/readyz"])).rejects.toThrow(/refused/);
      });
      const { stdout } = await west.kubectl(["get", "configmap", "before", "-o", "jsonpath={.data.a}"]);
      expect(stdout).toBe("b");
    },
    startMsMax,
  );

  test("stopping leaves no process and no folder", async () => {
    expect(processesNaming(east.folder)).toHaveLength(3);
    await east.stop();
    expect(processesNaming(east.folder)).toEqual([]);
    expect(existsSync(east.folder)).toBe(false);
  });
});

describe("a process that has a control plane", () => {
  const program = `
    import { startControlPlane } from ${JSON.stringify(join(import.meta.dirname, "control-plane.ts"))};
    const plane = await startControlPlane({ name: "short-lived" });
    console.log(plane.folder);
    setInterval(() => undefined, 1000);`;

  async function startInProcess() {
    const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
      stdio: ["ignore", "pipe", "inherit"],
    });
    const [folder] = (await once(createInterface(child.stdout), "line")) as [string];
    expect(processesNaming(folder)).toHaveLength(3);
    return { child, folder };
  }

  test(
    "takes it along when it is killed, and the next one removes the folder",
    async () => {
      const { child, folder } = await startInProcess();
      child.kill("SIGKILL");
      await once(child, "exit");
      await until(() => processesNaming(folder).length === 0);
      await (await startControlPlane({ name: "next" })).stop();
      expect(existsSync(folder)).toBe(false);
    },
    startMsMax,
  );

  test(
    "leaves nothing behind when it is interrupted",
    async () => {
      const { child, folder } = await startInProcess();
      child.kill("SIGINT");
      const [status] = await once(child, "exit");
      expect(status).toBe(130);
      await until(() => processesNaming(folder).length === 0);
      expect(existsSync(folder)).toBe(false);
    },
    startMsMax,
  );
});

test("a start that is aborted leaves nothing behind and says why", async () => {
  const folders = () => readdirSync(tmpdir()).filter((name) => name.includes(`${process.pid}-aborted`));
  await expect(startControlPlane({ name: "aborted", signal: AbortSignal.abort() })).rejects.toThrow(/abort/i);
  expect(folders()).toEqual([]);
});
