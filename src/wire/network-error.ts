// What went wrong on the way, told apart: not reachable, not trusted, torn in the middle, too slow.
import { type ErrorCode, LongshoreError } from "../domain/errors.ts";

const unreachable =
  /^(ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|EHOSTDOWN|ENETDOWN|ENOTFOUND|EAI_\w+|EADDRNOTAVAIL|ETIMEDOUT|UND_ERR_CONNECT_TIMEOUT|ERR_INVALID_URL|ERR_SOCKET_BAD_PORT|UND_ERR_INVALID_ARG)$/;
const tooSlow = /^UND_ERR_(HEADERS|BODY)_TIMEOUT$/;
const torn =
  /^(ECONNRESET|EPIPE|ECONNABORTED|UND_ERR_SOCKET|UND_ERR_RES_EXCEEDED_SIZE|UND_ERR_CLOSED|UND_ERR_DESTROYED|HPE_\w+)$/;
/** OpenSSL's names for a chain that does not verify, and what Node.js makes of a name that does not fit. */
const untrusted =
  /^(CERT_\w+|CRL_\w+|DEPTH_ZERO_SELF_SIGNED_CERT|SELF_SIGNED_CERT_IN_CHAIN|UNABLE_TO_\w+|INVALID_CA|INVALID_PURPOSE|PATH_LENGTH_EXCEEDED|HOSTNAME_MISMATCH|ERR_TLS_\w+|ERR_SSL_\w+|EPROTO)$/;

/** The error of a failed request to `where`, as one of the table; its own errors pass through. */
export function networkError(error: unknown, where: string): unknown {
  if (error instanceof LongshoreError || !isFailure(error)) return error;
  const code = codeOf(error);
  return code === undefined ? error : new LongshoreError(code, `${phrases[code]} ${where}`, { cause: error });
}

const phrases = {
  Unreachable: "cannot connect to",
  Untrusted: "will not trust",
  StreamTorn: "the connection broke to",
  Timeout: "no answer in time from",
} as const satisfies Partial<Record<ErrorCode, string>>;

function codeOf(error: Failure): keyof typeof phrases | undefined {
  // A connection broken off during the handshake was never one.
  if (/before secure TLS connection/.test(error.message ?? "")) return "Unreachable";
  for (const code of codesOf(error)) {
    if (unreachable.test(code)) return "Unreachable";
    if (untrusted.test(code)) return "Untrusted";
    if (tooSlow.test(code)) return "Timeout";
    if (torn.test(code)) return "StreamTorn";
  }
  return undefined;
}

/** The codes of an error, its causes, and of what it aggregates (one per address tried). */
function codesOf(error: Failure): string[] {
  const below = [...(error.errors ?? []), error.cause].filter(isFailure).flatMap(codesOf);
  return typeof error.code === "string" ? [error.code, ...below] : below;
}

interface Failure {
  readonly code?: unknown;
  readonly message?: string;
  readonly cause?: unknown;
  readonly errors?: readonly unknown[];
}

/** By its shape: errors of Node.js itself are of another realm where code runs in a context of its own. */
function isFailure(error: unknown): error is Failure {
  return typeof error === "object" && error !== null && ("code" in error || "cause" in error || "message" in error);
}
