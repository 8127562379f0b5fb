// Runs seeds in worker processes, and gathers what they found.
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import type { SeedResult } from "./scenario.ts";
import type { WorkerMessage } from "./sim-worker.ts";

export interface RunOptions {
  readonly first: number;
  readonly count: number;
  readonly workers: number;
  /** Ends a worker after so many failing seeds. */
  readonly stopAfter: number;
  /** The mutant of the engine to run; see canaries.ts. */
  readonly canary?: string;
  /** Told of every seed that fails, and how many are done now and then. */
  readonly progress?: { done(seeds: number): void; failed(result: SeedResult): void };
}

export interface RunResult {
  readonly failed: readonly SeedResult[];
  readonly seeds: number;
  readonly events: number;
  readonly commits: number;
  /** Of all workers, their start included. */
  readonly processorMs: number;
}

const running = new Set<ChildProcess>();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => {
    for (const worker of running) worker.kill("SIGKILL");
    process.exit(130);
  });
}

/** A process runs so many seeds and is replaced: what crashed processes were waiting for stays in its memory. */
const seedsOfOneProcess = 1_000;

/** Throws when a worker ends without having said what it found. */
export async function runSeeds(options: RunOptions): Promise<RunResult> {
  const { first, count, workers, stopAfter, progress } = options;
  const done = new Array<number>(workers).fill(0);
  const lane = async (index: number): Promise<RunResult[]> => {
    const results: RunResult[] = [];
    const step = seedsOfOneProcess * workers;
    for (let from = first + index; from < first + count; from += step) {
      const before = done[index] ?? 0;
      const told = (seeds: number) => {
        done[index] = before + seeds;
        progress?.done(done.reduce((total, each) => total + each, 0));
      };
      const last = Math.min(first + count, from + step) - 1;
      results.push(await runWorker(options, { from, last }, told));
      if (results.reduce((total, { failed }) => total + failed.length, 0) >= stopAfter) break;
    }
    return results;
  };
  const parts = (await Promise.all(done.map((_, index) => lane(index)))).flat();
  const sum = (of: (part: RunResult) => number) => parts.reduce((total, part) => total + of(part), 0);
  return {
    failed: parts.flatMap(({ failed }) => failed).sort((left, right) => left.seed - right.seed),
    seeds: sum(({ seeds }) => seeds),
    events: sum(({ events }) => events),
    commits: sum(({ commits }) => commits),
    processorMs: sum(({ processorMs }) => processorMs),
  };
}

async function runWorker(
  { workers, stopAfter, canary, progress }: RunOptions,
  { from, last }: { from: number; last: number },
  told: (seeds: number) => void,
): Promise<RunResult> {
  const hooks = canary === undefined ? [] : ["--import", join(import.meta.dirname, "canary-hooks.ts")];
  const worker = fork(
    join(import.meta.dirname, "sim-worker.ts"),
    [from, last - from + 1, workers, stopAfter].map(String),
    {
      execArgv: ["--disable-warning=ExperimentalWarning", ...hooks],
      env: { ...process.env, ...(canary !== undefined && { CANARY: canary }) },
    },
  );
  running.add(worker);
  const failed: SeedResult[] = [];
  let sums: Extract<WorkerMessage, { kind: "done" }> | undefined;
  worker.on("message", (message: WorkerMessage) => {
    if (message.kind === "done") sums = message;
    else if (message.kind === "progress") told(message.seeds);
    else {
      failed.push(message.result);
      progress?.failed(message.result);
    }
  });
  const [status] = (await once(worker, "exit")) as [number | null];
  running.delete(worker);
  if (sums === undefined || status !== 0) throw new Error(`a worker of the simulator ended with ${status}`);
  told(sums.seeds);
  return { ...sums, failed };
}
