import { describe, expect, test } from "@jest/globals";
import { type CopyFacts, chooseHome, findHome, type Home } from "./homes.ts";

/** `a3` made on a with 3 points, `b?` only placed on b, `c1e7` made on c with 1 point under epoch 7. */
function facts(text: string): CopyFacts[] {
  return text
    .split(" ")
    .filter((word) => word !== "")
    .map((word) => {
      const [, agentId = "", points = "0", epoch = "1"] = /^([a-z])(\d+|\?)(?:e(\d+))?$/.exec(word) ?? [];
      const isMade = points !== "?";
      return { agentId, isMade, points: isMade ? Number(points) : 0, epoch: Number(epoch) };
    });
}

function show(home: Home): string {
  if (home.kind === "at") return home.agentId;
  return home.kind === "unknown" ? `unknown: ${home.silent.join(" ")}` : "new";
}

describe("a copy is at home", () => {
  test.each([
    // what the agents say, who is silent, home
    ["", "", "new"],
    ["a0", "", "a"],
    ["a3", "b c", "a"],
    ["b?", "", "b"],
    ["", "c", "unknown: c"],
    ["b?", "c", "unknown: c"],
    ["a1 b2", "", "b"],
    ["a1e9 b1e3", "", "a"],
    ["b1 a1", "", "a"],
    ["a0 b?", "", "a"],
    ["b? a?", "", "a"],
  ])("by [%s], while [%s] are silent: %s", (said, silent, home) => {
    const found = findHome(facts(said), silent.split(" ").filter(Boolean));
    expect(show(found)).toBe(home);
  });
});

describe("a new copy goes", () => {
  test.each([
    // free bytes, siblings, size, home
    ["where most is free", { a: 10, b: 30, c: 20 }, [], 5, "b"],
    ["to the first of equals", { b: 10, a: 10 }, [], 5, "a"],
    ["to its siblings", { a: 10, b: 30 }, ["a"], 5, "a"],
    ["elsewhere when it does not fit there", { a: 10, b: 30 }, ["a"], 11, "b"],
    ["where most is free even if it fits nowhere", { a: 10, b: 30 }, ["a"], 99, "b"],
    ["where least was promised when more was than there is", { a: -20, b: -30 }, ["b"], 5, "a"],
    ["nowhere when there is nobody", {}, [], 5, undefined],
    ["where the point is that it starts from", { a: 10, b: 30, origin: 1 }, ["a"], 5, "origin"],
  ])("%s", (_, free, siblings, sizeBytes, home) => {
    const rooms = Object.entries(free).map(([agentId, freeBytes]) => ({
      agentId,
      freeBytes,
      originals: agentId === "origin" ? ["p", "q"] : ["q"],
    }));
    expect(chooseHome(sizeBytes, { rooms, siblings, original: "p" })).toBe(home);
  });
});

describe("a new copy with an affinity goes", () => {
  test.each([
    // free bytes, siblings, homes of its affinity, size, home
    ["to those of its affinity", { a: 10, b: 30, c: 20 }, [], ["a"], 5, "a"],
    ["to the one with most room among them", { a: 10, b: 30, c: 20 }, [], ["a", "c"], 5, "c"],
    ["elsewhere when it does not fit there", { a: 10, b: 30, c: 20 }, [], ["a"], 11, "b"],
    ["to its siblings first", { a: 10, b: 30, c: 20 }, ["a"], ["c"], 5, "a"],
    ["to those of its affinity when it does not fit with its siblings", { a: 1, b: 30, c: 20 }, ["a"], ["c"], 5, "c"],
    ["where most is free when there are none yet", { a: 10, b: 30, c: 20 }, [], [], 5, "b"],
  ])("%s", (_, free, siblings, near, sizeBytes, home) => {
    const rooms = Object.entries(free).map(([agentId, freeBytes]) => ({ agentId, freeBytes }));
    expect(chooseHome(sizeBytes, { rooms, siblings, near })).toBe(home);
  });
});
