// A process that writes one file, to see whether it can.

import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { onInterrupt } from "../interrupt.ts";

export interface Writer {
  /** Whether the kernel holds it up at this moment. */
  isHeldUp(): boolean;
  /** Resolves when it has written, and throws when it failed. */
  readonly done: Promise<void>;
}

export function startWriter(file: string): Writer {
  const child = spawn("sh", ["-c", 'echo written > "$0"', file], { stdio: "ignore" });
  const forget = onInterrupt(() => child.kill("SIGKILL"));
  const done = new Promise<void>((resolve, reject) => {
    child.once("exit", (status) => {
      forget();
      if (status === 0) resolve();
      else reject(new Error(`the writer of ${file} failed`));
    });
  });
  return {
    done,
    isHeldUp: () => /^\d+ \(sh\) D /.test(readFileSync(`/proc/${child.pid}/stat`, "utf8")),
  };
}
