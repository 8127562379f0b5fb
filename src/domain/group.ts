// Consistency groups: volumes that are snapshotted at the same moment and migrated as one. What its volumes have to agree on,
// and when the group's next snapshot is due.

export interface GroupMember {
  /** What people know the volume by: its claim. */
  readonly name: string;
  readonly isEnabled: boolean;
  readonly schedule?: string | undefined;
  readonly locations: readonly string[];
}

/** The agents' limit. */
export const groupVolumesMax = 256;

/**
 * Why the group cannot be handled as one: what its volumes differ in. `undefined` when they agree. `outsiders` are claims of the
 * group whose volumes are not migrated at all, each with the reason: a copy without them would be half a copy.
 */
export function groupConflict(
  members: readonly GroupMember[],
  outsiders: readonly { readonly name: string; readonly why: string }[] = [],
): string | undefined {
  const disabled = members.filter(({ isEnabled }) => !isEnabled).map(({ name }) => ({ name, why: "is not enabled" }));
  const missing = [...outsiders, ...disabled].map(({ name, why }) => `${name} ${why}`);
  const enabled = members.filter(({ isEnabled }) => isEnabled);
  // A group that nobody wants migrated is no conflict.
  if (enabled.length === 0) return undefined;
  const problems = [
    ...(missing.length === 0 ? [] : [listOf(missing)]),
    ...difference("schedule", enabled, ({ schedule }) => schedule ?? "none"),
    ...difference("locations", enabled, ({ locations }) => [...locations].sort().join(", ") || "none"),
    ...(members.length > groupVolumesMax
      ? [`it has ${members.length} volumes, and at most ${groupVolumesMax} go together`]
      : []),
  ];
  return problems.length === 0 ? undefined : problems.join("; ");
}

function difference(what: string, members: readonly GroupMember[], valueIn: (member: GroupMember) => string): string[] {
  const byValue = new Map<string, string[]>();
  for (const member of members) byValue.set(valueIn(member), [...(byValue.get(valueIn(member)) ?? []), member.name]);
  if (byValue.size < 2) return [];
  const parts = [...byValue].sort(([left], [right]) => (left < right ? -1 : 1));
  return [`${what} differ: ${listOf(parts.map(([value, names]) => `${value} for ${listOf(names)}`))}`];
}

const namesShown = 8;

function listOf(names: readonly string[]): string {
  const shown = names.slice(0, namesShown).join(", ");
  return names.length > namesShown ? `${shown} and ${names.length - namesShown} more` : shown;
}

/** How far one volume of a group has come with its runs. */
export interface MemberRun {
  readonly volume: string;
  /** Since when it is on the schedule as a part of the group. */
  readonly sinceMs: number;
  /** The due time of its last snapshot, or of the last one recorded. */
  readonly lastRunMs: number | undefined;
}

/**
 * Since when, and up to which due time, the whole group has its snapshots. A run is made when every volume that has a part in it
 * has the snapshot: one that only some were seen to get is asked for again.
 */
export function groupRuns(members: readonly MemberRun[]): { sinceMs: number; lastRunMs: number } {
  const sinceMs = Math.min(...members.map((member) => member.sinceMs));
  const doneMs = members.map((member) => Math.max(member.sinceMs, member.lastRunMs ?? Number.NEGATIVE_INFINITY));
  return { sinceMs, lastRunMs: Math.min(...doneMs) };
}

/** The volumes that have a part in the run that is due at `dueMs`, in order of name; the first of them asks for it. */
export function takersOf(members: readonly MemberRun[], dueMs: number): readonly string[] {
  const takers = members.filter(({ sinceMs }) => sinceMs < dueMs).map(({ volume }) => volume);
  return takers.sort();
}
