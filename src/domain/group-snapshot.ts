// What is left to do for a group snapshot, from what the homes of its volumes have of it. Its parts count only together, so
// whether they count is decided at one of them, the decider: it is confirmed first, and dropped first.

/** A volume of the group at its home, with the snapshot of the name in question that it has, if it was taken with a group. */
export interface GroupPart {
  readonly volume: string;
  readonly agentId: string;
  readonly snapshot: { readonly group: string; readonly groupPoint: string; readonly isConfirmed: boolean } | undefined;
}

export type GroupStep =
  | { readonly kind: "take" }
  /** What earlier tries left; at all homes, in order, for one of them may go on with such a try at this moment. */
  | { readonly kind: "discard"; readonly groupPoints: readonly string[] }
  /** It was decided that it counts; these agents have not heard of it. */
  | { readonly kind: "confirm"; readonly groupPoint: string; readonly agentIds: readonly string[] }
  | { readonly kind: "done"; readonly groupPoint: string }
  /** The name stands for something else. */
  | { readonly kind: "taken"; readonly reason: string };

export function decideGroupStep(group: string, name: string, parts: readonly GroupPart[]): GroupStep {
  const found = parts.flatMap(({ volume, agentId, snapshot }) =>
    snapshot === undefined ? [] : [{ volume, agentId, ...snapshot }],
  );
  const foreign = found.find((part) => part.group !== group);
  if (foreign !== undefined) {
    return taken(`snapshot ${name} of volume ${foreign.volume} was taken with group ${foreign.group}`);
  }
  const confirmed = found.find((part) => part.isConfirmed);
  if (confirmed === undefined) {
    const groupPoints = [...new Set(found.map((part) => part.groupPoint))];
    return groupPoints.length === 0 ? { kind: "take" } : { kind: "discard", groupPoints };
  }
  const { groupPoint } = confirmed;
  const lacking = parts.find((part) => part.snapshot?.groupPoint !== groupPoint);
  if (lacking !== undefined) return taken(`snapshot ${name} of group ${group} has no volume ${lacking.volume}`);
  const pending = found.filter((part) => !part.isConfirmed).map((part) => part.agentId);
  if (pending.length === 0) return { kind: "done", groupPoint };
  return { kind: "confirm", groupPoint, agentIds: inOrder(pending) };
}

/** The agents that hold parts, each once; the first is the decider. */
export function inOrder(agentIds: Iterable<string>): string[] {
  return [...new Set(agentIds)].sort();
}

/**
 * What an agent does with parts of its own that nobody has confirmed or dropped for long. `others`: what all other agents
 * that count have of the group point. The decider's own drop is the decision; whoever comes after it waits for that.
 */
export function decideLeftover(
  agentId: string,
  others: readonly { readonly agentId: string; readonly has: "confirmed" | "pending" | "nothing" }[],
): "confirm" | "drop" | "wait" {
  if (others.some(({ has }) => has === "confirmed")) return "confirm";
  const isDeciderLeft = others.some((other) => other.has === "pending" && other.agentId < agentId);
  return isDeciderLeft ? "wait" : "drop";
}

function taken(reason: string): GroupStep {
  return { kind: "taken", reason };
}
