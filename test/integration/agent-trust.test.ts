import { once } from "node:events";
import { type AddressInfo, connect as connectTcp, createServer } from "node:net";
import { setTimeout as pause } from "node:timers/promises";
import { connect, type TLSSocket } from "node:tls";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import { type Role, roles } from "../../src/domain/identity.ts";
import { issueCertificate, makeAuthority } from "../../src/pki/certificate.ts";
import { readAuthority } from "../../src/pki/folder.ts";
import { openAgentClient } from "../../src/wire/agent-client.ts";
import type { Credentials } from "../../src/wire/credentials.ts";
import { openPeerClient } from "../../src/wire/peer-client.ts";
import { agentRoutes, memberRoutes, peerRoutes, type Route, type RouteGroup } from "../../src/wire/routes.ts";
import { FakePeer } from "../fakes/fake-peer.ts";
import { rawRequest } from "../fakes/raw-request.ts";
import { type SecureAgent, secureAgent, type TestPki, testPki } from "../fakes/secure-agent.ts";

const dayMs = 24 * 3_600_000;
let east: TestPki;
let west: TestPki;
let agent: SecureAgent;
const closers: (() => unknown)[] = [];

beforeAll(async () => {
  [east, west] = await Promise.all([testPki("east"), testPki("west")]);
  agent = await secureAgent(east);
});

beforeEach(() => agent.reset());

afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

afterAll(async () => {
  await agent.close();
  await Promise.all([east.remove(), west.remove()]);
});

/** What is allowed by itself, though it is of a group: to look at what has arrived, without removing it. */
type Part = "migratedVolumesRead";

/** A request that every group has, and that a caller who may is answered with something else than 401, 403 or 404. */
const samples: Record<RouteGroup | Part, { method?: string; path: string; body?: string }> = {
  agent: { path: "/v1/agent" },
  members: { method: "DELETE", path: "/v1/members/00000000-0000-4000-8000-000000000001" },
  volumes: { path: "/v1/volumes" },
  locations: { path: "/v1/locations" },
  jobs: { path: "/v1/jobs" },
  sources: { path: "/v1/sources" },
  migratedVolumes: { method: "DELETE", path: "/v1/migrated-volumes/data" },
  migratedVolumesRead: { path: "/v1/migrated-volumes" },
  clones: { path: "/v1/clones" },
  changes: { path: "/v1/changes?since=x" },
  member: { method: "POST", path: "/v1/member/meet", body: "{}" },
  peer: { path: "/v1/peer/hello" },
};

test("every group of routes has a sample here", () => {
  const groups = Object.values<Route>({ ...agentRoutes, ...memberRoutes, ...peerRoutes }).map((route) => route.group);
  expect([...new Set([...groups, "migratedVolumesRead"])].sort()).toEqual(Object.keys(samples).sort());
});

const everything = "agent members volumes locations jobs sources migratedVolumes migratedVolumesRead clones changes";

describe("roles", () => {
  test.each([
    // whose, role, what they may use, what the others answer
    ["own", "operator", everything, 403],
    ["own", "admin", everything, 403],
    ["own", "csi", "agent volumes migratedVolumesRead clones", 403],
    ["own", "agent", "agent jobs member", 403],
    ["foreign", "agent", "peer", 404],
    ["foreign", "operator", "", 404],
    ["foreign", "admin", "", 404],
    ["foreign", "csi", "", 404],
  ] as const)("%s %s may use [%s], and the rest answers %i", async (whose, role, allowed, status) => {
    await consent();
    const show = (await (whose === "own" ? east : west).credentials(role)).current();
    for (const [group, request] of Object.entries(samples)) {
      const answer = await rawRequest(agent.server.address, { ...request, show });
      const may = allowed.split(" ").includes(group);
      expect([group, [401, 403, 404].includes(answer.status)]).toEqual([group, !may]);
      if (!may) expect([group, answer.status, answer.type]).toEqual([group, status, "application/problem+json"]);
    }
  });

  test("a foreign agent cannot tell what exists from what does not", async () => {
    await consent();
    await agent.fake.putVolume("data", { sizeBytes: 4096 });
    const show = (await west.credentials("agent")).current();
    const [there, missing] = await Promise.all(
      ["/v1/volumes/data", "/v1/nothing"].map((path) => rawRequest(agent.server.address, { path, show })),
    );
    const worded = (answer: typeof there, path: string) => ({
      ...answer?.json,
      detail: answer?.json?.detail === `there is no GET ${path}`,
    });
    expect(worded(there, "/v1/volumes/data")).toEqual(worded(missing, "/v1/nothing"));
    expect(there?.status).toBe(404);
  });

  test.each(roles)("health needs no certificate, metrics and the document one of this cluster (%s)", async (role) => {
    const show = (await east.credentials(role)).current();
    const foreign = (await west.credentials(role)).current();
    for (const path of ["/healthz", "/readyz"]) expect((await ask(path)).status).toBe(200);
    for (const path of ["/metrics", "/v1/openapi.json"]) {
      expect((await ask(path, show)).status).toBe(200);
      expect((await ask(path)).json).toMatchObject({ status: 401, code: "Unauthenticated" });
      expect((await ask(path, foreign)).status).toBe(401);
    }
    expect((await ask("/metrics", show)).text).toContain("longshore_agent_request_seconds");
  });
});

