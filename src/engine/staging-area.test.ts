import { expect, test } from "@jest/globals";
import type { PointRow } from "./points.ts";
import { likelyBase } from "./staging-area.ts";

/** Points as "id/file state", in order. */
function points(...texts: string[]): PointRow[] {
  return texts.map((text) => {
    const [, pointId, file, state] = /^(\w+)\/(\w+) (\w+)$/.exec(text) ?? [];
    return { pointId, file, state } as PointRow;
  });
}

test.each([
  ["the newest", points("a/a sealed", "b/b sealed"), "b"],
  ["the newest that is there", points("a/a sealed", "b/b lost", "c/c deleting"), "a"],
  ["none after one without changes", points("a/a sealed", "b/a sealed"), undefined],
  ["the newest again once there are changes", points("a/a sealed", "b/a sealed", "c/c sealed"), "c"],
  ["none for a first copy", points(), undefined],
  ["none when all are lost", points("a/a lost"), undefined],
])("the next plan is expected to start from %s", (_, known, expected) => {
  expect(likelyBase(known)?.pointId).toBe(expected);
});
