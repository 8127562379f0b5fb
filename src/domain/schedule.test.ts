import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { parseDuration } from "./duration.ts";
import {
  decideRun,
  lastRun,
  nextRun,
  offsetOf,
  parseTiming,
  type RunFacts,
  shortestGapMs,
  type Timing,
  type TimingFields,
} from "./schedule.ts";

function timing(fields: TimingFields): Timing {
  const parsed = parseTiming(fields);
  if (parsed.kind === "invalid") throw new Error(parsed.message);
  return parsed.timing;
}

/** `1h`, or `0 2 * * * Europe/Berlin`. */
function read(text: string): Timing {
  if (/^\d/.test(text) && !text.includes(" ")) return timing({ interval: text });
  const [zone] = /[A-Z][a-z]+(\/[A-Z][A-Za-z_]+)?$|UTC$/.exec(text) ?? ["UTC"];
  return timing({ schedule: text.replace(zone, "").trim(), timeZone: zone });
}

const at = (text: string) => Date.parse(text.length === 16 ? `${text}:00Z` : text);
const show = (timeMs: number) => new Date(timeMs).toISOString().replace(":00.000Z", "").replace(".000Z", "");

function runsFrom(schedule: Timing, fromMs: number, count: number): number[] {
  const runs: number[] = [];
  for (let runMs = fromMs; runs.length < count; runs.push(runMs)) runMs = nextRun(schedule, runMs);
  return runs;
}

test.each([
  ["1h", "2026-03-01T10:20", "2026-03-01T11:00 2026-03-01T12:00"],
  ["1h", "2026-03-01T11:00", "2026-03-01T12:00 2026-03-01T13:00"],
  ["24h", "2026-03-01T10:20", "2026-03-02T00:00 2026-03-03T00:00"],
  ["2s", "2026-03-01T10:20", "2026-03-01T10:20:02 2026-03-01T10:20:04"],
  ["1.5s", "2026-03-01T10:20", "2026-03-01T10:20:01.500Z 2026-03-01T10:20:03"],
  ["@daily", "2026-03-01T10:20", "2026-03-02T00:00 2026-03-03T00:00"],
  ["0 0 29 2 *", "2026-03-01T00:00", "2028-02-29T00:00 2032-02-29T00:00"],
  ["0 9 * * MON-FRI Asia/Tokyo", "2026-03-06T01:00", "2026-03-09T00:00 2026-03-10T00:00"],
  ["0 0 13 * FRI", "2026-03-01T10:20", "2026-03-06T00:00 2026-03-13T00:00 2026-03-20T00:00"],
])("%s is due after %s at %s", (schedule, from, runs) => {
  expect(runsFrom(read(schedule), at(from), runs.split(" ").length).map(show).join(" ")).toBe(runs);
});

test.each([
  // A time of day that is skipped is due when the clock jumps (01:00 UTC), and the day after at its time again.
  ["30 2 * * * Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00 2026-03-30T00:30"],
  // Two times in the hole are one run.
  ["0,30 2 * * * Europe/Berlin", "2026-03-28T12:00", "2026-03-29T01:00 2026-03-30T00:00 2026-03-30T00:30"],
  // A time of day that comes twice is due the first time only.
  ["30 2 * * * Europe/Berlin", "2026-10-24T12:00", "2026-10-25T00:30 2026-10-26T01:30"],
  // Every half hour stays every half hour, with the hole and with the doubled hour.
  ["*/30 * * * * Europe/Berlin", "2026-03-29T00:20", "2026-03-29T00:30 2026-03-29T01:00 2026-03-29T01:30"],
  ["15 * * * * Europe/Berlin", "2026-03-29T00:20", "2026-03-29T01:15 2026-03-29T02:15"],
  [
    "*/30 * * * * Europe/Berlin",
    "2026-10-24T23:50",
    "2026-10-25T00:00 2026-10-25T00:30 2026-10-25T01:00 2026-10-25T01:30 2026-10-25T02:00",
  ],
  // Lord Howe turns back by half an hour only.
  ["45 1 * * * Australia/Lord_Howe", "2026-04-03T20:00", "2026-04-04T14:45 2026-04-05T15:15"],
  // Samoa skipped the whole 30th of December 2011.
  ["0 12 * * * Pacific/Apia", "2011-12-29T12:00", "2011-12-29T22:00 2011-12-30T10:00 2011-12-30T22:00"],
])("where the clock changes, %s is due after %s at %s", (schedule, from, runs) => {
  expect(runsFrom(read(schedule), at(from), runs.split(" ").length).map(show).join(" ")).toBe(runs);
});

