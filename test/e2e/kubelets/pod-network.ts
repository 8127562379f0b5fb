// The addresses of pods, and those of the two Services that every pod needs: the API server and DNS. Pods are reached by routes
// on all nodes and on this machine; the Services lead to where the tests serve them. All of it goes with the network.
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import { serviceAddresses } from "../control-plane.ts";
import { type Host, inside, type Network } from "../netns/network.ts";

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

const nodesMax = 4;
const podsOfNode = 64;

export interface PodHost extends Host {
  /** The addresses of its pods. */
  readonly podNet: string;
}

/** Gives each of the network's hosts addresses for its pods, which everybody on the network reaches from then on. */
export async function openPodNetwork(network: Network, hostNames: readonly string[]): Promise<Map<string, PodHost>> {
  if (hostNames.length > nodesMax) throw new Error(`no more than ${nodesMax} nodes on one network`);
  const hosts = hostNames.map((name, index): PodHost => {
    const host = network.host(name);
    return { ...host, podNet: podNetOf(network.testsAddress, index) };
  });
  for (const host of hosts) {
    // They go with the link that they name.
    await run("ip", ["route", "add", host.podNet, "via", host.controlAddress, "dev", network.link], { env });
    const others = hosts.filter((other) => other !== host);
    const routes = [
      `route add default via ${network.testsAddress} dev control`,
      ...others.map(({ podNet, controlAddress }) => `route add ${podNet} via ${controlAddress} dev control`),
    ];
    await feed("ip", ["-netns", host.namespace, "-batch", "-"], routes.join("\n"));
  }
  return new Map(hosts.map((host) => [host.name, host]));
}

/** The second half of the range of addresses for tests of equipment; networks differ in the third number of the first half. */
export function podNetOf(testsAddress: string, index: number): string {
  return `198.19.${testsAddress.split(".")[2]}.${index * podsOfNode}/26`;
}

export interface Servers {
  /** `ADDRESS:PORT` of each. */
  readonly api: string;
  readonly dns: string;
}

/** From now on the host and its pods reach the API server and DNS at the addresses of their Services. */
export async function leadServices({ namespace }: Host, { api, dns }: Servers): Promise<void> {
  const script = `
table ip services {
  chain services {
    ip daddr ${serviceAddresses.api} tcp dport 443 dnat to ${api}
    ip daddr ${serviceAddresses.dns} udp dport 53 dnat to ${dns}
  }
  chain prerouting {
    type nat hook prerouting priority -100; policy accept;
    jump services
  }
  chain output {
    type nat hook output priority -100; policy accept;
    jump services
  }
}
`;
  await feed("nsenter", [...inside(namespace), "nft", "-f", "-"], script);
}

async function feed(command: string, options: readonly string[], input: string): Promise<void> {
  const running = run(command, options, { env });
  running.child.stdin?.end(`${input}\n`);
  await running;
}
