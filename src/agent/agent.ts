// One agent, put together: credentials, storage, lanes, engine, HTTP server; and taken apart in the opposite order.

import type { X509Certificate } from "node:crypto";
import { mkdir } from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import type { Dice } from "../base/dice.ts";
import type { Log } from "../base/log.ts";
import type { Metrics } from "../base/metrics.ts";
import { renderAddress } from "../domain/address.ts";
import { judgeChain, parseCertificates } from "../domain/certificate-chain.ts";
import { LongshoreError } from "../domain/errors.ts";
import { identityOf } from "../domain/identity.ts";
import { type Engine, openEngine } from "../engine/engine.ts";
import type { EngineOptions, PeerConnection } from "../engine/engine-options.ts";
import { openJournal } from "../engine/journal.ts";
import { openBackend } from "../storage/open.ts";
import { kernelLaneDialer } from "../transfer/kernel-lane-dialer.ts";
import { openKernelLaneServer } from "../transfer/kernel-lane-server.ts";
import type { LaneServer } from "../transfer/lane.ts";
import { LaneThreads } from "../transfer/lane-threads.ts";
import { tlsLaneDialer } from "../transfer/tls-lane-dialer.ts";
import { openTlsLaneServer } from "../transfer/tls-lane-server.ts";
import { type Credentials, openCredentials } from "../wire/credentials.ts";
import { openMemberClient } from "../wire/member-client.ts";
import { openPeerClient } from "../wire/peer-client.ts";
import type { LocationSpec } from "../wire/schemas.ts";
import { identifyCaller } from "./caller.ts";
import type { AgentConfig } from "./config.ts";
import { addressesOf } from "./seed-addresses.ts";
import { type AgentServer, openAgentServer } from "./server.ts";

export interface AgentSurroundings {
  readonly version: string;
  readonly clock: Clock;
  readonly dice: Dice;
  readonly log: Log;
  readonly metrics: Metrics;
}

export interface Agent {
  /** host:port of the API, as others reach it. */
  readonly address: string;
  readonly laneAddress: string;
  readonly clusterUid: string;
  readonly backend: "reflink" | "copy";
  /** Stops serving, stops jobs where they are, and closes everything. */
  close(): Promise<void>;
}

/** Resolves when the agent is ready. What was opened is closed again when a later step fails. */
export async function openAgent(config: AgentConfig, surroundings: AgentSurroundings): Promise<Agent> {
  const { clock, log } = surroundings;
  const closers: (() => void | Promise<void>)[] = [];
  const closeAll = async () => {
    for (const close of closers.splice(0).reverse()) await close();
  };
  try {
    const credentials = await openCredentials(config.tls, { clock, log });
    closers.push(() => credentials.close());
    checkAgentRole(credentials, config);
    await mkdir(config.dataDir, { recursive: true });
    const storage = await openBackend({ kind: config.backend, root: config.dataDir, clock });
    closers.push(() => storage.close());
    const late: { engine?: Engine; server?: AgentServer } = {};
    const threads = laneThreads(surroundings);
    closers.push(() => threads.close());
    const served = { ...surroundings, threads: threads.target };
    const tls = await openTlsLanes(config, served, credentials, () => late.engine);
    closers.push(() => tls.close());
    const kernel = await openKernelLanes(config, served, () => late.engine);
    closers.push(() => kernel?.close());
    const advertised = () => withHost(late.server?.address ?? renderAddress(config.listen), config.advertiseAddress);
    const engine = await openEngine({
      dataDir: config.dataDir,
      cluster: { uid: credentials.identity.clusterUid, name: config.clusterName },
      node: config.node,
      addresses: {
        // With port 0 the port is known once the server listens.
        get address() {
          return advertised();
        },
        laneAddress: tls.address,
      },
      storage,
      lanes: { tls, ...(kernel && { kernel }) },
      connect: (location) => connectTo(location, credentials, { clock, threads: threads.source }),
      seeds: config.seeds,
      resolveSeed: (seed) => addressesOf(seed, config.listen.host),
      connectMember(address, agentId) {
        const api = openMemberClient({ address, agentId, credentials });
        return { api, close: () => api.close() };
      },
      openJournal,
      limits: config.limits,
      ...surroundings,
    } satisfies EngineOptions);
    late.engine = engine;
    closers.push(() => engine.close());
    late.server = await openServer(config, surroundings, credentials, engine);
    closers.push(() => late.server?.close());
    const { clusterUid } = credentials.identity;
    return { address: advertised(), laneAddress: tls.address, clusterUid, backend: storage.kind, close: closeAll };
  } catch (error) {
    await closeAll();
    throw error;
  }
}

/** An agent's server must show an agent's certificate, or no peer would trust it. */
function checkAgentRole({ identity }: Credentials, { tls }: AgentConfig): void {
  if (identity.role === "agent") return;
  const advice = "make one by: longshore pki issue --role agent";
  throw new LongshoreError("BadRequest", `tls.certFile ${tls.certFile} is for the role ${identity.role}; ${advice}`);
}

/** Lanes that send and lanes that receive have threads of their own; see {@link LaneThreads}. */
function laneThreads({ clock, log }: AgentSurroundings) {
  const open = () => new LaneThreads({ clock, onCrash: (error) => log.error({ err: error }, "lane thread ended") });
  const [source, target] = [open(), open()];
  const close = async () => {
    await Promise.all([source.close(), target.close()]);
  };
  return { source, target, close };
}

