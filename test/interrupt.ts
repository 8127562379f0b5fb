// What has to be undone when a test run or the demo is interrupted: mounts, loop devices, processes, folders.
// A finished test undoes its things itself; this is for SIGINT, SIGTERM, SIGHUP, and for a test runner that vanished.

import { constants } from "node:os";

type Undo = () => void;

type Undos = Set<Undo>;

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
// A worker runs many test files, each with globals of its own; the process itself is what they have in common.
const key = Symbol.for("longshore.onInterrupt");
const realProcess: NodeJS.Process & { [key]?: Undos } =
  (globalThis as { processOfTestRun?: NodeJS.Process }).processOfTestRun ?? process;

/**
 * Has `undo` run, newest first, when the process is told to end; returns a function that forgets it. `undo` is
 * synchronous and may be cut short by nothing but SIGKILL. Afterwards the process ends, unless it has signal handlers
 * of its own, which then are the ones to end it.
 */
export function onInterrupt(undo: Undo): () => void {
  const undos = realProcess[key] ?? listen();
  realProcess[key] = undos;
  undos.add(undo);
  return () => {
    undos.delete(undo);
  };
}

function listen(): Undos {
  const undos: Undos = new Set();
  for (const signal of signals) {
    realProcess.on(signal, () => {
      undoAll(undos);
      if (realProcess.listenerCount(signal) === 1) realProcess.exit(128 + constants.signals[signal]);
    });
  }
  // A Jest worker whose parent was killed would go on for as long as its test does.
  realProcess.on("disconnect", () => {
    undoAll(undos);
    realProcess.exit(1);
  });
  return undos;
}

function undoAll(undos: Undos): void {
  for (const undo of [...undos].reverse()) {
    undos.delete(undo);
    try {
      undo();
    } catch (error) {
      // The others still have to be undone; what could not be is for the person who interrupted.
      process.stderr.write(`while cleaning up: ${String(error)}\n`);
    }
  }
}
