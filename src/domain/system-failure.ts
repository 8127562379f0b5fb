// Turns what the operating system says into what our callers understand, with the step that failed in the text.
import { errnoOf } from "../base/system-error.ts";
import { type ErrorCode, LongshoreError } from "./errors.ts";

const codes: Readonly<Record<string, ErrorCode>> = { ENOSPC: "DiskFull", EDQUOT: "DiskFull", EFBIG: "BadRequest" };

/**
 * What to throw when `step` failed with `error`: a full disk is `DiskFull`, a missing file `missing` (when given), a size
 * the file system cannot hold `BadRequest`; other system errors keep their text as the cause. Our own errors pass unchanged.
 */
export function systemFailure(step: string, error: unknown, missing?: ErrorCode): unknown {
  const errno = errnoOf(error);
  if (errno === undefined) return error;
  const code = isMissing(errno) ? missing : codes[errno];
  if (code !== undefined) return new LongshoreError(code, `cannot ${step}`, { cause: error });
  return new Error(`cannot ${step}`, { cause: error });
}

function isMissing(errno: string): boolean {
  // ELOOP: a symbolic link stands where our file was.
  return errno === "ENOENT" || errno === "ENOTDIR" || errno === "ELOOP";
}
