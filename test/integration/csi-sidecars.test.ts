// The sidecars that an overlay may add, as programs in front of the real driver and a real API server, with the flags and the rights
// of manifests/: group snapshots come and go, backup tools are told what to read, and no right is missing or left unused.
import { randomBytes } from "node:crypto";
import { open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import { parseAllDocuments } from "yaml";
import type { CreateVolumeResponse } from "../../src/csi/csi-messages.ts";
import {
  audience,
  type BackupTool,
  makeServerCertificate,
  openBackupTool,
  type ServerCertificate,
  snapshotMetadataService,
} from "../e2e/backup-tool.ts";
import { type ControlPlane, startControlPlane } from "../e2e/control-plane.ts";
import { controlPlaneAssets, type Program, startProgram } from "../e2e/control-plane-program.ts";
import { everyComponent } from "../e2e/csi/install.ts";
import { auditPolicy } from "../e2e/csi/test-cluster.ts";
import { type CsiProcess, startCsiController } from "../e2e/csi-processes.ts";
import { freePort } from "../e2e/free-port.ts";
import type { Manifest, Seen } from "../e2e/kube-client.ts";
import { areEstablished } from "../e2e/kubectl.ts";
import { eventually } from "../e2e/process.ts";
import {
  eventsOf,
  grantsOf,
  missing as missingRights,
  parseAuditLog,
  type RbacObject,
  unusedRules,
} from "../e2e/rbac-audit.ts";
import { type StorageCluster, startStorageCluster } from "../e2e/storage-cluster.ts";
import { controller, openCsiClient } from "../fakes/csi-client.ts";
import { block, createVolumeRequest, range } from "../fakes/csi-requests.ts";
import { type LoopFs, mountLoop } from "../fakes/loop-fs.ts";
import { type TemporaryFolder, temporaryFolder } from "../fakes/temporary-folder.ts";
import { missing, needs } from "../needs.ts";

const machine = ["controlplane", "root", "xfs", "openssl"] as const;
const check = needs(...machine);
const isPossible = machine.every((need) => missing(need) === undefined);
const root = join(import.meta.dirname, "../..");
const slowMs = 120_000;
const mebibyte = 2 ** 20;
const namespace = "library";
const volumes = ["shelves", "catalogue"] as const;
const patience = { timeoutMs: 60_000, intervalMs: 200 };

const closers: (() => Promise<void> | void)[] = [];
let folder: TemporaryFolder;
let plane: ControlPlane;
let storage: StorageCluster;
let driver: CsiProcess;
let certificate: ServerCertificate;
let toolAddress: string;
let tool: BackupTool;

beforeAll(async () => {
  if (!isPossible) return;
  folder = await temporaryFolder("sidecars");
  closers.push(() => folder.remove());
  await startDriver();
  plane = await startControlPlane({ name: "sidecars", hosting: { address: "127.0.0.1", nodes: [], auditPolicy } });
  closers.push(() => plane.stop());
  await plane.kubectl(["apply", "--server-side", "-f", join(controlPlaneAssets, "crds")]);
  await areEstablished(plane, "crd", "--all");
  for (const what of [everyComponent, "manifests/snapshot-controller"]) {
    await plane.kubectl(["apply", "--server-side", "-k", join(root, what)]);
  }
  await makeClaims();
  await startSidecars();
}, slowMs);

afterAll(async () => {
  for (const close of closers.reverse()) await close();
}, slowMs);

async function startDriver(): Promise<void> {
  const disk: LoopFs = await mountLoop({ fs: "xfs", sizeBytes: 512 * mebibyte });
  closers.push(() => disk.unmount());
  storage = await startStorageCluster({
    name: "sidecars",
    folder: folder.path,
    dataDir: join(disk.path, "data"),
    backend: "reflink",
  });
  closers.push(() => storage.stop());
  driver = await startCsiController({ storage, folder: folder.path });
  closers.push(() => driver.process.signal("SIGTERM"));
}

/** Claims with volumes, as csi-provisioner makes them. */
async function makeClaims(): Promise<void> {
  const client = openCsiClient(driver.endpoint, controller);
  closers.push(() => client.close());
  await apply({ apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } });
  for (const name of volumes) {
    const fields = { name, capacityRange: range(16 * mebibyte), volumeCapabilities: [block] };
    const { volume } = await client.call<CreateVolumeResponse>("CreateVolume", createVolumeRequest(fields));
    const common = { accessModes: ["ReadWriteOnce"], volumeMode: "Block", storageClassName: "none" };
    await apply(
      {
        apiVersion: "v1",
        kind: "PersistentVolume",
        metadata: { name: `pv-${name}` },
        spec: {
          ...common,
          capacity: { storage: "16Mi" },
          claimRef: { namespace, name },
          csi: { driver: "csi.longshore.dev", volumeHandle: volume.volumeId },
        },
      },
      {
        apiVersion: "v1",
        kind: "PersistentVolumeClaim",
        metadata: { namespace, name, labels: { app: "reading" } },
        spec: { ...common, volumeName: `pv-${name}`, resources: { requests: { storage: "16Mi" } } },
      },
    );
    await becomes({ kind: "pvc", name }, "bound", ({ status }) => status?.phase === "Bound");
  }
}

