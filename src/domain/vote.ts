// What a member of a group that has voted does, given what its group home answers and, when that is lost, what the other
// members know. Until it is decided, the member does nothing: to wait is always right.
import { unreachable } from "../base/assert.ts";

/** What was voted for. */
export interface Vote {
  readonly volume: string;
  readonly toId: string;
  readonly planDigest: string;
  /** The one it was given under, granted by the group home. */
  readonly epoch: number;
}

/** What the group home says of the group point, or why it says nothing. */
export type HomeAnswer =
  | {
      readonly kind: "committed";
      readonly epoch: number;
      readonly members: readonly { readonly volume: string; readonly toId: string; readonly planDigest: string }[];
    }
  | { readonly kind: "aborted"; readonly epoch: number }
  | { readonly kind: "pending" }
  | { readonly kind: "silent" }
  /** A person said that it will not come back. */
  | { readonly kind: "forgotten" };

/** What another member says; a forgotten one is not asked, for it can never be heard. */
export type SiblingAnswer = "committed" | "prepared" | "none" | "silent";

export type Verdict =
  /** `epoch`: that of the decision. */
  | { readonly kind: "commit"; readonly epoch: number }
  | { readonly kind: "abort" }
  | { readonly kind: "wait" }
  | { readonly kind: "askSiblings" }
  /** Something else was committed under the vote's very term than what was voted for: a person has to look. */
  | { readonly kind: "mismatch" };

/** `siblings`: undefined before they were asked. */
export function decideVote(vote: Vote, home: HomeAnswer, siblings?: readonly SiblingAnswer[]): Verdict {
  switch (home.kind) {
    case "committed":
      if (isAmong(home.members, vote)) return { kind: "commit", epoch: home.epoch };
      // Decided under a later term, to which this member must have voted anew: it has come back on an old disk, and what
      // it had voted for then can never become a point.
      return home.epoch > vote.epoch ? { kind: "abort" } : { kind: "mismatch" };
    case "pending":
    case "silent":
      return { kind: "wait" };
    case "aborted":
      // It has granted the vote's epoch. A home that knows of a lower one only has lost its memory, with what it decided.
      return home.epoch >= vote.epoch ? { kind: "abort" } : bySiblings(vote, siblings);
    case "forgotten":
      return bySiblings(vote, siblings);
    default:
      return unreachable(home);
  }
}

/** Whoever has heard of the commit knows; that nobody has is known only once all have been heard. */
function bySiblings(vote: Vote, siblings: readonly SiblingAnswer[] | undefined): Verdict {
  if (siblings === undefined) return { kind: "askSiblings" };
  if (siblings.includes("committed")) return { kind: "commit", epoch: vote.epoch };
  return siblings.includes("silent") ? { kind: "wait" } : { kind: "abort" };
}

function isAmong(members: Extract<HomeAnswer, { kind: "committed" }>["members"], vote: Vote): boolean {
  return members.some(
    ({ volume, toId, planDigest }) => volume === vote.volume && toId === vote.toId && planDigest === vote.planDigest,
  );
}
