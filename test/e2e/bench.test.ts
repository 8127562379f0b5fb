// The benchmark in its small version: every tool at hand brings a case's data over, byte for byte, ours those of every kind
// of case, and the results have the rows they should have. Times are not looked at.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { type CaseName, caseNames, type ToolName, toolNames } from "../../bench/cases.ts";
import type { Results, Row } from "../../bench/results.ts";
import { onInterrupt } from "../interrupt.ts";
import { needs } from "../needs.ts";

const root = join(import.meta.dirname, "../..");
const timeoutMs = 900_000;
let folder = "";
let forget = () => {};

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "longshore-bench-test-"));
  forget = onInterrupt(() => rmSync(folder, { recursive: true, force: true }));
});

afterAll(() => {
  rmSync(folder, { recursive: true, force: true });
  forget();
});

/** Runs it to its end; what it prints is in the failure, when it fails. */
async function runBench(environment: Readonly<Record<string, string>>): Promise<Results> {
  const results = join(folder, "results.json");
  const child = spawn(process.execPath, ["--disable-warning=ExperimentalWarning", "bench/bench.ts"], {
    cwd: root,
    env: { ...process.env, SIZE: "small", RUNS: "", PASSES: "", RESULTS: results, ...environment },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const forgetChild = onInterrupt(() => child.kill("SIGTERM"));
  let told = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      told += text;
    });
  }
  const [status] = await once(child, "close");
  forgetChild();
  if (status !== 0) throw new Error(`it ended with ${status}:\n${told}`);
  return JSON.parse(readFileSync(results, "utf8")) as Results;
}

/** The rows of a case, of which every tool has one, or a reason why it has none. */
function checkedRows(results: Results, name: CaseName, tools: readonly ToolName[]): readonly Row[] {
  const rows = results.rows.filter((row) => row.case === name);
  const known = [...rows, ...results.absent.filter((row) => row.case === name)].map(({ tool }) => tool);
  expect(known.sort()).toEqual([...tools].sort());
  expect(rows.map(({ tool }) => tool)).toContain("longshore-tls");
  for (const row of rows) {
    expect(row.runsMs).toHaveLength(1);
    expect(row).toMatchObject({ medianMs: row.runsMs[0], minMs: row.medianMs, maxMs: row.medianMs });
    expect(row.bytesChanged).toBe(rows[0]?.bytesChanged);
    if (!row.tool.startsWith("longshore")) continue;
    expect(row).toMatchObject({ peakRssMiB: expect.any(Number), idleRssMiB: expect.any(Number) });
  }
  return rows;
}

needs("root", "xfs", "btrfs")(
  "every tool brings over what has changed, byte for byte, and the results tell it",
  async () => {
    const results = await runBench({ CASES: "incr-1pct-4g", MICRO: "no" });
    checkedRows(results, "incr-1pct-4g", toolNames);
    expect(bytesChanged(results, "incr-1pct-4g")).toBe(Math.floor(8192 * 0.01) * 4096);
    expect(results.finishedAt).not.toBeNull();
  },
  timeoutMs,
);

needs("root", "xfs")(
  "every kind of case is measured, and so are the parts",
  async () => {
    const cases: CaseName[] = ["full-2g", "tree-upgrade", "small-100", "empty-cold"];
    const results = await runBench({ CASES: cases.join(" "), TOOLS: "longshore-tls" });
    for (const name of cases) checkedRows(results, name, ["longshore-tls"]);
    expect(bytesChanged(results, "full-2g")).toBe(16 << 20);
    expect(bytesChanged(results, "tree-upgrade")).toBeGreaterThan(0);
    expect(bytesChanged(results, "small-100")).toBe(6 * 16 * 4096);
    expect(bytesChanged(results, "empty-cold")).toBe(0);
    expect(results.micro?.snapshotStall.map(({ fileSystem }) => fileSystem)).toEqual(["xfs", "btrfs"]);
    expect(results.counts === null || results.counts.roundTrips > 0).toBe(true);
  },
  timeoutMs,
);

function bytesChanged(results: Results, name: CaseName): number | undefined {
  return results.rows.find((row) => row.case === name)?.bytesChanged;
}

test("the committed results, if there are any, are of known cases and tools", () => {
  const rows = committedRows();
  expect(rows.filter(({ case: name }) => !caseNames.includes(name))).toEqual([]);
  expect(rows.filter(({ tool }) => !toolNames.includes(tool))).toEqual([]);
});

function committedRows(): Results["rows"] {
  try {
    return (JSON.parse(readFileSync(join(root, "bench/results/latest.json"), "utf8")) as Results).rows;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return [];
    throw error;
  }
}
