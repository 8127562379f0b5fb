// Volumes of other kinds on their way: an XFS that is grown while it is mounted, a second volume of the same pod, several clones of
// one file system on one node, and what users do with snapshots and claims at home.
import { expect } from "@jest/globals";
import { dueOfSnapshot } from "../../../src/domain/names.ts";
import type { Manifest, Seen } from "../kube-client.ts";
import { eventually } from "../process.ts";
import { apply, get, inPod, list, longshore, patch, podIsReady, remove, type Where } from "./kube.ts";
import { type ClaimRef, copyOf, migrate, publishedAs, volumeOf } from "./migration.ts";
import { claim, driver, pod } from "./objects.ts";
import type { TestCluster } from "./test-cluster.ts";
import { until } from "./watching.ts";
import type { World } from "./world.ts";

const namespace = "dock";
export const hull = { namespace, name: "hull" } as const;
export const keel = { namespace, name: "keel" } as const;
const yard = { kind: "pod", namespace, name: "yard" } as const;
const mebibyte = 2 ** 20;

/** Both in one pod, with something in them, migrated and published. A repeat changes nothing. */
export async function dockHasArrived({ source, target }: World): Promise<void> {
  const known = await list(source, "pvc", namespace);
  if (known.length === 0) {
    await apply(
      source,
      claim({ ...hull, storageClass: "on-demand-xfs", size: "300Mi" }),
      claim({ ...keel, storageClass: "on-demand", size: "64Mi" }),
      pod({ ...yard, script: "sleep 86400", mounts: [hull.name, keel.name] }),
    );
  }
  await podIsReady(source, namespace, yard.name);
  const fill = (path: string) => `[ -e ${path} ] || { ${random(path, 4)}; }`;
  await inPod(source, yard, `${fill("/hull/first")} && ${fill("/keel/first")}`);
  for (const each of [hull, keel]) {
    const volume = await volumeOf(source, each);
    const { status } = await until(source, { kind: "volumemigrations", name: volume }, "being known", () => true);
    const locations: { newestPointTime?: string }[] = status?.locations ?? [];
    if (locations.every(({ newestPointTime }) => newestPointTime === undefined)) await migrate(source, each, "harbor");
    await publishedAs(target, each);
  }
}

/** Writes a file of so many mebibytes, which is on disk in the end. */
const random = (path: string, mebibytes: number) =>
  `dd if=/dev/urandom of=${path} bs=1M count=${mebibytes} conv=fsync status=none`;

/** Of each file below a folder, in the order of their names. */
const digests = (folder: string) => `cd ${folder} && find . -type f | sort | xargs sha256sum`;

export async function growsWhileMountedAndMigrates(world: World): Promise<void> {
  const { source, target } = world;
  await dockHasArrived(world);
  const before = await room(source, yard, "/hull");
  await patch(source, { kind: "pvc", ...hull }, { spec: { resources: { requests: { storage: "400Mi" } } } });
  await until(source, { kind: "pvc", ...hull }, "having grown", ({ status }) => status?.capacity?.storage === "400Mi");
  // The file system has as well, and the pod writes on.
  const after = await room(source, yard, "/hull");
  expect(after - before).toBeGreaterThan(80 * mebibyte);
  await inPod(source, yard, random("/hull/second", 2));
  await migrate(source, hull, "harbor");
  await copyOf(target, hull, "having grown", ({ status }) => status?.sizeBytes === 400 * mebibyte);

  await withClone(world, hull, { name: "hull-grown", size: "450Mi" }, async (reader, folder) => {
    expect(await inPod(target, reader, digests(folder))).toBe(await inPod(source, yard, digests("/hull")));
    // It was asked for larger than its point, and has grown to that.
    expect((await room(target, reader, folder)) - after).toBeGreaterThan(40 * mebibyte);
  });
}

/** The bytes that a file system has for files, free or not. */
async function room(cluster: TestCluster, where: Where, folder: string): Promise<number> {
  const text = await inPod(cluster, where, `stat --file-system --format '%b %S' ${folder}`);
  const [blocks = 0, blockBytes = 0] = text.trim().split(" ").map(Number);
  return blocks * blockBytes;
}

async function withClone(
  { target }: World,
  of: ClaimRef,
  { name, size }: { name: string; size: string },
  use: (reader: Where, folder: string) => Promise<void>,
): Promise<void> {
  await apply(
    target,
    claim({ namespace, name, storageClass: "clones", size, from: of.name }),
    pod({ namespace, name, script: "sleep 86400", mounts: [name] }),
  );
  await podIsReady(target, namespace, name);
  await use({ kind: "pod", namespace, name }, `/${name}`);
  await remove(target, "pod", namespace, [name]);
  await remove(target, "pvc", namespace, [name]);
}

/** Two clones of one XFS, which have its UUID both, and one of another volume: all on one node, for the pod's sake. */
export async function clonesOfSeveralVolumesInOnePod(world: World): Promise<void> {
  const { source, target } = world;
  await dockHasArrived(world);
  const clones = { "hull-one": hull, "hull-two": hull, "keel-one": keel } as const;
  const sizes = { hull: "400Mi", keel: "64Mi" } as const;
  const names = Object.keys(clones);
  const claims = Object.entries(clones).map(([name, of]) =>
    claim({ namespace, name, storageClass: "clones", size: sizes[of.name], from: of.name }),
  );
  await apply(target, ...claims, pod({ namespace, name: "replica", script: "sleep 86400", mounts: names }));
  const replica = { kind: "pod", namespace, name: "replica" } as const;
  await podIsReady(target, namespace, replica.name);
  const first = (folder: string) => `sha256sum <${folder}/first`;
  for (const [name, of] of Object.entries(clones)) {
    expect(await inPod(target, replica, first(`/${name}`))).toBe(await inPod(source, yard, first(`/${of.name}`)));
  }
  // Each is a volume by itself.
  await inPod(target, replica, "echo mine >/hull-one/own && sync /hull-one/own && [ ! -e /hull-two/own ]");
  await remove(target, "pod", namespace, [replica.name]);
  await remove(target, "pvc", namespace, names);
}

