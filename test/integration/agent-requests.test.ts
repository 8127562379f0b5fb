import { connect } from "node:tls";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { openLog } from "../../src/base/log.ts";
import { errorTable, LongshoreError } from "../../src/domain/errors.ts";
import { agentRoutes, bodyBytesMax, peerRoutes, type Route } from "../../src/wire/routes.ts";
import type { FakeAgent } from "../fakes/fake-agent.ts";
import { FakePeer } from "../fakes/fake-peer.ts";
import { type RawAnswer, type RawRequest, rawRequest } from "../fakes/raw-request.ts";
import { type SecureAgent, secureAgent, type TestPki, testPki } from "../fakes/secure-agent.ts";

let pki: TestPki;
let west: TestPki;
let agent: SecureAgent;
let fake: FakeAgent;
let show: { cert: string; key: string };
let foreign: { cert: string; key: string };
let notReady: string | undefined;
const lines: Record<string, unknown>[] = [];
const json = { "content-type": "application/json" };

beforeAll(async () => {
  [pki, west] = await Promise.all([testPki("east"), testPki("west")]);
  const log = openLog({ name: "agent", level: "debug" }, { write: (line) => void lines.push(JSON.parse(line)) });
  agent = await secureAgent(pki, { log, notReady: () => notReady });
  show = pairOf((await pki.credentials("operator")).current());
  foreign = pairOf((await west.credentials("agent")).current());
});

afterAll(async () => {
  await agent.close();
  await Promise.all([pki.remove(), west.remove()]);
});

beforeEach(async () => {
  agent.reset();
  fake = agent.fake;
  notReady = undefined;
  lines.length = 0;
  await fake.putSource("west", { clusterName: "west", caBundle: west.caPem, clusterUid: west.clusterUid });
});

describe("statuses and entity tags", () => {
  test("a put answers 201 when it made something, and 200 with the ETag of the revision after that", async () => {
    const made = await put("/v1/volumes/data", { sizeBytes: 4096 });
    expect([made.status, made.headers.etag]).toEqual([201, '"1"']);
    const grown = await put("/v1/volumes/data", { sizeBytes: 8192 }, { "if-match": '"1"' });
    expect([grown.status, grown.headers.etag]).toEqual([200, '"2"']);
    expect((await ask({ path: "/v1/volumes/data" })).headers.etag).toBe('"2"');
    expect((await put("/v1/volumes/data", { sizeBytes: 12288 }, { "if-match": '"1"' })).status).toBe(412);
    expect((await ask({ method: "DELETE", path: "/v1/volumes/data", headers: { "if-match": '"1"' } })).status).toBe(
      412,
    );
    expect((await ask({ method: "DELETE", path: "/v1/volumes/data", headers: { "if-match": '"2"' } })).status).toBe(
      204,
    );
    expect((await ask({ method: "DELETE", path: "/v1/volumes/data" })).status).toBe(204);
  });

  test.each(["5", "*", 'W/"5"', '"five"', '"1", "2"', '"-1"'])(
    "If-Match: %s is refused, not ignored",
    async (value) => {
      await fake.putVolume("data", { sizeBytes: 4096 });
      problem(await put("/v1/volumes/data", { sizeBytes: 8192 }, { "if-match": value }), "BadRequest");
      expect((await fake.getVolume("data")).sizeBytes).toBe(4096);
    },
  );

  test("If-Match where it means nothing is refused", async () => {
    await fake.putVolume("data", { sizeBytes: 4096 });
    problem(await put("/v1/volumes/data/snapshots/s1", {}, { "if-match": '"1"' }), "BadRequest");
    expect((await fake.getVolume("data")).snapshots).toEqual([]);
  });

  test("a snapshot that is held on to answers 202 with its holds, then 204", async () => {
    await fake.putVolume("data", { sizeBytes: 4096 });
    expect((await put("/v1/volumes/data/snapshots/s1", {})).status).toBe(201);
    expect((await put("/v1/volumes/data/snapshots/s1", {})).status).toBe(200);
    await put("/v1/volumes/data/snapshots/s1/holds/ann", {});
    const held = await ask({ method: "DELETE", path: "/v1/volumes/data/snapshots/s1" });
    expect([held.status, held.json?.released]).toEqual([202, true]);
    await ask({ method: "DELETE", path: "/v1/volumes/data/snapshots/s1/holds/ann" });
    expect((await ask({ method: "DELETE", path: "/v1/volumes/data/snapshots/s1" })).status).toBe(204);
  });

  test("a clone that has to wait answers 202, one that is served 201 and then 200", async () => {
    fake.arrive("mv", { source: "west" });
    const body = { migratedVolume: "mv", point: "latest" };
    expect((await put("/v1/clones/early", body)).status).toBe(202);
    fake.freeze("mv");
    fake.commit("mv");
    expect((await put("/v1/clones/early", body)).status).toBe(200);
    expect((await put("/v1/clones/late", body)).status).toBe(201);
  });

  test("readiness says why not, and health is not concerned", async () => {
    notReady = "the journal is being read";
    expect(problem(await ask({ path: "/readyz" }), "Unreachable").detail).toBe("the journal is being read");
    expect((await ask({ path: "/healthz" })).status).toBe(200);
  });
});

