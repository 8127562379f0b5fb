// Storage clusters of one or several engines each, in this process: real journals and real storage in temporary folders, and
// between them direct calls in place of HTTP, with switches for what a network does.
import { existsSync, rmSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Clock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { openLog } from "../../src/base/log.ts";
import { openMetrics } from "../../src/base/metrics.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import {
  defaultLimits,
  type EngineLimits,
  type MemberConnection,
  type PeerConnection,
} from "../../src/engine/engine-options.ts";
import { type Journal, openJournal } from "../../src/engine/journal.ts";
import type { StorageBackend } from "../../src/storage/backend.ts";
import { openBackend } from "../../src/storage/open.ts";
import type { LaneDialer } from "../../src/transfer/lane.ts";
import type { MemberApi } from "../../src/wire/member.ts";
import type { PeerApi } from "../../src/wire/peer.ts";
import type { LocationSpec } from "../../src/wire/schemas.ts";
import { onInterrupt } from "../interrupt.ts";
import { FakeLanes } from "./fake-lanes.ts";
import { openUnhurriedClock } from "./unhurried-clock.ts";

/** One agent; of a cluster that has no other it stands for the whole. */
export interface Cluster {
  /** Of the agent: that of its cluster, with `-1`, `-2`, … when there are several. */
  readonly name: string;
  readonly clusterName: string;
  readonly uid: string;
  /** Where others reach it, without port; a change is known with its next start. */
  host: string;
  readonly folder: string;
  readonly lanes: FakeLanes;
  /** Called before each call of the protocol that reaches this cluster; may throw, or wait. */
  onCall: (method: keyof PeerApi, args: readonly unknown[]) => void | Promise<void>;
  /** Called after it was carried out; throwing loses the reply. */
  onReply: (method: keyof PeerApi, args: readonly unknown[], result: unknown) => void | Promise<void>;
  /** The same for calls of other agents of its own cluster. */
  onMemberCall: (method: keyof MemberApi, args: readonly unknown[]) => void | Promise<void>;
  onMemberReply: (method: keyof MemberApi, args: readonly unknown[], result: unknown) => void | Promise<void>;
  /** Called before and after each call of this cluster's storage, staging images included; may throw. */
  onStorage: (step: string, when: "before" | "after") => void | Promise<void>;
  /** Called before and after each transaction of this cluster's journal; may throw. */
  onTransaction: (when: "before" | "after") => void;
  /** What the storage says is free; as it is when undefined. */
  freeBytes: number | undefined;
  engine: Engine;
  storage: StorageBackend;
  /** Aborted as soon as the present engine is being closed. */
  stopping: AbortSignal;
  /** Resolves while or as soon as an engine is open. */
  running: Promise<void>;
  /** Closes the engine, as at the end of its process. */
  stop(): Promise<void>;
  /** Opens it again on what its folder holds. */
  start(): Promise<void>;
}

const quickLimits: EngineLimits = {
  ...defaultLimits,
  leaseMs: 2_000,
  retryDelayMs: 5,
  retryDelayMsMax: 50,
  probeIntervalMs: 3_600_000,
  reserveBytes: 0,
  memberIntervalMs: 20,
};

export interface Clusters {
  /** Every agent, cluster by cluster. */
  readonly all: readonly Cluster[];
  /** The agents of one cluster. */
  of(name: string): readonly Cluster[];
  /** Calls and frames from the one agent do not reach the other until {@link Clusters.heal}; answers to the other still do. */
  cut(from: Cluster, to: Cluster): void;
  heal(): void;
  close(): Promise<void>;
}

export interface ClustersOptions {
  readonly limits?: Partial<EngineLimits>;
  /** The machine's, but that a pause of this process ends no lease, unless given. */
  readonly clock?: Clock;
  /** Keeps the folders in memory where the machine can: fsync costs nothing there, so hundreds of runs are quick. */
  readonly inMemory?: boolean;
  /** Keeps them here instead. */
  readonly parent?: string;
  /** Of every agent; `reflink` needs a parent on a file system that can. */
  readonly backend?: StorageBackend["kind"];
  /** The seed of all agents is one name, which leads each of them to itself first; else that is the first agent's address. */
  readonly isOneName?: boolean;
}

