// What backup tools do at home: several claims are snapshotted at one moment and restored from the parts; and of a snapshot, and of what
// changed since an earlier one, only that is read which there is.
import { expect } from "@jest/globals";
import { type BackupTool, openBackupTool } from "../backup-tool.ts";
import type { Manifest, Seen } from "../kube-client.ts";
import { eventually } from "../process.ts";
import { apply, get, inPod, list, podIsReady, remove } from "./kube.ts";
import { claim, driver, pod } from "./objects.ts";
import type { TestCluster } from "./test-cluster.ts";
import { until } from "./watching.ts";
import type { World } from "./world.ts";

const namespace = "fleet";
const groupApi = "groupsnapshot.storage.k8s.io/v1beta1";
const convoy = { convoy: "one" };
const ships = ["bow", "stern"] as const;
const log = { kind: "pod", namespace, name: "log" } as const;
const patience = { timeoutMs: 200_000, intervalMs: 500 };

/** A number is on the first volume before it is on the second. */
const counting = `n=0
while n=$((n + 1)); do
  echo "$n" >>/bow/numbers && sync /bow/numbers && echo "$n" >>/stern/numbers && sync /stern/numbers || exit 1
  sleep 0.02
done`;

interface GroupWish {
  readonly class?: string;
  readonly finalizers?: readonly string[];
}

function groupSnapshot(name: string, matchLabels: object, wish: GroupWish = {}): Manifest {
  const { class: volumeGroupSnapshotClassName = "longshore", finalizers = [] } = wish;
  return {
    apiVersion: groupApi,
    kind: "VolumeGroupSnapshot",
    metadata: { name, namespace, finalizers },
    spec: { volumeGroupSnapshotClassName, source: { selector: { matchLabels } } },
  };
}

const isReady = ({ status }: Seen) => status?.readyToUse === true;

/** Two claims of a label, while a pod writes to both in turn. */
export async function aGroupIsSnapshottedAtOneMoment(world: World): Promise<void> {
  const { source } = world;
  const claims = ships.map((name) => claim({ namespace, name, storageClass: "plain", size: "32Mi" }));
  const labelled = claims.map((one) => ({ ...one, metadata: { ...one.metadata, labels: convoy } }));
  await apply(source, ...labelled, pod({ ...log, script: counting, mounts: ships }));
  await podIsReady(source, namespace, log.name);
  await refusedGroupIsTold(source);

  // The snapshot controller adds its finalizer in another way where there is one already.
  await apply(source, groupSnapshot("convoy", convoy, { finalizers: ["example.com/kept"] }));
  await until(source, { kind: "volumegroupsnapshots", namespace, name: "convoy" }, "being ready", isReady);
  const parts = await eventually("all parts being ready", () => partsOf(source, "convoy", ships.length), patience);
  await restoredAreOfOneMoment(source, parts);

  await apply(source, groupSnapshot("convoy", convoy));
  await groupIsRemoved(source, "convoy");
  await remove(source, "pod", namespace, [log.name]);
  await remove(source, "pvc", namespace, ships);
}

/** The parts of a group by their claims, once so many of them are ready. */
async function partsOf(
  source: TestCluster,
  group: string,
  count: number,
): Promise<ReadonlyMap<string, string> | undefined> {
  const snapshots = await list(source, "volumesnapshots", namespace);
  const parts = snapshots.filter((one) => one.status?.volumeGroupSnapshotName === group && isReady(one));
  if (parts.length < count) return undefined;
  return new Map(parts.map(({ metadata, spec }) => [spec.source.persistentVolumeClaimName, metadata.name]));
}

/** With its parts. */
async function groupIsRemoved(source: TestCluster, group: string): Promise<void> {
  await remove(source, "volumegroupsnapshot", namespace, [group]);
  const areGone = async () => (await list(source, "volumesnapshots", namespace)).length === 0 || undefined;
  await eventually("the parts being gone", areGone, patience);
}

async function restoredAreOfOneMoment(source: TestCluster, parts: ReadonlyMap<string, string>): Promise<void> {
  const restored = ships.map((ship) => `${ship}-restored`);
  const reader = { kind: "pod", namespace, name: "reader" } as const;
  const claims = ships.map((ship) => {
    const from = String(parts.get(ship));
    return claim({ namespace, name: `${ship}-restored`, storageClass: "plain", size: "32Mi", from });
  });
  await apply(source, ...claims, pod({ ...reader, script: "sleep 86400", mounts: restored }));
  await podIsReady(source, namespace, reader.name);
  const last = async (name: string) => Number(await inPod(source, reader, `tail -n 1 /${name}/numbers`));
  const [bow, stern] = [await last("bow-restored"), await last("stern-restored")];
  expect(stern).toBeGreaterThan(0);
  expect([0, 1]).toContain(bow - stern);
  await remove(source, "pod", namespace, [reader.name]);
  await remove(source, "pvc", namespace, restored);
}

async function refusedGroupIsTold(source: TestCluster): Promise<void> {
  const metadata = { name: "misspelt" };
  const parameters = { quick: "true" };
  await apply(
    source,
    { apiVersion: groupApi, kind: "VolumeGroupSnapshotClass", metadata, driver, deletionPolicy: "Delete", parameters },
    groupSnapshot("refused", convoy, { class: metadata.name }),
  );
  const isTold = ({ status }: Seen) => /parameter quick is not known/.test(status?.error?.message ?? "");
  await until(source, { kind: "volumegroupsnapshots", namespace, name: "refused" }, "being told why not", isTold);
  await remove(source, "volumegroupsnapshot", namespace, ["refused"]);
  await source.kubectl(["delete", "volumegroupsnapshotclass", metadata.name]);
}

