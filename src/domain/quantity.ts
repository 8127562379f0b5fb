// Amounts of bytes as Kubernetes writes them (`100Mi`, `1.5G`).
import { LongshoreError } from "./errors.ts";

const factors: Readonly<Record<string, number>> = {
  "": 1,
  k: 1e3,
  M: 1e6,
  G: 1e9,
  T: 1e12,
  P: 1e15,
  Ki: 2 ** 10,
  Mi: 2 ** 20,
  Gi: 2 ** 30,
  Ti: 2 ** 40,
  Pi: 2 ** 50,
};

/** The agents' counters end here, a few pebibytes. */
const bytesMax = 2 ** 52;

/** Bytes, rounded up, at most 2^52. Throws `BadRequest` for what is no quantity or more than that. */
export function parseQuantity(text: string): number {
  const [, amount, suffix] = /^(\d+(?:\.\d+)?)(k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$/.exec(text) ?? [];
  if (amount === undefined) {
    throw new LongshoreError("BadRequest", `not a quantity of bytes: "${text}"; write it as in 100Mi or 1.5G`);
  }
  const bytes = Math.ceil(Number(amount) * (factors[suffix ?? ""] ?? 1));
  if (bytes > bytesMax) throw new LongshoreError("BadRequest", `${text} is more than 4Pi, the most there can be`);
  return bytes;
}

/** For people: at most three significant digits, binary units. */
export function renderBytes(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  const power = Math.min(units.length - 1, bytes < 1 ? 0 : Math.floor(Math.log2(bytes) / 10));
  const amount = bytes / 2 ** (10 * power);
  return `${amount >= 100 || power === 0 ? Math.round(amount) : Number(amount.toPrecision(3))} ${units[power]}`;
}
