// Requests to agents over mutual TLS: who answers is judged by the CA bundle and by the cluster its certificate names,
// not by a host name, for agents are addressed by IP. Failures come out as rows of the error table.
import { X509Certificate } from "node:crypto";
import type { TSchema } from "typebox";
import { Compile, type Validator } from "typebox/compile";
import { Agent, buildConnector } from "undici";
import { describe, LongshoreError } from "../domain/errors.ts";
import { identityOf } from "../domain/identity.ts";
import type { Credentials } from "./credentials.ts";
import { parseEvents, type ServerSentEvent } from "./event-stream.ts";
import { networkError } from "./network-error.ts";
import { errorOfProblem } from "./problem.ts";
import { agentHeader, type BodyOf, type ParamsOf, type QueryOf, type ResponseOf, type Route } from "./routes.ts";
import { additionsIn, fitted } from "./understood.ts";

export interface HttpClientOptions {
  /** host:port of agents of one cluster; they are tried in turn, beginning with the last that answered, or behind it if it said `Unreachable`. */
  readonly addresses: readonly string[];
  /** Who has answered is asked on, whatever it said, for as long as it can be connected to. */
  readonly isOneAgent?: boolean | undefined;
  readonly credentials: Credentials;
  /** The bundle that the other side must be of, PEM, as of now. */
  readonly trustedCa: () => string;
  /** The cluster that must answer; without it, the first one that answers is held on to. */
  readonly clusterUid?: string | undefined;
  /** The one agent that is meant: another that has taken over its address answers nothing but `Unreachable`. */
  readonly agentId?: string | undefined;
  /**
   * Asked for what the agent at an address understands (`understands` of its answer) before that one is sent what agents of
   * earlier versions refuse. Without it everything is sent as it is.
   */
  readonly greeting?: Route;
  readonly timeouts?: Partial<ClientTimeouts>;
}

export interface ClientTimeouts {
  readonly connectMs: number;
  /** For an answer, where the route does not say otherwise. */
  readonly answerMs: number;
  /** A stream is torn when this long nothing came, heartbeats included. */
  readonly silenceMs: number;
}

/** What a call sends; parts a route does not have are left out. */
export type CallOf<R extends Route> = Parts<{ params: ParamsOf<R>; query: QueryOf<R>; body: BodyOf<R> }> & {
  readonly ifMatch?: number | undefined;
  readonly headers?: Readonly<Record<string, string>>;
};
type Parts<T> = { readonly [K in keyof T as T[K] extends undefined ? never : K]: T[K] };

export interface HttpClient {
  /** The UID of the cluster that answered, once one did. */
  readonly clusterUid: string | undefined;
  /** One request. A 204 gives `undefined`. Throws what the problem document says, or what the network did. */
  call<R extends Route>(route: R, call: CallOf<R>): Promise<ResponseOf<R> | undefined>;
  /** Opens an event stream; ends with the server's or the signal, throws `StreamTorn` when it breaks. */
  events<R extends Route>(route: R, call: CallOf<R>, signal: AbortSignal): AsyncIterable<ServerSentEvent>;
  close(): Promise<void>;
}

const defaults: ClientTimeouts = { connectMs: 5_000, answerMs: 30_000, silenceMs: 45_000 };
const connectionsMax = 128;
const responseBytesMax = 256 << 20;

type UndiciResponse = Awaited<ReturnType<Agent["request"]>>;
interface Limits {
  readonly headersMs: number;
  readonly bodyMs: number;
}
interface Prepared {
  readonly method: Route["method"];
  readonly path: string;
  readonly headers: Record<string, string>;
  readonly body: string | null;
}

