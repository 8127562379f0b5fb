// AgentApi over HTTP: what the operator, the CSI driver and the command line hold in their hands.

import { backoffMs } from "../base/backoff.ts";
import { type Clock, systemClock } from "../base/clock.ts";
import { type Dice, systemDice } from "../base/dice.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { AgentApi } from "./agent-api.ts";
import type { Credentials } from "./credentials.ts";
import type { ServerSentEvent } from "./event-stream.ts";
import { type ClientTimeouts, type HttpClient, type HttpClientOptions, openHttpClient } from "./http-client.ts";
import { errorOfProblem } from "./problem.ts";
import { type ResponseOf, agentRoutes as routes } from "./routes.ts";
import type { Change, JobView, VolumeView } from "./schemas.ts";

export interface AgentClientOptions {
  /** host:port of agents of our own cluster. */
  readonly addresses: readonly string[];
  /** The one agent that is meant, where it is not any of the cluster. */
  readonly agentId?: string | undefined;
  readonly isOneAgent?: HttpClientOptions["isOneAgent"];
  readonly credentials: Credentials;
  /** Goes with every request, so that the agent's log lines can be found from ours. */
  readonly reconcileId?: () => string | undefined;
  readonly timeouts?: Partial<ClientTimeouts>;
  /** A broken stream is opened again for this long before its reader is told; a minute unless said. */
  readonly reconnectMs?: number;
  readonly clock?: Clock;
  readonly dice?: Dice;
}

/** Calls throw what the agent threw, and `Unreachable`, `Untrusted`, `Timeout`, `StreamTorn`. */
export function openAgentClient(options: AgentClientOptions): AgentApi & { close(): Promise<void> } {
  const { credentials, addresses, agentId, isOneAgent, timeouts } = options;
  const http = openHttpClient({
    addresses,
    isOneAgent,
    credentials,
    trustedCa: () => credentials.current().ca,
    clusterUid: credentials.identity.clusterUid,
    agentId,
    ...(timeouts && { timeouts }),
  });
  const client = { http, headers: () => headersOf(options.reconcileId?.()) };
  return {
    describe: async () => present(await http.call(routes.describe, { headers: client.headers() })),
    async forgetMember(agentId) {
      await http.call(routes.forgetMember, { params: { agentId }, headers: client.headers() });
    },
    ...volumesOver(client),
    ...locationsOver(client),
    ...jobsOver(client, options),
    ...targetOver(client),
    changes: (since, signal) => changesOver(client, options, since, signal),
    close: () => http.close(),
  };
}

interface Client {
  readonly http: HttpClient;
  readonly headers: () => Record<string, string>;
}

function volumesOver({ http, headers }: Client) {
  return {
    async listVolumes() {
      const list = present(await http.call(routes.listVolumes, { headers: headers() }));
      return { ...list, items: list.items.map(filledIn) };
    },
    getVolume: async (name) =>
      filledIn(present(await http.call(routes.getVolume, { params: { name }, headers: headers() }))),
    putVolume: async (name, body, { ifMatch } = {}) =>
      filledIn(present(await http.call(routes.putVolume, { params: { name }, body, ifMatch, headers: headers() }))),
    removeVolume: async (name, { ifMatch } = {}) =>
      gone(await http.call(routes.removeVolume, { params: { name }, ifMatch, headers: headers() })),
    putSnapshot: async (volume, name) =>
      present(await http.call(routes.putSnapshot, { params: { volume, name }, body: {}, headers: headers() })),
    putGroupSnapshot: async (group, name, body) =>
      present(await http.call(routes.putGroupSnapshot, { params: { group, name }, body, headers: headers() })),
    removeSnapshot: (volume, name) =>
      http.call(routes.removeSnapshot, { params: { volume, name }, headers: headers() }),
    listExtents: async (volume, name, { base, from, max }) => {
      const query = {
        ...(base !== undefined && { base }),
        ...(from !== undefined && { from: String(from) }),
        ...(max !== undefined && { max: String(max) }),
      };
      return present(await http.call(routes.listExtents, { params: { volume, name }, query, headers: headers() }));
    },
    putHold: async (volume, name, owner) =>
      present(await http.call(routes.putHold, { params: { volume, name, owner }, body: {}, headers: headers() })),
    removeHold: async (volume, name, { reason, owner }) =>
      gone(
        await http.call(routes.removeHold, { params: { volume, name, owner }, query: { reason }, headers: headers() }),
      ),
  } satisfies Partial<AgentApi>;
}

function locationsOver({ http, headers }: Client) {
  return {
    listLocations: async () => present(await http.call(routes.listLocations, { headers: headers() })),
    getLocation: async (name) => present(await http.call(routes.getLocation, { params: { name }, headers: headers() })),
    putLocation: async (name, body, { ifMatch } = {}) =>
      present(await http.call(routes.putLocation, { params: { name }, body, ifMatch, headers: headers() })),
    removeLocation: async (name, { ifMatch, force } = {}) => {
      const query = force ? { force: "true" as const } : {};
      gone(await http.call(routes.removeLocation, { params: { name }, query, ifMatch, headers: headers() }));
    },
  } satisfies Partial<AgentApi>;
}

function jobsOver(client: Client, options: AgentClientOptions) {
  const { http, headers } = client;
  return {
    listJobs: async () => present(await http.call(routes.listJobs, { headers: headers() })),
    getJob: async (name) => present(await http.call(routes.getJob, { params: { name }, headers: headers() })),
    putJob: async (name, body, { ifMatch } = {}) =>
      present(await http.call(routes.putJob, { params: { name }, body, ifMatch, headers: headers() })),
    removeJob: async (name) => gone(await http.call(routes.removeJob, { params: { name }, headers: headers() })),
    followJob: (name, signal) => jobEventsOver(client, options, name, signal),
  } satisfies Partial<AgentApi>;
}

