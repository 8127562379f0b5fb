import { expect, test } from "@jest/globals";
import fc from "fast-check";
import {
  dataExtentsOf,
  type PlannedExtent,
  type Unit,
  UnitList,
  unitDataBytes,
  unitPunchedBytes,
} from "./unit-list.ts";

const block = 4096;
const unit: Unit = [
  [0, block, 1],
  [block, 2 * block, 0],
  [9 * block, 3 * block, 1],
];

test("bytes of data and of holes are counted apart, and only data has a place on the wire", () => {
  expect([unitDataBytes(unit), unitPunchedBytes(unit)]).toEqual([4 * block, 2 * block]);
  expect(dataExtentsOf(unit)).toEqual([
    [0, block],
    [9 * block, 3 * block],
  ]);
});

test("property: a list gives back every unit that was added, by its index and in order", () => {
  const extent = fc.tuple(
    fc.nat(2 ** 40),
    fc.integer({ min: 1, max: 2 ** 40 }),
    fc.constantFrom(0 as const, 1 as const),
  );
  const units = fc.array(
    fc.array(
      extent.map((each): PlannedExtent => each),
      { maxLength: 100 },
    ),
    { maxLength: 40 },
  );
  fc.assert(
    fc.property(units, (added) => {
      const list = new UnitList(added);
      expect([...list]).toEqual(added);
      expect(added.map((_, index) => list.at(index))).toEqual(added);
      expect(added.map((_, index) => list.extentsOf(index))).toEqual(added.map((each) => each.length));
      expect(added.map((_, index) => list.dataBytesOf(index))).toEqual(added.map(unitDataBytes));
    }),
  );
});

test("past its end a list has no unit, and no bytes of one", () => {
  const list = new UnitList([unit]);
  expect([list.length, list.at(1), list.extentsOf(1), list.dataBytesOf(1)]).toEqual([1, undefined, 0, 0]);
});
