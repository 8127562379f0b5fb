// A storage cluster of one real agent process, with a CA of its own, on loopback.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { stringify } from "yaml";
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import type { Role } from "../../src/domain/identity.ts";
import { initAuthority, issueInto } from "../../src/pki/folder.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import { openAgentClient } from "../../src/wire/agent-client.ts";
import { openCredentials } from "../../src/wire/credentials.ts";
import type { LocationSpec, SourceSpec, Transport } from "../../src/wire/schemas.ts";
import { freePort } from "./free-port.ts";
import { eventually, type Process, startLongshore } from "./process.ts";

export interface StorageClusterOptions {
  readonly name: string;
  /** Keys, configuration and log; also the data, unless `dataDir` is given. */
  readonly folder: string;
  readonly dataDir?: string;
  readonly backend: "reflink" | "copy";
  /** How data travels to it; `tls` unless given. */
  readonly transport?: Transport;
  /** As in the agent's configuration file. */
  readonly limits?: Readonly<Record<string, string | number>>;
}

export interface StorageCluster {
  readonly name: string;
  readonly uid: string;
  readonly address: string;
  readonly dataDir: string;
  readonly pki: string;
  readonly caBundle: string;
  /** As this cluster's operator. */
  readonly api: AgentApi;
  /** The agent's process; another one after each {@link start}. */
  agent(): Process;
  /** Starts the agent (again), and resolves when it answers. */
  start(): Promise<void>;
  /** What another cluster needs to send here, and what it needs to let this one send there. */
  asLocation(): LocationSpec;
  asSource(): SourceSpec;
  /** Where the image of a point lies. */
  pointFile(ownerUid: string, point: string): string;
  stop(): Promise<void>;
}

export async function startStorageCluster(options: StorageClusterOptions): Promise<StorageCluster> {
  const { name, folder, transport } = options;
  const dataDir = options.dataDir ?? join(folder, "data");
  const pki = join(folder, "pki");
  await mkdir(dataDir, { recursive: true });
  const context = { clock: systemClock, dice: systemDice };
  const { clusterUid: uid } = await initAuthority(pki, { clusterName: name }, context);
  for (const role of ["agent", "operator", "admin"] as const satisfies Role[]) {
    await issueInto(pki, { role, names: ["127.0.0.1"], days: 1, name: role, renew: false }, context);
  }
  const caBundle = await readFile(join(pki, "ca.crt"), "utf8");
  const port = await freePort();
  const [lanePort, kernelLanePort] = [await freePort(), await freePort()];
  const config = join(folder, "agent.yaml");
  await writeFile(config, stringify(agentConfig({ ...options, dataDir, pki, port, lanePort, kernelLanePort })));
  const address = `127.0.0.1:${port}`;
  const credentials = await openCredentials({
    certFile: join(pki, "operator.crt"),
    keyFile: join(pki, "operator.key"),
    caFile: join(pki, "ca.crt"),
  });
  const api = openAgentClient({ addresses: [address], credentials });
  let agent: Process | undefined;
  const cluster: StorageCluster = {
    name,
    uid,
    address,
    dataDir,
    pki,
    caBundle,
    api,
    agent: () => {
      if (agent === undefined) throw new Error(`the agent of ${name} was not started`);
      return agent;
    },
    async start() {
      const started = startLongshore(["agent", "--config", config], join(folder, "agent.log"));
      agent = started;
      await eventually(`the agent of ${name} answering`, async () => {
        started.checkRunning();
        return api.describe();
      });
    },
    asLocation: () => ({
      ...{ clusterName: name, clusterUid: uid, seeds: [address], caBundle },
      ...(transport && { transport }),
    }),
    asSource: () => ({ clusterName: name, clusterUid: uid, caBundle }),
    pointFile: (ownerUid, point) => join(dataDir, "volumes", ownerUid, "points", `${point}.img`),
    async stop() {
      await agent?.signal("SIGTERM");
      await api.close();
      credentials.close();
    },
  };
  await cluster.start();
  return cluster;
}

export interface Member {
  /** This very agent, as the cluster's operator. */
  readonly api: AgentApi;
  agent(): Process;
  stop(): Promise<void>;
}

/** Starts a further agent of a cluster, and resolves when it knows the first one. */
export async function startMember(cluster: StorageCluster, node: string, folder: string): Promise<Member> {
  const { name, pki, address: seed } = cluster;
  const dataDir = join(folder, "data");
  await mkdir(dataDir, { recursive: true });
  const [port, lanePort] = [await freePort(), await freePort()];
  const config = join(folder, "agent.yaml");
  const facts = { name, node, folder, dataDir, backend: "copy" as const, pki, port, lanePort, seeds: [seed] };
  await writeFile(config, stringify(agentConfig(facts)));
  const credentials = await openCredentials({
    certFile: join(pki, "operator.crt"),
    keyFile: join(pki, "operator.key"),
    caFile: join(pki, "ca.crt"),
  });
  const api = openAgentClient({ addresses: [`127.0.0.1:${port}`], credentials });
  const started = startLongshore(["agent", "--config", config], join(folder, "agent.log"));
  await eventually(`agent ${node} knowing the others`, async () => {
    started.checkRunning();
    return (await api.describe()).members.length > 1 || undefined;
  });
  return {
    api,
    agent: () => started,
    async stop() {
      await started.signal("SIGTERM");
      await api.close();
      credentials.close();
    },
  };
}

interface ConfigFacts extends StorageClusterOptions {
  readonly node?: string;
  readonly seeds?: readonly string[];
  readonly dataDir: string;
  readonly pki: string;
  readonly port: number;
  readonly lanePort: number;
  readonly kernelLanePort?: number;
}

function agentConfig(facts: ConfigFacts) {
  const { name, node = `${name}-1`, seeds = [], dataDir, backend, pki, port, lanePort, kernelLanePort, limits } = facts;
  return {
    clusterName: name,
    node,
    seeds,
    listen: `127.0.0.1:${port}`,
    laneListen: `127.0.0.1:${lanePort}`,
    ...(kernelLanePort !== undefined && { kernelLaneListen: `127.0.0.1:${kernelLanePort}` }),
    dataDir,
    backend,
    tls: { certFile: join(pki, "agent.crt"), keyFile: join(pki, "agent.key"), caFile: join(pki, "ca.crt") },
    limits: { reserve: "0", probeInterval: "2s", ...limits },
    logLevel: "info",
  };
}
