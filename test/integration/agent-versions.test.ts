// Agents of two neighbouring versions side by side, over real HTTP: what an earlier one would refuse is not sent to it, and what is
// left out is said to those who understand it.
import { once } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { Type } from "typebox";
import { openHttpClient } from "../../src/wire/http-client.ts";
import type { PeerApi } from "../../src/wire/peer.ts";
import { openPeerClient } from "../../src/wire/peer-client.ts";
import { problemMediaType, problemOf } from "../../src/wire/problem.ts";
import { agentRoutes, type Route } from "../../src/wire/routes.ts";
import { understoodHere } from "../../src/wire/understood.ts";
import { type SecureAgent, secureAgent, type TestPki, testPki } from "../fakes/secure-agent.ts";

let east: TestPki;
let west: TestPki;
beforeAll(async () => {
  [east, west] = await Promise.all([testPki("east"), testPki("west")]);
});
afterAll(async () => {
  await Promise.all([east.remove(), west.remove()]);
});

const term = { epoch: 1, nonce: "0".repeat(32) };
const target = { volume: "v1", term };

/** An agent whose schemas are those of some version: which fields its bodies may have, and what it says of that. */
interface OldAgent {
  readonly address: string;
  /** Fields that the body of a request may have. */
  fields: readonly string[];
  /** What it says when it is greeted; undefined: nothing of it, as the first version. */
  understands: readonly string[] | undefined;
  readonly bodies: unknown[];
  greetings: number;
  close(): Promise<void>;
}

async function oldAgent(): Promise<OldAgent> {
  const { cert, key } = (await east.credentials("agent")).current();
  const server = createServer({ cert, key, minVersion: "TLSv1.3" }, (request, response) => {
    void serve(agent, request, response);
  }).listen(0, "127.0.0.1");
  await once(server, "listening");
  const agent: OldAgent = {
    address: `127.0.0.1:${(server.address() as AddressInfo).port}`,
    fields: ["term"],
    understands: undefined,
    bodies: [],
    greetings: 0,
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, "close");
    },
  };
  return agent;
}

async function serve(agent: OldAgent, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const body = await text(request);
  const answer = (status: number, said: unknown, type = "application/json") =>
    response.writeHead(status, { "content-type": type }).end(JSON.stringify(said));
  if (request.method === "GET") {
    agent.greetings += 1;
    answer(200, { ...hello, ...(agent.understands && { understands: agent.understands }) });
    return;
  }
  const asked = JSON.parse(body) as Record<string, unknown>;
  agent.bodies.push(asked);
  const foreign = Object.keys(asked).find((name) => !agent.fields.includes(name));
  if (foreign === undefined) answer(200, { stored: [[0, 1]] });
  else answer(400, problemOf("BadRequest", `body must not have ${foreign}`), problemMediaType);
}

const hello = { clusterUid: "uid-east", clusterName: "east", agentId: "agent-1", members: [], freeBytes: 1 };

describe("a source", () => {
  let old: OldAgent;
  let peer: PeerApi & { close(): Promise<void> };
  beforeAll(async () => {
    old = await oldAgent();
  });
  beforeEach(async () => {
    Object.assign(old, { fields: ["term"], understands: undefined, greetings: 0 });
    old.bodies.length = 0;
    const credentials = await west.credentials("agent");
    peer = openPeerClient({ seeds: [old.address], caBundle: east.caPem, credentials });
  });
  afterEach(() => peer.close());
  afterAll(() => old.close());

  const freeze = () => peer.freeze(target, { inParts: true });

  test("sends a target of the first version what that one takes", async () => {
    expect(await freeze()).toEqual({ stored: [[0, 1]] });
    expect(old.bodies).toEqual([{ term }]);
  });

  test("sends a target of a later version what it says that it understands", async () => {
    Object.assign(old, { fields: ["term", "inParts"], understands: ["freezeInParts", "more"] });
    expect(await freeze()).toEqual({ stored: [[0, 1]] });
    expect(old.bodies).toEqual([{ term, inParts: true }]);
  });

  test("asks nobody who is not sent anything new", async () => {
    await peer.freeze(target);
    expect([old.greetings, old.bodies]).toEqual([0, [{ term }]]);
  });

  test("finds out that its target was upgraded, or put back to an earlier version, while it is connected", async () => {
    await freeze();
    Object.assign(old, { fields: ["term", "inParts"], understands: ["freezeInParts"] });
    await freeze();
    await freeze();
    expect(old.greetings).toBe(2);
    Object.assign(old, { fields: ["term"], understands: undefined });
    expect(await freeze()).toEqual({ stored: [[0, 1]] });
    const whole = { term, inParts: true };
    expect(old.bodies).toEqual([{ term }, whole, whole, whole, { term }]);
  });

  test("is told what else is wrong with a request, by an earlier version too", async () => {
    Object.assign(old, { fields: [], understands: ["freezeInParts"] });
    await expect(freeze()).rejects.toMatchObject({ code: "BadRequest", message: "body must not have term" });
  });
});

describe("an agent of this version", () => {
  let agent: SecureAgent;
  beforeAll(async () => {
    agent = await secureAgent(east);
    await agent.fake.putSource("west", { clusterName: "west", clusterUid: west.clusterUid, caBundle: west.caPem });
  });
  afterAll(() => agent.close());

  test("says to foreign clusters what it understands, and takes it", async () => {
    const credentials = await west.credentials("agent");
    const peer = openPeerClient({ seeds: [agent.server.address], caBundle: east.caPem, credentials });
    expect((await peer.hello()).understands).toEqual(understoodHere());
    const claim = { job: "j", volume: "v1", name: "data", metadata: {}, sizeBytes: 4096, claimant: "a1" };
    const granted = await peer.claim({ ...claim, nonce: "0".repeat(32), offeredEpoch: 0 });
    await peer.freeze({ volume: "v1", term: granted.term }, { inParts: true });
    await peer.close();
    expect(agent.peers.get(west.clusterUid)?.freezes).toEqual([{ inParts: true }]);
  });
});

test("the members of one cluster are greeted by what every version of them answers", async () => {
  const old = await oldAgent();
  const route = {
    method: "POST",
    path: "/v1/member/thing",
    group: "member",
    summary: "A thing that got a field",
    body: Type.Object({ items: Type.Array(Type.Object({ name: Type.String() })) }),
    response: Type.Object({ stored: Type.Array(Type.Unknown()) }),
    newer: { weight: ["items.*.weight"] },
  } as const satisfies Route;
  const client = openHttpClient({
    addresses: [old.address],
    credentials: await east.credentials("agent"),
    trustedCa: () => east.caPem,
    greeting: agentRoutes.describe,
  });
  Object.assign(old, { fields: ["items"] });
  const body = { items: [{ name: "a", weight: 1 }, { name: "b" }] };
  await client.call(route, { body });
  Object.assign(old, { understands: ["weight"] });
  await client.call(route, { body });
  expect(old.bodies).toEqual([{ items: [{ name: "a" }, { name: "b" }] }, body]);
  await client.close();
  await old.close();
});
