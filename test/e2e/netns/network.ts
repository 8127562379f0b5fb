// A network of its own for each test file: one network namespace a host, joined by a bridge in another, and made worse on
// purpose: cut between any two hosts, in one direction or both, lossy, or slow. The tests reach every host over a second
// bridge that stays as it is. Needs root, iproute2 and nftables.
import { execFile, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { promisify } from "node:util";
import { onInterrupt } from "../../interrupt.ts";

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const hostsMax = 50;
/** From the range for tests of network equipment, which nobody uses for anything else; one network for each third number. */
const controlNets = { prefix: "198.18", first: 1, last: 254 };
const controlPeer = 254;

export interface Host {
  readonly name: string;
  readonly namespace: string;
  /** Where the other hosts reach it. */
  readonly address: string;
  /** Where the tests reach it, whatever was done to the network. */
  readonly controlAddress: string;
}

export interface Diversion {
  readonly to: { readonly host: string; readonly port: number };
  readonly via: { readonly host: string; readonly port: number };
}

export interface Network {
  /** Begins the names of all that was made on this machine. */
  readonly name: string;
  /** The tests' own end of it. */
  readonly link: string;
  /** Where every host reaches the tests, whatever was done to the network. */
  readonly testsAddress: string;
  host(name: string): Host;
  /** From now on nothing that `from` sends reaches `to`; the other way stays as it is. */
  cutOneWay(from: readonly string[], to: readonly string[]): Promise<void>;
  /** From now on nothing passes between the two sets of hosts. */
  cut(one: readonly string[], other: readonly string[]): Promise<void>;
  /** Ends what was cut between the two sets; without arguments everything that was cut. */
  heal(one?: readonly string[], other?: readonly string[]): Promise<void>;
  /** So many of a hundred packets get lost, anywhere. */
  lose(percent: number): Promise<void>;
  /** What a host sends leaves it at no more than this rate; `undefined`: as fast as it can. */
  slow(host: string, bytesPerSecond: number | undefined): Promise<void>;
  /** From now on connections that `from` makes to those ports are led elsewhere; none: as they would be by themselves. */
  divert(from: string, routes: readonly Diversion[]): Promise<void>;
  /** Removes everything; what still runs in the namespaces is cut off. A second call does nothing. */
  close(): Promise<void>;
}

export async function openNetwork(hostNames: readonly string[]): Promise<Network> {
  if (hostNames.length > hostsMax) throw new Error(`no more than ${hostsMax} hosts`);
  const name = `longshore-${randomBytes(4).toString("hex")}`;
  const hub = `${name}-hub`;
  const made: Made = { namespaces: [], links: [] };
  const forget = onInterrupt(() => removeNow(made));
  try {
    await addNamespace(hub, made);
    await batch(hub, ["link set lo up", "link add data type bridge", "link set data up"]);
    await batch(hub, ["link add control type bridge", "link set control up"]);
    const { controlNet, link } = await joinTests(hub, made);
    const hosts = new Map<string, Host>();
    for (const [index, hostName] of hostNames.entries()) {
      const namespace = `${name}-${hostName}`;
      const address = `10.77.0.${index + 1}`;
      const controlAddress = `${controlNet}.${index + 1}`;
      await addNamespace(namespace, made);
      await joinHost(hub, { namespace, address, controlAddress, index });
      hosts.set(hostName, { name: hostName, namespace, address, controlAddress });
    }
    await filter(hub, rules);
    const close = async () => {
      forget();
      // By itself it would go away with the namespace of its other end, but some time later.
      for (const link of made.links.splice(0)) await run("ip", ["link", "delete", link], { env });
      for (const namespace of made.namespaces.splice(0)) await run("ip", ["netns", "delete", namespace], { env });
    };
    return { name, link, testsAddress: `${controlNet}.${controlPeer}`, ...switches(hub, hosts), close };
  } catch (error) {
    removeNow(made);
    forget();
    throw error;
  }
}

/** Whatever is made inside a namespace goes away with it. */
interface Made {
  readonly namespaces: string[];
  readonly links: string[];
}

async function addNamespace(namespace: string, { namespaces }: Made): Promise<void> {
  namespaces.push(namespace);
  await run("ip", ["netns", "add", namespace], { env });
}

function removeNow({ namespaces, links }: Made): void {
  const ip = (...words: string[]) => spawnSync("ip", words, { env, stdio: "ignore" });
  for (const link of links.splice(0)) ip("link", "delete", link);
  for (const namespace of namespaces.splice(0)) ip("netns", "delete", namespace);
}

/** Finds a control network that nobody on this machine has. The name of its interface is what makes it ours. */
async function joinTests(hub: string, { links }: Made): Promise<{ controlNet: string; link: string }> {
  const { prefix, first, last } = controlNets;
  for (let third = first; third <= last; third++) {
    const link = `longshore-${third}`;
    try {
      await run("ip", ["link", "add", link, "type", "veth", "peer", "name", "tests", "netns", hub], { env });
    } catch (error) {
      if (String(error).includes("File exists")) continue;
      throw error;
    }
    links.push(link);
    await batch(hub, ["link set tests master control up"]);
    await batch(undefined, [`addr add ${prefix}.${third}.${controlPeer}/24 dev ${link}`, `link set ${link} up`]);
    return { controlNet: `${prefix}.${third}`, link };
  }
  throw new Error("all control networks are in use");
}

interface HostFacts extends Omit<Host, "name"> {
  readonly index: number;
}

async function joinHost(hub: string, { namespace, address, controlAddress, index }: HostFacts): Promise<void> {
  await batch(hub, [
    `link add d${index} type veth peer name data netns ${namespace}`,
    `link set d${index} master data up`,
    `link add c${index} type veth peer name control netns ${namespace}`,
    `link set c${index} master control up`,
  ]);
  await batch(namespace, [
    "link set lo up",
    `addr add ${address}/24 dev data`,
    "link set data up",
    `addr add ${controlAddress}/24 dev control`,
    "link set control up",
  ]);
}

const rules = `
table bridge longshore {
  set cut { type ipv4_addr . ipv4_addr; }
  chain lossy { }
  chain forward {
    type filter hook forward priority 0; policy accept;
    iifname "c*" accept
    oifname "c*" accept
    ip saddr . ip daddr @cut drop
    jump lossy
  }
}
`;

function switches(
  hub: string,
  hosts: ReadonlyMap<string, Host>,
): Omit<Network, "name" | "link" | "testsAddress" | "close"> {
  const host = (name: string) => {
    const found = hosts.get(name);
    if (found === undefined) throw new Error(`there is no host ${name}`);
    return found;
  };
  const pairs = (from: readonly string[], to: readonly string[]) =>
    from.flatMap((one) => to.map((other) => `${host(one).address} . ${host(other).address}`));
  const change = (verb: "add" | "delete", elements: readonly string[]) =>
    elements.length === 0
      ? Promise.resolve()
      : filter(hub, `${verb} element bridge longshore cut { ${elements.join(", ")} }`);
  const cutOneWay = (from: readonly string[], to: readonly string[]) => change("add", pairs(from, to));
  return {
    host,
    cutOneWay,
    cut: (one, other) => change("add", [...pairs(one, other), ...pairs(other, one)]),
    async heal(one, other) {
      if (one === undefined || other === undefined) return filter(hub, "flush set bridge longshore cut");
      const healed = [...pairs(one, other), ...pairs(other, one)];
      // What is not there cannot be deleted, so it is there first.
      await change("add", healed);
      await change("delete", healed);
    },
    async lose(percent) {
      const rule = `add rule bridge longshore lossy numgen random mod 1000 < ${Math.round(percent * 10)} drop`;
      await filter(hub, `flush chain bridge longshore lossy\n${percent > 0 ? rule : ""}`);
    },
    async divert(from, routes) {
      const rules = routes.map(
        ({ to, via }) =>
          `ip daddr ${host(to.host).address} tcp dport ${to.port} dnat to ${host(via.host).address}:${via.port}`,
      );
      const chain = `chain output {\ntype nat hook output priority -100;\n${rules.join("\n")}\n}`;
      const table = rules.length === 0 ? "" : `table ip diverted {\n${chain}\n}`;
      // Made first, so that there is one to delete.
      await filter(host(from).namespace, `table ip diverted\ndelete table ip diverted\n${table}`);
    },
    async slow(name, bytesPerSecond) {
      const { namespace } = host(name);
      const tc = (...words: string[]) => run("nsenter", [...inside(namespace), "tc", "qdisc", ...words], { env });
      const rate = ["rate", `${(bytesPerSecond ?? 0) * 8}bit`, "burst", "32kb", "latency", "200ms"];
      if (bytesPerSecond !== undefined) await tc("replace", "dev", "data", "root", "tbf", ...rate);
      else await tc("delete", "dev", "data", "root");
    },
  };
}

/**
 * Options of `nsenter` for a command in a namespace. `ip netns exec` would give it a copy of all mounts as well, and so keep
 * file systems of other tests, which run at the same time, from being unmounted for good.
 */
export function inside(namespace: string): string[] {
  return [`--net=/run/netns/${namespace}`, "--"];
}

async function batch(namespace: string | undefined, commands: readonly string[]): Promise<void> {
  const where = namespace === undefined ? [] : ["-netns", namespace];
  await feed("ip", [...where, "-batch", "-"], commands.join("\n"));
}

async function filter(namespace: string, script: string): Promise<void> {
  await feed("nsenter", [...inside(namespace), "nft", "-f", "-"], `${script}\n`);
}

async function feed(command: string, options: readonly string[], input: string): Promise<void> {
  const running = run(command, options, { env });
  running.child.stdin?.end(input);
  await running;
}
