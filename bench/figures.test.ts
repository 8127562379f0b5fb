import { expect, test } from "@jest/globals";
import type { CaseName, ToolName } from "./cases.ts";
import { figuresOf } from "./figures.ts";

function row(name: CaseName, tool: ToolName, medianMs: number, more: object = {}) {
  return { case: name, tool, medianMs, bytesChanged: 1000, bytesSent: 1010, ...more };
}

function kept(rows: ReturnType<typeof row>[]): Record<string, string> {
  const told = figuresOf(rows).filter(({ found }) => found !== undefined);
  return Object.fromEntries(told.map(({ what, found, isKept }) => [what, `${found} ${isKept ? "kept" : "missed"}`]));
}

test("time is compared with that of btrfs, and of those who read everything", () => {
  expect(
    kept([
      row("incr-1pct-4g", "longshore-tls", 100),
      row("incr-1pct-4g", "btrfs", 90),
      row("incr-1pct-4g", "rsync", 1500),
      row("incr-1pct-4g", "restic", 1499),
    ]),
  ).toMatchObject({
    "incr-1pct-4g: time of longshore-tls over that of btrfs": "1.11 missed",
    "incr-1pct-4g: times quicker than rsync": "15.0× kept",
    "incr-1pct-4g: times quicker than restic": "15.0× missed",
  });
});

test("speed is compared with the floor that does the same work", () => {
  expect(
    kept([
      row("full-4g", "floor-kernel", 85),
      row("full-4g", "longshore-kernel-noverify", 100),
      row("full-4g", "floor-tls-hash", 80),
      row("full-4g", "longshore-tls", 100),
    ]),
  ).toMatchObject({
    "full-4g: speed of longshore-kernel-noverify over that of floor-kernel": "0.85 kept",
    "full-4g: speed of longshore-tls over that of floor-tls-hash": "0.80 missed",
  });
});

test("of bytes and memory the worst case counts, and of others none", () => {
  expect(
    kept([
      row("full-4g", "longshore-tls", 1, { growthMiB: 100 }),
      row("empty", "longshore-tls", 60, { bytesChanged: 0, bytesSent: 500, growthMiB: 129 }),
      row("empty", "rsync", 1, { bytesSent: 1e9, growthMiB: 1e9 }),
    ]),
  ).toEqual({
    "empty: start to Released, connections warm": "60 ms kept",
    "longshore: bytes on the wire over bytes changed, in the worst case": "1.010 kept",
    "longshore: memory of an agent over idle, in the worst case": "129 MiB missed",
  });
});

test("without rows nothing is found, and nothing is kept", () => {
  expect(figuresOf([]).every(({ found, isKept }) => found === undefined && isKept === undefined)).toBe(true);
});
