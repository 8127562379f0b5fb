// The steps of an uninstall, in their order: docs/install.md tells why it is that one. Each looks at what there is and may be
// repeated; until the first of them that removes anything, a refusal leaves the cluster as it was.
import { type Cluster, Refusal } from "./cluster.ts";
import {
  attachedImages,
  type Claim,
  isBoundTo,
  isReady,
  type KubeObject,
  nameOf,
  orphaned,
  ourClaims,
  ourSnapshots,
  ourVolumes,
  type Pod,
  podsUsing,
  type Snapshot,
  type SnapshotContent,
  snapshotOf,
  someOf,
  type Volume,
} from "./decisions.ts";

export interface StepOptions {
  /** Whether users' VolumeSnapshots of our driver are removed as objects; their data stays. */
  readonly forgetSnapshots: boolean;
}

export interface Step {
  readonly title: string;
  run(cluster: Cluster, options: StepOptions): Promise<void>;
}

const systemNamespace = "longshore-system";
const nodeNamespace = "longshore-node";
const partOf = "--selector=app.kubernetes.io/part-of=longshore";
const snapshots = "volumesnapshots.snapshot.storage.k8s.io";
const contents = "volumesnapshotcontents.snapshot.storage.k8s.io";
const groupSnapshots = "volumegroupsnapshots.groupsnapshot.storage.k8s.io";
const groupContents = "volumegroupsnapshotcontents.groupsnapshot.storage.k8s.io";
/** Objects of ours in kinds that others define, which may be missing. */
const others = [
  "volumesnapshotclasses.snapshot.storage.k8s.io",
  "volumegroupsnapshotclasses.groupsnapshot.storage.k8s.io",
  "snapshotmetadataservices.cbt.storage.k8s.io",
];
const own = (plural: string) => `${plural}.longshore.dev`;
const kinds = [
  ...["migrationjobs", "migrationlocations", "migrationsources", "migratedvolumes"],
  ...["snapshotschedules", "volumemigrations"],
].map(own);

export const steps: readonly Step[] = [
  { title: "Nobody uses the volumes", run: refuseWhileUsed },
  { title: "Nothing is mounted", run: refuseWhileMounted },
  { title: "Migrations end", run: endMigrations },
  { title: "Consents are withdrawn", run: withdrawConsents },
  { title: "The operator stops", run: stopOperator },
  { title: "The CSI controller stops", run: (cluster) => stopDeployment(cluster, "longshore-csi") },
  { title: "Objects are let go of; the agents are told nothing of it", run: releaseObjects },
  { title: "The definitions go, and all objects of them", run: removeDefinitions },
  { title: "Agents and node plugin stop", run: stopNodes },
  { title: "What is left goes", run: removeRest },
];

async function refuseWhileUsed(cluster: Cluster, { forgetSnapshots }: StepOptions): Promise<void> {
  const { volumes, claims } = await refuseWhilePodsUse(cluster);
  const { users } = ourSnapshots([
    ...(await cluster.list<SnapshotContent>(groupContents)),
    ...(await cluster.list<SnapshotContent>(contents)),
  ]);
  if (users.length > 0 && !forgetSnapshots) {
    const next = "delete them with what they stand for, or run this with --forget-snapshots, which keeps that";
    throw new Refusal(
      `there are VolumeSnapshots or VolumeGroupSnapshots that users took:${someOf(users.map(snapshotOf))}`,
      next,
    );
  }
  cluster.options.tell(`  ${volumes.length} volumes and ${claims.length} claims stay as they are`);
}

/** Returns what of ours there is. */
async function refuseWhilePodsUse(cluster: Cluster): Promise<{ volumes: Volume[]; claims: Claim[] }> {
  const volumes = ourVolumes(await cluster.list<Volume>("persistentvolumes"));
  const claims = ourClaims(await cluster.list<Claim>("persistentvolumeclaims"), volumes);
  const pods = podsUsing(await cluster.list<Pod>("pods"), claims);
  if (pods.length === 0) return { volumes, claims };
  const next = "delete these pods or scale down what makes them, then run this again; their claims may stay";
  throw new Refusal(`pods use volumes of Longshore:${someOf(pods)}`, next);
}

/** The kubelet unmounts a little later than a pod is gone; without the node plugin it could not. */
async function refuseWhileMounted(cluster: Cluster): Promise<void> {
  const unseen = new Set<string>();
  const left = () => attachments(cluster, unseen);
  const attached = cluster.options.isDryRun ? await left() : await cluster.until("volumes to be unmounted", left);
  for (const text of unseen) cluster.options.tell(`  not looked at: ${text}`);
  if (attached.length === 0) return;
  const next = "see what holds them on these nodes (findmnt, losetup --list), then run this again";
  throw new Refusal(`volumes are attached:${someOf(attached)}`, next);
}

