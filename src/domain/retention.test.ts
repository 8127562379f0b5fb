import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { expiryOf } from "./retention.ts";

/** `a10 b20` is a taken at 10 and b at 20. */
const read = (text: string) =>
  text
    .split(" ")
    .filter(Boolean)
    .map((word) => ({ name: word.slice(0, 1), timeMs: Number(word.slice(1)) }));

test.each([
  ["a10 b20 c30", { ageMs: 10 }, 25, "a", 30],
  ["a10 b20 c30", { ageMs: 10 }, 30, "a b", 40],
  ["a10 b20 c30", { ageMs: 10 }, 29, "a", 30],
  ["a10 b20 c30", { ageMs: 1 }, 100, "a b c", undefined],
  ["a10 b20 c30", { count: 2 }, 1000, "a", undefined],
  ["a10 b20 c30", { count: 3 }, 1000, "", undefined],
  ["a10 b20 c30", { count: 1, ageMs: 100 }, 30, "a b", 130],
  ["a10 b20 c30", { count: 3, ageMs: 15 }, 30, "a", 35],
  ["", { ageMs: 15 }, 30, "", undefined],
])("of %s with %j, expired at %i is [%s], and the next at %s", (snapshots, retention, nowMs, expired, nextMs) => {
  const expiry = expiryOf(read(snapshots), retention, nowMs);
  expect([expiry.expired.join(" "), expiry.nextMs]).toEqual([expired, nextMs]);
});

test("what has expired stays so, is older than what is kept, and the next expiry is the moment when something changes", () => {
  const times = fc.uniqueArray(fc.nat(1000), { maxLength: 8 }).map((list) => list.sort((a, b) => a - b));
  fc.assert(
    fc.property(
      times,
      fc.integer({ min: 1, max: 500 }),
      fc.integer({ min: 1, max: 8 }),
      fc.nat(2000),
      (list, ageMs, count, nowMs) => {
        const snapshots = list.map((timeMs) => ({ name: `s${timeMs}`, timeMs }));
        const now = expiryOf(snapshots, { ageMs, count }, nowMs);
        expect(now.expired).toEqual(snapshots.slice(0, now.expired.length).map(({ name }) => name));
        if (now.nextMs === undefined) return;
        expect(expiryOf(snapshots, { ageMs, count }, now.nextMs - 1).expired).toEqual(now.expired);
        expect(expiryOf(snapshots, { ageMs, count }, now.nextMs).expired.length).toBeGreaterThan(now.expired.length);
      },
    ),
  );
});
