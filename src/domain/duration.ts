// Durations as Go writes them (`1h30m`, `720h`, `1.5s`), which is how the API's users know them.
import { LongshoreError } from "./errors.ts";

const unitMs = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 } as const;

const whole = /^(?:\d+(?:\.\d+)?(?:ms|s|m|h))+$/;
const parts = /(\d+(?:\.\d+)?)(ms|s|m|h)/g;

/** Milliseconds, rounded. Knows h, m, s and ms; like Go it knows no days. Throws `BadRequest` for anything else. */
export function parseDuration(text: string): number {
  if (!whole.test(text)) {
    throw new LongshoreError("BadRequest", `not a duration: "${text}"; write hours, minutes and seconds, as in 1h30m`);
  }
  let totalMs = 0;
  for (const [, count, unit] of text.matchAll(parts)) totalMs += Number(count) * unitMs[unit as keyof typeof unitMs];
  return Math.round(totalMs);
}

/** The shortest text that parses to `durationMs`; units that are nought are left out. */
export function renderDuration(durationMs: number): string {
  if (durationMs === 0) return "0s";
  let restMs = durationMs;
  let text = "";
  for (const [unit, sizeMs] of [
    ["h", unitMs.h],
    ["m", unitMs.m],
    ["s", unitMs.s],
    ["ms", unitMs.ms],
  ] as const) {
    const count = Math.floor(restMs / sizeMs);
    if (count > 0) text += `${count}${unit}`;
    restMs -= count * sizeMs;
  }
  return text;
}