describe("who is not let in is told why", () => {
  test("without a certificate: 401", async () => {
    const answer = await ask("/v1/volumes");
    expect(answer.type).toBe("application/problem+json");
    expect(answer.json).toMatchObject({
      status: 401,
      code: "Unauthenticated",
      type: "urn:longshore:problem:Unauthenticated",
    });
    expect(answer.json?.advice).not.toBe("");
  });

  test("a stranger on the peer routes: 403 NotConsented, elsewhere 401", async () => {
    const show = (await west.credentials("agent")).current();
    expect((await ask("/v1/peer/hello", show)).json).toMatchObject({ status: 403, code: "NotConsented" });
    expect((await ask("/v1/volumes", show)).json).toMatchObject({ status: 401, code: "Unauthenticated" });
  });

  test("a certificate of ours that has expired, or is not valid yet", async () => {
    for (const shiftMs of [-200 * dayMs, 10 * dayMs]) {
      const show = await issued(east, { shiftMs });
      const { json } = await ask("/v1/volumes", show);
      expect(json).toMatchObject({ status: 401, detail: expect.stringContaining("it is valid from") });
    }
  });

  test("a certificate without our URI name", async () => {
    const { pair } = await readAuthority(east.dir);
    const { json } = await ask("/v1/volumes", { cert: pair.cert, key: pair.key });
    expect(json).toMatchObject({ status: 401, detail: expect.stringContaining("URI name") });
  });

  test("a self-made CA that names itself like ours", async () => {
    const forged = await makeAuthority(
      { clusterName: "east", clusterUid: east.clusterUid },
      systemClock.nowMs(),
      systemDice,
    );
    const show = await issueBy(forged, east.clusterUid, "operator");
    expect((await ask("/v1/volumes", show)).json).toMatchObject({ status: 401, code: "Unauthenticated" });
  });
});

describe("a CA speaks for its own cluster only", () => {
  test("not for ours, though it is consented", async () => {
    await consent();
    const forged = { ...(await authorityOf(west)), clusterUid: east.clusterUid };
    for (const role of roles) {
      const show = await issueBy(await relabelled(forged.pair, east.clusterUid), east.clusterUid, role);
      expect((await ask("/v1/volumes", show)).status).toBe(401);
    }
  });

  test("not for another consented one, whether its own cluster is known or not", async () => {
    const north = await testPki("north");
    closers.push(() => north.remove());
    await consent();
    const show = await issueBy(
      await relabelled((await authorityOf(north)).pair, west.clusterUid),
      west.clusterUid,
      "agent",
    );
    for (const clusterUid of [north.clusterUid, undefined]) {
      const known = clusterUid === undefined ? {} : { clusterUid };
      await agent.fake.putSource("north", { clusterName: "north", caBundle: north.caPem, ...known });
      expect((await ask("/v1/peer/hello", show)).json).toMatchObject({ status: 403, code: "NotConsented" });
    }
  });

  test("a consent for a known cluster takes no other one of the same CA", async () => {
    await agent.fake.putSource("west", { clusterName: "west", caBundle: west.caPem, clusterUid: "another" });
    const show = (await west.credentials("agent")).current();
    expect((await ask("/v1/peer/hello", show)).json).toMatchObject({ status: 403, code: "NotConsented" });
  });

  test("a consent with a damaged bundle trusts nobody and breaks nothing", async () => {
    await agent.fake.putSource("broken", { clusterName: "west", caBundle: "not a certificate" });
    await consent();
    const show = (await west.credentials("agent")).current();
    expect((await ask("/v1/peer/hello", show)).status).toBe(200);
  });
});

