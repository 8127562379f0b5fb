// One of the simulator's processes: runs every STRIDE-th seed from FIRST on and tells its parent of each. With a canary's name
// it runs a mutant of the engine instead, and stops at the first seed that catches it.
import { runSeed, type SeedResult } from "./scenario.ts";

/** What a worker tells its parent. */
export type WorkerMessage =
  | { readonly kind: "failed"; readonly result: SeedResult }
  | { readonly kind: "progress"; readonly seeds: number }
  | {
      readonly kind: "done";
      readonly seeds: number;
      readonly events: number;
      readonly commits: number;
      readonly processorMs: number;
    };

const [first = "1", count = "1", stride = "1", stopAfter = "1"] = process.argv.slice(2);

const progressEvery = 50;
let [failed, events, commits, seeds] = [0, 0, 0, 0];
for (let seed = Number(first); seed < Number(first) + Number(count); seed += Number(stride)) {
  const result = await runSeed(seed).catch((error: unknown) => thrown(seed, error));
  seeds += 1;
  events += result.events;
  commits += result.commits;
  if (seeds % progressEvery === 0) tell({ kind: "progress", seeds });
  if (result.violations.length === 0) continue;
  tell({ kind: "failed", result });
  failed += 1;
  if (failed >= Number(stopAfter)) break;
}
const { user, system } = process.cpuUsage();
tell({ kind: "done", seeds, events, commits, processorMs: (user + system) / 1000 });
process.disconnect?.();

/** The simulator itself is at fault; the other seeds run all the same. */
function thrown(seed: number, error: unknown): SeedResult {
  const message = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return { seed, violations: [{ invariant: "simulator", message, atMs: 0 }], notes: [], events: 0, commits: 0 };
}

function tell(message: WorkerMessage): void {
  process.send?.(message);
}
