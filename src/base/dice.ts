// The one place where chance is read. Everything else gets a Dice, so that a seed replays a whole simulation.
import { randomBytes, randomUUID } from "node:crypto";

export interface Dice {
  /** Uniform in [0, 1). */
  random(): number;
  /** `bytes` random bytes as lower-case hexadecimal, two characters a byte. */
  hex(bytes: number): string;
  /** A random (version 4) UUID. */
  uuid(): string;
}

/** Unpredictable: fit for ids, nonces and tickets. */
export const systemDice: Dice = {
  random: () => Number(randomBytes(8).readBigUInt64BE() >> 11n) / 2 ** 53,
  hex: (bytes) => randomBytes(bytes).toString("hex"),
  uuid: () => randomUUID(),
};

/** The same seed gives the same throws, for ever. Predictable: for tests and the simulator only. */
export function seededDice(seed: number): Dice {
  const next = mulberry32(seed);
  const hex = (bytes: number) => {
    let text = "";
    for (let index = 0; index < bytes; index++) text += (next() >>> 24).toString(16).padStart(2, "0");
    return text;
  };
  return { random: () => next() / 2 ** 32, hex, uuid: () => uuidOf(hex(16)) };
}

/** Mulberry32: a small generator with a 32-bit state, good enough to scatter tests. */
function mulberry32(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return (mixed ^ (mixed >>> 14)) >>> 0;
  };
}

function uuidOf(hex: string): string {
  const variant = ((Number.parseInt(hex.slice(16, 17), 16) & 0x3) | 0x8).toString(16);
  return [hex.slice(0, 8), hex.slice(8, 12), `4${hex.slice(13, 16)}`, variant + hex.slice(17, 20), hex.slice(20)].join(
    "-",
  );
}
