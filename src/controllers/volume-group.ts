// A consistency group as the operator sees it: the volumes whose claims carry the same label, what their agents hold, and
// what keeps the group from being handled as one.
import type { PersistentVolumeClaim } from "../api/core.ts";
import type { MigrationJob } from "../api/migration-job.ts";
import { driverName } from "../api/names.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { groupConflict } from "../domain/group.ts";
import { type GroupId, groupNameOf } from "../domain/names.ts";
import type { Cluster } from "../kube/cluster.ts";
import type { VolumeView } from "../wire/schemas.ts";
import { findOne, type Held } from "./agents.ts";
import type { ControllerDeps } from "./deps.ts";
import {
  claimsByGroup,
  groupValue,
  jobsByVolume,
  migrationsByGroup,
  PersistentVolumes,
  VolumeMigrations,
} from "./kinds.ts";
import { observePolicy } from "./policy-view.ts";

export interface SeenMember {
  readonly migration: VolumeMigration;
  /** The volume on its agent; absent when no agent is seen to hold it. */
  readonly held: Held<VolumeView> | undefined;
  /** All jobs of the volume, whatever became of them. */
  readonly jobs: readonly MigrationJob[];
}

export interface SeenGroup {
  /** `namespace/name`, for people and indexes. */
  readonly title: string;
  /** The agents' name for it. */
  readonly agentName: string;
  /** In order of name; the volume that it was asked for is one of them. */
  readonly members: readonly SeenMember[];
  /** Why nothing of the group is snapshotted or migrated. */
  readonly conflict: string | undefined;
}

/** Reads from caches only. A group may have no members. */
export function observeGroup(id: GroupId, { cluster, agents }: ControllerDeps): SeenGroup {
  const migrations = cluster
    .find(migrationsByGroup, groupValue(id))
    .filter(({ metadata }) => metadata.deletionTimestamp === undefined);
  const members = migrations.map((migration) => ({
    migration,
    held: findOne(agents, "volumes", migration.spec.volume.handle),
    jobs: cluster.find(jobsByVolume, migration.spec.volume.name),
  }));
  const policies = migrations.map(({ metadata, spec }) => ({
    name: spec.claim?.name ?? metadata.name,
    isEnabled: spec.policy.enabled,
    schedule: spec.policy.schedule,
    locations: spec.policy.locations,
  }));
  return {
    title: groupValue(id),
    agentName: groupNameOf(id),
    members,
    conflict: groupConflict(policies, outsidersOf(id, cluster)),
  };
}

/** Claims of the group whose volumes are not migrated, and will not be unless somebody changes something. */
function outsidersOf(id: GroupId, cluster: Cluster): { name: string; why: string }[] {
  return cluster.find(claimsByGroup, groupValue(id)).flatMap((claim) => {
    const why = whyOutside(claim, cluster);
    return why === undefined ? [] : [{ name: claim.metadata.name, why }];
  });
}

function whyOutside({ metadata, spec }: PersistentVolumeClaim, cluster: Cluster): string | undefined {
  const name = spec?.volumeName;
  const volume = name === undefined ? undefined : cluster.get(PersistentVolumes, { name });
  // One without a volume has nothing to be migrated yet.
  if (volume === undefined || metadata.deletionTimestamp !== undefined) return undefined;
  if (volume.spec.csi?.driver !== driverName) return `is not a volume of ${driverName}`;
  if (cluster.get(VolumeMigrations, { name: volume.metadata.name }) !== undefined) return undefined;
  const { resolved } = observePolicy(cluster, volume, undefined);
  const isWanted = resolved.kind === "invalid" || (resolved.kind === "policy" && resolved.policy.isEnabled);
  // Wanted, and not there yet: its VolumeMigration is being made.
  return isWanted ? undefined : "is not enabled";
}

/** The members that have no agent at the moment. */
export function unheldOf({ members }: SeenGroup): readonly SeenMember[] {
  return members.filter(({ held }) => held === undefined);
}
