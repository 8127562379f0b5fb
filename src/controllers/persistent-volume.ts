// PersistentVolume → VolumeMigration: a volume whose class, itself or claim says so gets one, under its name, owned by it, with
// the policy as resolved. One that only a dry run asks for, or that we cannot migrate, gets one that says so and does nothing.
// Nothing is ever written to the PersistentVolume, and nothing of ours keeps it from being deleted.
import type { PersistentVolume, PersistentVolumeClaim, StorageClass } from "../api/core.ts";
import type { MigrationJob } from "../api/migration-job.ts";
import { driverName, eventReason, label, managedByLongshore } from "../api/names.ts";
import type { VolumeMigration, VolumeMigrationSpecPolicy } from "../api/volume-migration.ts";
import { dueOfSnapshot, isDemandSnapshot } from "../domain/names.ts";
import type { Policy } from "../domain/policy.ts";
import {
  type Cluster,
  type Controller,
  controlledBy,
  type Draft,
  type EventNote,
  type Key,
  type Outcome,
  settled,
  watching,
} from "../kube/cluster.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import {
  groupsOfClaim,
  jobsByVolume,
  MigrationJobs,
  PersistentVolumeClaims,
  PersistentVolumes,
  StorageClasses,
  VolumeMigrations,
  volumesByClass,
} from "./kinds.ts";
import { observePolicy, type PolicyView } from "./policy-view.ts";
import { isSame, present } from "./status-parts.ts";
import { hasEnded, isLeaving } from "./volume-facts.ts";

export function persistentVolumeController(deps: ControllerDeps): Controller {
  const { cluster } = deps;
  return {
    name: controllerName.persistentVolume,
    kind: PersistentVolumes,
    watches: [
      watching<StorageClass>(StorageClasses, ({ metadata }) =>
        cluster.find(volumesByClass, metadata.name).map((volume) => ({ name: volume.metadata.name })),
      ),
      watching<PersistentVolumeClaim>(PersistentVolumeClaims, ({ spec }) =>
        spec?.volumeName === undefined ? [] : [{ name: spec.volumeName }],
      ),
      // One that was asked for just before its volume was let go of. Of no other volume are the jobs looked at, and they change often.
      watching<MigrationJob>(MigrationJobs, ({ spec }) =>
        spec.volumeName !== undefined && isLeaving(cluster.get(PersistentVolumes, { name: spec.volumeName }))
          ? [{ name: spec.volumeName }]
          : [],
      ),
      // By name: one that lost its owner is a volume's all the same.
      watching<VolumeMigration>(VolumeMigrations, ({ metadata }) => [{ name: metadata.name }]),
    ],
    reconcile: (key, { signal }) => reconcile(key, deps, signal),
  };
}

interface Facts {
  readonly volume: PersistentVolume;
  readonly existing: VolumeMigration | undefined;
  readonly policy: PolicyView;
}

type Action =
  | { readonly kind: "nothing" }
  | { readonly kind: "apply"; readonly draft: Draft<VolumeMigration> }
  /** Applies it, and has the volume's jobs cancelled. */
  | { readonly kind: "letGo"; readonly draft: Draft<VolumeMigration> }
  /** What there is belongs to an earlier volume of the same name, or is not asked for any more and never did anything. */
  | { readonly kind: "removeStale"; readonly stale: VolumeMigration };

interface Decision {
  readonly action: Action;
  /** Told to the volume and its claim. */
  readonly notes: readonly EventNote[];
}

async function reconcile(key: Key, deps: ControllerDeps, signal: AbortSignal): Promise<Outcome> {
  const facts = observe(key, deps);
  if (facts === undefined) return settled;
  const decision = decide(facts);
  for (const note of decision.notes) {
    deps.cluster.event(facts.volume, note);
    if (facts.policy.claim) deps.cluster.event(facts.policy.claim, note);
  }
  return apply(decision.action, deps, signal);
}