export function openHttpClient(options: HttpClientOptions): HttpClient {
  const timeouts = { ...defaults, ...options.timeouts };
  const pool = openPool(options, timeouts);
  const meant = options.agentId === undefined ? {} : { [agentHeader]: options.agentId };
  const understanding = openUnderstanding(options, async (greeting, address) => {
    const limits = { headersMs: timeouts.answerMs, bodyMs: timeouts.answerMs };
    const response = await pool.request(address, prepare(greeting, {}, meant), limits);
    return { status: response.statusCode, body: await bodyOf(response, address) };
  });
  let preferred = 0;

  /** Tries the addresses in turn until one can be connected to; another failure than that is final. */
  async function send(preparedFor: (address: string) => Promise<Prepared>, limits: Limits, signal?: AbortSignal) {
    const failures: LongshoreError[] = [];
    for (let turn = 0; turn < options.addresses.length; turn++) {
      const index = (preferred + turn) % options.addresses.length;
      const address = String(options.addresses[index]);
      try {
        const response = await pool.request(address, await preparedFor(address), limits, signal);
        preferred = index;
        return { response, address };
      } catch (error) {
        const failure = networkError(error, address);
        if (!isOfOneAddress(failure)) throw failure;
        failures.push(failure);
      }
    }
    throw joined(failures);
  }

  /** One request and its answer, whatever it says. */
  async function exchange(route: Route, call: Loose) {
    const answerMs = route.timeoutMs ?? timeouts.answerMs;
    const preparedFor = async (address: string) =>
      prepare(route, { ...call, body: await understanding.fitted(route, call.body, address) }, meant);
    const { response, address } = await send(preparedFor, { headersMs: answerMs, bodyMs: answerMs });
    return { status: response.statusCode, address, body: await bodyOf(response, address) };
  }

  return {
    get clusterUid() {
      return pool.clusterUid();
    },
    async call(route, call) {
      let answer = await exchange(route, call as Loose);
      // Perhaps an agent of an earlier version is there by now: it is asked anew, and given what it understands.
      const isRefused = answer.status === 400 && understanding.forget(route, call as Loose, answer.address);
      if (isRefused) answer = await exchange(route, call as Loose);
      const { status, body, address } = answer;
      if (status >= 400) {
        const failure = failureOf(status, body, address);
        // Such as one that its own cluster has forgotten: the next call goes to another one first.
        if (failure.code === "Unreachable" && options.isOneAgent !== true)
          preferred = options.addresses.indexOf(address) + 1;
        throw failure;
      }
      return status === 204 ? undefined : checked(route, body, address);
    },
    async *events(route, call, signal) {
      const limits = { headersMs: timeouts.answerMs, bodyMs: timeouts.silenceMs };
      const accept = { accept: "text/event-stream" };
      const prepared = prepare(route, call as Loose, meant);
      const streamed = { ...prepared, headers: { ...prepared.headers, ...accept } };
      try {
        const sent = await send(async () => streamed, limits, signal);
        yield* eventsOf(sent.response, sent.address);
      } catch (error) {
        if (!signal.aborted) throw error;
      }
    },
    close: () => pool.close(),
  };
}

interface Greeted {
  readonly status: number;
  readonly body: unknown;
}

/** What the agents at the addresses understand, as far as something that depends on it had to be sent to them. */
function openUnderstanding({ greeting }: HttpClientOptions, greet: (by: Route, address: string) => Promise<Greeted>) {
  const known = new Map<string, ReadonlySet<string>>();
  return {
    /** The body as the agent at the address takes it. */
    async fitted(route: Route, body: unknown, address: string): Promise<unknown> {
      const additions = additionsIn(route, body);
      if (greeting === undefined || additions.length === 0) return body;
      const before = known.get(address);
      if (before !== undefined && additions.every((name) => before.has(name))) return body;
      // What it did not understand when it was asked before it may understand by now.
      const understood = understoodOf(await greet(greeting, address));
      known.set(address, understood);
      return fitted(route, body, understood);
    },
    /** Whether what is known of the address may have been why a request was refused; it is asked for again then. */
    forget(route: Route, { body }: Loose, address: string): boolean {
      return additionsIn(route, body).length > 0 && known.delete(address);
    },
  };
}

/** Who refuses to be greeted, or says nothing of it, is given what every version takes. */
function understoodOf({ status, body }: Greeted): ReadonlySet<string> {
  const told = status < 400 ? (body as { understands?: unknown } | undefined)?.understands : undefined;
  return new Set(Array.isArray(told) ? told.filter((name): name is string => typeof name === "string") : []);
}

/** One agent of undici for each set of certificates: new connections take the new ones, requests under way end on the old. */
function openPool(options: HttpClientOptions, timeouts: ClientTimeouts) {
  let clusterUid = options.clusterUid;
  /** Called by Node.js only when the chain verified. The first cluster seen is held on to. */
  function check(_host: string, shown: { raw: Buffer }): Error | undefined {
    const identity = identityOf(new X509Certificate(shown.raw));
    if (identity?.role !== "agent") return untrusted("the certificate shown is not that of an agent");
    clusterUid ??= identity.clusterUid;
    if (identity.clusterUid === clusterUid) return undefined;
    return untrusted(`an agent of cluster ${identity.clusterUid} answers, not of ${clusterUid}`);
  }
  function fresh(): Agent {
    const { cert, key } = options.credentials.current();
    const tls = { ca: options.trustedCa(), cert, key, rejectUnauthorized: true, minVersion: "TLSv1.3" } as const;
    // Without resumption, a connection is as good as the certificates shown now.
    const limits = { timeout: timeouts.connectMs, maxCachedSessions: 0, allowH2: false };
    const connect = buildConnector({ ...tls, ...limits, checkServerIdentity: check });
    return new Agent({ connect, connections: connectionsMax, pipelining: 1 });
  }

  let current = fresh();
  const retired = new Set<Agent>();
  const unsubscribe = options.credentials.onChange(() => {
    const old = current;
    current = fresh();
    retired.add(old);
    void old.close().then(() => retired.delete(old));
  });
  return {
    clusterUid: () => clusterUid,
    request: (address: string, prepared: Prepared, limits: Limits, signal?: AbortSignal) =>
      current.request({
        origin: `https://${address}`,
        ...prepared,
        headersTimeout: limits.headersMs,
        bodyTimeout: limits.bodyMs,
        ...(signal && { signal }),
      }),
    async close(): Promise<void> {
      unsubscribe();
      await Promise.all([current, ...retired].map((agent) => agent.destroy()));
    },
  };
}

