import { expect, test } from "@jest/globals";
import { BugError } from "../base/assert.ts";
import { errorTable, LongshoreError } from "../domain/errors.ts";
import { CsiError, failureOf } from "./status.ts";

test.each([
  [new LongshoreError("NotFound", "no volume a"), "NOT_FOUND", "no volume a"],
  [new LongshoreError("NameTaken", "taken"), "ALREADY_EXISTS", "taken"],
  [new LongshoreError("DiskFull", "full"), "RESOURCE_EXHAUSTED", "full"],
  [new LongshoreError("InUse", "in use"), "FAILED_PRECONDITION", "in use"],
  [new LongshoreError("Unreachable", "away"), "UNAVAILABLE", "away"],
  [new LongshoreError("Timeout", "slow"), "DEADLINE_EXCEEDED", "slow"],
  [new LongshoreError("ShrinkRefused", "smaller"), "OUT_OF_RANGE", "smaller"],
  [new CsiError("ABORTED", "come back"), "ABORTED", "come back"],
  [new CsiError("NOT_FOUND", "gone", { cause: new Error("ENOENT") }), "NOT_FOUND", "gone: ENOENT"],
])("%s is told as %s", (error, code, details) => {
  const advice = error instanceof LongshoreError ? `. ${errorTable[error.code].advice}` : "";
  expect(failureOf(error)).toEqual({ code, details: details + advice });
});

test("what to do next is told, also after very much else", () => {
  const details = (text: string) => failureOf(new LongshoreError("DiskFull", text)).details;
  expect(details("full")).toBe("full. Free space on the node's storage, or raise its size.");
  expect(details("x".repeat(5_000))).toMatch(/x\. Free space on the node's storage, or raise its size\.$/);
  expect(details("x".repeat(5_000))).toHaveLength(2_000);
});

test.each([[new BugError("an assertion")], [new Error("secret /path")], ["a string"], [undefined]])(
  "of a defect nobody is told more than that it is one",
  (error) => {
    expect(failureOf(error)).toEqual({ code: "INTERNAL", details: expect.stringContaining("defect") });
    expect(failureOf(error).details).not.toContain("secret");
  },
);

test("a message is no longer than a header may be, and whole characters", () => {
  const { details } = failureOf(new CsiError("INTERNAL", `${"x".repeat(1_999)}😀${"y".repeat(100)}`));
  expect(details).toHaveLength(2_000);
  expect(() => encodeURI(details)).not.toThrow();
});
