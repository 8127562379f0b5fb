// JSON merge patches (RFC 7386): the smallest one between two values, so that a write says only what changes.

/** Whether two JSON values say the same; a property that is undefined counts as absent, the order of properties does not count. */
export function isSameJson(left: unknown, right: unknown): boolean {
  if (left === right) return true;
  if (Array.isArray(left) || Array.isArray(right)) return isSameArray(left, right);
  if (!isRecord(left) || !isRecord(right)) return false;
  const names = new Set([...Object.keys(left), ...Object.keys(right)]);
  return [...names].every((name) => isSameJson(left[name], right[name]));
}

function isSameArray(left: unknown, right: unknown): boolean {
  if (!Array.isArray(left) || !Array.isArray(right) || left.length !== right.length) return false;
  return left.every((item, index) => isSameJson(item, right[index]));
}

/**
 * The merge patch that turns `from` into `to`, or `undefined` when they say the same. Arrays are replaced whole.
 * A `null` inside `to` cannot be told from a removal, so it counts as absent.
 */
export function mergePatch(from: unknown, to: Readonly<Record<string, unknown>>): Record<string, unknown> | undefined {
  const before = isRecord(from) ? from : {};
  const patch: Record<string, unknown> = {};
  for (const name of new Set([...Object.keys(before), ...Object.keys(to)])) {
    const change = changeOf(before[name], to[name]);
    if (change !== undefined) patch[name] = change;
  }
  return Object.keys(patch).length === 0 ? undefined : patch;
}

/** What a patch says at one property: `null` removes, `undefined` means that nothing changes. */
function changeOf(before: unknown, after: unknown): unknown {
  if (after === undefined || after === null) return before === undefined || before === null ? undefined : null;
  if (isRecord(after) && isRecord(before)) return mergePatch(before, after);
  return isSameJson(before, after) ? undefined : withoutNulls(after);
}

/** A new object inside a patch must not carry nulls or undefineds: they would say "remove" where nothing is. */
function withoutNulls(value: unknown): unknown {
  if (!isRecord(value)) return value;
  const kept = Object.entries(value).filter(([, item]) => item !== undefined && item !== null);
  return Object.fromEntries(kept.map(([name, item]) => [name, withoutNulls(item)]));
}

/** What `target` is after `patch`; neither is changed. */
export function applyMergePatch(target: unknown, patch: unknown): unknown {
  if (!isRecord(patch)) return patch;
  const result: Record<string, unknown> = isRecord(target) ? { ...target } : {};
  for (const [name, change] of Object.entries(patch)) {
    if (change === null) delete result[name];
    else if (change !== undefined) result[name] = applyMergePatch(result[name], change);
  }
  return result;
}

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
