// The agent's HTTP server: mutual TLS, who may do what, validation, problem documents, one log line a request.
// Strangers get through the handshake on purpose: only an answer can tell them what is missing.
import { constants, type X509Certificate } from "node:crypto";
import type { AddressInfo } from "node:net";
import type { TLSSocket } from "node:tls";
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { type Address, renderAddress } from "../domain/address.ts";
import { LongshoreError } from "../domain/errors.ts";
import { peerChain } from "../transfer/tls-peer.ts";
import type { AgentApi } from "../wire/agent-api.ts";
import type { Credentials } from "../wire/credentials.ts";
import type { MemberApi } from "../wire/member.ts";
import { problemMediaType, problemOf } from "../wire/problem.ts";
import { agentHeader, agentRoutes, bodyBytesMax, memberRoutes, peerRoutes, type Route } from "../wire/routes.ts";
import type { Problem } from "../wire/schemas.ts";
import { type Access, accessTo, noSuchRoute, refusal } from "./admission.ts";
import { agentHandlers } from "./agent-handlers.ts";
import { type Caller, type ConsentedSource, identifyCaller } from "./caller.ts";
import { writeEvents } from "./event-reply.ts";
import type { Answer, Handler, Handlers, Request } from "./handler.ts";
import { memberHandlers } from "./member-handlers.ts";
import { openApiDocument } from "./openapi.ts";
import { type PeerFor, peerHandlers } from "./peer-handlers.ts";
import { problemOfError } from "./problem-reply.ts";

export interface AgentServerOptions {
  /** Of this agent: requests that are meant for another one are refused. */
  readonly agentId: string;
  readonly api: AgentApi;
  readonly peerFor: PeerFor;
  /** For the other agents of the own cluster. */
  readonly member: MemberApi;
  /** The consents as of now; asked for each request of a foreign cluster. */
  readonly consents: () => readonly ConsentedSource[] | Promise<readonly ConsentedSource[]>;
  /** Why the agent cannot serve yet, `undefined` when it can. */
  readonly notReady: () => string | undefined;
  readonly credentials: Credentials;
  readonly listen: Address;
  readonly version: string;
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
  readonly metrics: Metrics;
  /** How long requests under way may still take once the server stops, in milliseconds; ten seconds unless said. */
  readonly stopMs?: number;
}

export interface AgentServer {
  /** host:port it listens at. */
  readonly address: string;
  /** Takes no new requests, ends streams, waits for requests under way, then breaks them off. */
  close(): Promise<void>;
}

const limits = {
  connectionsMax: 4096,
  handshakeMs: 10_000,
  headersMs: 10_000,
  /** For a whole request to arrive, its body included. */
  requestMs: 60_000,
  keepAliveMs: 60_000,
  parameterCharactersMax: 1024,
};

interface Context extends AgentServerOptions {
  readonly stop: AbortController;
}

declare module "fastify" {
  interface FastifyContextConfig {
    access?: Access;
  }
  interface FastifyRequest {
    caller: Caller;
    failure: unknown;
  }
}

/** Resolves when it listens; throws what the system says when it cannot. */
export async function openAgentServer(options: AgentServerOptions): Promise<AgentServer> {
  const context: Context = { ...options, stop: new AbortController() };
  const app = openApp(context);
  addHooks(app, context);
  addOpenRoutes(app, context);
  addRoutes(app, context, agentRoutes, agentHandlers(options.api));
  addRoutes(app, context, memberRoutes, memberHandlers(options.member));
  addRoutes(app, context, peerRoutes, peerHandlers(options.peerFor));
  const unsubscribe = options.credentials.onChange(() => secureServerOf(app).setSecureContext(tlsOptions(context)));
  try {
    await app.listen(options.listen);
  } catch (error) {
    unsubscribe();
    throw error;
  }
  return {
    address: addressOf(app),
    async close() {
      unsubscribe();
      await stopServing(app, context);
    },
  };
}

function tlsOptions({ credentials }: Context) {
  const { cert, key, ca } = credentials.current();
  // Without session tickets every connection shows its certificate: nothing of an earlier one is taken for granted.
  return { cert, key, ca, minVersion: "TLSv1.3", secureOptions: constants.SSL_OP_NO_TICKET } as const;
}

