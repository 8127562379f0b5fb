// What a MigrationJob moves, as far as it can be seen: one volume, or the volumes of a consistency group.
import type { MigrationJob } from "../api/migration-job.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import type { SnapshotView, VolumeView } from "../wire/schemas.ts";
import { findOne, type Held } from "./agents.ts";
import type { ControllerDeps } from "./deps.ts";
import { VolumeMigrations, volumesOfJob } from "./kinds.ts";
import { snapshotOf } from "./volume-facts.ts";
import { observeGroup, type SeenGroup } from "./volume-group.ts";

/** One volume of a job. */
export interface JobPart {
  /** The name of the PersistentVolume. */
  readonly name: string;
  readonly migration: VolumeMigration | undefined;
  readonly held: Held<VolumeView> | undefined;
  readonly snapshot: SnapshotView | undefined;
}

export interface JobSubject {
  /** Of a job that names a group. */
  readonly group: SeenGroup | undefined;
  /** In order of name. None while it is not settled which volumes of the group take part. */
  readonly parts: readonly JobPart[];
}

export function observeSubject(job: MigrationJob, deps: ControllerDeps): JobSubject {
  return {
    group: job.spec.group && observeGroup(job.spec.group, deps),
    parts: [...volumesOfJob(job)].sort().map((name) => observePart(job, name, deps)),
  };
}

function observePart(job: MigrationJob, name: string, { cluster, agents }: ControllerDeps): JobPart {
  const migration = cluster.get(VolumeMigrations, { name });
  const held = migration && findOne(agents, "volumes", migration.spec.volume.handle);
  const snapshot = held?.view.snapshots.find((each) => each.name === snapshotOf(job));
  return { name, migration, held, snapshot };
}

/** The volumes of the group that take part in a job that does not say: all; or those that have the snapshot it names. */
export function partakersOf({ spec }: MigrationJob, { members }: SeenGroup): readonly string[] {
  const has = (view: VolumeView | undefined) => view?.snapshots.some(({ name }) => name === spec.toSnapshot) === true;
  const partakers = spec.toSnapshot === undefined ? members : members.filter(({ held }) => has(held?.view));
  return partakers.map(({ migration }) => migration.metadata.name).sort();
}

/** Why the snapshots of the parts are not what the job needs; `undefined` when they are. */
export function snapshotProblem(job: MigrationJob, { parts }: JobSubject): string | undefined {
  const name = snapshotOf(job);
  for (const { name: volume, snapshot } of parts) {
    if (snapshot !== undefined && snapshot.state !== "lost" && snapshot.state !== "deleting") continue;
    const state = snapshot === undefined ? "does not exist (any more)" : `is ${snapshot.state}`;
    return `Snapshot ${name} of volume ${volume} ${state}. The next job takes over its changes.`;
  }
  if (job.spec.group === undefined) return undefined;
  const points = new Set(parts.map(({ snapshot }) => snapshot?.groupPoint));
  if (points.size === 1 && !points.has(undefined)) return undefined;
  return `The snapshots ${name} of ${parts.map((part) => part.name).join(", ")} were not taken together.`;
}
