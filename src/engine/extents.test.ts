import { beforeEach, describe, expect, test } from "@jest/globals";
import fc from "fast-check";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { silentLog } from "../base/log.ts";
import type { RunList } from "../base/run-list.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { ChangedExtent, ChangeMode } from "../storage/backend.ts";
import type { ExtentQuery } from "../wire/agent-api.ts";
import type { Core } from "./core.ts";
import { Extents, joined, pageOf } from "./extents.ts";
import type { PointRow } from "./points.ts";
import type { Snapshots } from "./snapshots.ts";
import type { VolumeRows } from "./volume-rows.ts";

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

describe("what is asked of storage", () => {
  const delta: ChangeMode = { kind: "delta", unshared: false };
  let clock: FakeClock;
  let mode: ChangeMode;
  let failure: LongshoreError | undefined;
  /** What a comparison waits for. */
  let compared: Promise<void>;
  let asked: string[];
  let told: Extents;

  /** Snapshots s1, s2, … of one volume, each with its own extents. */
  const allocated: Readonly<Record<string, string>> = { s1: "d0-4 d20-24", s2: "d2-6", s3: "d1-2" };
  const changed = "d4-6 h20-24";

  beforeEach(() => {
    clock = new FakeClock();
    [mode, failure, asked] = [delta, undefined, []];
    compared = Promise.resolve();
    const say = (what: string) => {
      asked.push(what);
      if (failure !== undefined) throw failure;
    };
    const storage = {
      async allocated(_: string, { point }: { point: string }) {
        say(point);
        return { mode: { kind: "allocated", reason: "asked for" }, extents: extents(allocated[point] ?? "") };
      },
      async changed(_: string, base: { point: string }, next: { point: string }) {
        say(`${base.point}..${next.point}`);
        await compared;
        return { mode, extents: extents(changed) };
      },
      async openPoint() {
        return { close: async () => undefined };
      },
    };
    const journal = { get: () => undefined };
    const rows = { row: (name: string) => ({ name, uid: "uid" }) } as unknown as VolumeRows;
    const readable = async (_: unknown, name: string) => pointRow(name);
    const snapshots = { readable } as unknown as Snapshots;
    const core = { clock, storage, journal, log: silentLog } as unknown as Core;
    told = new Extents(core, { rows, snapshots });
  });

  function pointRow(name: string): PointRow {
    const position = Number(name.slice(1));
    const file = { file: name, inode: "1", fsUuid: "fs", sizeBytes: 100 };
    return { owner: "uid", pointId: name, name, state: "sealed", position, ...file } as PointRow;
  }

  async function list(snapshot: string, query: ExtentQuery = {}): Promise<string> {
    const { extents } = await told.list("data", snapshot, query);
    return extents.map(({ offset, length }) => `${offset}-${offset + length}`).join(" ");
  }

  test("a difference is told as it was found, of data and holes alike", async () => {
    expect(await list("s2", { base: "s1" })).toBe("4-6 20-24");
  });

  test("without a sound difference it is all that either has, so that nothing that differs is left out", async () => {
    mode = { kind: "allocated", reason: "extents of the base kept moving" };
    expect(await list("s2", { base: "s1" })).toBe("0-6 20-24");
    expect(asked).toEqual(["s1..s2", "s2", "s1"]);
  });

  test("the pages of one question, and those who ask it at once, make one difference", async () => {
    await Promise.all([list("s2", { base: "s1", max: 1 }), list("s2", { base: "s1", max: 1, from: 6 })]);
    expect(await list("s2", { base: "s1", max: 1, from: 20 })).toBe("20-24");
    expect(asked).toEqual(["s1..s2"]);
    await list("s2");
    await list("s3", { base: "s1" });
    expect(asked).toEqual(["s1..s2", "s2", "s1..s3"]);
  });

  test("it is asked anew when nobody has gone on for a minute, and not while somebody does", async () => {
    for (let page = 0; page < 5; page++) {
      await list("s2", { base: "s1" });
      await clock.advance(50_000);
      told.expire();
    }
    expect(asked).toHaveLength(1);
    await clock.advance(20_000);
    told.expire();
    await list("s2", { base: "s1" });
    expect(asked).toHaveLength(2);
  });

  test("what takes longer than a minute to find out is found out once, and kept for a minute from then on", async () => {
    const gate = Promise.withResolvers<void>();
    compared = gate.promise;
    const first = list("s2", { base: "s1" });
    await clock.advance(300_000);
    told.expire();
    const second = list("s2", { base: "s1" });
    await clock.advance(300_000);
    gate.resolve();
    expect(await Promise.all([first, second])).toEqual(["4-6 20-24", "4-6 20-24"]);
    await clock.advance(50_000);
    told.expire();
    await list("s2", { base: "s1" });
    expect(asked).toEqual(["s1..s2"]);
  });

  test("no more than a few answers are kept, those that were asked for last", async () => {
    for (let number = 2; number <= 12; number++) await list(`s${number}`, { base: "s1" });
    const before = asked.length;
    for (let number = 5; number <= 12; number++) await list(`s${number}`, { base: "s1" });
    expect(asked).toHaveLength(before);
    await list("s4", { base: "s1" });
    expect(asked).toHaveLength(before + 1);
  });

  test("a failure is not kept, and a file that vanished is a snapshot that is gone", async () => {
    failure = new LongshoreError("PointGone", "point s2 is missing");
    await expect(list("s2", { base: "s1" })).rejects.toMatchObject({ code: "SnapshotGone" });
    failure = undefined;
    expect(await list("s2", { base: "s1" })).toBe("4-6 20-24");
  });
});
