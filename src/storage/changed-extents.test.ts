import { expect, test } from "@jest/globals";
import fc from "fast-check";
import type { Clock } from "../base/clock.ts";
import { FiemapReport } from "../native/reported-extent.ts";
import { blockBytes, type ChangedExtent } from "./backend.ts";
import { allocatedByMap, changesByMaps, type Mapper, withHolesBetween } from "./changed-extents.ts";
import { clipRuns, type MappedRun } from "./extent-diff.ts";

// One letter a block, as in extent-diff.test.ts: a letter is a place, "." a hole.
function runs(text: string): MappedRun[] {
  return [...text].flatMap((place, block) =>
    place === "."
      ? []
      : [{ offset: block * blockBytes, length: blockBytes, physical: place.charCodeAt(0) * blockBytes }],
  );
}

/** Answers from the texts in turn, the last one for ever, `reach` blocks a call. */
function mapper(texts: readonly string[], reach = Number.POSITIVE_INFINITY): Mapper {
  let call = 0;
  return async (start, end) => {
    const text = texts[Math.min(call++, texts.length - 1)] ?? "";
    const reached = Math.min(end, start + reach * blockBytes);
    return { runs: clipRuns(runs(text), { start, end: reached }), end: reached };
  };
}

function show(extents: Iterable<ChangedExtent>): string {
  return [...extents]
    .map((extent) => `${extent.kind} ${extent.offset / blockBytes}+${extent.length / blockBytes}`)
    .join(", ");
}

function fakeClock(): Clock & { readonly waitsMs: number[] } {
  const waitsMs: number[] = [];
  return {
    waitsMs,
    nowMs: () => 0,
    monotonicMs: () => 0,
    async sleep(durationMs, signal) {
      signal?.throwIfAborted();
      waitsMs.push(durationMs);
    },
  };
}

async function compare(base: Mapper, next: Mapper, blocks: number, clock: Clock = fakeClock(), baseBlocks = blocks) {
  const [baseBytes, nextBytes] = [baseBlocks * blockBytes, blocks * blockBytes];
  const { mode, extents } = await changesByMaps({ base, next, baseBytes, nextBytes, clock, signal: undefined });
  return mode.kind === "delta" ? show(extents) : `${mode.reason}: ${show(extents)}`;
}

test("two maps are compared to the end of the next point", async () => {
  expect(await compare(mapper(["abcd"]), mapper(["axcdef"]), 6)).toBe("data 1+1, data 4+2");
  expect(await compare(mapper(["abcdef"]), mapper(["axcd"]), 4)).toBe("data 1+1");
});

test("what is mapped past the base's end does not count as the base's", async () => {
  expect(await compare(mapper(["abcd"]), mapper(["abcd"]), 4, fakeClock(), 2)).toBe("data 2+2");
  expect(await compare(mapper(["abcd"]), mapper(["ab"]), 4, fakeClock(), 2)).toBe("");
});

test("a base that moves once is mapped again", async () => {
  const clock = fakeClock();
  // Before and after the next point's map the base's second block lay elsewhere; then it stays.
  const base = mapper(["abcd", "aXcd", "aXcd", "aXcd"]);
  expect(await compare(base, mapper(["abcd"]), 4, clock)).toBe("data 1+1");
  expect(clock.waitsMs).toEqual([10]);
});

test("a base whose place was given to the next point in between is not believed", async () => {
  // The miss a cached map makes: b was freed by the base and taken by the next point for other bytes.
  expect(await compare(mapper(["ab", "aX", "aX"]), mapper(["ab"]), 2)).toBe("data 1+1");
});

test("a base that never rests gives everything the next point has, and holes, after a bounded wait", async () => {
  const clock = fakeClock();
  const restless = Array.from({ length: 99 }, (_, index) => (index % 2 === 0 ? "abcd" : "abXd"));
  expect(await compare(mapper(restless, 2), mapper(["abc..fg"], 2), 7, clock, 4)).toBe(
    "extents of the base kept moving near byte 8192: data 0+3, hole 3+1, data 5+2",
  );
  expect(clock.waitsMs).toEqual([10, 20, 40, 80, 160, 320]);
});

