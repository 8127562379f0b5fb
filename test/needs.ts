// Tests that need what not every machine has say so: `needs("root", "xfs")("name", fn)`. Where it is missing, the test
// is skipped with the reason in its name, and in CI that fails the run unless test/allowed-skips.txt names it.

import { test } from "@jest/globals";
import { missing, type Need } from "./machine.ts";

export { missing, type Need };

type TestFunction = () => Promise<void> | void;

/** `test` on a machine that has all of `what`; else a skip named `NAME [needs xfs: REASON]`. */
export function needs(...what: Need[]): (name: string, fn: TestFunction, timeoutMs?: number) => void {
  const reasons = Map.groupBy(
    what.filter((need) => missing(need) !== undefined),
    (need) => missing(need),
  );
  if (reasons.size === 0) return (name, fn, timeoutMs) => test(name, fn, timeoutMs);
  const told = [...reasons].map(([reason, lacking]) => `[needs ${lacking.join(", ")}: ${reason}]`).join(" ");
  return (name, fn, timeoutMs) => test.skip(`${name} ${told}`, fn, timeoutMs);
}
