// What a Kubernetes API call can fail with, as far as anyone decides by it.

/**
 * - `Conflict`: the object changed since it was read, or has another UID; read again and decide anew.
 * - `NotFound`: it does not exist (any more), or its kind is not installed.
 * - `Invalid`: the API server refuses the content, and will again.
 * - `Forbidden`: the operator's ServiceAccount may not, or the namespace is being deleted.
 * - `Expired`: the resourceVersion to continue from is gone; list anew.
 * - `Throttled`: the API server asks to come back later.
 * - `Unreachable`: no answer, or an answer of failure; whether the effect happened is not known.
 */
export type KubeErrorCode = "Conflict" | "NotFound" | "Invalid" | "Forbidden" | "Expired" | "Throttled" | "Unreachable";

interface KubeErrorOptions {
  readonly cause?: unknown;
  readonly retryAfterMs?: number | undefined;
  readonly reason?: string | undefined;
}

export class KubeError extends Error {
  override readonly name = "KubeError";
  readonly code: KubeErrorCode;
  /** How long the API server asked to wait, where it did. */
  readonly retryAfterMs: number | undefined;
  /** The reason that the API server gave, such as `AlreadyExists`, where it did. */
  readonly reason: string | undefined;
  constructor(code: KubeErrorCode, message: string, options: KubeErrorOptions = {}) {
    super(message, options);
    this.code = code;
    this.retryAfterMs = options.retryAfterMs;
    this.reason = options.reason;
  }
}

/** Whether `error` is a {@link KubeError} of one of the codes. */
export function isKubeError(error: unknown, ...codes: readonly KubeErrorCode[]): error is KubeError {
  return error instanceof KubeError && (codes.length === 0 || codes.includes(error.code));
}

/** Whether the API server refused to create what exists already. */
export function isAlreadyExists(error: unknown): boolean {
  return isKubeError(error, "Conflict") && error.reason === "AlreadyExists";
}
