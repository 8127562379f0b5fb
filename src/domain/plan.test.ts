import { describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { BugError } from "../base/assert.ts";
import { indexesIn, openPlanDigest, planDigest, planUnits, rangesOf, unitBytesMax, unitExtentsMax } from "./plan.ts";
import { type PlannedExtent, type Unit, unitDataBytes, unitPunchedBytes } from "./unit-list.ts";

const block = 4096;
type Input = Parameters<typeof planUnits>[0]["extents"] extends Iterable<infer Extent> ? Extent : never;

/** "d0+2 h5+1": data in blocks 0 and 1, a hole in block 5. */
function extents(notation: string): Input[] {
  return notation
    .split(" ")
    .filter((word) => word !== "")
    .map((word) => {
      const [offset = 0, length = 0] = word.slice(1).split("+").map(Number);
      return { offset: offset * block, length: length * block, kind: word.startsWith("d") ? "data" : "hole" };
    });
}

/** Units apart by " | ", in the notation of the input. */
function show(units: readonly Unit[]): string {
  const extent = ([offset, length, data]: PlannedExtent) => `${data ? "d" : "h"}${offset / block}+${length / block}`;
  return units.map((unit) => unit.map(extent).join(" ")).join(" | ");
}

const identity = { baseId: "b", toId: "t", sizeBytes: 100 * block };
/** Units of at most 4 blocks of data and 3 extents. */
const small = { unitBytesMax: 4 * block, unitExtentsMax: 3 };
const plan = (notation: string) => planned({ ...identity, extents: extents(notation) }, small);

/** The plan with its units as they read. */
function planned(...[input, limits]: Parameters<typeof planUnits>) {
  const plan = planUnits(input, limits);
  return { ...plan, units: [...plan.units] };
}

describe("planning", () => {
  test.each([
    // extents, units
    ["", ""],
    ["d0+1", "d0+1"],
    ["d0+4", "d0+4"],
    ["d0+5", "d0+4 | d4+1"],
    ["d0+9", "d0+4 | d4+4 | d8+1"],
    ["d0+3 d10+3", "d0+3 d10+1 | d11+2"],
    ["d0+4 d10+1", "d0+4 | d10+1"],
    ["d0+1 d2+1 d4+1 d6+1", "d0+1 d2+1 d4+1 | d6+1"],
    ["h0+90", "h0+90"],
    ["d0+4 h4+90 d94+2", "d0+4 h4+90 | d94+2"],
    ["h0+1 h2+1 h4+1 h6+1", "h0+1 h2+1 h4+1 | h6+1"],
    ["d0+1 d1+1 h2+1 h3+1", "d0+2 h2+2"],
    ["d0+1 h1+1 d2+1", "d0+1 h1+1 d2+1"],
    ["d99+1", "d99+1"],
  ])("[%s] gives the units [%s]", (input, units) => {
    expect(show(plan(input).units)).toBe(units);
  });

  test("counts bytes of data and of holes apart", () => {
    expect(plan("d0+5 h7+20")).toMatchObject({ bytesData: 5 * block, bytesPunched: 20 * block });
  });

  test.each([
    ["an overlap", "d0+2 d1+1"],
    ["a descending extent", "d5+1 d0+1"],
    ["an empty extent", "d0+0"],
    ["an extent past the size", "d99+2"],
    ["an unaligned offset", "d0.5+1"],
    ["an unaligned length", "d0+1.5"],
  ])("takes %s for a bug", (_what, input) => {
    expect(() => plan(input)).toThrow(BugError);
  });

  test("the limits, unless others are given, are 8 MiB and 2048 extents", () => {
    const sizeBytes = 2 ** 40;
    const large = planned({ ...identity, sizeBytes, extents: [{ offset: 0, length: 20 * 2 ** 20, kind: "data" }] });
    expect(large.units.map(unitDataBytes)).toEqual([8 * 2 ** 20, 8 * 2 ** 20, 4 * 2 ** 20]);
    const scattered = Array.from({ length: 3000 }, (_, index) => `d${index * 2}+1`).join(" ");
    const many = planned({ ...identity, sizeBytes, extents: extents(scattered) });
    expect(many.units.map((unit) => unit.length)).toEqual([2048, 952]);
    expect([unitBytesMax, unitExtentsMax]).toEqual([8 * 2 ** 20, 2048]);
  });
});

/** Ascending extents of up to 12 blocks with gaps of 0 to 4 blocks, some touching. */
const someExtents = fc
  .array(fc.tuple(fc.nat(4), fc.integer({ min: 1, max: 12 }), fc.constantFrom("data" as const, "hole" as const)), {
    maxLength: 40,
  })
  .map((parts) => {
    let at = 0;
    return parts.map(([gap, length, kind]): Input => {
      const offset = at + gap;
      at = offset + length;
      return { offset: offset * block, length: length * block, kind };
    });
  });
const someLimits = fc
  .record({ blocks: fc.integer({ min: 1, max: 9 }), unitExtentsMax: fc.integer({ min: 1, max: 6 }) })
  .map(({ blocks, unitExtentsMax }) => ({ unitBytesMax: blocks * block, unitExtentsMax }));
const roomy = { ...identity, sizeBytes: 2 ** 30 };

/** Which blocks are data and which are holes, as text that two ways of cutting have in common. */
function blocksOf(parts: Iterable<PlannedExtent>): string[] {
  const blocks: string[] = [];
  for (const [offset, length, data] of parts) {
    for (let at = offset; at < offset + length; at += block) blocks.push(`${at / block}:${data}`);
  }
  return blocks;
}

test("property: units cover exactly the input, in order, within the limits, each nearly as full as it can be", () => {
  fc.assert(
    fc.property(someExtents, someLimits, (input, limits) => {
      const { units, bytesData, bytesPunched } = planned({ ...roomy, extents: input }, limits);
      const wanted = input.map(({ offset, length, kind }): PlannedExtent => [offset, length, kind === "data" ? 1 : 0]);
      expect(blocksOf(units.flat())).toEqual(blocksOf(wanted));
      for (const unit of units) {
        expect(unit.length).toBeGreaterThan(0);
        expect(unit.length).toBeLessThanOrEqual(limits.unitExtentsMax);
        expect(unitDataBytes(unit)).toBeLessThanOrEqual(limits.unitBytesMax);
      }
      for (const unit of units.slice(0, -1)) {
        const isFull = unit.length === limits.unitExtentsMax || unitDataBytes(unit) === limits.unitBytesMax;
        expect(isFull).toBe(true);
      }
      expect(bytesData).toBe(units.reduce((sum, unit) => sum + unitDataBytes(unit), 0));
      expect(bytesPunched).toBe(units.reduce((sum, unit) => sum + unitPunchedBytes(unit), 0));
    }),
  );
});

test("property: how an extent was cut on arrival does not change the plan", () => {
  fc.assert(
    fc.property(someExtents, someLimits, (input, limits) => {
      const pieces = input.flatMap(({ offset, length, kind }) =>
        Array.from({ length: length / block }, (_, index) => ({ offset: offset + index * block, length: block, kind })),
      );
      expect(planned({ ...roomy, extents: pieces }, limits)).toEqual(planned({ ...roomy, extents: input }, limits));
    }),
  );
});

describe("the digest", () => {
  const { units, digest } = plan("d0+5 h7+20 d30+9");

  test("property: is the same for every way of cutting the plan into pages", () => {
    fc.assert(
      fc.property(someExtents, fc.integer({ min: 1, max: 5 }), (input, pageUnits) => {
        const made = planned({ ...roomy, extents: input });
        const paged = openPlanDigest(roomy);
        for (let at = 0; at < made.units.length; at += pageUnits) paged.add(made.units.slice(at, at + pageUnits));
        const { bytesData, bytesPunched } = made;
        const summary = { unitCount: made.units.length, bytesData, bytesPunched, digest: made.digest };
        expect(paged.finish()).toEqual(summary);
      }),
    );
  });

  test("survives the way through JSON", () => {
    expect(planDigest(identity, JSON.parse(JSON.stringify(units)), small)).toBe(digest);
  });

  test("has not changed since the first release, or agents of two versions would never agree", () => {
    expect(digest).toBe("ad5c9a187804c8399be3f036f1776f68928d89fc4a0f16b6a0cc017d4ff217a8");
  });

  test.each([
    ["the base", { ...identity, baseId: "c" }],
    ["having no base", { ...identity, baseId: null }],
    ["a base that is named null", { ...identity, baseId: "null" }],
    ["the target point", { ...identity, toId: "u" }],
    ["the size", { ...identity, sizeBytes: 101 * block }],
  ])("differs with %s", (_what, other) => {
    expect(planDigest(other, units, small)).not.toBe(digest);
  });

  test("property: differs with any change of any unit", () => {
    const changes = {
      droppedUnit: (at: number) => units.filter((_, index) => index !== at),
      droppedExtent: (at: number) => replaced(at, (unit) => unit.slice(1)),
      shortened: (at: number) => replaced(at, (unit) => unit.map(([o, l, d]) => [o, l > block ? l - block : l, d])),
      otherKind: (at: number) => replaced(at, (unit) => unit.map(([o, l]) => [o, l, 0])),
    } satisfies Record<string, (at: number) => readonly Unit[]>;
    const replaced = (at: number, change: (unit: Unit) => Unit) =>
      units.map((unit, index) => (index === at ? change(unit) : unit)).filter((unit) => unit.length > 0);
    const index = fc.nat(units.length - 1);
    fc.assert(
      fc.property(index, fc.constantFrom(...Object.values(changes)), (at, change) => {
        const changed = change(at);
        fc.pre(JSON.stringify(changed) !== JSON.stringify(units));
        expect(planDigest(identity, changed, small)).not.toBe(digest);
      }),
    );
  });

  test("property: one more boundary between units is another plan", () => {
    const [first = [], ...rest] = plan("d0+1 d2+1 d4+1").units;
    expect(planDigest(identity, [first.slice(0, 1), first.slice(1), ...rest], small)).not.toBe(
      planDigest(identity, [first, ...rest], small),
    );
  });

  test.each<[string, unknown, string]>([
    ["an empty unit", [[]], "unit 0 is empty"],
    ["too many extents", [[0, 2, 4, 6].map((at) => [at * block, block, 1])], "unit 0 has 4 extents, over 3"],
    ["too many bytes", [[[0, 5 * block, 1]]], "unit 0 has 20480 bytes of data, over 16384"],
    ["an unaligned extent", [[[1, block, 1]]], "unit 0 has the extent 1+4096"],
    ["an extent of no length", [[[0, 0, 1]]], "unit 0 has the extent 0+0"],
    ["a negative offset", [[[-block, block, 1]]], "unit 0 has the extent -4096+4096"],
    ["an offset that is no number", [[[Number.NaN, block, 1]]], "unit 0 has the extent NaN+4096"],
    ["a length that is no number", [[[0, Number.NaN, 1]]], "unit 0 has the extent 0+NaN"],
    ["an offset past all numbers", [[[2 ** 60, block, 0]]], "unit 0 has the extent"],
    ["an extent past the size", [[[99 * block, 2 * block, 0]]], "unit 0 has the extent"],
    ["another kind", [[[0, block, 2]]], "unit 0 has an extent of kind 2"],
    ["units out of order", [[[8 * block, block, 1]], [[0, block, 1]]], "unit 1 has the extent 0+4096"],
    ["units that overlap", [[[0, 2 * block, 1]], [[block, block, 0]]], "unit 1 has the extent 4096+4096"],
  ])("refuses %s from the other side", (_what, pages, message) => {
    const received = openPlanDigest(identity, small);
    expect(() => received.add(pages as Unit[])).toThrow(
      expect.objectContaining({ code: "BadRequest", message: expect.stringContaining(message) }),
    );
  });
});

describe("ranges", () => {
  test.each<[number[], [number, number][]]>([
    [[], []],
    [[0], [[0, 0]]],
    [[0, 1, 2], [[0, 2]]],
    [[2, 0, 1, 1], [[0, 2]]],
    [
      [0, 2, 3, 9, 10],
      [
        [0, 0],
        [2, 3],
        [9, 10],
      ],
    ],
  ])("of %j are %j", (indexes, ranges) => {
    expect(rangesOf(indexes)).toEqual(ranges);
  });

  test("property: the indexes in the ranges of a set are that set, ascending, in the fewest ranges", () => {
    fc.assert(
      fc.property(fc.array(fc.nat(60)), (indexes) => {
        const ranges = rangesOf(indexes);
        expect([...indexesIn(ranges)]).toEqual([...new Set(indexes)].sort((one, other) => one - other));
        for (const [at, range] of ranges.entries()) {
          const before = ranges[at - 1];
          if (before !== undefined) expect(range[0]).toBeGreaterThan(before[1] + 1);
        }
      }),
    );
  });

  test("are unfolded one by one, so a vast range costs nothing until it is read", () => {
    expect(indexesIn([[0, 2 ** 31]]).next().value).toBe(0);
  });
});
