// What a run of checks and tests comes to: counts, names, and whether it is good. Pure; tools/run-tests.ts runs them.

import { relative } from "node:path";

export interface Summary {
  readonly passed: number;
  /** A line for each failure. */
  readonly failed: readonly string[];
  /** `FILE: NAME` of each skip. */
  readonly skipped: readonly string[];
}

interface JestResults {
  readonly testResults: readonly {
    readonly name: string;
    readonly message: string;
    readonly status: string;
    readonly assertionResults: readonly { readonly fullName: string; readonly status: string }[];
  }[];
}

/** What Jest reported (`--json`; nothing if it broke down before), for the folder `root`, with its exit status. */
export function summarize(json: string | undefined, jest: { root: string; status: number }): Summary {
  if (json === undefined) return { passed: 0, failed: [`jest ended with ${jest.status} and no results`], skipped: [] };
  const files = (JSON.parse(json) as JestResults).testResults;
  const tests = files.flatMap((file) =>
    file.assertionResults.map((test) => ({
      status: test.status,
      name: `${relative(jest.root, file.name)}: ${test.fullName}`,
    })),
  );
  const named = (...statuses: string[]) =>
    tests.filter((test) => statuses.includes(test.status)).map((test) => test.name);
  const failedTests = named("failed");
  // A file that cannot be loaded, or whose afterAll fails, has failed without any failed test.
  const failedFiles = files
    .filter((file) => file.status === "failed" && !file.assertionResults.some((test) => test.status === "failed"))
    .map((file) => `${relative(jest.root, file.name)}: the file as a whole`);
  const failed = [...failedTests, ...failedFiles];
  const otherwise = jest.status !== 0 && failed.length === 0 ? [`jest ended with ${jest.status}`] : [];
  return {
    passed: named("passed").length,
    failed: [...failed, ...otherwise],
    skipped: named("pending", "todo", "disabled", "skipped"),
  };
}

/** Several runs as one. */
export function addSummaries(summaries: readonly Summary[]): Summary {
  return {
    passed: summaries.reduce((sum, { passed }) => sum + passed, 0),
    failed: summaries.flatMap(({ failed }) => failed),
    skipped: summaries.flatMap(({ skipped }) => skipped),
  };
}

/** The patterns of test/allowed-skips.txt. */
export function parseAllowedSkips(text: string): readonly string[] {
  return text
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"));
}

/** Whether the whole name is matched by a pattern in which * stands for any text. */
export function isAllowed(name: string, patterns: readonly string[]): boolean {
  return patterns.some((pattern) =>
    new RegExp(`^${pattern.split("*").map(RegExp.escape).join(".*")}$`, "s").test(name),
  );
}

/** The lines to print, of which the last is the count, and the exit status. */
export function verdict(run: { checked: Summary; tested: Summary; inCi: boolean; allowedSkips: readonly string[] }): {
  lines: readonly string[];
  status: number;
} {
  const { checked, tested } = run;
  const failed = [...checked.failed, ...tested.failed];
  const skipped = [...checked.skipped, ...tested.skipped];
  const refused = run.inCi ? skipped.filter((name) => !isAllowed(name, run.allowedSkips)) : [];
  const nothingRan = tested.passed + tested.failed.length === 0;
  const lines = [
    "",
    ...failed.map((name) => `failed: ${name}`),
    ...skipped.map((name) => `skipped: ${name}${refused.includes(name) ? " (not in test/allowed-skips.txt)" : ""}`),
    ...(nothingRan ? ["no test ran at all"] : []),
    `${checked.passed + tested.passed} passed, ${failed.length} failed, ${skipped.length} skipped`,
  ];
  return { lines, status: failed.length > 0 || refused.length > 0 || nothingRan ? 1 : 0 };
}