describe("what cannot be understood is refused by name", () => {
  test.each([
    // what is wrong, the request, code, part of the detail
    ["broken JSON", { body: '{"sizeBytes":' }, "BadRequest", "JSON"],
    ["no body", { body: "" }, "BadRequest", "empty"],
    ["null", { body: "null" }, "BadRequest", "object"],
    ["an array", { body: "[]" }, "BadRequest", "object"],
    ["a number as text", { body: '{"sizeBytes":"4096"}' }, "BadRequest", "/sizeBytes must be integer"],
    ["no size", { body: "{}" }, "BadRequest", "sizeBytes"],
    ["a size off the blocks", { body: '{"sizeBytes":4097}' }, "BadRequest", "/sizeBytes must be multiple of 4096"],
    ["an unknown field", { body: '{"sizeBytes":4096,"sizeByts":1}' }, "BadRequest", "(sizeByts)"],
    ["an origin of nothing", { body: '{"sizeBytes":4096,"from":{}}' }, "BadRequest", "/from"],
    ["an origin with more", { body: '{"sizeBytes":4096,"from":{"volume":"a","x":1}}' }, "BadRequest", "(x)"],
    ["an origin that climbs", { body: '{"sizeBytes":4096,"from":{"volume":"../a"}}' }, "BadRequest", "/from/volume"],
    [
      "an affinity without end",
      { body: JSON.stringify({ sizeBytes: 4096, affinity: "x".repeat(254) }) },
      "BadRequest",
      "/affinity",
    ],
    ["pages of nothing", { method: "GET", path: "/v1/volumes/a/snapshots/s/extents?max=0" }, "BadRequest", "/max"],
    ["no such byte", { method: "GET", path: "/v1/volumes/a/snapshots/s/extents?from=-1" }, "BadRequest", "/from"],
    ["a field of Object's", { body: '{"sizeBytes":4096,"__proto__":{"a":1}}' }, "BadRequest", ""],
    [
      "metadata of numbers",
      { body: '{"sizeBytes":4096,"metadata":{"a":1}}' },
      "BadRequest",
      "/metadata/a must be string",
    ],
    [
      "metadata hidden by a line break",
      { body: '{"sizeBytes":4096,"metadata":{"a\\n":1}}' },
      "BadRequest",
      "must be string",
    ],
    ["no content type", { headers: {}, body: "{}" }, "MediaTypeUnsupported", ""],
    [
      "a form",
      { headers: { "content-type": "application/x-www-form-urlencoded" }, body: "a=b" },
      "MediaTypeUnsupported",
      "",
    ],
    ["text", { headers: { "content-type": "text/plain" }, body: "{}" }, "MediaTypeUnsupported", ""],
    ["a name with capitals", { path: "/v1/volumes/Data" }, "BadRequest", "params: /name"],
    ["a name that climbs", { path: "/v1/volumes/..%2F..%2Fetc" }, "BadRequest", "params: /name"],
    ["a name without end", { path: `/v1/volumes/${"a".repeat(200)}` }, "BadRequest", "params: /name"],
    ["a broken escape", { path: "/v1/volumes/%zz" }, "BadRequest", ""],
    ["an unknown query", { method: "GET", path: "/v1/changes?sinse=1" }, "BadRequest", "(sinse)"],
    ["a sequence that is none", { method: "GET", path: "/v1/changes?since=1e3" }, "BadRequest", "/since"],
    ["an unknown route", { method: "GET", path: "/v1/nothing" }, "NotFound", "GET /v1/nothing"],
    ["an unknown method", { method: "PATCH", path: "/v1/volumes/data" }, "NotFound", "PATCH"],
  ] as const)("%s", async (_, request, code, detail) => {
    const defaults = { method: "PUT", path: "/v1/volumes/data", headers: json, body: '{"sizeBytes":4096}' };
    const fields = { ...defaults, ...request };
    const answer = await ask(fields.method === "GET" ? { method: "GET", path: fields.path } : fields);
    expect(problem(answer, code).detail).toContain(detail);
    expect((await fake.listVolumes()).items).toEqual([]);
  });

  test("a body that is too large", async () => {
    const body = JSON.stringify({ sizeBytes: 4096, metadata: { a: "x".repeat(bodyBytesMax) } });
    problem(await ask({ method: "PUT", path: "/v1/volumes/data", headers: json, body }), "BodyTooLarge");
  });

  test("metadata of more than 4 KiB together", async () => {
    const metadata = { a: "x".repeat(3000), b: "y".repeat(3000) };
    expect(problem(await put("/v1/volumes/data", { sizeBytes: 4096, metadata }), "BadRequest").detail).toContain(
      "4096",
    );
  });

  test("a claim whose body is about another volume than its path", async () => {
    const claim = {
      job: "j",
      volume: "v2",
      name: "data",
      metadata: {},
      sizeBytes: 4096,
      claimant: "a",
      nonce: "0".repeat(32),
      offeredEpoch: 0,
    };
    const answer = await ask({
      method: "POST",
      path: "/v1/peer/volumes/v1/claim",
      headers: json,
      body: JSON.stringify(claim),
      show: foreign,
    });
    expect(problem(answer, "BadRequest").detail).toContain("v2 in the body, v1 in the path");
  });

  test("a HEAD, of a stream above all", async () => {
    expect((await ask({ method: "HEAD", path: "/v1/changes?since=0" })).status).toBe(404);
  });

  test("what is no HTTP at all", async () => {
    const text = await spoken("EHLO mail.example.org\r\n\r\n");
    expect(text).toContain("HTTP/1.1 400 Bad Request");
    expect(JSON.parse(text.split("\r\n\r\n")[1] ?? "")).toMatchObject({ code: "BadRequest", status: 400 });
  });
});

