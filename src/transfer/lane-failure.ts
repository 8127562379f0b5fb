// Errors of a lane's thread, made whole again on the main thread.
import { BugError } from "../base/assert.ts";
import { type ErrorCode, errorTable, LongshoreError } from "../domain/errors.ts";
import { systemFailure } from "../domain/system-failure.ts";
import type { SentError } from "./lane-messages.ts";

export function parseError(sent: SentError): Error {
  const cause = sent.cause === undefined ? {} : { cause: parseError(sent.cause) };
  if (sent.name === "LongshoreError") return new LongshoreError(codeOf(sent), sent.message, cause);
  if (sent.name === "BugError") return new BugError(sent.message);
  const { code, errno, syscall } = sent;
  return Object.assign(new Error(sent.message, cause), { code, errno, syscall });
}

function codeOf({ code }: SentError): ErrorCode {
  return code !== undefined && code in errorTable ? (code as ErrorCode) : "Internal";
}

/** What to throw when a thread failed at `step`: an error of ours, `DiskFull` for a full disk, and the like. */
export function threadFailure(step: string, sent: SentError): Error {
  return systemFailure(step, parseError(sent)) as Error;
}
