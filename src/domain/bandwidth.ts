// How fast a location may be sent to at a given moment: a limit, and times of day with limits of their own.
import { LongshoreError } from "./errors.ts";
import { parseQuantity } from "./quantity.ts";

const days = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"] as const;
export type Day = (typeof days)[number];

export interface BandwidthWindow {
  /** The days on which the window starts; every day when absent. */
  readonly days?: readonly Day[];
  /** HH:MM; a window that ends at or before its start ends on the next day. */
  readonly start: string;
  readonly end: string;
  /** A quantity; unlimited when absent. */
  readonly limit?: string;
}

export interface Bandwidth {
  readonly limit?: string;
  readonly timeZone?: string;
  readonly windows?: readonly BandwidthWindow[];
}

export interface BandwidthNow {
  /** Absent: unlimited. */
  readonly bytesPerSecond?: number;
  /** When it may be another; absent when it never is. */
  readonly untilMs?: number;
}

/** The limit at `nowMs`; the first window that matches counts. Throws `BadRequest` for an unknown time zone. */
export function bandwidthAt({ limit, timeZone = "UTC", windows = [] }: Bandwidth, nowMs: number): BandwidthNow {
  const now = zoned(nowMs, timeZone);
  const window = windows.find((each) => isWithin(each, now));
  const text = window === undefined ? limit : window.limit;
  const edges = windows.flatMap(({ start, end }) => [nextAt(start, now), nextAt(end, now)]);
  return {
    ...(text !== undefined && { bytesPerSecond: parseQuantity(text) }),
    ...(edges.length > 0 && { untilMs: Math.min(...edges) }),
  };
}

/** The least limit that is not nought, at whatever time; `undefined` where there is none. */
export function leastRate({ limit, windows = [] }: Bandwidth): number | undefined {
  const limits = [limit, ...windows.map((window) => window.limit)].flatMap((text) => text ?? []).map(parseQuantity);
  const rates = limits.filter((rate) => rate > 0);
  return rates.length === 0 ? undefined : Math.min(...rates);
}

function zoned(nowMs: number, timeZone: string): Temporal.ZonedDateTime {
  try {
    return Temporal.Instant.fromEpochMilliseconds(nowMs).toZonedDateTimeISO(timeZone);
  } catch (cause) {
    const message = `bandwidth.timeZone "${timeZone}" is no IANA time zone; use one such as Europe/Berlin`;
    throw new LongshoreError("BadRequest", message, { cause });
  }
}

function isWithin(window: BandwidthWindow, now: Temporal.ZonedDateTime): boolean {
  const [start, end] = [minutesOf(window.start), minutesOf(window.end)];
  const minute = now.hour * 60 + now.minute;
  const startsOn = (daysAgo: number) => {
    const day = days[(now.dayOfWeek - 1 - daysAgo + 7) % 7];
    return window.days === undefined || (day !== undefined && window.days.includes(day));
  };
  if (start < end) return startsOn(0) && minute >= start && minute < end;
  return (startsOn(0) && minute >= start) || (startsOn(1) && minute < end);
}

function minutesOf(text: string): number {
  const [hours, minutes] = text.split(":");
  return Number(hours) * 60 + Number(minutes);
}

function nextAt(text: string, now: Temporal.ZonedDateTime): number {
  const today = now.withPlainTime(text);
  const next = Temporal.ZonedDateTime.compare(today, now) > 0 ? today : now.add({ days: 1 }).withPlainTime(text);
  return next.epochMilliseconds;
}