/** Who there is, and which ways are cut. */
interface Net {
  readonly agents: Cluster[];
  readonly cuts: Set<string>;
}

/** Opens clusters by name, of one agent each or of the number given, each agent with the `copy` backend unless told otherwise. */
export async function openClusters(
  names: readonly string[] | Readonly<Record<string, number>>,
  options: ClustersOptions = {},
): Promise<Clusters> {
  const { inMemory, parent, ...rest } = options;
  const unhurried = openUnhurriedClock();
  const clock = options.clock ?? unhurried;
  const usual = inMemory && existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
  const root = await mkdtemp(join(parent ?? usual, "longshore-engines-"));
  const forget = onInterrupt(() => rmSync(root, { recursive: true, force: true }));
  const net: Net = { agents: [], cuts: new Set() };
  const counts = Array.isArray(names) ? names.map((name) => [name, 1] as const) : Object.entries(names);
  for (const [clusterName, count] of counts) {
    for (let number = 1; number <= count; number++) {
      const name = count === 1 ? clusterName : `${clusterName}-${number}`;
      net.agents.push(await openAgent(net, { root, name, clusterName, ...rest, clock }));
    }
  }
  const all = net.agents;
  return {
    all,
    of: (name) => all.filter((agent) => agent.clusterName === name),
    cut: (from, to) => void net.cuts.add(way(from.name, to.name)),
    heal: () => net.cuts.clear(),
    async close() {
      for (const agent of all) await agent.stop();
      await unhurried.stop();
      // What is sealed under a parent may be immutable; its owner removes it with its file system.
      if (parent === undefined) await rm(root, { recursive: true, force: true });
      forget();
    },
  };
}

/** The process ends where it is, what it has done so far stays, and a new one is up before anybody goes on. */
export async function restart(agent: Cluster): Promise<void> {
  await agent.stop();
  await agent.start();
}

interface AgentOptions {
  readonly root: string;
  readonly name: string;
  readonly clusterName: string;
  readonly limits?: Partial<EngineLimits>;
  readonly clock: Clock;
  readonly backend?: StorageBackend["kind"];
  readonly isOneName?: boolean;
}

async function openAgent(net: Net, options: AgentOptions): Promise<Cluster> {
  const { name, clusterName } = options;
  const folder = join(options.root, name);
  await mkdir(folder);
  const uid = `uid-${clusterName}`;
  const peers = () => net.agents.filter((one) => one.clusterName === clusterName);
  let ending = new AbortController();
  let up = Promise.withResolvers<void>();
  const open = async () => {
    const backend = await openBackend({ kind: options.backend ?? "copy", root: join(folder, "store") });
    const space = async () => ({
      ...(await backend.space()),
      ...(agent.freeBytes !== undefined && { freeBytes: agent.freeBytes }),
    });
    agent.storage = observed({ ...backend, space }, (step, when) => agent.onStorage(step, when));
    agent.engine = await openEngine({
      dataDir: folder,
      cluster: { uid, name: clusterName },
      node: `node-${name}`,
      version: "test",
      addresses: { address: `${agent.host}:1`, laneAddress: `${agent.host}:2` },
      storage: agent.storage,
      lanes: { tls: agent.lanes },
      connect: (location) => connect(net, agent, location),
      // The first agent of a cluster is found under its name by those that come later.
      seeds: [options.isOneName ? "anyone:1" : `${peers()[0]?.host ?? name}:1`],
      resolveSeed: async (seed) =>
        options.isOneName ? [...new Set([agent, ...peers()])].map(({ host }) => `${host}:1`) : [seed],
      connectMember: (address, agentId) => connectMember(net, agent, { address, agentId }),
      openJournal: (dataDir) => watched(openJournal(dataDir), (when) => agent.onTransaction(when)),
      clock: options.clock,
      dice: systemDice,
      log: openLog({ name, level: "silent" }),
      metrics: openMetrics(),
      limits: { ...quickLimits, ...options.limits },
    });
    ending = new AbortController();
    agent.stopping = ending.signal;
    up.resolve();
  };
  const agent = {
    name,
    clusterName,
    uid,
    host: name,
    folder,
    lanes: new FakeLanes(`${name}:2`),
    onCall: () => undefined,
    onReply: () => undefined,
    onMemberCall: () => undefined,
    onMemberReply: () => undefined,
    onStorage: () => undefined,
    onTransaction: () => undefined,
    stop: async () => {
      if (ending.signal.aborted) return;
      up = Promise.withResolvers<void>();
      agent.running = up.promise;
      ending.abort();
      await agent.engine.close();
      await agent.storage.close();
    },
    start: open,
    running: up.promise,
  } as unknown as Cluster;
  await open();
  return agent;
}

