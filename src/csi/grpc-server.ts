// A gRPC server on a Unix socket: services as plain functions from requests to answers, errors as the codes of status.ts, and one
// line in the log for each call.
import { join } from "node:path";
import {
  type handleServerStreamingCall,
  type handleUnaryCall,
  Server,
  ServerCredentials,
  type ServerWritableStream,
  type ServiceDefinition,
  status,
  type UntypedServiceImplementation,
} from "@grpc/grpc-js";
import { loadSync } from "@grpc/proto-loader";
import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { LongshoreError } from "../domain/errors.ts";
import { CsiError, type Failure, failureOf } from "./status.ts";
import { clearStaleSocket, socketPathOf } from "./unix-socket.ts";

/** The signal is aborted when the caller's deadline has passed or it has gone: whoever works stops at the next step. */
export type UnaryCall = (request: never, signal: AbortSignal) => Promise<object>;
export type StreamCall = (request: never, signal: AbortSignal) => AsyncIterable<object>;

export interface GrpcService {
  /** In proto/. */
  readonly protoFile: "csi.proto" | "snapshot-metadata.proto" | "registration.proto";
  /** With its package, as in `csi.v1.Node`. */
  readonly service: string;
  /** By the names of the .proto file. What is not here is answered with UNIMPLEMENTED. */
  readonly calls: Readonly<Record<string, UnaryCall | StreamCall>>;
}

export interface GrpcServerOptions {
  /** As in `unix:///csi/csi.sock`. */
  readonly endpoint: string;
  readonly services: readonly GrpcService[];
  readonly log: Log;
  readonly clock: Clock;
  readonly metrics?: Metrics;
}

export interface GrpcServer {
  /** Takes no more calls, lets those under way end for a while, and removes the socket. A repeat changes nothing. */
  close(): Promise<void>;
}

const protoFolder = join(import.meta.dirname, "proto");
const protoOptions = { keepCase: false, longs: Number, enums: String, defaults: true, oneofs: true } as const;

/** How long calls under way may take to end when the server closes. */
const stopMs = 10_000;

/** Throws `InUse` when another process serves the socket, and `BadRequest` for an endpoint that cannot be served. */
export async function openGrpcServer(options: GrpcServerOptions): Promise<GrpcServer> {
  const path = socketPathOf(options.endpoint);
  await clearStaleSocket(path);
  const server = new Server();
  const calls = observer(options);
  for (const service of options.services) addService(server, service, calls);
  await bind(server, path);
  let closing: Promise<void> | undefined;
  return {
    close() {
      closing ??= stop(server, options.clock);
      return closing;
    },
  };
}

function addService(server: Server, { protoFile, service, calls }: GrpcService, observe: Observe): void {
  const definitions = loadSync(join(protoFolder, protoFile), protoOptions);
  const definition = definitions[service] as unknown as ServiceDefinition | undefined;
  assert(definition !== undefined, `${protoFile} has no service ${service}`);
  const handlers: UntypedServiceImplementation = {};
  for (const [method, call] of Object.entries(calls)) {
    const found = definition[method];
    assert(found !== undefined, `${service} has no call ${method}`);
    handlers[method] = found.responseStream
      ? streamHandler(method, call as StreamCall, observe)
      : unaryHandler(method, call as UnaryCall, observe);
  }
  server.addService(definition, handlers);
}

function bind(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.bindAsync(`unix:${path}`, ServerCredentials.createInsecure(), (cause) => {
      if (cause === null) resolve();
      else reject(new LongshoreError("BadRequest", `cannot serve ${path}: does its folder exist?`, { cause }));
    });
  });
}

async function stop(server: Server, clock: Clock): Promise<void> {
  const stopped = new AbortController();
  const ended = new Promise<void>((resolve) => server.tryShutdown(() => resolve()));
  const patience = clock.sleep(stopMs, stopped.signal).catch(() => undefined);
  await Promise.race([ended, patience]);
  stopped.abort();
  server.forceShutdown();
}

// ---- calls ---------------------------------------------------------------------------------------------------------------

