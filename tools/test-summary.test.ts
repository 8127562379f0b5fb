import { describe, expect, test } from "@jest/globals";
import { addSummaries, isAllowed, parseAllowedSkips, summarize, verdict } from "./test-summary.ts";

/** `a.test.ts: one+ two- three?` is a file with a passed, a failed and a skipped test; `!` a file that failed itself. */
function report(...files: string[]): string {
  const statuses = { "+": "passed", "-": "failed", "?": "pending" };
  const testResults = files.map((file) => {
    const [name, tests = ""] = file.split(": ");
    const assertionResults = tests.match(/\w+[-+?]/g)?.map((test) => ({
      fullName: test.slice(0, -1),
      status: statuses[test.slice(-1) as keyof typeof statuses],
    }));
    return {
      name: `/tree/${name}`,
      message: "",
      status: /[-!]/.test(tests) ? "failed" : "passed",
      assertionResults: assertionResults ?? [],
    };
  });
  return JSON.stringify({ testResults });
}

const clean = { passed: 3, failed: [], skipped: [] };

function lastLineAndStatus(
  files: string[],
  options: {
    inCi?: boolean;
    allowedSkips?: string[];
    jestStatus?: number;
    checked?: typeof clean | { passed: number; failed: string[]; skipped: string[] };
  } = {},
) {
  const tested = summarize(report(...files), { root: "/tree", status: options.jestStatus ?? 0 });
  const { inCi = false, allowedSkips = [], checked = clean } = options;
  const { lines, status } = verdict({ checked, tested, inCi, allowedSkips });
  return `${lines.at(-1)} => ${status}`;
}

describe("a run of checks and tests", () => {
  test.each([
    // files, the last line and the exit status
    [["a: one+ two+"], "5 passed, 0 failed, 0 skipped => 0"],
    [["a: one+ two-"], "4 passed, 1 failed, 0 skipped => 1"],
    [["a: one+", "b: !"], "4 passed, 1 failed, 0 skipped => 1"],
    [["a: one+ two?"], "4 passed, 0 failed, 1 skipped => 0"],
    [["a: one+ !"], "4 passed, 1 failed, 0 skipped => 1"],
    [["a: one?"], "3 passed, 0 failed, 1 skipped => 1"],
    [[], "3 passed, 0 failed, 0 skipped => 1"],
  ])("of %j ends in: %s", (files, line) => {
    expect(lastLineAndStatus(files)).toBe(line);
  });

  test("counts a failed check as a failure", () => {
    const checked = { passed: 2, failed: ["check: types"], skipped: [] };
    expect(lastLineAndStatus(["a: one+"], { checked })).toBe("3 passed, 1 failed, 0 skipped => 1");
  });

  test("counts a check that was skipped, which in CI has to be allowed", () => {
    const checked = { passed: 2, failed: [], skipped: ["check: model"] };
    expect(lastLineAndStatus(["a: one+"], { checked })).toBe("3 passed, 0 failed, 1 skipped => 0");
    expect(lastLineAndStatus(["a: one+"], { checked, inCi: true })).toBe("3 passed, 0 failed, 1 skipped => 1");
  });

  test("fails when Jest failed in a way that no test shows", () => {
    expect(lastLineAndStatus(["a: one+"], { jestStatus: 1 })).toBe("4 passed, 1 failed, 0 skipped => 1");
  });

  test("fails when Jest broke down without results", () => {
    const tested = summarize(undefined, { root: "/tree", status: 134 });
    expect(verdict({ checked: clean, tested, inCi: false, allowedSkips: [] }).status).toBe(1);
  });

  test.each([
    [["a: one", "b: two"], 1],
    [["a: *"], 0],
    [["a: three"], 0],
    [["three"], 1],
  ])("in CI, with the skips %j allowed, a skip of three ends with status %i", (allowedSkips, status) => {
    expect(lastLineAndStatus(["a: one+ three?"], { inCi: true, allowedSkips })).toMatch(new RegExp(`=> ${status}$`));
  });

  test("names each failure and each skip before the last line", () => {
    const tested = summarize(report("a: one+ two- three?"), { root: "/tree", status: 1 });
    const { lines } = verdict({ checked: clean, tested, inCi: true, allowedSkips: [] });
    expect(lines.slice(0, -1).join("\n").trim()).toBe(
      "failed: a: two\nskipped: a: three (not in test/allowed-skips.txt)",
    );
  });
});

test("comments and empty lines allow nothing", () => {
  const patterns = parseAllowedSkips("# why\n\n  a: one  \n#*\n");
  expect(patterns).toEqual(["a: one"]);
  expect(isAllowed("b", patterns)).toBe(false);
});

test("only the star of a pattern is special", () => {
  expect(isAllowed("a: b [needs xfs: (x)]", ["a: * [needs xfs: (x)]"])).toBe(true);
  expect(isAllowed("abc", ["a.c"])).toBe(false);
});

test("several runs count as one", () => {
  const one = { passed: 2, failed: ["a"], skipped: [] };
  const other = { passed: 1, failed: ["b"], skipped: ["c"] };
  expect(addSummaries([one, other])).toEqual({ passed: 3, failed: ["a", "b"], skipped: ["c"] });
  expect(addSummaries([])).toEqual({ passed: 0, failed: [], skipped: [] });
});
