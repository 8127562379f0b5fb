// Structured logs: one JSON object a line, on standard output. A line is a fixed message and fields, never prose made of values.
import pino from "pino";

export type Log = pino.Logger;

export type LogLevel = "trace" | "debug" | "info" | "warn" | "error" | "fatal" | "silent";

/** Where lines go; standard output unless given. */
interface LineSink {
  write(line: string): void;
}

/** A log whose lines carry `name`. What is a secret by its field's name is replaced, wherever a caller put it by mistake. */
export function openLog({ name, level }: { readonly name: string; readonly level: LogLevel }, sink?: LineSink): Log {
  const options: pino.LoggerOptions = {
    name,
    level,
    base: {},
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: { level: (label) => ({ level: label }) },
    redact: [
      "*.token",
      "*.ticket",
      "*.privateKey",
      "*.authorization",
      "token",
      "ticket",
      "privateKey",
      "authorization",
    ],
  };
  return sink === undefined ? pino(options) : pino(options, sink);
}

/** Says nothing; for tests and for tools whose output is for people. */
export const silentLog: Log = pino({ level: "silent" });