/** As their containers do, but for the addresses. */
async function startSidecars(): Promise<void> {
  certificate = await makeServerCertificate(folder.path);
  await plane.kubectl(["apply", "--server-side", "-f", "-"], { input: await snapshotMetadataService(certificate) });
  const port = await freePort();
  const socket = `--csi-address=${driver.endpoint.replace("unix://", "")}`;
  const http = "--http-endpoint=";
  const csi = { namespace: "longshore-system", name: "longshore-csi" };
  await startSidecar("csi-snapshotter", csi, await argsOf(everyComponent, "csi-snapshotter"), [socket, http]);
  const tls = [`--tls-cert=${certificate.certFile}`, `--tls-key=${certificate.keyFile}`];
  const metadata = [socket, http, `--port=${port}`, ...tls];
  await startSidecar("csi-snapshot-metadata", csi, await argsOf(everyComponent, "csi-snapshot-metadata"), metadata);
  const common = { namespace: "kube-system", name: "snapshot-controller" };
  const args = await argsOf("manifests/snapshot-controller", common.name);
  await startSidecar("snapshot-controller", common, args, [http]);
  await plane.kubectl(["create", "serviceaccount", "backup", "--namespace", namespace]);
  const account = `--serviceaccount=${namespace}:backup`;
  const read = ["--verb=get", "--resource=volumesnapshots.snapshot.storage.k8s.io"];
  await plane.kubectl(["create", "role", "backup", ...read, "--namespace", namespace]);
  await plane.kubectl(["create", "rolebinding", "backup", "--role=backup", account, "--namespace", namespace]);
  toolAddress = `127.0.0.1:${port}`;
  tool = openBackupTool(toolAddress, certificate.pem, await tokenOf("backup", audience));
  closers.push(() => tool.close());
}

async function tokenOf(account: string, whom: string): Promise<string> {
  const options = ["create", "token", account, "--namespace", namespace, `--audience=${whom}`];
  return (await plane.kubectl(options)).stdout.trim();
}

/** The flags of a container in what a kustomization renders. */
async function argsOf(kustomization: string, container: string): Promise<string[]> {
  const { stdout } = await plane.kubectl(["kustomize", join(root, kustomization)]);
  type Workload = { spec?: { template?: { spec?: { containers?: { name: string; args?: string[] }[] } } } };
  const objects = parseAllDocuments(stdout).map((document) => document.toJS() as Workload);
  const containers = objects.flatMap(({ spec }) => spec?.template?.spec?.containers ?? []);
  const args = containers.find(({ name }) => name === container)?.args;
  if (args === undefined) throw new Error(`${kustomization} has no container ${container}`);
  return args;
}

