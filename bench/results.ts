// What the benchmark found, as it is kept in bench/results/latest.json: complete after each case, so that a run which is
// interrupted leaves what it has.
import { mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { dirname } from "node:path";
import type { CaseName, ToolName } from "./cases.ts";
import type { Machine } from "./machine.ts";
import type { FileSystem } from "./options.ts";
import { median } from "./statistics.ts";
import type { Memory } from "./tool.ts";

export interface Row {
  readonly case: CaseName;
  readonly tool: ToolName;
  readonly medianMs: number;
  readonly minMs: number;
  readonly maxMs: number;
  /** Ground truth: the 4 KiB blocks that differ, found by comparing source and the copy before. */
  readonly bytesChanged: number;
  /** On the wire, by the tool's own account; what has none of its own is null. */
  readonly bytesSent: number | null;
  /** Of the largest process of the tool; for agents VmHWM. Null for what ended too quickly to be seen. */
  readonly peakRssMiB: number | null;
  /** Of the same agent before its first job. */
  readonly idleRssMiB?: number;
  /** What the agent that grew most has grown by. */
  readonly growthMiB?: number;
  /** In the order they were run. */
  readonly runsMs: readonly number[];
}

export interface Absence {
  readonly case: CaseName;
  readonly tool: ToolName;
  readonly reason: string;
}

export interface Results {
  readonly format: 1;
  readonly startedAt: string;
  readonly finishedAt: string | null;
  /** When it was interrupted and gone on with; what a tool did in a case was measured in one go. */
  readonly resumedAt: readonly string[];
  readonly size: string;
  readonly fileSystem: FileSystem;
  readonly runs: number;
  readonly passes: number;
  readonly lanes: number;
  readonly seed: number;
  readonly machine: Machine;
  /** Runs on other machines that this one went on with, and what of them still stands. A case is of one machine as a whole. */
  readonly earlier?: readonly EarlierRun[];
  readonly tools: Readonly<Partial<Record<ToolName, string>>>;
  /** What a case was, where its name does not say all. */
  readonly cases: Readonly<Partial<Record<CaseName, string>>>;
  readonly rows: readonly Row[];
  readonly absent: readonly Absence[];
  readonly micro: Micro | null;
  readonly counts: Counts | null;
}

export interface EarlierRun {
  readonly startedAt: string;
  readonly machine: Machine;
  readonly cases: readonly CaseName[];
  /** Whether `micro` is of this run as well. */
  readonly hasMicro: boolean;
}

/** What one job without changes costs, counted in runs of their own. */
export interface Counts {
  readonly case: "empty";
  /** fsync, fdatasync and the like, by agent. */
  readonly syncsAtSource: number;
  readonly syncsAtTarget: number;
  /** Requests from agent to agent that the target answered. */
  readonly roundTrips: number;
  readonly requests: readonly string[];
}

export interface TrackingRow {
  readonly fileSystem: FileSystem;
  readonly extents: number;
  /** Extents of all maps that were read for one difference. */
  readonly extentsWalked: number;
  readonly microsecondsPerExtent: number;
  readonly totalMs: number;
  readonly growthMiB: number;
}

export interface StallRow {
  readonly fileSystem: FileSystem;
  readonly extents: number;
  readonly stallMs: number;
  readonly microsecondsPerExtent: number;
}

export interface Micro {
  readonly changeTracking: readonly TrackingRow[];
  readonly snapshotStall: readonly StallRow[];
}

export interface Measured {
  readonly runsMs: readonly number[];
  readonly bytesSent: readonly (number | undefined)[];
  readonly memory: Memory | undefined;
}

/** One row of what a tool's sessions of a case have measured. */
export function rowOf(
  name: { readonly case: CaseName; readonly tool: ToolName },
  bytesChanged: number,
  sessions: readonly Measured[],
): Row {
  const runsMs = sessions.flatMap((session) => session.runsMs.map(rounded));
  const sent = sessions.flatMap(({ bytesSent }) => bytesSent.flatMap((bytes) => (bytes === undefined ? [] : [bytes])));
  const memories = sessions.flatMap(({ memory }) => memory ?? []);
  const largest = memories.toSorted((a, b) => b.peakRssMiB - a.peakRssMiB)[0];
  const growths = memories.flatMap(({ growthMiB }) => growthMiB ?? []);
  return {
    ...name,
    medianMs: rounded(median(runsMs)),
    minMs: Math.min(...runsMs),
    maxMs: Math.max(...runsMs),
    bytesChanged,
    bytesSent: sent.length === 0 ? null : Math.round(median(sent)),
    peakRssMiB: largest === undefined ? null : rounded(largest.peakRssMiB),
    ...(largest?.idleRssMiB !== undefined && { idleRssMiB: rounded(largest.idleRssMiB) }),
    ...(growths.length > 0 && { growthMiB: rounded(Math.max(...growths)) }),
    runsMs,
  };
}

/** To what can be told apart: a tenth. */
export function rounded(value: number): number {
  return Math.round(value * 10) / 10;
}

/** Rows of this run, and tools that have none, in the place of what an earlier one said. */
export function withRows(results: Results, rows: readonly Row[], absent: readonly Absence[]): Results {
  const isKept = (old: { readonly case: CaseName; readonly tool: ToolName }) =>
    ![...rows, ...absent].some((row) => row.case === old.case && row.tool === old.tool);
  return {
    ...results,
    rows: [...results.rows.filter(isKept), ...rows],
    absent: [...results.absent.filter(isKept), ...absent],
  };
}

/**
 * An earlier run's results, to go on with; `fresh` is this run without any. Of another machine only whole cases are kept, for
 * ratios are those of one machine. Throws when they were asked for otherwise: their cases could not stand beside each other.
 */
export function resumed(earlier: Results, fresh: Results): Results {
  const [before, now] = [settingsOf(earlier), settingsOf(fresh)];
  const differing = Object.keys(now).filter((name) => before[name] !== now[name]);
  if (differing.length > 0) {
    const told = differing.map((name) => `${name} ${before[name]}, and is now ${now[name]}`).join("; ");
    throw new Error(`the results to go on with have ${told}: begin anew without RESUME`);
  }
  const tools = { ...earlier.tools, ...fresh.tools };
  if (!isSameMachine(earlier.machine, fresh.machine)) return { ...movedOn(earlier, fresh), tools };
  return { ...earlier, finishedAt: null, resumedAt: [...earlier.resumedAt, fresh.startedAt], tools };
}

/** This run, with the cases that an earlier one measured whole on another machine. */
function movedOn(earlier: Results, fresh: Results): Results {
  const { rows, absent, cases, micro, counts, startedAt, machine } = earlier;
  const tools = Object.keys(fresh.tools) as ToolName[];
  const found = [...rows, ...absent];
  const isWhole = (name: CaseName) =>
    rows.some((row) => row.case === name) &&
    tools.every((tool) => found.some((one) => one.case === name && one.tool === tool));
  const isKept = (one: { readonly case: CaseName }) => isWhole(one.case);
  const before = (earlier.earlier ?? []).map((run) => ({ ...run, cases: run.cases.filter(isWhole) }));
  const ofOthers = before.flatMap((run) => run.cases);
  const names = new Set(rows.filter(isKept).map((row) => row.case));
  const own = {
    ...{ startedAt, machine, cases: [...names].filter((name) => !ofOthers.includes(name)) },
    hasMicro: micro !== null && !before.some(({ hasMicro }) => hasMicro),
  };
  const kept = { rows: rows.filter(isKept), absent: absent.filter(isKept), cases, micro, counts };
  return { ...fresh, ...kept, earlier: [...before, own] };
}

function isSameMachine(one: Machine, other: Machine): boolean {
  const { loadBefore: _, ...before } = one;
  const { loadBefore: __, ...now } = other;
  return JSON.stringify(before) === JSON.stringify(now);
}

function settingsOf({ size, fileSystem, runs, passes, lanes, seed }: Results): Record<string, unknown> {
  return { size, fileSystem, runs, passes, lanes, seed };
}

export async function readResults(file: string): Promise<Results> {
  return JSON.parse(await readFile(file, "utf8")) as Results;
}

/** In one step: whoever reads the file never finds half of it. */
export async function writeResults(file: string, results: Results): Promise<void> {
  await mkdir(dirname(file), { recursive: true });
  await writeFile(`${file}.new`, `${JSON.stringify(results, undefined, 2)}\n`);
  await rename(`${file}.new`, file);
}
