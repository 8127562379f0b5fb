// When snapshots are due. Runs are a function of the timing alone: intervals count from the epoch, so neither a restart nor
// re-creating the object moves them. A cron expression speaks of wall time, and wall time has holes and repetitions:
// - An expression for every hour of the day follows elapsed time: in a skipped hour nothing is due, in a doubled hour
//   both passes are.
// - Any other expression means a time of day: one that is skipped is due when the clock has jumped, one that comes
//   twice is due the first time only.
import { hash } from "node:crypto";
import { type CronExpression, CronExpressionParser } from "cron-parser";
import { parseDuration } from "./duration.ts";
import { describe, LongshoreError } from "./errors.ts";

export type Timing =
  | { readonly kind: "interval"; readonly everyMs: number }
  | { readonly kind: "cron"; readonly walls: CronExpression; readonly timeZone: string; readonly isEveryHour: boolean };

export interface TimingFields {
  readonly interval?: string;
  readonly schedule?: string;
  readonly timeZone?: string;
}

/** Why a timing cannot be used, as a condition's reason. */
export type TimingProblem = "InvalidSchedule" | "InvalidTimeZone";

export type ParsedTiming =
  | { readonly kind: "timing"; readonly timing: Timing }
  | { readonly kind: "invalid"; readonly reason: TimingProblem; readonly message: string };

const intervalMsMin = 1_000;
const cronFields = /^(?:@(?:hourly|daily|midnight|weekly|monthly|yearly|annually)|\S+(?: +\S+){4})$/;
const macros: Readonly<Record<string, string>> = { "@midnight": "@daily" };

/** Reads the timing of a SnapshotSchedule. What the API server lets through may still be no cron expression or time zone. */
export function parseTiming({ interval, schedule, timeZone = "UTC" }: TimingFields): ParsedTiming {
  if ((interval === undefined) === (schedule === undefined)) {
    return invalid("InvalidSchedule", "give exactly one of interval and schedule");
  }
  try {
    if (schedule === undefined) return { kind: "timing", timing: everyInterval(interval ?? "") };
  } catch (error) {
    return invalid("InvalidSchedule", `interval: ${describe(error)}`);
  }
  if (!isTimeZone(timeZone)) {
    return invalid("InvalidTimeZone", `timeZone "${timeZone}" is no IANA time zone; use one such as Europe/Berlin`);
  }
  try {
    return { kind: "timing", timing: cron(schedule, timeZone) };
  } catch (error) {
    return invalid("InvalidSchedule", `schedule "${schedule}": ${describe(error)}`);
  }
}

function invalid(reason: TimingProblem, message: string): ParsedTiming {
  return { kind: "invalid", reason, message };
}

function everyInterval(interval: string): Timing {
  const everyMs = parseDuration(interval);
  if (everyMs < intervalMsMin) throw new LongshoreError("BadRequest", "must be at least 1s");
  return { kind: "interval", everyMs };
}

function cron(schedule: string, timeZone: string): Timing {
  if (!cronFields.test(schedule) || /[HTZ]/.test(schedule.replace(/[A-Za-z]{3}/g, ""))) {
    throw new LongshoreError(
      "BadRequest",
      "must have five fields (minute hour day month weekday), or be one such as @daily",
    );
  }
  const walls = CronExpressionParser.parse(macros[schedule] ?? schedule, { tz: "UTC", currentDate: new Date(0) });
  walls.next(); // Throws for a day that never comes, such as the 30th of February.
  const isEveryHour = walls.fields.hour.values.length === 24;
  return { kind: "cron", walls, timeZone, isEveryHour };
}

function isTimeZone(name: string): boolean {
  if (!/^[A-Za-z]/.test(name)) return false;
  try {
    Temporal.Instant.fromEpochMilliseconds(0).toZonedDateTimeISO(name);
    return true;
  } catch {
    return false; // A RangeError is how Temporal says no, and the only thing it throws here.
  }
}

/** The first run after `afterMs`. */
export function nextRun(timing: Timing, afterMs: number): number {
  if (timing.kind === "interval") return (Math.floor(afterMs / timing.everyMs) + 1) * timing.everyMs;
  const { walls, timeZone } = timing;
  // In a doubled hour, walls behind the present one are due again; no zone turns back by more than this.
  walls.reset(new Date(wallOf(afterMs, timeZone) - turnBackMsMax));
  let best = Number.POSITIVE_INFINITY;
  for (;;) {
    const passes = passesOf(walls.next().getTime(), timing);
    if (passes.earliest >= best) return best;
    for (const runMs of passes.runs) if (runMs > afterMs && runMs < best) best = runMs;
  }
}

