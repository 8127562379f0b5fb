import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { FakeClock, settledTasks } from "../../test/fakes/fake-clock.ts";
import { seededDice } from "../base/dice.ts";
import { silentLog } from "../base/log.ts";
import { type Metrics, openMetrics } from "../base/metrics.ts";
import type { Api, WatchLine } from "./api.ts";
import type { KindRef } from "./cluster.ts";
import { KubeError } from "./errors.ts";
import { type Informer, openInformer } from "./informer.ts";

const Things: KindRef = { group: "test.dev", version: "v1", plural: "things", kind: "Thing", namespaced: false };

const thing = (name: string, resourceVersion: string) => ({
  metadata: { name, uid: name, resourceVersion, creationTimestamp: "2026-01-01T00:00:00Z" },
});

const requestsMax = 10_000;

/** An API server that answers as each test says, and counts. */
class ScriptedApi implements Api {
  lists = 0;
  watches: string[] = [];
  list: () => unknown = () => ({ metadata: { resourceVersion: "10" }, items: [thing("a", "5")] });
  watchLines: (resourceVersion: string, signal: AbortSignal) => AsyncGenerator<WatchLine> = quietWatch;

  /** An informer that storms must fail its test, not hang it. */
  #count(): void {
    if (this.lists + this.watches.length > requestsMax) stop.abort(new Error("a storm"));
  }

  async request(): Promise<unknown> {
    this.lists++;
    this.#count();
    return this.list();
  }

  async *watch({ query = {}, signal }: Parameters<Api["watch"]>[0]): AsyncGenerator<WatchLine> {
    this.watches.push(query.resourceVersion ?? "none");
    this.#count();
    yield* this.watchLines(query.resourceVersion ?? "", signal ?? new AbortController().signal);
  }

  close(): void {}
}

let clock: FakeClock;
let api: ScriptedApi;
let metrics: Metrics;
let stop: AbortController;
let informer: Informer;
let running: Promise<void>;

/** A healthy watch that tells nothing, and that the server ends after a minute. */
async function* quietWatch(_version: string, signal: AbortSignal): AsyncGenerator<WatchLine> {
  yield* [];
  await clock.sleep(60_000, signal);
}

beforeEach(() => {
  clock = new FakeClock();
  api = new ScriptedApi();
  metrics = openMetrics();
  stop = new AbortController();
});

afterEach(async () => {
  stop.abort(new Error("the test is over"));
  await running;
  expect(clock.sleepers).toBe(0);
});

function start(kind = Things): void {
  informer = openInformer(kind, { api, clock, dice: seededDice(3), log: silentLog, metrics });
  running = informer.run(stop.signal);
}

const held = () =>
  informer.store
    .list()
    .map(({ metadata }) => `${metadata.name}@${metadata.resourceVersion}`)
    .join(" ");
const hourMs = 3_600_000;

test("it lists once, then watches from there on", async () => {
  start();
  await informer.synced(stop.signal);
  await settledTasks();
  expect(held()).toBe("a@5");
  expect([api.lists, api.watches]).toEqual([1, ["10"]]);
});

test("a watch that ends well is taken up at once where it ended", async () => {
  api.watchLines = async function* (version, signal) {
    await clock.sleep(6_000, signal);
    if (version === "10") yield { type: "ADDED", object: thing("b", "12") };
    if (version === "12") yield { type: "BOOKMARK", object: { metadata: { resourceVersion: "20" } } };
  };
  start();
  await clock.advance(18_000);
  expect(held()).toBe("a@5 b@12");
  expect([api.lists, api.watches]).toEqual([1, ["10", "12", "20", "20"]]);
});

test("a watch that breaks is taken up where it broke, without a list", async () => {
  let broken = false;
  api.watchLines = async function* (version, signal) {
    yield* [];
    if (!broken) {
      broken = true;
      throw new KubeError("Unreachable", "connection reset");
    }
    yield* quietWatch(version, signal);
  };
  start();
  await clock.advance(1_000);
  expect([api.lists, api.watches]).toEqual([1, ["10", "10"]]);
});

test.each<[string, () => AsyncGenerator<WatchLine>]>([
  [
    "as an answer",
    async function* () {
      yield* [];
      throw new KubeError("Expired", "too old resource version");
    },
  ],
  [
    "as a line",
    async function* () {
      yield { type: "ERROR", object: { code: 410, message: "too old resource version" } };
    },
  ],
])("a point that has expired, told %s, leads to a list, and what is missing there is gone", async (_how, expired) => {
  const deleted: string[] = [];
  api.watchLines = async function* (version, signal) {
    if (version === "10") yield* expired();
    else yield* quietWatch(version, signal);
  };
  start();
  informer.store.onChange(({ before, after }) => {
    if (after === undefined) deleted.push(before?.metadata.name ?? "");
  });
  await informer.synced(stop.signal);
  api.list = () => ({ metadata: { resourceVersion: "50" }, items: [thing("b", "40")] });
  await clock.advance(1_000);
  expect(held()).toBe("b@40");
  expect(deleted).toEqual(["a"]);
  expect([api.lists, api.watches]).toEqual([2, ["10", "50"]]);
});

