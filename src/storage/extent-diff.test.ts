import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { extentFlags, type ReportedExtent } from "../native/reported-extent.ts";
import { blockBytes, type ChangedExtent } from "./backend.ts";
import { ChangeList, diffRuns, type MappedRun, runsOf, sameRuns } from "./extent-diff.ts";

// A map in one line: a letter is a block's place on disk (aB is never next to ab), "." a hole, "?" an opaque block.
// "abc" are three blocks in a row on disk; "aa" is one place twice.
function map(text: string): MappedRun[] {
  return [...text].flatMap((place, block): MappedRun[] => {
    if (place === ".") return [];
    if (place === "?") return [{ offset: block * blockBytes, length: blockBytes }];
    return [{ offset: block * blockBytes, length: blockBytes, physical: place.charCodeAt(0) * blockBytes }];
  });
}

function show(extents: Iterable<ChangedExtent>): string {
  return [...extents]
    .map(({ kind, offset, length }) => `${kind} ${offset / blockBytes}+${length / blockBytes}`)
    .join(", ");
}

describe("the difference of two maps", () => {
  test.each([
    // base, next, difference, why
    ["abcd", "abcd", "", "the same places hold the same bytes"],
    ["abcd", "abxd", "data 2+1", "a block that moved may have changed"],
    ["....", "....", "", "holes are equal"],
    ["abcd", "a..d", "hole 1+2", "what was punched is told as a hole"],
    ["a..d", "abcd", "data 1+2", "what was written into a hole is data"],
    ["ab", "abcd", "data 2+2", "data past the end of a shorter base is data"],
    ["ab..", "ab", "", "nothing is told of what neither has"],
    ["abcd", "ab", "hole 2+2", "a next map that ends early has holes there"],
    ["?bcd", "?bcd", "data 0+1", "an opaque block equals nothing, not even itself"],
    ["a?c", "abc", "data 1+1", "an opaque block in the base alone is enough"],
    ["abc", "a?c", "data 1+1", "and so is one in the next"],
    ["?..", "...", "hole 0+1", "an opaque block that went away left a hole"],
    ["abab", "abab", "", "one place may be mapped twice"],
    ["abcd", "dcba", "data 0+4", "exchanged blocks are all changed, and joined"],
    ["abcd", "bcda", "data 0+4", "shifted runs are not the same place"],
    ["ab.d", "a.cd", "hole 1+1, data 2+1", "kinds are not joined with each other"],
  ])("from [%s] to [%s] is [%s]: %s", (base, next, difference) => {
    expect(show(diffRuns(map(base), map(next)))).toBe(difference);
  });

  test("is what comparing block by block gives, for any two maps however they are cut into runs", () => {
    const place = fc.constantFrom(..."abcdefgh..??");
    const text = fc.array(place, { maxLength: 24 }).map((places) => places.join(""));
    fc.assert(
      fc.property(text, text, fc.boolean(), fc.boolean(), (base, next, joinsBase, joinsNext) => {
        const runs = { base: cut(map(base), joinsBase), next: cut(map(next), joinsNext) };
        expect(show(diffRuns(runs.base, runs.next))).toBe(naive(base, next));
      }),
      { numRuns: 2000 },
    );
  });
});

function cut(runs: MappedRun[], joins: boolean): MappedRun[] {
  if (!joins) return runs;
  const reported = runs.map((run) => ({
    logical: run.offset,
    length: run.length,
    physical: run.physical ?? 0,
    flags: run.physical === undefined ? extentFlags.encoded : 0,
  }));
  return runsOf(reported, { start: 0, end: Number.MAX_SAFE_INTEGER - blockBytes });
}

function naive(base: string, next: string): string {
  const changes = new ChangeList();
  for (let block = 0; block < Math.max(base.length, next.length); block++) {
    const [from, to] = [base[block] ?? ".", next[block] ?? "."];
    const isEqual = from === to && from !== "?";
    if (!isEqual) changes.add(to === "." ? "hole" : "data", block * blockBytes, (block + 1) * blockBytes);
  }
  return show(changes);
}

