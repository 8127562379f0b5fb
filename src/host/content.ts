// What is on a device. Only one that is known to hold nothing may ever be formatted, so whatever cannot be told is told as such.
import * as fs from "node:fs/promises";
import { type Commands, failed, type Outcome, quickMsMax } from "./command.ts";
import { attempt, HostError } from "./host-error.ts";
import type { Device } from "./loop-devices.ts";

export type Content =
  /** Nothing that any tool knows, and nothing but zeros where whoever writes first begins. */
  | { readonly kind: "blank" }
  | { readonly kind: "fileSystem"; readonly type: string }
  /** Something else, or something that nobody knows; for people. */
  | { readonly kind: "other"; readonly what: string };

/** Throws when the device cannot be read. */
export async function contentOf(commands: Commands, device: Device): Promise<Content> {
  const words = ["blkid", "--probe", "--output", "export", device.path];
  const found = readProbe(words, await commands.attempt(words, quickMsMax));
  if (found !== undefined) return found;
  // The same status says "nothing known" and "not readable"; and what no tool knows may be somebody's data.
  const isBlank = await attempt(`read ${device.path}`, () => isBlankAtItsEdges(device));
  return isBlank ? { kind: "blank" } : { kind: "other", what: "data of an unknown kind" };
}

const nothingFound = 2;
const severalFound = 8;

/** What `blkid --probe` has found, `undefined` when it knows nothing of it. Throws for any other way it may have ended. */
export function readProbe(words: readonly string[], outcome: Outcome): Content | undefined {
  if (outcome.status === nothingFound) return undefined;
  if (outcome.status === severalFound) {
    return { kind: "other", what: "the marks of several file systems at once (wipefs shows them)" };
  }
  if (outcome.status !== 0) throw failed(words, outcome);
  const fields = new Map(
    outcome.stdout
      .split("\n")
      .map((line) => line.split("="))
      .map(([name = "", ...value]) => [name, value.join("=")] as const),
  );
  const type = fields.get("TYPE");
  if (type !== undefined && fields.get("USAGE") === "filesystem") return { kind: "fileSystem", type };
  const table = fields.get("PTTYPE");
  const what = type ?? (table === undefined ? "something that has no file system" : `a partition table (${table})`);
  return { kind: "other", what };
}

const edgeBytes = 2 ** 20;

async function isBlankAtItsEdges({ path, sizeBytes }: Device): Promise<boolean> {
  const length = Math.min(edgeBytes, sizeBytes);
  const zeros = Buffer.alloc(length);
  const device = await fs.open(path, "r");
  try {
    for (const position of [0, sizeBytes - length]) {
      const { bytesRead, buffer } = await device.read(Buffer.alloc(length), 0, length, position);
      if (bytesRead !== length) throw new HostError(`${path} ends before its ${sizeBytes} bytes`);
      if (!buffer.equals(zeros)) return false;
    }
    return true;
  } finally {
    await device.close();
  }
}
