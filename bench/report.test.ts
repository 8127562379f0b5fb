import { expect, test } from "@jest/globals";
import { reportOf, table } from "./report.ts";
import type { Results, Row } from "./results.ts";

const row = (tool: Row["tool"], medianMs: number): Row => ({
  ...{ case: "incr-1pct-4g", tool, medianMs, minMs: medianMs - 1, maxMs: medianMs + 1 },
  ...{ bytesChanged: 42 << 20, bytesSent: 43 << 20, peakRssMiB: 200, growthMiB: 50, runsMs: [medianMs] },
});

const results: Results = {
  ...{
    format: 1,
    startedAt: "2026-01-01T00:00:00Z",
    finishedAt: null,
    resumedAt: [],
    size: "full",
    fileSystem: "btrfs",
    runs: 5,
    passes: 1,
    lanes: 1,
    seed: 1,
  },
  machine: {
    ...{ cpu: "a CPU", cores: 2, memoryGiB: 24, kernel: "6.1", distribution: "Debian" },
    ...{ node: "v26", openssl: "3.5", loadBefore: 0.1 },
  },
  tools: { btrfs: "send and receive" },
  cases: {},
  rows: [row("longshore-tls", 90), row("btrfs", 100)],
  absent: [{ case: "full-4g", tool: "restic", reason: "it takes too long" }],
  micro: null,
  counts: null,
};

test("a table's columns line up", () => {
  expect(table(["a", "long title"], [["longer", "x"]])).toBe(
    ["| a      | long title |", "|--------|------------|", "| longer | x          |"].join("\n"),
  );
});

test("results on another file system have a page of their own", () => {
  const { markdown } = reportOf({ ...results, fileSystem: "xfs" });
  expect(markdown).toContain("![incr-1pct-4g](performance-xfs/incr-1pct-4g.svg)");
  expect(markdown).toContain("# Performance on XFS");
});

test("the page tells when the run was gone on with", () => {
  const { markdown } = reportOf({ ...results, resumedAt: ["2026-01-02T00:00:00Z"] });
  expect(markdown).toContain(
    "load of 0.1, gone on with 2026-01-02T00:00:00Z; what a tool did in a case was measured in one go.",
  );
});

test("the page tells which cases are of another machine", () => {
  const machine = { ...results.machine, cpu: "another CPU" };
  const earlier = [{ startedAt: "2026-01-01T00:00:00Z", machine, cases: ["empty" as const], hasMicro: true }];
  expect(reportOf({ ...results, earlier }).markdown).toContain(
    "Of an earlier run, begun 2026-01-01T00:00:00Z at a load of 0.1, are empty, change tracking and snapshot stall: another CPU, ",
  );
});

test("the page has each case with a plot, what is promised, and what is missing", () => {
  const { markdown, plots } = reportOf(results);
  expect([...plots.keys()]).toEqual(["incr-1pct-4g.svg"]);
  expect(markdown).toContain("![incr-1pct-4g](performance/incr-1pct-4g.svg)");
  expect(markdown).toMatch(/time of longshore-tls over that of btrfs +\| ≤ 1\.00 +\| 0\.90 +\| kept/);
  expect(markdown).toMatch(/\| restic +\| full-4g +\| it takes too long/);
  expect(markdown).toMatch(
    /\| longshore-tls +\| 90 ms +\| 89 ms – 91 ms +\| 467 MiB\/s +\| 1\.024 +\| 200 MiB \(\+50\)/,
  );
});