test.each([
  [{}, "InvalidSchedule", "exactly one"],
  [{ interval: "1h", schedule: "@daily" }, "InvalidSchedule", "exactly one"],
  [{ interval: "1d" }, "InvalidSchedule", "not a duration"],
  [{ interval: "500ms" }, "InvalidSchedule", "at least 1s"],
  [{ schedule: "61 * * * *" }, "InvalidSchedule", "0-59"],
  [{ schedule: "* * * *" }, "InvalidSchedule", "five fields"],
  [{ schedule: "0 0 * * * *" }, "InvalidSchedule", "five fields"],
  [{ schedule: "0 0 30 2 *" }, "InvalidSchedule", "0 0 30 2 *"],
  [{ schedule: "H 0 * * *" }, "InvalidSchedule", "five fields"],
  [{ schedule: "0 0 * JANUARY *" }, "InvalidSchedule", "0 0 * JANUARY *"],
  [{ schedule: "@daily", timeZone: "Mars/Olympus" }, "InvalidTimeZone", "Mars/Olympus"],
  [{ schedule: "@daily", timeZone: "+01:00" }, "InvalidTimeZone", "IANA"],
])("%j is refused as %s, saying %s", (fields, reason, message) => {
  expect(parseTiming(fields)).toEqual({ kind: "invalid", reason, message: expect.stringContaining(message) });
});

const zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata", "Pacific/Apia"];
const crons = ["*/15 * * * *", "30 2 * * *", "0 0 * * SUN", "5 1-3 * * *", "0 */6 1,15 * *", "@hourly"];
const anyTiming = fc.oneof(
  fc.integer({ min: 1_000, max: 1e9 }).map((everyMs): Timing => ({ kind: "interval", everyMs })),
  fc
    .tuple(fc.constantFrom(...crons), fc.constantFrom(...zones))
    .map(([schedule, timeZone]) => timing({ schedule, timeZone })),
);
const instant = fc.integer({ min: Date.UTC(2000, 0), max: Date.UTC(2040, 0) });

test("due times strictly increase, and nothing is due between two that follow each other", () => {
  fc.assert(
    fc.property(anyTiming, instant, fc.double({ min: 0, max: 1, noNaN: true }), (schedule, fromMs, fraction) => {
      const [first, second] = runsFrom(schedule, fromMs, 2) as [number, number];
      expect(fromMs).toBeLessThan(first);
      expect(first).toBeLessThan(second);
      const between = first + Math.floor((second - first - 1) * fraction);
      expect(lastRun(schedule, between)).toBe(first);
      expect(nextRun(schedule, between)).toBe(second);
    }),
  );
});

test("the jitter of a volume is always the same, within the window, and spread over it", () => {
  const offsets = Array.from({ length: 1000 }, (_, index) => offsetOf(`volume-${index}`, 60_000));
  expect(offsetOf("volume-7", 60_000)).toBe(offsets[7]);
  for (const offset of offsets) expect(offset >= 0 && offset < 60_000 && Number.isInteger(offset)).toBe(true);
  const quarters = [0, 1, 2, 3].map((quarter) => offsets.filter((offset) => Math.floor(offset / 15_000) === quarter));
  for (const quarter of quarters) expect(quarter.length).toBeGreaterThan(200);
  expect(offsetOf("volume-7", 0)).toBe(0);
});

