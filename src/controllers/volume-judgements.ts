// The conditions of a VolumeMigration. What keeps a volume from being ready is an ordered list of checks: the first that
// fails gives the reason. Pure.

import type { MigrationLocation } from "../api/migration-location.ts";
import { annotation, conditionType, driverName, eventReason, label, reason } from "../api/names.ts";
import type { Condition } from "../api/object.ts";
import type { VolumeMigrationStatusLocation } from "../api/volume-migration.ts";
import { renderBytes } from "../domain/quantity.ts";
import { parseTiming } from "../domain/schedule.ts";
import type { EventNote } from "../kube/cluster.ts";
import { conditionOf, type Judgement } from "../kube/conditions.ts";
import { lostAgent } from "./agents.ts";
import { judge } from "./status-parts.ts";
import { blockedBecause, newsDueMs, type SeenVolume } from "./volume-facts.ts";
import { unheldOf } from "./volume-group.ts";

/** What went wrong in carrying out a decision; each is tried again. */
export interface Troubles {
  readonly snapshot?: string;
  readonly other?: string;
}

interface Finding {
  readonly reason: string;
  readonly message: string;
  /** Told to the volume and its claim, when it is not merely a state. */
  readonly event?: string;
}

interface Judged {
  readonly seen: SeenVolume;
  readonly troubles: Troubles;
  readonly locations: readonly VolumeMigrationStatusLocation[];
  readonly nowMs: number;
}

type Check = (judged: Judged) => Finding | undefined;

const checks: readonly Check[] = [
  policyInvalid,
  unsupportedDriver,
  disabled,
  homeLost,
  volumeUnknown,
  groupConflict,
  groupIncomplete,
  scheduleMissing,
  scheduleInvalid,
  locationMissing,
  snapshotFailed,
  snapshotLost,
  agentRefused,
  locationNotReady,
  jobFailed,
  // Last: what would be in the way is what a dry run is for.
  dryRun,
];

function policyInvalid({ seen }: Judged): Finding | undefined {
  const resolved = seen.policy?.resolved;
  if (resolved?.kind !== "invalid") return undefined;
  const inForce = seen.migration.spec.policy.enabled ? "; the last policy that made sense goes on" : "";
  return { reason: reason.invalidPolicy, message: `${resolved.problems.join("; ")}${inForce}` };
}

/** Its Event is told by whoever makes the VolumeMigration. */
function unsupportedDriver({ seen }: Judged): Finding | undefined {
  const { driver } = seen.migration.spec.volume;
  if (driver === driverName) return undefined;
  const message = `The volume's driver is ${driver}; Longshore migrates volumes of ${driverName}. Take the annotations off that ask for it, or move the data to a volume of that driver.`;
  return { reason: reason.unsupportedDriver, message };
}

function dryRun({ seen }: Judged): Finding | undefined {
  const { policy } = seen.migration.spec;
  if (policy.dryRun !== true) return undefined;
  const size = seen.held === undefined ? "its content" : `at most ${renderBytes(seen.held.view.sizeBytes)}`;
  const message = `Enabling it would have it snapshotted by ${policy.schedule} and brought to ${policy.locations.join(", ")}, at first ${size} to each. Nothing of that happens before the annotation ${annotation.dryRun} is taken off.`;
  return { reason: reason.dryRun, message };
}

function disabled({ seen }: Judged): Finding | undefined {
  const { enabled, dryRun: isDryRun } = seen.migration.spec.policy;
  if (enabled || isDryRun === true) return undefined;
  const message = "Migration is not enabled (any more); what there is on the source and at the locations is kept.";
  return { reason: reason.disabled, message };
}

/** Where the volume is, or was when it was last seen. */
function homeOf({ held, migration }: SeenVolume): string | undefined {
  return held?.view.home ?? migration.status?.home;
}

function homeLost({ seen }: Judged): Finding | undefined {
  const lost = lostAgent(seen.agentMembers, homeOf(seen));
  if (lost === undefined) return undefined;
  const message = `Agent ${lost.agentId} of node ${lost.node}, which has the volume, is lost: its node came back without its data. Bring the data back; or, if it is gone for good, run \`longshore node forget ${lost.agentId}\` and restore the volume from a location.`;
  return { reason: reason.homeLost, message, event: eventReason.homeLost };
}

