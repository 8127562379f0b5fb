// Runs the checks and the tests, and ends in one line: `N passed, N failed, N skipped`. Each check counts as one, and so
// does a test file that could not be loaded. `--quick` leaves out what needs a control plane or a file system of its own.
// Exit status 0 only when something ran and nothing failed; with CI=true also only when test/allowed-skips.txt names
// every skip.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { addSummaries, parseAllowedSkips, type Summary, summarize, verdict } from "./test-summary.ts";

const root = join(import.meta.dirname, "..");
const results = join(root, ".cache/test/jest.json");
const jest = ["--disable-warning=ExperimentalWarning", "--experimental-vm-modules", "node_modules/jest/bin/jest.js"];
// Jest takes them as regular expressions for whole paths, and the checkout may lie under any name.
const quickPaths = ["/src/", "/tools/", "/bench/", "/test/[^/]*$"].map(
  (path) => `^${root.replace(/[^\w/]/g, "\\$&")}${path}`,
);

const isForPeople = process.stdout.isTTY === true;
const checks = [
  { name: "check: format and lint", command: "biome", options: ["ci", ...(isForPeople ? [] : ["--colors=off"]), "."] },
  { name: "check: types", command: "tsc", options: [] },
  { name: "check: generated files are up to date", command: "node", options: ["tools/generate.ts", "--verify"] },
];
const slowChecks = [{ name: "check: model of the group commit", command: "node", options: ["tools/model.ts"] }];
/** A check ends with this where the machine lacks what it needs. */
const exitSkipped = 77;

// The tests' temporary folders are all in here, so that none survives a run that was interrupted.
const scratch = mkdtempSync(join(tmpdir(), "longshore-test-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }));

let running: ChildProcess | undefined;
let interruptedBy: NodeJS.Signals | undefined;
const graceMs = 30_000;

/** Passes the signal to all of the running step, which {@link run} then waits for. A second one is blunt. */
function interrupt(signal: NodeJS.Signals): void {
  const group = running?.pid;
  if (group === undefined) process.exit(130);
  signalGroup(group, interruptedBy === undefined ? signal : "SIGKILL");
  interruptedBy = signal;
  // Jest itself may hang as well.
  setTimeout(() => signalGroup(group, "SIGKILL"), graceMs).unref();
}

/** Runs one step in a process group of its own and returns its exit status. Nothing of the group is left then. */
async function run(command: string, options: readonly string[], environment: NodeJS.ProcessEnv = {}): Promise<number> {
  running = spawn(command, options, {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, TMPDIR: scratch, ...(isForPeople ? {} : { NO_COLOR: "1" }), ...environment },
    detached: true,
  });
  const group = running.pid ?? 0;
  const [status] = (await once(running, "exit")) as [number | null];
  await endGroup(group);
  running = undefined;
  if (interruptedBy !== undefined) process.exit(130);
  return status ?? 1;
}

/** Jest's workers undo what they made for a moment longer than Jest lives; whatever stays longer is ended and named. */
async function endGroup(group: number): Promise<void> {
  const deadline = performance.now() + graceMs;
  while (processesOf(group).length > 0 && performance.now() < deadline) await sleep(100);
  const left = processesOf(group);
  if (left.length === 0) return;
  console.log(`\nprocesses left behind, ended now: ${left.join(", ")}`);
  signalGroup(group, "SIGKILL");
}

/** The names of the processes of a group, without those that have ended and only wait to be collected. */
function processesOf(group: number): string[] {
  return readdirSync("/proc").flatMap((pid) => {
    const stat = /^\d+$/.test(pid) ? readText(`/proc/${pid}/stat`) : undefined;
    const [, name = "", state, processGroup] = /^\d+ \((.*)\) (\S) \d+ (\d+) /s.exec(stat ?? "") ?? [];
    return Number(processGroup) === group && state !== "Z" ? [name] : [];
  });
}

function signalGroup(group: number, signal: NodeJS.Signals): void {
  try {
    process.kill(-group, signal);
  } catch (error) {
    // It ended meanwhile.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function readText(file: string): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined;
  }
}

async function runChecks(isQuick: boolean): Promise<Summary> {
  const failed: string[] = [];
  const skipped: string[] = [];
  const wanted = isQuick ? checks : [...checks, ...slowChecks];
  for (const { name, command, options } of wanted) {
    console.log(`\n${name}`);
    const status = await run(command, options);
    if (status === exitSkipped) skipped.push(name);
    else if (status !== 0) failed.push(name);
  }
  return { passed: wanted.length - failed.length - skipped.length, failed, skipped };
}

async function runJest(paths: readonly string[]): Promise<Summary> {
  rmSync(results, { force: true });
  mkdirSync(join(results, ".."), { recursive: true });
  const options = ["--maxWorkers=2", "--json", `--outputFile=${relative(root, results)}`];
  const status = await run("node", [...jest, ...options, ...paths]);
  // Without results Jest ended before it could write them; its exit status says how.
  return summarize(readText(results), { root, status });
}

/** Programs of the simulator write the summary of their tests into a file. */
async function runSimulator(program: string, environment: NodeJS.ProcessEnv): Promise<Summary> {
  const file = join(root, ".cache/test", `${program}.json`);
  rmSync(file, { force: true });
  console.log(`\n${program}`);
  const options = ["--disable-warning=ExperimentalWarning", `test/sim/${program}.ts`];
  const status = await run("node", options, { ...environment, SUMMARY: file });
  const text = readText(file);
  if (text !== undefined) return JSON.parse(text) as Summary;
  return { passed: 0, failed: [`${program} ended with ${status} and no results`], skipped: [] };
}

async function runTests(): Promise<Summary> {
  console.log("\ntests");
  if (quick) return runJest(quickPaths);
  return addSummaries([
    await runJest([]),
    await runSimulator("sim", { SEEDS: "2000", FIRST: "1", SEED: "" }),
    await runSimulator("sim-canaries", { SEEDS: "2000", FIRST: "1", CANARY: "" }),
  ]);
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, interrupt);
const quick = process.argv.includes("--quick");
const checked = await runChecks(quick);
const tested = await runTests();
const leftBehind = readdirSync(scratch);
if (leftBehind.length > 0) console.log(`\nleft behind in the temporary folder: ${leftBehind.join(", ")}`);
const { lines, status } = verdict({
  checked,
  tested,
  inCi: process.env.CI === "true",
  allowedSkips: parseAllowedSkips(readFileSync(join(root, "test/allowed-skips.txt"), "utf8")),
});
console.log(lines.join("\n"));
process.exitCode = status;
