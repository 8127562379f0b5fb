import { beforeEach, expect, test } from "@jest/globals";
import { FakeClock, settledTasks } from "../../test/fakes/fake-clock.ts";
import { WorkQueue } from "./work-queue.ts";

let clock: FakeClock;
let queue: WorkQueue<string>;
const stop = new AbortController();

beforeEach(() => {
  clock = new FakeClock();
  queue = new WorkQueue(clock, (key) => key);
});

/** What the queue gives out without waiting. */
async function ready(): Promise<string> {
  const keys: string[] = [];
  for (;;) {
    const enough = new AbortController();
    const taken = queue.take(enough.signal).catch(() => undefined);
    await settledTasks();
    enough.abort();
    const key = await taken;
    if (key === undefined) return keys.join(" ");
    keys.push(key);
  }
}

test("keys are given out in the order of their arrival, each once", async () => {
  for (const key of ["b", "a", "b"]) queue.add(key);
  expect(queue.depth).toBe(2);
  expect(await ready()).toBe("b a");
});

test("a key that is taken is not given out again until it is done, however much news there is", async () => {
  queue.add("a");
  expect(await ready()).toBe("a");
  queue.add("a");
  queue.add("a");
  expect(await ready()).toBe("");
  queue.done("a");
  expect(await ready()).toBe("a");
  queue.done("a");
  expect(await ready()).toBe("");
});

test("a delayed key waits for its time, and the shortest delay counts", async () => {
  queue.add("a", 100);
  queue.add("a", 50);
  queue.add("a", 200);
  await clock.advance(49);
  expect(await ready()).toBe("");
  await clock.advance(1);
  expect(await ready()).toBe("a");
  queue.done("a");
  await clock.advance(1000);
  expect(await ready()).toBe("");
});

test("news brings a delayed key forward, and it does not come twice", async () => {
  queue.add("a", 100);
  queue.add("a");
  expect(await ready()).toBe("a");
  queue.done("a");
  await clock.advance(1000);
  expect(await ready()).toBe("");
});

test("a key that becomes due while it is taken comes when it is done", async () => {
  queue.add("a");
  expect(await ready()).toBe("a");
  queue.add("a", 10);
  await clock.advance(20);
  expect(await ready()).toBe("");
  queue.done("a");
  expect(await ready()).toBe("a");
});

test("a key that failed waits its time, although there was news about it meanwhile", async () => {
  queue.add("a");
  expect(await ready()).toBe("a");
  queue.add("a");
  queue.done("a", 100);
  await clock.advance(99);
  expect(await ready()).toBe("");
  await clock.advance(1);
  expect(await ready()).toBe("a");
  queue.done("a");
  await clock.advance(1000);
  expect(await ready()).toBe("");
});

test("of each lane only so many keys are taken at once, and those of other lanes pass by", async () => {
  queue = new WorkQueue(clock, (key) => key, { laneOf: (key) => key[0] ?? "", width: 2 });
  for (const key of ["a1", "a2", "a3", "b1", "a4"]) queue.add(key);
  expect(await ready()).toBe("a1 a2 b1");
  expect(queue.depth).toBe(2);
  queue.done("a2");
  expect(await ready()).toBe("a3");
  const taken = queue.take(stop.signal);
  await settledTasks();
  queue.done("a1");
  expect(await taken).toBe("a4");
});

test("news about a key that waits puts it into the lane that is right now", async () => {
  const lanes = new Map([
    ["one", "a"],
    ["two", "a"],
  ]);
  queue = new WorkQueue(clock, (key) => key, { laneOf: (key) => lanes.get(key) ?? "", width: 1 });
  for (const key of ["one", "two"]) queue.add(key);
  expect(await ready()).toBe("one");
  lanes.set("two", "b");
  queue.add("two");
  expect(await ready()).toBe("two");
  for (const key of ["one", "two"]) queue.done(key);
  expect(await ready()).toBe("");
});

test("one who waits gets a key as soon as it is added or due", async () => {
  const first = queue.take(stop.signal);
  await settledTasks();
  queue.add("a");
  expect(await first).toBe("a");
  queue.add("b", 100);
  const second = queue.take(stop.signal);
  await clock.advance(100);
  expect(await second).toBe("b");
  expect(clock.sleepers).toBe(0);
});

test("an earlier delay that is added shortens the wait of one who waits already", async () => {
  queue.add("late", 1000);
  const taken = queue.take(stop.signal);
  await settledTasks();
  queue.add("early", 10);
  await clock.advance(10);
  expect(await taken).toBe("early");
});

test("an abort ends the wait with the signal's reason", async () => {
  const enough = new AbortController();
  const taken = queue.take(enough.signal);
  enough.abort(new Error("stopping"));
  await expect(taken).rejects.toThrow("stopping");
  queue.add("a", 1000);
  const delayed = queue.take(AbortSignal.abort(new Error("stopped")));
  await expect(delayed).rejects.toThrow("stopped");
});

test("giving back what was not taken is a bug", () => {
  expect(() => queue.done("a")).toThrow("without having been taken");
});
