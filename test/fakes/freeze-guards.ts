// The processes that keep file systems frozen for a given process.

import { readdirSync, readFileSync } from "node:fs";

/** Ids of the guards that the process `parent` has started and that have not ended. */
export function guardsOf(parent: number): number[] {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const [, state, parentId] = /^\d+ \(.*\) (\S) (\d+) /s.exec(readFileSync(`/proc/${pid}/stat`, "utf8")) ?? [];
      const isGuard = readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("freeze-guard.ts");
      return isGuard && state !== "Z" && Number(parentId) === parent ? [Number(pid)] : [];
    } catch {
      return []; // It ended while we looked.
    }
  });
}
