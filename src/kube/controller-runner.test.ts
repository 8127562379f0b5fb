import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { FakeClock, settledTasks } from "../../test/fakes/fake-clock.ts";
import { seededDice } from "../base/dice.ts";
import { silentLog } from "../base/log.ts";
import { type Metrics, openMetrics } from "../base/metrics.ts";
import {
  again,
  type Controller,
  type Key,
  type KindRef,
  type Outcome,
  type ReconcileContext,
  settled,
} from "./cluster.ts";
import { type ControllerRunner, openControllerRunner } from "./controller-runner.ts";
import { KubeError } from "./errors.ts";

const Things: KindRef = { group: "test.dev", version: "v1", plural: "things", kind: "Thing", namespaced: false };

let clock: FakeClock;
let metrics: Metrics;
let stop: AbortController;
let running: Promise<void>;

beforeEach(() => {
  clock = new FakeClock();
  metrics = openMetrics();
  stop = new AbortController();
});

afterEach(async () => {
  stop.abort(new Error("the test is over"));
  await running;
});

/** Starts a runner whose dice always throw the middle, so that waits are half their bound. */
function start(
  reconcile: (key: Key, context: ReconcileContext) => Promise<Outcome>,
  concurrency?: number,
  laneOf?: (key: Key) => string,
): ControllerRunner {
  const more = { ...(concurrency && { concurrency }), ...(laneOf && { laneOf }) };
  const controller: Controller = { name: "things", kind: Things, reconcile, ...more };
  const dice = { ...seededDice(1), random: () => 0.5 };
  const runner = openControllerRunner(controller, { clock, dice, log: silentLog, metrics });
  running = runner.run(stop.signal);
  return runner;
}

const sample = async (line: string) =>
  (await metrics.render())
    .split("\n")
    .find((text) => text.startsWith(`${line} `))
    ?.split(" ")[1];

test("each key is reconciled once for any number of news, and one key never twice at once", async () => {
  const log: string[] = [];
  const gates: (() => void)[] = [];
  const runner = start(async ({ name }) => {
    log.push(`+${name}`);
    await new Promise<void>((resolve) => gates.push(resolve));
    log.push(`-${name}`);
    return settled;
  });
  for (const name of ["a", "a", "b"]) runner.enqueue({ name });
  await settledTasks();
  runner.enqueue({ name: "a" });
  runner.enqueue({ name: "a" });
  await settledTasks();
  expect(log).toEqual(["+a", "+b"]);
  for (const open of gates.splice(0)) open();
  await settledTasks();
  for (const open of gates.splice(0)) open();
  await settledTasks();
  expect(log).toEqual(["+a", "+b", "-a", "-b", "+a", "-a"]);
});

test("no more keys than the concurrency are reconciled at once, and the rest follows", async () => {
  let now = 0;
  let most = 0;
  const done = new Set<string>();
  const runner = start(async ({ name }) => {
    most = Math.max(most, ++now);
    await clock.sleep(10);
    now--;
    done.add(name);
    return settled;
  }, 3);
  for (let index = 0; index < 10; index++) runner.enqueue({ name: `k${index}` });
  await settledTasks();
  expect(await sample('longshore_queue_depth{controller="things"}')).toBe("7");
  await clock.advance(100);
  expect([most, done.size]).toEqual([3, 10]);
  expect(await sample('longshore_queue_depth{controller="things"}')).toBe("0");
});

test("a reconcile that asks for another look gets it after its time", async () => {
  const times: number[] = [];
  const runner = start(async () => {
    times.push(clock.monotonicMs());
    return times.length < 3 ? again(1000) : settled;
  });
  runner.enqueue({ name: "a" });
  await clock.advance(10_000);
  expect(times).toEqual([0, 1000, 2000]);
});

test("a failing key waits longer each time, others do not wait with it, and a success forgets the failures", async () => {
  const times: number[] = [];
  let fails = 4;
  const runner = start(async ({ name }) => {
    if (name === "good") return settled;
    times.push(clock.monotonicMs());
    if (fails-- > 0) throw new Error("boom");
    return settled;
  });
  runner.enqueue({ name: "bad" });
  runner.enqueue({ name: "good" });
  await clock.advance(20_000);
  // Half of 500, 1000, 2000, 4000.
  expect(times).toEqual([0, 250, 750, 1750, 3750]);
  expect(await sample('longshore_reconcile_total{controller="things",result="error"}')).toBe("4");
  expect(await sample('longshore_reconcile_total{controller="things",result="settled"}')).toBe("2");
  fails = 1;
  runner.enqueue({ name: "bad" });
  await clock.advance(250);
  expect(times.slice(5)).toEqual([20_000, 20_250]);
});

