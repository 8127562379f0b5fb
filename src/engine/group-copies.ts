// What the homes of a group's copies report of one group point: whether a copy has its part, by whose decision, and what its
// home has voted for. Every part is told apart by the id of its own point.
import type { CopyFacts } from "../domain/group-attempt.ts";
import type { Report } from "../wire/peer.ts";
import { committedAs, hasPoint, type MemberPart } from "./share.ts";

/** The report of a copy's home; undefined when it knows nothing of the volume. */
export type Copy = Report | undefined | Error;

export function copyFacts(copy: Copy, toId: string, groupPoint: string): CopyFacts {
  return {
    isReachable: !(copy instanceof Error),
    hasPoint: hasPart(copy, toId),
    isCommitted: isCommittedWith(copy, toId, groupPoint),
    votedFor: copy instanceof Error ? null : (copy?.prepared?.groupPoint ?? null),
  };
}

/** Whether the copy has its part, with its file present, however it came. */
export function hasPart(copy: Copy, toId: string): boolean {
  return copy !== undefined && !(copy instanceof Error) && hasPoint(copy, toId);
}

/** Whether that was committed there with this very group point, as far back as commits are told. */
function isCommittedWith(copy: Copy, toId: string, groupPoint: string): boolean {
  if (copy === undefined || copy instanceof Error) return false;
  return copy.commits.some((commit) => commit.toId === toId && commit.groupPoint === groupPoint);
}

/** What was committed there, with the group or by a job of its own, as far back as commits are told. */
export function committedAt(copy: Copy, toId: string): MemberPart | undefined {
  return copy === undefined || copy instanceof Error ? undefined : committedAs(copy, toId);
}

/** What was voted for there with this group point: the plan that is staged. */
export function votedFor(copy: Copy, groupPoint: string): MemberPart | undefined {
  if (copy === undefined || copy instanceof Error || copy.prepared?.groupPoint !== groupPoint) return undefined;
  const { staging } = copy;
  return staging === null ? undefined : { baseId: staging.baseId, toId: staging.toId, planDigest: staging.planDigest };
}
