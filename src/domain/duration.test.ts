import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { parseDuration, renderDuration } from "./duration.ts";

test.each([
  ["720h", 2_592_000_000],
  ["1h30m", 5_400_000],
  ["90m", 5_400_000],
  ["1.5s", 1_500],
  ["250ms", 250],
  ["0s", 0],
  ["1m1m", 120_000],
])("%s is %i ms", (text, durationMs) => {
  expect(parseDuration(text)).toBe(durationMs);
});

test.each(["", "1", "1d", "-1h", "h", "1h ", "1 h", "1e3s", ".5s", "1.s"])("%j is refused", (text) => {
  expect(() => parseDuration(text)).toThrow("not a duration");
});

test("every duration is read as it was written", () => {
  fc.assert(fc.property(fc.nat(2 ** 31 - 1), (durationMs) => parseDuration(renderDuration(durationMs)) === durationMs));
});