/** The same journal, with a word before and after each transaction. */
function watched(real: Journal, tell: (when: "before" | "after") => void): Journal {
  return {
    transaction(work) {
      tell("before");
      const result = real.transaction(work);
      tell("after");
      return result;
    },
    all: (sql, ...values) => real.all(sql, ...values),
    get: (sql, ...values) => real.get(sql, ...values),
    run: (sql, ...values) => real.run(sql, ...values),
    keepBallast: () => real.keepBallast(),
    close: () => real.close(),
  };
}

const unobserved = new Set(["kind", "livePath", "stageSoon", "close", "fd", "sizeBytes", "then"]);

/** The same storage, with a word before and after each call; the staging images and readers it opens are observed too. */
function observed<T extends object>(
  real: T,
  tell: (step: string, when: "before" | "after") => void | Promise<void>,
  prefix = "",
): T {
  return new Proxy(real, {
    get(_, name: string) {
      const value = (real as Record<string, unknown>)[name];
      if (typeof value !== "function" || unobserved.has(name)) return value;
      return async (...args: unknown[]) => {
        await tell(prefix + name, "before");
        const result: unknown = await value.apply(real, args);
        try {
          await tell(prefix + name, "after");
        } catch (error) {
          if (name.startsWith("open")) await (result as { close(): Promise<void> }).close();
          throw error;
        }
        return name.startsWith("open") ? observed(result as object, tell, `${name}.`) : result;
      };
    },
  });
}

function way(from: string, to: string): string {
  return `${from} > ${to}`;
}

function hostOf(address: string): string {
  return String(address.split(":")[0]);
}

interface Hooks {
  call(method: string, args: readonly unknown[]): void | Promise<void>;
  reply(method: string, args: readonly unknown[], result: unknown): void | Promise<void>;
}

interface Door {
  /** Whom the call reaches; throws `Unreachable`. */
  readonly to: () => Cluster;
  readonly hooks: (agent: Cluster) => Hooks;
  readonly api: (agent: Cluster) => object;
}

/** An interface of another agent, each call of which passes the network: both ways may be cut, and the other may be down. */
function remote<T extends object>(net: Net, from: Cluster, { to, hooks, api }: Door): T {
  return new Proxy({} as T, {
    get: (_, method: string) => {
      if (method === "then") return undefined;
      return async (...args: unknown[]) => {
        const agent = to();
        const died = () => new LongshoreError("Unreachable", `${agent.name} does not answer`);
        const passes = (one: Cluster, other: Cluster) => {
          if (net.cuts.has(way(one.name, other.name))) throw died();
        };
        passes(from, agent);
        await hooks(agent).call(method, args);
        const { stopping } = agent;
        if (stopping.aborted) throw died();
        try {
          const call = (api(agent) as Record<string, (...values: unknown[]) => Promise<unknown>>)[method];
          if (call === undefined) throw new LongshoreError("Unsupported", `there is no ${method}`);
          const result = await call(...structuredClone(args));
          await hooks(agent).reply(method, args, result);
          passes(agent, from);
          return structuredClone(result);
        } catch (error) {
          // What a process says while it ends never gets out.
          throw stopping.aborted ? died() : error;
        }
      };
    },
  });
}

