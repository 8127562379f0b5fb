import { expect, test } from "@jest/globals";
import { type Absence, type Results, type Row, resumed, withRows } from "./results.ts";

const machine = {
  ...{ cpu: "a CPU", cores: 2, memoryGiB: 24, kernel: "6.1", distribution: "Debian" },
  ...{ node: "v26", openssl: "3.5", loadBefore: 0.1 },
};
const fresh: Results = {
  ...{ format: 1, startedAt: "2026-01-02T00:00:00Z", finishedAt: null, resumedAt: [] },
  ...{ size: "full", fileSystem: "btrfs", runs: 5, passes: 1, lanes: 1, seed: 1 },
  machine,
  tools: { rsync: "a daemon" },
  cases: {},
  rows: [],
  absent: [],
  micro: null,
  counts: null,
};
const row: Row = {
  ...{ case: "empty", tool: "btrfs", medianMs: 1, minMs: 1, maxMs: 1, bytesChanged: 0, bytesSent: 0 },
  ...{ peakRssMiB: null, runsMs: [1] },
};
const earlier: Results = {
  ...fresh,
  ...{ startedAt: "2026-01-01T00:00:00Z", finishedAt: "2026-01-01T01:00:00Z", rows: [row], tools: { btrfs: "send" } },
};

test("a run that goes on has what the earlier one found, and tells when it did", () => {
  const onABusyMachine = { ...fresh, machine: { ...machine, loadBefore: 2 } };
  expect(resumed(earlier, onABusyMachine)).toEqual({
    ...earlier,
    finishedAt: null,
    resumedAt: ["2026-01-02T00:00:00Z"],
    tools: { btrfs: "send", rsync: "a daemon" },
  });
});

test.each<[string, Partial<Results>, string]>([
  ["another machine", { machine: { ...machine, cpu: "another" } }, "cpu a CPU, and is now another"],
  ["other settings", { runs: 6, lanes: 2 }, "runs 5, and is now 6; lanes 1, and is now 2"],
])("a run on %s does not go on with it", (_what, differing, told) => {
  expect(() => resumed(earlier, { ...fresh, ...differing })).toThrow(told);
});

test("what a tool did takes the place of what it did before, and of the reason why it did nothing", () => {
  const missing: Absence = { case: "empty", tool: "btrfs", reason: "it is not installed" };
  const other: Absence = { case: "empty-cold", tool: "btrfs", reason: "always cold" };
  const without = withRows({ ...fresh, absent: [missing, other] }, [], [missing]);
  expect(without).toMatchObject({ rows: [], absent: [other, missing] });
  const measured = withRows(without, [row], []);
  expect(measured).toMatchObject({ rows: [row], absent: [other] });
  const quicker = { ...row, medianMs: 0.5 };
  expect(withRows(measured, [quicker], []).rows).toEqual([quicker]);
});
