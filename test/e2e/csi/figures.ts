// What the scenarios measured: printed, and kept in .cache/test/csi-clusters.json. Nothing is asserted about it.
import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";

const file = join(import.meta.dirname, "../../../.cache/test/csi-clusters.json");

export interface Figures {
  /** Seconds, of things that happened alike: their number, median and slowest. */
  durations(what: string, seconds: readonly number[]): void;
  /** Prints and writes all of them. */
  report(): void;
}

interface Spread {
  readonly count: number;
  readonly medianSeconds: number;
  readonly slowestSeconds: number;
}

export function collectFigures(): Figures {
  const figures: Record<string, Spread> = {};
  return {
    durations(what, seconds) {
      figures[what] = spreadOf(seconds);
    },
    report() {
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, `${JSON.stringify(figures, undefined, 2)}\n`);
      const lines = Object.entries(figures).map(([what, { count, medianSeconds, slowestSeconds }]) => {
        return `${what}: ${count}, median ${medianSeconds.toFixed(1)} s, slowest ${slowestSeconds.toFixed(1)} s`;
      });
      process.stdout.write(`\n${lines.join("\n")}\n`);
    },
  };
}

/** The lower of two middle ones. */
export function spreadOf(seconds: readonly number[]): Spread {
  const sorted = seconds.toSorted((one, other) => one - other);
  const slowest = sorted.at(-1);
  const median = sorted[Math.floor((sorted.length - 1) / 2)];
  if (slowest === undefined || median === undefined) throw new Error("nothing was measured");
  return { count: sorted.length, medianSeconds: median, slowestSeconds: slowest };
}
