// A whole Kubernetes cluster on this machine: a control plane, DNS, and nodes with containerd and a kubelet, on which real pods run.
// Several of them side by side on one network reach each other's nodes. Needs what `needs("kubelets")` looks for.
import { join } from "node:path";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { conditionOf, type KubeClient, openKubeClient } from "../kube-client.ts";
import { type Network, openNetwork } from "../netns/network.ts";
import { eventually } from "../process.ts";
import { serveClusterDns } from "./cluster-dns.ts";
import { type KubeletNode, startNode } from "./node.ts";
import { leadServices, openPodNetwork, type PodHost } from "./pod-network.ts";

export interface KubeletClusterOptions {
  readonly name: string;
  /** The names of its nodes, which are hosts of the network. */
  readonly nodes: readonly string[];
  readonly labels?: Readonly<Record<string, string>>;
  /** Files of `ctr images import`; no other images are to be had. */
  readonly images: readonly string[];
  /** Of each node's file system for volumes. */
  readonly diskBytes?: number;
  readonly auditPolicy?: object;
}

export interface KubeletCluster {
  readonly name: string;
  readonly plane: ControlPlane;
  readonly kube: KubeClient;
  readonly nodes: readonly KubeletNode[];
  node(name: string): KubeletNode;
  /** Removes everything. A repeat changes nothing. */
  stop(): Promise<void>;
}

export interface KubeletNetwork {
  readonly network: Network;
  readonly hosts: ReadonlyMap<string, PodHost>;
}

const readyMsMax = 240_000;
/** What XFS takes at least, and some room. */
const smallestDiskBytes = 512 * 2 ** 20;

/** A network whose hosts may become nodes of clusters; `close` it last. */
export async function openKubeletNetwork(nodes: readonly string[]): Promise<KubeletNetwork> {
  const network = await openNetwork(nodes);
  try {
    return { network, hosts: await openPodNetwork(network, nodes) };
  } catch (error) {
    await network.close();
    throw error;
  }
}

/** Resolves when all nodes are Ready. `folder` is the caller's to remove. */
export async function startKubeletCluster(
  { network, hosts }: KubeletNetwork,
  folder: string,
  options: KubeletClusterOptions,
): Promise<KubeletCluster> {
  const closers: (() => Promise<void>)[] = [];
  const stop = async () => {
    for (const close of closers.splice(0).reverse()) await close();
  };
  try {
    const { name, auditPolicy } = options;
    const hosting = { address: network.testsAddress, nodes: options.nodes, ...(auditPolicy && { auditPolicy }) };
    const plane = await startControlPlane({ name, hosting });
    closers.push(() => plane.stop());
    const kube = openKubeClient(plane);
    const dns = await serveClusterDns(network.testsAddress, kube);
    closers.push(() => dns.close());
    const servers = { api: new URL(plane.server).host, dns: dns.address };
    const nodes = await startNodes({ plane, hosts, folder, servers }, options, closers);
    await areReady(kube, nodes);
    return {
      name,
      plane,
      kube,
      nodes,
      stop,
      node(wanted) {
        const found = nodes.find((node) => node.name === wanted);
        if (found === undefined) throw new Error(`cluster ${name} has no node ${wanted}`);
        return found;
      },
    };
  } catch (error) {
    await stop();
    throw error;
  }
}

interface Surroundings {
  readonly plane: ControlPlane;
  readonly hosts: ReadonlyMap<string, PodHost>;
  readonly folder: string;
  readonly servers: { readonly api: string; readonly dns: string };
}

/** All at once. Each is awaited to its end, so that what it started is known when another one fails. */
async function startNodes(
  { plane, hosts, folder, servers }: Surroundings,
  { nodes, labels = {}, images, diskBytes = smallestDiskBytes }: KubeletClusterOptions,
  closers: (() => Promise<void>)[],
): Promise<KubeletNode[]> {
  const start = async (name: string): Promise<KubeletNode> => {
    const host = hosts.get(name);
    if (host === undefined) throw new Error(`${name} is not a host of the network`);
    await leadServices(host, servers);
    const kubeconfig = plane.nodeKubeconfig(name);
    const node = await startNode({ name, host, folder: join(folder, name), kubeconfig, labels, images, diskBytes });
    closers.push(() => node.stop());
    return node;
  };
  const started = await Promise.allSettled(nodes.map(start));
  return started.map((outcome) => {
    if (outcome.status === "rejected") throw outcome.reason;
    return outcome.value;
  });
}

async function areReady(kube: KubeClient, nodes: readonly KubeletNode[]): Promise<void> {
  for (const node of nodes) {
    const isReady = async () => {
      const seen = await kube.get({ kind: "Node", name: node.name });
      return conditionOf(seen, "Ready")?.status === "True" || undefined;
    };
    try {
      await eventually(`node ${node.name} being Ready`, isReady, { timeoutMs: readyMsMax, intervalMs: 200 });
    } catch (cause) {
      throw new Error(`${String(cause)}\n${node.logs}`, { cause });
    }
  }
}