function unaryHandler(method: string, call: UnaryCall, observe: Observe): handleUnaryCall<object, object> {
  return (asked, answer) => {
    const work = async () => {
      let response: object | undefined;
      const failure = await observe(method, asked.request, async () => {
        response = await call(asked.request as never, signalOf(asked));
      });
      if (failure === undefined) answer(null, response);
      else answer(serviceError(failure));
    };
    void work();
  };
}

function streamHandler(method: string, call: StreamCall, observe: Observe): handleServerStreamingCall<object, object> {
  return (asked) => {
    const work = async () => {
      const signal = signalOf(asked);
      const failure = await observe(method, asked.request, () =>
        send(call(asked.request as never, signal), asked, signal),
      );
      // To one who has gone nothing can be said any more.
      if (signal.aborted) return;
      if (failure === undefined) asked.end();
      else asked.emit("error", serviceError(failure));
    };
    void work();
  };
}

/** In the form in which the library takes it. */
function serviceError({ code, details }: Failure) {
  return Object.assign(new Error(details), { code: status[code], details });
}

/** No faster than the caller takes it. */
async function send(
  answers: AsyncIterable<object>,
  stream: ServerWritableStream<object, object>,
  signal: AbortSignal,
): Promise<void> {
  for await (const answer of answers) {
    signal.throwIfAborted();
    if (!stream.write(answer)) await drained(stream, signal);
  }
}

function drained(stream: ServerWritableStream<object, object>, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(signal.reason);
    if (signal.aborted) return abort();
    signal.addEventListener("abort", abort, { once: true });
    stream.once("drain", () => {
      signal.removeEventListener("abort", abort);
      resolve();
    });
  });
}

interface Cancellable {
  readonly cancelled: boolean;
  on(event: "cancelled", listener: () => void): unknown;
}

function signalOf(call: Cancellable): AbortSignal {
  const gone = new AbortController();
  const abort = () => gone.abort(new CsiError("CANCELLED", "the caller has gone, or its deadline has passed"));
  if (call.cancelled) abort();
  else call.on("cancelled", abort);
  return gone.signal;
}

// ---- what is told of calls -----------------------------------------------------------------------------------------------

/** Does the work of one call, logs and counts it; how it failed, if it did. Never rejects. */
type Observe = (method: string, request: object, work: () => Promise<void>) => Promise<Failure | undefined>;

function observer({ log, clock, metrics }: GrpcServerOptions): Observe {
  const count = metrics?.counter("longshore_csi_calls_total", "Calls of the CSI driver by outcome", ["method", "code"]);
  const seconds = metrics?.histogram("longshore_csi_call_seconds", "How long calls of the CSI driver took", ["method"]);
  return async (method, request, work) => {
    const startedMs = clock.monotonicMs();
    const [failure, error] = await outcomeOf(work);
    const durationMs = Math.round(clock.monotonicMs() - startedMs);
    const outcome = failure?.code ?? "OK";
    count?.add({ method, code: outcome });
    seconds?.observe(durationMs / 1000, { method });
    const line = { method, ...subjectOf(request), durationMs, outcome };
    if (failure === undefined) log[reading.test(method) ? "debug" : "info"](line, "csi call");
    else if (failure.code === "INTERNAL") log.error({ ...line, err: error }, "csi call");
    else log.info({ ...line, problem: failure.details }, "csi call");
    return failure;
  };
}

async function outcomeOf(work: () => Promise<void>): Promise<readonly [Failure | undefined, unknown]> {
  try {
    await work();
    return [undefined, undefined];
  } catch (error) {
    return [failureOf(error), error];
  }
}

/** Asked every few seconds by the sidecars and the kubelet, and changes nothing. */
const reading = /^(?:Probe|Validate|List|(?:Controller|GroupController|Node)?Get)/;

const subjects = [
  "name",
  "volumeId",
  "sourceVolumeId",
  "snapshotId",
  "baseSnapshotId",
  "targetSnapshotId",
  "groupSnapshotId",
] as const;

/** What a call is about: the ids in its request, never more of it. */
function subjectOf(request: object): Record<string, string> {
  const fields = request as Readonly<Record<string, unknown>>;
  const found: Record<string, string> = {};
  for (const subject of subjects) {
    const value = fields[subject];
    if (typeof value === "string" && value !== "") found[subject] = value;
  }
  return found;
}
