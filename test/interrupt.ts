// What has to be undone when a test run or the demo is interrupted: mounts, loop devices, processes, folders.
// A finished test undoes its things itself; this is for SIGINT, SIGTERM, SIGHUP, and for a test runner that vanished.

import { constants } from "node:os";

type Undo = () => void;

interface Listening {
  readonly undos: Set<Undo>;
  stop(): void;
}

const signals = ["SIGINT", "SIGTERM", "SIGHUP"] as const;
// A Jest worker runs many test files, each with globals of its own; the process itself is what they have in common.
const key = Symbol.for("longshore.onInterrupt");
const realProcess: NodeJS.Process & { [key]?: Listening | undefined } =
  (globalThis as { processOfTestRun?: NodeJS.Process }).processOfTestRun ?? process;

/**
 * Has `undo` run, newest first, when the process is told to end; returns a function that forgets it. `undo` is
 * synchronous, and its failure is only reported. Afterwards the process ends, unless it has signal handlers of its own,
 * which then are the ones to end it.
 */
export function onInterrupt(undo: Undo): () => void {
  const listening = realProcess[key] ?? listen();
  realProcess[key] = listening;
  // Wrapped, so that the same function given twice is two entries.
  const entry = () => undo();
  listening.undos.add(entry);
  return () => {
    listening.undos.delete(entry);
    if (listening.undos.size > 0) return;
    // A listener for `disconnect` keeps a Jest worker from ending, so there is none while there is nothing to undo.
    listening.stop();
    if (realProcess[key] === listening) realProcess[key] = undefined;
  };
}

function listen(): Listening {
  const undos = new Set<Undo>();
  const onSignal = (signal: NodeJS.Signals) => {
    const isOurs = realProcess.listenerCount(signal) === 1;
    undoAll(undos);
    if (isOurs) realProcess.exit(128 + constants.signals[signal]);
  };
  // A Jest worker whose parent was killed would go on for as long as its test does.
  const onDisconnect = () => {
    undoAll(undos);
    realProcess.exit(1);
  };
  for (const signal of signals) realProcess.on(signal, onSignal);
  realProcess.on("disconnect", onDisconnect);
  const stop = () => {
    for (const signal of signals) realProcess.off(signal, onSignal);
    realProcess.off("disconnect", onDisconnect);
  };
  return { undos, stop };
}

function undoAll(undos: ReadonlySet<Undo>): void {
  for (const undo of [...undos].reverse()) {
    try {
      undo();
    } catch (error) {
      // The others still have to be undone; what could not be is for the person who interrupted.
      process.stderr.write(`while cleaning up: ${String(error)}\n`);
    }
  }
}
