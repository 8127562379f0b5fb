import { describe, expect, test } from "@jest/globals";
import { decideVote, type HomeAnswer, type SiblingAnswer, type Verdict, type Vote } from "./vote.ts";

const vote: Vote = { volume: "v", toId: "to", planDigest: "plan", epoch: 5 };
const committed = (fields: Partial<Vote> = {}, epoch = 5): HomeAnswer => ({
  kind: "committed",
  epoch,
  members: [
    { volume: "other", toId: "x", planDigest: "y" },
    { ...vote, ...fields },
  ],
});
const commit = (epoch: number): Verdict => ({ kind: "commit", epoch });

type Row = readonly [what: string, home: HomeAnswer, siblings: readonly SiblingAnswer[] | undefined, does: Verdict];

const rows: readonly Row[] = [
  ["commits what the home has committed", committed(), undefined, commit(5)],
  ["commits what the home has committed under a later term", committed({}, 7), undefined, commit(7)],
  ["aborts what a later term has committed otherwise", committed({ planDigest: "z" }, 7), undefined, { kind: "abort" }],
  ["aborts what a later term has committed without it", committed({ volume: "z" }, 7), undefined, { kind: "abort" }],
  ["stays when another point of it was committed", committed({ toId: "z" }), undefined, { kind: "mismatch" }],
  ["stays when another plan of it was committed", committed({ planDigest: "z" }), undefined, { kind: "mismatch" }],
  ["stays when it is not among those committed", committed({ volume: "z" }), undefined, { kind: "mismatch" }],
  ["aborts when the home has ended its epoch", { kind: "aborted", epoch: 5 }, undefined, { kind: "abort" }],
  ["aborts when the home has ended a later epoch", { kind: "aborted", epoch: 9 }, undefined, { kind: "abort" }],
  ["waits while the home may still commit", { kind: "pending" }, undefined, { kind: "wait" }],
  ["waits for a home that does not answer", { kind: "silent" }, undefined, { kind: "wait" }],
  ["waits for it whatever the others say", { kind: "silent" }, ["none", "none"], { kind: "wait" }],
  ["asks the others when the home is forgotten", { kind: "forgotten" }, undefined, { kind: "askSiblings" }],
  ["asks the others when the home has forgotten", { kind: "aborted", epoch: 4 }, undefined, { kind: "askSiblings" }],
  ["commits with one that has committed", { kind: "forgotten" }, ["none", "silent", "committed"], commit(5)],
  ["waits for one that does not answer", { kind: "forgotten" }, ["prepared", "silent"], { kind: "wait" }],
  ["aborts when none of them has committed", { kind: "forgotten" }, ["prepared", "none"], { kind: "abort" }],
  ["aborts when it is the only one left", { kind: "forgotten" }, [], { kind: "abort" }],
  ["commits with the others of a home on an old disk", { kind: "aborted", epoch: 0 }, ["committed"], commit(5)],
  ["aborts with the others of a home on an old disk", { kind: "aborted", epoch: 0 }, ["prepared"], { kind: "abort" }],
];

describe("a member that has voted", () => {
  test.each(rows)("%s", (_what, home, siblings, does) => {
    expect(decideVote(vote, home, siblings)).toEqual(does);
  });
});