/** A connection by direct calls: a seed's host is that of an agent or the name of a cluster, and its CA bundle stands for itself. */
function connect(net: Net, from: Cluster, location: LocationSpec): PeerConnection {
  const named = (host: string) => net.agents.filter((agent) => agent.host === host || agent.clusterName === host);
  const reachable = (agent: Cluster) =>
    !agent.stopping.aborted && !net.cuts.has(way(from.name, agent.name)) && !net.cuts.has(way(agent.name, from.name));
  const anyOf = (hosts: readonly string[]) => () => {
    const found = hosts.flatMap(named);
    const agent = found.find(reachable) ?? found[0];
    if (agent === undefined) throw new LongshoreError("Unreachable", `no agent answers at ${hosts.join(", ")}`);
    return agent;
  };
  const peer = (hosts: readonly string[], agentId?: string) =>
    remote<PeerApi>(net, from, {
      to: anyOf(hosts),
      hooks: (agent) => ({
        call: (method, args) => agent.onCall(method as keyof PeerApi, args),
        reply: (method, args, result) => agent.onReply(method as keyof PeerApi, args, result),
      }),
      api({ engine }) {
        checkMeant(engine, agentId);
        return engine.peer(
          from.uid,
          engine.consents().map(({ name }) => name),
        );
      },
    });
  const seeds = location.seeds.map(hostOf);
  const lanes: LaneDialer = {
    open(to) {
      const agent = anyOf([hostOf(to.address)])();
      if (!reachable(agent)) throw new LongshoreError("Unreachable", `${agent.name} does not answer`);
      return agent.lanes.open(to);
    },
  };
  return {
    api: peer(seeds),
    at: ({ address, agentId }) => peer([hostOf(address)], agentId),
    lanes: { tls: lanes, kernel: lanes },
    close: async () => undefined,
  };
}

/** As an agent's server does: what is meant for another agent is not answered in its place. */
function checkMeant({ agentId }: Engine, meant: string | undefined): void {
  if (meant !== undefined && meant !== agentId)
    throw new LongshoreError("Unreachable", `agent ${meant} is not here any more; this is agent ${agentId}`);
}

function connectMember(
  net: Net,
  from: Cluster,
  { address, agentId }: { address: string; agentId: string | undefined },
): MemberConnection {
  const to = () => {
    const agent = net.agents.find(({ host }) => host === hostOf(address));
    if (agent === undefined) throw new LongshoreError("Unreachable", `no agent answers at ${address}`);
    return agent;
  };
  const api = remote<MemberApi>(net, from, {
    to,
    hooks: (agent) => ({
      call: (method, args) => agent.onMemberCall(method as keyof MemberApi, args),
      reply: (method, args, result) => agent.onMemberReply(method as keyof MemberApi, args, result),
    }),
    api({ engine }) {
      checkMeant(engine, agentId);
      return engine.member;
    },
  });
  return { api, close: async () => undefined };
}

/** Lets the cluster of `target` take volumes of that of `source`, and makes it a location there; for all agents, if all are given. */
export async function pair(
  source: Cluster | readonly Cluster[],
  target: Cluster | readonly Cluster[],
  location?: string,
): Promise<void> {
  const sources = [source].flat() as readonly Cluster[];
  const targets = [target].flat() as readonly Cluster[];
  const [{ clusterName: from, uid }] = sources as [Cluster];
  const [{ clusterName: to }] = targets as [Cluster];
  for (const { engine } of targets) {
    await engine.api.putSource(from, { clusterName: from, clusterUid: uid, caBundle: "ca" });
  }
  for (const { engine } of sources) {
    await engine.api.putLocation(location ?? to, { clusterName: to, seeds: [`${to}:1`], caBundle: "ca" });
  }
}
