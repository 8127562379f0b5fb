import { describe, expect, test } from "@jest/globals";
import type { KnownMember } from "../wire/member.ts";
import { isNewer } from "./members.ts";

/** `member 3`: as told in its third life. */
function telling(text: string): KnownMember {
  const [state, incarnation] = text.split(" ");
  const common = { agentId: "a", node: "n", address: "h:1", laneAddress: "h:2" };
  return { ...common, incarnation: Number(incarnation), state: state as KnownMember["state"] };
}

const all = ["member", "lost", "forgotten"].flatMap((state) => [1, 2, 3].map((life) => `${state} ${life}`));

describe("of two tellings about one agent", () => {
  test.each([
    // the later, the earlier
    ["member 2", "member 1"],
    ["lost 1", "member 1"],
    ["member 2", "lost 1"],
    ["lost 2", "member 1"],
    ["forgotten 1", "member 3"],
    ["forgotten 1", "lost 3"],
  ])("%s stands against %s, whichever is heard first", (later, earlier) => {
    expect(isNewer(telling(later), telling(earlier))).toBe(true);
    expect(isNewer(telling(earlier), telling(later))).toBe(false);
  });

  test("at most one is newer, so that all agents end up with the same, in whatever order they hear", () => {
    for (const one of all)
      for (const other of all)
        expect(isNewer(telling(one), telling(other)) && isNewer(telling(other), telling(one))).toBe(false);
  });
});
