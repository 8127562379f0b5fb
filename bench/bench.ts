// `make bench`: this project side by side with what else its users could run, in one run, on the same data, on disks in
// memory. Writes bench/results/latest.json after each tool, and docs/performance.md with its plots at the end.
// Options are environment variables: see options.ts, and docs/performance.md.
import { mkdirSync, rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { freemem, tmpdir } from "node:os";
import { join } from "node:path";
import { seededDice } from "../src/base/dice.ts";
import { mountMemory } from "../test/e2e/netns/memory-disk.ts";
import { onInterrupt } from "../test/interrupt.ts";
import { btrfsTool } from "./btrfs-tool.ts";
import { absence, type Case, type CaseName, caseOf, type ToolName } from "./cases.ts";
import { countEmptyJob } from "./counts.ts";
import { dataSetOf } from "./data-set.ts";
import { takeMemory } from "./disks.ts";
import { floorTool } from "./floor-tool.ts";
import { longshoreTool } from "./longshore-tool.ts";
import { describeMachine } from "./machine.ts";
import { type MeasuredSession, measure } from "./measure.ts";
import { measureMicro } from "./micro.ts";
import { type Options, optionsOf } from "./options.ts";
import { makePackageTree, type PackageTree } from "./package-tree.ts";
import { tell } from "./progress.ts";
import { pageOf, writeReport } from "./report.ts";
import { resticTool } from "./restic-tool.ts";
import { type Absence, type Results, readResults, resumed, rowOf, withRows, writeResults } from "./results.ts";
import { rsyncTool } from "./rsync-tool.ts";
import { runsOfPasses, shuffled } from "./statistics.ts";
import { NotAvailable, type Tool } from "./tool.ts";

const root = join(import.meta.dirname, "..");

function toolOf(name: ToolName): Tool {
  switch (name) {
    case "btrfs":
      return btrfsTool();
    case "rsync":
      return rsyncTool();
    case "restic":
      return resticTool();
    case "longshore-tls":
    case "longshore-tls-noverify":
    case "longshore-kernel":
    case "longshore-kernel-noverify":
      return longshoreTool(name);
    case "floor-kernel":
    case "floor-kernel-hash":
    case "floor-tls":
    case "floor-tls-hash":
      return floorTool(name);
  }
}

interface Benchmark {
  readonly options: Options;
  readonly scratch: string;
  /** Tools that were found not to be available here, with the reason. */
  readonly lacking: Map<ToolName, string>;
}

/** What has been found so far, kept in its file after each tool. */
class Ledger {
  readonly #file: string;
  #results: Results;

  constructor(file: string, results: Results) {
    this.#file = file;
    this.#results = results;
  }

  get results(): Results {
    return this.#results;
  }

  async keep(found: Partial<Results>): Promise<void> {
    this.#results = { ...this.#results, ...found };
    await writeResults(this.#file, this.#results);
  }

  /** The tools that have no row in the case, and could have one. */
  toolsLeft(measured: Case, tools: readonly ToolName[]): readonly ToolName[] {
    const rows = this.#results.rows.filter((row) => row.case === measured.name);
    const isMeasured = (tool: ToolName) => rows.some((row) => row.tool === tool);
    return tools.filter((tool) => absence(tool, measured) === undefined && !isMeasured(tool));
  }

  /** What the case changes, in bytes, once it was found out. */
  bytesChanged(name: CaseName): number | undefined {
    return this.#results.rows.find((row) => row.case === name)?.bytesChanged;
  }
}

/** All tools in one case: in each pass every tool has its turn, with a part of the runs. */
async function measureCase(measured: Case, benchmark: Benchmark, ledger: Ledger): Promise<void> {
  const { options, scratch } = benchmark;
  const { name } = measured;
  const tree = measured.change.kind === "tree" ? await packageTree(measured, scratch) : undefined;
  if (tree !== undefined) await ledger.keep({ cases: { ...ledger.results.cases, [name]: tree.describe } });
  const absent = options.tools.flatMap((tool): Absence[] => {
    const reason = absence(tool, measured);
    return reason === undefined ? [] : [{ case: name, tool, reason }];
  });
  await ledger.keep(withRows(ledger.results, [], absent));
  const sessions = new Map<ToolName, MeasuredSession[]>();
  const left = ledger.toolsLeft(measured, options.tools);
  const passes = runsOfPasses(options.runs, options.passes);
  for (const [pass, runs] of passes.entries()) {
    const dice = seededDice(options.seed * 1000 + pass * 10 + name.length);
    const isLast = pass === passes.length - 1;
    for (const tool of shuffled(options.tools, dice).filter((each) => left.includes(each))) {
      // It was told in the first pass.
      if (pass > 0 && benchmark.lacking.has(tool)) continue;
      const turn = { tool, measured, tree, runs, pass, isLast };
      await takeTurn(turn, sessions, { benchmark, ledger });
    }
  }
  await tree?.remove();
}

interface Turn {
  readonly tool: ToolName;
  readonly measured: Case;
  readonly tree: PackageTree | undefined;
  readonly runs: number;
  readonly pass: number;
  readonly isLast: boolean;
}

/** A tool's part of a pass. What was found of it is kept as soon as its last run is over. */
async function takeTurn(
  turn: Turn,
  sessions: Map<ToolName, MeasuredSession[]>,
  { benchmark, ledger }: { readonly benchmark: Benchmark; readonly ledger: Ledger },
): Promise<void> {
  const { tool, measured, pass, isLast } = turn;
  const { name } = measured;
  const leaveOut = async (reason: string) => {
    benchmark.lacking.set(tool, reason);
    tell(`${name}: ${tool} is left out: ${reason}`);
    await ledger.keep(withRows(ledger.results, [], [{ case: name, tool, reason }]));
  };
  const lacking = benchmark.lacking.get(tool);
  if (lacking !== undefined) return leaveOut(lacking);
  tell(`${name}: ${tool}, pass ${pass + 1}`);
  try {
    const told = [...sessions.values()].flat().find(({ bytesChanged }) => bytesChanged !== undefined)?.bytesChanged;
    const truth = ledger.bytesChanged(name) ?? told;
    const session = await measureTool(turn, benchmark, truth === undefined);
    const all = [...(sessions.get(tool) ?? []), session];
    sessions.set(tool, all);
    tell(`${name}: ${tool}: ${session.runsMs.map((ms) => `${ms.toFixed(0)} ms`).join(", ")}`);
    const bytesChanged = truth ?? session.bytesChanged;
    if (!isLast || bytesChanged === undefined) return;
    await ledger.keep(withRows(ledger.results, [rowOf({ case: name, tool }, bytesChanged, all)], []));
  } catch (error) {
    if (!(error instanceof NotAvailable)) throw error;
    await leaveOut(error.message);
  }
}

function packageTree(measured: Case, scratch: string): Promise<PackageTree> {
  const { volumeBytes } = measured;
  return makePackageTree({ folder: join(scratch, "tree"), imageBytes: volumeBytes, treeBytes: volumeBytes * 0.45 });
}

/** `wantsTruth`: nobody knows yet how much the case changes. */
async function measureTool(turn: Turn, { options, scratch }: Benchmark, wantsTruth: boolean): Promise<MeasuredSession> {
  const { measured, tree, runs, pass } = turn;
  const tool = toolOf(turn.tool);
  const folder = await mkdtemp(join(scratch, `${tool.name}-`));
  const setting = { case: measured, options, folder };
  const session = await tool.open(setting);
  try {
    const data = dataSetOf({ case: measured, seed: options.seed * 100 + pass, tree });
    return await measure({ session, setting, data, runs, wantsTruth, verifiesAll: options.size === "small" });
  } finally {
    await session.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

async function main(): Promise<void> {
  const options = optionsOf(process.env);
  if (process.getuid?.() !== 0) throw new Error("the benchmark mounts disks of its own: run it as root");
  const scratch = await openScratch();
  const page = pageOf(options.fileSystem);
  const file = options.results ?? join(root, options.size === "small" ? ".cache/bench.json" : page.results);
  const fresh = await emptyResults(options);
  const ledger = new Ledger(file, options.resumes ? resumed(await readResults(file), fresh) : fresh);
  const cases = options.cases
    .map((name) => caseOf(name, options.size))
    .filter((measured) => ledger.toolsLeft(measured, options.tools).length > 0);
  const benchmark = { options, scratch: scratch.path, lacking: new Map<ToolName, string>() };
  try {
    if (options.size === "full" && cases.length > 0) {
      tell("taking memory for the disks");
      await takeMemory(cases);
    }
    for (const measured of cases) await measureCase(measured, benchmark, ledger);
    const { withMicro, size } = options;
    if (withMicro && ledger.results.micro === null) await ledger.keep({ micro: await measureMicro(size) });
    if (withMicro && ledger.results.counts === null) {
      await ledger.keep({ counts: (await countEmptyJob(options, join(scratch.path, "counts"))) ?? null });
    }
    await ledger.keep({ finishedAt: new Date().toISOString() });
  } finally {
    await scratch.close();
  }
  if (options.size === "full" && options.results === undefined) await writeReport(ledger.results, root);
  tell(`done: ${file}`);
}

/** Everything lies in memory: the disks, and the keys and logs as well. */
async function openScratch(): Promise<{ readonly path: string; close(): Promise<void> }> {
  const folder = await mkdtemp(join(tmpdir(), "longshore-bench-"));
  const forget = onInterrupt(() => rmSync(folder, { recursive: true, force: true }));
  const path = join(folder, "memory");
  mkdirSync(path);
  const memory = await mountMemory(path, freemem());
  process.env.TMPDIR = path;
  return {
    path,
    async close() {
      await memory.unmount();
      rmSync(folder, { recursive: true, force: true });
      forget();
    },
  };
}

async function emptyResults(options: Options): Promise<Results> {
  const described = await Promise.all(
    options.tools.map(async (name) => [name, await toolOf(name).describe()] as const),
  );
  const { size, fileSystem, runs, passes, lanes, seed } = options;
  return {
    format: 1,
    startedAt: new Date().toISOString(),
    finishedAt: null,
    resumedAt: [],
    ...{ size, fileSystem, runs, passes, lanes, seed },
    machine: describeMachine(),
    tools: Object.fromEntries(described),
    cases: {},
    rows: [],
    absent: [],
    micro: null,
    counts: null,
  };
}

await main();
