import { expect, test } from "@jest/globals";
import { type Verification, weakestOf } from "./verification.ts";

test.each<[Verification[], Verification | undefined]>([
  [[], undefined],
  [["media"], "media"],
  [["media", "memory", "media"], "memory"],
  [["none", "media"], "none"],
])("the weakest of %j is %s", (all, weakest) => {
  expect(weakestOf(all)).toBe(weakest);
});
