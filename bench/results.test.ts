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

test("a run with other settings does not go on with it", () => {
  const differing = { ...fresh, runs: 6, lanes: 2 };
  expect(() => resumed(earlier, differing)).toThrow("runs 5, and is now 6; lanes 1, and is now 2");
});

test("a run on another machine has the cases that were measured whole, and tells of which machine they are", () => {
  const elsewhere = { ...fresh, machine: { ...machine, cpu: "another" }, tools: { btrfs: "send", rsync: "a daemon" } };
  const half: Row = { ...row, case: "full-2g" };
  const withoutRsync: Absence = { case: "empty", tool: "rsync", reason: "it is not installed" };
  const before = {
    ...earlier,
    rows: [row, half],
    absent: [withoutRsync],
    micro: { changeTracking: [], snapshotStall: [] },
  };
  const moved = resumed(before, elsewhere);
  expect(moved).toEqual({
    ...elsewhere,
    ...{ rows: [row], absent: [withoutRsync], micro: before.micro },
    earlier: [{ startedAt: before.startedAt, machine, cases: ["empty"], hasMicro: true }],
  });
  const third = { ...elsewhere, machine: { ...machine, cpu: "a third" } };
  const own: Row = { ...row, case: "empty-cold" };
  const more = withRows(moved, [own, { ...own, tool: "rsync" }], []);
  expect(resumed(more, third).earlier).toEqual([
    ...(moved.earlier ?? []),
    { startedAt: elsewhere.startedAt, machine: elsewhere.machine, cases: ["empty-cold"], hasMicro: false },
  ]);
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