describe("what the file system reports becomes runs of blocks", () => {
  const k = 1024;
  const whole = { start: 0, end: 64 * k };
  const extent = (logical: number, length: number, physical: number, flags = 0): ReportedExtent => ({
    logical,
    length,
    physical,
    flags,
  });
  const known = (offset: number, length: number, physical: number) => ({ offset, length, physical });
  const opaque = (offset: number, length: number) => ({ offset, length });

  test.each<[string, ReportedExtent[], MappedRun[]]>([
    ["an extent of whole blocks stays as it is", [extent(4 * k, 8 * k, 400 * k)], [known(4 * k, 8 * k, 400 * k)]],
    ["an unwritten extent is a hole", [extent(0, 8 * k, 400 * k, extentFlags.unwritten)], []],
    [
      "extents that continue each other are one",
      [extent(0, 4 * k, 400 * k), extent(4 * k, 4 * k, 404 * k)],
      [known(0, 8 * k, 400 * k)],
    ],
    [
      "extents beside each other that lie apart are two",
      [extent(0, 4 * k, 400 * k), extent(4 * k, 4 * k, 500 * k)],
      [known(0, 4 * k, 400 * k), known(4 * k, 4 * k, 500 * k)],
    ],
    ["what reaches past the window is cut", [extent(60 * k, 8 * k, 400 * k)], [known(60 * k, 4 * k, 400 * k)]],
    ["an inline piece makes its block opaque", [extent(0, 100, 0, extentFlags.inline)], [opaque(0, 4 * k)]],
    [
      "blocks that are covered in part are opaque, the inner ones are not",
      [extent(3 * k, 10 * k, 403 * k)],
      [opaque(0, 4 * k), known(4 * k, 8 * k, 404 * k), opaque(12 * k, 4 * k)],
    ],
    [
      "a block shared by two extents of small blocks is one opaque block",
      [extent(0, 5 * k, 400 * k), extent(5 * k, 7 * k, 505 * k)],
      [known(0, 4 * k, 400 * k), opaque(4 * k, 4 * k), known(8 * k, 4 * k, 508 * k)],
    ],
    [
      "several pieces within one block are one opaque block",
      [extent(0, k, 400 * k), extent(k, k, 500 * k), extent(2 * k, 2 * k, 600 * k)],
      [opaque(0, 4 * k)],
    ],
  ])("%s", (_name, reported, runs) => {
    expect(runsOf(reported, whole)).toEqual(runs);
  });

  test.each(["unknown", "delayed", "encoded", "encrypted", "notAligned", "inline", "tail"] as const)(
    "an extent flagged %s says nothing about its bytes",
    (flag) => {
      const reported = [extent(0, 8 * k, 400 * k, extentFlags[flag] | extentFlags.shared | extentFlags.last)];
      expect(runsOf(reported, whole)).toEqual([opaque(0, 8 * k)]);
      expect(runsOf(reported, whole, "loose")).toEqual([known(0, 8 * k, 400 * k)]);
    },
  );

  test("being shared, or the last, does not matter", () => {
    const reported = [extent(0, 4 * k, 400 * k, extentFlags.shared | extentFlags.last)];
    expect(runsOf(reported, whole)).toEqual([known(0, 4 * k, 400 * k)]);
  });

  test("a map that is only cut differently is the same map", () => {
    const once = runsOf([extent(0, 12 * k, 400 * k)], whole);
    const twice = runsOf([extent(0, 4 * k, 400 * k), extent(4 * k, 8 * k, 404 * k)], whole);
    const moved = runsOf([extent(0, 4 * k, 400 * k), extent(4 * k, 8 * k, 408 * k)], whole);
    expect(sameRuns(once, twice)).toBe(true);
    expect(sameRuns(once, moved)).toBe(false);
  });
});
