// How much memory processes take, as the kernel counts it.
import { readFileSync, writeFileSync } from "node:fs";

const watchMs = 100;

/** The greatest peak of any process seen, in MiB. */
export interface PeakMemory {
  peakRssMiB: number;
}

/** Resident memory of a process in MiB: now, or at its peak since it began or {@link resetPeak}. */
export function residentMiB(pid: number, which: "now" | "peak"): number | undefined {
  const field = which === "now" ? "VmRSS" : "VmHWM";
  const kibibytes = new RegExp(`^${field}:\\s*(\\d+) kB$`, "m").exec(readText(`/proc/${pid}/status`))?.[1];
  return kibibytes === undefined ? undefined : Number(kibibytes) / 1024;
}

/** Has the peak count from now. */
export function resetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, "5");
}

/** Looks at a process and its descendants now and then until stopped. What lives for a moment only may go unseen. */
export function watchMemory(pid: number, into: PeakMemory): { stop(): void } {
  const look = () => {
    for (const process of family(pid)) into.peakRssMiB = Math.max(into.peakRssMiB, residentMiB(process, "peak") ?? 0);
  };
  const timer = setInterval(look, watchMs);
  return { stop: () => clearInterval(timer) };
}

function family(pid: number): number[] {
  const children = readText(`/proc/${pid}/task/${pid}/children`)
    .split(" ")
    .filter((text) => text !== "");
  return [pid, ...children.flatMap((child) => family(Number(child)))];
}

function readText(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return ""; // It ended meanwhile.
  }
}
