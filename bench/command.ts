// Programs of others: run to their end, with their output kept, their memory watched, and ended when we are interrupted.
import { type ChildProcess, spawn } from "node:child_process";
import { onInterrupt } from "../test/interrupt.ts";
import { type PeakMemory, watchMemory } from "./process-memory.ts";

export interface CommandOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Told how much memory the command and its children take. */
  readonly memory?: PeakMemory;
}

const paths = `${process.env.PATH}:/usr/sbin:/sbin`;

/** What the command wrote to its standard output; throws with what it wrote to standard error when it fails. */
export async function runCommand(
  command: string,
  args: readonly string[],
  options: CommandOptions = {},
): Promise<string> {
  const child = startCommand(command, args, options);
  const texts = { out: "", err: "" };
  child.stdout?.setEncoding("utf8").on("data", (text: string) => {
    texts.out += text;
  });
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    texts.err += text;
  });
  const watching = options.memory && watchMemory(child.pid ?? 0, options.memory);
  try {
    const how = await ended(child);
    if (how !== "0")
      throw new Error(`${command} ${args.join(" ")} ended with ${how}: ${texts.err.trim().slice(-2000)}`);
    return texts.out;
  } finally {
    watching?.stop();
  }
}

/** A line of shell in which every part of a pipe must succeed. */
export function runShell(script: string, options: CommandOptions = {}): Promise<string> {
  return runCommand("bash", ["-o", "pipefail", "-ec", script], options);
}

/** Starts a program in a process group of its own, which ends with us. */
export function startCommand(
  command: string,
  args: readonly string[],
  { env = {} }: CommandOptions = {},
): ChildProcess {
  const child = spawn("setpriv", ["--pdeathsig", "KILL", command, ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    env: { ...process.env, LC_ALL: "C", PATH: paths, ...env },
    detached: true,
  });
  const forget = onInterrupt(() => killGroup(child));
  child.once("exit", forget);
  child.once("error", forget);
  return child;
}

/** Ends a program that would not end by itself, and what it has started. */
export async function stopCommand(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = ended(child);
  killGroup(child);
  await gone;
}

function killGroup({ pid }: ChildProcess): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    // It ended meanwhile.
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

function ended(child: ChildProcess): Promise<string> {
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve(signal ?? String(code)));
  });
}

/** Single-quoted for a shell. */
export function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
