// Conditions of a status, as Kubernetes means them: one for each type, and a transition time that moves only with the status.
import type { Condition } from "../api/object.ts";

/** A condition as it is judged now; when it last changed follows from the one before. */
export type Judgement = Omit<Condition, "lastTransitionTime">;

/**
 * The conditions with `judgement` in the place of the one of its type, or at the end. The transition time is kept unless
 * the status changes, so judging the same again gives the same. Pure.
 */
export function setCondition(
  conditions: readonly Condition[] | undefined,
  judgement: Judgement,
  nowMs: number,
): readonly Condition[] {
  const before = conditionOf(conditions, judgement.type);
  const lastTransitionTime = before?.status === judgement.status ? before.lastTransitionTime : renderTime(nowMs);
  const after: Condition = { ...judgement, lastTransitionTime };
  if (before === undefined) return [...(conditions ?? []), after];
  return (conditions ?? []).map((condition) => (condition.type === judgement.type ? after : condition));
}

/** The conditions without the one of this type. Pure. */
export function dropCondition(conditions: readonly Condition[] | undefined, type: string): readonly Condition[] {
  return (conditions ?? []).filter((condition) => condition.type !== type);
}

export function conditionOf(conditions: readonly Condition[] | undefined, type: string): Condition | undefined {
  return conditions?.find((condition) => condition.type === type);
}

/** Whether the condition is there and `True`. */
export function isConditionTrue(conditions: readonly Condition[] | undefined, type: string): boolean {
  return conditionOf(conditions, type)?.status === "True";
}

/** RFC 3339 in whole seconds, as the API server keeps times. */
export function renderTime(nowMs: number): string {
  return `${new Date(nowMs).toISOString().slice(0, 19)}Z`;
}
