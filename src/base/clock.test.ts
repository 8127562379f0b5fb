import { expect, test } from "@jest/globals";
import { systemClock } from "./clock.ts";

test("a sleep ends after its time on the monotonic clock", async () => {
  const startedMs = systemClock.monotonicMs();
  await systemClock.sleep(20);
  // A timer may fire up to a millisecond early.
  expect(systemClock.monotonicMs() - startedMs).toBeGreaterThanOrEqual(18);
});

test("a sleep of zero or less resolves", async () => {
  await expect(systemClock.sleep(0)).resolves.toBeUndefined();
  await expect(systemClock.sleep(-5)).resolves.toBeUndefined();
});

test("an abort rejects a pending sleep with the signal's reason", async () => {
  const stop = new AbortController();
  const sleeping = systemClock.sleep(60_000, stop.signal);
  stop.abort(new Error("stopping"));
  await expect(sleeping).rejects.toThrow("stopping");
});

test("a sleep with a signal that is aborted already rejects at once", async () => {
  await expect(systemClock.sleep(60_000, AbortSignal.abort(new Error("stopped")))).rejects.toThrow("stopped");
});

test("a sleep past the timers' limit does not end at once", async () => {
  const stop = new AbortController();
  const sleeping = systemClock.sleep(2 ** 40, stop.signal).then(() => "ended");
  const first = await Promise.race([sleeping, systemClock.sleep(30).then(() => "still asleep")]);
  expect(first).toBe("still asleep");
  stop.abort(new Error("enough"));
  await expect(sleeping).rejects.toThrow("enough");
});

test("a sleep that has ended leaves no listener on its signal", async () => {
  const { signal } = new AbortController();
  let listeners = 0;
  const watched = new Proxy(signal, {
    get(target, name) {
      if (name === "addEventListener") listeners++;
      if (name === "removeEventListener") listeners--;
      const value: unknown = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  await systemClock.sleep(1, watched);
  expect(listeners).toBe(0);
});