async function startSidecar(
  program: string,
  { namespace: where, name }: { namespace: string; name: string },
  args: readonly string[],
  instead: readonly string[],
): Promise<void> {
  const flagOf = (arg: string) => arg.split("=")[0];
  const kept = args.filter((arg) => !instead.some((other) => flagOf(other) === flagOf(arg)));
  const kubeconfig = `--kubeconfig=${await plane.serviceAccountKubeconfig(where, name)}`;
  const options = [...kept, ...instead, kubeconfig].map((arg) => arg.replace("$(NAMESPACE)", where));
  const started: Program = startProgram(program, options, folder.path);
  closers.push(() => started.kill());
}

async function apply(...objects: readonly Manifest[]): Promise<void> {
  const input = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
  await plane.kubectl(["apply", "--server-side", "-f", "-"], { input });
}

async function get(kind: string, name: string): Promise<Seen> {
  const { stdout } = await plane.kubectl(["get", kind, name, "--namespace", namespace, "-o", "json"]);
  return JSON.parse(stdout) as Seen;
}

function becomes({ kind, name }: { kind: string; name: string }, what: string, holds: (object: Seen) => boolean) {
  return eventually(
    `${kind} ${name} being ${what}`,
    async () => {
      const object = await get(kind, name);
      return holds(object) ? object : undefined;
    },
    patience,
  );
}

/** Writes into a volume as its pod would. */
async function write(volume: string, offset: number, length: number): Promise<void> {
  const { uid } = await storage.api.getVolume(volume);
  const file = await open(join(storage.dataDir, "volumes", uid, "live.img"), "r+");
  try {
    await file.write(randomBytes(length), 0, length, offset);
    await file.sync();
  } finally {
    await file.close();
  }
}

const groupApi = "groupsnapshot.storage.k8s.io/v1beta1";

function groupSnapshot(name: string, volumeGroupSnapshotClassName: string, finalizers: string[] = []): Manifest {
  const source = { selector: { matchLabels: { app: "reading" } } };
  return {
    apiVersion: groupApi,
    kind: "VolumeGroupSnapshot",
    metadata: { name, namespace, finalizers },
    spec: { volumeGroupSnapshotClassName, source },
  };
}

const isReady = ({ status }: Seen) => status?.readyToUse === true;

/** The parts of a group, by claim. */
async function membersOf(group: string): Promise<Map<string, Seen>> {
  const { stdout } = await plane.kubectl(["get", "volumesnapshots", "--namespace", namespace, "-o", "json"]);
  const { items } = JSON.parse(stdout) as { items: Seen[] };
  const parts = items.filter(({ status }) => status?.volumeGroupSnapshotName === group && status.readyToUse === true);
  return new Map(parts.map((part) => [part.spec.source.persistentVolumeClaimName as string, part]));
}

const snapshotsAtAgent = async () =>
  (await storage.api.listVolumes()).items.flatMap(({ snapshots }) => snapshots.filter(({ released }) => !released));

