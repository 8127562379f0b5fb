import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import type { CapacityRange } from "./csi-messages.ts";
import {
  blockBytes,
  chooseExpandedSize,
  chooseSize,
  emptyFloor,
  isWithin,
  leastBytes,
  sizeBytesMax,
  sourceFloor,
} from "./sizes.ts";
import type { CsiError } from "./status.ts";

const mebibyte = 2 ** 20;
const gibibyte = 2 ** 30;
const ext4 = { mode: "Filesystem", fileSystem: "ext4", isNamed: false } as const;
const xfs = { mode: "Filesystem", fileSystem: "xfs", isNamed: true } as const;
const raw = { mode: "Block" } as const;

function range(required: number, limit = 0): CapacityRange {
  return { requiredBytes: required, limitBytes: limit };
}

/** A size, or the code of the refusal. */
function outcome(choose: () => number): number | string {
  try {
    return choose();
  } catch (error) {
    return (error as CsiError).code;
  }
}

describe("an empty volume", () => {
  test.each([
    // asked for, its use, what comes of it
    [null, ext4, gibibyte],
    [range(0), ext4, gibibyte],
    [range(5 * gibibyte), ext4, 5 * gibibyte],
    [range(9 * mebibyte + 1), ext4, 9 * mebibyte + blockBytes],
    [range(1), ext4, 8 * mebibyte],
    [range(1, 8 * mebibyte - 1), ext4, "OUT_OF_RANGE"],
    [range(1), raw, blockBytes],
    [range(1), xfs, 300 * mebibyte],
    [range(0, 512 * mebibyte), xfs, 512 * mebibyte],
    [range(0, 512 * mebibyte + 1), xfs, 512 * mebibyte],
    [range(1, 100 * mebibyte), xfs, "OUT_OF_RANGE"],
    [range(0, 100 * mebibyte), xfs, "OUT_OF_RANGE"],
    [range(5000, 5000), raw, "OUT_OF_RANGE"],
    [range(8192, 8192), raw, 8192],
    [range(2, 1), raw, "INVALID_ARGUMENT"],
    [range(-1), raw, "INVALID_ARGUMENT"],
    [range(0, -1), raw, "INVALID_ARGUMENT"],
    [range(sizeBytesMax), raw, sizeBytesMax],
    [range(sizeBytesMax + 1), raw, "OUT_OF_RANGE"],
  ])("of %j for %j has %s", (asked, use, expected) => {
    expect(outcome(() => chooseSize(asked, emptyFloor(use)))).toBe(expected);
  });

  test("has a size that its own range takes, in whole blocks, and no smaller one would do", () => {
    const sizes = fc.integer({ min: 0, max: 2 ** 40 });
    fc.assert(
      fc.property(sizes, sizes, fc.constantFrom(ext4, xfs, raw), (required, limit, use) => {
        const asked = range(required, limit);
        const size = outcome(() => chooseSize(asked, emptyFloor(use)));
        if (typeof size === "string") return;
        expect(size % blockBytes).toBe(0);
        expect(size).toBeGreaterThanOrEqual(leastBytes(use));
        expect(isWithin(asked, size)).toBe(true);
        if (required > 0) expect(size - blockBytes).toBeLessThan(Math.max(required, leastBytes(use)));
      }),
    );
  });
});

describe("a clone", () => {
  test.each([
    // asked for, the source's size, what comes of it
    [null, 4 * mebibyte, 4 * mebibyte],
    [range(mebibyte), 4 * mebibyte, 4 * mebibyte],
    [range(8 * mebibyte), 4 * mebibyte, 8 * mebibyte],
    [range(0, 4 * mebibyte), 4 * mebibyte, 4 * mebibyte],
    [range(0, 4 * mebibyte - 1), 4 * mebibyte, "OUT_OF_RANGE"],
  ])("asked for as %j of a source of %i bytes has %s", (asked, source, expected) => {
    expect(outcome(() => chooseSize(asked, sourceFloor(source)))).toBe(expected);
  });
});

describe("an expansion", () => {
  test.each([
    // asked for, the present size, what comes of it
    [range(8 * mebibyte), 4 * mebibyte, 8 * mebibyte],
    [range(4 * mebibyte), 4 * mebibyte, 4 * mebibyte],
    [range(mebibyte), 4 * mebibyte, 4 * mebibyte],
    [range(mebibyte, 2 * mebibyte), 4 * mebibyte, "OUT_OF_RANGE"],
    [range(0, 8 * mebibyte), 4 * mebibyte, 4 * mebibyte],
    [range(0), 4 * mebibyte, "INVALID_ARGUMENT"],
    [null, 4 * mebibyte, "INVALID_ARGUMENT"],
  ])("to %j from %i bytes leads to %s", (asked, present, expected) => {
    expect(outcome(() => chooseExpandedSize(asked, present))).toBe(expected);
  });
});

test.each([
  [null, 1, true],
  [range(4096), 4096, true],
  [range(4097), 4096, false],
  [range(0, 4096), 4096, true],
  [range(0, 4095), 4096, false],
])("a volume for the range %j may have %i bytes: %s", (asked, size, isOne) => {
  expect(isWithin(asked, size)).toBe(isOne);
});
