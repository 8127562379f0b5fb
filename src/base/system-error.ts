// What a failed system call looks like, whoever made it: Node.js, or a native call of ours.
import { getSystemErrorMap } from "node:util";

/** What Node.js throws for a failed system call; `code` is the errno's name. */
export interface SystemError extends Error {
  readonly code: string;
  readonly errno: number;
  readonly syscall: string;
}

/** Errno numbers that libuv has no name for, or another one than Linux. */
const errnoNames: Readonly<Record<number, string>> = { 37: "ENOLCK", 95: "EOPNOTSUPP", 122: "EDQUOT" };

/** The errno's name of a failed system call, ours or Node's; `undefined` for any other error. */
export function errnoOf(error: unknown): string | undefined {
  // Not instanceof: an error may come from another realm (a worker, a test environment).
  if (!Error.isError(error)) return undefined;
  const { code, errno } = error as Partial<SystemError>;
  const name = errnoNames[-(errno ?? 0)] ?? code;
  return typeof name === "string" && /^E[A-Z0-9]+$/.test(name) ? name : undefined;
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

/** The error of a system call that failed with this (positive) errno, in the form Node.js gives its own. */
export function systemError(syscall: string, errno: number): SystemError {
  const [name, text] = getSystemErrorMap().get(-errno) ?? [`E${errno}`, "see errno(3)"];
  const code = errnoNames[errno] ?? name;
  return Object.assign(new Error(`${code}: ${text}, ${syscall}`), { code, errno: -errno, syscall });
}
