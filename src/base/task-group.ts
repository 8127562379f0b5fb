// Work nobody awaits on the spot: it is stopped and joined together, and a failure is logged once instead of lost.
import type { Log } from "./log.ts";

export interface TaskGroup {
  /** Aborted when the group closes. */
  readonly signal: AbortSignal;
  /** Starts `work`; a failure other than the group's own end is logged as "task failed" with `name`. */
  spawn(name: string, work: (signal: AbortSignal) => Promise<void>): void;
  /** Aborts the signal, and resolves when all work has ended. */
  close(): Promise<void>;
}

export function taskGroup(log: Log): TaskGroup {
  const stop = new AbortController();
  const running = new Set<Promise<void>>();
  async function guarded(name: string, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    try {
      await work(stop.signal);
    } catch (error) {
      if (!stop.signal.aborted) log.error({ task: name, err: error }, "task failed");
    }
  }
  return {
    signal: stop.signal,
    spawn(name, work) {
      if (stop.signal.aborted) return;
      const task = guarded(name, work);
      running.add(task);
      void task.then(() => running.delete(task));
    },
    async close() {
      stop.abort(new Error("stopping"));
      while (running.size > 0) await Promise.all(running);
    },
  };
}
