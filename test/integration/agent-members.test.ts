// What agents say to each other over HTTP: within a cluster, and to the target cluster about groups. Each call arrives as it
// was made, and its answer comes back as it was given.
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { openAgentClient } from "../../src/wire/agent-client.ts";
import type { MemberApi, Order, ShareSpec } from "../../src/wire/member.ts";
import { type MemberClientOptions, openMemberClient } from "../../src/wire/member-client.ts";
import type { PeerApi } from "../../src/wire/peer.ts";
import { openPeerClient } from "../../src/wire/peer-client.ts";
import { memberRoutes } from "../../src/wire/routes.ts";
import { type SecureAgent, secureAgent, type TestPki, testPki } from "../fakes/secure-agent.ts";

let east: TestPki;
let west: TestPki;
let agent: SecureAgent;
let member: MemberApi & { close(): Promise<void> };
let peer: PeerApi & { close(): Promise<void> };

beforeAll(async () => {
  [east, west] = await Promise.all([testPki("east"), testPki("west")]);
  agent = await secureAgent(east);
  const options: MemberClientOptions = { address: agent.server.address, credentials: await east.credentials("agent") };
  member = openMemberClient(options);
  const credentials = await west.credentials("agent");
  peer = openPeerClient({ seeds: [agent.server.address], caBundle: east.caPem, credentials });
});

beforeEach(async () => {
  agent.reset();
  await agent.fake.putSource("west", { clusterName: "west", clusterUid: west.clusterUid, caBundle: west.caPem });
});

afterEach(() => {
  agent.member.asked.length = 0;
  agent.member.answers.clear();
});

afterAll(async () => {
  await member.close();
  await peer.close();
  await agent.close();
  await Promise.all([east.remove(), west.remove()]);
});

const id = (digit: string) => digit.repeat(32);
const digest = "d".repeat(64);
const known = {
  agentId: "a1",
  node: "n1",
  address: "10.0.0.1:7420",
  laneAddress: "10.0.0.1:7421",
  incarnation: 1,
  state: "member",
} as const;
const meeting = { self: known, members: [known] };
const copies = { copies: [{ volume: "v1", agentId: "a1", isMade: true, points: 2, epoch: 5 }], freeBytes: 1 };
const part = { group: "shop.db", groupPoint: id("a"), name: "s1" };
const share: ShareSpec = {
  spec: { group: { name: "shop.db", volumes: ["data"] }, location: "west", snapshot: "s1" },
  groupPoint: id("a"),
  to: { pointId: id("a"), generation: 1, sourceTime: "2026-01-01T00:00:00.000Z", sizeBytes: 4096 },
  steered: 0,
  participants: [{ agentId: "a1", volumes: [{ name: "data", uid: "v1", toId: id("b"), sizeBytes: 4096 }] }],
};
const order: Order = {
  term: { epoch: 3, nonce: id("0") },
  coordinator: "a1",
  step: "Joined",
  targetClusterUid: "uid",
  group: { name: "shop.db", home: "t1" },
  homes: [{ volume: "v1", member: { agentId: "t1", node: "n", address: "10.0.0.2:1", laneAddress: "10.0.0.2:2" } }],
};
const report = {
  agentId: "a1",
  job: "job-1",
  epoch: 3,
  state: "idle",
  step: null,
  problem: null,
  finishedAs: null,
  steering: { steered: 0, suspend: false, cancel: false },
  shares: [],
} as const;

describe("within a cluster", () => {
  test.each<[keyof MemberApi, readonly unknown[], unknown]>([
    ["meet", [meeting], meeting],
    ["acquaintance", [], { isAcquainted: true }],
    [
      "claimName",
      [{ agentId: "a1", name: "data", uid: "v1" }],
      { takenBy: { agentId: "a2", isAway: true }, knows: ["a2"] },
    ],
    ["claimName", [{ agentId: "a1", name: "data", uid: "v1" }], { takenBy: null, knows: [] }],
    ["volumeNames", [{ agentId: "a1" }], { volumes: [{ name: "data", uid: "v1" }] }],
    ["copies", [{ clusterUid: "uid", volumes: ["v1"] }], copies],
    ["place", [{ clusterUid: "uid", volumes: [{ volume: "v1", sizeBytes: 4096 }], group: "shop.db" }], copies],
    [
      "decision",
      [{ clusterUid: "uid", group: "shop.db", groupPoint: id("a"), epoch: 3 }],
      { kind: "aborted", epoch: 4 },
    ],
    ["memberOutcome", [{ clusterUid: "uid", volume: "v1", groupPoint: id("a") }], { outcome: "prepared" }],
    ["holdings", [{ volumes: ["data"] }], { volumes: [] }],
    ["freeze", [{ group: "shop.db", groupPoint: id("a"), volumes: ["data"], timeoutMs: 10_000 }], undefined],
    ["snapshotFrozen", [part], undefined],
    ["thaw", [{ group: "shop.db", groupPoint: id("a") }], { wasFrozen: true, frozenMs: 12.5 }],
    ["confirmGroup", [part], { snapshots: [] }],
    ["discardGroup", [part], undefined],
    ["takeShare", ["job-1", share], report],
    ["shareReport", ["job-1"], report],
    ["shareReport", ["job-2"], undefined],
    ["order", ["job-1", order], report],
    ["pauseShare", ["job-1", order.term], undefined],
  ])("%s", async (method, args, answer) => {
    agent.member.answers.set(method, answer);
    const call = member[method] as (...values: unknown[]) => Promise<unknown>;
    expect(await call(...args)).toEqual(answer);
    expect(agent.member.asked).toEqual([{ method, args }]);
  });

  test("there is a call here for every route", () => {
    expect(Object.keys(memberRoutes)).toHaveLength(18);
  });

  test("what fails comes back with its code", async () => {
    await expect(member.shareReport("job-1")).rejects.toMatchObject({ code: "Unsupported" });
  });
});

