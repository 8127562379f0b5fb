import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { type Bandwidth, bandwidthAt } from "./bandwidth.ts";

const office: Bandwidth = {
  limit: "100M",
  timeZone: "Europe/Berlin",
  windows: [{ days: ["Mon", "Tue", "Wed", "Thu", "Fri"], start: "08:00", end: "18:00", limit: "10M" }],
};
const night: Bandwidth = { limit: "0", windows: [{ days: ["Fri"], start: "22:00", end: "06:00" }] };

test.each<[string, Bandwidth, string, number | undefined, string | undefined]>([
  ["no limit", {}, "2026-03-02T12:00Z", undefined, undefined],
  ["one limit", { limit: "1Mi" }, "2026-03-02T12:00Z", 1_048_576, undefined],
  ["before the office opens", office, "2026-03-02T06:59Z", 100e6, "2026-03-02T07:00Z"],
  ["in the office", office, "2026-03-02T07:00Z", 10e6, "2026-03-02T17:00Z"],
  ["after it closes", office, "2026-03-02T17:00Z", 100e6, "2026-03-03T07:00Z"],
  ["on a Sunday", office, "2026-03-01T12:00Z", 100e6, "2026-03-01T17:00Z"],
  ["in summer time", office, "2026-07-01T06:00Z", 10e6, "2026-07-01T16:00Z"],
  ["on Friday night", night, "2026-03-06T23:00Z", undefined, "2026-03-07T06:00Z"],
  ["in the small hours after it", night, "2026-03-07T05:59Z", undefined, "2026-03-07T06:00Z"],
  ["in the small hours before it", night, "2026-03-06T05:00Z", 0, "2026-03-06T06:00Z"],
])("%s", (_, bandwidth, now, bytesPerSecond, until) => {
  expect(bandwidthAt(bandwidth, Date.parse(now))).toEqual({
    ...(bytesPerSecond !== undefined && { bytesPerSecond }),
    ...(until !== undefined && { untilMs: Date.parse(until) }),
  });
});

test("an unknown time zone is said by name", () => {
  expect(() => bandwidthAt({ limit: "1M", timeZone: "Mars/Olympus" }, 0)).toThrow("Mars/Olympus");
});

test("the limit stays what it is until the moment given, which lies ahead", () => {
  const clock = fc
    .tuple(fc.nat(23), fc.nat(59))
    .map((parts) => parts.map((part) => `${part}`.padStart(2, "0")).join(":"));
  const window = fc
    .record({ start: clock, end: clock, days: fc.constantFrom(["Mon" as const], ["Sat" as const, "Sun" as const]) })
    .map((each) => ({ ...each, limit: "1k" }));
  const instant = fc.integer({ min: Date.UTC(2026, 0), max: Date.UTC(2027, 0) });
  fc.assert(
    fc.property(
      fc.array(window, { minLength: 1, maxLength: 3 }),
      instant,
      fc.double({ min: 0, max: 1, noNaN: true }),
      (windows, nowMs, fraction) => {
        const bandwidth: Bandwidth = { limit: "2k", timeZone: "America/New_York", windows };
        const now = bandwidthAt(bandwidth, nowMs);
        const untilMs = now.untilMs ?? 0;
        expect(untilMs).toBeGreaterThan(nowMs);
        const later = bandwidthAt(bandwidth, nowMs + Math.floor((untilMs - 1 - nowMs) * fraction));
        // Where the clock is turned back, a window may end and begin again without an edge on the wall.
        if (Temporal.Instant.fromEpochMilliseconds(nowMs).toZonedDateTimeISO("America/New_York").hoursInDay === 24) {
          expect(later.bytesPerSecond).toBe(now.bytesPerSecond);
        }
      },
    ),
  );
});
