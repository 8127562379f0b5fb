// From which point a job starts: decided by point ids that both sides report with their file present, never by numbers.

export type BaseChoice =
  /** The target has the point already: finish forward. */
  | { readonly kind: "done"; readonly diverged: boolean }
  | { readonly kind: "base"; readonly pointId: string; readonly diverged: boolean }
  /** The point a clone was made of, which its original over there has as well: the first job back. */
  | { readonly kind: "lineage"; readonly pointId: string; readonly diverged: boolean }
  | {
      readonly kind: "none";
      readonly reason: "FirstCopy" | "NoCommonPoint" | "LineageGone";
      readonly diverged: boolean;
    }
  /** The target holds a newer point of this source than the one to be sent; points only go forward. */
  | { readonly kind: "behind"; readonly newest: string }
  /** The point to be sent is not among the source's: its file is gone. */
  | { readonly kind: "gone" };

/**
 * Both lists are oldest first, in the order in which each side made its points. `diverged`: the target's newest point is
 * unknown to the source, so one of the two was restored from an older disk.
 */
export function chooseBase(facts: {
  readonly sourcePoints: readonly string[];
  readonly targetPoints: readonly string[];
  /** The target has committed something once; its points may all be lost since. */
  readonly hasCommitted: boolean;
  readonly to: string;
  /** For a clone whose original is at the target: the point it was made of, and whether both sides still have it. */
  readonly lineage?: { readonly pointId: string; readonly isCommon: boolean };
}): BaseChoice {
  const { sourcePoints, targetPoints, hasCommitted, to, lineage } = facts;
  const newestThere = targetPoints.at(-1);
  const diverged = newestThere !== undefined && !sourcePoints.includes(newestThere);
  if (newestThere === to) return { kind: "done", diverged };
  const toPosition = sourcePoints.indexOf(to);
  if (toPosition < 0) return { kind: "gone" };
  const common = targetPoints.filter((id) => sourcePoints.includes(id)).at(-1);
  if (common === undefined) {
    if (lineage?.isCommon === true) return { kind: "lineage", pointId: lineage.pointId, diverged };
    if (lineage !== undefined && !hasCommitted) return { kind: "none", reason: "LineageGone", diverged };
    return { kind: "none", reason: hasCommitted ? "NoCommonPoint" : "FirstCopy", diverged };
  }
  // Newer points there that the source does not know do not undo that this one arrived.
  if (common === to) return { kind: "done", diverged };
  if (sourcePoints.indexOf(common) > toPosition) return { kind: "behind", newest: common };
  return { kind: "base", pointId: common, diverged };
}
