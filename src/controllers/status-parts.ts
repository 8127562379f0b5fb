// Small parts that every status is made of.
import type { Condition } from "../api/object.ts";
import { type Judgement, setCondition } from "../kube/conditions.ts";

type Kept<T> = { [K in keyof T as undefined extends T[K] ? never : K]: T[K] } & {
  [K in keyof T as undefined extends T[K] ? K : never]?: Exclude<T[K], undefined>;
};

/** The fields that have a value. What is absent from a status is written by leaving it out. */
export function present<T extends object>(fields: T): Kept<T> {
  return Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined)) as Kept<T>;
}

/** The conditions as judged now, in this order, and no others; transition times are kept where the status is. */
export function judged(
  before: readonly Condition[] | undefined,
  judgements: readonly Judgement[],
  nowMs: number,
): readonly Condition[] {
  return judgements.flatMap((judgement) =>
    setCondition(before, judgement, nowMs).filter(({ type }) => type === judgement.type),
  );
}

/** A judgement that is true, or false with a reason. */
export function judge(
  type: string,
  generation: number | undefined,
  found: { readonly status: boolean | undefined; readonly reason: string; readonly message: string },
): Judgement {
  const status = found.status === undefined ? "Unknown" : found.status ? "True" : "False";
  return {
    type,
    status,
    reason: found.reason,
    message: clipped(found.message, messageLengthMax),
    ...(generation !== undefined && { observedGeneration: generation }),
  };
}

const messageLengthMax = 4_000;

/** At most `length` characters. */
export function clipped(text: string, length: number): string {
  return text.length <= length ? text : `${text.slice(0, length - 1)}…`;
}

/** RFC 3339 with milliseconds: for times that are computed with. */
export function exactTime(timeMs: number): string {
  return new Date(timeMs).toISOString();
}

export function parseTime(text: string | undefined): number | undefined {
  return text === undefined ? undefined : Date.parse(text);
}

/** Whether two plain values are the same, whatever the order of their keys; absent and `undefined` are one. */
export function isSame(left: unknown, right: unknown): boolean {
  return sorted(left) === sorted(right);
}

function sorted(value: unknown): string | undefined {
  return JSON.stringify(value, (_, inner: unknown) =>
    typeof inner === "object" && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([left], [right]) => (left < right ? -1 : 1)))
      : inner,
  );
}
