// What a person reads: aligned columns, and single objects as fields. What a program reads is JSON.
import { stripVTControlCharacters } from "node:util";
import { renderDuration } from "../domain/duration.ts";
import type { Streams } from "./streams.ts";

export interface Column<T> {
  readonly title: string;
  readonly of: (row: T) => string | number | null | undefined;
  readonly align?: "right";
}

/** Aligned columns with titles; `none` when there are no rows. */
export function renderTable<T>(columns: readonly Column<T>[], rows: readonly T[], none: string): string {
  if (rows.length === 0) return `${none}\n`;
  const cells = [columns.map(({ title }) => title), ...rows.map((row) => columns.map((column) => cellOf(column, row)))];
  const widths = columns.map((_, index) => Math.max(...cells.map((line) => widthOf(line[index] ?? ""))));
  const lines = cells.map((line) =>
    line
      .map((cell, index) => padded(cell, widths[index] ?? 0, columns[index]?.align))
      .join("  ")
      .trimEnd(),
  );
  return `${lines.join("\n")}\n`;
}

/** `name  value` lines; what is nothing is left out. */
export function renderFields(fields: Readonly<Record<string, string | number | boolean | null | undefined>>): string {
  const present = Object.entries(fields).filter(([, value]) => value !== null && value !== undefined && value !== "");
  const width = Math.max(...present.map(([name]) => name.length));
  return present.map(([name, value]) => `${name.padEnd(width)}  ${value}\n`).join("");
}

/** How long ago, in its two largest units. */
export function ageOf(time: string | null | undefined, nowMs: number): string {
  if (time === null || time === undefined) return "";
  const seconds = Math.max(0, Math.round((nowMs - Date.parse(time)) / 1000));
  const grain = seconds < 600 ? 1 : seconds < 36_000 ? 60 : 3600;
  return renderDuration(Math.floor(seconds / grain) * grain * 1000) || "0s";
}

const colours: Readonly<Record<string, number>> = {
  Succeeded: 32,
  Available: 32,
  Ready: 32,
  reachable: 32,
  alive: 32,
  Running: 36,
  Frozen: 36,
  Pending: 33,
  Waiting: 33,
  Suspended: 33,
  Undecided: 33,
  unknown: 33,
  notConsented: 33,
  Failed: 31,
  Cancelled: 31,
  unreachable: 31,
  untrusted: 31,
  lost: 31,
};

/** A state in its colour, where colours are wanted. */
export function stateText(state: string, { isColoured }: Pick<Streams, "isColoured">): string {
  const colour = colours[state];
  return isColoured && colour !== undefined ? `\u001b[${colour}m${state}\u001b[0m` : state;
}

function cellOf<T>(column: Column<T>, row: T): string {
  const value = column.of(row);
  return value === null || value === undefined || value === "" ? "-" : String(value);
}

function padded(cell: string, width: number, align: "right" | undefined): string {
  const space = " ".repeat(width - widthOf(cell));
  return align === "right" ? space + cell : cell + space;
}

/** Colours take no room. */
function widthOf(cell: string): number {
  return stripVTControlCharacters(cell).length;
}
