// Turns what the operating system says into what our callers understand, with the step that failed in the text.

import { type ErrorCode, LongshoreError } from "../domain/errors.ts";
import { errnoOf } from "./native.ts";

const codes: Readonly<Record<string, ErrorCode>> = { ENOSPC: "DiskFull", EDQUOT: "DiskFull", EFBIG: "BadRequest" };

/**
 * Runs one step on the disk. A full disk becomes `DiskFull`, a missing file `missing` (when given), a size the file
 * system cannot hold `BadRequest`; other system errors keep their text as the cause. Our own errors pass unchanged.
 */
export async function attempt<T>(step: string, work: () => T | Promise<T>, missing?: ErrorCode): Promise<T> {
  try {
    return await work();
  } catch (error) {
    throw translated(step, error, missing);
  }
}

function translated(step: string, error: unknown, missing: ErrorCode | undefined): unknown {
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

/** Runs `work`; when the system refuses it with one of `errnos`, answers `undefined`. */
export async function unlessErrno<T>(errnos: readonly string[], work: () => T | Promise<T>): Promise<T | undefined> {
  try {
    return await work();
  } catch (error) {
    if (errnos.includes(errnoOf(error) ?? "")) return undefined;
    throw error;
  }
}
