// How a call of the Container Storage Interface fails: what each of our errors means to its callers, and the failures that only
// this interface knows.
import { describe, type ErrorCode, errorTable, LongshoreError } from "../domain/errors.ts";

/** The names of gRPC's status codes; OK is none of them, for it is no failure. */
export type GrpcCode =
  | "CANCELLED"
  | "UNKNOWN"
  | "INVALID_ARGUMENT"
  | "DEADLINE_EXCEEDED"
  | "NOT_FOUND"
  | "ALREADY_EXISTS"
  | "PERMISSION_DENIED"
  | "RESOURCE_EXHAUSTED"
  | "FAILED_PRECONDITION"
  | "ABORTED"
  | "OUT_OF_RANGE"
  | "UNIMPLEMENTED"
  | "INTERNAL"
  | "UNAVAILABLE"
  | "DATA_LOSS"
  | "UNAUTHENTICATED";

/** A failure that only this interface knows, with the code that its specification asks for. The message is shown to people. */
export class CsiError extends Error {
  override readonly name = "CsiError";
  readonly code: GrpcCode;
  constructor(code: GrpcCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/**
 * What our errors mean to callers. CANCELLED, DEADLINE_EXCEEDED, UNAVAILABLE and ABORTED tell the provisioner that a volume may have been
 * made all the same, so that it asks again before it gives up; whatever may be in doubt has one of these.
 */
export const grpcCodes = {
  BadRequest: "INVALID_ARGUMENT",
  // Ours is the certificate that was refused; the caller can do nothing about it.
  Unauthenticated: "UNAVAILABLE",
  Forbidden: "PERMISSION_DENIED",
  NotConsented: "FAILED_PRECONDITION",
  NotFound: "NOT_FOUND",
  Conflict: "ABORTED",
  NameTaken: "ALREADY_EXISTS",
  InUse: "FAILED_PRECONDITION",
  LeaseHeld: "ABORTED",
  TermLost: "ABORTED",
  SnapshotDeleting: "FAILED_PRECONDITION",
  Undecided: "ABORTED",
  GroupInvalid: "ABORTED",
  PlanMismatch: "ABORTED",
  VolumeBusy: "FAILED_PRECONDITION",
  Frozen: "ABORTED",
  PreconditionFailed: "ABORTED",
  ShrinkRefused: "OUT_OF_RANGE",
  QuotaExceeded: "RESOURCE_EXHAUSTED",
  SnapshotGone: "NOT_FOUND",
  PointGone: "NOT_FOUND",
  PointBehind: "FAILED_PRECONDITION",
  VolumeGone: "FAILED_PRECONDITION",
  ChecksumMismatch: "DATA_LOSS",
  TicketRefused: "UNAVAILABLE",
  DiskFull: "RESOURCE_EXHAUSTED",
  Unreachable: "UNAVAILABLE",
  Untrusted: "UNAVAILABLE",
  StreamTorn: "UNAVAILABLE",
  Timeout: "DEADLINE_EXCEEDED",
  Cancelled: "CANCELLED",
  BodyTooLarge: "INVALID_ARGUMENT",
  MediaTypeUnsupported: "INTERNAL",
  Internal: "INTERNAL",
  Unsupported: "UNIMPLEMENTED",
} as const satisfies Record<ErrorCode, GrpcCode>;

/** How a call failed: what its caller is told. */
export interface Failure {
  readonly code: GrpcCode;
  readonly details: string;
}

/** Headers are bounded at the other side, so a message is as well. */
const detailsLengthMax = 2_000;

/** What to tell a caller of any error. The causes of our own are told along, and what to do next; of a defect only that it is one. */
export function failureOf(error: unknown): Failure {
  if (error instanceof CsiError || error instanceof LongshoreError) {
    const code = error instanceof CsiError ? error.code : grpcCodes[error.code];
    return { code, details: told(error) };
  }
  return { code: "INTERNAL", details: "a defect in Longshore; the driver's log has the details" };
}

/** However long the rest is, what to do next is told. Half a character cannot be encoded, and would fail the whole call. */
function told(error: Error): string {
  const advice = error instanceof LongshoreError ? `. ${errorTable[error.code].advice}` : "";
  return (
    describe(error)
      .slice(0, detailsLengthMax - advice.length)
      .toWellFormed() + advice
  );
}
