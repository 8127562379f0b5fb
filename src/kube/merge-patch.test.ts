import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { applyMergePatch, isSameJson, mergePatch } from "./merge-patch.ts";

test.each([
  // from, to, patch
  [{ a: 1 }, { a: 1 }, undefined],
  [{ a: 1 }, { a: 2 }, { a: 2 }],
  [{ a: 1, b: 2 }, { b: 2 }, { a: null }],
  [undefined, { a: { b: 1 } }, { a: { b: 1 } }],
  [{ a: { b: 1, c: 2 } }, { a: { b: 1, c: 3 } }, { a: { c: 3 } }],
  [{ a: [1, 2] }, { a: [1, 3] }, { a: [1, 3] }],
  [{ a: [1, 2] }, { a: [1, 2] }, undefined],
  [{ a: { b: 1 } }, { a: {} }, { a: { b: null } }],
  [{}, { a: {} }, { a: {} }],
  [{ a: 1 }, { a: undefined }, { a: null }],
  [{}, { a: { b: null, c: undefined, d: 1 } }, { a: { d: 1 } }],
  [{ a: "x" }, { a: { b: 1 } }, { a: { b: 1 } }],
])("from %j to %j the patch is %j", (from, to, patch) => {
  expect(mergePatch(from, to)).toEqual(patch);
});

/** Objects as statuses are: nested, without nulls, and without arrays of objects that hold nulls. */
const value: fc.Arbitrary<unknown> = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    fc.integer({ min: 0, max: 3 }),
    fc.constantFrom("x", "y"),
    fc.array(fc.integer({ min: 0, max: 2 }), { maxLength: 3 }),
    fc.dictionary(fc.constantFrom("a", "b", "c"), tie("value"), { maxKeys: 3 }),
  ),
})).value;
const record = fc.dictionary(fc.constantFrom("a", "b", "c"), value, { maxKeys: 3 });

test("applying the patch between any two objects to the first gives the second", () => {
  fc.assert(
    fc.property(record, record, (from, to) => {
      const patch = mergePatch(from, to);
      expect(patch === undefined).toBe(isSameJson(from, to));
      expect(applyMergePatch(from, patch ?? {})).toEqual(to);
    }),
  );
});

test("sameness ignores the order of properties, and properties that are undefined", () => {
  expect(isSameJson({ a: 1, b: [{ c: 1, d: undefined }] }, { b: [{ c: 1 }], a: 1 })).toBe(true);
  expect(isSameJson({ a: 1 }, { a: 1, b: 2 })).toBe(false);
  expect(isSameJson([1, 2], [2, 1])).toBe(false);
  expect(isSameJson([], {})).toBe(false);
  expect(isSameJson(null, {})).toBe(false);
});
