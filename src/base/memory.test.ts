import { expect, test } from "@jest/globals";
import { tookShortLived } from "./memory.ts";

const mebibyte = 2 ** 20;

test("of much that is short-lived little is there at a time", () => {
  let peakBytes = 0;
  const before = process.memoryUsage().arrayBuffers;
  for (let taken = 0; taken < 512; taken++) {
    new Uint8Array(mebibyte).fill(1);
    tookShortLived(mebibyte);
    peakBytes = Math.max(peakBytes, process.memoryUsage().arrayBuffers - before);
  }
  expect(peakBytes).toBeLessThan(32 * mebibyte);
});
