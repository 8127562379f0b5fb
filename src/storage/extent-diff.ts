// Compares the extent maps of two sealed files and says which blocks may differ: the rule of docs/storage.md.
// Pure. It is wrong in one direction only: a block it leaves out is equal in both files; one it names may be equal too.

import { RunList } from "../base/run-list.ts";
import { extentFlags, type ReportedExtent } from "../native/reported-extent.ts";
import { blockBytes, type ChangedExtent, type Extent } from "./backend.ts";

/** Under any of these a physical offset does not identify the bytes of a block. */
const opaqueFlags =
  extentFlags.unknown |
  extentFlags.delayed |
  extentFlags.encoded |
  extentFlags.encrypted |
  extentFlags.notAligned |
  extentFlags.inline |
  extentFlags.tail;

/**
 * A run of blocks with data. `physical` is where the first byte lies; absent when that says nothing about the content
 * (compressed, inline, not yet allocated), so that such a run equals nothing, not even itself.
 */
export interface MappedRun extends Extent {
  readonly physical?: number;
}

/** `loose` believes every physical offset. It exists to prove that the test finds the misses `sound` avoids. */
export type Rules = "sound" | "loose";

/**
 * Brings a file system's answer into blocks: within [start, end), in order, joined, without unwritten extents (they
 * read as zeros: holes). A block that an extent covers only in part becomes opaque.
 */
export function runsOf(
  reported: Iterable<ReportedExtent>,
  window: { start: number; end: number },
  rules: Rules = "sound",
): MappedRun[] {
  const runs: MappedRun[] = [];
  for (const extent of reported) {
    if ((extent.flags & extentFlags.unwritten) !== 0) continue;
    for (const run of blocksOf(extent, rules)) append(runs, clip(run, window));
  }
  return runs;
}

function blocksOf(extent: ReportedExtent, rules: Rules): readonly MappedRun[] {
  const end = extent.logical + extent.length;
  const outer = { start: floorBlock(extent.logical), end: ceilBlock(end) };
  if (rules === "sound" && (extent.flags & opaqueFlags) !== 0) return [opaque(outer.start, outer.end)];
  const inner = { start: ceilBlock(extent.logical), end: floorBlock(end) };
  if (inner.start >= inner.end) return [opaque(outer.start, outer.end)];
  const physical = extent.physical + (inner.start - extent.logical);
  const whole = { offset: inner.start, length: inner.end - inner.start, physical };
  if (inner.start === outer.start && inner.end === outer.end) return [whole];
  const edges = [opaque(outer.start, inner.start), whole, opaque(inner.end, outer.end)];
  return edges.filter((run) => run.length > 0);
}

function opaque(start: number, end: number): MappedRun {
  return { offset: start, length: end - start };
}

function clip(run: MappedRun, window: { start: number; end: number }): MappedRun | undefined {
  if (run.offset >= window.start && endOf(run) <= window.end) return run.length > 0 ? run : undefined;
  const offset = Math.max(run.offset, window.start);
  const end = Math.min(run.offset + run.length, window.end);
  if (offset >= end) return undefined;
  if (run.physical === undefined) return { offset, length: end - offset };
  return { offset, length: end - offset, physical: run.physical + (offset - run.offset) };
}

/** Appends in order; a block that two runs claim parts of becomes opaque. */
function append(runs: MappedRun[], next: MappedRun | undefined): void {
  if (next === undefined) return;
  const last = runs.at(-1);
  if (last !== undefined && next.offset < endOf(last)) appendOverlapping(runs, last, next);
  else if (last !== undefined && continues(last, next)) runs[runs.length - 1] = joined(last, next);
  else runs.push(next);
}

function appendOverlapping(runs: MappedRun[], last: MappedRun, next: MappedRun): void {
  const overlapEnd = Math.min(endOf(last), endOf(next));
  runs.pop();
  append(runs, clip(last, { start: last.offset, end: next.offset }));
  append(runs, opaque(next.offset, overlapEnd));
  const rest = endOf(last) > overlapEnd ? last : next;
  append(runs, clip(rest, { start: overlapEnd, end: endOf(rest) }));
}

