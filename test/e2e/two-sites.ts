// Two sites, `mainland` and `harbor`, each with a control plane, an agent and an operator of its own, and what users put
// into them. One pair of sites serves a whole test file.
import { randomBytes } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import { open } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect } from "@jest/globals";
import { dueOfSnapshot } from "../../src/domain/names.ts";
import { onInterrupt } from "../interrupt.ts";
import { startControlPlane } from "./control-plane.ts";
import { tail } from "./control-plane-program.ts";
import { conditionOf, type KubeClient, type Manifest, openKubeClient, type Seen } from "./kube-client.ts";
import { eventually } from "./process.ts";
import { openSite, type Site } from "./site.ts";
import { type StorageCluster, startStorageCluster } from "./storage-cluster.ts";

export const mebibyte = 2 ** 20;

export interface SeenSite extends Site {
  readonly kube: KubeClient;
}

export interface TwoSites {
  /** For whatever a test needs besides; goes with the sites. */
  readonly folder: string;
  readonly mainland: SeenSite;
  readonly harbor: SeenSite;
  stop(): Promise<void>;
}

export async function openTwoSites(): Promise<TwoSites> {
  const folder = mkdtempSync(join(tmpdir(), "longshore-sites-"));
  const forget = onInterrupt(() => rmSync(folder, { recursive: true, force: true, maxRetries: 5 }));
  const closers: (() => Promise<unknown>)[] = [];
  const stop = async () => {
    for (const close of closers.splice(0).reverse()) await close();
    rmSync(folder, { recursive: true, force: true, maxRetries: 5 });
    forget();
  };
  const site = async (name: string): Promise<SeenSite> => {
    const plane = await startControlPlane({ name });
    closers.push(() => plane.stop());
    const storage = await startStorageCluster({ name, folder: join(folder, name), backend: "copy" });
    closers.push(() => storage.stop());
    const opened = await openSite(plane, storage, join(folder, name));
    closers.push(() => opened.stop());
    return { ...opened, kube: openKubeClient(plane, () => tail(opened.operator().log, 20)) };
  };
  // Each is awaited to its end, so that what it started is known when the other one fails.
  const [mainland, harbor] = await Promise.allSettled([site("mainland"), site("harbor")]);
  if (mainland.status === "fulfilled" && harbor.status === "fulfilled") {
    return { folder, mainland: mainland.value, harbor: harbor.value, stop };
  }
  await stop();
  throw mainland.status === "rejected" ? mainland.reason : (harbor as PromiseRejectedResult).reason;
}

const longshore = "longshore.dev/v1";

export function location(name: string, target: StorageCluster, more: object = {}): Manifest {
  const spec = { ...target.asLocation(), ...more };
  return { apiVersion: longshore, kind: "MigrationLocation", metadata: { name }, spec };
}

export function source(name: string, from: StorageCluster, more: object = {}): Manifest {
  const spec = { ...from.asSource(), ...more };
  return { apiVersion: longshore, kind: "MigrationSource", metadata: { name }, spec };
}

/** Every second, kept for two, unless told otherwise. */
export function schedule(name: string, spec: object = {}): Manifest {
  const often = "schedule" in spec ? {} : { interval: "1s" };
  const whole = { ...often, retention: { age: "2s" }, ...spec };
  return { apiVersion: longshore, kind: "SnapshotSchedule", metadata: { name }, spec: whole };
}

export function storageClass(name: string, parameters: object, annotations: object = {}): Manifest {
  return {
    apiVersion: "storage.k8s.io/v1",
    kind: "StorageClass",
    metadata: { name, annotations },
    provisioner: "csi.longshore.dev",
    reclaimPolicy: "Retain",
    parameters: { migrationEnable: "true", ...parameters },
  };
}

export function migrationJob(name: string, spec: object): Manifest {
  return { apiVersion: longshore, kind: "MigrationJob", metadata: { name }, spec };
}

export const namespace = "library";
export const namespaceManifest: Manifest = { apiVersion: "v1", kind: "Namespace", metadata: { name: namespace } };

export interface VolumeWish {
  /** Of claim and agent's volume; the PersistentVolume is `pv-NAME`. */
  readonly name: string;
  readonly storageClass: string;
  readonly sizeBytes?: number;
  readonly claimAnnotations?: object;
  readonly claimLabels?: object;
}

export const volumeBytes = 8 * mebibyte;

