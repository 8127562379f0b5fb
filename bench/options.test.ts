import { expect, test } from "@jest/globals";
import { caseNames, toolNames } from "./cases.ts";
import { optionsOf } from "./options.ts";

test("everything is measured at full size unless asked otherwise", () => {
  expect(optionsOf({})).toMatchObject({ size: "full", cases: caseNames, tools: toolNames, runs: 6, passes: 3 });
});

test("the small version runs once", () => {
  expect(optionsOf({ SIZE: "small" })).toMatchObject({ size: "small", runs: 1, passes: 1 });
});

test("cases and tools are lists", () => {
  const options = optionsOf({ CASES: "empty, full-2g", TOOLS: "btrfs rsync", RUNS: "5" });
  expect(options).toMatchObject({ cases: ["empty", "full-2g"], tools: ["btrfs", "rsync"], runs: 5 });
});

test.each([
  [{ CASES: "emtpy" }, "CASES: emtpy is not one of"],
  [{ SIZE: "huge" }, "SIZE: huge is not one of full, small"],
  [{ FS: "ext4" }, "FS: ext4 is not one of btrfs, xfs"],
  [{ RESUME: "perhaps" }, "RESUME: perhaps is not one of yes, no"],
  [{ RUNS: "0" }, "RUNS: 0 is not a positive number"],
])("%j is refused", (env, message) => {
  expect(() => optionsOf(env)).toThrow(message);
});
