import { expect, test } from "@jest/globals";
import { assert, BugError, unreachable } from "./assert.ts";

test("a condition that does not hold is reported as a bug with its message", () => {
  expect(() => assert(1 > 2, "one is not above two")).toThrow(new BugError("one is not above two"));
});

test("an alternative nobody handled is named in the error", () => {
  expect(() => unreachable("surprise" as never)).toThrow('unhandled alternative: "surprise"');
});
