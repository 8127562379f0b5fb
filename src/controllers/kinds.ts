// The resources that the operator knows, and the indexes by which it finds them.
import type {
  PersistentVolume,
  PersistentVolumeClaim,
  StorageClass,
  VolumeSnapshot,
  VolumeSnapshotContent,
} from "../api/core.ts";
import type { MigratedVolume } from "../api/migrated-volume.ts";
import type { MigrationJob } from "../api/migration-job.ts";
import type { MigrationLocation } from "../api/migration-location.ts";
import type { MigrationSource } from "../api/migration-source.ts";
import { group, label, version } from "../api/names.ts";
import type { SnapshotSchedule } from "../api/snapshot-schedule.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { type GroupId, pointOfContent } from "../domain/names.ts";
import type { Index, KindRef } from "../kube/cluster.ts";

const ours = { group, version, namespaced: false } as const;

export const MigrationLocations: KindRef<MigrationLocation> = {
  ...ours,
  plural: "migrationlocations",
  kind: "MigrationLocation",
};
export const SnapshotSchedules: KindRef<SnapshotSchedule> = {
  ...ours,
  plural: "snapshotschedules",
  kind: "SnapshotSchedule",
};
export const VolumeMigrations: KindRef<VolumeMigration> = {
  ...ours,
  plural: "volumemigrations",
  kind: "VolumeMigration",
};
export const MigrationJobs: KindRef<MigrationJob> = { ...ours, plural: "migrationjobs", kind: "MigrationJob" };
export const MigrationSources: KindRef<MigrationSource> = {
  ...ours,
  plural: "migrationsources",
  kind: "MigrationSource",
};
export const MigratedVolumes: KindRef<MigratedVolume> = { ...ours, plural: "migratedvolumes", kind: "MigratedVolume" };

const core = { group: "", version: "v1" } as const;

export const PersistentVolumes: KindRef<PersistentVolume> = {
  ...core,
  plural: "persistentvolumes",
  kind: "PersistentVolume",
  namespaced: false,
};
export const PersistentVolumeClaims: KindRef<PersistentVolumeClaim> = {
  ...core,
  plural: "persistentvolumeclaims",
  kind: "PersistentVolumeClaim",
  namespaced: true,
};
export const StorageClasses: KindRef<StorageClass> = {
  group: "storage.k8s.io",
  version: "v1",
  plural: "storageclasses",
  kind: "StorageClass",
  namespaced: false,
};

// Not every cluster has them installed.
const snapshotGroup = { group: "snapshot.storage.k8s.io", version: "v1", optional: true } as const;

export const VolumeSnapshots: KindRef<VolumeSnapshot> = {
  ...snapshotGroup,
  plural: "volumesnapshots",
  kind: "VolumeSnapshot",
  namespaced: true,
};
export const VolumeSnapshotContents: KindRef<VolumeSnapshotContent> = {
  ...snapshotGroup,
  plural: "volumesnapshotcontents",
  kind: "VolumeSnapshotContent",
  namespaced: false,
};

const present = (value: string | undefined): readonly string[] => (value === undefined ? [] : [value]);

export const volumesByClass: Index<PersistentVolume> = {
  kind: PersistentVolumes,
  valuesOf: ({ spec }) => present(spec.storageClassName),
};

export const migrationsBySchedule: Index<VolumeMigration> = {
  kind: VolumeMigrations,
  valuesOf: ({ spec }) => present(spec.policy.schedule),
};
/** By the locations of the policy, and by those that the volume still has a base at. */
export const migrationsByLocation: Index<VolumeMigration> = {
  kind: VolumeMigrations,
  valuesOf: ({ spec, status }) => [
    ...new Set([...spec.policy.locations, ...(status?.locations ?? []).map(({ name }) => name)]),
  ],
};
export const migrationsByHandle: Index<VolumeMigration> = {
  kind: VolumeMigrations,
  valuesOf: ({ spec }) => [spec.volume.handle],
};

/** By `namespace/name` of the consistency group. */
export const migrationsByGroup: Index<VolumeMigration> = {
  kind: VolumeMigrations,
  valuesOf: ({ spec }) => (spec.group === undefined ? [] : [groupValue(spec.group)]),
};
/** By `namespace/name` of the consistency group that their label names. */
export const claimsByGroup: Index<PersistentVolumeClaim> = {
  kind: PersistentVolumeClaims,
  valuesOf: (claim) => groupsOfClaim(claim).map(groupValue),
};

export function groupValue({ namespace, name }: GroupId): string {
  return `${namespace}/${name}`;
}

/** The consistency group that a claim's label names, if any. */
export function groupsOfClaim({ metadata }: PersistentVolumeClaim): readonly GroupId[] {
  const name = metadata.labels?.[label.group];
  return name && metadata.namespace !== undefined ? [{ namespace: metadata.namespace, name }] : [];
}

/** The names of the PersistentVolumes that a job moves, as far as that is settled. */
export function volumesOfJob({ spec, status }: MigrationJob): readonly string[] {
  if (spec.volumeName !== undefined) return [spec.volumeName];
  return spec.group?.volumes ?? status?.volumes ?? [];
}

export const jobsByVolume: Index<MigrationJob> = { kind: MigrationJobs, valuesOf: volumesOfJob };
export const jobsByGroup: Index<MigrationJob> = {
  kind: MigrationJobs,
  valuesOf: ({ spec }) => (spec.group === undefined ? [] : [groupValue(spec.group)]),
};
export const jobsByLocation: Index<MigrationJob> = { kind: MigrationJobs, valuesOf: ({ spec }) => [spec.location] };

/** By the name of the MigrationSource that allows them. */
export const migratedBySource: Index<MigratedVolume> = {
  kind: MigratedVolumes,
  valuesOf: ({ spec }) => present(spec.source),
};

/** By the UID of the claim; none has another's. */
export const claimsByUid: Index<PersistentVolumeClaim> = {
  kind: PersistentVolumeClaims,
  valuesOf: ({ metadata }) => [metadata.uid],
};

/** Of dry runs only, by the class that asks for one. */
export const plansByClass: Index<VolumeMigration> = {
  kind: VolumeMigrations,
  valuesOf: (migration) => present(classOfPlan(migration)),
};

/** The class whose dry run a VolumeMigration was made for, if it was. */
export function classOfPlan({ spec }: VolumeMigration): string | undefined {
  return spec.policy.dryRun === true ? spec.policy.storageClass : undefined;
}

/**
 * By the MigratedVolume that they say they publish, which is in the name of the content: a VolumeSnapshot cannot change that,
 * as it can its labels and owners.
 */
export const snapshotsByMigratedVolume: Index<VolumeSnapshot> = {
  kind: VolumeSnapshots,
  valuesOf: (snapshot) => present(migratedVolumeOfSnapshot(snapshot)),
};
export const contentsByMigratedVolume: Index<VolumeSnapshotContent> = {
  kind: VolumeSnapshotContents,
  valuesOf: (content) => present(migratedVolumeOfContent(content)),
};

export function migratedVolumeOfSnapshot({ spec }: VolumeSnapshot): string | undefined {
  return pointOfContent(spec.source.volumeSnapshotContentName ?? "")?.migratedVolume;
}

export function migratedVolumeOfContent({ metadata }: VolumeSnapshotContent): string | undefined {
  return pointOfContent(metadata.name)?.migratedVolume;
}
