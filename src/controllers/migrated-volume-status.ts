// The status of a MigratedVolume, from what its agent tells of it and what became of its publication. Pure.
import type { MigratedVolume, MigratedVolumeStatus } from "../api/migrated-volume.ts";
import { conditionType, metadataKey, reason } from "../api/names.ts";
import type { SourceClaim } from "../domain/publication.ts";
import type { Judgement } from "../kube/conditions.ts";
import type { Member, MigratedPoint, MigratedVolumeView } from "../wire/schemas.ts";
import { awayBecause, type Held } from "./agents.ts";
import { judge, judged, parseTime, present } from "./status-parts.ts";

/** What became of the publication that a MigrationSource asks for. */
export interface Publishing {
  /** `undefined`: none is asked for, or it is not due yet. */
  readonly isPublished: boolean | undefined;
  readonly reason: string;
  readonly message: string;
  /** What is published, whatever is still missing; the newest point's first. */
  readonly at: readonly PublishedAt[];
}

export interface PublishedAt {
  readonly namespace: string;
  readonly name: string;
  readonly contentName: string;
  /** Of a pinned point. */
  readonly pointId?: string;
  readonly time?: string;
}

/** Progress is not written more often than this; state changes are written at once. */
const progressEveryMs = 30_000;

const pointsShown = 200;

/** The claim in the source cluster, as far as the source told. What no claim can be called counts as nothing told. */
export function sourceClaimOf({ metadata }: MigratedVolumeView): SourceClaim | undefined {
  const namespace = metadata[metadataKey.claimNamespace] ?? "";
  const name = metadata[metadataKey.claimName] ?? "";
  if (!claimNameForm.test(namespace) || !claimNameForm.test(name)) return undefined;
  return { namespace, name, labels: labelsOf(metadata[metadataKey.claimLabels]) };
}

const claimNameForm = /^[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?$/;

/** Filesystem or Block, as in the source cluster; `undefined` when the source did not tell, or told something else. */
export function volumeModeOf({ metadata }: MigratedVolumeView): "Filesystem" | "Block" | undefined {
  const mode = metadata[metadataKey.volumeMode];
  return mode === "Filesystem" || mode === "Block" ? mode : undefined;
}

/** The source wrote this: what is not an object of texts counts as nothing. */
function labelsOf(text: string | undefined): Record<string, string> {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text ?? "{}");
  } catch {
    return {};
  }
  if (typeof parsed !== "object" || parsed === null) return {};
  return Object.fromEntries(
    Object.entries(parsed).filter((entry): entry is [string, string] => typeof entry[1] === "string"),
  );
}

export interface MigratedStatus {
  readonly status: MigratedVolumeStatus;
  /** When progress that was held back may be written; `undefined` when none was. */
  readonly progressMs: number | undefined;
}

export function migratedStatus(
  object: MigratedVolume,
  { agent, view }: Held<MigratedVolumeView>,
  publishing: Publishing,
  nowMs: number,
): MigratedStatus {
  const before = object.status;
  const { progress, progressMs } = progressOf(before, view, nowMs);
  const claim = sourceClaimOf(view);
  const newest = view.points.at(-1);
  const status: MigratedVolumeStatus = {
    ...present({ observedGeneration: object.metadata.generation }),
    conditions: judged(before?.conditions, judgementsOf(object, { agent, view }, publishing), nowMs),
    state: view.state,
    home: view.home,
    sizeBytes: view.sizeBytes,
    pointCount: view.points.length,
    points: view.points.slice(-pointsShown).map(pointOf),
    waitingClones: view.waitingClones,
    published: publishing.at,
    ...present({
      volumeMode: volumeModeOf(view),
      claim: claim && { namespace: claim.namespace, name: claim.name },
      newestPoint: newest && pointOf(newest),
      group: view.group && { name: view.group.name, home: view.group.home },
      progress,
    }),
  };
  return { status, progressMs };
}

function pointOf({ pointId, generation, sourceTime, committedAt, groupPoint }: MigratedPoint) {
  return { pointId, generation, time: sourceTime, committedTime: committedAt, ...present({ groupPoint }) };
}

type Progress = NonNullable<MigratedVolumeStatus["progress"]>;

