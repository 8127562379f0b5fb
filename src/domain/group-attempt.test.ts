import { expect, test } from "@jest/globals";
import {
  type Answer,
  type CopyFacts,
  coordinatorOf,
  decideNext,
  isOutcomeOpen,
  mergeSteering,
  type Next,
} from "./group-attempt.ts";

/** `a:unfinished b:Failed c:unreachable` */
function answersOf(text: string): Map<string, Answer> {
  const words = text.split(" ").filter((word) => word !== "");
  return new Map(
    words.map((word): [string, Answer] => {
      const [agent = "", kind = ""] = word.split(":");
      const isEnd = kind === "Succeeded" || kind === "Failed" || kind === "Cancelled";
      if (isEnd) return [agent, { kind: "finished", as: kind }];
      return [agent, { kind: kind as "unreachable" | "unknown" | "unfinished" }];
    }),
  );
}

test.each([
  ["a", "a:unfinished b:unfinished c:unfinished", "a"],
  ["b", "a:unfinished b:unfinished", "a"],
  ["b", "a:unreachable b:unfinished c:unfinished", "b"],
  ["b", "a:unknown b:unfinished", "b"],
  ["b", "a:Succeeded b:unfinished", "b"],
  ["c", "a:Failed b:unfinished c:unfinished", "b"],
  ["b", "", "b"],
])("%s, hearing [%s], finds that %s coordinates", (self, heard, expected) => {
  expect(coordinatorOf(self, answersOf(heard))).toBe(expected);
});

const copies: Readonly<Record<string, CopyFacts>> = {
  none: { isReachable: true, hasPoint: false, isCommitted: false, votedFor: null },
  /** Committed with its group. */
  point: { isReachable: true, hasPoint: true, isCommitted: true, votedFor: null },
  /** Come by a job of its own. */
  alone: { isReachable: true, hasPoint: true, isCommitted: false, votedFor: null },
  /** Committed with its group, and lost since. */
  lost: { isReachable: true, hasPoint: false, isCommitted: true, votedFor: null },
  voted: { isReachable: true, hasPoint: false, isCommitted: false, votedFor: "g" },
  other: { isReachable: true, hasPoint: false, isCommitted: false, votedFor: "older" },
  down: { isReachable: false, hasPoint: false, isCommitted: false, votedFor: null },
};

const show = (next: Next) => (next.kind === "end" ? `end ${next.as} like ${next.by}` : next.kind);

test.each([
  // committed group points, copies, answers, what next
  ["", "none none", "a:unfinished b:unfinished", "drive"],
  ["f", "none none", "a:unfinished", "drive"],
  ["f g", "none none", "a:unfinished", "release"],
  ["g", "down down", "a:unfinished b:unreachable", "release"],
  ["", "voted voted", "a:unfinished", "drive"],
  ["", "voted point", "a:unfinished", "release"],
  ["", "point point", "a:unfinished", "release"],
  ["", "alone point", "a:unfinished", "release"],
  ["", "alone voted", "a:unfinished", "drive"],
  ["", "alone voted", "a:unfinished b:Failed", "end Failed like b"],
  ["", "alone alone", "a:unfinished", "drive"],
  ["", "lost voted", "a:unfinished", "drive"],
  ["", "none point", "a:unfinished", "drive"],
  ["", "other point", "a:unfinished", "drive"],
  ["", "down point", "a:unfinished", "drive"],
  ["", "none", "a:unfinished b:Failed", "end Failed like b"],
  ["", "none", "a:Cancelled b:Failed", "end Cancelled like a"],
  ["", "none", "a:unfinished b:Succeeded", "release"],
  ["g", "none", "a:Failed", "release"],
])("with [%s] committed, copies [%s] and participants [%s]: %s", (committed, copyKinds, answers, expected) => {
  const words = (text: string) => text.split(" ").filter((word) => word !== "");
  const facts = {
    groupPoint: "g",
    committed: words(committed),
    copies: words(copyKinds).map((kind) => copies[kind] as CopyFacts),
    answers: answersOf(answers),
  };
  expect(show(decideNext(facts))).toBe(expected);
});

test.each([
  [false, "no no", false],
  [true, "no no", true],
  [false, "no yes", true],
  [false, "", false],
])("commit asked: %s, votes asked: [%s], so the outcome is open: %s", (isCommitAsked, votes, expected) => {
  const shares = votes.split(" ").map((vote) => ({ isPrepared: vote === "yes" }));
  expect(isOutcomeOpen({ isCommitAsked, shares })).toBe(expected);
});

test.each([
  ["0", "1 suspend", "1 suspend"],
  ["2", "1 suspend", "2"],
  ["1 suspend", "1 cancel", "1 cancel"],
  ["1", "1 suspend", "1 suspend"],
  ["3", "2 cancel", "3"],
])("steering [%s] met by [%s] is [%s], in either order", (one, other, expected) => {
  const parse = (text: string) => ({
    steered: Number(text.split(" ")[0]),
    suspend: text.includes("suspend"),
    cancel: text.includes("cancel"),
  });
  expect(mergeSteering(parse(one), parse(other))).toEqual(parse(expected));
  expect(mergeSteering(parse(other), parse(one))).toEqual(parse(expected));
});