function openApp(context: Context): FastifyInstance {
  const tls = { ...tlsOptions(context), requestCert: true, rejectUnauthorized: false };
  const timeouts = { handshakeTimeout: limits.handshakeMs, headersTimeout: limits.headersMs };
  const app = Fastify({
    https: { ...tls, ...timeouts, maxHeaderSize: 16 << 10 },
    logger: false,
    bodyLimit: bodyBytesMax,
    requestTimeout: limits.requestMs,
    keepAliveTimeout: limits.keepAliveMs,
    return503OnClosing: false,
    // A HEAD of an event stream would never end.
    exposeHeadRoutes: false,
    forceCloseConnections: "idle",
    genReqId: () => context.dice.hex(8),
    routerOptions: { maxParamLength: limits.parameterCharactersMax },
    // Nothing is removed, converted or filled in on the quiet: a request is what its schema says, or it is refused.
    ajv: { customOptions: { removeAdditional: false, coerceTypes: false, useDefaults: false, allErrors: false } },
    frameworkErrors: (error, _request, reply) => sendProblem(reply as FastifyReply, problemOfError(error, "")),
    clientErrorHandler: refuseMalformed,
  }) as unknown as FastifyInstance;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser("application/json", { parseAs: "string" }, app.getDefaultJsonParser("error", "error"));
  app.setSerializerCompiler(() => (body) => JSON.stringify(body));
  secureServerOf(app).maxConnections = limits.connectionsMax;
  return app;
}

/** What is no HTTP at all is answered too, if it can be, and ends its connection. */
function refuseMalformed(
  error: NodeJS.ErrnoException,
  socket: { writable: boolean; end(text: string): void; destroy(): void },
) {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const problem = problemOf("BadRequest", `not a request that can be read: ${error.message}`);
  const body = JSON.stringify(problem);
  const head = ["HTTP/1.1 400 Bad Request", `content-type: ${problemMediaType}`, `content-length: ${body.length}`];
  socket.end(`${head.join("\r\n")}\r\nconnection: close\r\n\r\n${body}`);
}

function addHooks(app: FastifyInstance, context: Context): void {
  const seconds = context.metrics.histogram(
    "longshore_agent_request_seconds",
    "Time until a request was answered, streams and stored units included",
    ["route", "method", "status"],
  );
  app.decorateRequest("caller");
  app.decorateRequest("failure");
  app.addHook("onRequest", async (request, reply) => admit(request, reply, context));
  app.addHook("onResponse", async (request, reply) => {
    const route = request.routeOptions.url ?? "unknown";
    seconds.observe(reply.elapsedTime / 1000, { route, method: request.method, status: String(reply.statusCode) });
    logRequest(context.log, request, reply);
  });
  app.setErrorHandler((error, request, reply) => {
    request.failure = error;
    sendProblem(reply, problemOfError(error, request.id, request.caller));
  });
  app.setNotFoundHandler((request) => {
    throw noSuchRoute(whatOf(request));
  });
}

/** Before anything of the body is read. */
async function admit(request: FastifyRequest, reply: FastifyReply, context: Context): Promise<void> {
  request.caller = { kind: "anonymous" };
  if (context.stop.signal.aborted) {
    reply.header("connection", "close");
    throw new LongshoreError("Unreachable", "the agent is stopping");
  }
  const { access } = request.routeOptions.config;
  if (access === undefined || access === "health") return;
  request.caller = await callerOf(request.raw.socket as TLSSocket, context);
  const refused = refusal(request.caller, access, whatOf(request));
  if (refused !== undefined) throw refused;
  const meant = request.headers[agentHeader];
  if (meant !== undefined && meant !== context.agentId)
    throw new LongshoreError("Unreachable", `agent ${meant} is not here any more; this is agent ${context.agentId}`);
}

async function callerOf(socket: TLSSocket, { credentials, consents, clock }: Context): Promise<Caller> {
  const { clusterUid } = credentials.identity;
  const trust = { clusterUid, ca: credentials.current().ca, sources: await consents() };
  return identifyCaller(chainOf(socket), trust, clock.nowMs());
}

/** What a connection has shown does not change while it lasts; each look at it makes certificates anew, outside the heap. */
const chains = new WeakMap<TLSSocket, readonly X509Certificate[]>();

function chainOf(socket: TLSSocket): readonly X509Certificate[] {
  const known = chains.get(socket);
  if (known !== undefined) return known;
  const chain = peerChain(socket);
  chains.set(socket, chain);
  return chain;
}

/** Health is open to all; what else is not the API is open to the roles of our own cluster. */
function addOpenRoutes(app: FastifyInstance, context: Context): void {
  const health = { config: { access: "health" } } as const;
  const own = { config: { access: "own" } } as const;
  app.get("/healthz", health, async () => ({ status: "ok" }));
  app.get("/readyz", health, async () => {
    const reason = context.notReady();
    if (reason !== undefined) throw new LongshoreError("Unreachable", reason);
    return { status: "ready" };
  });
  app.get("/metrics", own, async (_request, reply) => {
    reply.type(context.metrics.contentType).serializer(String);
    return context.metrics.render();
  });
  const document = openApiDocument(context.version);
  app.get("/v1/openapi.json", own, async () => document);
}

function addRoutes<T extends Record<string, Route>>(
  app: FastifyInstance,
  context: Context,
  routes: T,
  handlers: Handlers<T>,
): void {
  for (const [id, route] of Object.entries(routes)) {
    // The table's types are checked where the handlers are written; here they are all alike.
    const handler = handlers[id] as unknown as Handler<Route>;
    app.route({
      method: route.method,
      url: route.path,
      config: { access: accessTo(route) },
      schema: {
        ...(route.params && { params: route.params }),
        ...(route.query && { querystring: route.query }),
        ...(route.body && { body: route.body }),
      },
      bodyLimit: route.bodyBytesMax ?? bodyBytesMax,
      handler: (request, reply) => answer(route, handler, request, reply, context),
    });
  }
}