function observe(key: Key, { cluster }: ControllerDeps): Facts | undefined {
  const volume = cluster.get(PersistentVolumes, key);
  if (volume === undefined) return undefined;
  // While its claim is used it keeps what it has.
  if (volume.metadata.deletionTimestamp !== undefined && !isLeaving(volume)) return undefined;
  const existing = cluster.get(VolumeMigrations, key);
  return { volume, existing, policy: observePolicy(cluster, volume, existing) };
}

const nothing: Action = { kind: "nothing" };

function decide({ volume, existing, policy }: Facts): Decision {
  const { resolved } = policy;
  const notes = notesOf(policy);
  if (existing !== undefined && existing.spec.volume.uid !== volume.metadata.uid) {
    return { action: { kind: "removeStale", stale: existing }, notes: [] };
  }
  if (isLeaving(volume)) {
    // What it has goes on expiring: a snapshot that a user keeps can put its deletion off for long.
    const draft = existing && draftOf(volume, policy, disabled(existing));
    return { action: draft ? { kind: "letGo", draft } : nothing, notes: [] };
  }
  if (volume.spec.csi?.driver !== driverName) {
    if (resolved.kind !== "policy" || !resolved.policy.isEnabled) {
      return { action: existing ? { kind: "removeStale", stale: existing } : nothing, notes: [] };
    }
    const action = applying(volume, policy, { ...policySpec(resolved.policy, policy, existing), enabled: false });
    return { action, notes: [unsupported(volume)] };
  }
  switch (resolved.kind) {
    case "unmentioned":
      return { action: leaving(volume, policy, existing), notes };
    case "invalid":
      // What runs goes on by the last policy that made sense; a new volume shows what is wrong with its policy.
      return { action: existing ? nothing : applying(volume, policy, disabled(existing)), notes };
    case "policy": {
      const { isEnabled, isDryRun } = resolved.policy;
      if (!isEnabled) return { action: leaving(volume, policy, existing, resolved.policy), notes };
      const spec = policySpec(resolved.policy, policy, existing);
      // A dry run never stops what runs.
      const isLookedAt = isDryRun && existing?.spec.policy.enabled !== true;
      return { action: applying(volume, policy, isLookedAt ? { ...spec, enabled: false, dryRun: true } : spec), notes };
    }
  }
}

/** For a volume that is not to be migrated (any more): by what `policy` says, where it says anything. */
function leaving(
  volume: PersistentVolume,
  view: PolicyView,
  existing: VolumeMigration | undefined,
  policy?: Policy,
): Action {
  if (existing === undefined) return nothing;
  if (isPlanOnly(existing)) return { kind: "removeStale", stale: existing };
  return applying(volume, view, policy === undefined ? disabled(existing) : policySpec(policy, view, existing));
}

/** Made for a dry run, of a volume that is seen to have no snapshots of ours and no base from a time when it was enabled. */
function isPlanOnly({ spec, status }: VolumeMigration): boolean {
  const { locations = [], snapshots, snapshotCount } = status ?? {};
  if (spec.policy.dryRun !== true || snapshots === undefined || snapshotCount !== snapshots.length) return false;
  const isOurs = (name: string) => dueOfSnapshot(name) !== undefined || isDemandSnapshot(name);
  return locations.every(({ base }) => base === undefined) && !snapshots.some(({ name }) => isOurs(name));
}

function notesOf({ resolved, isClassMissing, className }: PolicyView): EventNote[] {
  const notes: EventNote[] = [];
  if (resolved.kind === "invalid") {
    const message = `The migration policy is not in force: ${resolved.problems.join("; ")}`;
    notes.push({ type: "Warning", reason: eventReason.policyInvalid, message });
  }
  if (resolved.kind === "policy") {
    for (const refusal of resolved.refusals) {
      notes.push({ type: "Warning", reason: eventReason.policyRefused, message: `Not followed: ${refusal}` });
    }
    if (isClassMissing && resolved.policy.isEnabled) {
      const message = `StorageClass ${className} does not exist any more; its volumes go on as they were`;
      notes.push({ type: "Warning", reason: eventReason.classMissing, message });
    }
  }
  return notes;
}

