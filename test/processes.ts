// Which processes of this machine have to do with something, to see that none is left.

import { readdirSync, readFileSync } from "node:fs";

/** The command lines that have `text` in them, such as the path of a folder that only one test uses. */
export function processesNaming(text: string): string[] {
  return readdirSync("/proc").flatMap((pid) => {
    if (!/^\d+$/.test(pid)) return [];
    try {
      const command = readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ");
      return command.includes(text) ? [command] : [];
    } catch {
      return []; // It ended while we looked.
    }
  });
}
