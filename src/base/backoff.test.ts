import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { backoffMs } from "./backoff.ts";
import { type Dice, seededDice } from "./dice.ts";

const limits = { baseMs: 100, maxMs: 1000 };
const always = (thrown: number): Dice => ({ ...seededDice(1), random: () => thrown });

test.each([
  // attempt, throw, wait
  [1, 0, 0],
  [1, 0.5, 50],
  [2, 0.5, 100],
  [3, 0.5, 200],
  [4, 0.5, 400],
  [5, 0.5, 500],
  [5000, 0.5, 500],
])("attempt %d at throw %d waits %d ms", (attempt, thrown, waitMs) => {
  expect(backoffMs(attempt, limits, always(thrown))).toBe(waitMs);
});

test("a wait is never negative and never past the maximum", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 1e6 }), fc.integer(), (attempt, seed) => {
      const waitMs = backoffMs(attempt, limits, seededDice(seed));
      expect(waitMs >= 0 && waitMs <= limits.maxMs).toBe(true);
    }),
  );
});

test("an attempt before the first is a bug", () => {
  expect(() => backoffMs(0, limits, seededDice(1))).toThrow("backoff of attempt 0");
});
