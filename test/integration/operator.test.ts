// The operator's reconcilers against a real API server, as the ServiceAccount and with the rights of manifests/operator, and
// an agent in memory: that what they write is what the schemas accept, that they may do what they do, and that they may
// do nothing else.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import { parseAllDocuments } from "yaml";
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { silentLog } from "../../src/base/log.ts";
import { openMetrics } from "../../src/base/metrics.ts";
import { AgentFleet } from "../../src/controllers/agent-fleet.ts";
import { openControllers, routeNews } from "../../src/controllers/controllers.ts";
import type { Cluster } from "../../src/kube/cluster.ts";
import { runOperator } from "../../src/kube/operator.ts";
import { type ControlPlane, startControlPlane } from "../e2e/control-plane.ts";
import { controlPlaneAssets } from "../e2e/control-plane-program.ts";
import { areEstablished } from "../e2e/kubectl.ts";
import { type Rule, rightsOf } from "../e2e/rbac-audit.ts";
import { FakeAgent } from "../fakes/fake-agent.ts";
import { openRecordingProxy, type RecordingProxy } from "../fakes/recording-proxy.ts";
import { missing, needs } from "../needs.ts";
import { longTiming } from "./kube-leader.ts";

const root = join(import.meta.dirname, "../..");
/** Both only end what would never end by itself. */
const [untilMsMax, slowMs] = [150_000, 600_000];
const pem = "-----BEGIN CERTIFICATE-----\\nMIIB\\n-----END CERTIFICATE-----\\n";

let plane: ControlPlane;
let proxy: RecordingProxy;
const agent = new FakeAgent({ nowMs: () => Date.now() });
let isSucceeding = true;

/** Jobs succeed as soon as they are given to the agent. */
const push = agent.feed.push.bind(agent.feed);
agent.feed.push = (kind, name) => {
  push(kind, name);
  const job = kind === "job" ? agent.jobs.get(name) : undefined;
  if (!isSucceeding || job?.state !== "Pending") return;
  const result = {
    mode: { kind: "Delta", reason: "CommonBase" },
    bytesTotal: 4096,
    bytesSent: 4200,
    verified: "media",
  } as const;
  queueMicrotask(() => agent.jobs.get(name)?.state === "Pending" && agent.succeedJob(name, result));
};

interface Running {
  stop(): Promise<void>;
}

function startOperator(): Running {
  const stop = new AbortController();
  const base = { clock: systemClock, dice: systemDice, log: silentLog, metrics: openMetrics() };
  let fleet: AgentFleet | undefined;
  const controllers = (cluster: Cluster) => {
    const connect = () => Object.assign(agent, { close: async () => undefined });
    fleet = new AgentFleet({ ...base, seeds: ["127.0.0.1:7420"], connect, route: routeNews(cluster) });
    return openControllers({ ...base, cluster, agents: fleet });
  };
  const running = runOperator({
    ...base,
    kubeconfig: { kind: "text", yaml: kubeconfig(proxy.server) },
    controllers,
    sources: () => (fleet === undefined ? [] : [fleet]),
    leaderElection: {
      lease: { namespace: "longshore-system", name: "longshore-operator" },
      identity: systemDice.uuid(),
      timing: longTiming,
    },
    limits: { events: { foldMs: 100 } },
    signal: stop.signal,
  });
  return {
    async stop() {
      stop.abort();
      expect(await running).toBe("stopped");
    },
  };
}

function kubeconfig(server: string): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": "test",
    contexts: [{ name: "test", context: { cluster: "test", user: "test" } }],
    // The client library takes plain HTTP only with this.
    clusters: [{ name: "test", cluster: { server, "insecure-skip-tls-verify": true } }],
    users: [{ name: "test", user: {} }],
  });
}

/** Applied as a GitOps tool does it. */
async function apply(yaml: string): Promise<void> {
  await plane.kubectl(["apply", "--server-side", "--field-manager=argocd-controller", "-f", "-"], { input: yaml });
}