function progressOf(
  before: MigratedVolumeStatus | undefined,
  { transfer }: MigratedVolumeView,
  nowMs: number,
): { progress: Progress | undefined; progressMs: number | undefined } {
  if (transfer === null) return { progress: undefined, progressMs: undefined };
  const { job, bytesTotal, bytesStored, since } = transfer;
  const last = before?.progress;
  const lastMs = parseTime(last?.lastProgressTime);
  const isSame = last?.job === job && last.startTime === since && last.bytesTotal === bytesTotal;
  // One in the future was written by a clock that was ahead.
  const isRecent = lastMs !== undefined && lastMs <= nowMs && nowMs < lastMs + progressEveryMs;
  if (last !== undefined && isSame && isRecent) {
    return { progress: last, progressMs: last.bytesStored === bytesStored ? undefined : lastMs + progressEveryMs };
  }
  const lastProgressTime = new Date(nowMs).toISOString();
  return { progress: { job, bytesTotal, bytesStored, startTime: since, lastProgressTime }, progressMs: undefined };
}

const states = {
  Empty: { status: false, reason: reason.empty, message: "No point in time has been committed yet." },
  Available: { status: true, reason: reason.ok, message: "The newest point in time may be cloned." },
  Frozen: { status: false, reason: reason.frozen, message: "A transfer runs; clones wait for its commit." },
  Undecided: {
    status: false,
    reason: reason.undecided,
    message: "It is not known whether the group's newest point is committed; clones of it wait until it is.",
  },
} as const;

function judgementsOf(
  object: MigratedVolume,
  { agent, view }: Held<MigratedVolumeView>,
  publishing: Publishing,
): Judgement[] {
  const { generation } = object.metadata;
  const away = awayBecause(agent);
  const available = away === undefined ? states[view.state] : missing(away, undefined);
  const judgements = [judge(conditionType.available, generation, available)];
  if (view.state === "Undecided") judgements.push(judge(conditionType.undecided, generation, undecided(view)));
  if (view.diverged) {
    const message = "The source did not know the newest point here; the last transfer brought everything allocated.";
    judgements.push(judge(conditionType.diverged, generation, { status: true, reason: reason.unknownPoint, message }));
  }
  const { isPublished, reason: because, message } = publishing;
  judgements.push(judge(conditionType.published, generation, { status: isPublished, reason: because, message }));
  return judgements;
}

/** Since when is the condition's transition time. */
function undecided({ group }: MigratedVolumeView) {
  const home = group === undefined ? "Its group's home" : `Agent ${group.home}, the home of group ${group.name},`;
  const message = `${home} decides whether its newest point counts, and does not answer, or has not decided in time. Bring that agent back; or, if it is gone for good, run \`longshore node forget\` for it. Clones of earlier points go on.`;
  return { status: true, reason: reason.unreachable, message };
}

/**
 * What is left to say of a volume that no agent holds any more. `problem`: why that is not known for sure; `lost`: the agent that had
 * it and came back without its data.
 */
export function missingStatus(
  object: MigratedVolume,
  { problem, lost }: { readonly problem: string | undefined; readonly lost: Member | undefined },
  nowMs: number,
): MigratedVolumeStatus {
  const judgement = judge(conditionType.available, object.metadata.generation, missing(problem, lost));
  const others = (object.status?.conditions ?? []).filter(({ type }) => type !== conditionType.available);
  return {
    ...object.status,
    conditions: [...judged(object.status?.conditions, [judgement], nowMs), ...others],
  };
}

function missing(problem: string | undefined, lost: Member | undefined) {
  if (lost !== undefined) {
    const message = `Agent ${lost.agentId} of node ${lost.node}, which has it, is lost: its node came back without its data. Bring the data back; or, if it is gone for good, run \`longshore node forget ${lost.agentId}\`, and the next migration makes a new copy.`;
    return { status: false, reason: reason.homeLost, message };
  }
  if (problem !== undefined) return { status: undefined, reason: reason.agentUnreachable, message: problem };
  const message = "No agent of this cluster holds it (any more). Delete this object if the data is given up.";
  return { status: false, reason: reason.missing, message };
}