async function answer(
  route: Route,
  handler: Handler<Route>,
  request: FastifyRequest,
  reply: FastifyReply,
  context: Context,
): Promise<unknown> {
  const closed = new AbortController();
  reply.raw.once("close", () => closed.abort());
  const signal = AbortSignal.any([closed.signal, context.stop.signal]);
  const answered = await handler(requestOf(route, request, signal));
  if (answered.kind === "events") return stream(answered, request, reply, context, signal);
  if (answered.kind === "gone") return reply.code(204).send();
  const revision = (answered.body as { revision?: number } | undefined)?.revision;
  if (revision !== undefined) reply.header("etag", `"${revision}"`);
  return reply.code(statuses[answered.kind]).send(answered.body);
}

const statuses = { found: 200, made: 201, accepted: 202 } as const;

function requestOf(route: Route, request: FastifyRequest, signal: AbortSignal): Request<Route> {
  const lastEventId = request.headers["last-event-id"];
  return {
    params: request.params as never,
    query: request.query as never,
    body: request.body as never,
    precondition: { ifMatch: revisionOf(request.headers["if-match"], route) },
    caller: request.caller,
    lastEventId: typeof lastEventId === "string" ? lastEventId : undefined,
    signal,
  };
}

function revisionOf(ifMatch: string | undefined, route: Route): number | undefined {
  if (ifMatch === undefined) return undefined;
  if (!route.conditional) throw new LongshoreError("BadRequest", `If-Match: ${route.method} ${route.path} takes none`);
  const digits = /^"(\d{1,15})"$/.exec(ifMatch)?.[1];
  if (digits === undefined) throw new LongshoreError("BadRequest", `If-Match: not an ETag of ours: ${ifMatch}`);
  return Number(digits);
}

async function stream(
  answered: Extract<Answer<Route>, { kind: "events" }>,
  request: FastifyRequest,
  reply: FastifyReply,
  { clock }: Context,
  signal: AbortSignal,
): Promise<FastifyReply> {
  reply.hijack();
  try {
    const problemOf = (error: unknown) => problemOfError(error, request.id, request.caller);
    await writeEvents(reply.raw, { ...answered, problemOf }, clock, signal);
  } catch (error) {
    request.failure = error;
  }
  return reply;
}

function sendProblem(reply: FastifyReply, problem: Problem): void {
  // A refused stranger may be trusted a moment later; a new connection is then judged afresh by everyone on the way. It may lead
  // to another agent, too, where this one cannot help.
  const isBetterAnew = problem.status === 401 || problem.code === "NotConsented" || problem.code === "Unreachable";
  if (isBetterAnew) reply.header("connection", "close");
  reply.code(problem.status).type(problemMediaType).serializer(JSON.stringify).send(problem);
}

function whatOf(request: FastifyRequest): string {
  return `${request.method} ${request.url.split("?")[0]}`;
}

function logRequest(log: Log, request: FastifyRequest, reply: FastifyReply): void {
  const { caller, failure } = request;
  const status = reply.raw.statusCode;
  const fields = {
    method: request.method,
    path: request.url.split("?")[0],
    status,
    ms: Math.round(reply.elapsedTime),
    caller: caller === undefined ? "none" : callerText(caller),
    requestId: request.id,
    reconcileId: String(request.headers["x-reconcile-id"] ?? "").slice(0, 64) || undefined,
    ...(failure !== undefined && { err: failure }),
  };
  if (status >= 500 && status !== 503) log.error(fields, "request failed");
  else if (failure !== undefined) log.info(fields, "request refused");
  else if (request.routeOptions.config?.access === "health") log.debug(fields, "request");
  else log.info(fields, "request");
}

function callerText(caller: Caller): string {
  if (caller.kind === "own") return caller.role;
  return caller.kind === "foreign" ? `${caller.role} of ${caller.source}` : caller.kind;
}

async function stopServing(app: FastifyInstance, { stop, clock, stopMs = 10_000 }: Context): Promise<void> {
  stop.abort(new LongshoreError("Unreachable", "the agent is stopping"));
  const done = new AbortController();
  const hurry = clock.sleep(stopMs, done.signal).then(
    () => secureServerOf(app).closeAllConnections(),
    () => undefined,
  );
  await app.close();
  done.abort();
  await hurry;
}

function addressOf(app: FastifyInstance): string {
  const { address, port } = app.server.address() as AddressInfo;
  return renderAddress({ host: address, port });
}

/** Fastify types its server by the options given; ours is always made with TLS. */
function secureServerOf(app: FastifyInstance): import("node:https").Server {
  return app.server as unknown as import("node:https").Server;
}