/** The last run at or before `atMs`. */
export function lastRun(timing: Timing, atMs: number): number {
  if (timing.kind === "interval") return Math.floor(atMs / timing.everyMs) * timing.everyMs;
  const { walls, timeZone } = timing;
  walls.reset(new Date(wallOf(atMs, timeZone) + turnBackMsMax));
  let best = Number.NEGATIVE_INFINITY;
  for (;;) {
    const passes = passesOf(walls.prev().getTime(), timing);
    if (passes.latest <= best) return best;
    for (const runMs of passes.runs) if (runMs <= atMs && runMs > best) best = runMs;
  }
}

const turnBackMsMax = 3 * 3_600_000;

/** The wall time at an instant, as if it were UTC. */
function wallOf(instantMs: number, timeZone: string): number {
  const zoned = Temporal.Instant.fromEpochMilliseconds(instantMs).toZonedDateTimeISO(timeZone);
  return instantMs + zoned.offsetNanoseconds / 1e6;
}

interface Passes {
  /** When the wall time is passed first and last; for one that is skipped, the end of the hole. Monotonic in the wall time. */
  readonly earliest: number;
  readonly latest: number;
  /** Which of them are runs. */
  readonly runs: readonly number[];
}

function passesOf(wallMs: number, { timeZone, isEveryHour }: { timeZone: string; isEveryHour: boolean }): Passes {
  const wall = Temporal.Instant.fromEpochMilliseconds(wallMs).toZonedDateTimeISO("UTC").toPlainDateTime();
  const [earlier, later] = (["earlier", "later"] as const).map((disambiguation) =>
    wall.toZonedDateTime(timeZone, { disambiguation }),
  ) as [Temporal.ZonedDateTime, Temporal.ZonedDateTime];
  const isSkipped = !later.toPlainDateTime().equals(wall);
  if (isSkipped) {
    const jumpMs = earlier.getTimeZoneTransition("next")?.epochMilliseconds ?? later.epochMilliseconds;
    return { earliest: jumpMs, latest: jumpMs, runs: isEveryHour ? [] : [jumpMs] };
  }
  const [earliest, latest] = [earlier.epochMilliseconds, later.epochMilliseconds];
  return { earliest, latest, runs: isEveryHour && latest !== earliest ? [earliest, latest] : [earliest] };
}

/** A volume's fixed place in the jitter window: at least 0, less than `jitterMs`, in whole milliseconds. */
export function offsetOf(volumeUid: string, jitterMs: number): number {
  if (jitterMs < 1) return 0;
  const place = Number.parseInt(hash("sha256", volumeUid, "hex").slice(0, 12), 16) / 2 ** 48;
  return Math.floor(place * jitterMs);
}

export interface RunFacts {
  readonly timing: Timing;
  /** {@link offsetOf} the volume; every run of the volume is later by it. */
  readonly offsetMs: number;
  /** Since when the volume is on this timing; what was due by then is not made up for. */
  readonly sinceMs: number;
  /** The due time of the last run made, offset included. */
  readonly lastRunMs: number | undefined;
  /** How late a run may still be made; `undefined` for until the next one is due. */
  readonly startingDeadlineMs: number | undefined;
  readonly isSuspended: boolean;
}

export type RunDecision =
  | { readonly kind: "run"; readonly dueMs: number }
  /** `missed`: a run was due, and is too late now. */
  | { readonly kind: "wait"; readonly nextMs: number; readonly missed?: number }
  | { readonly kind: "suspended" };

/**
 * Which run to make now. Only the newest due run ever is: however many were missed, at most one is made up for, within
 * the starting deadline.
 */
export function decideRun(facts: RunFacts, nowMs: number): RunDecision {
  const { timing, offsetMs, sinceMs, lastRunMs, startingDeadlineMs, isSuspended } = facts;
  if (isSuspended) return { kind: "suspended" };
  const dueMs = lastRun(timing, nowMs - offsetMs) + offsetMs;
  const nextMs = nextRun(timing, nowMs - offsetMs) + offsetMs;
  const doneMs = Math.max(sinceMs, lastRunMs ?? Number.NEGATIVE_INFINITY);
  if (dueMs <= doneMs) return { kind: "wait", nextMs };
  if (startingDeadlineMs !== undefined && nowMs - dueMs > startingDeadlineMs) {
    return { kind: "wait", nextMs, missed: dueMs };
  }
  return { kind: "run", dueMs };
}

/** The shortest time between two of the next `runs` runs: what a retention must at least span. */
export function shortestGapMs(timing: Timing, fromMs: number, runs = 100): number {
  if (timing.kind === "interval") return timing.everyMs;
  let previous = nextRun(timing, fromMs);
  let shortest = Number.POSITIVE_INFINITY;
  for (let run = 1; run < runs; run++) {
    const next = nextRun(timing, previous);
    shortest = Math.min(shortest, next - previous);
    previous = next;
  }
  return shortest;
}
