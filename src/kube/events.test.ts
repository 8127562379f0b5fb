import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { seededDice } from "../base/dice.ts";
import { silentLog } from "../base/log.ts";
import { type Metrics, openMetrics } from "../base/metrics.ts";
import type { Api, ApiRequest } from "./api.ts";
import type { EventNote, EventSubject } from "./cluster.ts";
import { KubeError } from "./errors.ts";
import { type EventLimits, type EventRecorder, openEventRecorder } from "./events.ts";
import { applyMergePatch } from "./merge-patch.ts";

interface Written {
  readonly metadata: { readonly name: string; readonly namespace: string };
  readonly message: string;
  readonly count: number;
  readonly firstTimestamp: string;
  readonly lastTimestamp: string;
}

/** The Events of an API server. */
class EventServer {
  readonly events = new Map<string, Written>();
  requests = 0;
  /** Called with each request; may refuse it. */
  gate: (request: ApiRequest) => void = () => undefined;

  client(): Api {
    return {
      request: async (request) => this.#answer(request),
      watch: () => {
        throw new Error("nobody watches events");
      },
      close: () => undefined,
    };
  }

  #answer(request: ApiRequest): Written {
    this.requests++;
    this.gate(request);
    const { method, path, body } = request;
    const name = method === "POST" ? `${path}/${(body as Written).metadata.name}` : path;
    const found = this.events.get(name);
    if (method === "POST" && found !== undefined)
      throw new KubeError("Conflict", "exists", { reason: "AlreadyExists" });
    if (method !== "POST" && found === undefined) throw new KubeError("NotFound", "no such event");
    const next = method === "GET" ? (found as Written) : (applyMergePatch(found, body) as Written);
    this.events.set(name, next);
    return next;
  }
}

let clock: FakeClock;
let server: EventServer;
let metrics: Metrics;
let recorder: EventRecorder;
let stop: AbortController;
let running: Promise<void>;

function start(limits?: Partial<EventLimits>): void {
  stop = new AbortController();
  const deps = { api: server.client(), clock, dice: seededDice(1), log: silentLog, metrics };
  recorder = openEventRecorder({ ...deps, ...(limits && { limits }) });
  running = recorder.run(stop.signal);
}

async function end(): Promise<void> {
  stop.abort(new Error("the test is over"));
  await running;
}

beforeEach(() => {
  clock = new FakeClock();
  server = new EventServer();
  metrics = openMetrics();
  start();
});

afterEach(async () => {
  await end();
  expect(clock.sleepers).toBe(0);
});

const about = (name: string, namespace?: string): EventSubject => ({
  apiVersion: "v1",
  kind: "PersistentVolume",
  metadata: { name, uid: `uid-${name}`, ...(namespace && { namespace }) },
});
const note = (reason: string, message = "something happened"): EventNote => ({ type: "Normal", reason, message });
const written = () => [...server.events.values()];

test("a first event is written at once, about the object and in its namespace", async () => {
  recorder.record(about("a"), note("Frozen"));
  recorder.record(about("b", "team"), note("Frozen"));
  await clock.advance(0);
  expect(written()).toMatchObject([
    {
      metadata: { namespace: "default" },
      involvedObject: { apiVersion: "v1", kind: "PersistentVolume", name: "a", uid: "uid-a" },
      type: "Normal",
      reason: "Frozen",
      message: "something happened",
      count: 1,
      firstTimestamp: "2026-01-01T00:00:00Z",
    },
    { metadata: { namespace: "team" }, involvedObject: { namespace: "team" } },
  ]);
});

test("a thousand repeats are one event, written now and then, with the newest message and the whole count", async () => {
  for (let index = 1; index <= 1_000; index++) {
    recorder.record(about("a"), note("Frozen", `at ${index}`));
    await clock.advance(100);
  }
  await clock.advance(20_000);
  expect(written()).toMatchObject([{ message: "at 1000", count: 1_000, lastTimestamp: "2026-01-01T00:01:39Z" }]);
  // The first at once, and then one every ten seconds of the hundred.
  expect(server.requests).toBeLessThanOrEqual(12);
});

