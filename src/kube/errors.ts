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

export class KubeError extends Error {
  override readonly name = "KubeError";
  readonly code: KubeErrorCode;
  /** How long the API server asked to wait, where it did. */
  readonly retryAfterMs: number | undefined;
  constructor(code: KubeErrorCode, message: string, options?: { cause?: unknown; retryAfterMs?: number | undefined }) {
    super(message, options);
    this.code = code;
    this.retryAfterMs = options?.retryAfterMs;
  }
}

/** Whether `error` is a {@link KubeError} of one of the codes. */
export function isKubeError(error: unknown, ...codes: readonly KubeErrorCode[]): error is KubeError {
  return error instanceof KubeError && (codes.length === 0 || codes.includes(error.code));
}
