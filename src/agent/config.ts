// The agent's configuration: from an untyped tree to a typed one, with every mistake named by field and, where the reader
// of the file can tell it, by line. All mistakes at once, for nobody likes to correct a file one error at a time.
import { isIPv6 } from "node:net";
import { resolve } from "node:path";
import type { LogLevel } from "../base/log.ts";
import { type Address, parseAddress, renderAddress } from "../domain/address.ts";
import { parseDuration } from "../domain/duration.ts";
import { describe, LongshoreError } from "../domain/errors.ts";
import { unitBytesMax } from "../domain/plan.ts";
import { parseQuantity } from "../domain/quantity.ts";
import { defaultLimits, type EngineLimits } from "../engine/engine-options.ts";
import { blockBytes } from "../storage/backend.ts";

export interface AgentConfig {
  readonly clusterName: string;
  readonly node: string;
  readonly listen: Address;
  readonly laneListen: Address;
  /** For the `kernel` transport, which is served only where this is given. */
  readonly kernelLaneListen?: Address;
  /** The host other agents reach this one at; the ports are those listened at. */
  readonly advertiseAddress: string;
  /** host:port of agents of the same cluster, from which the others are learnt. */
  readonly seeds: readonly string[];
  readonly dataDir: string;
  readonly backend: "auto" | "reflink" | "copy";
  readonly tls: { readonly certFile: string; readonly keyFile: string; readonly caFile: string };
  readonly limits: EngineLimits;
  readonly logLevel: LogLevel;
}

/** Where in the file a field stands; field names from the outermost. */
export type LineOf = (path: readonly string[]) => number | undefined;

type Parse<T> = (value: unknown) => T;
type Fields = Readonly<Record<string, unknown>>;

/**
 * Relative paths are taken from `folder`. Throws `BadRequest` that names `file` and has a line for each mistake; unknown
 * fields are mistakes, so that a misspelt limit is not silently the default.
 */
export function parseAgentConfig(
  tree: unknown,
  { file, folder, lineOf = () => undefined }: { file: string; folder: string; lineOf?: LineOf },
): AgentConfig {
  const reader = new Reader(lineOf);
  const config = readConfig(reader.section(tree, [], allFields), reader, folder);
  if (reader.problems.length === 0) return config;
  const lines = reader.problems.map((problem) => `\n  ${problem}`).join("");
  throw new LongshoreError("BadRequest", `${file} needs correction:${lines}`);
}

const allFields = {
  clusterName: "the name of this storage cluster, for people: a-z, 0-9 and -",
  node: "the name of this node",
  listen: "host:port of the API, such as 0.0.0.0:7420",
  laneListen: "host:port for the data of migrations, such as 0.0.0.0:7421",
  kernelLaneListen: "host:port for data over plain TCP, such as 10.0.0.1:7422; only on trusted networks",
  advertiseAddress: "the IP address or host name at which other agents reach this one",
  seeds: "a list of host:port of agents of this cluster, from which the others are learnt",
  dataDir: "the folder for volumes and state",
  backend: "auto, reflink or copy",
  tls: "certFile, keyFile and caFile",
  limits: Object.keys(limitParsers()).join(", "),
  logLevel: "trace, debug, info, warn or error",
} as const;

function readConfig(fields: Fields, reader: Reader, folder: string): AgentConfig {
  const path = (value: unknown) => resolve(folder, nonEmpty(value));
  const field = <T>(name: keyof typeof allFields, parse: Parse<T>, fallback?: T) =>
    reader.field(fields, [name], parse, { says: allFields[name], fallback });
  const listen = field("listen", listenAddress, { host: "0.0.0.0", port: 7420 });
  const tls = reader.section(fields.tls, ["tls"], { certFile: "", keyFile: "", caFile: "" });
  const file = (name: "certFile" | "keyFile" | "caFile") =>
    reader.field(tls, ["tls", name], path, {
      says: "the path of a PEM file; longshore pki makes them",
      fallback: undefined,
    });
  return {
    clusterName: field("clusterName", clusterName),
    node: field("node", nonEmpty),
    listen,
    laneListen: field("laneListen", listenAddress, { host: "0.0.0.0", port: 7421 }),
    ...(fields.kernelLaneListen != null && { kernelLaneListen: field("kernelLaneListen", listenAddress) }),
    advertiseAddress: field("advertiseAddress", hostName, isWildcard(listen?.host ?? "") ? undefined : listen.host),
    seeds: field("seeds", listOf(seed), []),
    dataDir: field("dataDir", path),
    backend: field("backend", oneOf(["auto", "reflink", "copy"]), "auto"),
    tls: { certFile: file("certFile"), keyFile: file("keyFile"), caFile: file("caFile") },
    limits: readLimits(reader, fields.limits),
    logLevel: field("logLevel", oneOf(["trace", "debug", "info", "warn", "error"]), "info"),
  };
}

