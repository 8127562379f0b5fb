import { expect, test } from "@jest/globals";
import { estimatedSeconds } from "./transfer-time.ts";

const mebibyte = 2 ** 20;

test.each([
  // bytes, past as [bytes, ms], limit, seconds
  ["nobody knows before the first transfer", mebibyte, [], undefined, undefined],
  ["transfers of nothing tell nothing", mebibyte, [[0, 50]], undefined, undefined],
  ["the rate of the past counts", 200 * mebibyte, [[100 * mebibyte, 1_000]], undefined, 2],
  [
    "of all of the past together",
    60 * mebibyte,
    [
      [20 * mebibyte, 3_000],
      [40 * mebibyte, 3_000],
    ],
    undefined,
    6,
  ],
  [
    "however little it is, it takes what the shortest took",
    4096,
    [
      [10 * mebibyte, 500],
      [mebibyte, 100],
    ],
    undefined,
    0.1,
  ],
  ["no faster than the limit", 200 * mebibyte, [[100 * mebibyte, 1_000]], 10 * mebibyte, 20],
] as const)("%s", (_what, bytes, past, limit, seconds) => {
  const transfers = past.map(([moved = 0, durationMs = 0]) => ({ bytes: moved, durationMs }));
  expect(estimatedSeconds(bytes, transfers, limit)).toBe(seconds);
});
