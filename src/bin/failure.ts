// How a command fails: one line that says what, one that says what to do, and a status that scripts can tell apart.
import { describe, errorTable, isRetryable, LongshoreError } from "../domain/errors.ts";
import type { Streams } from "./streams.ts";

export const exitCodes = {
  done: { code: 0, means: "done" },
  failed: { code: 1, means: "failed" },
  usage: { code: 2, means: "wrong usage or configuration" },
  later: { code: 3, means: "may work later" },
} as const;

/** Says it on standard error; returns the exit status. A defect is shown whole. */
export function reportFailure(error: unknown, streams: Streams): number {
  if (!(error instanceof LongshoreError)) {
    streams.err(
      `longshore: unexpected failure, please report it\n${error instanceof Error ? error.stack : String(error)}\n`,
    );
    return exitCodes.failed.code;
  }
  streams.err(`longshore: ${describe(error)}\n  next: ${errorTable[error.code].advice}\n`);
  if (error.code === "BadRequest") return exitCodes.usage.code;
  return isRetryable(error) ? exitCodes.later.code : exitCodes.failed.code;
}
