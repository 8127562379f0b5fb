// One program of a control plane: a child process whose output goes to a file and whose death is told with its log.

import { type ChildProcess, spawn } from "node:child_process";
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";

const root = join(import.meta.dirname, "../..");

/** Where the set-up links the programs of a control plane and, under `crds`, the VolumeSnapshot definitions. */
export const controlPlaneAssets = join(root, ".cache/controlplane");

export interface Program {
  readonly name: string;
  /** Rejects when the program ends before it was told to; never resolves otherwise. Has a handler, so it may be ignored. */
  readonly died: Promise<never>;
  /** Kills it at once, and resolves when it is gone. A repeat changes nothing. */
  kill(): Promise<void>;
  /** The same without waiting, for signal handlers. */
  killNow(): void;
}

/** Starts the program with its output in `folder`. It dies with this process, even when that is killed by SIGKILL. */
export function startProgram(name: string, options: readonly string[], folder: string): Program {
  const log = join(folder, `${name}.log`);
  const output = openSync(log, "a");
  const child = spawn("setpriv", ["--pdeathsig", "KILL", join(controlPlaneAssets, name), ...options], {
    stdio: ["ignore", output, output],
    cwd: folder,
  });
  closeSync(output);
  return watch(name, child, log);
}

function watch(name: string, child: ChildProcess, log: string): Program {
  let told = false;
  const gone = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal === null ? `exit status ${code}` : signal));
  });
  const died = new Promise<never>((_, reject) => {
    void gone.then((how) => {
      if (!told) reject(new Error(`${name} ended by itself (${how}); the end of its log:\n${tail(log)}`));
    });
  });
  // Whoever waits for something of this program races with `died`; nobody need be waiting when it happens.
  died.catch(() => undefined);
  const killNow = () => {
    told = true;
    child.kill("SIGKILL");
  };
  const kill = async () => {
    killNow();
    await gone;
  };
  return { name, died, kill, killNow };
}

/** The last lines of a log file, for a person. */
export function tail(file: string, lines = 20): string {
  return readFileSync(file, "utf8").trimEnd().split("\n").slice(-lines).join("\n");
}
