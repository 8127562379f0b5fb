// What to do for one volume now: mark it at its agent, take the snapshot that is due, start what is due to be migrated, let go
// of what nobody needs. Pure.
import type { MigrationJob } from "../api/migration-job.ts";
import { label, managedByLongshore, metadataKey } from "../api/names.ts";
import type { OwnerReference } from "../api/object.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { parseDuration } from "../domain/duration.ts";
import { groupRuns, type MemberRun, takersOf } from "../domain/group.ts";
import { type DueJob, type MigrationPlan, planMigrations } from "../domain/migration-due.ts";
import { dueOfSnapshot, groupJobNameOf, jobNameOf, labelValueOf, snapshotNameAt } from "../domain/names.ts";
import { decideRun, offsetOf, parseTiming, type RunDecision } from "../domain/schedule.ts";
import { controlledBy, type Draft } from "../kube/cluster.ts";
import type { VolumeSpec, VolumeView } from "../wire/schemas.ts";
import { timingText } from "./snapshot-schedule.ts";
import { isSame, parseTime } from "./status-parts.ts";
import { expiryOfVolume, migrationFacts, newsDueMs, onScheduleSince, type SeenVolume } from "./volume-facts.ts";
import { unheldOf } from "./volume-group.ts";

export interface VolumeDecision {
  /** What to tell the agent of the volume, when it does not know it yet. */
  readonly mark: VolumeSpec | undefined;
  readonly run: RunDecision | { readonly kind: "none" };
  /** The snapshot to take now, if one is due and it is this volume's part to ask for it. */
  readonly take: Take | undefined;
  readonly plan: MigrationPlan;
  /** Since when the volume is on its schedule, in milliseconds. */
  readonly sinceMs: number | undefined;
  /** When to look again, at the latest. */
  readonly nextMs: number | undefined;
}

export interface Take {
  readonly name: string;
  /** Of a group's snapshot: the agents' names of the group and of its volumes. */
  readonly group: { readonly name: string; readonly volumes: readonly string[] } | undefined;
}

const nothingToMigrate: MigrationPlan = { jobs: [], releases: [], blocked: [] };

export function decideVolume(seen: SeenVolume, nowMs: number): VolumeDecision {
  const { held, schedule, migration } = seen;
  const sinceMs = schedule === undefined ? undefined : onScheduleSince(migration, nowMs);
  if (held === undefined) {
    const plan = nothingToMigrate;
    return {
      mark: undefined,
      run: { kind: "none" },
      take: undefined,
      plan,
      sinceMs,
      nextMs: newsDueMs(migration, nowMs),
    };
  }
  const run = decideSnapshot(seen, nowMs);
  const plan = planOf(seen, held.view, nowMs);
  const times = [run.kind === "wait" ? run.nextMs : undefined, expiryOfVolume(held.view, schedule, nowMs).nextMs];
  const nextMs = Math.min(...times.filter((time) => time !== undefined));
  return {
    mark: markOf(seen, held.view),
    run,
    take: run.kind === "run" ? takeOf(seen, run.dueMs, nowMs) : undefined,
    plan,
    sinceMs,
    nextMs: Number.isFinite(nextMs) ? nextMs : undefined,
  };
}

/** Volumes of a group that do not agree keep what they have: what of it goes together is not known. */
function planOf(seen: SeenVolume, view: VolumeView, nowMs: number): MigrationPlan {
  const plan = planMigrations(migrationFacts(seen, view, nowMs));
  return seen.group?.conflict === undefined ? plan : { ...plan, jobs: [], releases: [] };
}

function decideSnapshot(seen: SeenVolume, nowMs: number): VolumeDecision["run"] {
  const { migration, schedule, locations, group } = seen;
  const { policy } = migration.spec;
  const hasLocation = policy.locations.some((name) => locations.has(name));
  if (!policy.enabled || schedule === undefined || !hasLocation) return { kind: "none" };
  if (group?.conflict !== undefined) return { kind: "none" };
  const parsed = parseTiming(schedule.spec);
  // Until the schedule's own reconciler has seen this timing, nobody knows since when it holds.
  const effectiveMs = parseTime(schedule.status?.effectiveTime);
  const isSeen = schedule.status?.timing === timingText(schedule.spec) && effectiveMs !== undefined;
  if (parsed.kind === "invalid" || !isSeen) return { kind: "none" };
  const { jitter, startingDeadlineSeconds, suspend } = schedule.spec;
  const { sinceMs, lastRunMs } = groupRuns(runsOf(seen, nowMs));
  return decideRun(
    {
      timing: parsed.timing,
      offsetMs: offsetOf(
        group?.agentName ?? migration.spec.volume.uid,
        jitter === undefined ? 0 : parseDuration(jitter),
      ),
      sinceMs: Math.max(sinceMs, effectiveMs),
      lastRunMs,
      startingDeadlineMs: startingDeadlineSeconds === undefined ? undefined : startingDeadlineSeconds * 1_000,
      isSuspended: suspend === true,
    },
    nowMs,
  );
}

/** How far the volumes are that are snapshotted together: those of the group, or the volume alone. */
function runsOf({ migration, held, group }: SeenVolume, nowMs: number): MemberRun[] {
  const members = group?.members ?? [{ migration, held }];
  return members.map((member) => ({
    volume: member.migration.metadata.name,
    sinceMs: onScheduleSince(member.migration, nowMs),
    lastRunMs: lastRunOf(member.migration, member.held?.view, nowMs),
  }));
}

/** Clocks of leaders that follow each other differ by less. */
const clockSkewMsMax = 60_000;

