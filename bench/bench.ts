// `make bench`: this project side by side with what else its users could run, in one run, on the same data, on disks in
// memory. Writes bench/results/latest.json after each case, and docs/performance.md with its plots at the end.
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
import {
  type Absence,
  type Results,
  type Row,
  readResults,
  resumed,
  rowOf,
  withRows,
  writeResults,
} from "./results.ts";
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

interface Findings {
  readonly rows: readonly Row[];
  readonly absent: readonly Absence[];
  readonly describe: string | undefined;
}

/** All tools in one case: in each pass every tool has its turn, with a part of the runs. */
async function measureCase(measured: Case, { options, scratch, lacking }: Benchmark): Promise<Findings> {
  const tree = measured.change.kind === "tree" ? await packageTree(measured, scratch) : undefined;
  const absent = new Map<ToolName, string>();
  for (const tool of options.tools) {
    const reason = lacking.get(tool) ?? absence(tool, measured);
    if (reason !== undefined) absent.set(tool, reason);
  }
  const found = new Map<ToolName, MeasuredSession[]>();
  for (const [pass, runs] of runsOfPasses(options.runs, options.passes).entries()) {
    const dice = seededDice(options.seed * 1000 + pass * 10 + measured.name.length);
    const order = shuffled(options.tools, dice).filter((tool) => !absent.has(tool));
    for (const tool of order) {
      const isFirst = found.size === 0;
      tell(`${measured.name}: ${tool}, pass ${pass + 1}`);
      try {
        const session = await measureTool(toolOf(tool), { measured, options, scratch, tree, runs, pass, isFirst });
        found.set(tool, [...(found.get(tool) ?? []), session]);
        tell(`${measured.name}: ${tool}: ${session.runsMs.map((ms) => `${ms.toFixed(0)} ms`).join(", ")}`);
      } catch (error) {
        if (!(error instanceof NotAvailable)) throw error;
        absent.set(tool, error.message);
        lacking.set(tool, error.message);
        tell(`${measured.name}: ${tool} is left out: ${error.message}`);
      }
    }
  }
  await tree?.remove();
  const describe = tree?.describe;
  const truth = [...found.values()].flat().find(({ bytesChanged }) => bytesChanged !== undefined)?.bytesChanged;
  if (truth === undefined) return { rows: [], absent: absencesOf(measured.name, absent), describe };
  const rows = [...found].map(([tool, sessions]) => rowOf({ case: measured.name, tool }, truth, sessions));
  return { rows, absent: absencesOf(measured.name, absent), describe };
}

function absencesOf(name: CaseName, absent: ReadonlyMap<ToolName, string>): Absence[] {
  return [...absent].map(([tool, reason]) => ({ case: name, tool, reason }));
}

function packageTree(measured: Case, scratch: string): Promise<PackageTree> {
  const { volumeBytes } = measured;
  return makePackageTree({ folder: join(scratch, "tree"), imageBytes: volumeBytes, treeBytes: volumeBytes * 0.45 });
}

interface Turn {
  readonly measured: Case;
  readonly options: Options;
  readonly scratch: string;
  readonly tree: PackageTree | undefined;
  readonly runs: number;
  readonly pass: number;
  readonly isFirst: boolean;
}

async function measureTool(tool: Tool, turn: Turn): Promise<MeasuredSession> {
  const { measured, options, scratch, tree, runs, pass, isFirst } = turn;
  const folder = await mkdtemp(join(scratch, `${tool.name}-`));
  const setting = { case: measured, options, folder };
  const session = await tool.open(setting);
  try {
    const data = dataSetOf({ case: measured, seed: options.seed * 100 + pass, tree });
    return await measure({ session, setting, data, runs, wantsTruth: isFirst, verifiesAll: options.size === "small" });
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
  let results = options.resumes ? resumed(await readResults(file), fresh) : fresh;
  const cases = options.cases.filter((name) => !results.rows.some((row) => row.case === name));
  const keep = async (found: Results) => {
    results = found;
    await writeResults(file, results);
  };
  const benchmark = { options, scratch: scratch.path, lacking: new Map<ToolName, string>() };
  try {
    if (options.size === "full" && cases.length > 0) {
      tell("taking memory for the disks");
      await takeMemory(cases.map((name) => caseOf(name, options.size)));
    }
    for (const name of cases) {
      const { rows, absent, describe } = await measureCase(caseOf(name, options.size), benchmark);
      const described = describe === undefined ? results.cases : { ...results.cases, [name]: describe };
      await keep(withRows({ ...results, cases: described }, rows, absent));
    }
    const { withMicro, size } = options;
    if (withMicro && results.micro === null) await keep({ ...results, micro: await measureMicro(size) });
    if (withMicro && results.counts === null) {
      await keep({ ...results, counts: (await countEmptyJob(options, join(scratch.path, "counts"))) ?? null });
    }
    await keep({ ...results, finishedAt: new Date().toISOString() });
  } finally {
    await scratch.close();
  }
  if (options.size === "full" && options.results === undefined) await writeReport(results, root);
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
