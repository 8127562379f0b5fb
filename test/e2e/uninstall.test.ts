// `make uninstall` takes Longshore out of two clusters between which a volume is migrated: nothing hangs, no data is touched, and
// installing again goes on where it was. What kubelets would do with pods is done here by hand.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import { onInterrupt } from "../interrupt.ts";
import { missing, needs } from "../needs.ts";
import { controlPlaneAssets } from "./control-plane-program.ts";
import { everyComponent } from "./csi/install.ts";
import { differences, treeOf } from "./images.ts";
import { eventually } from "./process.ts";
import { openSite, type Site, systemNamespace } from "./site.ts";
import {
  bindVolume,
  isMigrated,
  isQuiet,
  location,
  makeVolume,
  migrationJob,
  namespace,
  namespaceManifest,
  openTwoSites,
  refs,
  type SeenSite,
  schedule,
  source,
  storageClass,
  type TwoSites,
} from "./two-sites.ts";

const test = needs("controlplane");
const root = join(import.meta.dirname, "../..");
const slowMs = 600_000;
const patience = { timeoutMs: 90_000, intervalMs: 300 };

let sites: TwoSites;
const installedAgain: Site[] = [];

beforeAll(async () => {
  if (missing("controlplane") !== undefined) return;
  sites = await openTwoSites();
  const { mainland, harbor } = sites;
  for (const { plane } of [mainland, harbor]) {
    await plane.kubectl(["apply", "--server-side", "-k", join(root, everyComponent)]);
    await plane.kubectl([
      "apply",
      "--server-side",
      "-f",
      join(root, "manifests/examples/snapshot-metadata-service.yaml"),
    ]);
  }
  await harbor.kube.apply(namespaceManifest, consent());
  await mainland.kube.apply(
    location("harbor", harbor.storage),
    schedule("often"),
    storageClass("migrated", { migrationLocations: "harbor", schedulePolicy: "often" }),
  );
  await makeVolume(mainland, { name: "books", storageClass: "migrated" });
  await isMigrated(mainland, "books");
  await isPublished(harbor);
  await mainland.kube.apply(schedule("often", { suspend: true }));
  await isQuiet(mainland, "books");
  await eventually("what has migrated being released", async () => {
    const { snapshots } = await mainland.storage.api.getVolume("books");
    return snapshots.length === 1 || undefined;
  });
}, slowMs);

afterAll(async () => {
  for (const site of installedAgain) await site.stop();
  await sites?.stop();
}, slowMs);

const consent = () => source("mainland", sites.mainland.storage, { publications: [{ namespace }] });

async function isPublished({ kube }: SeenSite): Promise<void> {
  await eventually("the copy being published", async () => (await kube.list("VolumeSnapshot"))[0], patience);
}

interface Ended {
  readonly status: number | null;
  readonly said: string;
}

/** Runs the uninstall, to its end or until it has said something. */
async function uninstall({ plane }: SeenSite, options: readonly string[] = [], killAt?: RegExp): Promise<Ended> {
  const child = spawn(process.execPath, [join(root, "tools/uninstall.ts"), ...options], {
    env: {
      ...process.env,
      PATH: `${controlPlaneAssets}:${process.env.PATH}`,
      HOME: plane.folder,
      KUBECONFIG: plane.kubeconfigPath,
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const forget = onInterrupt(() => child.kill("SIGKILL"));
  let said = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      said += text;
      if (killAt?.test(said)) child.kill("SIGKILL");
    });
  }
  const [status] = (await once(child, "close")) as [number | null];
  forget();
  return { status, said };
}

/** All objects that the uninstall might touch, with their versions. */
async function everything({ plane }: SeenSite): Promise<string> {
  const kinds = "longshore,deployments,daemonsets,namespaces,clusterroles,csidrivers,persistentvolumes";
  const columns = "-o=custom-columns=K:.kind,N:.metadata.name,V:.metadata.generation,F:.metadata.finalizers";
  const { stdout } = await plane.kubectl(["get", kinds, "--all-namespaces", columns]);
  return stdout;
}