/** Named as in the file; durations as `30s`, sizes as `64Mi`. */
function limitParsers() {
  return {
    jobsMax: ["jobsMax", wholeNumber],
    jobsPerLocationMax: ["jobsPerLocationMax", wholeNumber],
    lanesPerJob: ["lanesPerJob", wholeNumber],
    unit: ["unitBytes", unitSize],
    window: ["windowBytes", quantity],
    lease: ["leaseMs", duration],
    attemptsMax: ["attemptsMax", wholeNumber],
    retryDelay: ["retryDelayMs", duration],
    retryDelayMax: ["retryDelayMsMax", duration],
    deadline: ["deadlineMs", duration],
    reserve: ["reserveBytes", quantityOrNone],
    stagingAge: ["stagingAgeMs", duration],
    cloneWait: ["cloneWaitMs", duration],
    probeInterval: ["probeIntervalMs", duration],
    memberInterval: ["memberIntervalMs", duration],
    freeze: ["freezeMs", duration],
    jobHistory: ["jobHistoryMs", duration],
  } as const satisfies Record<string, readonly [keyof EngineLimits, Parse<number>]>;
}

function readLimits(reader: Reader, tree: unknown): EngineLimits {
  const parsers = limitParsers();
  const says = {
    wholeNumber: "a whole number from 1",
    duration: "a duration such as 30s",
    quantity: "a size such as 64Mi",
  };
  const fields = reader.section(tree ?? {}, ["limits"], parsers);
  const limits: Record<string, number> = {};
  for (const [name, [limit, parse]] of Object.entries(parsers)) {
    const text = parse === wholeNumber ? says.wholeNumber : parse === duration ? says.duration : says.quantity;
    limits[limit] = reader.field(fields, ["limits", name], parse, { says: text, fallback: defaultLimits[limit] });
  }
  return { ...defaultLimits, ...limits };
}

class Reader {
  readonly problems: string[] = [];
  readonly #lineOf: LineOf;

  constructor(lineOf: LineOf) {
    this.#lineOf = lineOf;
  }

  /** The fields of a section; those it should not have become problems. */
  section(tree: unknown, path: readonly string[], known: object): Fields {
    if (tree === undefined) return {};
    if (typeof tree !== "object" || tree === null || Array.isArray(tree)) {
      this.#problem(path, `has to hold fields: ${Object.keys(known).join(", ")}`);
      return {};
    }
    for (const name of Object.keys(tree)) {
      if (!Object.hasOwn(known, name))
        this.#problem([...path, name], `is not a field; use ${Object.keys(known).join(", ")}`);
    }
    return tree as Fields;
  }

  /** A value that fails to parse becomes a problem; what is returned then is never used. */
  field<T>(
    fields: Fields,
    path: readonly string[],
    parse: Parse<T>,
    { says, fallback }: { says: string; fallback: T | undefined },
  ): T {
    const value = fields[String(path.at(-1))];
    if (value === undefined || value === null) {
      if (fallback === undefined) this.#problem(path, `is missing: ${says}`);
      return fallback as T;
    }
    try {
      return parse(value);
    } catch (error) {
      this.#problem(path, `is ${JSON.stringify(value)}, but has to be ${says} (${describe(error)})`);
      return fallback as T;
    }
  }

  #problem(path: readonly string[], text: string): void {
    const line = this.#lineOf(path);
    const name = path.length === 0 ? "the file" : path.join(".");
    this.problems.push(line === undefined ? `${name} ${text}` : `line ${line}: ${name} ${text}`);
  }
}

function wrong(text: string): LongshoreError {
  return new LongshoreError("BadRequest", text);
}

function nonEmpty(value: unknown): string {
  if (typeof value !== "string" || value.trim() === "") throw wrong("it is no text");
  return value;
}

function clusterName(value: unknown): string {
  if (/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/.test(nonEmpty(value))) return nonEmpty(value);
  throw wrong("up to 63 characters, not - at the ends");
}

function hostName(value: unknown): string {
  const text = nonEmpty(value);
  if (/[\s/[\]]|:\d+$/.test(text) && !isIPv6(text)) throw wrong("a host alone, without port or brackets");
  if (isWildcard(text)) throw wrong("nobody can connect to a wildcard address");
  return text;
}

function listenAddress(value: unknown): Address {
  return parseAddress(nonEmpty(value), { portMin: 0 });
}

function seed(value: unknown): string {
  return renderAddress(parseAddress(nonEmpty(value)));
}

function listOf<T>(parse: Parse<T>): Parse<readonly T[]> {
  return (value) => {
    if (!Array.isArray(value)) throw wrong("it is no list");
    return value.map(parse);
  };
}

function isWildcard(host: string): boolean {
  return host === "0.0.0.0" || host === "::";
}

function oneOf<T extends string>(words: readonly T[]): Parse<T> {
  return (value) => {
    const found = words.find((word) => word === value);
    if (found === undefined) throw wrong(`one of ${words.join(", ")}`);
    return found;
  };
}

function wholeNumber(value: unknown): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= 1_000_000) return value;
  throw wrong("it is not within 1 to 1000000");
}

function duration(value: unknown): number {
  const ms = parseDuration(nonEmpty(value));
  if (ms <= 0) throw wrong("it has to be longer than nothing");
  return ms;
}

function quantity(value: unknown): number {
  const bytes = quantityOrNone(value);
  if (bytes === 0) throw wrong("it has to be more than nothing");
  return bytes;
}

/** What one message about a unit can hold is bounded, and blocks are not divided. */
function unitSize(value: unknown): number {
  const bytes = quantity(value);
  if (bytes % blockBytes !== 0 || bytes > unitBytesMax) throw wrong("a multiple of 4Ki, up to 8Mi");
  return bytes;
}

function quantityOrNone(value: unknown): number {
  return parseQuantity(typeof value === "number" ? String(value) : nonEmpty(value));
}
