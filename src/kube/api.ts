// Requests to the API server: JSON there and back, failures as KubeError, watches as a stream of lines. It decides nothing:
// what to ask, and what to do about a failure, is up to informers, lease and cluster.
import * as http from "node:http";
import * as https from "node:https";
import type { Metrics } from "../base/metrics.ts";
import type { Connection } from "./connection.ts";
import { KubeError, type KubeErrorCode } from "./errors.ts";
import { isRecord } from "./merge-patch.ts";

export interface ApiRequest {
  readonly method: "GET" | "POST" | "PUT" | "PATCH" | "DELETE";
  readonly path: string;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: unknown;
  /** Of the body; `application/json` unless given. */
  readonly contentType?: string;
  readonly signal?: AbortSignal | undefined;
}

/** One line of a watch. */
export interface WatchLine {
  readonly type: "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";
  readonly object: unknown;
}

export interface Api {
  /** The answer's body. Throws {@link KubeError}, or the signal's reason once it is aborted. */
  request(request: ApiRequest): Promise<unknown>;
  /** The lines of a watch as they come; ends when the server ends it, throws like {@link Api.request}. */
  watch(request: Pick<ApiRequest, "path" | "query" | "signal">): AsyncGenerator<WatchLine>;
  close(): void;
}

export interface ApiLimits {
  /** From sending to the whole answer. */
  readonly requestTimeoutMs: number;
  /** A watch that is silent for so long is taken for dead; the server sends a bookmark about every minute. */
  readonly watchSilenceMsMax: number;
  readonly bodyBytesMax: number;
}

const defaultLimits: ApiLimits = { requestTimeoutMs: 30_000, watchSilenceMsMax: 150_000, bodyBytesMax: 256 * 2 ** 20 };

export function openApi(connection: Connection, metrics: Metrics, limits: Partial<ApiLimits> = {}): Api {
  const bounds = { ...defaultLimits, ...limits };
  const requests = metrics.counter("longshore_kube_requests_total", "Requests to the Kubernetes API server", [
    "method",
    "code",
  ]);
  const counted = async <R>(method: string, send: () => Promise<R>): Promise<R> => {
    try {
      const result = await send();
      requests.add({ method, code: "ok" });
      return result;
    } catch (error) {
      requests.add({ method, code: error instanceof KubeError ? error.code : "aborted" });
      throw error;
    }
  };
  return {
    request: (request) => counted(request.method, () => answerOf(connection, request, bounds)),
    async *watch(request) {
      const response = await counted("WATCH", () => openWatch(connection, request, bounds));
      yield* linesOf(response, request, bounds);
    },
    close: () => connection.close(),
  };
}

async function answerOf(connection: Connection, request: ApiRequest, limits: ApiLimits): Promise<unknown> {
  const timeout = AbortSignal.timeout(limits.requestTimeoutMs);
  const signal = request.signal === undefined ? timeout : AbortSignal.any([request.signal, timeout]);
  return await wrapped(request, async () => {
    const response = await send(connection, request, { use: "request", signal });
    return parseAnswer(request, response, await bodyOf(response, limits.bodyBytesMax), connection);
  });
}

async function openWatch(
  connection: Connection,
  { path, query, signal }: Pick<ApiRequest, "path" | "query" | "signal">,
  limits: ApiLimits,
): Promise<http.IncomingMessage> {
  const request: ApiRequest = { method: "GET", path, query: { ...query, watch: "1" }, signal };
  return await wrapped(request, async () => {
    const response = await send(connection, request, { use: "stream", signal, silenceMsMax: limits.watchSilenceMsMax });
    if (response.statusCode === 200) return response;
    parseAnswer(request, response, await bodyOf(response, limits.bodyBytesMax), connection);
    throw new Error(`status ${response.statusCode} instead of a stream`);
  });
}

async function* linesOf(
  response: http.IncomingMessage,
  request: Pick<ApiRequest, "path" | "signal">,
  limits: ApiLimits,
): AsyncGenerator<WatchLine> {
  const source = { ...request, method: "GET" } as const;
  response.setEncoding("utf8");
  let rest = "";
  try {
    for await (const chunk of response) {
      const lines = (rest + chunk).split("\n");
      rest = lines.pop() ?? "";
      if (rest.length > limits.bodyBytesMax) throw new Error("a line of the watch is too long");
      for (const line of lines) if (line !== "") yield JSON.parse(line) as WatchLine;
    }
  } catch (error) {
    throw failure(source, error);
  } finally {
    response.destroy();
  }
}