/** A pod that keeps to Pod Security restricted and is never scheduled. */
function pod(name: string, podNamespace: string, more: { labels?: object; volumes?: readonly object[] } = {}): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: podNamespace, ...(more.labels && { labels: more.labels }) },
    spec: {
      nodeSelector: { "kubernetes.io/hostname": "none" },
      securityContext: { runAsNonRoot: true, runAsUser: 65532, seccompProfile: { type: "RuntimeDefault" } },
      containers: [
        {
          name: "main",
          image: "longshore:0.1.0",
          securityContext: { allowPrivilegeEscalation: false, capabilities: { drop: ["ALL"] } },
        },
      ],
      ...(more.volumes && { volumes: more.volumes }),
    },
  });
}

describe("an uninstall is refused, and changes nothing,", () => {
  test(
    "while a pod uses a volume",
    async () => {
      const { mainland } = sites;
      const volumes = [{ name: "data", persistentVolumeClaim: { claimName: "books" } }];
      await mainland.plane.kubectl(["apply", "-f", "-"], { input: pod("reader", namespace, { volumes }) });
      const before = await everything(mainland);
      const { status, said } = await uninstall(mainland);
      expect(status).toBe(1);
      expect(said).toContain(`${namespace}/reader (claim books)`);
      expect(said).toContain("next: delete these pods");
      expect(await everything(mainland)).toBe(before);
      await mainland.plane.kubectl(["delete", "pod", "reader", "-n", namespace, "--grace-period=0", "--force"]);
    },
    slowMs,
  );

  test(
    "while there are snapshots that users took, unless it is told to forget them",
    async () => {
      const { mainland } = sites;
      await usersSnapshot(mainland);
      const before = await everything(mainland);
      const { status, said } = await uninstall(mainland);
      expect(status).toBe(1);
      expect(said).toContain(`${namespace}/taken`);
      expect(said).toContain(`${namespace}/all`);
      expect(said).toContain("--forget-snapshots");
      expect(await everything(mainland)).toBe(before);
    },
    slowMs,
  );
});

test(
  "a dry run tells what would be done, and changes nothing",
  async () => {
    const { mainland } = sites;
    const before = await everything(mainland);
    const { status, said } = await uninstall(mainland, ["--dry-run", "--forget-snapshots"]);
    expect(said).toContain("would run: kubectl scale deployment longshore-operator");
    expect(said).toContain("would run: kubectl delete namespace longshore-system longshore-node");
    expect(said).toMatch(/nothing was changed\n$/);
    expect(status).toBe(0);
    expect(await everything(mainland)).toBe(before);
  },
  slowMs,
);

/** A snapshot with the finalizers that the snapshot controller gives it. */
async function usersSnapshot({ plane }: SeenSite): Promise<void> {
  const snapshots = "snapshot.storage.k8s.io/v1";
  const protection = (what: string) => [`snapshot.storage.kubernetes.io/${what}-bound-protection`];
  const content = {
    apiVersion: snapshots,
    kind: "VolumeSnapshotContent",
    metadata: { name: "taken", finalizers: protection("volumesnapshotcontent") },
    spec: {
      driver: "csi.longshore.dev",
      deletionPolicy: "Delete",
      source: { snapshotHandle: "books@taken" },
      volumeSnapshotRef: { namespace, name: "taken" },
    },
  };
  const snapshot = {
    apiVersion: snapshots,
    kind: "VolumeSnapshot",
    metadata: { namespace, name: "taken", finalizers: protection("volumesnapshot") },
    spec: { source: { volumeSnapshotContentName: "taken" } },
  };
  const input = [content, snapshot, ...usersGroupSnapshot()].map((object) => JSON.stringify(object)).join("\n---\n");
  await plane.kubectl(["apply", "--server-side", "-f", "-"], { input });
}

function usersGroupSnapshot(): object[] {
  const apiVersion = "groupsnapshot.storage.k8s.io/v1beta1";
  const protection = (what: string) => [`groupsnapshot.storage.kubernetes.io/${what}-bound-protection`];
  const handles = { volumeGroupSnapshotHandle: "csi//all", volumeSnapshotHandles: ["books/all"] };
  return [
    {
      apiVersion,
      kind: "VolumeGroupSnapshotContent",
      metadata: { name: "all", finalizers: protection("volumegroupsnapshotcontent") },
      spec: {
        driver: "csi.longshore.dev",
        deletionPolicy: "Delete",
        source: { groupSnapshotHandles: handles },
        volumeGroupSnapshotRef: { namespace, name: "all" },
      },
    },
    {
      apiVersion,
      kind: "VolumeGroupSnapshot",
      metadata: { namespace, name: "all", finalizers: protection("volumegroupsnapshot") },
      spec: { source: { volumeGroupSnapshotContentName: "all" } },
    },
  ];
}

