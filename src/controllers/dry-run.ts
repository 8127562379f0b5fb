// A StorageClass whose dry run is asked for → an Event on it that tells what enabling would come to in all. The volumes' own
// VolumeMigrations tell of each, and MigrationLocations keep what would be brought to them.
import { annotation, conditionType, eventReason, reason } from "../api/names.ts";
import type { VolumeMigration } from "../api/volume-migration.ts";
import { renderBytes } from "../domain/quantity.ts";
import { again, type Controller, type Key, type Outcome, settled, watching } from "../kube/cluster.ts";
import { conditionOf } from "../kube/conditions.ts";
import { type ControllerDeps, controllerName } from "./deps.ts";
import { classOfPlan, plansByClass, StorageClasses, VolumeMigrations } from "./kinds.ts";

export function dryRunController(deps: ControllerDeps): Controller {
  const seen = new Map<string, Seen>();
  return {
    name: controllerName.dryRun,
    kind: StorageClasses,
    watches: [
      watching<VolumeMigration>(VolumeMigrations, (migration) => {
        const name = classOfPlan(migration);
        return name === undefined ? [] : [{ name }];
      }),
    ],
    reconcile: async (key) => reconcile(key, seen, deps),
  };
}

/** A total, since when it has been the same, and which one was told last. */
interface Seen {
  readonly message: string;
  readonly sinceMs: number;
  readonly told: string | undefined;
}

/** Volumes are looked at one after the other: a total that still changes is none. */
const steadyMs = 5_000;

function reconcile(key: Key, seen: Map<string, Seen>, { cluster, clock }: ControllerDeps): Outcome {
  const storageClass = cluster.get(StorageClasses, key);
  const plans = cluster.find(plansByClass, key.name);
  if (storageClass === undefined || plans.length === 0) {
    seen.delete(key.name);
    return settled;
  }
  const nowMs = clock.monotonicMs();
  const message = totalOf(plans);
  const before = seen.get(key.name);
  const sinceMs = before?.message === message ? before.sinceMs : nowMs;
  const waitMs = sinceMs + steadyMs - nowMs;
  seen.set(key.name, { message, sinceMs, told: waitMs > 0 ? before?.told : message });
  if (waitMs > 0) return again(waitMs);
  // Each is told once, in the place of the one before: one that comes back, because an agent does, say, stands again.
  if (before?.told !== message) cluster.event(storageClass, { type: "Normal", reason: eventReason.dryRun, message });
  return settled;
}

const locationsShown = 8;

function totalOf(plans: readonly VolumeMigration[]): string {
  const names = [...new Set(plans.flatMap(({ spec }) => spec.policy.locations))].sort();
  const parts = names.map((name) => {
    const those = plans.filter(({ spec }) => spec.policy.locations.includes(name));
    return `to ${name} ${amountOf(those)}`;
  });
  const more = parts.length > locationsShown ? ` and ${parts.length - locationsShown} more locations` : "";
  const troubled = plans.filter((plan) => readyReason(plan) !== reason.dryRun).length;
  const trouble = troubled === 0 ? "" : ` ${troubled} of them could not start: kubectl get volumemigrations -o wide.`;
  const shown = parts.slice(0, locationsShown).join(", ");
  return `Enabling migration would bring ${shown}${more}, at first and at most.${trouble} Nothing is moved before the annotation ${annotation.dryRun} is taken off.`;
}

function amountOf(plans: readonly VolumeMigration[]): string {
  const bytes = plans.reduce((sum, { status }) => sum + (status?.sizeBytes ?? 0), 0);
  return `${plans.length} ${plans.length === 1 ? "volume" : "volumes"} of ${renderBytes(bytes)}`;
}

function readyReason({ status }: VolumeMigration): string | undefined {
  return conditionOf(status?.conditions, conditionType.ready)?.reason;
}
