import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { type GroupMember, groupConflict, groupRuns, type MemberRun, takersOf } from "./group.ts";

/** `a:hourly:west,east`; `a!:...` is not enabled. */
function member(text: string): GroupMember {
  const [name = "", schedule, locations = ""] = text.split(":");
  return {
    name: name.replace("!", ""),
    isEnabled: !name.endsWith("!"),
    schedule,
    locations: locations.split(",").filter(Boolean),
  };
}

test.each([
  ["", "agree"],
  ["a:hourly:west", "agree"],
  ["a:hourly:west b:hourly:west", "agree"],
  ["a:hourly:west,east b:hourly:east,west", "agree"],
  ["a:hourly:west b:daily:west", "schedule differ: daily for b, hourly for a"],
  ["a:hourly:west b:hourly:east c:hourly:west", "locations differ: east for b, west for a, c"],
  [
    "a:hourly:west b:daily:east",
    "schedule differ: daily for b, hourly for a; locations differ: east for b, west for a",
  ],
  ["a:hourly:west b!:daily:east", "b is not enabled"],
  ["a!:hourly:west b!:hourly:west", "agree"],
])("volumes [%s]: %s", (members, expected) => {
  expect(groupConflict(members.split(" ").filter(Boolean).map(member)) ?? "agree").toBe(expected);
});

test("a claim of the group whose volume is not migrated is named, with the reason", () => {
  const outsiders = [{ name: "wal", why: "is not a volume of csi.longshore.dev" }];
  expect(groupConflict([member("a:hourly:west")], outsiders)).toBe("wal is not a volume of csi.longshore.dev");
});

test("a group with more volumes than agents take at once does not go together, and the message stays short", () => {
  const many = Array.from({ length: 257 }, (_, index) => member(`v${index}:${index % 2 ? "hourly" : "daily"}:west`));
  const conflict = groupConflict(many);
  expect(conflict).toContain("it has 257 volumes, and at most 256 go together");
  expect(conflict?.length).toBeLessThan(400);
});

/** `a@5>7`: in the group since 5, last run due at 7. */
function run(text: string): MemberRun {
  const [, volume = "", since, last] = /^(\w+)@(\d+)(?:>(\d+))?$/.exec(text) ?? [];
  return { volume, sinceMs: Number(since), lastRunMs: last === undefined ? undefined : Number(last) };
}

test.each([
  // volumes, run due at 10: made already?, by whom
  ["a@1>10 b@1>10", "made", "a b"],
  ["a@1>9 b@1>9", "due", "a b"],
  ["a@1>10 b@1>9", "due", "a b"],
  ["a@1 b@1", "due", "a b"],
  // One that joined later has no part in it, and does not keep it from being made, nor from being due.
  ["a@1>10 b@11", "made", "a"],
  ["a@1>9 b@11>10", "due", "a"],
  ["b@1>9 a@10", "due", "b"],
  ["a@11 b@12", "made", ""],
])("[%s]: the run at 10 is %s, and of [%s]", (members, expected, takers) => {
  const runs = members.split(" ").map(run);
  const { sinceMs, lastRunMs } = groupRuns(runs);
  expect(10 > Math.max(sinceMs, lastRunMs) ? "due" : "made").toBe(expected);
  expect(takersOf(runs, 10).join(" ")).toBe(takers);
});

test("whoever looks, and in whatever order, the same volumes take part and the same one asks", () => {
  const runs = fc.array(fc.record({ volume: fc.string(), sinceMs: fc.nat(20), lastRunMs: fc.nat(20) }), {
    minLength: 1,
  });
  fc.assert(
    fc.property(runs, fc.nat(20), (members, dueMs) => {
      expect(takersOf([...members].reverse(), dueMs)).toEqual(takersOf(members, dueMs));
      expect(groupRuns([...members].reverse())).toEqual(groupRuns(members));
    }),
  );
});