function unsupported({ spec }: PersistentVolume): EventNote {
  const driver = spec.csi?.driver ?? "without CSI";
  return {
    type: "Warning",
    reason: eventReason.unsupportedDriver,
    message: `Migration is asked for, but the volume's driver is ${driver}; take the annotations off that ask for it, or move the data to a volume of ${driverName}`,
  };
}

/** What was wanted before is kept, but for the enabling: what there is on the source still has to expire. */
function disabled(existing: VolumeMigration | undefined): VolumeMigrationSpecPolicy {
  const { locations = [], schedule } = existing?.spec.policy ?? {};
  return { enabled: false, locations, ...present({ schedule }) };
}

function policySpec(
  policy: Policy,
  view: PolicyView,
  existing: VolumeMigration | undefined,
): VolumeMigrationSpecPolicy {
  const { isEnabled, locations, origins } = policy;
  const schedule = policy.schedule ?? existing?.spec.policy.schedule;
  return { enabled: isEnabled, locations, origins, ...present({ schedule, storageClass: view.className }) };
}

function applying(volume: PersistentVolume, view: PolicyView, policy: VolumeMigrationSpecPolicy): Action {
  return { kind: "apply", draft: draftOf(volume, view, policy) };
}

function draftOf(
  volume: PersistentVolume,
  view: PolicyView,
  policy: VolumeMigrationSpecPolicy,
): Draft<VolumeMigration> {
  const { metadata, spec } = volume;
  const { namespace, name, uid } = spec.claimRef ?? {};
  const isOurs = spec.csi?.driver === driverName;
  // What is not ours is no part of a group, and no agent may be asked for it by a name that one of ours may have.
  const [group] = view.claim === undefined || !isOurs ? [] : groupsOfClaim(view.claim);
  return {
    metadata: {
      name: metadata.name,
      labels: { [label.managedBy]: managedByLongshore },
      ownerReferences: [controlledBy(volume)],
    },
    spec: {
      volume: {
        name: metadata.name,
        uid: metadata.uid,
        handle: isOurs ? (spec.csi?.volumeHandle ?? "") : "",
        driver: spec.csi?.driver.toLowerCase() ?? "none",
      },
      ...(namespace !== undefined && name !== undefined && { claim: { namespace, name, ...present({ uid }) } }),
      ...(group && { group }),
      policy: view.className === undefined ? policy : { ...policy, storageClass: view.className },
    },
  };
}

async function bring(draft: Draft<VolumeMigration>, cluster: Cluster, signal: AbortSignal): Promise<void> {
  const existing = cluster.get(VolumeMigrations, { name: draft.metadata.name });
  if (!isSame(existing?.spec, draft.spec)) await cluster.apply(VolumeMigrations, draft, signal);
}

/**
 * Made by a schedule, for this volume alone, and not over: that of a group is the others' as well, and a user's is the user's. Those
 * are waited for, but for suspended ones, which migration-job.ts ends.
 */
function isOurJobOfOne(job: MigrationJob): boolean {
  const { labels, deletionTimestamp } = job.metadata;
  const isOurs = labels?.[label.managedBy] === managedByLongshore && job.spec.group === undefined;
  return isOurs && deletionTimestamp === undefined && !hasEnded(job);
}

async function apply(action: Action, { cluster }: ControllerDeps, signal: AbortSignal): Promise<Outcome> {
  switch (action.kind) {
    case "nothing":
      return settled;
    case "removeStale": {
      // As it was seen: what only a dry run had made may be more than that by now.
      const { name, uid, resourceVersion } = action.stale.metadata;
      await cluster.remove(VolumeMigrations, { name, uid, resourceVersion }, signal);
      return settled; // Its disappearance brings the volume back here.
    }
    case "letGo": {
      await bring(action.draft, cluster, signal);
      for (const { metadata } of cluster.find(jobsByVolume, action.draft.metadata.name).filter(isOurJobOfOne)) {
        await cluster.remove(MigrationJobs, { name: metadata.name, uid: metadata.uid }, signal);
      }
      return settled;
    }
    case "apply":
      await bring(action.draft, cluster, signal);
      return settled;
  }
}