interface Sending {
  readonly use: "request" | "stream";
  readonly signal: AbortSignal | undefined;
  readonly silenceMsMax?: number;
}

async function send(connection: Connection, request: ApiRequest, sending: Sending): Promise<http.IncomingMessage> {
  const { server, headers, agent, auth } = await connection.connect(sending.use);
  const body = request.body === undefined ? undefined : Buffer.from(JSON.stringify(request.body));
  const options: https.RequestOptions = {
    method: request.method,
    agent,
    headers: {
      ...headers,
      accept: "application/json",
      "user-agent": "longshore",
      ...(body && { "content-type": request.contentType ?? "application/json", "content-length": body.length }),
    },
    ...(auth !== undefined && { auth }),
    ...(sending.signal && { signal: sending.signal }),
  };
  const url = urlOf(server, request);
  return await new Promise((resolve, reject) => {
    const outgoing = url.protocol === "http:" ? http.request(url, options) : https.request(url, options);
    if (sending.silenceMsMax !== undefined) {
      outgoing.setTimeout(sending.silenceMsMax, () => outgoing.destroy(new Error("no sign of life for too long")));
    }
    outgoing.on("response", resolve).on("error", reject).end(body);
  });
}

function urlOf(server: URL, { path, query = {} }: Pick<ApiRequest, "path" | "query">): URL {
  const url = new URL(server.href.replace(/\/$/, "") + path);
  for (const [name, value] of Object.entries(query)) if (value !== undefined) url.searchParams.set(name, value);
  return url;
}

async function bodyOf(response: http.IncomingMessage, bodyBytesMax: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > bodyBytesMax) throw new Error(`an answer of more than ${bodyBytesMax} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString("utf8");
}

function parseAnswer(
  request: ApiRequest,
  response: http.IncomingMessage,
  body: string,
  connection: Connection,
): unknown {
  const status = response.statusCode ?? 0;
  if (status >= 200 && status < 300) return JSON.parse(body);
  if (status === 401) connection.refresh();
  const { message = body.slice(0, 200), reason } = parseStatus(body);
  throw new KubeError(codeOf(status, message), `${request.method} ${request.path}: ${status} ${message}`, {
    reason,
    retryAfterMs: retryAfterMs(response),
  });
}

/** The API server explains itself with a Status object; a proxy before it with whatever it likes. */
function parseStatus(body: string): { readonly message?: string; readonly reason?: string } {
  let parsed: unknown;
  try {
    parsed = JSON.parse(body);
  } catch {
    return {}; // Not JSON: then the raw text is all there is.
  }
  const { message, reason } = isRecord(parsed) ? parsed : {};
  return { ...(typeof message === "string" && { message }), ...(typeof reason === "string" && { reason }) };
}

const codesByStatus: Readonly<Record<number, KubeErrorCode>> = {
  400: "Invalid",
  401: "Forbidden",
  403: "Forbidden",
  404: "NotFound",
  405: "Invalid",
  409: "Conflict",
  410: "Expired",
  413: "Invalid",
  415: "Invalid",
  422: "Invalid",
  429: "Throttled",
};

function codeOf(status: number, message: string): KubeErrorCode {
  // A patch that carries the UID of a predecessor is refused as invalid, but it means: this is another object now.
  if (status === 422 && /metadata\.uid/.test(message)) return "Conflict";
  return codesByStatus[status] ?? "Unreachable";
}

function retryAfterMs(response: http.IncomingMessage): number | undefined {
  const seconds = Number(response.headers["retry-after"]);
  return Number.isFinite(seconds) ? seconds * 1000 : undefined;
}

async function wrapped<R>(request: ApiRequest, send: () => Promise<R>): Promise<R> {
  try {
    return await send();
  } catch (error) {
    throw failure(request, error);
  }
}

/** What to throw for what went wrong: the caller's own abort as it is, anything unexpected as `Unreachable`. */
function failure({ method, path, signal }: Pick<ApiRequest, "method" | "path" | "signal">, error: unknown): unknown {
  if (signal?.aborted) return signal.reason;
  if (error instanceof KubeError) return error;
  const what = error instanceof Error ? error.message : String(error);
  return new KubeError("Unreachable", `${method} ${path}: ${what}`, { cause: error });
}
