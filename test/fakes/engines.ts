// Storage clusters of one engine each, in this process: real journals and real storage in temporary folders, and between
// them direct calls in place of HTTP, with switches for what a network does.
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
import type { StorageBackend } from "../../src/storage/backend.ts";
import { openBackend } from "../../src/storage/open.ts";
import type { PeerApi } from "../../src/wire/peer.ts";
import type { LocationSpec } from "../../src/wire/schemas.ts";
import { FakeLanes } from "./fake-lanes.ts";

export interface Cluster {
  readonly name: string;
  readonly uid: string;
  readonly folder: string;
  readonly lanes: FakeLanes;
  /** Called before each call of the protocol that reaches this cluster; may throw, or wait. */
  onCall: (method: keyof PeerApi, args: readonly unknown[]) => void | Promise<void>;
  /** Called after it was carried out; throwing loses the reply. */
  onReply: (method: keyof PeerApi) => void | Promise<void>;
  engine: Engine;
  storage: StorageBackend;
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
  probeIntervalMs: 60_000,
  reserveBytes: 0,
};

export interface Clusters {
  readonly all: readonly Cluster[];
  close(): Promise<void>;
}

/** Opens clusters by name, each with the `copy` backend unless another is given for its folder. */
export async function openClusters(
  names: readonly string[],
  options: { limits?: Partial<EngineLimits>; clock?: Clock } = {},
): Promise<Clusters> {
  const root = await mkdtemp(join(tmpdir(), "longshore-engines-"));
  const all: Cluster[] = [];
  for (const name of names) all.push(await openCluster(all, { root, name, ...options }));
  return {
    all,
    async close() {
      for (const cluster of all) await cluster.stop();
      await rm(root, { recursive: true, force: true });
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
  const open = async () => {
    cluster.storage = await openBackend({ kind: "copy", root: join(folder, "store") });
    cluster.engine = await openEngine({
      dataDir: folder,
      cluster: { uid, name },
      node: `node-${name}`,
      version: "test",
      addresses: { address: `${name}:1`, laneAddress: `${name}:2` },
      storage: cluster.storage,
      lanes: cluster.lanes,
      connect: (location) => connect(peers, uid, location),
      clock: options.clock ?? systemClock,
      dice: systemDice,
      log: openLog({ name, level: "silent" }),
      metrics: openMetrics(),
      limits: { ...quickLimits, ...options.limits },
    });
    cluster.lanes.onLaneError = (owner, lane, error) => cluster.engine.laneFailed(owner, lane, error);
  };
  const cluster = {
    name,
    uid,
    folder,
    lanes: new FakeLanes(),
    onCall: () => undefined,
    onReply: () => undefined,
    stop: async () => {
      await cluster.engine.close();
      await cluster.storage.close();
    },
    start: open,
  } as unknown as Cluster;
  await open();
  return cluster;
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
        const sources = cluster.engine.consents().map((consent) => consent.name);
        const call = cluster.engine.peer(callerUid, sources)[method] as (...values: unknown[]) => Promise<unknown>;
        const result = await call(...structuredClone(args));
        await cluster.onReply(method);
        return structuredClone(result);
      },
  });
  return { api, lanes: { open: (to) => peer().lanes.open(to) }, close: async () => undefined };
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