const chart = "chart";
const keeper = { kind: "pod", namespace, name: "keeper" } as const;
const [kibibyte, mebibyte] = [2 ** 10, 2 ** 20];
const first = { offset: mebibyte, length: mebibyte };
const over = { offset: mebibyte + 512 * kibibyte, length: 64 * kibibyte };
const second = { offset: 8 * mebibyte, length: 64 * kibibyte };

const chartClaim = claim({ namespace, name: chart, storageClass: "plain", size: "32Mi", volumeMode: "Block" });
const raw = {
  claim: { ...chartClaim, metadata: { ...chartClaim.metadata, labels: { chart } } },
  pod: pod({ ...keeper, script: "sleep 86400", devices: [chart] }),
};

/** Until a volume is detached, and csi-snapshotter, which waits up to half a minute between two tries, asks again. */
const longPatience = { timeoutMs: 400_000, intervalMs: 500 };

/** A raw volume, of which every range that was written to is known. */
export async function aBackupToolIsToldWhatToRead(world: World): Promise<void> {
  const { source } = world;
  await apply(source, raw.claim, raw.pod);
  await podIsReady(source, namespace, keeper.name);
  await write(source, first);
  // Of a raw volume that a pod has nobody can tell who writes to it, so a group does not take it.
  await remove(source, "pod", namespace, [keeper.name]);
  await apply(source, groupSnapshot("monday", { chart }));
  const parts = await eventually("the part being ready", () => partsOf(source, "monday", 1), longPatience);
  await apply(source, raw.pod);
  await podIsReady(source, namespace, keeper.name);
  const monday = String(parts.get(chart));
  await write(source, over);
  await write(source, second);
  await apply(source, tuesday);
  await until(source, { kind: "volumesnapshots", namespace, name: "tuesday" }, "being ready", isReady);

  await partsHaveAClass(source, true);
  const tool = await openTool(source);
  try {
    expect(await tool.allocated({ namespace, snapshot: monday })).toEqual([first]);
    expect(await tool.allocated({ namespace, snapshot: "tuesday" })).toEqual([first, second]);
    const since = await handleOf(source, monday);
    expect(await tool.changed({ namespace, snapshot: "tuesday", since })).toEqual([over, second]);
  } finally {
    tool.close();
  }
  await partsHaveAClass(source, false);
  await remove(source, "volumesnapshot", namespace, ["tuesday"]);
  await groupIsRemoved(source, "monday");
  await remove(source, "pod", namespace, [keeper.name]);
  await remove(source, "pvc", namespace, [chart]);
}

const tuesday: Manifest = {
  apiVersion: "snapshot.storage.k8s.io/v1",
  kind: "VolumeSnapshot",
  metadata: { name: "tuesday", namespace },
  spec: { volumeSnapshotClassName: "longshore", source: { persistentVolumeClaimName: chart } },
};

async function write(source: TestCluster, { offset, length }: { offset: number; length: number }): Promise<void> {
  const [at, count] = [offset / (64 * kibibyte), length / (64 * kibibyte)];
  const options = `bs=64k seek=${at} count=${count} conv=notrunc,fsync status=none`;
  await inPod(source, keeper, `dd if=/dev/urandom of=/dev/${chart} ${options}`);
}

/** The part of a group names no class: the sidecar takes the driver's default one for it, and refuses where there is none. */
async function partsHaveAClass(source: TestCluster, isDefault: boolean): Promise<void> {
  const annotation = "snapshot.storage.kubernetes.io/is-default-class";
  const change = isDefault ? `${annotation}=true` : `${annotation}-`;
  await source.kubectl(["annotate", "volumesnapshotclass", "longshore", change]);
}

async function handleOf(source: TestCluster, snapshot: string): Promise<string> {
  const { status } = await get(source, { kind: "volumesnapshot", namespace, name: snapshot });
  const content = await get(source, { kind: "volumesnapshotcontent", name: status.boundVolumeSnapshotContentName });
  return content.status.snapshotHandle;
}

/** As tools find it: what to trust and whom the token is for is in the SnapshotMetadataService. Its Service is this one pod here. */
async function openTool(source: TestCluster): Promise<BackupTool> {
  const name = "backup";
  const rbac = "rbac.authorization.k8s.io";
  const rule = { apiGroups: ["snapshot.storage.k8s.io"], resources: ["volumesnapshots"], verbs: ["get"] };
  await apply(
    source,
    { apiVersion: "v1", kind: "ServiceAccount", metadata: { name, namespace } },
    { apiVersion: `${rbac}/v1`, kind: "Role", metadata: { name, namespace }, rules: [rule] },
    {
      apiVersion: `${rbac}/v1`,
      kind: "RoleBinding",
      metadata: { name, namespace },
      roleRef: { apiGroup: rbac, kind: "Role", name },
      subjects: [{ kind: "ServiceAccount", name, namespace }],
    },
  );
  const { spec } = await get(source, { kind: "snapshotmetadataservice", name: driver });
  const options = ["create", "token", name, "--namespace", namespace, `--audience=${spec.audience}`];
  const { stdout: token } = await source.kubectl(options);
  const pods = await list(source, "pods", "longshore-system");
  const isOne = ({ metadata, status }: Seen) =>
    metadata.labels?.["app.kubernetes.io/name"] === "longshore-csi" && status?.phase === "Running";
  const address = `${pods.find(isOne)?.status.podIP}:50051`;
  return openBackupTool(address, Buffer.from(spec.caCert, "base64"), token.trim());
}
