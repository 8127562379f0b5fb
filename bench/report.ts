// Makes docs/performance.md and its plots of the results: `node bench/report.ts`, or at the end of `make bench`.
import { mkdir, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { type CaseName, caseNames, toolNames } from "./cases.ts";
import { type Figure, figuresOf } from "./figures.ts";
import type { Machine } from "./machine.ts";
import { type FileSystem, optionsOf } from "./options.ts";
import { duration, plotOf } from "./plot.ts";
import { type Micro, type Results, type Row, readResults } from "./results.ts";

const mebibyte = 2 ** 20;

/** Where the results and the page about disks of one file system are, from the project's root. */
export interface Page {
  readonly results: string;
  readonly markdown: string;
  /** Of the plots, beside the page. */
  readonly plots: string;
}

export function pageOf(fileSystem: FileSystem): Page {
  const suffix = fileSystem === "btrfs" ? "" : `-${fileSystem}`;
  return {
    results: `bench/results/latest${suffix}.json`,
    markdown: `docs/performance${suffix}.md`,
    plots: `performance${suffix}`,
  };
}

export interface Report {
  readonly markdown: string;
  /** File names and contents of the plots. */
  readonly plots: ReadonlyMap<string, string>;
}

export function reportOf(results: Results): Report {
  const cases = caseNames.filter((name) => results.rows.some((row) => row.case === name));
  const plots = new Map(cases.map((name) => [`${name}.svg`, plotOfCase(results, name)]));
  const parts = [
    introductionOf(results.fileSystem),
    machineOf(results),
    `## What is promised\n\nRatios of medians of one run on one machine.\n\n${figureTable(figuresOf(results.rows))}`,
    ...cases.map((name) => caseSection(results, name)),
    absentSection(results),
    microSection(results.micro),
    countsSection(results),
    toolsSection(results),
    reproduction,
  ];
  return { markdown: `${parts.filter((part) => part !== "").join("\n\n")}\n`, plots };
}

function introductionOf(fileSystem: FileSystem): string {
  return `<!-- Written by \`make bench\` from ${pageOf(fileSystem).results}; do not edit. -->
# Performance on ${fileSystem === "xfs" ? "XFS" : fileSystem}

What \`make bench\` measured: this project side by side with what else moves a volume's changes, in one run, on the same data, on disks
in memory. The figures of other machines differ; the ratios are what counts. Times are from the request until the copy is durable
at the other side and the tool says so; for Longshore that is a whole job through the agents' API, from the request until \`Released\`.

- **bytes changed** is ground truth: the 4 KiB blocks that differ, found by comparing source and previous copy, not what a planner says.
- **wire** is what the tool put on its connections, over the bytes changed.
- **memory** is the peak of the tool's largest process; for agents VmHWM, and in brackets how much an agent grew over idle.
- The floors know beforehand what has changed, and do nothing else than copy it into a clone of the base and sync.
- Scattered blocks are the same in each run of a session, with new content: else the images would fall into more pieces run by run.
- One change, or one copy, that is not timed comes before the runs that count; in incr-0.1pct-4g and empty, whose runs take a fraction of a second, five. Copies are compared with their sources byte by byte.
- All tools have their volumes on ${fileSystem === "xfs" ? "XFS, only `btrfs send` has btrfs" : "btrfs"}.`;
}

function machineOf({ machine, startedAt, resumedAt, runs, passes, lanes, earlier = [] }: Results): string {
  const before = earlier
    .filter(({ cases, hasMicro }) => hasMicro || cases.length > 0)
    .map((run) => {
      const what = [...run.cases, ...(run.hasMicro ? ["change tracking and snapshot stall"] : [])].join(", ");
      return `\n\nOf an earlier run, begun ${run.startedAt} at a load of ${run.machine.loadBefore}, are ${what}: ${described(run.machine)}.`;
    });
  return `## Machine and run

${described(machine)}. Begun ${startedAt} at a
load of ${machine.loadBefore}${resumedAt.map((at) => `, gone on with ${at}`).join("")}; what a tool did in a case was measured in one go. ${runs} runs in ${passes} passes; in each pass the tools have their turns in an order of its own. ${lanes} connection${lanes === 1 ? "" : "s"} for each job.${before.join("")}`;
}

function described({ cpu, cores, memoryGiB, kernel, distribution, node, openssl }: Machine): string {
  return `${cpu}, ${cores} cores, ${memoryGiB} GiB of memory; ${distribution}, Linux ${kernel}; Node.js ${node} with OpenSSL ${openssl}`;
}

function figureTable(figures: readonly Figure[]): string {
  const verdicts = figures.map(({ what, goal, found, isKept }) => [
    what,
    goal,
    found ?? "not measured",
    isKept === undefined ? "" : isKept ? "kept" : "**missed**",
  ]);
  return table(["figure", "goal", "found", ""], verdicts);
}

function rowsOf(results: Results, name: CaseName): Row[] {
  const rows = results.rows.filter((row) => row.case === name);
  return rows.toSorted((a, b) => toolNames.indexOf(a.tool) - toolNames.indexOf(b.tool));
}

function caseSection(results: Results, name: CaseName): string {
  const rows = rowsOf(results, name);
  const changed = rows[0]?.bytesChanged ?? 0;
  const what = results.cases[name] ?? "";
  const lines = rows.map((row) => [
    row.tool,
    duration(row.medianMs),
    `${duration(row.minMs)} – ${duration(row.maxMs)}`,
    changed === 0 ? "" : `${((changed / mebibyte / row.medianMs) * 1000).toFixed(0)} MiB/s`,
    changed === 0 || row.bytesSent === null ? "" : (row.bytesSent / changed).toFixed(3),
    memoryOf(row),
  ]);
  const head = ["tool", "median", "spread", "changed bytes", "wire", "memory"];
  const truth = `${(changed / mebibyte).toFixed(1)} MiB changed.`;
  return `## ${name}\n\n${what === "" ? truth : `${what} ${truth}`}\n\n![${name}](${pageOf(results.fileSystem).plots}/${name}.svg)\n\n${table(head, lines)}`;
}

function memoryOf({ peakRssMiB, growthMiB }: Row): string {
  if (peakRssMiB === null) return "";
  const growth = growthMiB === undefined ? "" : ` (+${growthMiB.toFixed(0)})`;
  return `${peakRssMiB.toFixed(0)} MiB${growth}`;
}

function plotOfCase(results: Results, name: CaseName): string {
  const rows = rowsOf(results, name).map(({ tool, medianMs, minMs, maxMs }) => ({
    label: tool,
    median: medianMs,
    min: minMs,
    max: maxMs,
    isOurs: tool.startsWith("longshore"),
  }));
  return plotOf(`${name}: median and spread`, rows);
}

function absentSection({ absent }: Results): string {
  if (absent.length === 0) return "";
  const reasons = Map.groupBy(absent, ({ tool, reason }) => `${tool}|${reason}`);
  const lines = [...reasons.values()].map((group) => {
    const { tool = "", reason = "" } = group[0] ?? {};
    return [tool, group.map((one) => one.case).join(", "), reason];
  });
  return `## Not measured\n\n${table(["tool", "cases", "why"], lines)}`;
}

function microSection(micro: Micro | null): string {
  if (micro === null) return "";
  const count = (value: number) => value.toLocaleString("en-US");
  const tracking = micro.changeTracking.map((row) => [
    row.fileSystem,
    count(row.extents),
    count(row.extentsWalked),
    `${row.microsecondsPerExtent.toFixed(2)} µs`,
    duration(row.totalMs),
    `${row.growthMiB.toFixed(0)} MiB`,
  ]);
  const stall = micro.snapshotStall.map((row) => [
    row.fileSystem,
    count(row.extents),
    duration(row.stallMs),
    `${row.microsecondsPerExtent.toFixed(2)} µs`,
  ]);
  return `## Change tracking

What one difference of two points costs: the base's map, the next point's, and the base's once more, and reading what may differ.

${table(["file system", "extents of the image", "extents walked", "each", "together", "memory grown by"], tracking)}

## How long a snapshot holds writers up

${table(["file system", "extents of the image", "stall", "each"], stall)}`;
}

function countsSection({ counts }: Results): string {
  if (counts === null) return "";
  const { syncsAtSource, syncsAtTarget, roundTrips, requests } = counts;
  const lines = requests.map((request) => `- ${request}`).join("\n");
  return `## What an empty job costs

With connections warm: ${syncsAtSource} syncs (fsync, fdatasync) at the source, ${syncsAtTarget} at the target, ${roundTrips} requests from agent to agent:

${lines}`;
}

function toolsSection({ tools }: Results): string {
  const known = toolNames.flatMap((name) => (tools[name] === undefined ? [] : [[name, tools[name]]]));
  return `## The tools\n\n${table(["tool", "what it is here"], known)}`;
}

const reproduction = `## How to reproduce it

\`\`\`console
$ make bench                                             # as root: everything, some hours on two cores
$ make bench CASES="incr-1pct-4g empty" TOOLS="longshore-tls btrfs"
$ make bench FS=xfs                                      # the volumes on XFS: docs/performance-xfs.md
$ make bench SIZE=small                                  # whether all of it works: under a minute, times mean nothing
\`\`\`

\`RESUME=yes\` goes on with a run that was interrupted. \`RUNS\` (6) and \`PASSES\` (3) say how often, \`SEED\` which data and order, \`LANES\` how many connections a job has, \`MICRO=no\` leaves the
micro-measurements out, \`PROFILE=folder\` has the agents leave CPU profiles. It needs root, for disks of its own in memory, about 16 GiB of memory,
and the Debian packages that \`make setup\` installs. Nothing else should be running.`;

/** A table whose columns line up in the text as well. */
export function table(head: readonly string[], lines: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) =>
    Math.max(title.length, 3, ...lines.map((line) => (line[column] ?? "").length)),
  );
  const render = (line: readonly string[]) =>
    `| ${widths.map((width, column) => (line[column] ?? "").padEnd(width)).join(" | ")} |`;
  const rule = `|${widths.map((width) => "-".repeat(width + 2)).join("|")}|`;
  return [render(head), rule, ...lines.map(render)].join("\n");
}

/** Writes the page and its plots below the project's root; plots of cases that are no more go. */
export async function writeReport(results: Results, root: string): Promise<void> {
  const page = pageOf(results.fileSystem);
  const { markdown, plots } = reportOf(results);
  const folder = join(root, dirname(page.markdown), page.plots);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  for (const [name, svg] of plots) await writeFile(join(folder, name), svg);
  await writeFile(join(root, page.markdown), markdown);
}

if (import.meta.main) {
  const root = join(import.meta.dirname, "..");
  await writeReport(await readResults(join(root, pageOf(optionsOf(process.env).fileSystem).results)), root);
}
