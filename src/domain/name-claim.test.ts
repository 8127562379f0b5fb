import { expect, test } from "@jest/globals";
import { judgeName, type NameAnswer, type NameVerdict } from "./name-claim.ts";

/** `b:ac` keeps the claim, and knows the names of a and c; `b?` is silent; `b!c` says that c has it, `b!c?` that c is away as well. */
function answer(text: string): NameAnswer {
  const [agentId = "", sign, ...rest] = text;
  if (sign === "?") return { kind: "silent", agentId };
  if (sign === "!") return { kind: "taken", by: String(rest[0]), isAway: rest[1] === "?" };
  return { kind: "kept", agentId, knows: rest };
}

function show(verdict: NameVerdict): string {
  if (verdict.kind === "free") return "free";
  if (verdict.kind === "inDoubt") return `in doubt: ${verdict.agents.join(" ")}`;
  return `taken by ${verdict.by}${verdict.isAway ? ", which is away" : ""}`;
}

test.each([
  // what the agent itself knows the names of, what the others say, verdict
  ["", "", "free"],
  ["", "b: c:", "free"],
  ["bc", "b:c c?", "free"],
  // One that has just come, or is of an earlier version, cannot speak for the one that is away.
  ["b", "b:c c?", "in doubt: c"],
  ["bc", "b: c?", "in doubt: c"],
  ["bd", "b:c d: c?", "in doubt: c"],
  ["b", "b:c d:c c?", "free"],
  // Of two agents, each may have what the other has never heard of.
  ["b", "b?", "in doubt: b"],
  ["bcd", "b:cd c? d?", "in doubt: c d"],
  ["bcde", "b:cde e:bcd c? d?", "in doubt: c d"],
  ["bc", "b!c c?", "taken by c"],
  ["bc", "b!c? c?", "taken by c, which is away"],
  ["bcd", "b:cd c!c d?", "taken by c"],
])("an agent that knows [%s], and hears [%s], finds the name %s", (own, heard, expected) => {
  const answers = heard.split(" ").filter(Boolean).map(answer);
  expect(show(judgeName(answers, [...own]))).toBe(expected);
});
