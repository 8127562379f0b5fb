// What the demo says: one line for each thing that happens, with the time since the start, and tables that line up.

const colours = { title: "\x1b[1m", good: "\x1b[32m", bad: "\x1b[31m", plain: "\x1b[0m" } as const;

export interface Narrator {
  title(text: string): void;
  /** `subject` is a word or two; it makes a column. */
  say(subject: string, text: string): void;
  block(text: string): void;
  table(header: readonly string[], rows: readonly (readonly string[])[]): void;
  verdict(isPass: boolean): void;
  readonly elapsedMs: number;
}

export function narrator(output: NodeJS.WriteStream = process.stdout): Narrator {
  const start = performance.now();
  const paint = (colour: keyof typeof colours, text: string) =>
    output.isTTY ? `${colours[colour]}${text}${colours.plain}` : text;
  const line = (text: string) => void output.write(`${text}\n`);
  const stamp = () => `${((performance.now() - start) / 1000).toFixed(1).padStart(5)}s`;
  return {
    title: (text) => line(`\n${paint("title", text)}`),
    say: (subject, text) => line(`${stamp()}  ${subject.padEnd(10)}  ${text}`),
    block: (text) => line(text.trimEnd().replaceAll(/^/gm, "    ")),
    table: (header, rows) => line(renderTable(header, rows).replaceAll(/^/gm, "  ")),
    verdict: (isPass) => line(`\ndemo: ${isPass ? paint("good", "PASS") : paint("bad", "FAIL")}`),
    get elapsedMs() {
      return performance.now() - start;
    },
  };
}

/** Columns as wide as their widest cell; cells that are numbers are set to the right. */
export function renderTable(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((name, column) => Math.max(name.length, ...rows.map((row) => (row[column] ?? "").length)));
  const cell = (text: string, column: number) => {
    const width = widths[column] ?? 0;
    return /^[\d.]+( [a-zA-Z/]+)?$/.test(text) ? text.padStart(width) : text.padEnd(width);
  };
  return [header, ...rows].map((row) => row.map(cell).join("  ").trimEnd()).join("\n");
}

export function bytesText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1024 && unit < units.length - 1) [value, unit] = [value / 1024, unit + 1];
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}
