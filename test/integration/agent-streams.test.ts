import { request } from "node:https";
import { connect } from "node:tls";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { AgentApi } from "../../src/wire/agent-api.ts";
import type { Change } from "../../src/wire/schemas.ts";
import { type SecureAgent, secureAgent, type TestPki, testPki } from "../fakes/secure-agent.ts";

let pki: TestPki;
let agent: SecureAgent;
let api: AgentApi;
let ended: AbortController;

beforeAll(async () => {
  pki = await testPki("east");
});

beforeEach(async () => {
  agent = await secureAgent(pki);
  api = await agent.client("operator");
  ended = new AbortController();
});

afterEach(async () => {
  ended.abort();
  await agent.close();
});

afterAll(() => pki.remove());

const volume = { sizeBytes: 4096 };

describe("a stream of changes", () => {
  test("goes on behind the last change when the agent is restarted, without a gap or a repeat", async () => {
    const stream = api.changes(0, ended.signal)[Symbol.asyncIterator]();
    agent.fake.feed.push("volume", "one");
    expect(await next(stream)).toMatchObject({ sequence: 1, name: "one" });
    const waiting = next(stream);
    await agent.restart();
    agent.fake.feed.push("volume", "two");
    expect(await waiting).toMatchObject({ sequence: 2, name: "two" });
    agent.fake.feed.push("volume", "three");
    expect(await next(stream)).toMatchObject({ sequence: 3, name: "three" });
  });

  test("says resync when the restarted agent has forgotten what was missed", async () => {
    const stream = api.changes(0, ended.signal)[Symbol.asyncIterator]();
    agent.fake.feed.push("volume", "one");
    await next(stream);
    const waiting = next(stream);
    await agent.server.close();
    for (const name of ["two", "three"]) agent.fake.feed.push("volume", name);
    agent.fake.feed.forget();
    await agent.restart();
    expect(await waiting).toMatchObject({ kind: "resync", sequence: 3 });
  });

  test("goes on in the middle of a rotation of the certificates of both sides, which new connections take", async () => {
    const serial = () => shownSerial();
    const stream = api.changes(0, ended.signal)[Symbol.asyncIterator]();
    agent.fake.feed.push("volume", "before");
    await next(stream);
    const before = await serial();
    const changed = [await pki.credentials("agent"), await pki.credentials("operator")].map(
      (credentials) => new Promise<void>((resolve) => void credentials.onChange(resolve)),
    );
    await Promise.all([pki.renew("agent"), pki.renew("operator")]);
    await Promise.all(changed);
    agent.fake.feed.push("volume", "after");
    expect(await next(stream)).toMatchObject({ sequence: 2, name: "after" });
    expect(await untilChanged(serial, before)).not.toBe(before);
    expect(await api.putVolume("data", volume)).toMatchObject({ name: "data" });
  });

  test("ends quietly with its signal, also while it waits", async () => {
    const stream = api.changes(0, ended.signal)[Symbol.asyncIterator]();
    const waiting = stream.next();
    ended.abort();
    expect(await waiting).toEqual({ done: true, value: undefined });
  });

  test("tells its reader when the agent stays away", async () => {
    const stream = api.changes(0, ended.signal)[Symbol.asyncIterator]();
    agent.fake.feed.push("volume", "one");
    await next(stream);
    const impatient = await agent.client("operator", { reconnectMs: 0 });
    const second = impatient.changes(0, ended.signal)[Symbol.asyncIterator]();
    await next(second);
    const waiting = next(second);
    await agent.server.close();
    await expect(waiting).rejects.toMatchObject({ code: expect.stringMatching(/Unreachable|StreamTorn/) });
  });

  test("does not fill the agent's memory for a reader that is slow", async () => {
    let taken = 0;
    const length = 20_000;
    agent.fake.changes = async function* () {
      for (let sequence = 1; sequence <= length; sequence++) {
        taken = sequence;
        yield { sequence, kind: "volume", name: "x".repeat(1000) };
      }
    };
    const stalled = await openStalled("/v1/changes?since=0");
    // The kernel's buffers on both sides hold a few megabytes of the twenty; then the source is not asked for more.
    await stoppedGrowing(() => taken);
    expect(taken).toBeLessThan(length);
    stalled.resume();
    await new Promise((resolve) => stalled.once("end", resolve));
    expect(taken).toBe(length);
  });
});