test("a failure that brings on news of itself waits all the same, and longer each time", async () => {
  const times: number[] = [];
  const runner: ControllerRunner = start(async (key) => {
    times.push(clock.monotonicMs());
    if (times.length > 20) return settled;
    // As when what went wrong is written into the status, and reads differently each time.
    runner.enqueue(key);
    throw new Error(`boom at ${clock.monotonicMs()}`);
  });
  runner.enqueue({ name: "a" });
  await clock.advance(2_000);
  expect(times).toEqual([0, 250, 750, 1750]);
});

test("news brings a failing key forward, though not at once", async () => {
  const times: number[] = [];
  const runner = start(async () => {
    times.push(clock.monotonicMs());
    throw new Error("boom");
  });
  runner.enqueue({ name: "a" });
  await clock.advance(8_000);
  expect(times).toEqual([0, 250, 750, 1750, 3750, 7750]);
  // It would be tried again at 15750.
  runner.enqueue({ name: "a" });
  await clock.advance(4_749);
  expect(times).toHaveLength(6);
  await clock.advance(1);
  expect(times.at(-1)).toBe(12_750);
});

test("keys that wait for something that hangs take no workers from the others", async () => {
  const done: string[] = [];
  const reconcile = async ({ name }: Key, { signal }: ReconcileContext) => {
    if (name.startsWith("hung")) await clock.sleep(1e9, signal);
    done.push(name);
    return settled;
  };
  const runner = start(reconcile, 2, ({ name }) => name.split("-")[0] ?? "");
  for (const name of ["hung-1", "hung-2", "hung-3", "fine-1", "fine-2", "fine-3"]) runner.enqueue({ name });
  await settledTasks();
  expect(done).toEqual(["fine-1", "fine-2", "fine-3"]);
  expect(await sample('longshore_queue_depth{controller="things"}')).toBe("1");
});

test("a conflict is tried again soon, and an API server that asks for patience gets it", async () => {
  const times: number[] = [];
  const errors = [
    new KubeError("Conflict", "changed"),
    new KubeError("Throttled", "slow down", { retryAfterMs: 7000 }),
  ];
  const runner = start(async () => {
    times.push(clock.monotonicMs());
    const error = errors.shift();
    if (error !== undefined) throw error;
    return settled;
  });
  runner.enqueue({ name: "a" });
  await clock.advance(20_000);
  expect(times).toEqual([0, 25, 7025]);
  expect(await sample('longshore_reconcile_total{controller="things",result="conflict"}')).toBe("1");
});

test("a reconcile that takes too long is aborted, and tried again", async () => {
  const reasons: string[] = [];
  const runner = start(async (_key, { signal }) => {
    await clock.sleep(1e9, signal).catch((error: unknown) => reasons.push(String(error)));
    signal.throwIfAborted();
    return settled;
  });
  runner.enqueue({ name: "a" });
  await clock.advance(120_000);
  expect(reasons).toEqual(["Error: the reconcile has not ended after 120000 ms"]);
  await clock.advance(120_250);
  expect(reasons).toHaveLength(2);
});

test("stopping aborts what runs, starts nothing more, and returns when all has ended", async () => {
  const started: string[] = [];
  const runner = start(async ({ name }, { signal }) => {
    started.push(name);
    await clock.sleep(1e9, signal);
    return settled;
  }, 1);
  runner.enqueue({ name: "a" });
  runner.enqueue({ name: "b" });
  await settledTasks();
  stop.abort(new Error("stopping"));
  await running;
  expect(started).toEqual(["a"]);
  expect(clock.sleepers).toBe(0);
  expect(await sample('longshore_reconcile_total{controller="things",result="aborted"}')).toBe("1");
});

test("an outcome that makes no sense is an error like any other", async () => {
  const runner = start(async () => again(Number.NaN));
  runner.enqueue({ name: "a" });
  await settledTasks();
  expect(await sample('longshore_reconcile_total{controller="things",result="error"}')).toBe("1");
});