/** As from a file: answers as {@link mapper}, with the report behind it. */
function reporting(texts: readonly string[], reach?: number): Mapper {
  const answer = mapper(texts, reach);
  return async (start, end) => {
    const part = await answer(start, end);
    const words = part.runs.flatMap(({ offset, length, physical = 0 }) => [
      ...[offset, 0, physical, 0, length, 0],
      ...Array<number>(8).fill(0),
    ]);
    return { ...part, report: new FiemapReport(Uint32Array.from(words), part.runs.length, false) };
  };
}

test("a base reported twice alike has not moved; one that gained or lost a block in between has", async () => {
  const clock = fakeClock();
  expect(await compare(reporting(["abcd"], 3), reporting(["axcd"], 2), 4, clock)).toBe("data 1+1");
  expect(clock.waitsMs).toEqual([]);
  for (const moving of [
    ["abcd", "ab.d", "abcd"],
    ["ab.d", "abcd", "ab.d"],
    ["abcd", "abc.", "abcd"],
    ["abc.", "abcd", "abc."],
    ["....", "...d", "...."],
    ["a...", "....", "a..."],
  ]) {
    const before = clock.waitsMs.length;
    await compare(reporting(moving), reporting(["axcd"]), 4, clock);
    expect(clock.waitsMs.length).toBe(before + 1);
  }
});

test("the size of the windows does not change the answer", async () => {
  const text = fc.array(fc.constantFrom(..."abcdef.."), { maxLength: 20 }).map((places) => places.join(""));
  const reach = fc.integer({ min: 1, max: 7 });
  await fc.assert(
    fc.asyncProperty(text, text, reach, reach, async (base, next, reachOfBase, reachOfNext) => {
      const blocks = next.length;
      const inOne = await compare(mapper([base]), mapper([next]), blocks);
      expect(await compare(mapper([base], reachOfBase), mapper([next], reachOfNext), blocks)).toBe(inOne);
      expect(await compare(reporting([base], reachOfBase), reporting([next], reachOfNext), blocks)).toBe(inOne);
    }),
  );
});

test("a comparison ends when it is told to", async () => {
  const ended = new AbortController();
  const base: Mapper = async (start) => {
    if (start >= 2 * blockBytes) ended.abort(new Error("enough"));
    return { runs: [], end: start + blockBytes };
  };
  const bytes = { baseBytes: 8 * blockBytes, nextBytes: 8 * blockBytes };
  const comparison = { base, next: mapper([""]), ...bytes, clock: fakeClock(), signal: ended.signal };
  await expect(changesByMaps(comparison)).rejects.toThrow("enough");
});

test("what is allocated is told as data, in order and joined", async () => {
  const extents = await allocatedByMap(mapper(["ab.xz..q"], 3), 8 * blockBytes, undefined);
  expect(show(extents)).toBe("data 0+2, data 3+2, data 7+1");
});

test.each([
  // data, size of the base, result
  ["ab..c.", 6, "data 0+2, hole 2+2, data 4+1, hole 5+1"],
  ["......", 6, "hole 0+6"],
  ["abcdef", 6, "data 0+6"],
  ["ab..c.", 3, "data 0+2, hole 2+1, data 4+1"],
  ["..b...", 1, "hole 0+1, data 2+1"],
  ["", 0, ""],
])("around the data of [%s], holes as far as a base of %d blocks, are [%s]", (text, baseBlocks, result) => {
  const data = runs(text).map(({ offset, length }) => ({ kind: "data" as const, offset, length }));
  expect(show(withHolesBetween(data, baseBlocks * blockBytes))).toBe(result);
});