/** What csi-provisioner and csi-snapshotter leave on objects of a cluster in use, and nobody else takes off. */
async function finalizersOfSidecars({ mainland, harbor }: TwoSites): Promise<void> {
  const add = (finalizer: string) => [{ op: "add", path: "/metadata/finalizers/-", value: finalizer }];
  const patch = async ({ plane }: SeenSite, what: string[], changes: object, type = "json") => {
    await plane.kubectl(["patch", ...what, `--type=${type}`, `--patch=${JSON.stringify(changes)}`]);
  };
  await patch(mainland, ["pv", "pv-books"], add("external-provisioner.volume.kubernetes.io/finalizer"));
  await patch(mainland, ["pv", "pv-spare"], add("external-provisioner.volume.kubernetes.io/finalizer"));
  const cloned = add("provisioner.storage.kubernetes.io/cloning-protection");
  await patch(mainland, ["pvc", "spare", "-n", namespace], cloned);
  const [content] = await harbor.kube.list("VolumeSnapshotContent");
  const finalizers = ["snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection"];
  const what = ["volumesnapshotcontent", String(content?.metadata.name)];
  await patch(harbor, what, { metadata: { finalizers } }, "merge");
}

/** The operator's process as a pod that is ready; it ends as the Deployment is scaled down. */
async function standInForKubelet(site: SeenSite): Promise<{ readonly ended: Promise<void> }> {
  const { plane } = site;
  const name = "longshore-operator";
  const labels = { "app.kubernetes.io/name": name };
  await plane.kubectl(["apply", "-f", "-"], { input: pod(`${name}-0`, systemNamespace, { labels }) });
  const status = { phase: "Running", conditions: [{ type: "Ready", status: "True" }] };
  const patch = `--patch=${JSON.stringify({ status })}`;
  const where = ["-n", systemNamespace];
  await plane.kubectl(["patch", "pod", `${name}-0`, ...where, "--subresource=status", "--type=merge", patch]);
  const replicas = ["get", "deployment", name, ...where, "--ignore-not-found", "-o", "jsonpath={.spec.replicas}"];
  const end = async () => {
    const isDown = async () => {
      const { stdout } = await plane.kubectl(replicas);
      return stdout === "0" || stdout === "" || undefined;
    };
    await eventually("the operator being scaled down", isDown, { timeoutMs: 200_000, intervalMs: 300 });
    await site.operator().signal("SIGTERM");
    await plane.kubectl(["delete", "pod", `${name}-0`, ...where, "--grace-period=0", "--force", "--ignore-not-found"]);
  };
  return { ended: end() };
}

/** What an agent keeps: what it tells of it, and the bytes. */
async function dataOf({ storage }: SeenSite) {
  const volumes = (await storage.api.listVolumes()).items.map(({ name, uid, generation, snapshots, bases }) => {
    return { name, uid, generation, bases, snapshots: snapshots.map(({ pointId, state }) => ({ pointId, state })) };
  });
  const copies = (await storage.api.listMigratedVolumes()).items.map(({ name, state, points }) => {
    return { name, state, points: points.map(({ pointId }) => pointId) };
  });
  return { told: { volumes, copies }, files: await treeOf(join(storage.dataDir, "volumes")) };
}