async function attachments(cluster: Cluster, unseen: Set<string>): Promise<string[]> {
  const pods = await podsOf(cluster, nodeNamespace, "longshore-node");
  const found: string[] = [];
  for (const { metadata, status } of pods) {
    if (status?.phase !== "Running") continue;
    const pod = { namespace: nodeNamespace, name: metadata.name, container: "csi-node" };
    const listing = ["losetup", "--list", "--noheadings", "--raw", "--output=NAME,BACK-FILE"];
    try {
      const images = attachedImages(await cluster.execute(pod, listing));
      found.push(...images.map((image) => `${metadata.name}: ${image}`));
    } catch (error) {
      // A node that cannot be reached has nothing that is unmounted by waiting for it.
      unseen.add(`${metadata.name} (${String(error).split("\n")[0]})`);
    }
  }
  return found;
}

/** With the schedules gone nothing new begins; the operator cancels at the agents what its jobs began, and copies are thawed. */
async function endMigrations(cluster: Cluster): Promise<void> {
  const [schedules, jobs] = [own("snapshotschedules"), own("migrationjobs")];
  await cluster.removeAll(schedules, await cluster.list(schedules));
  await finishByOperator(cluster, jobs, "what they began goes on at the agents when they are installed again");
}

/** A consent that nobody withdraws would hold again as soon as agents run. What has arrived stays. */
async function withdrawConsents(cluster: Cluster): Promise<void> {
  const sources = own("migrationsources");
  await finishByOperator(cluster, sources, "the agents keep these consents: apply or delete them once installed again");
  if (!(await isOperatorReady(cluster))) return;
  const left = await cluster.until("published snapshots to be withdrawn", async () => {
    return ourSnapshots(await cluster.list<SnapshotContent>(contents)).published.map(snapshotOf);
  });
  if (left.length > 0) cluster.options.tell(`  still there, and removed later:${someOf(left)}`);
}

/** Deletes all objects of a kind and has the operator do what their finalizers stand for, while it can. */
async function finishByOperator(cluster: Cluster, kind: string, otherwise: string): Promise<void> {
  const objects = await cluster.list(kind);
  if (objects.length === 0) return;
  if (!(await isOperatorReady(cluster))) {
    cluster.options.tell(`  no operator is ready: ${otherwise}`);
    return;
  }
  await cluster.removeAll(kind, objects);
  const left = await cluster.until(`${kind} to go`, async () => {
    const still = await cluster.list(kind);
    // The operator may have made another one in the meantime.
    await cluster.removeAll(kind, still);
    return still.map(nameOf);
  });
  if (left.length > 0) cluster.options.tell(`  not finished in time, ${otherwise}:${someOf(left)}`);
}

function podsOf(cluster: Cluster, namespace: string, name: string): Promise<Pod[]> {
  return cluster.list<Pod>("pods", `--namespace=${namespace}`, `--selector=app.kubernetes.io/name=${name}`);
}

async function isOperatorReady(cluster: Cluster): Promise<boolean> {
  return (await podsOf(cluster, systemNamespace, "longshore-operator")).some(isReady);
}

async function stopOperator(cluster: Cluster): Promise<void> {
  await stopDeployment(cluster, "longshore-operator");
  await refuseWhileLed(cluster);
}

async function stopDeployment(cluster: Cluster, name: string): Promise<void> {
  const where = `--namespace=${systemNamespace}`;
  if ((await cluster.get("deployment", systemNamespace, name)) === undefined) return;
  await cluster.change("scale", "deployment", name, where, "--replicas=0");
  await endOfPods(cluster, systemNamespace, name);
  await cluster.change("delete", "deployment", name, where, "--ignore-not-found");
}

async function endOfPods(cluster: Cluster, namespace: string, name: string): Promise<void> {
  const left = await cluster.until("pods to end", async () => (await podsOf(cluster, namespace, name)).map(nameOf));
  if (left.length === 0) return;
  const next = "see why they do not end (kubectl describe), or remove nodes that are gone, then run this again";
  throw new Refusal(`pods of ${name} do not end:${someOf(left)}`, next);
}

interface Lease extends KubeObject {
  readonly spec?: {
    readonly holderIdentity?: string;
    readonly renewTime?: string;
    readonly leaseDurationSeconds?: number;
  };
}

/** Longer than a lease lasts, however little else is waited for. */
const lapseMsMin = 60_000;

