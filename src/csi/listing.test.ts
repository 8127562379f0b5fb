import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { pageOf } from "./listing.ts";

const page = (items: readonly string[], maxEntries: number, startingToken = "") =>
  pageOf(items, { maxEntries, startingToken }, String);

test("a page has as many entries as were asked for, in order, and tells where the next one begins", () => {
  const first = page(["c", "a", "b"], 2);
  expect(first.entries).toEqual(["a", "b"]);
  expect(first.nextToken).not.toBe("");
  expect(page(["c", "a", "b"], 2, first.nextToken)).toEqual({ entries: ["c"], nextToken: "" });
});

test("without a number, all are on one page, up to what a message holds", () => {
  expect(page(["b", "a"], 0)).toEqual({ entries: ["a", "b"], nextToken: "" });
  const many = Array.from({ length: 1001 }, (_, index) => `v-${String(index).padStart(4, "0")}`);
  const first = page(many, 0);
  expect(first.entries).toHaveLength(1000);
  expect(page(many, 5000).entries).toHaveLength(1000);
  expect(page(many, 0, first.nextToken).entries).toEqual(["v-1000"]);
});

test("a page goes on behind an entry that was deleted meanwhile", () => {
  const { nextToken } = page(["a", "b", "c"], 2);
  expect(page(["a", "c", "d"], 2, nextToken).entries).toEqual(["c", "d"]);
});

test.each([
  ["invalid-token", 1, "ABORTED"],
  ["after:", 1, "ABORTED"],
  ["", -1, "INVALID_ARGUMENT"],
])("the token %j with max_entries %i is refused with %s", (token, max, code) => {
  expect(() => page(["a"], max, token)).toThrow(expect.objectContaining({ code }));
});

const names = fc.uniqueArray(fc.stringMatching(/^[a-z0-9]{1,4}$/), { maxLength: 30 });

test("whatever comes and goes between pages, what is there all the time is listed exactly once", () => {
  fc.assert(
    fc.property(names, fc.array(names, { maxLength: 20 }), fc.integer({ min: 1, max: 5 }), (kept, coming, max) => {
      const listed: string[] = [];
      let token = "";
      let round = 0;
      do {
        const others = coming[round] ?? [];
        const found = page([...new Set([...kept, ...others])], max, token);
        expect(found.entries.length).toBeLessThanOrEqual(max);
        listed.push(...found.entries);
        token = found.nextToken;
        round++;
      } while (token !== "");
      expect(listed.filter((name) => kept.includes(name)).sort()).toEqual([...kept].sort());
      expect(new Set(listed).size).toBe(listed.length);
    }),
  );
});
