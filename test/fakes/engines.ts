// Storage clusters of one engine each, in this process: real journals and real storage in temporary folders, and between
// them direct calls in place of HTTP, with switches for what a network does.
import { existsSync, rmSync } from "node:fs";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Clock, systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { openLog } from "../../src/base/log.ts";
import { openMetrics } from "../../src/base/metrics.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import { type Engine, openEngine } from "../../src/engine/engine.ts";
import { defaultLimits, type EngineLimits, type PeerConnection } from "../../src/engine/engine-options.ts";
import { openJournal } from "../../src/engine/journal.ts";
import type { StorageBackend } from "../../src/storage/backend.ts";
import { openBackend } from "../../src/storage/open.ts";
import type { PeerApi } from "../../src/wire/peer.ts";
import type { LocationSpec } from "../../src/wire/schemas.ts";
import { onInterrupt } from "../interrupt.ts";
import { FakeLanes } from "./fake-lanes.ts";

export interface Cluster {
  readonly name: string;
  readonly uid: string;
  readonly folder: string;
  readonly lanes: FakeLanes;
  /** Called before each call of the protocol that reaches this cluster; may throw, or wait. */
  onCall: (method: keyof PeerApi, args: readonly unknown[]) => void | Promise<void>;
  /** Called after it was carried out; throwing loses the reply. */
  onReply: (method: keyof PeerApi, args: readonly unknown[], result: unknown) => void | Promise<void>;
  /** Called before and after each call of this cluster's storage, staging images included; may throw. */
  onStorage: (step: string, when: "before" | "after") => void | Promise<void>;
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
};

export interface Clusters {
  readonly all: readonly Cluster[];
  close(): Promise<void>;
}

export interface ClustersOptions {
  readonly limits?: Partial<EngineLimits>;
  readonly clock?: Clock;
  /** Keeps the folders in memory where the machine can: fsync costs nothing there, so hundreds of runs are quick. */
  readonly inMemory?: boolean;
  /** Keeps them here instead. */
  readonly parent?: string;
}

/** Opens clusters by name, each with the `copy` backend. */
export async function openClusters(names: readonly string[], options: ClustersOptions = {}): Promise<Clusters> {
  const { inMemory, parent, ...rest } = options;
  const usual = inMemory && existsSync("/dev/shm") ? "/dev/shm" : tmpdir();
  const root = await mkdtemp(join(parent ?? usual, "longshore-engines-"));
  const forget = onInterrupt(() => rmSync(root, { recursive: true, force: true }));
  const all: Cluster[] = [];
  for (const name of names) all.push(await openCluster(all, { root, name, ...rest }));
  return {
    all,
    async close() {
      for (const cluster of all) await cluster.stop();
      await rm(root, { recursive: true, force: true });
      forget();
    },
  };
}

async function openCluster(
  peers: readonly Cluster[],
  options: { root: string; name: string; limits?: Partial<EngineLimits>; clock?: Clock },
): Promise<Cluster> {
  const { name } = options;
  const folder = join(options.root, name);
  await mkdir(folder);
  const uid = `uid-${name}`;
  let ending = new AbortController();
  let up = Promise.withResolvers<void>();
  const open = async () => {
    const backend = await openBackend({ kind: "copy", root: join(folder, "store") });
    const space = async () => ({
      ...(await backend.space()),
      ...(cluster.freeBytes !== undefined && { freeBytes: cluster.freeBytes }),
    });
    cluster.storage = observed({ ...backend, space }, (step, when) => cluster.onStorage(step, when));
    cluster.engine = await openEngine({
      dataDir: folder,
      cluster: { uid, name },
      node: `node-${name}`,
      version: "test",
      addresses: { address: `${name}:1`, laneAddress: `${name}:2` },
      storage: cluster.storage,
      lanes: cluster.lanes,
      connect: (location) => connect(peers, uid, location),
      seeds: [],
      connectMember: (address) => {
        throw new LongshoreError("Unreachable", `no agent answers at ${address}`);
      },
      openJournal,
      clock: options.clock ?? systemClock,
      dice: systemDice,
      log: openLog({ name, level: "silent" }),
      metrics: openMetrics(),
      limits: { ...quickLimits, ...options.limits },
    });
    ending = new AbortController();
    cluster.stopping = ending.signal;
    up.resolve();
  };
  const cluster = {
    name,
    uid,
    folder,
    lanes: new FakeLanes(),
    onCall: () => undefined,
    onReply: () => undefined,
    onStorage: () => undefined,
    stop: async () => {
      if (ending.signal.aborted) return;
      up = Promise.withResolvers<void>();
      cluster.running = up.promise;
      ending.abort();
      await cluster.engine.close();
      await cluster.storage.close();
    },
    start: open,
    running: up.promise,
  } as unknown as Cluster;
  await open();
  return cluster;
}

const unobserved = new Set(["kind", "livePath", "close", "fd", "sizeBytes", "then"]);

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

/** A connection by direct calls: the seed's host is the cluster's name, and its CA bundle stands for itself. */
function connect(peers: readonly Cluster[], callerUid: string, location: LocationSpec): PeerConnection {
  const name = location.seeds[0]?.split(":")[0];
  const peer = () => {
    const found = peers.find((cluster) => cluster.name === name);
    if (found === undefined)
      throw new LongshoreError("Unreachable", `no agent answers at ${location.seeds.join(", ")}`);
    return found;
  };
  const api = new Proxy({} as PeerApi, {
    get:
      (_, method: keyof PeerApi) =>
      async (...args: unknown[]) => {
        const cluster = peer();
        await cluster.onCall(method, args);
        const { stopping } = cluster;
        const died = () => new LongshoreError("Unreachable", `${cluster.name} does not answer`);
        if (stopping.aborted) throw died();
        try {
          const sources = cluster.engine.consents().map((consent) => consent.name);
          const call = cluster.engine.peer(callerUid, sources)[method] as (...values: unknown[]) => Promise<unknown>;
          const result = await call(...structuredClone(args));
          await cluster.onReply(method, args, result);
          return structuredClone(result);
        } catch (error) {
          // What a process says while it ends never gets out.
          throw stopping.aborted ? died() : error;
        }
      },
  });
  return { api, at: () => api, lanes: { open: (to) => peer().lanes.open(to) }, close: async () => undefined };
}

/** Lets `target` take volumes of `source`, and makes it a location there. */
export async function pair(source: Cluster, target: Cluster, location = target.name): Promise<void> {
  await target.engine.api.putSource(source.name, { clusterName: source.name, clusterUid: source.uid, caBundle: "ca" });
  await source.engine.api.putLocation(location, {
    clusterName: target.name,
    seeds: [`${target.name}:1`],
    caBundle: "ca",
  });
}
