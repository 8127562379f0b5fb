import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { RunList } from "./run-list.ts";

type Run = readonly [start: number, end: number, isHole: boolean];

function runsOf(list: RunList): Run[] {
  return Array.from({ length: list.length }, (_, nth) => [list.startOf(nth), list.endOf(nth), list.isHole(nth)]);
}

test("a list holds what was pushed, however many there are", () => {
  const run = fc.tuple(fc.maxSafeNat(), fc.maxSafeNat(), fc.boolean());
  const runs = fc.array(
    run.map(([a, b, isHole]): Run => [Math.min(a, b), Math.max(a, b) + 1, isHole]),
    { size: "large", maxLength: 1000 },
  );
  fc.assert(
    fc.property(runs, (pushed) => {
      const list = new RunList();
      for (const [start, end, isHole] of pushed) list.push(start, end, isHole);
      expect(runsOf(list)).toEqual(pushed);
    }),
  );
});

test.each([false, true])("the last run is made longer, and stays what it is: a hole %s", (isHole) => {
  const list = new RunList();
  list.push(0, 4096, !isHole);
  list.push(4096, 8192, isHole);
  list.extendLast(12_288);
  expect(runsOf(list)).toEqual([
    [0, 4096, !isHole],
    [4096, 12_288, isHole],
  ]);
});

test("past the last run there is none", () => {
  const list = new RunList();
  list.push(0, 4096, false);
  expect([list.startOf(1), list.endOf(1), list.isHole(1)]).toEqual([Number.NaN, Number.NaN, false]);
});
