// The simulator's command line: SEEDS seeds from FIRST on, in two processes; or one seed, told in full.
import { runSeed, type SeedResult } from "./scenario.ts";

const seeds = Number(process.env.SEEDS ?? 200);
const first = Number(process.env.FIRST ?? 1);
const one = process.env.SEED;

function show({ seed, violations, notes }: SeedResult): string {
  const what = violations.map(({ invariant, message, atMs }) => `${invariant} at ${atMs.toFixed(1)} ms: ${message}`);
  return [`seed ${seed}`, ...what, "last events:", ...notes.slice(-40), `replay: make sim SEED=${seed}`].join("\n");
}

if (one !== undefined) {
  const result = await runSeed(Number(one), { isTelling: true });
  console.log(result.violations.length === 0 ? `seed ${one} passed` : show({ ...result, notes: [] }));
  process.exitCode = result.violations.length === 0 ? 0 : 1;
} else {
  const start = process.cpuUsage();
  let [failed, events, commits] = [0, 0, 0];
  for (let seed = first; seed < first + seeds; seed++) {
    const result = await runSeed(seed);
    events += result.events;
    commits += result.commits;
    if (result.violations.length === 0) continue;
    failed += 1;
    if (failed <= 3) console.log(show(result));
    else
      console.log(`seed ${seed}: ${result.violations[0]?.invariant} ${result.violations[0]?.message.split("\n")[0]}`);
    if (failed >= Number(process.env.MAXFAIL ?? 10)) break;
  }
  const spent = process.cpuUsage(start);
  const perSeed = (spent.user + spent.system) / 1000 / seeds;
  console.log(
    `${seeds} seeds, ${failed} failed, ${perSeed.toFixed(1)} ms of processor a seed, ${events} events, ${commits} commits`,
  );
  process.exitCode = failed === 0 ? 0 : 1;
}