/** The PersistentVolume and the claim, as a user keeps them in Git. */
export function volumeAndClaim(wish: VolumeWish): [Manifest, Manifest] {
  const { name, sizeBytes = volumeBytes, storageClass: storageClassName } = wish;
  const [storage, accessModes] = [String(sizeBytes), ["ReadWriteOnce"]];
  const claimRef = { apiVersion: "v1", kind: "PersistentVolumeClaim", namespace, name };
  const volume = {
    apiVersion: "v1",
    kind: "PersistentVolume",
    metadata: { name: `pv-${name}` },
    spec: {
      accessModes,
      capacity: { storage },
      storageClassName,
      persistentVolumeReclaimPolicy: "Retain",
      claimRef,
      csi: { driver: "csi.longshore.dev", volumeHandle: name, fsType: "ext4" },
    },
  };
  const claim = {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: {
      name,
      namespace,
      ...(wish.claimAnnotations && { annotations: wish.claimAnnotations }),
      ...(wish.claimLabels && { labels: wish.claimLabels }),
    },
    spec: { accessModes, resources: { requests: { storage } }, storageClassName, volumeName: `pv-${name}` },
  };
  return [volume, claim];
}

/** What a volume is called in each place. */
export function refs(name: string) {
  return {
    volume: { kind: "PersistentVolume", name: `pv-${name}` },
    claim: { kind: "PersistentVolumeClaim", namespace, name },
    migration: { kind: "VolumeMigration", name: `pv-${name}` },
  } as const;
}

/** A volume of random content at the agent, or at another one of the cluster; known to Kubernetes and bound. */
export async function makeVolume(
  site: SeenSite,
  wish: VolumeWish,
  at: Pick<StorageCluster, "api"> = site.storage,
): Promise<void> {
  const { name, sizeBytes = volumeBytes } = wish;
  await at.api.putVolume(name, { sizeBytes });
  await writeRandomly(at, name, 0, sizeBytes);
  await bindVolume(site, wish);
}

/** Tells Kubernetes of a volume, whether or not the agent has it. */
export async function bindVolume({ kube }: SeenSite, wish: VolumeWish): Promise<void> {
  await kube.apply(namespaceManifest, ...volumeAndClaim(wish));
  await kube.until(refs(wish.name).claim, "bound", ({ status }) => status?.phase === "Bound");
}

/** Changes so many bytes of a volume's live image. */
export async function writeRandomly(
  { api }: Pick<StorageCluster, "api">,
  volume: string,
  at: number,
  bytes: number,
): Promise<void> {
  const { path } = await api.getVolume(volume);
  const file = await open(path, "r+");
  try {
    await file.write(randomBytes(bytes), 0, bytes, at);
  } finally {
    await file.close();
  }
}

/** An annotation of classes and volumes by which a test leaves the sites quiet when it is done. */
export const off = { "longshore.dev/migrationEnable": "false" };

/** Waits until the volume is well, and something of it has arrived at a location. */
export async function isMigrated({ kube }: SeenSite, name: string): Promise<Seen> {
  return kube.until(refs(name).migration, "migrated and ready", (object) => {
    const locations: { newestPointTime?: string }[] = object.status?.locations ?? [];
    const hasArrived = locations.some(({ newestPointTime }) => newestPointTime !== undefined);
    return hasArrived && conditionOf(object, "Ready")?.status === "True";
  });
}

/** Waits for more runs of a volume that is well: time has gone by in which others could have run as well. */
export async function goesOn({ kube }: SeenSite, name: string, runs = 2): Promise<void> {
  const { migration } = refs(name);
  const lastRun = ({ status }: Seen) => Date.parse(status?.lastScheduleTime ?? "");
  const start = lastRun(await kube.until(migration, "a run", (object) => lastRun(object) > 0));
  await kube.until(migration, "more runs", (object) => lastRun(object) >= start + runs * 1_000);
}

export interface Trouble {
  /** Of the VolumeMigration's condition Ready. */
  readonly reason: string;
  readonly event: string;
  readonly part: RegExp;
}

/** What is wrong with a volume is a condition of its VolumeMigration, and an event on that and on its claim. */
export async function isToldOf({ kube }: SeenSite, name: string, { reason, event, part }: Trouble): Promise<void> {
  const { claim, migration } = refs(name);
  expect(await kube.condition(migration, "Ready", "False", reason)).toMatch(part);
  for (const ref of [migration, claim]) expect((await kube.told(ref, event, part)).type).toBe("Warning");
}

/** Waits until the last snapshot of a volume whose schedule `often` is suspended has expired and arrived, and no job is under way. */
export async function isQuiet({ kube, storage }: SeenSite, volume: string): Promise<void> {
  // Until then a moment between two runs would look the same.
  await kube.condition({ kind: "SnapshotSchedule", name: "often" }, "Ready", "True", "Suspended");
  await eventually(
    `${volume} being quiet`,
    async () => {
      const { snapshots, bases } = await storage.api.getVolume(volume);
      const newest = snapshots.findLast(({ name }) => dueOfSnapshot(name) !== undefined);
      const { items } = await storage.api.listJobs();
      const isThere = newest !== undefined && (bases[0]?.generation ?? 0) >= newest.generation;
      return (isThere && items.every(({ finishedAt }) => finishedAt !== null)) || undefined;
    },
    { timeoutMs: 90_000, intervalMs: 150 },
  );
}
