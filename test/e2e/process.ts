// A process of ours (agent, operator) as a child: output to a log file, ended with its parent whatever happens to that,
// and killed, stopped or continued on purpose by the tests.
import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import { onInterrupt } from "../interrupt.ts";
import { tail } from "./control-plane-program.ts";

const root = join(import.meta.dirname, "../..");

export interface Process {
  readonly log: string;
  readonly pid: number;
  /** Sends the signal and, for those that end it, waits until it is gone. */
  signal(signal: "SIGKILL" | "SIGTERM" | "SIGSTOP" | "SIGCONT"): Promise<void>;
  /** Throws, with the end of the log, if it has ended. */
  checkRunning(): void;
}

/** Starts `longshore ARGS`, with its output appended to `log`. */
export function startLongshore(args: readonly string[], log: string): Process {
  const output = openSync(log, "a");
  // As users start it: its first line says how Node.js is to be run.
  const child = spawn("setpriv", ["--pdeathsig", "KILL", join(root, "src/bin/longshore.ts"), ...args], {
    stdio: ["ignore", output, output],
    cwd: root,
    env: { ...process.env, PATH: `${join(root, "node_modules/.bin")}:${process.env.PATH}` },
  });
  closeSync(output);
  return watch(child, `longshore ${args[0]}`, log);
}

/** Follows a child that was just started and writes to `log`; it is killed when the tests are interrupted. */
export function watch(child: ChildProcess, name: string, log: string): Process {
  const forget = onInterrupt(() => child.kill("SIGKILL"));
  let ending: string | undefined;
  const gone = new Promise<void>((resolve) => {
    const end = (how: string) => {
      ending = how;
      forget();
      resolve();
    };
    child.once("error", (error) => end(error.message));
    child.once("exit", (code, signal) => end(signal ?? `exit status ${code}`));
  });
  return {
    log,
    pid: child.pid ?? 0,
    async signal(signal) {
      if (ending !== undefined) return;
      child.kill(signal);
      if (signal === "SIGTERM" || signal === "SIGKILL") await gone;
    },
    checkRunning() {
      if (ending !== undefined) throw new Error(`${name} ended (${ending}); the end of its log:\n${tail(log, 30)}`);
    },
  };
}

/** Asks `probe` until it gives something; fails with what it threw last when `timeoutMs` is over. */
export async function eventually<T>(
  what: string,
  probe: () => Promise<T | undefined>,
  { timeoutMs = 90_000, intervalMs = 50 } = {},
): Promise<T> {
  const end = performance.now() + timeoutMs;
  let last: unknown;
  for (;;) {
    try {
      const found = await probe();
      if (found !== undefined) return found;
    } catch (error) {
      last = error;
    }
    if (performance.now() > end) throw new Error(`${what} did not happen within ${timeoutMs} ms`, { cause: last });
    await new Promise((resolve) => setTimeout(resolve, intervalMs));
  }
}
