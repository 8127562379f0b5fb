// What users of the two clusters write: classes, schedules, claims and pods. Each scenario has a namespace of its own, of the same
// name in both clusters, and what is published goes there.
import type { Manifest } from "../kube-client.ts";

export const driver = "csi.longshore.dev";
const longshore = "longshore.dev/v1";

/** One scenario each; a claim's copy is published in the namespace of the same name. */
export const namespaces = ["bank", "tide", "attic", "dock", "fleet", "steady", "crowd", "rival"] as const;
export type Namespace = (typeof namespaces)[number];

export const namespace = (name: string): Manifest => ({ apiVersion: "v1", kind: "Namespace", metadata: { name } });

/** Whether a claim of a class gets its volume at once, or on the node that its first pod is sent to. */
export type Binding = "Immediate" | "WaitForFirstConsumer";

export function storageClass(
  name: string,
  parameters: Readonly<Record<string, string>> = {},
  volumeBindingMode: Binding = "Immediate",
): Manifest {
  return {
    apiVersion: "storage.k8s.io/v1",
    kind: "StorageClass",
    metadata: { name },
    provisioner: driver,
    allowVolumeExpansion: true,
    volumeBindingMode,
    parameters,
  };
}

export const fileSystem = (name: "ext4" | "xfs") => ({ "csi.storage.k8s.io/fstype": name });

/** Parameters of a class whose volumes migrate. */
export function migrating(location: string, schedule: string) {
  return { migrationEnable: "true", migrationLocations: location, schedulePolicy: schedule };
}

export function schedule(name: string, spec: object): Manifest {
  return { apiVersion: longshore, kind: "SnapshotSchedule", metadata: { name }, spec };
}

/** Migrates a volume now, with a snapshot of its own. */
export function migrationJob(name: string, volumeName: string, location: string): Manifest {
  return { apiVersion: longshore, kind: "MigrationJob", metadata: { name }, spec: { volumeName, location } };
}

export interface ClaimWish {
  readonly namespace: Namespace;
  readonly name: string;
  readonly storageClass: string;
  readonly size: string;
  readonly volumeMode?: "Filesystem" | "Block";
  /** The VolumeSnapshot that it is a clone of. */
  readonly from?: string;
}

export function claim({ namespace: where, name, storageClass: storageClassName, size, ...more }: ClaimWish): Manifest {
  const dataSource = { apiGroup: "snapshot.storage.k8s.io", kind: "VolumeSnapshot", name: more.from };
  return {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: { name, namespace: where },
    spec: {
      accessModes: ["ReadWriteOnce"],
      storageClassName,
      volumeMode: more.volumeMode ?? "Filesystem",
      resources: { requests: { storage: size } },
      ...(more.from !== undefined && { dataSource }),
    },
  };
}

export interface PodWish {
  readonly namespace: Namespace;
  readonly name: string;
  /** Run by `sh -c`. */
  readonly script: string;
  /** Claims by name: mounted at `/NAME`, or, of raw block volumes, there as `/dev/NAME`. */
  readonly mounts?: readonly string[];
  readonly devices?: readonly string[];
}

/** Of the tests' own making (tools/image.ts). */
const busybox = "busybox:test";

/** One that is not started again when its script fails: that it runs says that nothing has gone wrong in it. */
export function pod({ namespace: where, name, script, mounts = [], devices = [] }: PodWish): Manifest {
  const main = {
    name: "main",
    image: busybox,
    command: ["sh", "-c", script],
    volumeMounts: mounts.map((each) => ({ name: each, mountPath: `/${each}` })),
    volumeDevices: devices.map((each) => ({ name: each, devicePath: `/dev/${each}` })),
  };
  return {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name, namespace: where },
    spec: {
      restartPolicy: "Never",
      terminationGracePeriodSeconds: 1,
      containers: [main],
      volumes: [...mounts, ...devices].map((each) => ({ name: each, persistentVolumeClaim: { claimName: each } })),
    },
  };
}
