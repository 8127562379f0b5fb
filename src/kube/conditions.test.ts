import { expect, test } from "@jest/globals";
import { conditionOf, dropCondition, isConditionTrue, type Judgement, setCondition } from "./conditions.ts";

const ready: Judgement = {
  type: "Ready",
  status: "True",
  reason: "Reachable",
  message: "3 members",
  observedGeneration: 2,
};
const noon = Date.parse("2026-01-01T12:00:00Z");

test("a first judgement is added with the time of now, in whole seconds", () => {
  expect(setCondition(undefined, ready, noon + 999)).toEqual([
    { ...ready, lastTransitionTime: "2026-01-01T12:00:00Z" },
  ]);
});

test("judging the same status later keeps the time, and takes over reason, message and generation", () => {
  const before = setCondition(undefined, ready, noon);
  const after = setCondition(before, { ...ready, message: "2 members", observedGeneration: 3 }, noon + 60_000);
  expect(after).toEqual([
    { ...ready, message: "2 members", observedGeneration: 3, lastTransitionTime: "2026-01-01T12:00:00Z" },
  ]);
});

test("another status moves the time, in the same place of the list", () => {
  const before = setCondition(setCondition(undefined, ready, noon), { ...ready, type: "Other" }, noon);
  const after = setCondition(before, { ...ready, status: "False", reason: "Unreachable" }, noon + 60_000);
  expect(after.map(({ type, status, lastTransitionTime }) => [type, status, lastTransitionTime])).toEqual([
    ["Ready", "False", "2026-01-01T12:01:00Z"],
    ["Other", "True", "2026-01-01T12:00:00Z"],
  ]);
});

test("conditions are found, asked and dropped by type; the list given is never changed", () => {
  const conditions = Object.freeze(setCondition(undefined, ready, noon));
  expect(isConditionTrue(conditions, "Ready")).toBe(true);
  expect(isConditionTrue(conditions, "Other")).toBe(false);
  expect(conditionOf(conditions, "Ready")?.reason).toBe("Reachable");
  expect(dropCondition(conditions, "Ready")).toEqual([]);
  expect(setCondition(conditions, { ...ready, status: "False" }, noon)).not.toBe(conditions);
  expect(isConditionTrue(conditions, "Ready")).toBe(true);
});
