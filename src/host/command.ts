// Runs the node's tools, never through a shell: each with a deadline, and with what it said in the error. One that is past its deadline
// is ended and waited for, so that nothing of it is at work on a device any more when its caller hears of the failure.
import { spawn } from "node:child_process";
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import { HostError } from "./host-error.ts";

/** How a tool ended by itself. */
export interface Outcome {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Commands {
  /**
   * Runs a tool, its name first, to its end, whatever its status. Throws {@link HostError} when it cannot be started or a signal ended it,
   * and `Timeout` when it had to be ended after `timeoutMs`.
   */
  attempt(words: readonly string[], timeoutMs: number): Promise<Outcome>;
  /** The same for a tool that must succeed; anything but status 0 is a {@link HostError}. Returns what it wrote. */
  run(words: readonly string[], timeoutMs: number): Promise<string>;
}

/** For what only asks or sets something. */
export const quickMsMax = 60_000;
/** For what writes to a device: a mount may have to replay a log, an unmount to write out gigabytes. */
export const workMsMax = 60 * 60_000;
/** For a file system that is checked as a whole. Ending that early helps nobody. */
export const checkMsMax = 12 * 60 * 60_000;

/** From being asked to end until being killed: a tool that is asked may have something to put in order. */
export const graceMs = 10_000;

const saidLengthMax = 4 * 2 ** 20;
const toldLengthMax = 1_000;

// Nothing of our own environment; messages are read, so they are in one language.
const env = { PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", LC_ALL: "C" };

export function openCommands(clock: Clock): Commands {
  return {
    attempt: (words, timeoutMs) => runToEnd(clock, words, timeoutMs),
    async run(words, timeoutMs) {
      const outcome = await runToEnd(clock, words, timeoutMs);
      if (outcome.status !== 0) throw failed(words, outcome);
      return outcome.stdout;
    },
  };
}

/** What to throw for a tool that has failed. */
export function failed(words: readonly string[], { status, stdout, stderr }: Outcome): HostError {
  return new HostError(`${words.join(" ")}: exit status ${status}${told(stderr.trim() === "" ? stdout : stderr)}`);
}

function runToEnd(clock: Clock, words: readonly string[], timeoutMs: number): Promise<Outcome> {
  const [program = "", ...options] = words;
  const child = spawn(program, options, { stdio: ["ignore", "pipe", "pipe"], cwd: "/", env });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout = (stdout + text).slice(-saidLengthMax);
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr = (stderr + text).slice(-saidLengthMax);
  });
  const over = new AbortController();
  let isLate = false;
  const end = async () => {
    await clock.sleep(timeoutMs, over.signal);
    isLate = true;
    child.kill("SIGTERM");
    await clock.sleep(graceMs, over.signal);
    child.kill("SIGKILL");
  };
  // It rejects when the tool is over first.
  end().catch(() => undefined);
  return new Promise((resolve, reject) => {
    child.once("error", (cause) => {
      over.abort();
      reject(new HostError(`cannot run ${program}; is it installed here?`, { cause }));
    });
    // Not before: a tool that hangs in the kernel is still at work.
    child.once("close", (status, signal) => {
      over.abort();
      const what = words.join(" ");
      if (isLate) {
        reject(new LongshoreError("Timeout", `${what} was ended after ${timeoutMs} ms${told(stderr)}`));
      } else if (status === null) {
        reject(new HostError(`${what} was ended by ${signal}${told(stderr)}`));
      } else resolve({ status, stdout, stderr });
    });
  });
}

function told(text: string): string {
  const trimmed = text.trim();
  return trimmed === "" ? "" : `: ${trimmed.slice(-toldLengthMax)}`;
}