interface Read {
  readonly metadata: {
    readonly finalizers?: readonly string[];
    readonly annotations?: Readonly<Record<string, string>>;
    readonly uid: string;
    readonly deletionTimestamp?: string;
  };
  readonly spec: Readonly<Record<string, unknown>>;
  readonly status?: {
    readonly phase?: string;
    readonly conditions?: readonly { readonly type: string; readonly status: string; readonly reason: string }[];
    readonly [field: string]: unknown;
  };
}

async function get(...args: string[]): Promise<Read | undefined> {
  const { stdout } = await plane.kubectl(["get", ...args, "--ignore-not-found", "-o", "json"]);
  return stdout === "" ? undefined : (JSON.parse(stdout) as Read);
}

/** Asks until it holds; fails with what it saw last. */
async function until<T>(what: string, probe: () => Promise<T>, holds: (seen: T) => boolean): Promise<T> {
  const endMs = performance.now() + untilMsMax;
  for (;;) {
    const seen = await probe();
    if (holds(seen)) return seen;
    if (performance.now() > endMs) throw new Error(`it did not come: ${what}; last seen: ${JSON.stringify(seen)}`);
    await sleep(100);
  }
}

/** What we told about an object, each with its count, in order. */
async function told(namespace: string, name: string): Promise<string[]> {
  const { stdout } = await plane.kubectl(["get", "events", "-n", namespace, "-o", "json"]);
  const { items } = JSON.parse(stdout) as { items: readonly ToldEvent[] };
  const ours = items.filter(({ involvedObject, source }) => {
    return involvedObject.name === name && source?.component === "longshore";
  });
  return ours.map(({ reason, count }) => `${reason} ${count}`).sort();
}

interface ToldEvent {
  readonly involvedObject: { readonly name: string };
  readonly source?: { readonly component?: string };
  readonly reason: string;
  readonly count?: number;
}

const bound = "snapshot.storage.kubernetes.io/volumesnapshotcontent-bound-protection";
const beingDeleted = "snapshot.storage.kubernetes.io/volumesnapshot-being-deleted";

const condition = (object: Read | undefined, type: string) => {
  const found = object?.status?.conditions?.find((each) => each.type === type);
  return found && `${found.status} ${found.reason}`;
};

const storageClass = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: fast}
provisioner: csi.longshore.dev
parameters: {migrationEnable: "true", migrationLocations: berlin, schedulePolicy: quick}
`;
const schedule = `
apiVersion: longshore.dev/v1
kind: SnapshotSchedule
metadata: {name: quick}
spec: {interval: 2s, retention: {age: 4s}, successfulJobsHistoryLimit: 1}
`;
const location = `
apiVersion: longshore.dev/v1
kind: MigrationLocation
metadata: {name: berlin}
spec:
  clusterName: berlin
  seeds: ["agent.berlin.example:7420"]
  caBundle: "${pem}"
  limits: {jobs: 2}
  bandwidth: {limit: 100M, timeZone: Europe/Berlin, windows: [{start: "08:00", end: "18:00", limit: 10M}]}
`;
const volumes = `
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv1}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: fast
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: shop, name: db}
  csi: {driver: csi.longshore.dev, volumeHandle: vol-1, fsType: ext4}
`;
const claim = `
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: db, namespace: shop, labels: {app: db}}
spec:
  storageClassName: fast
  volumeName: pv1
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
`;
/** A claim of group books with its volume. */
const member = (name: string) => `
apiVersion: v1
kind: Namespace
metadata: {name: bank}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv-${name}}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: fast
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: bank, name: ${name}}
  csi: {driver: csi.longshore.dev, volumeHandle: ${name}, fsType: ext4}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: ${name}, namespace: bank, labels: {longshore.dev/group: books}}