function targetOver({ http, headers }: Client) {
  return {
    listSources: async () => present(await http.call(routes.listSources, { headers: headers() })),
    getSource: async (name) => present(await http.call(routes.getSource, { params: { name }, headers: headers() })),
    putSource: async (name, body, { ifMatch } = {}) =>
      present(await http.call(routes.putSource, { params: { name }, body, ifMatch, headers: headers() })),
    removeSource: async (name, { ifMatch } = {}) =>
      gone(await http.call(routes.removeSource, { params: { name }, ifMatch, headers: headers() })),
    listMigratedVolumes: async () => present(await http.call(routes.listMigratedVolumes, { headers: headers() })),
    getMigratedVolume: async (name) =>
      present(await http.call(routes.getMigratedVolume, { params: { name }, headers: headers() })),
    removeMigratedVolume: async (name, { ifMatch } = {}) =>
      gone(await http.call(routes.removeMigratedVolume, { params: { name }, ifMatch, headers: headers() })),
    listGroups: async () => present(await http.call(routes.listGroups, { headers: headers() })),
    getGroup: async (name, { clusterUid } = {}) => {
      const query = clusterUid === undefined ? {} : { clusterUid };
      return present(await http.call(routes.getGroup, { params: { name }, query, headers: headers() }));
    },
    listClones: async () => present(await http.call(routes.listClones, { headers: headers() })),
    getClone: async (name) => present(await http.call(routes.getClone, { params: { name }, headers: headers() })),
    putClone: async (name, body) =>
      present(await http.call(routes.putClone, { params: { name }, body, headers: headers() })),
    removeClone: async (name) => gone(await http.call(routes.removeClone, { params: { name }, headers: headers() })),
  } satisfies Partial<AgentApi>;
}

/** Follows the change stream; after a break it goes on behind the last change seen, so nothing is missed or repeated. */
async function* changesOver(client: Client, options: AgentClientOptions, since: number, signal: AbortSignal) {
  let at = since;
  const open = () =>
    client.http.events(routes.changes, { query: { since: String(at) }, headers: client.headers() }, signal);
  for await (const event of reconnecting(open, options, signal)) {
    if (event.event !== "change") continue;
    const change = JSON.parse(event.data) as Change;
    at = change.sequence;
    yield change;
  }
}

/** Each opening begins with the job as it is, so after a break only what was seen already is left out. */
async function* jobEventsOver(client: Client, options: AgentClientOptions, name: string, signal: AbortSignal) {
  const open = () => client.http.events(routes.followJob, { params: { name }, headers: client.headers() }, signal);
  let seen = 0;
  for await (const event of reconnecting(open, options, signal)) {
    if (event.event !== "job") continue;
    const job = JSON.parse(event.data) as JobView;
    if (job.revision === seen) continue;
    seen = job.revision;
    yield job;
  }
}

/**
 * The events of a stream that is opened again when it breaks or its server stops. It ends with the server's `end`, or with
 * the signal; a `problem` is thrown, and so is the break, when nothing came for `reconnectMs`.
 */
async function* reconnecting(
  open: () => AsyncIterable<ServerSentEvent>,
  options: AgentClientOptions,
  signal: AbortSignal,
): AsyncGenerator<ServerSentEvent> {
  const { reconnectMs = 60_000, clock = systemClock, dice = systemDice } = options;
  let heardMs = clock.monotonicMs();
  for (let attempt = 1; !signal.aborted; attempt++) {
    let failure: unknown = new LongshoreError("StreamTorn", `${options.addresses.join(", ")} ended the stream`);
    try {
      for await (const event of open()) {
        heardMs = clock.monotonicMs();
        attempt = 0;
        if (event.event === "end") return;
        if (event.event === "problem") throw problemIn(event);
        yield event;
      }
    } catch (error) {
      if (!isBreak(error)) throw error;
      failure = error;
    }
    if (signal.aborted) return;
    if (clock.monotonicMs() - heardMs >= reconnectMs) throw failure;
    await clock.sleep(backoffMs(Math.max(1, attempt), { baseMs: 100, maxMs: 5_000 }, dice), signal).catch(ignoreAbort);
  }
}

/** The loop around it sees the signal. */
function ignoreAbort(): void {}

function isBreak(error: unknown): boolean {
  const code = codeOf(error);
  return code === "StreamTorn" || code === "Unreachable" || code === "Timeout";
}

function problemIn(event: ServerSentEvent): LongshoreError {
  const problem: unknown = JSON.parse(event.data);
  return (
    errorOfProblem(problem, "the stream ended") ?? new LongshoreError("StreamTorn", `unknown problem ${event.data}`)
  );
}

function headersOf(reconcileId: string | undefined): Record<string, string> {
  return reconcileId === undefined ? {} : { "x-reconcile-id": reconcileId };
}

/** Agents of the version before tell of no affinity. */
function filledIn(view: ResponseOf<typeof routes.getVolume>): VolumeView {
  return { affinity: null, ...view };
}

/** Only a released snapshot may be answered by nothing. */
function present<T>(body: T | undefined): T {
  if (body === undefined) throw new LongshoreError("Unsupported", "the agent answered without a body");
  return body;
}

function gone(_nothing: undefined): void {}
