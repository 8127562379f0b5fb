import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import type { RunList } from "../base/run-list.ts";
import type { ChangedExtent } from "../storage/backend.ts";
import { joined, pageOf } from "./extents.ts";

/** Extents as `d0-2 h2-3`: blocks 0 and 1 with data, block 2 a hole. */
function extents(text: string): ChangedExtent[] {
  return text
    .split(" ")
    .filter((word) => word !== "")
    .map((word): ChangedExtent => {
      const [, kind, start, end] = /^([dh])(\d+)-(\d+)$/.exec(word) ?? [];
      return { kind: kind === "h" ? "hole" : "data", offset: Number(start), length: Number(end) - Number(start) };
    });
}

function show(runs: RunList): string {
  return Array.from({ length: runs.length }, (_, nth) => `${runs.startOf(nth)}-${runs.endOf(nth)}`).join(" ");
}

describe("joined", () => {
  test.each([
    // two lists, and what is covered by either
    ["", "", ""],
    ["d0-2 d4-6", "", "0-2 4-6"],
    ["d0-2 h2-4 d4-6", "", "0-6"],
    ["d0-2", "d4-6", "0-2 4-6"],
    ["d4-6", "d0-2", "0-2 4-6"],
    ["d0-9", "d2-3 d4-5", "0-9"],
    ["d0-3 d8-9", "d2-5", "0-5 8-9"],
    ["d1-2 d5-6", "d2-5", "1-6"],
  ])("[%s] and [%s] are [%s]", (one, other, both) => {
    expect(show(joined(extents(one), extents(other)))).toBe(both);
  });
});

describe("a page", () => {
  const runs = () => joined(extents("d1-3 d5-9 d20-21"), []);

  test.each([
    // from, at most, the extents, where to go on
    [0, 10, "1-3 5-9 20-21", null],
    [0, 2, "1-3 5-9", 20],
    [0, 1, "1-3", 5],
    [2, 1, "2-3", 5],
    [3, 1, "5-9", 20],
    [8, 10, "8-9 20-21", null],
    [9, 10, "20-21", null],
    [21, 10, "", null],
    [1000, 10, "", null],
  ])("from %i, of %i at most, has [%s] and goes on at %s", (from, max, text, next) => {
    const page = pageOf(runs(), { from, max });
    expect(page.extents.map(({ offset, length }) => `${offset}-${offset + length}`).join(" ")).toBe(text);
    expect(page.next).toBe(next);
  });

  test("followed by the next ones, it gives everything from where one began, once, whatever the size of the pages", () => {
    const gaps = fc.array(fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 })), { maxLength: 40 });
    fc.assert(
      fc.property(gaps, fc.nat(400), fc.integer({ min: 1, max: 7 }), (shape, start, max) => {
        const list: ChangedExtent[] = [];
        let at = 0;
        for (const [gap, length] of shape) {
          list.push({ kind: "data", offset: at + gap, length });
          at += gap + length;
        }
        const covered = (of: Iterable<{ offset: number; length: number }>) =>
          [...of].flatMap(({ offset, length }) => Array.from({ length }, (_, nth) => offset + nth));
        const told: { offset: number; length: number }[] = [];
        let pages = 0;
        for (let from: number | null = start; from !== null; pages++) {
          const page = pageOf(joined(list, []), { from, max });
          expect(page.extents.length).toBeLessThanOrEqual(max);
          if (page.next !== null) expect(page.next).toBeGreaterThan(from);
          told.push(...page.extents);
          from = page.next;
        }
        expect(covered(told)).toEqual(covered(list).filter((byte) => byte >= start));
        expect(pages).toBeLessThanOrEqual(list.length + 1);
      }),
    );
  });
});
