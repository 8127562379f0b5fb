// Runs the checks and the tests, and ends in one line: `N passed, N failed, N skipped`. Each check counts as one, and so
// does a test file that could not be loaded. `--quick` leaves out what needs a control plane or a file system of its own.
// Exit status 0 only when something ran and nothing failed; with CI=true also only when test/allowed-skips.txt names
// every skip.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { parseAllowedSkips, type Summary, summarize, verdict } from "./test-summary.ts";

const root = join(import.meta.dirname, "..");
const results = join(root, ".cache/test/jest.json");
const jest = ["--disable-warning=ExperimentalWarning", "--experimental-vm-modules", "node_modules/jest/bin/jest.js"];
// Jest takes them as regular expressions for whole paths, and the checkout may lie under any name.
const quickPaths = ["/src/", "/tools/", "/test/[^/]*$"].map((path) => `^${root.replace(/[^\w/]/g, "\\$&")}${path}`);

const isForPeople = process.stdout.isTTY === true;
const checks = [
  { name: "check: format and lint", command: "biome", options: ["ci", ...(isForPeople ? [] : ["--colors=off"]), "."] },
  { name: "check: types", command: "tsc", options: [] },
  { name: "check: generated files are up to date", command: "node", options: ["tools/generate.ts", "--verify"] },
];

// The tests' temporary folders are all in here, so that none survives a run that was interrupted.
const scratch = mkdtempSync(join(tmpdir(), "longshore-test-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }));

let running: ChildProcess | undefined;
let interruptedBy: NodeJS.Signals | undefined;
const graceMs = 10_000;

/** Passes the signal to all of the running step, waits for its clean-up, and is blunt after {@link graceMs}. */
function interrupt(signal: NodeJS.Signals): void {
  interruptedBy = signal;
  const group = running?.pid;
  if (group === undefined) process.exit(130);
  process.kill(-group, signal);
  setTimeout(() => process.kill(-group, "SIGKILL"), graceMs).unref();
}

/** Runs one step in a process group of its own and returns its exit status. */
async function run(command: string, options: readonly string[]): Promise<number> {
  running = spawn(command, options, {
    cwd: root,
    stdio: ["ignore", "inherit", "inherit"],
    env: { ...process.env, TMPDIR: scratch, ...(isForPeople ? {} : { NO_COLOR: "1" }) },
    detached: true,
  });
  const [status] = (await once(running, "exit")) as [number | null];
  running = undefined;
  if (interruptedBy !== undefined) process.exit(130);
  return status ?? 1;
}

async function runChecks(): Promise<Summary> {
  const failed: string[] = [];
  for (const { name, command, options } of checks) {
    console.log(`\n${name}`);
    if ((await run(command, options)) !== 0) failed.push(name);
  }
  return { passed: checks.length - failed.length, failed, skipped: [] };
}

async function runJest(paths: readonly string[]): Promise<Summary> {
  rmSync(results, { force: true });
  mkdirSync(join(results, ".."), { recursive: true });
  const options = ["--maxWorkers=2", "--json", `--outputFile=${relative(root, results)}`];
  const status = await run("node", [...jest, ...options, ...paths]);
  return summarize(readResults(), { root, status });
}

function readResults(): string | undefined {
  try {
    return readFileSync(results, "utf8");
  } catch {
    return undefined; // Jest ended before it could write them; its exit status counts as a failure.
  }
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, interrupt);
const quick = process.argv.includes("--quick");
const checked = await runChecks();
console.log("\ntests");
const tested = await runJest(quick ? quickPaths : []);
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
