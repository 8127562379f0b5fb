// A plot as SVG: for each tool a dot at the median and a line from the quickest to the slowest run, on a logarithmic axis.
// Written by hand, so that documentation needs no program to draw it.

export interface PlotRow {
  readonly label: string;
  readonly median: number;
  readonly min: number;
  readonly max: number;
  /** Whether it is one of ours, which are drawn in another colour. */
  readonly isOurs: boolean;
}

const [width, labelWidth, rowHeight, top, bottom, right] = [760, 210, 24, 44, 40, 90];

/** `rows` from top to bottom, in milliseconds. */
export function plotOf(title: string, rows: readonly PlotRow[]): string {
  const height = top + rows.length * rowHeight + bottom;
  const axis = axisOf(rows);
  const lines = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" viewBox="0 0 ${width} ${height}" font-family="sans-serif" font-size="13">`,
    `<title>${escaped(title)}</title>`,
    `<rect width="${width}" height="${height}" fill="#ffffff"/>`,
    `<text x="12" y="26" font-size="15" font-weight="bold" fill="#1f2328">${escaped(title)}</text>`,
    ...axis.ticks.flatMap((tick) => tickLines(axis.at(tick), tick, height)),
    ...rows.flatMap((row, index) => rowLines(row, top + index * rowHeight + rowHeight / 2, axis.at)),
    "</svg>",
  ];
  return `${lines.join("\n")}\n`;
}

interface Axis {
  readonly ticks: readonly number[];
  at(value: number): number;
}

/** From the tick at or below the least value to the one at or above the greatest. */
function axisOf(rows: readonly PlotRow[]): Axis {
  const least = Math.max(0.1, Math.min(...rows.map(({ min }) => min)));
  const greatest = Math.max(least, ...rows.map(({ max }) => max));
  const all = [-1, 0, 1, 2, 3, 4, 5, 6].flatMap((power) => [1, 2, 5].map((digit) => digit * 10 ** power));
  const first = all.findLastIndex((tick) => tick <= least);
  const last = Math.max(
    first + 1,
    all.findIndex((tick) => tick >= greatest),
  );
  const ticks = all.slice(Math.max(0, first), last + 1);
  const [from, to] = [Math.log10(ticks[0] ?? 1), Math.log10(ticks.at(-1) ?? 10)];
  const span = width - labelWidth - right;
  return { ticks, at: (value) => labelWidth + (span * (Math.log10(Math.max(value, 10 ** from)) - from)) / (to - from) };
}

function tickLines(x: number, tick: number, height: number): string[] {
  const foot = height - bottom;
  return [
    `<line x1="${fixed(x)}" y1="${top}" x2="${fixed(x)}" y2="${foot}" stroke="#d0d7de"/>`,
    `<text x="${fixed(x)}" y="${foot + 18}" text-anchor="middle" fill="#59636e">${duration(tick)}</text>`,
  ];
}

function rowLines({ label, median, min, max, isOurs }: PlotRow, y: number, at: Axis["at"]): string[] {
  const colour = isOurs ? "#0550ae" : "#6e7781";
  return [
    `<text x="${labelWidth - 12}" y="${y + 4}" text-anchor="end" fill="#1f2328">${escaped(label)}</text>`,
    `<line x1="${fixed(at(min))}" y1="${y}" x2="${fixed(at(max))}" y2="${y}" stroke="${colour}" stroke-width="3" stroke-opacity="0.45"/>`,
    `<circle cx="${fixed(at(median))}" cy="${y}" r="5" fill="${colour}"/>`,
    `<text x="${fixed(at(max) + 9)}" y="${y + 4}" fill="${colour}">${duration(median)}</text>`,
  ];
}

/** Milliseconds or seconds, with as many digits as can be told apart. */
export function duration(ms: number): string {
  if (ms < 10) return `${Number(ms.toFixed(1))} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${Number((ms / 1000).toFixed(ms < 10_000 ? 2 : 1))} s`;
}

function fixed(value: number): string {
  return String(Number(value.toFixed(1)));
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");
}
