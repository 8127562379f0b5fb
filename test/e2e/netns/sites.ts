// Two storage clusters of several real agents each, on a network of their own: the one sends, the other receives, and each
// agent is a process that tests do bad things to. What every point has to hold is noted when its snapshot is taken.
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../../src/base/clock.ts";
import { systemDice } from "../../../src/base/dice.ts";
import type { Role } from "../../../src/domain/identity.ts";
import { initAuthority, issueInto } from "../../../src/pki/folder.ts";
import { openCredentials } from "../../../src/wire/credentials.ts";
import type { LocationSpec, SourceSpec } from "../../../src/wire/schemas.ts";
import { temporaryFolder } from "../../fakes/temporary-folder.ts";
import { eventually } from "../process.ts";
import { apiPort, GatedAgent } from "./gated-agent.ts";
import { type Host, type Network, openNetwork } from "./network.ts";

const mebibyte = 2 ** 20;
export const leaseMs = 2_000;

/** A host of nobody's, for what stands between the agents. */
export const between = "between";

const limits = {
  unit: "64Ki",
  window: "512Ki",
  lease: `${leaseMs}ms`,
  retryDelay: "100ms",
  retryDelayMax: "500ms",
  memberInterval: "300ms",
  probeInterval: "2s",
  // More than the journal gives up when the disk is full: what it makes room for then is not for data.
  reserve: "9Mi",
  // Trying is bounded by the tests, not by the engine: how often a busy machine makes it try is not known.
  attemptsMax: 10_000,
};

export interface SitesOptions {
  readonly agentsPerSite?: number;
  readonly diskBytes?: number;
  readonly limits?: Readonly<Record<string, string | number>>;
}

export interface Site {
  readonly name: string;
  readonly uid: string;
  readonly agents: readonly GatedAgent[];
  /** By the id that the agents know each other by. */
  agent(id: string): GatedAgent;
  asLocation(): LocationSpec;
  asSource(): SourceSpec;
}

export interface Sites {
  readonly folder: string;
  readonly network: Network;
  readonly source: Site;
  readonly target: Site;
  readonly agents: readonly GatedAgent[];
  /** Everything runs, nothing is cut or held, and all agents of a site see each other. */
  ready(): Promise<void>;
  close(): Promise<void>;
}

/** The name under which each agent of the source knows the target, and the other way round. */
export const locationName = "far";

export async function openSites({ agentsPerSite = 3, ...options }: SitesOptions = {}): Promise<Sites> {
  const closers: (() => Promise<void>)[] = [];
  const close = async () => {
    for (const closer of closers.splice(0).reverse()) await closer();
  };
  try {
    const folder = await temporaryFolder("netns");
    closers.push(() => folder.remove());
    const numbers = Array.from({ length: agentsPerSite }, (_, index) => index + 1);
    const hostNames = ["source", "target"].flatMap((site) => numbers.map((number) => `${site}-${number}`));
    const network = await openNetwork([...hostNames, between]);
    closers.push(() => network.close());
    const open = (name: string) => {
      const hosts = numbers.map((number) => network.host(`${name}-${number}`));
      return openSite({ ...options, name, hosts, folder: join(folder.path, name) }, closers);
    };
    const source = await open("source");
    const target = await open("target");
    const sites = joined({ folder: folder.path, network, source, target }, close);
    await sites.ready();
    await Promise.all(
      target.agents.map(({ api }) => api.putSource(locationName, { ...source.asSource(), pointsKept: 3 })),
    );
    await Promise.all(source.agents.map(({ api }) => api.putLocation(locationName, target.asLocation())));
    return sites;
  } catch (error) {
    await close();
    throw error;
  }
}

interface SiteFacts extends SitesOptions {
  readonly name: string;
  readonly hosts: readonly Host[];
  readonly folder: string;
}

async function openSite(
  { name, hosts, folder, ...options }: SiteFacts,
  closers: (() => Promise<void>)[],
): Promise<Site> {
  const pki = join(folder, "pki");
  const uid = await makeKeys(pki, name, hosts);
  const caBundle = await readFile(join(pki, "ca.crt"), "utf8");
  const keys = { certFile: join(pki, "operator.crt"), keyFile: join(pki, "operator.key"), caFile: join(pki, "ca.crt") };
  const credentials = await openCredentials(keys);
  closers.push(async () => credentials.close());
  const seeds = hosts.map(({ address }) => `${address}:${apiPort}`);
  const agents: GatedAgent[] = [];
  for (const host of hosts) {
    const own = join(folder, host.name);
    await mkdir(own, { recursive: true });
    const agent = new GatedAgent({
      host,
      clusterName: name,
      pki,
      credentials,
      folder: own,
      seeds,
      diskBytes: options.diskBytes ?? 192 * mebibyte,
      limits: { ...limits, ...options.limits },
    });
    agents.push(agent);
    closers.push(() => agent.dispose());
    await agent.prepare();
  }
  return {
    name,
    uid,
    agents,
    agent(id) {
      const found = agents.find((agent) => agent.id === id);
      if (found === undefined) throw new Error(`site ${name} has no agent ${id}`);
      return found;
    },
    asLocation: () => ({ clusterName: name, clusterUid: uid, seeds, caBundle }),
    asSource: () => ({ clusterName: name, clusterUid: uid, caBundle }),
  };
}

async function makeKeys(pki: string, clusterName: string, hosts: readonly Host[]): Promise<string> {
  const context = { clock: systemClock, dice: systemDice };
  const { clusterUid } = await initAuthority(pki, { clusterName }, context);
  const names = hosts.flatMap(({ address, controlAddress }) => [address, controlAddress]);
  for (const role of ["agent", "operator"] as const satisfies Role[]) {
    await issueInto(pki, { role, names, days: 1, name: role, renew: false }, context);
  }
  return clusterUid;
}

function joined(facts: Pick<Sites, "folder" | "network" | "source" | "target">, close: () => Promise<void>): Sites {
  const { network, source, target } = facts;
  const agents = [...source.agents, ...target.agents];
  return {
    ...facts,
    agents,
    close,
    async ready() {
      await network.heal();
      await Promise.all(agents.map((agent) => agent.ready()));
      for (const site of [source, target])
        await eventually(`the agents of ${site.name} seeing each other`, () => met(site));
    },
  };
}

/** True once every agent of the site sees every other alive. */
async function met({ agents }: Site): Promise<true | undefined> {
  const views = await Promise.all(agents.map(({ api }) => api.describe()));
  const alive = views.map(({ members }) => members.filter(({ state }) => state === "alive").length);
  return alive.every((count) => count === agents.length) ? true : undefined;
}
