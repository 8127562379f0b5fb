// What every controller is given.
import type { Clock } from "../base/clock.ts";
import type { Metrics } from "../base/metrics.ts";
import type { Cluster } from "../kube/cluster.ts";
import type { Agents } from "./agents.ts";

export interface ControllerDeps {
  readonly cluster: Cluster;
  readonly agents: Agents;
  readonly clock: Clock;
  readonly metrics: Metrics;
}

/** The controllers' names: in logs, metrics, and for whoever asks for a look. */
export const controllerName = {
  persistentVolume: "persistent-volume",
  snapshotSchedule: "snapshot-schedule",
  volumeMigration: "volume-migration",
  migrationJob: "migration-job",
  migrationLocation: "migration-location",
  migrationSource: "migration-source",
  migratedVolume: "migrated-volume",
  waitingClaim: "waiting-claim",
  dryRun: "dry-run",
} as const;
