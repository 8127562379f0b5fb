import { expect, test } from "@jest/globals";
import { blockBytes, type ChangedExtent } from "./backend.ts";
import { spread } from "./sharing-sample.ts";

function data(block: number, blocks: number): ChangedExtent {
  return { kind: "data", offset: block * blockBytes, length: blocks * blockBytes };
}

function hole(block: number, blocks: number): ChangedExtent {
  return { kind: "hole", offset: block * blockBytes, length: blocks * blockBytes };
}

test.each<[string, ChangedExtent[], number, number[]]>([
  ["nothing from nothing", [], 4, []],
  ["nothing from holes", [hole(0, 10)], 4, []],
  ["all of a few", [data(3, 2), hole(5, 9), data(20, 1)], 4, [3, 4, 20]],
  ["evenly spaced ones of many", [data(0, 100)], 4, [0, 25, 50, 75]],
  ["from each extent in proportion", [data(0, 10), data(1000, 30)], 4, [0, 1000, 1010, 1020]],
])("a sample takes %s", (_name, extents, countMax, blocks) => {
  expect(spread(extents, countMax).map((offset) => offset / blockBytes)).toEqual(blocks);
});