/** To an operator that runs elsewhere, the objects that go next would be wishes to delete data. */
async function refuseWhileLed(cluster: Cluster): Promise<void> {
  let seen: string | undefined;
  let sinceMs = performance.now();
  const holder = async () => {
    const lease = await cluster.get<Lease>("lease", systemNamespace, "longshore-operator");
    const { holderIdentity = "", renewTime, leaseDurationSeconds = 15 } = lease?.spec ?? {};
    if (renewTime !== seen) [seen, sinceMs] = [renewTime, performance.now()];
    const isLapsed = holderIdentity === "" || performance.now() - sinceMs > leaseDurationSeconds * 1000;
    return isLapsed ? [] : [holderIdentity];
  };
  const waitMs = Math.max(cluster.options.waitMs, lapseMsMin);
  const left = await cluster.until("the operator's lease to lapse", holder, waitMs);
  if (left.length === 0) return;
  throw new Refusal(`an operator leads that is no pod of ours: ${left.join()}`, "stop it, then run this again");
}

/** Nobody is left who would finish what these finalizers stand for; and nobody who would take it for a wish. */
async function releaseObjects(cluster: Cluster, { forgetSnapshots }: StepOptions): Promise<void> {
  for (const kind of kinds) await cluster.release(kind, orphaned.own);
  const volumes = await cluster.list<Volume>("persistentvolumes");
  const claims = ourClaims(await cluster.list<Claim>("persistentvolumeclaims"), volumes);
  await cluster.release("persistentvolumes", orphaned.volume, isIn(ourVolumes(volumes)));
  await cluster.release("persistentvolumeclaims", orphaned.claim, isIn(claims));
  const { published, users } = ourSnapshots(await cluster.list<SnapshotContent>(contents));
  const groups = ourSnapshots(await cluster.list<SnapshotContent>(groupContents)).users;
  await forget(cluster, [
    // First, for the parts go when their group does.
    { snapshots: groupSnapshots, contents: groupContents, objects: forgetSnapshots ? groups : [] },
    { snapshots, contents, objects: forgetSnapshots ? [...published, ...users] : published },
  ]);
}

interface Forgotten {
  /** The kinds. */
  readonly snapshots: string;
  readonly contents: string;
  readonly objects: readonly SnapshotContent[];
}

/** Removes snapshots as objects. With `Retain`, neither the snapshot controller nor anybody else deletes what they stand for. */
async function forget(cluster: Cluster, all: readonly Forgotten[]): Promise<void> {
  for (const { contents, objects } of all) {
    for (const { metadata, spec } of objects) {
      if (spec?.deletionPolicy === "Retain") continue;
      const patch = `--patch={"spec":{"deletionPolicy":"Retain"}}`;
      await cluster.change("patch", contents, metadata.name, "--type=merge", patch);
    }
  }
  for (const each of all) if (each.objects.length > 0) await removeSnapshots(cluster, each);
}

async function removeSnapshots(cluster: Cluster, { snapshots, contents, objects }: Forgotten): Promise<void> {
  const isBound = (snapshot: Snapshot) => isBoundTo(snapshot, objects);
  const bound = (await cluster.list<Snapshot>(snapshots)).filter(isBound);
  await cluster.removeAll(snapshots, bound);
  await cluster.removeAll(contents, objects);
  // What is being deleted loses them for good; to the others the snapshot controller would give them again.
  const isGoing = ({ metadata }: KubeObject) => metadata.deletionTimestamp !== undefined;
  const [isOneOfBound, isOneOfObjects] = [isIn(bound), isIn(objects)];
  await cluster.release(snapshots, orphaned.snapshot, (object) => isGoing(object) && isOneOfBound(object));
  await cluster.release(contents, orphaned.snapshot, (object) => isGoing(object) && isOneOfObjects(object));
}

function isIn(objects: readonly KubeObject[]): (object: KubeObject) => boolean {
  const names = new Set(objects.map(nameOf));
  return (object) => names.has(nameOf(object));
}

async function removeDefinitions(cluster: Cluster): Promise<void> {
  await cluster.change("delete", "customresourcedefinition", ...kinds, "--ignore-not-found", waitOf(cluster));
}

/** The steps before may have waited for minutes, in which pods came up: without the node plugin these could not end any more. */
async function stopNodes(cluster: Cluster): Promise<void> {
  await refuseWhilePodsUse(cluster);
  await refuseWhileMounted(cluster);
  const where = `--namespace=${nodeNamespace}`;
  await cluster.change("delete", "daemonset", "longshore-node", where, "--ignore-not-found");
  await endOfPods(cluster, nodeNamespace, "longshore-node");
}

async function removeRest(cluster: Cluster): Promise<void> {
  const present: string[] = [];
  for (const kind of others) if ((await cluster.list(kind)).length > 0) present.push(kind);
  const clusterWide = ["csidriver", "clusterrolebinding", "clusterrole", ...present].join(",");
  await cluster.change("delete", clusterWide, partOf, "--ignore-not-found", waitOf(cluster));
  const namespaces = [systemNamespace, nodeNamespace];
  await cluster.change("delete", "namespace", ...namespaces, "--ignore-not-found", waitOf(cluster));
}

function waitOf({ options }: Cluster): string {
  return `--timeout=${Math.ceil(options.waitMs / 1000)}s`;
}
