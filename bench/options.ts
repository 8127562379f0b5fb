// What a run of the benchmark is asked for, by environment variables.
import { type CaseName, caseNames, type Size, type ToolName, toolNames } from "./cases.ts";

export type FileSystem = "btrfs" | "xfs";

export interface Options {
  readonly size: Size;
  /** Of the disks of all tools; `btrfs send` has btrfs always. */
  readonly fileSystem: FileSystem;
  readonly cases: readonly CaseName[];
  readonly tools: readonly ToolName[];
  readonly runs: number;
  /** The runs of a case are spread over so many passes; in each all tools have their turn, in an order of its own. */
  readonly passes: number;
  /** Connections of a job, and of the floors over TLS. */
  readonly lanes: number;
  readonly seed: number;
  /** Whether the micro-measurements and the counts are taken as well. */
  readonly withMicro: boolean;
  /** Whether it goes on with the results that are there: what they have already is not measured again. */
  readonly resumes: boolean;
  /** Where the results go, if not to their usual place; no page is written of them then. */
  readonly results: string | undefined;
  /** Where the agents leave CPU profiles; none are taken unless given. */
  readonly profile: string | undefined;
}

type Environment = Readonly<Record<string, string | undefined>>;

/** Throws, with what is possible, for anything that is not understood. */
export function optionsOf(env: Environment): Options {
  const size = oneOf("SIZE", env.SIZE || "full", ["full", "small"] as const);
  const isSmall = size === "small";
  return {
    size,
    fileSystem: oneOf("FS", env.FS || "btrfs", ["btrfs", "xfs"] as const),
    cases: listOf("CASES", env.CASES, caseNames),
    tools: listOf("TOOLS", env.TOOLS, toolNames),
    runs: countOf("RUNS", env.RUNS || (isSmall ? "1" : "6")),
    passes: countOf("PASSES", env.PASSES || (isSmall ? "1" : "3")),
    lanes: countOf("LANES", env.LANES || "1"),
    seed: countOf("SEED", env.SEED || "1"),
    withMicro: isYes("MICRO", env.MICRO || "yes"),
    resumes: isYes("RESUME", env.RESUME || "no"),
    results: env.RESULTS || undefined,
    profile: env.PROFILE || undefined,
  };
}

function listOf<T extends string>(name: string, text: string | undefined, known: readonly T[]): readonly T[] {
  const wanted = (text ?? "").split(/[\s,]+/).filter((word) => word !== "");
  if (wanted.length === 0) return known;
  return wanted.map((word) => oneOf(name, word, known));
}

function oneOf<T extends string>(name: string, text: string, known: readonly T[]): T {
  const found = known.find((word) => word === text);
  if (found === undefined) throw new Error(`${name}: ${text} is not one of ${known.join(", ")}`);
  return found;
}

function isYes(name: string, text: string): boolean {
  return oneOf(name, text, ["yes", "no"] as const) === "yes";
}

function countOf(name: string, text: string): number {
  if (!/^[1-9]\d{0,5}$/.test(text)) throw new Error(`${name}: ${text} is not a positive number`);
  return Number(text);
}