describe("claims with a label in common", () => {
  check(
    "are snapshotted as a group; each part is a VolumeSnapshot that is ready, and tools are told what it and the next one have",
    async () => {
      await write("shelves", mebibyte, mebibyte);
      // The snapshot controller adds its finalizer in another way where there is one already.
      await apply(groupSnapshot("both", "longshore", ["example.com/kept"]));
      await becomes({ kind: "volumegroupsnapshot", name: "both" }, "ready", isReady);
      const members = await eventually(
        "both parts being ready",
        async () => {
          const found = await membersOf("both");
          return found.size === volumes.length ? found : undefined;
        },
        patience,
      );
      const part = String(members.get("shelves")?.metadata.name);
      const content = await get(
        "volumesnapshotcontent",
        String(members.get("shelves")?.status.boundVolumeSnapshotContentName),
      );
      expect((await snapshotsAtAgent()).length).toBe(volumes.length);

      await write("shelves", mebibyte + 512 * 1024, 64 * 1024);
      await write("shelves", 8 * mebibyte, 64 * 1024);
      await apply({
        apiVersion: "snapshot.storage.k8s.io/v1",
        kind: "VolumeSnapshot",
        metadata: { name: "later", namespace },
        spec: { volumeSnapshotClassName: "longshore", source: { persistentVolumeClaimName: "shelves" } },
      });
      await becomes({ kind: "volumesnapshot", name: "later" }, "ready", isReady);
      const first = { offset: mebibyte, length: mebibyte };
      const over = { offset: mebibyte + 512 * 1024, length: 64 * 1024 };
      const second = { offset: 8 * mebibyte, length: 64 * 1024 };
      const since = content.status.snapshotHandle as string;
      expect(await tool.allocated({ namespace, snapshot: "later" })).toEqual([first, second]);
      expect(await tool.changed({ namespace, snapshot: "later", since })).toEqual([over, second]);
      // A part names no class; the sidecar looks for the default one, and says so where there is none.
      await expect(tool.allocated({ namespace, snapshot: part })).rejects.toThrow(/default VolumeSnapshotClass/);
    },
    slowMs,
  );

  check(
    "whose group snapshot cannot be made are told why",
    async () => {
      const misspelt = {
        apiVersion: groupApi,
        kind: "VolumeGroupSnapshotClass",
        metadata: { name: "misspelt" },
        driver: "csi.longshore.dev",
        deletionPolicy: "Delete",
        parameters: { quick: "true" },
      };
      await apply(misspelt, groupSnapshot("wrong", "misspelt"));
      const isTold = ({ status }: Seen) => /parameter quick is not known/.test(status?.error?.message ?? "");
      await becomes({ kind: "volumegroupsnapshot", name: "wrong" }, "told", isTold);
      await plane.kubectl(["delete", "volumegroupsnapshot", "wrong", "--namespace", namespace, "--timeout=60s"]);
    },
    slowMs,
  );

  check(
    "lose their group snapshot with all its parts when it is deleted, and nothing else",
    async () => {
      await apply(groupSnapshot("both", "longshore"));
      await plane.kubectl(["delete", "volumegroupsnapshot", "both", "--namespace", namespace, "--timeout=60s"]);
      const areGone = async () => ((await membersOf("both")).size === 0 ? true : undefined);
      await eventually("the parts being gone", areGone, patience);
      expect((await snapshotsAtAgent()).map(({ name }) => name)).toEqual([expect.stringMatching(/^snapshot-/)]);
      await plane.kubectl(["delete", "volumesnapshot", "later", "--namespace", namespace, "--timeout=60s"]);
    },
    slowMs,
  );
});

describe("a backup tool is told nothing", () => {
  const asks = async (token: string) => {
    const other = openBackupTool(toolAddress, certificate.pem, token);
    try {
      return await other.allocated({ namespace, snapshot: "any" });
    } finally {
      other.close();
    }
  };

  check("with a token for somebody else", async () => {
    await expect(asks(await tokenOf("backup", "somebody.else"))).rejects.toMatchObject({
      code: status.UNAUTHENTICATED,
    });
  });

  check("with a token of an account that may not see the snapshot", async () => {
    await expect(asks(await tokenOf("default", audience))).rejects.toMatchObject({ code: status.PERMISSION_DENIED });
  });
});

check("every right that is there for these two has been used, and none was missing", async () => {
  const events = parseAuditLog(await readFile(plane.auditLog, "utf8"));
  for (const { account, file, which } of rights) {
    const text = await readFile(join(root, file), "utf8");
    const objects = parseAllDocuments(text).map((one) => one.toJS() as RbacObject);
    const used = eventsOf(events, account);
    const unused = unusedRules(grantsOf(objects, account), used).filter((right) => which.test(right));
    expect({ file, unused, missing: missingRights(used) }).toEqual({ file, unused: [], missing: [] });
  }
});

const csiAccount = { namespace: "longshore-system", name: "longshore-csi" };
const rights = [
  { account: csiAccount, file: "manifests/group-snapshots/cluster-role.yaml", which: /./ },
  { account: csiAccount, file: "manifests/snapshot-metadata/cluster-role.yaml", which: /./ },
  {
    account: { namespace: "kube-system", name: "snapshot-controller" },
    file: "manifests/snapshot-controller/rbac.yaml",
    // Single snapshots use the others, in the clusters' scenarios.
    which: /groupsnapshot/,
  },
];