type LaneSurroundings = AgentSurroundings & { readonly threads: LaneThreads };

/** The lanes are open before the engine, which is given them; a lane can fail only once the engine issued its ticket. */
async function openTlsLanes(
  config: AgentConfig,
  surroundings: LaneSurroundings,
  credentials: Credentials,
  engineOf: () => Engine | undefined,
): Promise<LaneServer> {
  const { clock } = surroundings;
  const sources = () => engineOf()?.consents() ?? [];
  const where = renderAddress(config.laneListen);
  return listening(`laneListen ${where}`, () =>
    openTlsLaneServer({
      credentials,
      trust: () => sources().map((source) => source.caBundle),
      authorize(chain) {
        const { clusterUid } = credentials.identity;
        const trust = { clusterUid, ca: credentials.current().ca, sources: sources() };
        const caller = identifyCaller(chain, trust, clock.nowMs());
        return caller.kind === "foreign" && caller.role === "agent" ? { clusterUid: caller.clusterUid } : undefined;
      },
      listen: config.laneListen,
      ...laneReports(config, surroundings, engineOf),
    }),
  );
}

/** Only where the configuration asks for them: who reaches them needs a ticket, and no certificate. */
async function openKernelLanes(
  config: AgentConfig,
  surroundings: LaneSurroundings,
  engineOf: () => Engine | undefined,
): Promise<LaneServer | undefined> {
  const { kernelLaneListen: listen } = config;
  if (listen === undefined) return undefined;
  return listening(`kernelLaneListen ${renderAddress(listen)}`, () =>
    openKernelLaneServer({ listen, ...laneReports(config, surroundings, engineOf) }),
  );
}

function laneReports(
  { advertiseAddress }: AgentConfig,
  { clock, dice, log, threads }: LaneSurroundings,
  engineOf: () => Engine | undefined,
) {
  return {
    advertiseHost: advertiseAddress,
    onLaneError: (owner: string, lane: number, error: Error) => engineOf()?.laneFailed(owner, lane, error),
    onRefusal: (error: LongshoreError, remoteAddress: string | undefined) =>
      log.info({ err: error, remoteAddress }, "lane refused"),
    ...{ clock, dice, threads },
  };
}

/** What a job needs to reach the cluster of a location: control and lanes, both under the location's bundle alone. */
function connectTo(
  location: LocationSpec,
  credentials: Credentials,
  { clock, threads }: { readonly clock: Clock; readonly threads: LaneThreads },
): PeerConnection {
  const { seeds, caBundle, clusterUid } = location;
  const bundle = bundleOf(location);
  const client = (addresses: readonly string[], agentId?: string) =>
    openPeerClient({ seeds: addresses, agentId, caBundle, expectedClusterUid: clusterUid, credentials });
  const api = client(seeds);
  const homes = new Map<string, ReturnType<typeof client>>();
  const at = ({ address, agentId }: { address: string; agentId: string }) => {
    const key = `${agentId} ${address}`;
    const home = homes.get(key) ?? client([address], agentId);
    homes.set(key, home);
    return home;
  };
  const tls = tlsLaneDialer({
    credentials,
    trust: () => [caBundle],
    authorize: (chain) => agentOf(chain, bundle, clock.nowMs()),
    clock,
    threads,
  });
  const close = async () => {
    for (const opened of [api, ...homes.values()]) await opened.close();
  };
  return { api, at, lanes: { tls, kernel: kernelLaneDialer({ clock, threads }) }, close };
}

/** A bundle that cannot be read trusts nobody: that is how the location's state has to call it. */
function bundleOf({ clusterName, caBundle }: LocationSpec): X509Certificate[] {
  try {
    return parseCertificates(caBundle, "caBundle");
  } catch (cause) {
    throw new LongshoreError("Untrusted", `nobody is trusted for cluster ${clusterName}`, { cause });
  }
}

function agentOf(chain: readonly X509Certificate[], bundle: readonly X509Certificate[], nowMs: number) {
  const [leaf] = chain;
  const identity = leaf && identityOf(leaf);
  const isTrusted = judgeChain(chain, bundle, nowMs).kind === "trusted";
  return isTrusted && identity?.role === "agent" ? { clusterUid: identity.clusterUid } : undefined;
}

function openServer(
  config: AgentConfig,
  surroundings: AgentSurroundings,
  credentials: Credentials,
  engine: Engine,
): Promise<AgentServer> {
  return listening(`listen ${renderAddress(config.listen)}`, () =>
    openAgentServer({
      agentId: engine.agentId,
      api: engine.api,
      member: engine.member,
      peerFor: ({ clusterUid, source }) => engine.peer(clusterUid, [source]),
      consents: () => engine.consents(),
      // The engine has recovered before the server opens, so what listens is ready.
      notReady: () => undefined,
      credentials,
      listen: config.listen,
      ...surroundings,
    }),
  );
}

/** A port in use is the commonest mistake: it says which, and what to do. */
async function listening<T>(what: string, open: () => Promise<T>): Promise<T> {
  try {
    return await open();
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== "EADDRINUSE" && code !== "EADDRNOTAVAIL" && code !== "EACCES") throw cause;
    const why = code === "EADDRINUSE" ? "another process listens there" : "this machine does not allow it";
    throw new LongshoreError("BadRequest", `cannot use ${what}: ${why}; correct the configuration`, { cause });
  }
}

function withHost(address: string, host: string): string {
  return renderAddress({ host, port: Number(address.slice(address.lastIndexOf(":") + 1)) });
}