test("any body to any route is answered by success or by a problem of the 4xx kind", async () => {
  const routes = Object.values<Route>({ ...agentRoutes, ...peerRoutes }).filter((route) => route.body);
  const pathOf = (route: Route) => route.path.replaceAll(/:\w+/g, "x");
  const text = fc.oneof(
    fc.json(),
    fc.string({ unit: "binary" }),
    fc
      .object({ key: fc.constantFrom("sizeBytes", "term", "page", "spec", "units", "first", "seeds", "x") })
      .map((value) => JSON.stringify(value)),
  );
  await fc.assert(
    fc.asyncProperty(fc.constantFrom(...routes), text, async (route, body) => {
      const own = { method: route.method, path: pathOf(route), headers: json, body };
      const answer = await ask(route.group === "peer" ? { ...own, show: foreign } : own);
      if (answer.status < 300) return;
      expect([answer.type, answer.status >= 400 && answer.status < 500]).toEqual(["application/problem+json", true]);
      expect(answer.json).toMatchObject({ status: answer.status, type: `urn:longshore:problem:${answer.json?.code}` });
    }),
    { numRuns: 200 },
  );
});

describe("failures of the agent", () => {
  test.each(Object.keys(errorTable) as (keyof typeof errorTable)[])(
    "%s keeps its code, status and advice",
    async (code) => {
      fake.describe = async () => Promise.reject(new LongshoreError(code, "because of this"));
      const { detail, advice } = problem(await ask({ path: "/v1/agent" }), code);
      expect([detail, advice]).toEqual(["because of this", errorTable[code].advice]);
      const client = await agent.client("operator");
      await expect(client.describe()).rejects.toMatchObject({ code, message: "because of this" });
    },
  );

  test("causes, which name paths, are told to our own cluster only", async () => {
    const failure = new LongshoreError("DiskFull", "no room", { cause: new Error("ENOSPC /var/lib/secret") });
    fake.describe = async () => Promise.reject(failure);
    expect(problem(await ask({ path: "/v1/agent" }), "DiskFull").detail).toContain("/var/lib/secret");
    const peer = new FakePeer({});
    peer.hello = async () => Promise.reject(failure);
    agent.peers.set(west.clusterUid, peer);
    const { detail } = problem(await ask({ path: "/v1/peer/hello", show: foreign }), "DiskFull");
    expect(detail).toBe("no room");
  });

  test("a defect says nothing of itself, and is logged under the request's id", async () => {
    fake.describe = async () => Promise.reject(new TypeError("secret is undefined"));
    const answer = await ask({ path: "/v1/agent" });
    const { detail } = problem(answer, "Internal");
    expect(answer.text).not.toContain("secret");
    const line = await logged((one) => one.path === "/v1/agent");
    expect(detail).toContain(String(line.requestId));
    expect(line).toMatchObject({ level: "error", msg: "request failed", err: { message: "secret is undefined" } });
  });
});