const sketch: Manifest = {
  apiVersion: "snapshot.storage.k8s.io/v1",
  kind: "VolumeSnapshot",
  metadata: { name: "sketch", namespace },
  spec: { volumeSnapshotClassName: "longshore", source: { persistentVolumeClaimName: keel.name } },
};

const isReady = ({ status }: Seen) => status?.readyToUse === true;

/** A user's own snapshot and what is made of it, a claim that is made of another one, and a schedule's snapshot. */
export async function snapshotsAndCopiesAtHome(world: World): Promise<void> {
  const { source } = world;
  await dockHasArrived(world);
  await apply(source, sketch);
  await until(source, { kind: "volumesnapshots", namespace, name: "sketch" }, "being ready", isReady);
  await inPod(source, yard, "echo later >/keel/later && sync /keel/later");
  const copy = claim({ namespace, name: "copied", storageClass: "plain", size: "64Mi" });
  const ofClaim = { kind: "PersistentVolumeClaim", name: keel.name };
  await apply(
    source,
    claim({ namespace, name: "restored", storageClass: "plain", size: "80Mi", from: "sketch" }),
    { ...copy, spec: { ...(copy.spec as object), dataSource: ofClaim } },
    pod({ namespace, name: "reader", script: "sleep 86400", mounts: ["restored", "copied"] }),
  );
  const reader = { kind: "pod", namespace, name: "reader" } as const;
  await podIsReady(source, namespace, reader.name);
  const isSame = '[ "$(sha256sum </restored/first)" = "$(sha256sum </copied/first)" ]';
  await inPod(source, reader, `${isSame} && [ ! -e /restored/later ] && [ -e /copied/later ]`);
  await remove(source, "pod", namespace, [reader.name]);
  await remove(source, "pvc", namespace, ["restored", "copied"]);
  await remove(source, "volumesnapshot", namespace, ["sketch"]);
  await aScheduledSnapshotIsRestored(world);
}

/** What an administrator makes of a snapshot that no VolumeSnapshot stands for, and a user of the namespace can restore then. */
const preProvisioned = (name: string, snapshotHandle: string): readonly [content: Manifest, snapshot: Manifest] => [
  {
    apiVersion: "snapshot.storage.k8s.io/v1",
    kind: "VolumeSnapshotContent",
    metadata: { name: `${namespace}-${name}` },
    spec: {
      driver,
      deletionPolicy: "Retain",
      source: { snapshotHandle },
      sourceVolumeMode: "Filesystem",
      volumeSnapshotRef: { apiVersion: "snapshot.storage.k8s.io/v1", kind: "VolumeSnapshot", namespace, name },
    },
  },
  {
    apiVersion: "snapshot.storage.k8s.io/v1",
    kind: "VolumeSnapshot",
    metadata: { name, namespace },
    spec: { source: { volumeSnapshotContentName: `${namespace}-${name}` } },
  },
];

async function aScheduledSnapshotIsRestored({ source }: World): Promise<void> {
  const [name, restored] = ["scheduled", "restored-scheduled"];
  const volume = await volumeOf(source, keel);
  const handle: string = (await get(source, { kind: "pv", name: volume })).spec.csi.volumeHandle;
  const putOn = (schedule: string | null) => {
    const annotations = { "longshore.dev/schedulePolicy": schedule };
    return patch(source, { kind: "pv", name: volume }, { metadata: { annotations } });
  };
  await putOn("kept");
  const isTaken = () => scheduledSnapshotOf(source, handle);
  const snapshot = await eventually("a snapshot of the schedule", isTaken, { timeoutMs: 200_000, intervalMs: 1_000 });
  await putOn(null);
  await inPod(source, yard, "echo newer >/keel/newer && sync /keel/newer");

  await apply(source, ...preProvisioned(name, `${handle}/${snapshot}`));
  await until(source, { kind: "volumesnapshots", namespace, name }, "being ready", isReady);
  await apply(
    source,
    claim({ namespace, name: restored, storageClass: "plain", size: "64Mi", from: name }),
    pod({ namespace, name: restored, script: "sleep 86400", mounts: [restored] }),
  );
  await podIsReady(source, namespace, restored);
  const reader = { kind: "pod", namespace, name: restored } as const;
  const first = (folder: string) => `sha256sum <${folder}/first`;
  expect(await inPod(source, reader, first(`/${restored}`))).toBe(await inPod(source, yard, first("/keel")));
  await inPod(source, reader, `[ ! -e /${restored}/newer ]`);

  await remove(source, "pod", namespace, [restored]);
  await remove(source, "pvc", namespace, [restored]);
  await remove(source, "volumesnapshot", namespace, [name]);
  await source.kubectl(["delete", "volumesnapshotcontent", `${namespace}-${name}`, "--timeout=120s"]);
  // It was never the objects' own: only the schedule's retention ends it.
  expect(await scheduledSnapshotOf(source, handle)).toBe(snapshot);
}

/** The oldest that a schedule took of a volume. */
async function scheduledSnapshotOf(cluster: TestCluster, handle: string): Promise<string | undefined> {
  interface Shown {
    readonly snapshots: readonly { readonly name: string; readonly state: string }[];
  }
  const { snapshots } = await longshore<Shown>(cluster, "volume", "show", handle);
  return snapshots.find(({ name, state }) => state === "sealed" && dueOfSnapshot(name) !== undefined)?.name;
}
