// The objects a user keeps in Git for the demo: the classic example at a faster pace.
import { stringify } from "yaml";

export const claim = { namespace: "library", name: "books" };
export const volumeHandle = "books-1";
export const intervalSeconds = 3;

export interface Schedule {
  readonly suspend: boolean;
}

/** A snapshot every few seconds, kept for twice that. */
export function schedule({ suspend }: Schedule): string {
  return stringify({
    apiVersion: "longshore.dev/v1",
    kind: "SnapshotSchedule",
    metadata: { name: "often" },
    spec: { interval: `${intervalSeconds}s`, retention: { age: `${2 * intervalSeconds}s` }, suspend },
  });
}

export function storageClass(locations: readonly string[]): string {
  return stringify({
    apiVersion: "storage.k8s.io/v1",
    kind: "StorageClass",
    metadata: { name: "migrated" },
    provisioner: "csi.longshore.dev",
    reclaimPolicy: "Retain",
    parameters: { migrationEnable: "true", migrationLocations: locations.join(","), schedulePolicy: "often" },
  });
}

/** A volume that exists at the agent, and the claim it is bound to by Kubernetes. */
export function volumeAndClaim(sizeBytes: number): string {
  const storage = String(sizeBytes);
  const volume = {
    apiVersion: "v1",
    kind: "PersistentVolume",
    metadata: { name: "pv-books" },
    spec: {
      accessModes: ["ReadWriteOnce"],
      capacity: { storage },
      storageClassName: "migrated",
      persistentVolumeReclaimPolicy: "Retain",
      claimRef: { apiVersion: "v1", kind: "PersistentVolumeClaim", ...claim },
      csi: { driver: "csi.longshore.dev", volumeHandle, fsType: "ext4" },
    },
  };
  const request = {
    apiVersion: "v1",
    kind: "PersistentVolumeClaim",
    metadata: claim,
    spec: {
      accessModes: ["ReadWriteOnce"],
      resources: { requests: { storage } },
      storageClassName: "migrated",
      volumeName: "pv-books",
    },
  };
  const namespace = { apiVersion: "v1", kind: "Namespace", metadata: { name: claim.namespace } };
  return [namespace, volume, request].map((object) => stringify(object)).join("---\n");
}
