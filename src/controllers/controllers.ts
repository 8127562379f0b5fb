// All reconcilers, and which of them what an agent tells concerns.
import type { VolumeMigration } from "../api/volume-migration.ts";
import { claimOfVolumeName, keyOfAgentJob } from "../domain/names.ts";
import { type Cluster, type Controller, type Key, type KindRef, keyOf } from "../kube/cluster.ts";
import type { AgentNews } from "./agent-mirror.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import { dryRunController } from "./dry-run.ts";
import {
  claimsByUid,
  groupValue,
  jobsByVolume,
  MigratedVolumes,
  MigrationJobs,
  MigrationLocations,
  MigrationSources,
  migrationsByGroup,
  migrationsByHandle,
  VolumeMigrations,
} from "./kinds.ts";
import { migratedVolumeController } from "./migrated-volume.ts";
import { migrationJobController } from "./migration-job.ts";
import { migrationLocationController } from "./migration-location.ts";
import { migrationSourceController } from "./migration-source.ts";
import { persistentVolumeController } from "./persistent-volume.ts";
import { openSnapshotPace } from "./snapshot-pace.ts";
import { snapshotScheduleController } from "./snapshot-schedule.ts";
import { hasEnded } from "./volume-facts.ts";
import { volumeMigrationController } from "./volume-migration.ts";
import { waitingClaimController } from "./waiting-claim.ts";

export function openControllers(deps: ControllerDeps): readonly Controller[] {
  // Scheduled snapshots and those of users' jobs have their turns from one ledger.
  const pace = openSnapshotPace(deps.clock);
  return [
    persistentVolumeController(deps),
    snapshotScheduleController(deps),
    volumeMigrationController(deps, pace),
    migrationJobController(deps, pace),
    migrationLocationController(deps),
    migrationSourceController(deps),
    migratedVolumeController(deps),
    waitingClaimController(deps),
    dryRunController(deps),
  ];
}

interface Concern {
  readonly controller: string;
  readonly key: Key;
}

/** Which keys of which controllers are concerned by what an agent tells. */
export function routeNews(cluster: Cluster): (news: AgentNews) => readonly Concern[] {
  const all = (kind: KindRef, controller: string) =>
    cluster.list(kind).map(({ metadata }) => ({ controller, key: { name: metadata.name } }));
  return ({ kind, name }) => {
    switch (kind) {
      case "volume":
        return cluster.find(migrationsByHandle, name).flatMap((migration) => concerned(cluster, migration));
      case "location":
        return [{ controller: controllerName.migrationLocation, key: { name } }];
      case "job": {
        const key = keyOfAgentJob(name);
        return key === undefined ? [] : [{ controller: controllerName.migrationJob, key: { name: key.name } }];
      }
      case "source":
        return [{ controller: controllerName.migrationSource, key: { name } }];
      case "migratedVolume":
        return [{ controller: controllerName.migratedVolume, key: { name } }];
      case "clone": {
        const uid = claimOfVolumeName(name);
        const claims = uid === undefined ? [] : cluster.find(claimsByUid, uid);
        return claims.map((claim) => ({ controller: controllerName.waitingClaim, key: keyOf(claim) }));
      }
      case "synced":
        // What no agent holds is known for sure only now.
        return [
          ...all(MigrationLocations, controllerName.migrationLocation),
          ...all(MigrationSources, controllerName.migrationSource),
          ...all(VolumeMigrations, controllerName.volumeMigration),
          ...all(MigratedVolumes, controllerName.migratedVolume),
          // Those that waited for the agent.
          ...cluster
            .list(MigrationJobs)
            .filter((job) => !hasEnded(job))
            .map(({ metadata }) => ({ controller: controllerName.migrationJob, key: { name: metadata.name } })),
        ];
      case "member":
      case "lost":
        return [
          ...all(VolumeMigrations, controllerName.volumeMigration),
          ...all(MigrationLocations, controllerName.migrationLocation),
          ...all(MigrationSources, controllerName.migrationSource),
          ...all(MigratedVolumes, controllerName.migratedVolume),
        ];
    }
  };
}

/** The volume, and those of its group: what one has, the others go by. And the jobs that wait for its snapshot. */
function concerned(cluster: Cluster, migration: VolumeMigration): readonly Concern[] {
  const { group } = migration.spec;
  const all = group === undefined ? [migration] : cluster.find(migrationsByGroup, groupValue(group));
  const jobs = cluster.find(jobsByVolume, migration.metadata.name).filter((job) => !hasEnded(job));
  return [
    ...all.map(({ metadata }) => ({ controller: controllerName.volumeMigration, key: { name: metadata.name } })),
    ...jobs.map(({ metadata }) => ({ controller: controllerName.migrationJob, key: { name: metadata.name } })),
  ];
}
