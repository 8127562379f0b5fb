// What to do for one volume now: mark it at its agent, take the snapshot that is due, start what is due to be migrated, let go
// of what nobody needs. Pure.
import type { MigrationJob } from "../api/migration-job.ts";
import { label, managedByLongshore, metadataKey } from "../api/names.ts";
import { parseDuration } from "../domain/duration.ts";
import { type DueJob, type MigrationPlan, planMigrations } from "../domain/migration-due.ts";
import { dueOfSnapshot, jobNameOf, labelValueOf, snapshotNameAt } from "../domain/names.ts";
import { decideRun, offsetOf, parseTiming, type RunDecision } from "../domain/schedule.ts";
import { controlledBy, type Draft } from "../kube/cluster.ts";
import type { VolumeSpec, VolumeView } from "../wire/schemas.ts";
import { timingText } from "./snapshot-schedule.ts";
import { isSame, parseTime } from "./status-parts.ts";
import { expiryOfVolume, migrationFacts, type SeenVolume } from "./volume-facts.ts";

export interface VolumeDecision {
  /** What to tell the agent of the volume, when it does not know it yet. */
  readonly mark: VolumeSpec | undefined;
  readonly run: RunDecision | { readonly kind: "none" };
  readonly plan: MigrationPlan;
  /** Since when the volume is on its schedule, in milliseconds. */
  readonly sinceMs: number | undefined;
  /** When to look again, at the latest. */
  readonly nextMs: number | undefined;
}

const nothingToMigrate: MigrationPlan = { jobs: [], releases: [], blocked: [] };

export function decideVolume(seen: SeenVolume, nowMs: number): VolumeDecision {
  const { held, schedule } = seen;
  const sinceMs = onScheduleSince(seen, nowMs);
  if (held === undefined) {
    return { mark: undefined, run: { kind: "none" }, plan: nothingToMigrate, sinceMs, nextMs: undefined };
  }
  const run = decideSnapshot(seen, held.view, { sinceMs, nowMs });
  const plan = planMigrations(migrationFacts(seen, held.view, nowMs));
  const times = [run.kind === "wait" ? run.nextMs : undefined, expiryOfVolume(held.view, schedule, nowMs).nextMs];
  const nextMs = Math.min(...times.filter((time) => time !== undefined));
  return {
    mark: markOf(seen, held.view),
    run,
    plan,
    sinceMs,
    nextMs: Number.isFinite(nextMs) ? nextMs : undefined,
  };
}

/** Since when the volume is on its schedule. One that has just come to it begins now. */
function onScheduleSince({ migration, schedule }: SeenVolume, nowMs: number): number | undefined {
  if (schedule === undefined) return undefined;
  const { status } = migration;
  const isKnown = status?.schedule?.name === schedule.metadata.name && status.schedule.since !== undefined;
  return isKnown ? parseTime(status.schedule?.since) : nowMs;
}

function decideSnapshot(
  seen: SeenVolume,
  view: VolumeView,
  { sinceMs, nowMs }: { sinceMs: number | undefined; nowMs: number },
): VolumeDecision["run"] {
  const { migration, schedule, locations } = seen;
  const { policy } = migration.spec;
  const hasLocation = policy.locations.some((name) => locations.has(name));
  if (!policy.enabled || schedule === undefined || sinceMs === undefined || !hasLocation) return { kind: "none" };
  const parsed = parseTiming(schedule.spec);
  // Until the schedule's own reconciler has seen this timing, nobody knows since when it holds.
  const effectiveMs = parseTime(schedule.status?.effectiveTime);
  const isSeen = schedule.status?.timing === timingText(schedule.spec) && effectiveMs !== undefined;
  if (parsed.kind === "invalid" || !isSeen) return { kind: "none" };
  const { jitter, startingDeadlineSeconds, suspend } = schedule.spec;
  return decideRun(
    {
      timing: parsed.timing,
      offsetMs: offsetOf(migration.spec.volume.uid, jitter === undefined ? 0 : parseDuration(jitter)),
      sinceMs: Math.max(sinceMs, effectiveMs),
      lastRunMs: lastRunOf(seen, view),
      startingDeadlineMs: startingDeadlineSeconds === undefined ? undefined : startingDeadlineSeconds * 1_000,
      isSuspended: suspend === true,
    },
    nowMs,
  );
}

/** The due time, in milliseconds, of the last run made: as recorded, or, when that record was not written any more, as the snapshots tell. */
export function lastRunOf({ migration }: SeenVolume, view: VolumeView): number | undefined {
  const dues = view.snapshots.flatMap(({ name }) => dueOfSnapshot(name) ?? []);
  const recorded = parseTime(migration.status?.lastScheduleTime);
  const latest = Math.max(...dues, recorded ?? Number.NEGATIVE_INFINITY);
  return Number.isFinite(latest) ? latest : undefined;
}

/** The name of the snapshot to take now, if one is due. */
export function dueSnapshotOf({ run }: VolumeDecision): string | undefined {
  return run.kind === "run" ? snapshotNameAt(run.dueMs) : undefined;
}

function markOf(seen: SeenVolume, view: VolumeView): VolumeSpec | undefined {
  const { enabled } = seen.migration.spec.policy;
  const metadata = { ...view.metadata, ...volumeMetadata(seen) };
  if (view.migrationEnabled === enabled && isSame(view.metadata, metadata)) return undefined;
  return { sizeBytes: view.sizeBytes, migrationEnabled: enabled, metadata };
}

/** The agents' limit for all of a volume's metadata; labels are left out when they would not fit. */
const labelsLengthMax = 2_048;

/** What travels with the volume to the target, where it decides under which name it is published. */
function volumeMetadata({ volume, policy }: SeenVolume): Record<string, string> {
  if (volume === undefined) return {};
  const { claimRef, volumeMode = "Filesystem", csi } = volume.spec;
  const metadata: Record<string, string> = {
    [metadataKey.persistentVolume]: volume.metadata.name,
    [metadataKey.volumeMode]: volumeMode,
  };
  if (csi?.fsType !== undefined) metadata[metadataKey.fileSystem] = csi.fsType;
  if (claimRef?.namespace !== undefined && claimRef.name !== undefined) {
    metadata[metadataKey.claimNamespace] = claimRef.namespace;
    metadata[metadataKey.claimName] = claimRef.name;
  }
  const labels = JSON.stringify(policy?.claim?.metadata.labels ?? {});
  if (policy?.claim !== undefined) metadata[metadataKey.claimLabels] = labels.length > labelsLengthMax ? "{}" : labels;
  return metadata;
}

/** The MigrationJob for what is due. Its name follows from what it is for, so that asking twice makes one. */
export function jobDraft({ migration }: SeenVolume, due: DueJob): Draft<MigrationJob> {
  const volume = migration.metadata.name;
  return {
    metadata: {
      name: jobNameOf({ ...due, volume }),
      labels: {
        [label.managedBy]: managedByLongshore,
        [label.volume]: labelValueOf(volume),
        [label.location]: due.location,
      },
      ownerReferences: [controlledBy(migration)],
    },
    spec: { volumeName: volume, location: due.location, toSnapshot: due.snapshot },
  };
}
