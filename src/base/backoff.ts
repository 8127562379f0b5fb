// How long to wait before a retry: exponential, with full jitter, so that many who failed together do not return together.
import { assert } from "./assert.ts";
import type { Dice } from "./dice.ts";

/**
 * The wait in milliseconds before retry number `attempt` (the first retry is 1): uniform in
 * [0, min(maxMs, baseMs × 2^(attempt−1))].
 */
export function backoffMs(
  attempt: number,
  { baseMs, maxMs }: { readonly baseMs: number; readonly maxMs: number },
  dice: Dice,
): number {
  assert(attempt >= 1 && baseMs > 0 && maxMs >= baseMs, `backoff of attempt ${attempt}, base ${baseMs}, max ${maxMs}`);
  return dice.random() * Math.min(maxMs, baseMs * 2 ** (attempt - 1));
}
