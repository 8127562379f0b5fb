// Writing DER, the encoding of certificates: only what a certificate of ours is made of, and nothing is ever parsed.
import { assert } from "../base/assert.ts";

function encoded(tag: number, ...parts: readonly Uint8Array[]): Buffer {
  const content = Buffer.concat(parts);
  return Buffer.concat([Buffer.from([tag]), lengthOf(content.length), content]);
}

function lengthOf(length: number): Buffer {
  if (length < 0x80) return Buffer.from([length]);
  assert(length < 2 ** 16, "no part of a certificate is that long");
  return length < 0x100 ? Buffer.from([0x81, length]) : Buffer.from([0x82, length >> 8, length & 0xff]);
}

export const sequence = (...parts: readonly Uint8Array[]): Buffer => encoded(0x30, ...parts);
export const set = (...parts: readonly Uint8Array[]): Buffer => encoded(0x31, ...parts);
export const octets = (content: Uint8Array): Buffer => encoded(0x04, content);
export const utf8 = (text: string): Buffer => encoded(0x0c, Buffer.from(text, "utf8"));
export const isTrue = (): Buffer => encoded(0x01, Buffer.from([0xff]));

/** A bit string; `unused` bits at its end do not count. */
export const bits = (content: Uint8Array, unused = 0): Buffer => encoded(0x03, Buffer.from([unused]), content);

/** [number], constructed: a wrapper around what it holds. */
export const tagged = (number: number, ...parts: readonly Uint8Array[]): Buffer => encoded(0xa0 + number, ...parts);

/** [number], primitive: takes the place of the tag its content would have. */
export const implicit = (number: number, content: Uint8Array): Buffer => encoded(0x80 + number, content);

/** A non-negative integer from its big-endian bytes. */
export function integer(bytes: Uint8Array): Buffer {
  const first = bytes.findIndex((byte) => byte !== 0);
  const short = first === -1 ? Buffer.from([0]) : Buffer.from(bytes.subarray(first));
  const isNegative = (short[0] ?? 0) >= 0x80;
  return encoded(0x02, isNegative ? Buffer.concat([Buffer.from([0]), short]) : short);
}

export function objectId(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split(".").map(Number);
  return encoded(0x06, Buffer.from([first * 40 + second, ...rest.flatMap(base128)]));
}

function base128(value: number): number[] {
  const digits = [value & 0x7f];
  for (let left = value >>> 7; left > 0; left >>>= 7) digits.unshift((left & 0x7f) | 0x80);
  return digits;
}

/** UTCTime before 2050, GeneralizedTime from then on, as RFC 5280 wants it; to the second. */
export function time(ms: number): Buffer {
  const digits = new Date(ms).toISOString().replaceAll(/[-:T]|\.\d+Z/g, "");
  return digits < "2050" ? encoded(0x17, Buffer.from(`${digits.slice(2)}Z`)) : encoded(0x18, Buffer.from(`${digits}Z`));
}
