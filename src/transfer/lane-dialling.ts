// What opening a lane has in common, whatever carries it: how long it may take, and what its failures are called.
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { LaneTarget } from "./lane.ts";

export interface LaneDialerLimits {
  /** From dialling to the target's answer to the ticket. */
  readonly openingMs: number;
  /** A lane breaks when what was sent does not move for so long. */
  readonly idleMs: number;
}

export const laneDialerLimits: LaneDialerLimits = { openingMs: 10_000, idleMs: 120_000 };

/** Aborts when the time for the opening is over, unless it was opened, or failed, before. */
export function lateness(
  { clock, limits }: { readonly clock: Clock; readonly limits: LaneDialerLimits },
  opened: AbortSignal,
): AbortSignal {
  const late = new AbortController();
  const abort = () => late.abort(new LongshoreError("Unreachable", `lane: no answer within ${limits.openingMs} ms`));
  clock.sleep(limits.openingMs, opened).then(abort, () => {});
  return late.signal;
}

/** What `open` throws, with the address in it. */
export function openingError({ address }: LaneTarget, error: unknown): LongshoreError {
  if (error instanceof LongshoreError) {
    return new LongshoreError(error.code, `lane to ${address}: ${error.message}`, { cause: error.cause });
  }
  return new LongshoreError("Unreachable", `lane to ${address}`, { cause: error });
}