function untrusted(message: string): LongshoreError {
  return new LongshoreError("Untrusted", message);
}

function prepare(route: Route, call: Loose, meant: Record<string, string>): Prepared {
  const { params, query, body, ifMatch, headers } = call;
  const path = route.path.replaceAll(/:(\w+)/g, (_, name: string) => encodeURIComponent(String(params?.[name])));
  const search = new URLSearchParams(Object.entries(query ?? {}).filter((pair): pair is [string, string] => !!pair[1]));
  const json = body === undefined ? null : JSON.stringify(body);
  return {
    method: route.method,
    path: search.size === 0 ? path : `${path}?${search}`,
    headers: {
      ...headers,
      ...meant,
      ...(json !== null && { "content-type": "application/json" }),
      ...(ifMatch !== undefined && { "if-match": `"${ifMatch}"` }),
    },
    body: json,
  };
}

interface Loose {
  readonly params?: Readonly<Record<string, string>>;
  readonly query?: Readonly<Record<string, string | undefined>>;
  readonly body?: unknown;
  readonly ifMatch?: number | undefined;
  readonly headers?: Readonly<Record<string, string>>;
}

async function bodyOf(response: UndiciResponse, address: string): Promise<unknown> {
  const parts: Buffer[] = [];
  let bytes = 0;
  try {
    for await (const part of response.body as AsyncIterable<Buffer>) {
      bytes += part.length;
      if (bytes > responseBytesMax) throw new LongshoreError("Unsupported", `the answer of ${address} is too long`);
      parts.push(part);
    }
  } catch (error) {
    throw networkError(error, address);
  }
  return parsed(Buffer.concat(parts).toString("utf8"));
}

/** What is no JSON is not ours; its sender is told by what becomes of it in {@link failureOf} and {@link checked}. */
function parsed(text: string): unknown {
  if (text === "") return undefined;
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function failureOf(status: number, body: unknown, address: string): LongshoreError {
  const context = `${address} answered with status ${status}`;
  return errorOfProblem(body, context) ?? new LongshoreError(status < 500 ? "Unsupported" : "Unreachable", context);
}

const validators = new WeakMap<TSchema, Validator>();

/** An answer is checked like a request: the other side may be of another version, or not well-meaning. */
function checked<R extends Route>(route: R, body: unknown, address: string): ResponseOf<R> | undefined {
  if (route.response === undefined) return undefined;
  const validator = validators.get(route.response) ?? Compile(route.response);
  validators.set(route.response, validator);
  if (validator.Check(body)) return body as ResponseOf<R>;
  const [first] = validator.Errors(body);
  const where = `${first?.instancePath || "the body"} ${first?.message ?? "is wrong"}`;
  throw new LongshoreError("Unsupported", `${address} answered ${route.path} with what does not fit: ${where}`);
}

async function* eventsOf(response: UndiciResponse, address: string): AsyncGenerator<ServerSentEvent> {
  if (response.statusCode >= 400) throw failureOf(response.statusCode, await bodyOf(response, address), address);
  response.body.setEncoding("utf8");
  try {
    yield* parseEvents(response.body as AsyncIterable<string>);
  } catch (error) {
    throw networkError(error, address);
  }
}

/** Another address may do better only when this one could not be connected to, or is not who it should be. */
function isOfOneAddress(failure: unknown): failure is LongshoreError {
  return failure instanceof LongshoreError && (failure.code === "Unreachable" || failure.code === "Untrusted");
}

/** One error for all addresses tried; that somebody answers who is not trusted tells more than that nobody does. */
function joined(failures: readonly LongshoreError[]): LongshoreError {
  const telling = failures.find((failure) => failure.code === "Untrusted") ?? failures[0];
  if (telling === undefined) return new LongshoreError("BadRequest", "there is no address to connect to");
  if (failures.length === 1) return telling;
  return new LongshoreError(telling.code, failures.map((failure) => describe(failure)).join("; "), { cause: telling });
}
