// What one attempt at a group's job does, decided from reports alone: who coordinates, and what comes next.

/** How a participant answered when it was asked for its part. */
export type Answer =
  | { readonly kind: "unreachable" }
  /** It answers, and does not know the job: it was not told, or its disk is an old one. */
  | { readonly kind: "unknown" }
  | { readonly kind: "unfinished" }
  | { readonly kind: "finished"; readonly as: EndState };

export type EndState = "Succeeded" | "Failed" | "Cancelled";

/**
 * The first in the order of agent ids among those that answer and have not finished. Whoever asks is one of them. Two
 * that cannot hear each other both find themselves first: the decider's terms tell them apart.
 */
export function coordinatorOf(self: string, answers: ReadonlyMap<string, Answer>): string {
  const candidates = [...answers].filter(([, answer]) => answer.kind === "unfinished").map(([agentId]) => agentId);
  return [self, ...candidates].sort()[0] ?? self;
}

/** What the home of a copy reported. */
export interface CopyFacts {
  readonly isReachable: boolean;
  /** The member's part of the group point is committed there, with its file present. */
  readonly hasPoint: boolean;
  /** That part was committed with this very group point, and not by a job of its own. */
  readonly isCommitted: boolean;
  /** The group point that it has voted for, if any. */
  readonly votedFor: string | null;
}

export interface AttemptFacts {
  readonly groupPoint: string;
  /** The group points that the group home has decided to commit. */
  readonly committed: readonly string[];
  readonly copies: readonly CopyFacts[];
  readonly answers: ReadonlyMap<string, Answer>;
}

export type Next =
  /** The group point is committed: finish forward. */
  | { readonly kind: "release" }
  /** Others have ended it otherwise, and nothing is committed: end the same way. */
  | { readonly kind: "end"; readonly as: EndState; readonly by: string }
  | { readonly kind: "drive" };

/**
 * What to do under a term that was just granted: nothing can be committed under an earlier one any more, so what the
 * group home reports now is final for all of them.
 */
export function decideNext({ groupPoint, committed, copies, answers }: AttemptFacts): Next {
  if (committed.includes(groupPoint) || isCommittedByCopies(groupPoint, copies)) return { kind: "release" };
  for (const [by, answer] of [...answers].sort(([a], [b]) => (a < b ? -1 : 1))) {
    if (answer.kind !== "finished") continue;
    // It finished as Succeeded because it saw the commit; the group home's record of it may be gone since.
    return answer.as === "Succeeded" ? { kind: "release" } : { kind: "end", as: answer.as, by };
  }
  return { kind: "drive" };
}

/**
 * Whether the copies themselves prove the commit, when the group home's record is gone with it: a member commits with the
 * group only by the decision, and then every other one has the point as well, or has voted for it. A single volume's own
 * job to the same snapshot gives a member the point without anybody's vote; that proves nothing.
 */
function isCommittedByCopies(groupPoint: string, copies: readonly CopyFacts[]): boolean {
  if (!copies.some((copy) => copy.isCommitted)) return false;
  return copies.every((copy) => copy.isReachable && (copy.hasPoint || copy.votedFor === groupPoint));
}

/**
 * Whether the job may have been committed without our knowing it, when the group home cannot be asked: only after this
 * agent asked it to, or once a member was asked for its vote, for another coordinator may have asked then.
 */
export function isOutcomeOpen(facts: {
  readonly isCommitAsked: boolean;
  readonly shares: readonly { readonly isPrepared: boolean }[];
}): boolean {
  return facts.isCommitAsked || facts.shares.some((share) => share.isPrepared);
}

/** What a person asks of a job under way; `steered` counts how often that was changed. */
export interface Steering {
  readonly steered: number;
  readonly suspend: boolean;
  readonly cancel: boolean;
}

/** Of two tellings the later one; of two changes made at two agents at once the one that stops more. Order does not matter. */
export function mergeSteering(left: Steering, right: Steering): Steering {
  const weight = ({ suspend, cancel }: Steering) => (cancel ? 2 : 0) + (suspend ? 1 : 0);
  const difference = left.steered - right.steered || weight(left) - weight(right);
  return difference >= 0 ? left : right;
}