const hourly: RunFacts = {
  timing: read("1h"),
  offsetMs: 0,
  sinceMs: at("2026-03-01T00:30"),
  lastRunMs: undefined,
  startingDeadlineMs: undefined,
  isSuspended: false,
};

test.each([
  ["nothing is due merely because the schedule is new", {}, "2026-03-01T00:45", "wait 2026-03-01T01:00"],
  [
    "nothing is due at the very moment it became new",
    { sinceMs: at("2026-03-01T01:00") },
    "2026-03-01T01:00",
    "wait 2026-03-01T02:00",
  ],
  ["the first full hour is due", {}, "2026-03-01T01:00", "run 2026-03-01T01:00"],
  [
    "a run that was made is not made again",
    { lastRunMs: at("2026-03-01T01:00") },
    "2026-03-01T01:59",
    "wait 2026-03-01T02:00",
  ],
  [
    "after a day of downtime one run is made up for",
    { lastRunMs: at("2026-03-01T01:00") },
    "2026-03-02T01:10",
    "run 2026-03-02T01:00",
  ],
  [
    "within the starting deadline it still is",
    { startingDeadlineMs: 600_000 },
    "2026-03-02T01:10",
    "run 2026-03-02T01:00",
  ],
  [
    "past the starting deadline it is missed",
    { startingDeadlineMs: 599_999 },
    "2026-03-02T01:10",
    "wait 2026-03-02T02:00, missed 2026-03-02T01:00",
  ],
  ["suspended, nothing is due", { isSuspended: true }, "2026-03-02T01:10", "suspended"],
  ["the volume's offset makes it later", { offsetMs: 300_000 }, "2026-03-01T01:04", "wait 2026-03-01T01:05"],
  ["and then it is due", { offsetMs: 300_000 }, "2026-03-01T01:05", "run 2026-03-01T01:05"],
  [
    "a clock that was set back repeats nothing",
    { lastRunMs: at("2026-03-01T09:00") },
    "2026-03-01T03:10",
    "wait 2026-03-01T04:00",
  ],
] as const)("%s", (_, facts, now, expected) => {
  const decision = decideRun({ ...hourly, ...facts }, at(now));
  const rendered = {
    run: () => decision.kind === "run" && `run ${show(decision.dueMs)}`,
    suspended: () => "suspended",
    wait: () =>
      decision.kind === "wait" &&
      `wait ${show(decision.nextMs)}${decision.missed === undefined ? "" : `, missed ${show(decision.missed)}`}`,
  }[decision.kind]();
  expect(rendered).toBe(expected);
});

test("however long nobody looked, at most one run is made up for, and runs are never made twice or out of order", () => {
  const looks = fc.array(fc.integer({ min: 1, max: 100_000_000 }), { minLength: 1, maxLength: 20 });
  fc.assert(
    fc.property(anyTiming, instant, looks, fc.nat(1_000), (schedule, startMs, pauses, offsetMs) => {
      let nowMs = startMs;
      let lastRunMs: number | undefined;
      for (const pauseMs of pauses) {
        nowMs += pauseMs;
        const facts = { ...hourly, timing: schedule, offsetMs, sinceMs: startMs };
        const first = decideRun({ ...facts, lastRunMs }, nowMs);
        if (first.kind !== "run") continue;
        expect(first.dueMs).toBeGreaterThan(lastRunMs ?? startMs);
        expect(first.dueMs).toBeLessThanOrEqual(nowMs);
        lastRunMs = first.dueMs;
        expect(decideRun({ ...facts, lastRunMs }, nowMs).kind).toBe("wait");
      }
    }),
  );
});

test.each([
  ["1h", parseDuration("1h")],
  ["0 8,9,18 * * *", parseDuration("1h")],
  ["0 0 1 * *", parseDuration("672h")],
])("the shortest gap of %s is %i ms", (schedule, gapMs) => {
  expect(shortestGapMs(read(schedule), at("2026-01-01T00:00"))).toBe(gapMs);
});