/** The parts of `runs` within a window. */
export function clipRuns(runs: readonly MappedRun[], window: { start: number; end: number }): MappedRun[] {
  return runs.flatMap((run) => clip(run, window) ?? []);
}

function continues(last: MappedRun, next: MappedRun): boolean {
  if (endOf(last) !== next.offset) return false;
  if (last.physical === undefined || next.physical === undefined) return last.physical === next.physical;
  return last.physical + last.length === next.physical;
}

function joined(last: MappedRun, next: MappedRun): MappedRun {
  return { ...last, length: last.length + next.length };
}

/** Whether two maps of the same window say the same; split differently they are not distinguished by {@link runsOf}. */
export function sameRuns(a: readonly MappedRun[], b: readonly MappedRun[]): boolean {
  return a.length === b.length && a.every((run, index) => isSameRun(run, b[index]));
}

function isSameRun(a: MappedRun, b: MappedRun | undefined): boolean {
  return a.offset === b?.offset && a.length === b.length && a.physical === b.physical;
}

/**
 * What of `next` must be taken over into a copy of `base` to get `next`, within the window both maps are of. Where the
 * base has no blocks (any more, or not yet: it may be shorter) only data is told.
 */
export function diffRuns(base: readonly MappedRun[], next: readonly MappedRun[]): ChangedExtent[] {
  const changes = new ChangeList();
  const inBase = cursor(base);
  const inNext = cursor(next);
  let at = 0;
  while (at < Number.POSITIVE_INFINITY) {
    const from = inBase(at);
    const to = inNext(at);
    const end = Math.min(from.end, to.end);
    if (to.run !== undefined && !isSamePlace(from.run, to.run, at)) changes.add("data", at, end);
    if (to.run === undefined && from.run !== undefined) changes.add("hole", at, end);
    at = end;
  }
  return [...changes];
}

function isSamePlace(from: MappedRun | undefined, to: MappedRun, at: number): boolean {
  if (from?.physical === undefined || to.physical === undefined) return false;
  return from.physical + (at - from.offset) === to.physical + (at - to.offset);
}

/** What covers an offset, and where that ends: a run, or the hole up to the next run. */
interface Stretch {
  readonly run?: MappedRun;
  readonly end: number;
}

/** Tells what covers an offset; offsets must be asked for in ascending order. */
function cursor(runs: readonly MappedRun[]): (offset: number) => Stretch {
  let index = 0;
  return (offset) => {
    let run = runs[index];
    while (run !== undefined && endOf(run) <= offset) run = runs[++index];
    if (run === undefined) return { end: Number.POSITIVE_INFINITY };
    return run.offset <= offset ? { run, end: endOf(run) } : { end: run.offset };
  };
}

/** Changed extents in ascending order, neighbours of one kind joined. */
export class ChangeList implements Iterable<ChangedExtent> {
  readonly #runs = new RunList();

  /** An empty extent adds nothing; others begin where the last one ends, or later. */
  add(kind: ChangedExtent["kind"], start: number, end: number): void {
    if (start >= end) return;
    const last = this.#runs.length - 1;
    const isHole = kind === "hole";
    if (this.#runs.endOf(last) === start && this.#runs.isHole(last) === isHole) this.#runs.extendLast(end);
    else this.#runs.push(start, end, isHole);
  }

  *[Symbol.iterator](): Generator<ChangedExtent> {
    for (let nth = 0; nth < this.#runs.length; nth++) {
      const offset = this.#runs.startOf(nth);
      yield { kind: this.#runs.isHole(nth) ? "hole" : "data", offset, length: this.#runs.endOf(nth) - offset };
    }
  }
}

export function endOf(extent: Extent): number {
  return extent.offset + extent.length;
}

function floorBlock(offset: number): number {
  return Math.floor(offset / blockBytes) * blockBytes;
}

function ceilBlock(offset: number): number {
  return floorBlock(offset + blockBytes - 1);
}
