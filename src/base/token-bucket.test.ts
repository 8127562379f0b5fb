import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { FakeClock, settledTasks } from "../../test/fakes/fake-clock.ts";
import { BugError } from "./assert.ts";
import { openTokenBucket, refilled, refillWaitMs } from "./token-bucket.ts";

describe("the level of a bucket", () => {
  test.each([
    // bytes, rate, burst, passed, then
    [0, 1000, 500, 0, 0],
    [0, 1000, 500, 100, 100],
    [0, 1000, 500, 5000, 500],
    [-300, 1000, 500, 100, -200],
    [500, 1000, 500, 100, 500],
    [0, 1000, 500, -100, 0],
  ])("%d bytes at %d a second, at most %d, after %d ms is %d", (bytes, bytesPerSecond, burstBytes, passedMs, then) => {
    const level = refilled({ bytes, atMs: 1000 }, { bytesPerSecond, burstBytes }, 1000 + passedMs);
    expect(level.bytes).toBe(then);
  });

  test("property: is above zero after the wait, and was not a millisecond and a bit before", () => {
    const rates = fc.integer({ min: 1, max: 1e9 });
    fc.assert(
      fc.property(fc.integer({ min: -1e9, max: 0 }), rates, (bytes, bytesPerSecond) => {
        const waitMs = refillWaitMs({ bytes, atMs: 0 }, bytesPerSecond);
        const limits = { bytesPerSecond, burstBytes: bytesPerSecond };
        expect(refilled({ bytes, atMs: 0 }, limits, waitMs).bytes).toBeGreaterThan(0);
        expect(refilled({ bytes, atMs: 0 }, limits, waitMs - 1.001).bytes).toBeLessThanOrEqual(0);
      }),
    );
  });
});

/** Takes and notes when, on the clock's time. */
function taker(rate: number | undefined) {
  const clock = new FakeClock();
  const bucket = openTokenBucket(rate, clock);
  const taken: [name: string, atMs: number][] = [];
  const take = (name: string, bytes: number, signal?: AbortSignal) =>
    bucket.take(bytes, signal).then(
      () => void taken.push([name, clock.monotonicMs()]),
      (error: Error) => void taken.push([`${name}: ${error.message}`, clock.monotonicMs()]),
    );
  return { clock, bucket, taken, take };
}

describe("a bucket", () => {
  test("without a rate lets everything pass at once", async () => {
    const { taken, take } = taker(undefined);
    await Promise.all([take("a", 2 ** 40), take("b", 2 ** 40)]);
    expect(taken).toEqual([["a", 0], ["b", 0]]); // biome-ignore format: one line
  });

  test("lets a burst pass, and then the rate, first come, first served", async () => {
    const { clock, taken, take } = taker(1000);
    for (const name of ["a", "b", "c"]) void take(name, 1000);
    await clock.advance(10_000);
    // 250 are there at first; every 1000 afterwards take a second, and a level of zero is not enough.
    expect(taken).toEqual([["a", 0], ["b", 751], ["c", 1751]]); // biome-ignore format: one line
  });

  test("property: never lets more pass than the rate, a burst and the last piece", async () => {
    const pieces = fc.array(fc.integer({ min: 1, max: 5000 }), { minLength: 1, maxLength: 30 });
    await fc.assert(
      fc.asyncProperty(pieces, fc.integer({ min: 100, max: 1e6 }), async (sizes, rate) => {
        const { clock, taken, take } = taker(rate);
        const all = sizes.map((bytes, index) => take(String(index), bytes));
        await clock.advance(1e9);
        await Promise.all(all);
        expect(taken.map(([name]) => name)).toEqual(sizes.map((_, index) => String(index)));
        let before = 0;
        for (const [index, bytes] of sizes.entries()) {
          const atMs = taken[index]?.[1] ?? 0;
          expect(before).toBeLessThanOrEqual(rate * 0.25 + (rate * atMs) / 1000 + 1);
          before += bytes;
        }
      }),
    );
  });

  test("whose rate is raised, lifted or set lets those who wait follow it", async () => {
    const { clock, bucket, taken, take } = taker(1000);
    await take("a", 10_250);
    void take("b", 1000);
    await clock.advance(5000);
    expect(taken).toEqual([["a", 0]]);
    // Half the debt is left, 5 s of it at either rate.
    bucket.setRate(10_000);
    await clock.advance(5001);
    expect(taken.slice(1)).toEqual([["b", 10_001]]);
    void take("c", 1e6);
    void take("d", 1e6);
    await clock.advance(500);
    bucket.setRate(undefined);
    await clock.advance(0);
    expect(taken.slice(2).map(([name]) => name)).toEqual(["c", "d"]);
    bucket.setRate(1000);
    void take("e", 1);
    await clock.advance(0);
    expect(taken).toHaveLength(4);
    await clock.advance(1);
    expect(taken[4]?.[0]).toBe("e");
  });

  test("whose rate is lifted lets nobody overtake those who wait", async () => {
    const { bucket, taken, take } = taker(1000);
    await take("a", 1250);
    const waiting = take("b", 1);
    await settledTasks();
    bucket.setRate(undefined);
    await Promise.all([take("c", 1), waiting]);
    expect(taken.map(([name]) => name)).toEqual(["a", "b", "c"]);
  });

  test("whose rate is lowered far does not hold a debt of the old rate against anyone", async () => {
    const { clock, bucket, taken, take } = taker(1_000_000);
    await take("a", 1_250_000);
    bucket.setRate(10);
    void take("b", 1);
    await clock.advance(1100);
    expect(taken).toEqual([["a", 0], ["b", 1001]]); // biome-ignore format: one line
  });

  test("lets one that waits give up at once, having taken nothing, and the others go on in order", async () => {
    const { clock, taken, take } = taker(1000);
    const [first, second] = [new AbortController(), new AbortController()];
    await take("a", 1250);
    void take("b", 1000, first.signal);
    void take("c", 1000, second.signal);
    void take("d", 1000);
    void take("e", 1000);
    await clock.advance(500);
    second.abort(new Error("enough"));
    await settledTasks();
    expect(taken.slice(1)).toEqual([["c: enough", 500]]);
    // Only the first in the queue looks at the bucket.
    expect(clock.sleepers).toBe(1);
    first.abort(new Error("enough"));
    await clock.advance(10_000);
    expect(taken.slice(2)).toEqual([["b: enough", 500], ["d", 1001], ["e", 2001]]); // biome-ignore format: one line
    await expect(openTokenBucket(1, clock).take(1, AbortSignal.abort(new Error("before")))).rejects.toThrow("before");
    expect(clock.sleepers).toBe(0);
  });

  test.each([0, -1, Number.NaN, Number.POSITIVE_INFINITY])("takes a rate of %d for a bug", (rate) => {
    expect(() => openTokenBucket(rate, new FakeClock())).toThrow(BugError);
    expect(() => openTokenBucket(1, new FakeClock()).setRate(rate)).toThrow(BugError);
  });
});