test("every request is one line in the log, with the caller and the id of the reconcile", async () => {
  await ask({ path: "/v1/volumes?", headers: { "x-reconcile-id": "abc" } });
  const line = await logged((one) => one.reconcileId === "abc");
  expect(line).toMatchObject({ method: "GET", path: "/v1/volumes", status: 200, caller: "operator", msg: "request" });
  await ask({ path: "/v1/peer/hello", show: foreign });
  expect(await logged((one) => one.path === "/v1/peer/hello")).toMatchObject({ caller: "agent of west" });
  fake.changes = async function* () {
    yield { sequence: 1, kind: "volume", name: "x" };
    throw new LongshoreError("DiskFull", "no room");
  };
  const streamed = await ask({ path: "/v1/changes" });
  expect(streamed.text).toContain("event: problem");
  const line3 = await logged((one) => one.path === "/v1/changes");
  expect(line3).toMatchObject({ status: 200, msg: "request refused", err: { message: "no room" } });
  expect(lines.filter((one) => one.msg !== undefined)).toHaveLength(3);
});

function ask(request: RawRequest): Promise<RawAnswer> {
  return rawRequest(agent.server.address, { show, ...request });
}

function put(path: string, body: unknown, headers: Record<string, string> = {}): Promise<RawAnswer> {
  return ask({ method: "PUT", path, headers: { ...json, ...headers }, body: JSON.stringify(body) });
}

/** Expects a problem document of this code that fits its row of the table. */
function problem(answer: RawAnswer, code: keyof typeof errorTable): { detail: string; advice: string } {
  const { http, advice } = errorTable[code];
  expect(answer.type).toBe("application/problem+json");
  expect(answer.json).toMatchObject({ type: `urn:longshore:problem:${code}`, code, status: http, advice });
  expect(answer.status).toBe(http);
  return answer.json as unknown as { detail: string; advice: string };
}

/** The line is written once the answer is on its way, so the one who asked may be ahead of it. */
async function logged(matches: (line: Record<string, unknown>) => boolean): Promise<Record<string, unknown>> {
  for (;;) {
    const found = lines.find(matches);
    if (found) return found;
    await new Promise((resolve) => setImmediate(resolve));
  }
}

function spoken(text: string): Promise<string> {
  const [host = "", port] = agent.server.address.split(":");
  return new Promise((resolve, reject) => {
    let heard = "";
    const socket = connect({ host, port: Number(port), rejectUnauthorized: false }, () => socket.write(text));
    socket.on("data", (part) => {
      heard += part.toString("utf8");
    });
    socket.on("error", reject);
    socket.on("close", () => resolve(heard));
  });
}

function pairOf({ cert, key }: { cert: string; key: string }) {
  return { cert, key };
}
