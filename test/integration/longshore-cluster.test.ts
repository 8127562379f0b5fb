// One command line against clusters of several engines: whichever agent is asked, it is the cluster that answers.
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import { openClusterClient } from "../../src/wire/cluster-client.ts";
import type { Member } from "../../src/wire/schemas.ts";
import { type Cluster, type Clusters, openClusters } from "../fakes/engines.ts";

let clusters: Clusters;
let agents: [Cluster, Cluster, Cluster];
let silent: string[];

beforeEach(async () => {
  clusters = await openClusters({ west: 3 }, { inMemory: true });
  agents = clusters.of("west") as unknown as [Cluster, Cluster, Cluster];
  silent = [];
  for (const { engine } of agents) while ((await engine.api.describe()).members.length < 3) await metAgain();
});

afterEach(() => clusters.close());

const metAgain = () => new Promise((resolve) => setTimeout(resolve, 5));

/** The cluster as it is seen by asking one agent. */
function through(first: Cluster) {
  return openClusterClient({
    first: first.engine.api,
    open(address) {
      const agent = agents.find(({ name }) => address === `${name}:1`) as Cluster;
      return { ...agent.engine.api, close: async () => undefined };
    },
    onSilent: ({ node }: Member) => void silent.push(node),
  });
}

test("lists are those of all agents", async () => {
  for (const [index, { engine }] of agents.entries()) await engine.api.putVolume(`v${index}`, { sizeBytes: 4096 });
  for (const agent of agents) {
    const { items } = await through(agent).listVolumes();
    expect(items.map(({ name }) => name).sort()).toEqual(["v0", "v1", "v2"]);
  }
  expect(silent).toEqual([]);
});

test("a request goes to the agent that has what it is about, a new volume to the one asked", async () => {
  const [first, second, third] = agents;
  await second.engine.api.putVolume("data", { sizeBytes: 4096 });
  const cluster = through(third);
  await cluster.putVolume("data", { sizeBytes: 8192 });
  expect((await second.engine.api.getVolume("data")).sizeBytes).toBe(8192);
  expect(await cluster.putSnapshot("data", "s1")).toMatchObject({ volume: "data", state: "sealed" });
  await cluster.putVolume("new", { sizeBytes: 4096 });
  expect((await third.engine.api.getVolume("new")).sizeBytes).toBe(4096);
  await through(first).removeVolume("new");
  await expect(cluster.getVolume("new")).rejects.toMatchObject({ code: "NotFound" });
});

test("a volume is made at the agent that is named, and its clone where it is", async () => {
  const [first, second, third] = agents;
  const cluster = through(first);
  const nodes = (await cluster.agents()).map(({ node }) => node);
  expect(nodes.sort()).toEqual(["node-west-1", "node-west-2", "node-west-3"]);
  const made = await cluster.putVolumeAt(third.engine.agentId, "data", { sizeBytes: 4096 });
  expect(made.home).toBe(third.engine.agentId);
  await expect(cluster.putVolumeAt(second.engine.agentId, "data", { sizeBytes: 4096 })).rejects.toMatchObject({
    code: "NameTaken",
  });
  const copy = await cluster.putVolume("copy", { sizeBytes: 4096, from: { volume: "data" } });
  expect(copy).toMatchObject({ home: third.engine.agentId, from: { volume: "data" } });
});

test("what is set for the cluster is set on every agent", async () => {
  await through(agents[0]).putSource("east", { clusterName: "east", caBundle: "ca" });
  for (const { engine } of agents) expect((await engine.api.listSources()).items).toHaveLength(1);
});

test("an agent that does not answer is named once, and what it may have is not said to be missing", async () => {
  const [first, , third] = agents;
  await silence(third);
  const cluster = through(first);
  expect((await cluster.listVolumes()).items).toEqual([]);
  await expect(cluster.getVolume("data")).rejects.toMatchObject({ code: "Unreachable" });
  expect(silent).toEqual(["node-west-3"]);
});

test("a job of a volume whose agent answers is started while another agent is away", async () => {
  const [first, second, third] = agents;
  await second.engine.api.putVolume("data", { sizeBytes: 4096 });
  await through(first).putLocation("east", { clusterName: "east", seeds: ["east:1"], caBundle: "ca" });
  await silence(third);
  const cluster = through(first);
  await cluster.putSnapshot("data", "s1");
  await cluster.putJob("job-1", { volume: "data", location: "east", snapshot: "s1" });
  expect((await second.engine.api.getJob("job-1")).spec.volume).toBe("data");
  await expect(cluster.putVolume("new", { sizeBytes: 4096 })).rejects.toMatchObject({ code: "Unreachable" });
});

/** Stops it; calls of its API then fail as those over a network. */
async function silence({ engine, stop }: Cluster): Promise<void> {
  await stop();
  const fails = () => Promise.reject(new LongshoreError("Unreachable", "no answer"));
  const api = Object.fromEntries(Object.keys(engine.api).map((method) => [method, fails]));
  Object.assign(engine, { api });
}
