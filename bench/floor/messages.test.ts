import { expect, test } from "@jest/globals";
import { segmentBytes, segmentsOf, shareOf } from "./messages.ts";

const mebibyte = 1 << 20;

test("a long range is cut into segments, and short ones share one", () => {
  const segments = segmentsOf([
    { ranges: [{ offset: 0, length: segmentBytes + mebibyte }] },
    {
      ranges: [
        { offset: 4096, length: 4096 },
        { offset: 16384, length: 8192 },
      ],
    },
  ]);
  expect(segments).toEqual([
    [{ file: 0, offset: 0, length: segmentBytes }],
    [{ file: 0, offset: segmentBytes, length: mebibyte }],
    [
      { file: 1, offset: 4096, length: 4096 },
      { file: 1, offset: 16384, length: 8192 },
    ],
  ]);
});

test("nothing to move has no segments", () => {
  expect(segmentsOf([{ ranges: [] }])).toEqual([]);
});

test("lanes share the segments", () => {
  expect([0, 1].map((lane) => shareOf(["a", "b", "c"], lane, 2))).toEqual([["a", "c"], ["b"]]);
});
