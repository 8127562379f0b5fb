import { describe, expect, test } from "@jest/globals";
import { decideGroupStep, decideLeftover, type GroupPart } from "./group-snapshot.ts";

/** `a@1:P+` volume a on agent 1 with a confirmed part of P, `-` not confirmed, nothing: no snapshot of the name. */
function parts(text: string): GroupPart[] {
  return text.split(" ").map((word) => {
    const [, volume = "", agentId = "", point, sign] = /^(\w)@(\d)(?::(\w+)([+-]))?$/.exec(word) ?? [];
    const group = point === "Foreign" ? "other" : "g";
    return { volume, agentId, snapshot: point ? { group, groupPoint: point, isConfirmed: sign === "+" } : undefined };
  });
}

function show(step: ReturnType<typeof decideGroupStep>): string {
  switch (step.kind) {
    case "take":
      return "take";
    case "done":
      return `done ${step.groupPoint}`;
    case "discard":
      return `discard ${step.groupPoints.join(" ")}`;
    case "confirm":
      return `confirm ${step.groupPoint} at ${step.agentIds.join(" ")}`;
    case "taken":
      return step.reason;
  }
}

test.each([
  // what the homes have, what is done
  ["a@1 b@2", "take"],
  ["a@1:P- b@2", "discard P"],
  ["a@1:P- b@2:Q- c@1:P-", "discard P Q"],
  ["a@1:P+ b@2:P+", "done P"],
  ["a@1:P+ b@2:P- c@3:P-", "confirm P at 2 3"],
  ["a@3:P- b@2:P+ c@1:P- d@1:P-", "confirm P at 1 3"],
  ["a@1:P+ b@2", "snapshot s of group g has no volume b"],
  ["a@1:P+ b@2:Q-", "snapshot s of group g has no volume b"],
  ["a@1:P+ b@2:Q+", "snapshot s of group g has no volume b"],
  ["a@1:P- b@2:Foreign-", "snapshot s of volume b was taken with group other"],
])("homes with [%s]: %s", (homes, step) => {
  expect(show(decideGroupStep("g", "s", parts(homes)))).toBe(step);
});

describe("agent 2 with parts that nobody has confirmed or dropped for long", () => {
  test.each([
    // what the others have, what it does
    ["", "drop"],
    ["1 nothing, 3 nothing", "drop"],
    ["1 nothing, 3 pending", "drop"],
    ["1 pending, 3 nothing", "wait"],
    ["1 pending, 3 confirmed", "confirm"],
    ["1 confirmed, 3 nothing", "confirm"],
    ["3 confirmed", "confirm"],
  ])("[%s]: %s", (others, decision) => {
    const told = others.split(", ").filter((other) => other !== "");
    const answers = told.map((other) => {
      const [agentId = "", has = ""] = other.split(" ");
      return { agentId, has: has as "nothing" };
    });
    expect(decideLeftover("2", answers)).toBe(decision);
  });
});