/**
 * The due time, in milliseconds, of the last run made: as recorded, or, when that record was not written any more, as the snapshots
 * tell. What lies in the future was made by a clock that was ahead, and does not count: it would keep all runs until then from being made.
 */
export function lastRunOf(
  { spec, status }: VolumeMigration,
  view: VolumeView | undefined,
  nowMs: number,
): number | undefined {
  // What is being made of a group's snapshot does not count before the whole group has it.
  const counting = (view?.snapshots ?? []).filter(({ state }) => spec.group === undefined || state !== "creating");
  const dues = counting.flatMap(({ name }) => dueOfSnapshot(name) ?? []);
  const recorded = parseTime(status?.lastScheduleTime) ?? Number.NEGATIVE_INFINITY;
  const latest = Math.max(...[...dues, recorded].filter((dueMs) => dueMs <= nowMs + clockSkewMsMax));
  return Number.isFinite(latest) ? latest : undefined;
}

/** Of a group, the first of the volumes that take part asks for the snapshot, of all of them or of none. */
function takeOf(seen: SeenVolume, dueMs: number, nowMs: number): Take | undefined {
  const name = snapshotNameAt(dueMs);
  const { group, migration } = seen;
  if (group === undefined) return { name, group: undefined };
  const takers = takersOf(runsOf(seen, nowMs), dueMs);
  if (takers[0] !== migration.metadata.name || unheldOf(group).length > 0) return undefined;
  const volumes = group.members
    .filter((member) => takers.includes(member.migration.metadata.name))
    .map((member) => member.migration.spec.volume.handle);
  return { name, group: { name: group.agentName, volumes } };
}

/** The volume of the group that asks for what is due; `undefined` for a volume by itself, or when nothing is. */
export function askerOf(seen: SeenVolume, { run }: VolumeDecision, nowMs: number): VolumeMigration | undefined {
  if (seen.group === undefined || run.kind !== "run") return undefined;
  const [first] = takersOf(runsOf(seen, nowMs), run.dueMs);
  return seen.group.members.find(({ migration }) => migration.metadata.name === first)?.migration;
}

function markOf(seen: SeenVolume, view: VolumeView): VolumeSpec | undefined {
  const { enabled, dryRun } = seen.migration.spec.policy;
  // What is only looked at is left as it is.
  if (dryRun === true && !view.migrationEnabled) return undefined;
  const metadata = { ...usageOf(seen), ...view.metadata, ...volumeMetadata(seen) };
  if (view.migrationEnabled === enabled && isSame(view.metadata, metadata)) return undefined;
  return { sizeBytes: view.sizeBytes, migrationEnabled: enabled, metadata };
}

/** The agents' limit for all of a volume's metadata; labels are left out when they would not fit. */
const labelsLengthMax = 2_048;

/** For a volume that was made without a word of it: what its maker has said is true of its data, whatever is written of it later. */
function usageOf({ volume }: SeenVolume): Record<string, string> {
  if (volume === undefined) return {};
  const { volumeMode = "Filesystem", csi } = volume.spec;
  const fileSystem = csi?.fsType;
  return {
    [metadataKey.volumeMode]: volumeMode,
    ...(fileSystem !== undefined && { [metadataKey.fileSystem]: fileSystem }),
  };
}

/** What travels with the volume to the target, where it decides under which name it is published. */
function volumeMetadata({ volume, policy }: SeenVolume): Record<string, string> {
  if (volume === undefined) return {};
  const { claimRef } = volume.spec;
  const metadata: Record<string, string> = { [metadataKey.persistentVolume]: volume.metadata.name };
  if (claimRef?.namespace !== undefined && claimRef.name !== undefined) {
    metadata[metadataKey.claimNamespace] = claimRef.namespace;
    metadata[metadataKey.claimName] = claimRef.name;
  }
  const labels = JSON.stringify(policy?.claim?.metadata.labels ?? {});
  if (policy?.claim !== undefined) metadata[metadataKey.claimLabels] = labels.length > labelsLengthMax ? "{}" : labels;
  return metadata;
}

/**
 * The MigrationJob for what is due. Its name follows from what it is for, so that asking twice makes one. That of a group is made
 * by the first of its volumes only.
 */
export function jobDraft({ migration, group }: SeenVolume, due: DueJob): Draft<MigrationJob> | undefined {
  const volume = migration.metadata.name;
  const labels = { [label.managedBy]: managedByLongshore, [label.location]: due.location };
  const id = migration.spec.group;
  if (due.group === undefined || group === undefined || id === undefined) {
    return {
      metadata: {
        name: jobNameOf({ ...due, volume }),
        labels: { ...labels, [label.volume]: labelValueOf(volume) },
        ownerReferences: [controlledBy(migration)],
      },
      spec: { volumeName: volume, location: due.location, toSnapshot: due.snapshot },
    };
  }
  const { volumes, groupPoint } = due.group;
  if (volumes[0] !== volume) return undefined;
  const owners = group.members.filter((member) => volumes.includes(member.migration.metadata.name));
  return {
    metadata: {
      name: groupJobNameOf({ group: id, location: due.location, groupPoint }),
      labels: { ...labels, [label.group]: id.name, [label.groupNamespace]: id.namespace },
      // It goes when the last of its volumes does.
      ownerReferences: owners.map((owner) => ownedBy(owner.migration)),
    },
    spec: { group: { ...id, volumes }, location: due.location, toSnapshot: due.snapshot },
  };
}

function ownedBy(migration: VolumeMigration): OwnerReference {
  return { ...controlledBy(migration), controller: false };
}
