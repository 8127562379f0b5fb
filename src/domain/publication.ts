// Which migrated volumes become VolumeSnapshots, where, and under which names: the first rule of a MigrationSource that
// matches a volume counts. Its newest point has one constant name; a rule may ask for names of single points besides.

import type { PointHandle } from "./handles.ts";

export interface PublicationRule {
  readonly sourceNamespaces?: readonly string[];
  readonly claimNames?: readonly string[];
  readonly matchLabels?: Readonly<Record<string, string>>;
  readonly namespace: string;
  /** `{claim}` and `{namespace}` stand for the claim's in the source cluster. */
  readonly name?: string;
  readonly snapshotClassName?: string;
  readonly pinned?: PinnedRule;
}

/** The newest `keep` points have VolumeSnapshots of their own, which always stand for the same point. */
export interface PinnedRule {
  readonly keep: number;
  /** As that of the rule, and with `{time}` and `{point}`. */
  readonly name?: string;
}

/** The claim that the volume belonged to in the source cluster. */
export interface SourceClaim {
  readonly namespace: string;
  readonly name: string;
  readonly labels: Readonly<Record<string, string>>;
}

/** A point of a migrated volume, as far as it matters here. */
export interface CommittedPoint {
  readonly pointId: string;
  /** The id that the points of all volumes of its group share. */
  readonly groupPoint?: string | undefined;
  /** RFC 3339. */
  readonly sourceTime: string;
  /** Whether its data is there. */
  readonly isWhole: boolean;
}

/** Where one VolumeSnapshot shall be, and what it stands for. */
export interface Place {
  /** A point's id, or the id of a group point, which is one and the same for all volumes of the group. */
  readonly point: PointHandle["point"];
  readonly namespace: string;
  readonly name: string;
  readonly snapshotClassName?: string;
  /** Of a pinned point: when its snapshot was taken. */
  readonly sourceTime?: string;
}

export interface PublicationPlan {
  /** The newest point's first, then those of pinned points, the newest first. */
  readonly places: readonly Place[];
  /** Why something that a rule asks for cannot be published. */
  readonly problem?: string;
}

const nameLengthMax = 253;
const nameForm = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

/** How much of a point's id is in the name of its VolumeSnapshot: 40 bits. */
const pointLength = 10;

/**
 * Nothing is published before the first commit. `claim` is `undefined` for a volume of which the source told nothing; only rules
 * for all volumes match it, and name it. `points` are oldest first.
 */
export function decidePublication(
  rules: readonly PublicationRule[],
  claim: SourceClaim | undefined,
  points: readonly CommittedPoint[],
): PublicationPlan {
  const rule = rules.find((each) => isMatch(each, claim));
  if (rule === undefined || points.length === 0) return { places: [] };
  const { name: newest = "{claim}", pinned } = rule;
  const wishes = [{ template: newest, point: undefined }, ...pinsOf(points, { newest, pinned })];
  const named = wishes.map(({ template, point }) => ({ point, name: nameOf(template, claim, point) }));
  const places = named.flatMap(({ point, name }) => (name.kind === "name" ? [placeOf(rule, name.text, point)] : []));
  const problem = named.flatMap(({ name }) => (name.kind === "problem" ? [name.message] : []))[0];
  return { places, ...(problem !== undefined && { problem }) };
}

interface Wish {
  readonly template: string;
  readonly point: CommittedPoint | undefined;
}

function pinsOf(
  points: readonly CommittedPoint[],
  { newest, pinned }: { newest: string; pinned: PinnedRule | undefined },
): Wish[] {
  if (pinned === undefined) return [];
  const { keep, name: template = `${newest}-{point}` } = pinned;
  const kept = points.filter(({ isWhole }) => isWhole).slice(-keep);
  return kept.reverse().map((point) => ({ template, point }));
}

type Named = { readonly kind: "name"; readonly text: string } | { readonly kind: "problem"; readonly message: string };

function nameOf(template: string, claim: SourceClaim | undefined, point: CommittedPoint | undefined): Named {
  const values: Readonly<Record<string, string | undefined>> = {
    claim: claim?.name,
    namespace: claim?.namespace,
    time: point && timeText(point.sourceTime),
    point: point && idOf(point).slice(0, pointLength),
  };
  const text = template.replace(/\{(\w+)\}/g, (whole, key: string) => values[key] ?? whole);
  if (claim === undefined && /\{(?:claim|namespace)\}/.test(template)) {
    return { kind: "problem", message: `the source told no claim, which the name ${template} speaks of` };
  }
  if (text.length <= nameLengthMax && nameForm.test(text)) return { kind: "name", text };
  return { kind: "problem", message: `"${text}" (${template}) cannot be the name of a VolumeSnapshot` };
}

function placeOf(
  { namespace, snapshotClassName }: PublicationRule,
  name: string,
  point: CommittedPoint | undefined,
): Place {
  return {
    point: point === undefined ? "latest" : idOf(point),
    namespace,
    name,
    ...(snapshotClassName !== undefined && { snapshotClassName }),
    ...(point !== undefined && { sourceTime: point.sourceTime }),
  };
}

function idOf({ pointId, groupPoint }: CommittedPoint): string {
  return groupPoint ?? pointId;
}

/** `20260301t120000.000z`: sorts by time, and fits into a name. */
function timeText(time: string): string {
  return new Date(time).toISOString().replace(/[-:]/g, "").toLowerCase();
}

function isMatch({ sourceNamespaces, claimNames, matchLabels = {} }: PublicationRule, claim: SourceClaim | undefined) {
  const isAny = sourceNamespaces === undefined && claimNames === undefined && Object.keys(matchLabels).length === 0;
  if (claim === undefined) return isAny;
  return (
    (sourceNamespaces?.includes(claim.namespace) ?? true) &&
    (claimNames?.includes(claim.name) ?? true) &&
    Object.entries(matchLabels).every(([key, value]) => claim.labels[key] === value)
  );
}
