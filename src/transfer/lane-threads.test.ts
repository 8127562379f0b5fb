import { once } from "node:events";
import { type AddressInfo, createServer, type Server } from "node:net";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { LaneSignals } from "./lane-signals.ts";
import type { ThreadJob } from "./lane-thread.ts";
import { LaneThreads, type LaneThreadsLimits, type ThreadLease } from "./lane-threads.ts";

const crashes: Error[] = [];
const opened: LaneThreads[] = [];
let silent: Server;
beforeEach(async () => {
  silent = createServer((socket) => void socket.on("error", () => {}).resume()).listen(0, "127.0.0.1");
  await once(silent, "listening");
});
afterEach(async () => {
  for (const threads of opened.splice(0)) await threads.close();
  silent.close();
  crashes.length = 0;
});

function open(limits: Partial<LaneThreadsLimits> = {}, clock = new FakeClock()): LaneThreads {
  const threads = new LaneThreads({ clock, limits, onCrash: (error) => crashes.push(error) });
  opened.push(threads);
  return threads;
}

/** A lane that never opens, as nobody answers. */
const job = (): ThreadJob => ({
  role: "tlsSource",
  host: "127.0.0.1",
  port: (silent.address() as AddressInfo).port,
  material: { cert: "", key: "", ca: [] },
  ticket: "ab".repeat(32),
  fd: -1,
  hasDigests: false,
  isPaced: false,
  idleMs: 60_000,
  signals: new LaneSignals().buffer,
});
const nobody = new AbortController().signal;

function run(threads: LaneThreads, { isBlocking = false, signal = nobody, onRevoke = (_reason: Error) => {} } = {}) {
  return threads.run(job(), { isBlocking, signal, onRevoke });
}

async function end({ port, release }: ThreadLease): Promise<void> {
  port.postMessage({ kind: "destroy" });
  const [message] = await once(port, "message");
  expect(message).toMatchObject({ kind: "ended", error: { message: "it was destroyed" } });
  release();
}

test("a thread is used again when it came free, and released once only", async () => {
  const threads = open();
  const first = await run(threads);
  await end(first);
  const second = await run(threads);
  first.release();
  const third = await run(threads);
  expect(threads.size).toBe(2);
  await end(second);
  await end(third);
  expect(threads.size).toBe(2);
});

test("threads that idle end after a while", async () => {
  const clock = new FakeClock();
  const threads = open({ idleMs: 1000 }, clock);
  const [early, late] = [await run(threads), await run(threads)];
  await end(early);
  await clock.advance(900);
  await end(late);
  await clock.advance(200);
  expect(threads.size).toBe(1);
  const again = await run(threads);
  await clock.advance(5000);
  expect(threads.size).toBe(1);
  await end(again);
  await clock.advance(1001);
  expect(threads.size).toBe(0);
});

test.each([{ threadsMax: 2, sharedFrom: 4 }, { sharedFrom: 2 }])("with %o, lanes share two threads", async (limits) => {
  const threads = open(limits);
  const leases = await Promise.all(Array.from({ length: 5 }, () => run(threads)));
  expect(threads.size).toBe(2);
  for (const lease of leases) await end(lease);
});

test("a lane that blocks has a thread to itself, and waits for it", async () => {
  const threads = open({ threadsMax: 2, sharedFrom: 1 });
  const blocking = await run(threads, { isBlocking: true });
  const shared = await Promise.all([run(threads), run(threads)]);
  expect(threads.size).toBe(2);
  const order: string[] = [];
  const waiting = run(threads, { isBlocking: true }).then((lease) => {
    order.push("got it");
    return lease;
  });
  for (const lease of shared) await end(lease);
  order.push("came free");
  const second = await waiting;
  expect(order).toEqual(["came free", "got it"]);
  await end(blocking);
  await end(second);
});

test("who waits for a thread may give up", async () => {
  const threads = open({ threadsMax: 1 });
  const only = await run(threads);
  const stop = new AbortController();
  const waiting = run(threads, { isBlocking: true, signal: stop.signal });
  const reason = new Error("too late");
  stop.abort(reason);
  await expect(waiting).rejects.toBe(reason);
  await expect(run(threads, { signal: stop.signal })).rejects.toBe(reason);
  await end(only);
});

test("a thread that ends by a defect is told of, and so are those on it; others get a new one", async () => {
  const threads = open({ threadsMax: 1 });
  const mate = await run(threads);
  const gone = once(mate.port, "close");
  await threads.run({ role: "nonsense" } as unknown as ThreadJob, {
    isBlocking: false,
    signal: nobody,
    onRevoke: () => {},
  });
  await gone;
  while (threads.size > 0) await new Promise((resolve) => setImmediate(resolve));
  expect(crashes).toMatchObject([{ message: expect.stringContaining("unhandled alternative") }]);
  mate.release();
  await end(await run(threads));
});

test("closing ends all threads, after telling those on them and those who wait", async () => {
  const threads = open({ threadsMax: 1 });
  const told: string[] = [];
  const lease = await run(threads, { onRevoke: ({ message }) => told.push(`running: ${message}`) });
  const stop = new AbortController();
  const waiting = run(threads, {
    isBlocking: true,
    signal: stop.signal,
    onRevoke: (reason) => {
      told.push("waiting");
      stop.abort(reason);
    },
  });
  const gone = once(lease.port, "close");
  const closing = threads.close();
  await expect(waiting).rejects.toThrow("the lanes' threads are ended");
  await closing;
  await gone;
  expect(told.sort()).toEqual(["running: the lanes' threads are ended", "waiting"]);
  expect(threads.size).toBe(0);
});
