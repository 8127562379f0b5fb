// Finds what changed between two sealed files from the file system's extent maps, window by window, so that memory is
// bounded by the result and the event loop is never held for long. Why the order of the calls matters stands in
// docs/storage.md.

import { assert } from "../base/assert.ts";
import type { Clock } from "../base/clock.ts";
import { extentReader } from "../native/extent-reader.ts";
import { extentsPerCallMax } from "../native/file-calls.ts";
import type { ExtentReport } from "../native/reported-extent.ts";
import { blockBytes, type ChangedExtent, type Changes } from "./backend.ts";
import { ChangeList, clipRuns, diffRuns, type MappedRun, type Rules, runsOf, sameRuns } from "./extent-diff.ts";

/** A part of a file's map: all its runs within [the start asked for, `end`). */
export interface MapPart {
  readonly runs: readonly MappedRun[];
  readonly end: number;
  /** What the runs were made of, if it is at hand. */
  readonly report?: ExtentReport;
}

/** Maps a file from `start`, as far towards `end` as one call reaches, at least one block. Always asks anew. */
export type Mapper = (start: number, end: number) => Promise<MapPart>;

/** The map of an open file as the file system tells it at the moment of each call. */
export function fileMapper(fd: number, rules: Rules = "sound", extentsMax = extentsPerCallMax): Mapper {
  const read = extentReader(fd);
  return async (start, end) => {
    const report = await read({ offset: start, length: end - start, extentsMax });
    const last = report.isCut ? report.at(report.count - 1) : undefined;
    const reached = last === undefined ? end : Math.min(end, floorBlock(last.logical + last.length));
    assert(reached > start, `a map of ${extentsMax} extents at ${start} covers no whole block`);
    return new ReportedPart(report, { start, end: reached }, rules);
  };
}

/** Makes runs when they are asked for: most maps that are taken a second time say the same as the first time. */
class ReportedPart implements MapPart {
  readonly report: ExtentReport;
  readonly end: number;
  readonly #start: number;
  readonly #rules: Rules;

  constructor(report: ExtentReport, { start, end }: { start: number; end: number }, rules: Rules) {
    this.report = report;
    this.end = end;
    this.#start = start;
    this.#rules = rules;
  }

  get runs(): MappedRun[] {
    return runsOf(this.report, { start: this.#start, end: this.end }, this.#rules);
  }
}

export interface MapComparison {
  readonly base: Mapper;
  readonly next: Mapper;
  readonly baseBytes: number;
  readonly nextBytes: number;
  readonly clock: Clock;
  readonly signal: AbortSignal | undefined;
}

/** Attempts at one window before giving up, and the wait before the second one, which doubles for each further one. */
const attemptsMax = 6;
const firstWaitMs = 10;

/**
 * What differs between two sealed files, by their maps. When the base's extents do not rest long enough for a sound
 * answer, everything the next point has is told, and what it does not have as holes: right whatever the base holds.
 */
export async function changesByMaps(comparison: MapComparison): Promise<Changes> {
  const { next, baseBytes, nextBytes, signal } = comparison;
  const changes = new ChangeList();
  for (let start = 0; start < nextBytes; ) {
    const part = await comparePart(comparison, start);
    if (part === undefined) {
      const data = await allocatedByMap(next, nextBytes, signal);
      const reason = `extents of the base kept moving near byte ${start}`;
      return { mode: { kind: "allocated", reason }, extents: withHolesBetween(data, Math.min(baseBytes, nextBytes)) };
    }
    for (const { kind, offset, length } of part.extents) changes.add(kind, offset, offset + length);
    start = part.end;
  }
  return { mode: { kind: "delta", unshared: false }, extents: changes };
}

async function comparePart(comparison: MapComparison, start: number) {
  for (let attempt = 1; attempt <= attemptsMax; attempt++) {
    comparison.signal?.throwIfAborted();
    const part = await compareOnce(comparison, start);
    if (part !== undefined) return part;
    await comparison.clock.sleep(firstWaitMs * 2 ** (attempt - 1), comparison.signal);
  }
  return undefined;
}

async function compareOnce({ base, next, baseBytes, nextBytes }: MapComparison, start: number) {
  const before = await base(start, nextBytes);
  const middle = await next(start, before.end);
  const after = await base(start, middle.end);
  const window = { start, end: after.end };
  const baseRuns = clipRuns(before.runs, window);
  // The base had each of these places before and after the next point's were read, so it had them then: equal places
  // held one content at one moment, and sealed content stays.
  if (!isSameReport(before, after) && !sameRuns(baseRuns, clipRuns(after.runs, window))) return undefined;
  // What a file system keeps past the base's end is nothing the base holds.
  const inBase = clipRuns(baseRuns, { start, end: baseBytes });
  return { extents: diffRuns(inBase, clipRuns(middle.runs, window)), end: window.end };
}

/** Whether the later map of the same start, which ends where the window does, was reported word by word as the earlier one. */
function isSameReport(before: MapPart, after: MapPart): boolean {
  if (before.report === undefined || after.report?.isStartOf(before.report) !== true) return false;
  const next = before.report.at(after.report.count);
  return next === undefined || next.logical >= after.end;
}

/** Everything allocated in a file of `sizeBytes`, as data. */
export async function allocatedByMap(
  map: Mapper,
  sizeBytes: number,
  signal: AbortSignal | undefined,
): Promise<ChangeList> {
  const changes = new ChangeList();
  for (let start = 0; start < sizeBytes; ) {
    signal?.throwIfAborted();
    const part = await map(start, sizeBytes);
    for (const { offset, length } of part.runs) changes.add("data", offset, offset + length);
    start = part.end;
  }
  return changes;
}

/** Adds what lies between `data` extents as holes, up to `sizeBytes`. */
export function withHolesBetween(data: Iterable<ChangedExtent>, sizeBytes: number): ChangeList {
  const changes = new ChangeList();
  let at = 0;
  for (const { offset, length } of data) {
    changes.add("hole", at, Math.min(offset, sizeBytes));
    changes.add("data", offset, offset + length);
    at = offset + length;
  }
  changes.add("hole", at, sizeBytes);
  return changes;
}

function floorBlock(offset: number): number {
  return offset - (offset % blockBytes);
}
