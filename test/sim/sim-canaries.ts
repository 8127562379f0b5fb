// Runs every canary until a seed catches it, and shows the table. Fails when one survives the seeds of a normal run.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { type Canary, canaries } from "./canaries.ts";
import { runSeeds } from "./sim-run.ts";

const { SEEDS, FIRST, CANARY, SUMMARY } = process.env;
const count = Number(SEEDS || 2_000);
const first = Number(FIRST || 1);

interface Caught {
  readonly seed: number;
  readonly what: string;
}

/** Each alone in its process, two at a time: what catches first is what a run of one process would find. */
async function run(canary: Canary): Promise<Caught | undefined> {
  const { failed } = await runSeeds({ first, count, workers: 1, stopAfter: 1, canary: canary.name });
  const [result] = failed;
  const [violation] = result?.violations ?? [];
  if (result === undefined || violation === undefined) return undefined;
  return { seed: result.seed, what: `${violation.invariant} ${violation.message.split("\n")[0]}` };
}

const waiting = canaries.filter(({ name }) => CANARY === undefined || CANARY === "" || name === CANARY);
const chosen = [...waiting];
const caught = new Map<string, Caught | undefined>();
async function lane(): Promise<void> {
  for (let canary = waiting.shift(); canary !== undefined; canary = waiting.shift()) {
    const found = await run(canary);
    caught.set(canary.name, found);
    console.log(`${canary.name}: ${found === undefined ? "never caught" : `seed ${found.seed}`}`);
  }
}
await Promise.all([lane(), lane()]);

console.log(`\n${"canary".padEnd(42)}${"caught at".padEnd(12)}by`);
const [passed, failed]: [string[], string[]] = [[], []];
for (const { name, wrong } of chosen) {
  const found = caught.get(name);
  (found === undefined ? failed : passed).push(name);
  console.log(
    `${name.padEnd(42)}${(found === undefined ? "never" : `seed ${found.seed}`).padEnd(12)}${found?.what.slice(0, 150) ?? wrong}`,
  );
}
console.log(`${passed.length} of ${chosen.length} canaries caught within ${count} seeds`);
if (SUMMARY !== undefined) {
  mkdirSync(dirname(SUMMARY), { recursive: true });
  const failures = failed.map((name) => `simulator: canary not caught: ${name}`);
  writeFileSync(SUMMARY, JSON.stringify({ passed: passed.length, failed: failures, skipped: [] }));
}
process.exitCode = failed.length === 0 ? 0 : 1;