describe("a job that is followed", () => {
  test("is seen to its end though the agent is restarted meanwhile", async () => {
    await startJob();
    const stream = api.followJob("job-1", ended.signal)[Symbol.asyncIterator]();
    expect((await stream.next()).value).toMatchObject({ state: "Pending" });
    const waiting = stream.next();
    await agent.server.close();
    agent.fake.progressJob("job-1", { barrier: "Frozen" });
    await agent.restart();
    expect((await waiting).value).toMatchObject({ state: "Running", barrier: "Frozen" });
    agent.fake.succeedJob("job-1");
    expect((await stream.next()).value).toMatchObject({ state: "Succeeded" });
    expect(await stream.next()).toEqual({ done: true, value: undefined });
  });

  test("that fails in the middle tells why", async () => {
    await startJob();
    agent.fake.followJob = async function* (name) {
      yield await agent.fake.getJob(name);
      throw new LongshoreError("DiskFull", "no room for the journal");
    };
    const stream = api.followJob("job-1", ended.signal)[Symbol.asyncIterator]();
    await stream.next();
    await expect(stream.next()).rejects.toMatchObject({ code: "DiskFull", message: "no room for the journal" });
  });
});

test("an agent that stops ends its streams and refuses what comes after", async () => {
  const stalled = await openStalled("/v1/changes?since=0");
  const over = new Promise((resolve) => stalled.once("close", resolve));
  stalled.resume();
  await agent.server.close();
  await over;
  const impatient = await agent.client("operator");
  await expect(impatient.describe()).rejects.toMatchObject({ code: "Unreachable" });
});

test("a reader who comes back with Last-Event-ID goes on from there", async () => {
  for (const name of ["one", "two", "three"]) agent.fake.feed.push("volume", name);
  const response = await openStalled("/v1/changes?since=0", { "last-event-id": "2" });
  const text = await new Promise<string>((resolve) => {
    let heard = "";
    response.on("data", (part: Buffer) => {
      heard += part.toString("utf8");
      if (heard.includes("three")) resolve(heard);
    });
  });
  expect(text).toContain("retry: 1000");
  expect(text).toContain('id: 3\nevent: change\ndata: {"sequence":3,"kind":"volume","name":"three"}\n\n');
  expect(text).not.toContain("two");
  response.destroy();
});

async function next(stream: AsyncIterator<Change>): Promise<Change> {
  const { value, done } = await stream.next();
  if (done) throw new Error("the stream ended");
  return value;
}

async function startJob(): Promise<void> {
  await api.putVolume("data", volume);
  await api.putSnapshot("data", "s1");
  await api.putLocation("west", { clusterName: "west", seeds: ["127.0.0.1:1"], caBundle: pki.caPem });
  await api.putJob("job-1", { volume: "data", location: "west", snapshot: "s1" });
}

/** A response of which nothing is read yet. */
async function openStalled(
  path: string,
  headers: Record<string, string> = {},
): Promise<import("node:http").IncomingMessage> {
  const [host, port] = agent.server.address.split(":");
  const { cert, key } = (await pki.credentials("operator")).current();
  return new Promise((resolve, reject) => {
    const target = { host, port, path, headers, cert, key, agent: false as const, rejectUnauthorized: false };
    request(target, resolve).on("error", reject).end();
  });
}

/** Resolves when a count was the same for many turns of the event loop. */
async function stoppedGrowing(count: () => number): Promise<void> {
  let last = -1;
  for (let same = 0; same < 2_000; same = count() === last ? same + 1 : 0) {
    last = count();
    await new Promise((resolve) => setImmediate(resolve));
  }
}

async function untilChanged<T>(read: () => Promise<T>, before: T): Promise<T> {
  for (;;) {
    const now = await read();
    if (now !== before) return now;
  }
}

function shownSerial(): Promise<string> {
  const [host = "", port] = agent.server.address.split(":");
  return new Promise((resolve, reject) => {
    const socket = connect({ host, port: Number(port), rejectUnauthorized: false }, () => {
      resolve(socket.getPeerCertificate().serialNumber);
      socket.destroy();
    });
    socket.on("error", reject);
  });
}
