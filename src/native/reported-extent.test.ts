import { expect, test } from "@jest/globals";
import { extentFlags, FiemapReport } from "./reported-extent.ts";

/** Extents as [logical, physical, length], in the form of linux/fiemap.h. */
function report(...extents: readonly (readonly [logical: number, physical: number, length: number, flags?: number])[]) {
  const bytes = Buffer.from(new ArrayBuffer(extents.length * 56));
  for (const [index, [logical, physical, length, flags = 0]] of extents.entries()) {
    for (const [at, value] of [logical, physical, length].entries()) {
      bytes.writeBigUInt64LE(BigInt(value), index * 56 + at * 8);
    }
    bytes.writeUInt32LE(flags, index * 56 + 40);
  }
  return new FiemapReport(new Uint32Array(bytes.buffer, 0, bytes.length / 4), extents.length, false);
}

const [first, second] = [
  [4096, 2 ** 40, 8192],
  [2 ** 33, 4096, 4096, extentFlags.last],
] as const;

test("a report tells its extents in order, numbers past 32 bits included", () => {
  const extents = [...report(first, second)];
  expect(extents).toEqual([
    { logical: 4096, physical: 2 ** 40, length: 8192, flags: 0 },
    { logical: 2 ** 33, physical: 4096, length: 4096, flags: extentFlags.last },
  ]);
  expect(report(first, second).at(1)).toEqual(extents[1]);
  expect(report(first).at(1)).toBeUndefined();
  expect(report().at(-1)).toBeUndefined();
});

test("a place that no number holds exactly is unknown", () => {
  expect(report([0, 2 ** 53, 4096]).at(0)?.flags).toBe(extentFlags.unknown);
  expect(report([0, 2 ** 53 - 1, 4096]).at(0)?.flags).toBe(0);
});

test.each([
  ["itself", report(first, second), report(first, second), true],
  ["a longer one", report(first), report(first, second), true],
  ["any, when it is empty", report(), report(first), true],
  ["a shorter one", report(first, second), report(first), false],
  ["one with another place", report(first), report([4096, 2 ** 40 + 4096, 8192]), false],
  ["one with other flags", report(first), report([4096, 2 ** 40, 8192, extentFlags.shared]), false],
])("whether a report is the start of %s is told", (_, part, whole, expected) => {
  expect(part.isStartOf(whole)).toBe(expected);
});
