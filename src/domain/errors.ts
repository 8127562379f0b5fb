// Every way the world can fail us, in one table: what it means to a retrier and at the HTTP edge.
// A row's key is the stable `type` of its problem document.

interface ErrorRow {
  /** `never`: the same request will fail again; `backoff`: trying later may work. */
  readonly retry: "never" | "backoff";
  readonly http: number;
  /** One line that tells a person what to do next; shown with the error. */
  readonly advice: string;
}

export const errorTable = {
  BadRequest: { retry: "never", http: 400, advice: "Correct what the message names." },
  Unauthenticated: {
    retry: "never",
    http: 401,
    advice: "Present a client certificate of a CA that this agent trusts.",
  },
  Forbidden: { retry: "never", http: 403, advice: "Use a certificate whose role may do this." },
  NotConsented: {
    retry: "backoff",
    http: 403,
    advice: "Create a MigrationSource with the source cluster's CA bundle in the target cluster.",
  },
  NotFound: { retry: "never", http: 404, advice: "Check the name; list the collection to see what exists." },
  Conflict: { retry: "backoff", http: 409, advice: "Read the object again and decide anew." },
  NameTaken: { retry: "never", http: 409, advice: "The name is in use with other parameters; choose another name." },
  InUse: { retry: "backoff", http: 409, advice: "Remove what uses it first; the message names it." },
  LeaseHeld: { retry: "backoff", http: 409, advice: "Another coordinator holds the term; wait for its lease to end." },
  TermLost: { retry: "backoff", http: 409, advice: "Another term was granted; claim a new one before going on." },
  SnapshotDeleting: { retry: "never", http: 409, advice: "The snapshot is being deleted; choose another one." },
  Undecided: {
    retry: "backoff",
    http: 409,
    advice: "Its group home decides; bring that agent back, or have it forgotten: longshore node forget.",
  },
  GroupInvalid: {
    retry: "backoff",
    http: 409,
    advice: "The volumes were not all frozen at one moment; nothing was kept, and the next try begins anew.",
  },
  PlanMismatch: { retry: "backoff", http: 409, advice: "The plan no longer fits the target; the job plans again." },
  VolumeBusy: {
    retry: "backoff",
    http: 409,
    advice: "Wait until nothing uses the volume any more, or freeze it, then try again.",
  },
  Frozen: { retry: "backoff", http: 409, advice: "A transfer is running; the request is served when it commits." },
  PreconditionFailed: { retry: "never", http: 412, advice: "The object changed since you read it; read it again." },
  ShrinkRefused: { retry: "never", http: 422, advice: "Volumes only grow; ask for at least the present size." },
  QuotaExceeded: {
    retry: "backoff",
    http: 422,
    advice: "Raise the quota of the MigrationSource, or delete migrated volumes.",
  },
  SnapshotGone: { retry: "never", http: 410, advice: "The snapshot no longer exists; take a new one." },
  PointGone: {
    retry: "backoff",
    http: 410,
    advice: "The point's file is missing or replaced; the next job makes a new one.",
  },
  PointBehind: { retry: "never", http: 409, advice: "The target has a newer point already; nothing has to be sent." },
  VolumeGone: { retry: "never", http: 410, advice: "The volume's image is missing; restore it, or delete the volume." },
  ChecksumMismatch: {
    retry: "backoff",
    http: 422,
    advice: "The data arrived or was stored damaged; it is sent again.",
  },
  TicketRefused: {
    retry: "backoff",
    http: 403,
    advice: "Lane tickets are single use; the coordinator asks for a new one.",
  },
  DiskFull: { retry: "backoff", http: 507, advice: "Free space on the node's storage, or raise its size." },
  Unreachable: { retry: "backoff", http: 503, advice: "Check that the agent runs, and the address and network to it." },
  Untrusted: {
    retry: "backoff",
    http: 502,
    advice: "Check the CA bundle, and that the address is of the cluster that is meant.",
  },
  StreamTorn: {
    retry: "backoff",
    http: 502,
    advice: "The connection broke; the job resumes at its last durable unit.",
  },
  Timeout: { retry: "backoff", http: 504, advice: "The other side was too slow; it is asked again." },
  Cancelled: { retry: "never", http: 409, advice: "It was cancelled; ask again if it is still wanted." },
  BodyTooLarge: { retry: "never", http: 413, advice: "Send less at once; the message names the limit." },
  MediaTypeUnsupported: { retry: "never", http: 415, advice: "Send JSON with content-type: application/json." },
  Internal: {
    retry: "backoff",
    http: 500,
    advice: "A defect in Longshore; its log has the details. Please report it.",
  },
  Unsupported: { retry: "never", http: 501, advice: "This agent cannot do that; see its documentation." },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof errorTable;

/** A failure of the world, with a code of {@link errorTable}. The message names the object and the step. */
export class LongshoreError extends Error {
  override readonly name = "LongshoreError";
  readonly code: ErrorCode;
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
  }
}

/** Whether trying the same again later may work. Unknown errors may: they are bounded by the attempts allowed. */
export function isRetryable(error: unknown): boolean {
  return error instanceof LongshoreError ? errorTable[error.code].retry === "backoff" : true;
}

/** The code of an error, `undefined` for one that is not ours. */
export function codeOf(error: unknown): ErrorCode | undefined {
  return error instanceof LongshoreError ? error.code : undefined;
}

/** A person's one-line description of any error, with its causes. */
export function describe(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const cause = error.cause === undefined ? "" : `: ${describe(error.cause)}`;
  return `${error.message}${cause}`;
}