spec:
  storageClassName: fast
  volumeName: pv-${name}
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
`;
const source = `
apiVersion: longshore.dev/v1
kind: MigrationSource
metadata: {name: east}
spec:
  clusterName: east
  caBundle: "${pem}"
  quota: {bytes: 1Ti}
  publications: [{namespace: restore, name: "{claim}-copy"}]
`;
/** A claim that is to be a clone. */
const restored = `
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: restored, namespace: restore}
spec:
  storageClassName: ""
  accessModes: [ReadWriteOnce]
  dataSource: {apiGroup: snapshot.storage.k8s.io, kind: VolumeSnapshot, name: db-copy}
  resources: {requests: {storage: 1Mi}}
`;
/** A user with the edit role, and all rights on VolumeSnapshots, in two namespaces. */
const tenancy = ["restore", "elsewhere"]
  .map(
    (namespace) => `
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant-edits, namespace: ${namespace}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: tenant}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: snapshots, namespace: ${namespace}}
rules: [{apiGroups: [snapshot.storage.k8s.io], resources: [volumesnapshots], verbs: ["*"]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: tenant-snapshots, namespace: ${namespace}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: snapshots}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: tenant}]
`,
  )
  .join("---");
const snapshotOf = (namespace: string, name: string, source: string) => `
apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: ${name}, namespace: ${namespace}, labels: {longshore.dev/migrated-volume: east-vol-1}}
spec: {source: {${source}}}
`;
/** A class that says nothing of migration, in use. */
const plain = `
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {name: plain}
provisioner: csi.longshore.dev
---
apiVersion: v1
kind: Namespace
metadata: {name: town}
---
apiVersion: v1
kind: PersistentVolume
metadata: {name: pv-plain}
spec:
  capacity: {storage: 1Mi}
  accessModes: [ReadWriteOnce]
  storageClassName: plain
  persistentVolumeReclaimPolicy: Retain
  claimRef: {namespace: town, name: plain}
  csi: {driver: csi.longshore.dev, volumeHandle: vol-plain, fsType: ext4}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: plain, namespace: town}
