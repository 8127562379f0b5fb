import { describe, expect, test } from "@jest/globals";
import { duration, plotOf } from "./plot.ts";

const row = (label: string, median: number) => ({ label, median, min: median / 2, max: median * 2, isOurs: false });

function centres(svg: string): number[] {
  return [...svg.matchAll(/cx="([\d.]+)"/g)].map(([, x]) => Number(x));
}

test("a greater median lies further to the right, by as much for each tenfold", () => {
  const [one = 0, ten = 0, hundred = 0] = centres(plotOf("t", [row("a", 10), row("b", 100), row("c", 1000)]));
  expect(ten).toBeGreaterThan(one);
  expect(hundred - ten).toBeCloseTo(ten - one, 0);
});

test("every dot lies within the picture", () => {
  const svg = plotOf("t", [row("a", 0.01), row("b", 600_000)]);
  expect(centres(svg).every((x) => x >= 210 && x <= 670)).toBe(true);
});

test("what is told is escaped", () => {
  expect(plotOf("a < b & c", [row('"d"', 1)])).toContain("a &lt; b &amp; c");
});

describe("durations", () => {
  test.each([
    [3.06, "3.1 ms"],
    [42.4, "42 ms"],
    [999, "999 ms"],
    [1234, "1.23 s"],
    [12_345, "12.3 s"],
  ])("%d is %s", (ms, text) => {
    expect(duration(ms)).toBe(text);
  });
});
