import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { seededDice } from "../src/base/dice.ts";
import { distinctBelow, median, runsOfPasses, shuffled } from "./statistics.ts";

describe("the median", () => {
  test.each([
    [[5], 5],
    [[3, 1, 2], 2],
    [[4, 1, 3, 2], 2.5],
    [[10, 9, 100], 10],
  ])("of %j is %d", (values, expected) => {
    expect(median(values)).toBe(expected);
  });

  test("of nothing is refused", () => {
    expect(() => median([])).toThrow("no median");
  });
});

test("shuffling keeps every value, and the same seed gives the same order", () => {
  fc.assert(
    fc.property(fc.array(fc.integer()), fc.nat(), (values, seed) => {
      const order = shuffled(values, seededDice(seed));
      expect([...order].sort()).toEqual([...values].sort());
      expect(order).toEqual(shuffled(values, seededDice(seed)));
    }),
  );
});

test("every value may come first", () => {
  const firsts = new Set(Array.from({ length: 200 }, (_, seed) => shuffled("abcd".split(""), seededDice(seed))[0]));
  expect([...firsts].sort()).toEqual(["a", "b", "c", "d"]);
});

test("distinct numbers are distinct, ascending, below the bound, and as many as asked for", () => {
  fc.assert(
    fc.property(fc.nat({ max: 300 }), fc.nat({ max: 300 }), fc.nat(), (count, more, seed) => {
      const numbers = distinctBelow(count, count + more, seededDice(seed));
      expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
      expect(numbers).toHaveLength(count);
      expect(numbers.every((number) => number >= 0 && number < count + more)).toBe(true);
    }),
  );
});

test.each([
  // runs, passes, runs of each pass
  [5, 1, [5]],
  [6, 3, [2, 2, 2]],
  [5, 2, [2, 3]],
  [1, 3, [1]],
])("%d runs over %d passes are %j", (runs, passes, expected) => {
  expect(runsOfPasses(runs, passes)).toEqual(expected);
});
