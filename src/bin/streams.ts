// What a command sees of the world it is typed in: its terminal, its environment, and the signal to stop.

export interface Streams {
  out(text: string): void;
  err(text: string): void;
  /** Everything on standard input. */
  input(): Promise<string>;
  /** Whether colours are for a person's eyes. */
  readonly isColoured: boolean;
  readonly env: Readonly<Record<string, string | undefined>>;
  /** Aborted by SIGINT or SIGTERM. */
  readonly stop: AbortSignal;
  /** The status to exit with when nothing was thrown. */
  exitCode: number;
}

/** As of a program that SIGPIPE ended, which Node.js does not let happen. */
const brokenPipe = 128 + 13;

/** The process's own. Once nobody reads its output any more, as after `| head`, the process ends. A second signal ends the process at once, for whoever cannot wait. */
export function terminalStreams(): Streams {
  const stop = new AbortController();
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.on(signal, () => {
      if (stop.signal.aborted) process.exit(130);
      stop.abort(new Error(signal));
    });
  }
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    process.exit(brokenPipe);
  });
  return {
    out: (text) => void process.stdout.write(text),
    err: (text) => void process.stderr.write(text),
    input: readInput,
    isColoured: process.stdout.isTTY === true && !process.env.NO_COLOR,
    env: process.env,
    stop: stop.signal,
    exitCode: 0,
  };
}

async function readInput(): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of process.stdin) parts.push(part as Buffer);
  return Buffer.concat(parts).toString("utf8");
}