spec:
  storageClassName: plain
  volumeName: pv-plain
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 1Mi}}
`;
const everything = [storageClass, schedule, location, volumes, claim, source].join("---");

describe("on a real API server", () => {
  let operator: Running | undefined;

  beforeAll(async () => {
    if (missing("controlplane") !== undefined) return;
    plane = await startControlPlane({ name: "operator" });
    const kubectl = plane.kubectl.bind(plane);
    await kubectl(["apply", "--server-side", "-f", join(root, "crds"), "-f", join(controlPlaneAssets, "crds")]);
    await areEstablished(plane, "crd", "--all");
    await kubectl(["apply", "--server-side", "-k", join(root, "manifests/operator")]);
    const { stdout } = await kubectl(["create", "token", "longshore-operator", "--namespace", "longshore-system"]);
    proxy = await openRecordingProxy({ server: plane.server, caFile: plane.caFile, token: stdout.trim() });
    await agent.putVolume("vol-1", { sizeBytes: 2 ** 20 });
    operator = startOperator();
  }, slowMs);

  afterAll(async () => {
    await operator?.stop();
    await proxy?.close();
    await plane?.stop();
  }, slowMs);

  const check = needs("controlplane");

  check(
    "what is applied is snapshotted on schedule, and what expires is migrated",
    async () => {
      await apply(everything);
      const seen = await until(
        "two migrations",
        () => get("volumemigration", "pv1"),
        (each) =>
          condition(each, "Ready") === "True Ok" && Number(agent.volumes.get("vol-1")?.bases[0]?.generation) >= 2,
      );
      expect(seen?.spec).toMatchObject({ claim: { namespace: "shop", name: "db" }, policy: { locations: ["berlin"] } });
      expect(condition(await get("snapshotschedule", "quick"), "Ready")).toBe("True Ok");
      expect(condition(await get("migrationlocation", "berlin"), "Consented")).toBe("True Ok");
    },
    slowMs,
  );

  check(
    "a user's job runs at once",
    async () => {
      const spec = "{volumeName: pv1, location: berlin}";
      await apply(`apiVersion: longshore.dev/v1\nkind: MigrationJob\nmetadata: {name: now}\nspec: ${spec}\n`);
      const ended = await until(
        "the job",
        () => get("migrationjob", "now"),
        (each) => each?.status?.phase === "Succeeded",
      );
      expect(ended?.status).toMatchObject({ mode: "Delta", bytesSent: 4200, verified: "media" });
      await until(
        "the finalizer",
        () => get("migrationjob", "now"),
        (each) => (each?.metadata.finalizers ?? []).length === 0,
      );
    },
    slowMs,
  );

  check(
    "what arrives is published in a namespace as soon as that is there",
    async () => {
      const metadata = { "pvc.namespace": "shop", "pvc.name": "db", volumeMode: "Filesystem" };
      agent.arrive("east-vol-1", {
        source: "east",
        sourceClusterUid: "6f2c1a58-0000-4000-8000-000000000001",
        metadata,
      });
      agent.freeze("east-vol-1", { bytesTotal: 100, bytesStored: 10 });
      await until(
        "progress",
        () => get("migratedvolume", "east-vol-1"),
        (each) => each?.status?.state === "Frozen",
      );
      agent.commit("east-vol-1");
      const refused = (each: Read | undefined) => condition(each, "Published") === "False NamespaceMissing";
      await until("the missing namespace", () => get("migratedvolume", "east-vol-1"), refused);
      await plane.kubectl(["create", "namespace", "restore"]);
      agent.freeze("east-vol-1");
      agent.commit("east-vol-1");
      const snapshot = () => get("volumesnapshot", "-n", "restore", "db-copy");
      const made = await until("the VolumeSnapshot", snapshot, (each) => each !== undefined);
      await plane.kubectl(["delete", "volumesnapshot", "-n", "restore", "db-copy"]);
      await until(
        "another VolumeSnapshot",
        snapshot,
        (each) => each !== undefined && each.metadata.uid !== made?.metadata.uid,
      );
    },
    slowMs,
  );

  check(
    "a claim that waits for a thaw reads in kubectl describe how far it is, and nothing twice after a restart",
    async () => {
      await apply(restored);
      const uid = (await get("pvc", "-n", "restore", "restored"))?.metadata.uid;
      const metadata = { "pvc.namespace": "restore", "pvc.name": "restored" };
      agent.freeze("east-vol-1", { bytesTotal: 400, bytesStored: 10 });
      await agent.putClone(`pvc-${uid}`, { migratedVolume: "east-vol-1", point: "latest", metadata });
      const described = async () => (await plane.kubectl(["describe", "pvc", "-n", "restore", "restored"])).stdout;
      await until("the start", described, (text) => /WaitingForThaw .*\(2%\)/.test(text));
      agent.freeze("east-vol-1", { ...agent.migratedVolumes.get("east-vol-1")?.transfer, bytesStored: 210 });
      await until("half of it", described, (text) => /WaitingForThaw .*\(52%\)/.test(text));
      await operator?.stop();
      operator = startOperator();
      // The process that leads now has looked at the claim: it tells what is new.
      agent.freeze("east-vol-1", { ...agent.migratedVolumes.get("east-vol-1")?.transfer, bytesStored: 310 });
      await until("three quarters", described, (text) => /WaitingForThaw .*\(77%\)/.test(text));
      agent.commit("east-vol-1");
      await until("the thaw", described, (text) => /Thawed /.test(text));
      expect(await told("restore", "restored")).toEqual([
        "Thawed 1",
        "WaitingForThaw 1",
        "WaitingForThaw 1",
        "WaitingForThaw 1",
      ]);
    },
    slowMs,
  );

  check(
    "a tenant with the edit role neither loses a publication for good, nor gets at one of another namespace",
    async () => {
      await plane.kubectl(["create", "namespace", "elsewhere"]);
      await apply(tenancy);
      const contentName = "longshore-east-vol-1";
      const asTenant = (args: readonly string[], input?: string) =>
        plane.kubectl([...args, "--as=tenant"], input === undefined ? {} : { input });
      const patch = (what: object) =>
        plane.kubectl(["patch", "volumesnapshotcontent", contentName, "--type=merge", "-p", JSON.stringify(what)]);
      const content = () => get("volumesnapshotcontent", contentName);
      const snapshot = () => get("volumesnapshot", "-n", "restore", "db-copy");
      const published = () => get("migratedvolume", "east-vol-1");
      const isPublished = (each: Read | undefined) => condition(each, "Published") === "True Ok";
      // What snapshot-controller and csi-snapshotter do: the content is bound, and held.
      const uid = (await snapshot())?.metadata.uid;
      await patch({ metadata: { finalizers: [bound] }, spec: { volumeSnapshotRef: { uid } } });
      const forged = snapshotOf("elsewhere", "mine", `volumeSnapshotContentName: ${contentName}`);
      await asTenant(["apply", "-f", "-"], forged);
      await expect(asTenant(["delete", "volumesnapshotcontent", contentName, "--wait=false"])).rejects.toThrow(
        "forbidden",
      );
      await asTenant(["delete", "volumesnapshot", "-n", "restore", "db-copy"]);
      const isReleased = (each: Read | undefined) =>
        each?.metadata.deletionTimestamp !== undefined && each.metadata.annotations?.[beingDeleted] === "yes";
      await until("the content being let go of", content, isReleased);
      await patch({ metadata: { finalizers: null } });
      const isAnew = (each: Read | undefined) => each !== undefined && each.metadata.uid !== uid;
      await until("another VolumeSnapshot", snapshot, isAnew);
      expect((await content())?.spec).toMatchObject({
        deletionPolicy: "Retain",
        volumeSnapshotRef: { namespace: "restore", name: "db-copy" },
      });
      expect((await get("volumesnapshot", "-n", "elsewhere", "mine"))?.spec).toEqual({
        source: { volumeSnapshotContentName: contentName },
      });
      await until("the publication", published, isPublished);
      // While nobody looks, the tenant puts another one in the place.
      await operator?.stop();
      await asTenant(["delete", "volumesnapshot", "-n", "restore", "db-copy"]);
      await asTenant(["apply", "-f", "-"], snapshotOf("restore", "db-copy", "persistentVolumeClaimName: restored"));
      operator = startOperator();
      const isDisplaced = (each: Read | undefined) => condition(each, "Published") === "False NameConflict";
      await until("the conflict", published, isDisplaced);
      expect((await snapshot())?.spec).toEqual({ source: { persistentVolumeClaimName: "restored" } });
      await asTenant(["delete", "volumesnapshot", "-n", "restore", "db-copy"]);
      await until("the publication again", published, isPublished);
      expect(agent.migratedVolumes.get("east-vol-1")?.points).toHaveLength(3);
    },
    slowMs,
  );

  check(
    "a class in use is looked at first, and then enabled, by annotations; its claims may not opt out",
    async () => {
      await agent.putVolume("vol-plain", { sizeBytes: 2 ** 20 });
      await apply(plain);
      const annotate = (...annotations: string[]) => {
        const prefixed = annotations.map((each) => `longshore.dev/${each}`);
        return plane.kubectl(["annotate", "--overwrite", "sc", "plain", ...prefixed]);
      };
      const migration = () => get("volumemigration", "pv-plain");
      await annotate("migrationEnable=true", "migrationLocations=berlin", "schedulePolicy=quick", "dry-run=true");
      await until(
        "the plan",
        () => get("migrationlocation", "berlin"),
        (each) => each?.status?.plannedVolumes === 1 && each.status.plannedBytes === 2 ** 20,
      );
      await until("the dry run", migration, (each) => condition(each, "Ready") === "False DryRun");
      const totals = () => told("default", "plain");
      await until("the total", totals, (seen) => seen.some((each) => each.startsWith("MigrationDryRun")));
      expect(agent.volumes.get("vol-plain")?.snapshots).toEqual([]);
      await plane.kubectl(["annotate", "pvc", "-n", "town", "plain", "longshore.dev/migrationEnable=false"]);
      await annotate("dry-run-");
      await until("the refusal", migration, (each) => condition(each, "PolicyValid") === "True PolicyRefused");
      const snapshots = async () => agent.volumes.get("vol-plain")?.snapshots.length ?? 0;
      await until("a snapshot", snapshots, (count) => count > 0);
      await annotate("migrationEnable=false");
      await until("its end", migration, (each) => condition(each, "Ready") === "False Disabled");
    },
    slowMs,
  );

  check(
    "claims of one label are snapshotted and migrated together, and told when they do not agree",
    async () => {
      for (const name of ["ledger", "journal"]) await agent.putVolume(name, { sizeBytes: 2 ** 20 });
      await apply(["ledger", "journal"].map(member).join("---"));
      const pointOf = (name: string) => {
        const { bases = [], snapshots = [] } = agent.volumes.get(name) ?? {};
        return snapshots.find(({ pointId }) => pointId === bases[0]?.pointId)?.groupPoint;
      };
      const points = async () => [pointOf("ledger"), pointOf("journal")];
      await until("one point of both", points, ([one, other]) => one !== undefined && one === other);
      // The agent is ahead of what is told of it.
      const jobs = async () =>
        (await plane.kubectl(["get", "migrationjobs", "-l", "longshore.dev/group=books"])).stdout;
      const succeeded = /^bank-books-berlin-p\S+ +books +berlin +Succeeded/m;
      await until("its job", jobs, (stdout) => succeeded.test(stdout));
      const spec = "{group: {namespace: bank, name: books}, location: berlin}";
      await apply(`apiVersion: longshore.dev/v1\nkind: MigrationJob\nmetadata: {name: books}\nspec: ${spec}\n`);
      const ended = await until(
        "the job",
        () => get("migrationjob", "books"),
        (each) => each?.status?.phase === "Succeeded",
      );
      expect(ended?.status?.volumes).toEqual(["pv-journal", "pv-ledger"]);
      await plane.kubectl(["annotate", "pv", "pv-ledger", "longshore.dev/migrationEnable=false"]);
      const conflict = (each: Read | undefined) => condition(each, "GroupConflict") === "True GroupConflict";
      await until("the conflict", () => get("volumemigration", "pv-journal"), conflict);
      await plane.kubectl(["annotate", "pv", "pv-journal", "longshore.dev/migrationEnable=false"]);
      const disabled = (each: Read | undefined) => condition(each, "Ready") === "False Disabled";
      await until("its end", () => get("volumemigration", "pv-journal"), disabled);
    },
    slowMs,
  );

  check("users' objects are as they were applied, with no difference seen", async () => {
    await plane.kubectl(["diff", "--server-side", "--field-manager=argocd-controller", "-f", "-"], {
      input: everything,
    });
  });

  check(
    "a job that is deleted while it runs is cancelled first; ended ones are pruned",
    async () => {
      isSucceeding = false;
      const spec = "{volumeName: pv1, location: berlin}";
      await apply(`apiVersion: longshore.dev/v1\nkind: MigrationJob\nmetadata: {name: late}\nspec: ${spec}\n`);
      // A scheduled job that has just begun would never end either, and this one would wait for it.
      const late = () => {
        for (const { name, state, spec } of agent.jobs.values()) {
          if (state === "Pending" && !spec.snapshot.startsWith("demand-")) agent.succeedJob(name);
        }
        return get("migrationjob", "late");
      };
      await until("the job", late, (each) => each?.status?.startTime !== undefined);
      await plane.kubectl(["delete", "migrationjob", "late", "--timeout=150s"]);
      isSucceeding = true;
      for (const { name, state } of agent.jobs.values()) if (state === "Pending") agent.succeedJob(name);
      const listed = async () => {
        const { stdout } = await plane.kubectl([
          "get",
          "migrationjobs",
          "-l",
          "longshore.dev/volume=pv1",
          "-o",
          "name",
        ]);
        return stdout.trim().split("\n");
      };
      await until("pruning", listed, (names) => names.length <= 2);
    },
    slowMs,
  );

  check(
    "after a restart, and another volume under the old name, everything goes on",
    async () => {
      await operator?.stop();
      // The claim goes with its volume; what is left behind is the VolumeMigration of a volume that is no more.
      await plane.kubectl(["delete", "namespace", "shop", "--wait=false"]);
      await plane.kubectl(["delete", "pvc", "-n", "shop", "db", "--wait=false"]);
      await plane.kubectl(["delete", "pv", "pv1", "--cascade=orphan", "--timeout=150s"]);
      await until(
        "the claim's end",
        () => get("pvc", "-n", "shop", "db"),
        (each) => each === undefined,
      );
      const before = await get("volumemigration", "pv1");
      expect(before).toBeDefined();
      await apply(volumes);
      await plane.kubectl(["annotate", "pv", "pv1", "longshore.dev/migrationLocations=berlin,oslo"]);
      operator = startOperator();
      const missingOslo = (each: Read | undefined) => condition(each, "Ready") === "False LocationMissing";
      const after = await until("the new volume", () => get("volumemigration", "pv1"), missingOslo);
      expect(after?.metadata.uid).not.toBe(before?.metadata.uid);
      await operator.stop();
      // The same event again, by another process: it counts on.
      operator = startOperator();
      await plane.kubectl(["label", "pv", "pv1", "touched=yes"]);
      const reads = async () => proxy.seen.has("get core events");
      await until("the event that exists", reads, (isRead) => isRead);
    },
    slowMs,
  );

  check(
    "what is deleted goes, once nothing needs it",
    async () => {
      await plane.kubectl(["delete", "migratedvolume", "east-vol-1", "--timeout=150s"]);
      expect(agent.migratedVolumes.size).toBe(0);
      await plane.kubectl(["delete", "migrationsource", "east", "--timeout=150s"]);
      expect(agent.sources.size).toBe(0);
      await plane.kubectl(["delete", "migrationlocation", "berlin", "--wait=false"]);
      const inUse = (each: Read | undefined) => condition(each, "Deletable") === "False InUse";
      await until("the reason why not", () => get("migrationlocation", "berlin"), inUse);
      await plane.kubectl(["annotate", "pv", "pv1", "longshore.dev/migrationEnable=false"]);
      await plane.kubectl(["annotate", "migrationlocation", "berlin", "longshore.dev/release-holds=true"]);
      await until(
        "the end",
        () => get("migrationlocation", "berlin"),
        (each) => each === undefined,
      );
    },
    slowMs,
  );

  check("the API server refused nothing, and no right went unused", async () => {
    expect([...proxy.forbidden].filter((each) => !each.includes("being terminated"))).toEqual([]);
    expect([...proxy.invalid]).toEqual([]);
    const unused = [...rights()].filter((right) => !proxy.seen.has(right));
    expect(unused).toEqual([]);
  });
});

/** Every right of manifests/operator, as the proxy records what is done. */
function rights(): Set<string> {
  const files = ["cluster-role.yaml", "role.yaml"].map((file) =>
    parseAllDocuments(readFileSync(join(root, "manifests/operator", file), "utf8")),
  );
  const rules = files.flatMap((documents) =>
    documents.flatMap((document) => (document.toJS() as { rules?: Rule[] }).rules ?? []),
  );
  return rightsOf(rules);
}
