import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { type AwaitedVolume, decideThawNews, type WaitingClone } from "./thaw-news.ts";

const minute = 60_000;
const now = 100 * minute;

const waits: WaitingClone = {
  state: "Waiting",
  requestedMs: now - minute,
  servedMs: undefined,
  sourceTime: undefined,
  committedMs: undefined,
};

const frozen = (bytesStored: number, bytesTotal = 400): AwaitedVolume => ({
  name: "east.db",
  state: "Frozen",
  transfer: { bytesTotal, bytesStored },
});

test.each<[string, AwaitedVolume | undefined, string]>([
  ["just begun", frozen(0), "start"],
  ["short of a quarter", frozen(99), "start"],
  ["a quarter", frozen(100), "quarter-1"],
  ["half", frozen(200), "quarter-2"],
  ["three quarters", frozen(399), "quarter-3"],
  ["all stored and not committed", frozen(400), "quarter-3"],
  ["nothing to transfer", frozen(0, 0), "start"],
  ["no first point, and none on its way", { name: "east.db", state: "Empty", transfer: undefined }, "start"],
  ["undecided", { ...frozen(400), state: "Undecided" }, "quarter-3"],
  ["open, and being cloned", { name: "east.db", state: "Available", transfer: undefined }, "nothing"],
  ["gone", undefined, "nothing"],
])("a volume that is %s is an occasion of its own, or none", (_, volume, occasion) => {
  const news = decideThawNews(waits, volume, now);
  expect(news?.occasion ?? "nothing").toBe(occasion);
  if (news !== undefined) expect([news.kind, news.message.includes("east.db")]).toEqual(["waiting", true]);
});

test("what is waited for is told with the progress", () => {
  expect(decideThawNews(waits, frozen(2 ** 20, 2 ** 22), now)?.message).toBe(
    "Migrated volume east.db is frozen while a transfer runs: 1 MiB of 4 MiB stored (25%). The claim is bound when it commits.",
  );
  expect(decideThawNews(waits, { name: "east.db", state: "Empty", transfer: undefined }, now)?.message).toBe(
    "Migrated volume east.db has no point in time yet, and none is on its way at the moment. The claim is bound after the first commit.",
  );
});

const served: WaitingClone = {
  state: "Ready",
  requestedMs: now - 4 * minute,
  servedMs: now - minute,
  sourceTime: "2026-01-01T00:00:00.000Z",
  committedMs: now - 2 * minute,
};

test.each<[string, Partial<WaitingClone>, boolean]>([
  ["of a point that was committed after it was asked for", {}, true],
  ["of such a point, at once", { requestedMs: now - 2 * minute - 1, servedMs: now - 2 * minute }, true],
  ["of an older point, after a transfer that was given up", { committedMs: now - 50 * minute }, true],
  ["of a point that is not known any more", { committedMs: undefined }, true],
  ["at once, of a point that was there", { requestedMs: now - minute - 20, committedMs: now - 50 * minute }, false],
  ["long ago", { requestedMs: now - 50 * minute, servedMs: now - 11 * minute, committedMs: now - 12 * minute }, false],
])("whether there was a thaw to tell of follows from the clone: made %s", (_, fields, isTold) => {
  const news = decideThawNews({ ...served, ...fields }, frozen(0), now);
  expect(news?.kind).toBe(isTold ? "thawed" : undefined);
});

test("the thaw is told with how long it took, and of which point it is", () => {
  expect(decideThawNews(served, undefined, now)?.message).toBe(
    "The clone is made after 3m, of the point in time 2026-01-01T00:00:00.000Z.",
  );
});

test("however a transfer goes on, a claim is told of at most four occasions, in their order", () => {
  const progress = fc.array(fc.nat({ max: 1_000 }), { minLength: 1 });
  fc.assert(
    fc.property(progress, (stored) => {
      const told = stored
        .toSorted((left, right) => left - right)
        .map((bytes) => decideThawNews(waits, frozen(bytes, 1_000), now)?.occasion);
      const all = ["start", "quarter-1", "quarter-2", "quarter-3"];
      const distinct = [...new Set(told)];
      expect(distinct).toEqual(all.filter((occasion) => distinct.includes(occasion)));
    }),
  );
});
