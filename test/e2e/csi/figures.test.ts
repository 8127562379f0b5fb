import { expect, test } from "@jest/globals";
import { spreadOf } from "./figures.ts";

test.each([
  // measured, median, slowest
  [[3], 3, 3],
  [[9, 1, 5], 5, 9],
  [[4, 1, 2, 10], 2, 10],
])("of %j the median is %d and the slowest %d", (seconds, medianSeconds, slowestSeconds) => {
  expect(spreadOf(seconds)).toEqual({ count: seconds.length, medianSeconds, slowestSeconds });
});

test("nothing measured is no figure", () => {
  expect(() => spreadOf([])).toThrow(/nothing was measured/);
});
