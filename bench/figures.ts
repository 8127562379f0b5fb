// What the project promises of its speed, as ratios of medians of one run, and whether a run keeps it.
import type { CaseName, ToolName } from "./cases.ts";
import type { Row } from "./results.ts";

export interface Figure {
  readonly what: string;
  readonly goal: string;
  /** `undefined` when a row it needs is missing. */
  readonly found: string | undefined;
  readonly isKept: boolean | undefined;
}

type Rows = readonly Pick<Row, "case" | "tool" | "medianMs" | "bytesChanged" | "bytesSent" | "growthMiB">[];

const mayTakeOfBtrfs = 1;
const timesQuicker = 15;
const emptyMsMax = 60;
const shareOfFloorMin = 0.85;
const sentPerChangedMax = 1.02;
const growthMiBMax = 128;

/** Every figure, in the order in which they are told. */
export function figuresOf(rows: Rows): Figure[] {
  return [
    ...(["incr-0.1pct-4g", "incr-1pct-4g"] as const).map((name) => asQuickAsBtrfs(rows, name)),
    ...(["rsync", "restic"] as const).map((other) => quickerThan(rows, other)),
    emptyIsQuick(rows),
    ...(["full-2g", "full-4g"] as const).flatMap((name) => nearTheFloors(rows, name)),
    littleOnTheWire(rows),
    littleMemory(rows),
  ];
}

function medianOf(rows: Rows, name: CaseName, tool: ToolName): number | undefined {
  return rows.find((row) => row.case === name && row.tool === tool)?.medianMs;
}

/** Median of one tool over that of another. */
function ratio(rows: Rows, name: CaseName, [above, below]: readonly [ToolName, ToolName]): number | undefined {
  const [one, other] = [medianOf(rows, name, above), medianOf(rows, name, below)];
  return one === undefined || other === undefined ? undefined : one / other;
}

type Show = (value: number) => string;
const twoDigits: Show = (value) => value.toFixed(2);

function atMost(what: string, found: number | undefined, limit: number, show = twoDigits): Figure {
  return judged({ what, goal: `≤ ${show(limit)}`, show }, found, (value) => value <= limit);
}

function atLeast(what: string, found: number | undefined, limit: number, show = twoDigits): Figure {
  return judged({ what, goal: `≥ ${show(limit)}`, show }, found, (value) => value >= limit);
}

function judged(
  { what, goal, show }: { readonly what: string; readonly goal: string; readonly show: Show },
  found: number | undefined,
  isKept: (value: number) => boolean,
): Figure {
  if (found === undefined) return { what, goal, found, isKept: undefined };
  return { what, goal, found: show(found), isKept: isKept(found) };
}

function asQuickAsBtrfs(rows: Rows, name: CaseName): Figure {
  return atMost(
    `${name}: time of longshore-tls over that of btrfs`,
    ratio(rows, name, ["longshore-tls", "btrfs"]),
    mayTakeOfBtrfs,
  );
}

function quickerThan(rows: Rows, other: "rsync" | "restic"): Figure {
  const found = ratio(rows, "incr-1pct-4g", [other, "longshore-tls"]);
  return atLeast(`incr-1pct-4g: times quicker than ${other}`, found, timesQuicker, (value) => `${value.toFixed(1)}×`);
}

function emptyIsQuick(rows: Rows): Figure {
  const found = medianOf(rows, "empty", "longshore-tls");
  return atMost("empty: start to Released, connections warm", found, emptyMsMax, (value) => `${value.toFixed(0)} ms`);
}

const floors: readonly (readonly [ToolName, ToolName])[] = [
  ["floor-kernel", "longshore-kernel-noverify"],
  ["floor-kernel-hash", "longshore-kernel"],
  ["floor-tls", "longshore-tls-noverify"],
  ["floor-tls-hash", "longshore-tls"],
];

function nearTheFloors(rows: Rows, name: CaseName): Figure[] {
  return floors.map(([floor, ours]) =>
    atLeast(`${name}: speed of ${ours} over that of ${floor}`, ratio(rows, name, [floor, ours]), shareOfFloorMin),
  );
}

function littleOnTheWire(rows: Rows): Figure {
  const shares = rows
    .filter(({ tool, bytesChanged }) => tool.startsWith("longshore") && bytesChanged > 0)
    .map(({ bytesChanged, bytesSent }) => (bytesSent ?? Number.POSITIVE_INFINITY) / bytesChanged);
  const found = shares.length === 0 ? undefined : Math.max(...shares);
  const show = (value: number) => value.toFixed(3);
  return atMost("longshore: bytes on the wire over bytes changed, in the worst case", found, sentPerChangedMax, show);
}

function littleMemory(rows: Rows): Figure {
  const growths = rows.flatMap(({ tool, growthMiB }) => (tool.startsWith("longshore") ? (growthMiB ?? []) : []));
  const found = growths.length === 0 ? undefined : Math.max(...growths);
  return atMost(
    "longshore: memory of an agent over idle, in the worst case",
    found,
    growthMiBMax,
    (value) => `${value.toFixed(0)} MiB`,
  );
}