test("a list in pages is one list, and one whose pages expire is fetched whole", async () => {
  const asked: (string | undefined)[] = [];
  api.request = async ({ query = {} }: Parameters<Api["request"]>[0] = { method: "GET", path: "" }) => {
    asked.push(query.continue ?? query.limit);
    if (query.continue === "next") throw new KubeError("Expired", "the continue parameter is too old");
    const metadata = { resourceVersion: "10", ...(query.limit && { continue: "next" }) };
    return { metadata, items: [thing("a", "5"), ...(query.limit ? [] : [thing("b", "6")])] };
  };
  start();
  await informer.synced(stop.signal);
  expect(held()).toBe("a@5 b@6");
  expect(asked).toEqual(["500", "next", undefined]);
});

test("everything is listed anew from time to time, and listeners hear of it", async () => {
  start();
  let heard = 0;
  informer.onListed(() => heard++);
  await clock.advance(hourMs);
  expect(heard).toBe(api.lists);
  // Every ten minutes and up to a tenth more.
  expect(api.lists).toBeGreaterThanOrEqual(5);
  expect(api.lists).toBeLessThanOrEqual(7);
});

describe("never storms when, for an hour,", () => {
  const refuse = () => {
    throw new KubeError("Unreachable", "connection refused");
  };
  test.each<[string, () => void]>([
    [
      "nothing answers",
      () => {
        api.list = refuse;
      },
    ],
    [
      "lists work and watches are refused",
      () => {
        api.watchLines = async function* () {
          yield* [];
          refuse();
        };
      },
    ],
    [
      "each watch ends well at once",
      () => {
        api.watchLines = async function* () {
          yield* [];
        };
      },
    ],
    [
      "each watch tells a change and breaks",
      () => {
        let version = 10;
        api.watchLines = async function* () {
          yield { type: "MODIFIED", object: thing("a", String(++version)) };
          refuse();
        };
      },
    ],
    [
      "every point has expired",
      () => {
        api.watchLines = async function* () {
          yield { type: "ERROR", object: { code: 410, message: "too old" } };
        };
      },
    ],
    [
      "watches send what is no object",
      () => {
        api.watchLines = async function* () {
          yield { type: "ADDED", object: "nonsense" };
        };
      },
    ],
    [
      "it is forbidden",
      () => {
        api.list = () => {
          throw new KubeError("Forbidden", "may not list");
        };
      },
    ],
  ])("%s", async (_what, arrange) => {
    arrange();
    start();
    await clock.advance(hourMs);
    const asked = api.lists + api.watches.length;
    // Waits grow to 30 s with full jitter, so 15 s on average: 240 tries, of two requests at most.
    expect(asked).toBeLessThan(700);
    expect(asked).toBeGreaterThan(150);
  });

  test("the API server asks for patience", async () => {
    api.list = () => {
      throw new KubeError("Throttled", "too many requests", { retryAfterMs: 60_000 });
    };
    start();
    await clock.advance(hourMs);
    expect(api.lists).toBeLessThanOrEqual(61);
    expect(api.lists).toBeGreaterThanOrEqual(59);
  });
});

test("after a healthy watch the first retry is quick again", async () => {
  let lastMs = 0;
  const gaps: number[] = [];
  api.watchLines = async function* (_version, signal) {
    gaps.push(clock.monotonicMs() - lastMs);
    yield* [];
    if (gaps.length > 8) await clock.sleep(10_000, signal);
    lastMs = clock.monotonicMs();
    throw new KubeError("Unreachable", "connection reset");
  };
  start();
  await clock.advance(hourMs);
  expect(Math.max(...gaps.slice(1, 9))).toBeGreaterThan(2_000);
  expect(Math.max(...gaps.slice(9))).toBeLessThanOrEqual(500);
});

describe("a kind that is not installed", () => {
  beforeEach(() => {
    api.list = () => {
      throw new KubeError("NotFound", "the server could not find the requested resource");
    };
  });

  test("counts as empty when it is optional, until it is installed", async () => {
    start({ ...Things, optional: true });
    await informer.synced(stop.signal);
    expect(held()).toBe("");
    api.list = () => ({ metadata: { resourceVersion: "10" }, items: [thing("a", "5")] });
    await clock.advance(60_000);
    expect(held()).toBe("a@5");
  });

  test("keeps the cache from being ready when it is not optional", async () => {
    start();
    await clock.advance(hourMs);
    const outcome = await Promise.race([
      informer.synced(stop.signal).then(
        () => "synced",
        () => "gave up",
      ),
      settledTasks(),
    ]);
    expect(outcome).toBeUndefined();
    api.list = () => ({ metadata: { resourceVersion: "10" }, items: [] });
    await clock.advance(60_000);
    await informer.synced(stop.signal);
  });
});

test("waiting for the first list ends with the signal's reason", async () => {
  api.list = () => new Promise(() => undefined);
  start();
  const enough = new AbortController();
  const synced = informer.synced(enough.signal);
  enough.abort(new Error("enough"));
  await expect(synced).rejects.toThrow("enough");
  api.list = () => ({ metadata: { resourceVersion: "10" }, items: [] });
  running = Promise.resolve();
});
