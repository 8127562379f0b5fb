import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { type Assignment, assignUnits } from "./assign-units.ts";

const show = (assignments: readonly Assignment[]) =>
  assignments
    .map(({ reader, storer, ranges }) => `${reader}>${storer} ${ranges.map((range) => range.join("-")).join()}`)
    .join(" | ");

test.each([
  // bytes of units, readers, storers, assignment
  ["9 9 9 9", "a", "x", "a>x 0-3"],
  ["", "a", "x", ""],
  ["9 9 9 9", "a b", "x", "a>x 0-1 | b>x 2-3"],
  ["9 9 9 9", "a", "x y", "a>x 0-1 | a>y 2-3"],
  ["9 9 9 9", "a b", "x y", "a>x 0-1 | b>y 2-3"],
  ["9 9 9 9 9 9", "a b", "x y z", "a>x 0-1 | b>y 2-3 | a>z 4-5"],
  ["90 9 9 9", "a b", "x", "a>x 0-0 | b>x 1-3"],
  ["9", "a b", "x", "a>x 0-0"],
  ["0 0 0 0", "a b", "x", "a>x 0-1 | b>x 2-3"],
  ["9 9", "", "x", ""],
])("units of [%s] bytes, read by [%s], stored by [%s]: %s", (bytes, readers, storers, expected) => {
  const words = (text: string) => text.split(" ").filter((word) => word !== "");
  const unitBytes = words(bytes).map(Number);
  expect(show(assignUnits({ unitBytes, readers: words(readers), storers: words(storers) }))).toBe(expected);
});

test("every unit is in exactly one part, whatever the sizes and however many take part", () => {
  const names = fc.uniqueArray(fc.stringMatching(/^[a-z]{1,3}$/), { minLength: 1, maxLength: 5 });
  const sizes = fc.array(fc.nat(1 << 23), { maxLength: 200 });
  fc.assert(
    fc.property(sizes, names, names, (unitBytes, readers, storers) => {
      const ranges = assignUnits({ unitBytes, readers, storers }).flatMap((part) => part.ranges);
      const indexes = ranges.flatMap(([first, last]) => Array.from({ length: last - first + 1 }, (_, i) => first + i));
      expect(indexes).toEqual(unitBytes.map((_, index) => index));
    }),
  );
});
