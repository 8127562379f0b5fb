import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { BugError } from "../base/assert.ts";
import type { LaneExtent } from "./lane.ts";
import { flatExtents } from "./lane-messages.ts";
import { UnitPlaces, unitPayloadBytes } from "./unit-places.ts";

const extents: fc.Arbitrary<LaneExtent[]> = fc
  .array(fc.tuple(fc.nat(3), fc.integer({ min: 1, max: 20 })), { minLength: 1, maxLength: 8 })
  .map((shape) => {
    let end = 0;
    return shape.map(([gap, length]) => {
      const offset = end + gap;
      end = offset + length;
      return [offset, length] as const;
    });
  });

test("property: each byte of a payload has its place, however the payload is cut", () => {
  fc.assert(
    fc.property(extents, fc.array(fc.integer({ min: 1, max: 30 }), { minLength: 1 }), (extents, cuts) => {
      const places = new UnitPlaces(flatExtents(extents));
      const wanted = extents.flatMap(([offset, length]) => Array.from({ length }, (_, index) => offset + index));
      expect(unitPayloadBytes(0, extents)).toBe(wanted.length);
      const found: number[] = [];
      for (let round = 0; found.length < wanted.length; round++) {
        const cut = cuts[round % cuts.length] ?? 1;
        const place = places.take(Math.min(cut, wanted.length - found.length));
        expect(place.length).toBeLessThanOrEqual(cut);
        for (let index = 0; index < place.length; index++) found.push(place.offset + index);
      }
      expect(found).toEqual(wanted);
      expect(() => places.take(1)).toThrow(BugError);
    }),
  );
});

test.each<[string, LaneExtent[]]>([
  ["nothing", []],
  ["an empty extent", [[0, 0]]],
  [
    "extents that overlap",
    [
      [0, 5],
      [4, 5],
    ],
  ],
  ["too much", [[0, 8 * 1024 * 1024 + 1]]],
  ["a negative offset", [[-1, 5]]],
  ["an end past all numbers", [[Number.MAX_SAFE_INTEGER, 1]]],
  ["half a byte", [[0, 0.5]]],
])("a unit of %s is a bug", (_what, extents) => {
  expect(() => unitPayloadBytes(3, extents)).toThrow(BugError);
});