describe("Longshore that was taken out, at one side by an uninstall that was killed in the middle and run again,", () => {
  type Data = Awaited<ReturnType<typeof dataOf>>;
  let before: { mainland: Data; harbor: Data };
  let ended: { killed: Ended; mainland: Ended; harbor: Ended };

  beforeAll(async () => {
    if (sites === undefined) return;
    const { mainland, harbor } = sites;
    await usersSnapshot(mainland);
    await bindVolume(mainland, { name: "spare", storageClass: "none" });
    await finalizersOfSidecars(sites);
    before = { mainland: await dataOf(mainland), harbor: await dataOf(harbor) };
    ended = await takeOut(mainland, harbor);
  }, slowMs);

  async function takeOut(mainland: SeenSite, harbor: SeenSite) {
    const options = ["--wait", "150", "--forget-snapshots"];
    const atMainland = async () => {
      const killed = await uninstall(mainland, options, /^5\//m);
      return { killed, mainland: await uninstall(mainland, options) };
    };
    const [one, two] = [await standInForKubelet(mainland), await standInForKubelet(harbor)];
    const [both, atHarbor] = await Promise.all([atMainland(), uninstall(harbor, options), one.ended, two.ended]);
    return { ...both, harbor: atHarbor };
  }

  test("is gone: definitions, namespaces, roles, the driver and its snapshots", async () => {
    expect(ended).toMatchObject({ killed: { status: null }, mainland: { status: 0 }, harbor: { status: 0 } });
    for (const { plane, kube } of [sites.mainland, sites.harbor]) {
      const ours = "crd,namespaces,clusterroles,clusterrolebindings,csidrivers,volumesnapshotclasses";
      const kinds = `${ours},volumegroupsnapshotclasses,snapshotmetadataservices`;
      const { stdout } = await plane.kubectl(["get", kinds, "-o", "name"]);
      expect(stdout.split("\n").filter((name) => name.includes("longshore"))).toEqual([]);
      expect(await kube.list("VolumeSnapshot")).toEqual([]);
      expect(await kube.list("VolumeSnapshotContent")).toEqual([]);
      const groups = ["get", "volumegroupsnapshots,volumegroupsnapshotcontents", "--all-namespaces", "-o", "name"];
      expect((await plane.kubectl(groups)).stdout).toBe("");
    }
  });

  test("told each step, and what became of the consent that it withdrew", () => {
    for (const { said } of [ended.mainland, ended.harbor]) {
      for (let step = 1; step <= 10; step++) expect(said).toMatch(new RegExp(`^${step}/10 `, "m"));
    }
    expect(ended.harbor.said).toMatch(/migrationsource\S* "?mainland"? deleted/);
  });

  test("leaves every volume, point and copy as it was, bit for bit", async () => {
    for (const name of ["mainland", "harbor"] as const) {
      const after = await dataOf(sites[name]);
      expect(after.told).toEqual(before[name].told);
      expect(differences(before[name].files, after.files)).toEqual([]);
      expect(after.files.size).toBeGreaterThan(0);
    }
  });

  test("leaves users' claims and volumes, which can be deleted", async () => {
    const { plane, kube } = sites.mainland;
    const finalizers = async (name: string) => {
      const [volume, claim] = await Promise.all([kube.get(refs(name).volume), kube.get(refs(name).claim)]);
      return [volume?.metadata.finalizers, claim?.metadata.finalizers];
    };
    expect(await finalizers("books")).toEqual([["kubernetes.io/pv-protection"], ["kubernetes.io/pvc-protection"]]);
    await plane.kubectl(["delete", "pvc", "spare", "-n", namespace, "--ignore-not-found", "--timeout=120s"]);
    await plane.kubectl(["delete", "pv", "pv-spare", "--ignore-not-found", "--timeout=120s"]);
    expect(await finalizers("spare")).toEqual([undefined, undefined]);
  });

  test("is not there to be taken out once more, which is no failure", async () => {
    expect(await uninstall(sites.mainland)).toMatchObject({ status: 0 });
  });

  test(
    "goes on where it was when it is installed again: the next migration is a Delta, the copy is published",
    async () => {
      const { mainland, harbor, folder } = sites;
      for (const site of [mainland, harbor]) {
        installedAgain.push(await openSite(site.plane, site.storage, join(folder, `again-${site.plane.name}`)));
      }
      await harbor.kube.apply(consent());
      await mainland.kube.apply(location("harbor", harbor.storage), schedule("often", { suspend: true }));
      await mainland.kube.condition({ kind: "MigrationLocation", name: "harbor" }, "Ready", "True");
      await mainland.kube.apply(migrationJob("again", { volumeName: "pv-books", location: "harbor" }));
      const job = { kind: "MigrationJob", name: "again" } as const;
      const { status } = await mainland.kube.until(job, "success", (object) => object.status?.phase === "Succeeded");
      expect(status).toMatchObject({ mode: "Delta" });
      await isPublished(harbor);
      const [copy] = await harbor.kube.list("MigratedVolume");
      expect(copy?.metadata.name).toBe(before.harbor.told.copies[0]?.name);
    },
    slowMs,
  );
});
