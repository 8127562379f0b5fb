import { mkdir, open, readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { type Agent, openAgent } from "../../src/agent/agent.ts";
import { parseAgentConfig } from "../../src/agent/config.ts";
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { silentLog } from "../../src/base/log.ts";
import { openMetrics } from "../../src/base/metrics.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import { openAgentClient } from "../../src/wire/agent-client.ts";
import type { JobView, LocationView } from "../../src/wire/schemas.ts";
import { eventually } from "../e2e/process.ts";
import { type TestPki, testPki } from "../fakes/secure-agent.ts";

const mebibyte = 2 ** 20;
const cleanups: (() => unknown)[] = [];
let east: Site;
let west: Site;

/** A storage cluster of one real agent. */
interface Site {
  readonly pki: TestPki;
  readonly dataDir: string;
  agent: Agent;
  api: AgentApi;
}

beforeEach(async () => {
  [east, west] = await Promise.all([openSite("east"), openSite("west")]);
});

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

test("a volume migrates between two agents, first whole, then what changed, and its clone is equal byte for byte", async () => {
  await pair();
  const { path } = await east.api.putVolume("data", { sizeBytes: 4 * mebibyte, metadata: { pvc: "shop/db" } });
  await write(path, 0, "first");
  await east.api.putSnapshot("data", "s1");
  const first = await migrate("job-1", "s1");
  expect(first).toMatchObject({ state: "Succeeded", barrier: "Released", mode: { kind: "Allocated" } });
  await write(path, mebibyte, "second");
  await east.api.putSnapshot("data", "s2");
  const second = await migrate("job-2", "s2");
  expect(second).toMatchObject({ state: "Succeeded", mode: { kind: "Delta" }, bytesTotal: 4096 });
  const [migrated] = (await west.api.listMigratedVolumes()).items;
  expect(migrated).toMatchObject({ state: "Available", metadata: { pvc: "shop/db" }, sourceVolumeName: "data" });
  const clone = await west.api.putClone("copy", { migratedVolume: String(migrated?.name), point: "latest" });
  expect((await readFile(String(clone.path))).equals(await readFile(path))).toBe(true);
});

test("a new bandwidth limit holds for a job under way, and does not break it off", async () => {
  await consent();
  await east.api.putLocation("west", { ...locationOf(west), bytesPerSecondMax: 1024 });
  const { path } = await east.api.putVolume("data", { sizeBytes: 4 * mebibyte });
  await write(path, 0, "x".repeat(2 * mebibyte));
  await east.api.putSnapshot("data", "s1");
  await east.api.putJob("job-1", { volume: "data", location: "west", snapshot: "s1" });
  for await (const { barrier } of east.api.followJob("job-1", new AbortController().signal)) {
    if (barrier === "Frozen") break;
  }
  await east.api.putLocation("west", { ...locationOf(west), bytesPerSecondMax: 1024 * mebibyte });
  expect(await lastOf("job-1")).toMatchObject({ state: "Succeeded", attempts: 0 });
});

test("without consent the location says so, and the job goes on when it is given", async () => {
  await east.api.putLocation("west", locationOf(west));
  const refused = await settledLocation((location) => location.state !== "unknown");
  expect(refused.state).toBe("notConsented");
  await east.api.putVolume("data", { sizeBytes: mebibyte });
  await east.api.putSnapshot("data", "s1");
  await east.api.putJob("job-1", { volume: "data", location: "west", snapshot: "s1" });
  await consent();
  expect((await lastOf("job-1")).state).toBe("Succeeded");
});

test("a location whose bundle is another cluster's is untrusted, one where nobody listens unreachable", async () => {
  await east.api.putLocation("west", { ...locationOf(west), caBundle: east.pki.caPem });
  expect((await settledLocation((location) => location.state !== "unknown")).state).toBe("untrusted");
  await east.api.putLocation("west", { ...locationOf(west), caBundle: "not a certificate" });
  const unread = await settledLocation((location) => location.message.includes("PEM"));
  expect(unread.state).toBe("untrusted");
  await east.api.putLocation("west", { ...locationOf(west), seeds: ["127.0.0.1:99999"] });
  expect((await settledLocation((location) => location.state === "unreachable")).message).toContain(":99999");
  await east.api.putLocation("west", { ...locationOf(west), seeds: ["127.0.0.1:1"] });
  const silent = await settledLocation(
    (location) => location.message.includes("127.0.0.1:1:") || location.message.endsWith("127.0.0.1:1"),
  );
  expect(silent.state).toBe("unreachable");
});

test("a restarted agent is the same one, with what it had; a second one on its data is refused", async () => {
  await east.api.putVolume("data", { sizeBytes: mebibyte });
  const before = await east.api.describe();
  await expect(start(east.pki, east.dataDir)).rejects.toMatchObject({ code: "InUse" });
  await east.agent.close();
  const again = await start(east.pki, east.dataDir);
  const api = await clientOf(east.pki, again);
  expect(await api.describe()).toMatchObject({ agentId: before.agentId, clusterUid: before.clusterUid });
  expect((await api.listVolumes()).items).toHaveLength(1);
});

test("agents of one cluster meet by a seed, and a client of either learns of both", async () => {
  const dataDir = join(east.pki.dir, "..", "data-2");
  await mkdir(dataDir);
  const other = await start(east.pki, dataDir, { node: "node-2", seeds: [east.agent.address] });
  const otherApi = await clientOf(east.pki, other);
  for (const api of [east.api, otherApi]) await sees(api, "node-1 alive, node-2 alive");
  const { agentId } = await otherApi.describe();
  await other.close();
  await sees(east.api, "node-1 alive, node-2 unreachable");
  await east.api.forgetMember(agentId);
  await sees(east.api, "node-1 alive");
});

async function sees(api: AgentApi, expected: string): Promise<void> {
  await eventually(`${expected} being seen`, async () => {
    const { members } = await api.describe();
    const seen = members.map(({ node, state }) => `${node} ${state}`).sort();
    if (seen.join(", ") !== expected) throw new Error(`seen: ${seen.join(", ")}`);
    return true;
  });
}

test("a certificate of another role, or of another cluster than the data, is refused before anything listens", async () => {
  const { pki, dataDir } = east;
  await pki.credentials("operator");
  const config = configOf(pki, dataDir);
  await expect(openAgent({ ...config, tls: pki.files("operator") }, parts())).rejects.toThrow("role operator");
  await east.agent.close();
  await expect(openAgent({ ...config, tls: west.pki.files("agent") }, parts())).rejects.toMatchObject({
    code: "BadRequest",
    message: expect.stringContaining(west.pki.clusterUid),
  });
});

async function openSite(name: string): Promise<Site> {
  const pki = await testPki(name);
  cleanups.push(() => pki.remove());
  await pki.credentials("agent");
  const dataDir = join(pki.dir, "..", "data");
  await mkdir(dataDir);
  const agent = await start(pki, dataDir);
  return { pki, dataDir, agent, api: await clientOf(pki, agent) };
}

async function start(pki: TestPki, dataDir: string, more: object = {}): Promise<Agent> {
  const agent = await openAgent(configOf(pki, dataDir, more), parts());
  cleanups.push(() => agent.close());
  return agent;
}

async function clientOf(pki: TestPki, agent: Agent): Promise<AgentApi> {
  const client = openAgentClient({ addresses: [agent.address], credentials: await pki.credentials("operator") });
  cleanups.push(() => client.close());
  return client;
}

function configOf(pki: TestPki, dataDir: string, more: object = {}) {
  const tree = {
    clusterName: "test",
    node: "node-1",
    listen: "127.0.0.1:0",
    laneListen: "127.0.0.1:0",
    dataDir,
    backend: "copy",
    tls: pki.files("agent"),
    limits: {
      probeInterval: "200ms",
      retryDelay: "50ms",
      retryDelayMax: "200ms",
      attemptsMax: 1000,
      memberInterval: "100ms",
    },
    ...more,
  };
  return parseAgentConfig(tree, { file: "test", folder: "/" });
}

function parts() {
  return { version: "0.0.0", clock: systemClock, dice: systemDice, log: silentLog, metrics: openMetrics() };
}

function locationOf({ pki, agent }: Site) {
  return { clusterName: "west", clusterUid: pki.clusterUid, seeds: [agent.address], caBundle: pki.caPem };
}

async function consent(): Promise<void> {
  await west.api.putSource("east", { clusterName: "east", clusterUid: east.pki.clusterUid, caBundle: east.pki.caPem });
}

async function pair(): Promise<void> {
  await consent();
  await east.api.putLocation("west", locationOf(west));
}

async function migrate(job: string, snapshot: string): Promise<JobView> {
  await east.api.putJob(job, { volume: "data", location: "west", snapshot });
  return lastOf(job);
}

async function lastOf(job: string): Promise<JobView> {
  let last: JobView | undefined;
  for await (const view of east.api.followJob(job, new AbortController().signal)) last = view;
  if (last === undefined) throw new Error(`following ${job} gave nothing`);
  return last;
}

async function settledLocation(done: (location: LocationView) => boolean): Promise<LocationView> {
  const { sequence } = await east.api.listLocations();
  const now = await east.api.getLocation("west");
  if (done(now)) return now;
  for await (const _ of east.api.changes(sequence, new AbortController().signal)) {
    const location = await east.api.getLocation("west");
    if (done(location)) return location;
  }
  throw new Error("the change stream ended");
}

async function write(path: string, offset: number, text: string): Promise<void> {
  const file = await open(path, "r+");
  await file.write(Buffer.from(text), 0, text.length, offset);
  await file.sync();
  await file.close();
}