function groupConflict({ seen: { group } }: Judged): Finding | undefined {
  if (group?.conflict === undefined) return undefined;
  const message = `The volumes of group ${group.title} do not agree: ${group.conflict}. Nothing of the group is snapshotted or migrated until they do; take the label ${label.group} off the claims that do not belong to it.`;
  return { reason: reason.groupConflict, message, event: eventReason.groupConflict };
}

function groupIncomplete({ seen: { group, agentsProblem }, nowMs }: Judged): Finding | undefined {
  const unheld = group === undefined ? [] : unheldOf(group);
  if (group === undefined || unheld.length === 0) return undefined;
  const why = agentsProblem ?? "no agent of this cluster holds them";
  const names = unheld.map(({ migration }) => migration.spec.claim?.name ?? migration.metadata.name);
  const finding = {
    reason: reason.groupIncomplete,
    message: `Group ${group.title} waits for ${names.join(", ")}: ${why}.`,
  };
  // Of those that have just been made the news is on its way: they change, and all look again, when it does not come.
  const isMissed = unheld.some(({ migration }) => newsDueMs(migration, nowMs) === undefined);
  return isMissed ? { ...finding, event: eventReason.volumeMissing } : finding;
}

function volumeUnknown({ seen, nowMs }: Judged): Finding | undefined {
  if (seen.held !== undefined) {
    const { agent, view } = seen.held;
    const { problem } = view;
    if (problem !== null) {
      const message = `${problem.detail}. ${problem.advice}`;
      return { reason: problem.code, message, event: eventReason.volumeMissing };
    }
    if (agent.problem === undefined) return undefined;
    return { reason: reason.agentUnreachable, message: `agent ${agent.id}: ${agent.problem}` };
  }
  const { handle } = seen.migration.spec.volume;
  if (seen.agentsProblem !== undefined) return { reason: reason.agentUnreachable, message: seen.agentsProblem };
  if (newsDueMs(seen.migration, nowMs) !== undefined) {
    const message = `The news of volume ${handle}, which has just been made, is waited for.`;
    return { reason: reason.applying, message };
  }
  const message = `No agent of this cluster holds volume ${handle}; check the PersistentVolume's volumeHandle.`;
  return { reason: reason.volumeMissing, message, event: eventReason.volumeMissing };
}

function scheduleMissing({ seen }: Judged): Finding | undefined {
  if (seen.schedule !== undefined) return undefined;
  const message = `SnapshotSchedule ${seen.migration.spec.policy.schedule} does not exist: nothing is snapshotted or migrated until it is created.`;
  return { reason: reason.scheduleMissing, message, event: eventReason.scheduleMissing };
}

function scheduleInvalid({ seen }: Judged): Finding | undefined {
  const parsed = parseTiming(seen.schedule?.spec ?? {});
  if (seen.schedule === undefined || parsed.kind === "timing") return undefined;
  const message = `SnapshotSchedule ${seen.schedule.metadata.name}: ${parsed.message}`;
  return { reason: reason.scheduleInvalid, message, event: eventReason.scheduleInvalid };
}

function locationMissing({ seen }: Judged): Finding | undefined {
  const missing = seen.migration.spec.policy.locations.filter((name) => !seen.locations.has(name));
  if (missing.length === 0) return undefined;
  const message = `MigrationLocation ${missing.join(", ")} does not exist: nothing is migrated there until it is created.`;
  return { reason: reason.locationMissing, message, event: eventReason.locationMissing };
}

function snapshotFailed({ troubles }: Judged): Finding | undefined {
  if (troubles.snapshot === undefined) return undefined;
  return { reason: reason.snapshotFailed, message: troubles.snapshot, event: eventReason.snapshotFailed };
}

function snapshotLost({ seen }: Judged): Finding | undefined {
  const lost = (seen.held?.view.snapshots ?? []).filter(({ state }) => state === "lost").map(({ name }) => name);
  if (lost.length === 0) return undefined;
  const message = `The file of snapshot ${lost.join(", ")} vanished or was replaced behind our back. Look after the agent's storage; the next migration brings over everything allocated.`;
  return { reason: reason.snapshotLost, message, event: eventReason.snapshotLost };
}

function agentRefused({ troubles }: Judged): Finding | undefined {
  return troubles.other === undefined ? undefined : { reason: reason.applying, message: troubles.other };
}

