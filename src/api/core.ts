// The parts that we read or write of kinds that are not ours.
import type { KubernetesObject } from "./object.ts";

export interface PersistentVolume extends KubernetesObject {
  readonly spec: {
    readonly storageClassName?: string;
    readonly volumeMode?: string;
    readonly claimRef?: { readonly namespace?: string; readonly name?: string; readonly uid?: string };
    readonly csi?: { readonly driver: string; readonly volumeHandle: string; readonly fsType?: string };
    readonly persistentVolumeReclaimPolicy?: string;
  };
  readonly status?: { readonly phase?: string };
}

export interface PersistentVolumeClaim extends KubernetesObject {
  readonly spec?: { readonly volumeName?: string; readonly storageClassName?: string };
}

export interface StorageClass extends KubernetesObject {
  readonly provisioner: string;
  readonly parameters?: Readonly<Record<string, string>>;
}

export interface VolumeSnapshot extends KubernetesObject {
  readonly spec: {
    readonly source: { readonly volumeSnapshotContentName?: string; readonly persistentVolumeClaimName?: string };
    readonly volumeSnapshotClassName?: string;
  };
  readonly status?: { readonly readyToUse?: boolean; readonly boundVolumeSnapshotContentName?: string };
}

export interface VolumeSnapshotContent extends KubernetesObject {
  readonly spec: {
    readonly deletionPolicy: "Retain" | "Delete";
    readonly driver: string;
    readonly source: { readonly snapshotHandle?: string; readonly volumeHandle?: string };
    readonly sourceVolumeMode?: string;
    readonly volumeSnapshotClassName?: string;
    readonly volumeSnapshotRef: {
      readonly apiVersion?: string;
      readonly kind?: string;
      readonly namespace: string;
      readonly name: string;
      readonly uid?: string;
    };
  };
}