describe("consent", () => {
  test("given is in force with the next request, withdrawn too, on a connection that stays open", async () => {
    const socket = await keptConnection(await west.credentials("agent"));
    await consent();
    expect(await askOver(socket, "/v1/peer/hello")).toBe(200);
    expect(await askOver(socket, "/v1/peer/hello")).toBe(200);
    await agent.fake.removeSource("west");
    expect(await askOver(socket, "/v1/peer/hello")).toBe(403);
  });

  test("a session cannot be resumed past a certificate", async () => {
    const credentials = await east.credentials("operator");
    const first = await keptConnection(credentials);
    const session = await new Promise<Buffer | undefined>((resolve) => {
      first.once("session", resolve);
      void askOver(first, "/healthz").then(() => resolve(first.getSession()));
    });
    const again = await keptConnection(credentials, session);
    expect(again.isSessionReused()).toBe(false);
    expect(await askOver(again, "/v1/volumes")).toBe(200);
  });
});

describe("the client of another cluster", () => {
  test("goes the whole protocol under its own cluster's name", async () => {
    await consent();
    const peer = await peerClient();
    expect(await peer.hello()).toMatchObject({ clusterUid: east.clusterUid });
    expect(await peer.report("vol-1")).toBeUndefined();
    const { term } = await peer.claim(claim);
    const target = { volume: "vol-1", term };
    await peer.renew(target);
    await peer.putPlan(target, header);
    await peer.putPlanPage(target, { first: 0, units: [[[0, 4096, 1]]] });
    expect(await peer.freeze(target)).toEqual({ stored: [] });
    expect((await peer.laneTicket(target, { lane: 3, transport: "tls" })).ticket).toMatch(/3$/);
    const stored = await peer.store(target, {
      lane: 3,
      verification: "media",
      units: [{ index: 0, digest: "a".repeat(64) }],
    });
    expect(stored).toEqual({ stored: [0], damaged: [], verified: "memory" });
    const record = await peer.commit(target, { baseId: null, toId: header.to.pointId, planDigest: header.planDigest });
    expect(record).toMatchObject({ job: "job-1", epoch: term.epoch });
    expect((await peer.report("vol-1"))?.commits).toEqual([record]);
    await peer.release(target);
    await expect(peer.abort(target, { discard: true })).rejects.toMatchObject({ code: "TermLost" });
    expect(agent.peerCallers.every((caller) => caller.clusterUid === west.clusterUid && caller.source === "west")).toBe(
      true,
    );
  });

  test("is told NotConsented, Untrusted and Unreachable apart", async () => {
    await expect((await peerClient()).hello()).rejects.toMatchObject({ code: "NotConsented" });
    await consent();
    await expect((await peerClient({ caBundle: west.caPem })).hello()).rejects.toMatchObject({ code: "Untrusted" });
    await expect((await peerClient({ expectedClusterUid: "another" })).hello()).rejects.toMatchObject({
      code: "Untrusted",
      message: expect.stringContaining("not of another"),
    });
    await expect((await peerClient({ seeds: ["127.0.0.1:1"] })).hello()).rejects.toMatchObject({ code: "Unreachable" });
    await expect((await peerClient({ seeds: ["no-such-host.invalid:1"] })).hello()).rejects.toMatchObject({
      code: "Unreachable",
    });
  });

  test("tries its seeds in turn", async () => {
    await consent();
    const peer = await peerClient({ seeds: ["127.0.0.1:1", agent.server.address] });
    expect(await peer.hello()).toMatchObject({ clusterUid: east.clusterUid });
    const none = await peerClient({ seeds: ["127.0.0.1:1", "127.0.0.1:2"] });
    await expect(none.hello()).rejects.toThrow(/127\.0\.0\.1:1.*127\.0\.0\.1:2/);
  });

  test.each(["at another address", "behind the same address"])(
    "asks another agent %s when one says that it is not there",
    async (where) => {
      await consent();
      const other = await secureAgent(east);
      closers.push(() => other.close());
      other.fake.sources.set("west", agent.fake.sources.get("west") as never);
      const addresses = [other.server.address, agent.server.address];
      const seeds = where === "at another address" ? addresses : [await inTurn(addresses)];
      const peer = await peerClient({ seeds });
      const away = new FakePeer({ clusterUid: east.clusterUid });
      away.hello = () => Promise.reject(new LongshoreError("Unreachable", "agent 1 was forgotten by its cluster"));
      other.peers.set(west.clusterUid, away);
      await expect(peer.hello()).rejects.toMatchObject({ code: "Unreachable" });
      // A connection that is kept is free for the next call only then.
      await pause(100);
      expect(await peer.hello()).toMatchObject({ clusterUid: east.clusterUid });
    },
  );

  /** An address whose connections lead to one of these after the other, as that of a Service does. */
  async function inTurn(addresses: readonly string[]): Promise<string> {
    let connections = 0;
    const server = createServer((socket) => {
      const [host, port] = String(addresses[connections++ % addresses.length]).split(":");
      const behind = connectTcp({ host: String(host), port: Number(port) });
      for (const [one, another] of [
        [socket, behind],
        [behind, socket],
      ] as const) {
        one.on("error", () => another.destroy()).pipe(another);
      }
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    closers.push(() => server.close());
    return `127.0.0.1:${(server.address() as AddressInfo).port}`;
  }

  test("does not take an operator for an agent, even of the right CA", async () => {
    const operator = await east.credentials("operator");
    const impostor = await secureAgent({ ...east, credentials: async () => operator });
    closers.push(() => impostor.close());
    const peer = await peerClient({ seeds: [impostor.server.address] });
    await expect(peer.hello()).rejects.toMatchObject({ code: "Untrusted" });
  });
});

test("a client that is to keep to one agent asks it again, whatever it has answered", async () => {
  const other = await secureAgent(east);
  closers.push(() => other.close());
  const client = openAgentClient({
    addresses: [other.server.address, agent.server.address],
    isOneAgent: true,
    credentials: await east.credentials("admin"),
  });
  closers.push(() => client.close());
  other.fake.describe = () => Promise.reject(new LongshoreError("Unreachable", "agent 1 was forgotten"));
  for (let call = 0; call < 2; call++) await expect(client.describe()).rejects.toThrow("agent 1 was forgotten");
});

const claim = {
  job: "job-1",
  volume: "vol-1",
  name: "data",
  metadata: { pvc: "a/b" },
  sizeBytes: 4096,
  claimant: "agent-1",
  nonce: "0".repeat(32),
  offeredEpoch: 4,
};

const header = {
  job: "job-1",
  baseId: null,
  to: { pointId: "1".repeat(32), generation: 1, sourceTime: "2026-01-01T00:00:00.000Z", sizeBytes: 4096 },
  mode: { kind: "Allocated" as const, reason: "FirstCopy" },
  unitCount: 1,
  bytesData: 4096,
  bytesPunched: 0,
  planDigest: "b".repeat(64),
  diverged: false,
};

async function consent(): Promise<void> {
  await agent.fake.putSource("west", { clusterName: "west", caBundle: west.caPem, clusterUid: west.clusterUid });
}

function ask(path: string, show?: { cert: string; key: string }) {
  return rawRequest(agent.server.address, { path, ...(show && { show: { cert: show.cert, key: show.key } }) });
}

async function peerClient(fields: { seeds?: string[]; caBundle?: string; expectedClusterUid?: string } = {}) {
  const defaults = {
    seeds: [agent.server.address],
    caBundle: east.caPem,
    credentials: await west.credentials("agent"),
  };
  const peer = openPeerClient({ ...defaults, ...fields });
  closers.push(() => peer.close());
  return peer;
}

type Pair = { cert: string; key: string };
const authorityOf = (pki: TestPki) => readAuthority(pki.dir);

async function issued(pki: TestPki, { shiftMs }: { shiftMs: number }): Promise<Pair> {
  return issueBy((await authorityOf(pki)).pair, pki.clusterUid, "operator", shiftMs);
}

function issueBy(authority: Pair, clusterUid: string, role: Role, shiftMs = 0): Promise<Pair> {
  return issueCertificate(
    authority,
    { clusterUid, role, names: [], days: 90 },
    systemClock.nowMs() + shiftMs,
    systemDice,
  );
}

/** The same CA key under a certificate that names another cluster: what a hostile owner of a CA would make. */
async function relabelled(authority: Pair, clusterUid: string): Promise<Pair> {
  const made = await makeAuthority({ clusterName: "west", clusterUid }, systemClock.nowMs(), systemDice);
  return { cert: made.cert, key: authority.key };
}

function keptConnection(credentials: Credentials, session?: Buffer): Promise<TLSSocket> {
  const [host = "", port] = agent.server.address.split(":");
  const { cert, key } = credentials.current();
  return new Promise((resolve, reject) => {
    const options = { host, port: Number(port), cert, key, rejectUnauthorized: false, ...(session && { session }) };
    const socket = connect(options, () => resolve(socket));
    socket.on("error", reject);
    closers.push(() => socket.destroy());
  });
}

/** The status of one request over a connection that is kept. */
function askOver(socket: TLSSocket, path: string): Promise<number> {
  return new Promise((resolve, reject) => {
    let text = "";
    const take = (part: Buffer) => {
      text += part.toString("utf8");
      const [head = "", body] = text.split("\r\n\r\n");
      const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? Number.NaN);
      if (body === undefined || !(Buffer.byteLength(body) >= length)) return;
      socket.off("data", take);
      resolve(Number(head.split(" ")[1]));
    };
    socket.on("data", take);
    socket.once("close", () => reject(new Error(`closed after: ${text}`)));
    socket.write(`GET ${path} HTTP/1.1\r\nhost: agent\r\n\r\n`);
  });
}
