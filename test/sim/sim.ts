// The simulator's command line. SEEDS seeds from FIRST on, in two processes, and the seeds that once failed; with SEED one seed,
// told in full. Ends in one line, and writes what a summary of tests needs when SUMMARY names a file.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { keptSeeds } from "./kept-seeds.ts";
import { runSeed, type SeedResult } from "./scenario.ts";
import { runSeeds } from "./sim-run.ts";

const workers = 2;
const shownMax = 3;
const isTerminal = process.stdout.isTTY === true;

function show({ seed, violations, notes }: SeedResult): string {
  const what = violations.map(({ invariant, message, atMs }) => `${invariant} at ${atMs.toFixed(1)} ms: ${message}`);
  return [`seed ${seed}`, ...what, "last events:", ...notes, `replay: make sim SEED=${seed}`, ""].join("\n");
}

function showShortly({ seed, violations: [first] }: SeedResult): string {
  return `seed ${seed}: ${first?.invariant} ${first?.message.split("\n")[0]}`;
}

async function replay(seed: number): Promise<void> {
  const result = await runSeed(seed, { isTelling: true });
  console.log(result.violations.length === 0 ? `seed ${seed}: nothing broken` : show({ ...result, notes: [] }));
  process.exitCode = result.violations.length === 0 ? 0 : 1;
}

/** Runs one after the other in this process; there are few. */
async function runKept(): Promise<{ names: string[]; failed: string[] }> {
  const [names, failed]: [string[], string[]] = [[], []];
  for (const { seed, once } of keptSeeds) {
    const name = `simulator: seed ${seed}: ${once}`;
    const result = await runSeed(seed);
    names.push(name);
    if (result.violations.length === 0) continue;
    console.log(show(result));
    failed.push(name);
  }
  return { names, failed };
}

/** Says how far it is: on a terminal in place, else a line now and then. */
function progressOf(count: number) {
  const startMs = performance.now();
  let toldMs = startMs;
  return {
    done(seeds: number): void {
      const nowMs = performance.now();
      if (nowMs - toldMs < (isTerminal ? 1_000 : 30_000)) return;
      toldMs = nowMs;
      const leftSeconds = (((nowMs - startMs) / seeds) * (count - seeds)) / 1000;
      const text = `${seeds} of ${count} seeds, about ${leftSeconds.toFixed(0)} s to go`;
      process.stdout.write(isTerminal ? `\r${text}\u001b[K` : `${text}\n`);
    },
    failed(result: SeedResult): void {
      console.log(`${isTerminal ? "\r" : ""}${showShortly(result)}`);
    },
  };
}

async function sweep(first: number, count: number): Promise<void> {
  const startMs = performance.now();
  const kept = await runKept();
  const stopAfter = Number(process.env.FAILURES ?? 10);
  const { failed, ...sums } = await runSeeds({ first, count, workers, stopAfter, progress: progressOf(count) });
  for (const [index, result] of failed.entries()) console.log(index < shownMax ? show(result) : showShortly(result));
  const seconds = (performance.now() - startMs) / 1000;
  const what = `${sums.events} events, ${sums.commits} points committed`;
  console.log(
    `${isTerminal ? "\r\u001b[K" : ""}${sums.seeds} seeds from ${first} and ${kept.names.length} kept ones: ${failed.length + kept.failed.length} failed; ` +
      `${what}, ${seconds.toFixed(0)} s, ${(sums.processorMs / sums.seeds).toFixed(1)} ms of a processor a seed`,
  );
  const sweeping = `simulator: ${count} seeds from ${first}`;
  const failures = [...kept.failed, ...failed.map((result) => `${sweeping}: ${showShortly(result)}`)];
  summarize({ passed: kept.names.length - kept.failed.length + (failed.length === 0 ? 1 : 0), failed: failures });
  process.exitCode = failures.length === 0 ? 0 : 1;
}

function summarize(summary: { passed: number; failed: readonly string[] }): void {
  const { SUMMARY: file } = process.env;
  if (file === undefined) return;
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, JSON.stringify({ ...summary, skipped: [] }));
}

const { SEED, FIRST, SEEDS } = process.env;
if (SEED === undefined || SEED === "") await sweep(Number(FIRST || 1), Number(SEEDS || 2_000));
else await replay(Number(SEED));