describe("what is meant for one agent", () => {
  const other = "00000000-0000-4000-8000-000000000009";

  test("is answered by it", async () => {
    const { agentId } = agent.fake.view;
    const credentials = await east.credentials("agent");
    const client = openMemberClient({ address: agent.server.address, agentId, credentials });
    agent.member.answers.set("memberOutcome", { outcome: "none" });
    const query = { clusterUid: "uid", volume: "v1", groupPoint: id("a") };
    expect(await client.memberOutcome(query)).toEqual({ outcome: "none" });
    await client.close();
  });

  test("is not answered by another one at its address: neither to agents, nor to a foreign cluster, nor to people", async () => {
    const { address } = agent.server;
    const credentials = await east.credentials("agent");
    const foreign = await west.credentials("agent");
    const clients = {
      member: openMemberClient({ address, agentId: other, credentials }),
      peer: openPeerClient({ seeds: [address], agentId: other, caBundle: east.caPem, credentials: foreign }),
      agent: openAgentClient({ addresses: [address], agentId: other, credentials: await east.credentials("admin") }),
    };
    const refusal = { code: "Unreachable", message: expect.stringContaining(`agent ${other} is not here any more`) };
    await expect(clients.member.shareReport("job-1")).rejects.toMatchObject(refusal);
    await expect(clients.peer.report("v1")).rejects.toMatchObject(refusal);
    await expect(clients.agent.listVolumes()).rejects.toMatchObject(refusal);
    expect(agent.member.asked).toEqual([]);
    for (const client of Object.values(clients)) await client.close();
  });
});

describe("about groups, to the target", () => {
  const claim = { group: "shop.db", job: "j", groupPoint: id("a"), claimant: "a1", nonce: id("0"), offeredEpoch: 7 };

  test("homes are asked for", async () => {
    const homes = await peer.locate({ volumes: [{ volume: "v1", sizeBytes: 4096 }], group: "shop.db" });
    expect(homes).toMatchObject({ clusterUid: east.clusterUid, homes: [{ volume: "v1" }], groupHome: "agent-1" });
  });

  test("a group goes from its claim over votes and the decision to its release", async () => {
    expect(await peer.reportGroup("shop.db")).toBeUndefined();
    const { term } = await peer.claimGroup(claim);
    expect(term).toEqual({ epoch: 8, nonce: id("0") });
    const target = { group: "shop.db", term };
    await peer.renewGroup(target);
    await vote();
    expect(await peer.settle("v1")).toMatchObject({ prepared: { groupPoint: id("a"), epoch: 1 } });
    const members = [{ volume: "v1", agentId: "agent-1", baseId: null, toId: id("b"), planDigest: digest }];
    const record = await peer.commitGroup(target, { groupPoint: id("a"), members });
    expect(record).toMatchObject({ groupPoint: id("a"), epoch: 8, members });
    expect(await peer.settle("v1")).not.toHaveProperty("prepared");
    const decided = { group: { name: "shop.db", home: "agent-1" }, groupPoint: id("a") };
    await peer.joinGroupPoint("v1", decided);
    expect(agent.peers.get(west.clusterUid)?.joined).toEqual([{ volume: "v1", decided }]);
    await peer.releaseGroup(target);
    expect(await peer.reportGroup("shop.db")).toMatchObject({ isTermLive: false, commits: [record] });
  });

  async function vote(): Promise<void> {
    const common = { job: "j", volume: "v1", name: "data", metadata: {}, sizeBytes: 4096, claimant: "a1" };
    const { term } = await peer.claim({ ...common, nonce: id("0"), offeredEpoch: 0 });
    const to = { pointId: id("b"), generation: 1, sourceTime: "2026-01-01T00:00:00.000Z", sizeBytes: 4096 };
    const mode = { kind: "Full", reason: "FirstCopy" } as const;
    const plan = { unitCount: 0, bytesData: 0, bytesPunched: 0, planDigest: digest, diverged: false };
    await peer.putPlan({ volume: "v1", term }, { job: "j", baseId: null, to, mode, ...plan, groupPoint: id("a") });
    await peer.prepare(
      { volume: "v1", term },
      {
        baseId: null,
        toId: id("b"),
        planDigest: digest,
        groupPoint: id("a"),
        members: [{ volume: "v1", agentId: "t" }],
      },
    );
  }

  test("under another term nothing is done", async () => {
    await peer.claimGroup(claim);
    const target = { group: "shop.db", term: { epoch: 1, nonce: id("0") } };
    for (const call of [peer.renewGroup(target), peer.abortGroup(target), peer.releaseGroup(target)]) {
      await expect(call).rejects.toMatchObject({ code: "TermLost" });
    }
  });
});