function locationNotReady({ seen }: Judged): Finding | undefined {
  const blocked = seen.migration.spec.policy.locations.flatMap(
    (name) => blockedBecause(name, seen.locations.get(name)) ?? [],
  );
  if (blocked.length === 0) return undefined;
  const isFailing = seen.migration.spec.policy.locations.some((name) => isOutOfReach(seen.locations.get(name)));
  const finding = { reason: reason.locationNotReady, message: blocked.join("; ") };
  return isFailing ? { ...finding, event: eventReason.locationNotReady } : finding;
}

const outOfReach: readonly string[] = [reason.unreachable, reason.untrusted, reason.notConsented, reason.invalid];

/** Whether nothing can be brought there although its user wants it: not for one that is suspended, paused or being probed. */
function isOutOfReach(location: MigrationLocation | undefined): boolean {
  const ready = conditionOf(location?.status?.conditions, conditionType.ready);
  return ready?.status === "False" && outOfReach.includes(ready.reason);
}

function jobFailed({ locations }: Judged): Finding | undefined {
  const failed = locations.filter(({ lastJob }) => lastJob?.phase === "Failed");
  if (failed.length === 0) return undefined;
  const messages = failed.map(({ name, lastJob }) => `${name}: ${lastJob?.message ?? "the last job failed"}`);
  return { reason: reason.jobFailed, message: `${messages.join("; ")}. Its changes are part of the next job.` };
}

export interface VolumeJudgement {
  readonly judgements: readonly Judgement[];
  readonly note: EventNote | undefined;
}

export function judgeVolume(judged: Judged, before: readonly Condition[] | undefined): VolumeJudgement {
  const { seen, troubles } = judged;
  const { generation } = seen.migration.metadata;
  const finding = checks.map((check) => check(judged)).find((found) => found !== undefined);
  const ready = finding ?? { reason: reason.ok, message: "Snapshots are taken and migrated as the policy says." };
  const judgements = [
    judge(conditionType.ready, generation, { status: finding === undefined, ...ready }),
    policyJudgement(seen),
    ...(seen.policy?.isClassMissing ? [classMissing(seen)] : []),
    ...whileTrue(conditionType.groupConflict, groupConflict(judged), generation),
    ...whileTrue(conditionType.homeLost, homeLost(judged), generation),
    ...snapshotJudgement(troubles, conditionOf(before, conditionType.snapshotted), generation),
  ];
  // Nobody is missing anything of what is only looked at.
  const event = seen.migration.spec.policy.dryRun === true ? undefined : finding?.event;
  const note = event && { type: "Warning" as const, reason: event, message: finding?.message ?? "" };
  return { judgements, note: note || undefined };
}

/** A condition that is there only while it is true. */
function whileTrue(type: string, finding: Finding | undefined, generation: number | undefined): Judgement[] {
  return finding === undefined ? [] : [judge(type, generation, { ...finding, status: true })];
}

function policyJudgement({ policy, migration }: SeenVolume): Judgement {
  const { generation } = migration.metadata;
  const resolved = policy?.resolved;
  if (resolved?.kind === "invalid") {
    const message = resolved.problems.join("; ");
    return judge(conditionType.policyValid, generation, { status: false, reason: reason.invalidPolicy, message });
  }
  const refusals = resolved?.kind === "policy" ? resolved.refusals : [];
  const found =
    refusals.length > 0
      ? { reason: reason.policyRefused, message: `In force, except: ${refusals.join("; ")}` }
      : { reason: reason.ok, message: "" };
  return judge(conditionType.policyValid, generation, { status: true, ...found });
}

function classMissing({ policy, migration }: SeenVolume): Judgement {
  const message = `StorageClass ${policy?.className} does not exist; the volume goes on by what it said. One made anew is adopted.`;
  const found = { status: true, reason: reason.classMissing, message };
  return judge(conditionType.classMissing, migration.metadata.generation, found);
}

/** Absent until the first run; afterwards it tells how the last attempt went. */
function snapshotJudgement(
  { snapshot }: Troubles,
  before: Condition | undefined,
  generation: number | undefined,
): Judgement[] {
  const type = conditionType.snapshotted;
  if (snapshot !== undefined) {
    return [judge(type, generation, { status: false, reason: reason.snapshotFailed, message: snapshot })];
  }
  // A failure is over as soon as a reconcile gets by without one: what is due is tried in each.
  return before === undefined ? [] : [judge(type, generation, { status: true, reason: reason.ok, message: "" })];
}
