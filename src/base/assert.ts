// Bugs, as distinct from failures of the world: an assertion that does not hold stops the operation at once.

/** A defect in Longshore itself; never retried, never shown as the user's fault. */
export class BugError extends Error {
  override readonly name = "BugError";
}

/** Throws {@link BugError} unless `condition` holds. */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new BugError(message);
}

/** For the `default` of a switch on a union: fails to compile while an alternative is unhandled. */
export function unreachable(value: never): never {
  throw new BugError(`unhandled alternative: ${JSON.stringify(value)}`);
}
