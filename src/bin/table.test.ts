import { describe, expect, test } from "@jest/globals";
import { ageOf, renderFields, renderTable, stateText } from "./table.ts";

interface Row {
  readonly name: string;
  readonly size: number | null;
}

const columns = [
  { title: "NAME", of: (row: Row) => row.name },
  { title: "SIZE", of: (row: Row) => row.size, align: "right" as const },
];

test("columns are as wide as what is in them, and nothing is shown as a dash", () => {
  const rows = [
    { name: "a-long-name", size: 7 },
    { name: "b", size: null },
    { name: "", size: 12345 },
  ];
  expect(renderTable(columns, rows, "none").split("\n")).toEqual([
    "NAME          SIZE",
    "a-long-name      7",
    "b                -",
    "-            12345",
    "",
  ]);
});

test("no rows are one word", () => {
  expect(renderTable(columns, [], "no jobs")).toBe("no jobs\n");
});

test("colours do not move the columns, and are only for terminals", () => {
  const coloured = [{ name: stateText("Failed", { isColoured: true }), size: 1 }];
  expect(coloured[0]?.name).toBe("\u001b[31mFailed\u001b[0m");
  expect(renderTable(columns, coloured, "").split("\n")[1]).toBe("\u001b[31mFailed\u001b[0m     1");
  expect(stateText("Failed", { isColoured: false })).toBe("Failed");
  expect(stateText("SomethingNew", { isColoured: true })).toBe("SomethingNew");
});

test("fields are aligned, and those that are nothing are left out", () => {
  expect(renderFields({ name: "a", "longer name": 0, none: null, empty: "", not: undefined, no: false })).toBe(
    "name         a\nlonger name  0\nno           false\n",
  );
});

describe("an age", () => {
  const nowMs = Date.UTC(2026, 0, 2);
  test.each([
    [0, "0s"],
    [59_400, "59s"],
    [90_000, "1m30s"],
    [11 * 60_000 + 29_000, "11m"],
    [90 * 60_000, "1h30m"],
    [50 * 3_600_000, "50h"],
    [-5_000, "0s"],
  ])("of %i ms is %s", (ms, text) => {
    expect(ageOf(new Date(nowMs - ms).toISOString(), nowMs)).toBe(text);
  });

  test("of nothing is nothing", () => {
    expect(ageOf(null, nowMs)).toBe("");
  });
});