test("other reasons, and other objects, have events of their own", async () => {
  recorder.record(about("a"), note("Frozen"));
  recorder.record(about("a"), note("Thawed"));
  recorder.record(about("b"), note("Frozen"));
  recorder.record(about("a"), { ...note("Frozen"), type: "Warning" });
  await clock.advance(0);
  expect(written()).toHaveLength(4);
});

test("a restarted process counts on; after a long quiet time the count begins anew", async () => {
  recorder.record(about("a"), note("Frozen"));
  await clock.advance(1_000);
  await end();
  start();
  recorder.record(about("a"), note("Frozen"));
  await clock.advance(1_000);
  expect(written()).toMatchObject([{ count: 2, firstTimestamp: "2026-01-01T00:00:00Z" }]);
  await clock.advance(700_000);
  recorder.record(about("a"), note("Frozen"));
  await clock.advance(0);
  expect(written()).toMatchObject([{ count: 1, firstTimestamp: "2026-01-01T00:11:42Z" }]);
});

test("what is told for an occasion is written once, also by a restarted process, and again once it has expired", async () => {
  const half = { ...note("Waiting", "half"), occasion: "half" };
  recorder.record(about("a"), half);
  recorder.record(about("a"), { ...half, message: "still half" });
  await clock.advance(60_000);
  expect(server.requests).toBe(1);
  await end();
  start();
  recorder.record(about("a"), { ...half, message: "half, as seen by another" });
  recorder.record(about("a"), { ...note("Waiting", "all"), occasion: "all" });
  await clock.advance(1_000_000);
  expect(written().map(({ message, count }) => `${message} ${count}`)).toEqual(["half 1", "all 1"]);
  // The one that exists was neither read nor counted up.
  expect(server.requests).toBe(3);
  await end();
  server.events.clear();
  start();
  recorder.record(about("a"), half);
  await clock.advance(1_000);
  expect(written()).toMatchObject([{ message: "half", count: 1 }]);
});

test("an event that has expired in the API server is written again", async () => {
  recorder.record(about("a"), note("Frozen"));
  await clock.advance(1_000);
  server.events.clear();
  recorder.record(about("a"), note("Frozen"));
  await clock.advance(10_000);
  expect(written()).toMatchObject([{ count: 2 }]);
});

test("a burst is written at the rate allowed, and what is too much is dropped and counted", async () => {
  await end();
  start({ writesBurst: 10, writesPerSecond: 2, eventsMax: 100 });
  for (let index = 0; index < 500; index++) recorder.record(about(`v${index}`), note("Frozen"));
  await clock.advance(0);
  expect(server.requests).toBe(10);
  await clock.advance(10_000);
  expect(server.requests).toBe(30);
  await clock.advance(3_600_000);
  expect(server.requests).toBe(100);
  expect(await metrics.render()).toContain('longshore_kube_events_dropped_total{reason="TooMany"} 400');
});

test("a failed write is tried again a few times, then given up, and others are written meanwhile", async () => {
  server.gate = ({ body }) => {
    if ((body as Written).metadata?.name.startsWith("bad")) throw new KubeError("Unreachable", "away");
  };
  recorder.record(about("bad"), note("Frozen"));
  recorder.record(about("good"), note("Frozen"));
  await clock.advance(3_600_000);
  expect(written()).toMatchObject([{ metadata: { name: expect.stringContaining("good") } }]);
  expect(server.requests).toBe(5);
  expect(await metrics.render()).toContain('longshore_kube_events_dropped_total{reason="Unreachable"} 1');
});

test("what the API server refuses is given up at once", async () => {
  server.gate = () => {
    throw new KubeError("Forbidden", "the namespace is being terminated");
  };
  recorder.record(about("a"), note("Frozen"));
  await clock.advance(3_600_000);
  expect(server.requests).toBe(1);
});

test("a message that is too long is cut", async () => {
  recorder.record(about("a"), note("Frozen", "x".repeat(5_000)));
  await clock.advance(0);
  expect(written()[0]?.message).toHaveLength(1_000);
});

test.each(["-", ".", "x"])(
  "an object's name that is too long is cut to one that an event can have: 199 letters and %s",
  async (next) => {
    recorder.record(about(`${"a".repeat(199)}${next}b`), note("Frozen"));
    await clock.advance(0);
    expect(written()[0]?.metadata.name).toMatch(/^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/);
  },
);
