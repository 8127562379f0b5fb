// The bytes of a lane, the same for every transport: the preamble of the one who dials, the status that answers it, and
// units of payload. Pure: nothing here reads a socket. Numbers are big-endian.
//
//   preamble  "LSHLANE" version(u8) ticket(32 bytes)
//   status    "LSHS" code(u8) version(u8) reasonBytes(u16) reason(UTF-8)
//   unit      "LSHU" unit(u32) payload bytes(u32) crc32 of these 12 bytes(u32), then the payload
//   end       "LSHE" and zeros in the form of a unit's header; without it a stream was cut short
//
// Where a unit's payload belongs is not said: both sides have the plan. How long it is, is, so that a target whose plan
// says otherwise can tell before it takes any of it.
//
// The status is said once more, accepting, when all that came before the end is written.
import { crc32 } from "node:zlib";
import { assert } from "../base/assert.ts";
import { type ErrorCode, LongshoreError } from "../domain/errors.ts";
import { unitPayloadBytesMax } from "./lane.ts";

/** Version 1 carried frames, each with its place in the image. */
export const laneVersion = 2;
export const ticketBytes = 32;
export const unitHeaderBytes = 16;

const preambleMagic = Buffer.from("LSHLANE");
export const preambleBytes = preambleMagic.length + 1 + ticketBytes;
const statusMagic = Buffer.from("LSHS");
const statusHeaderBytes = 8;
const reasonBytesMax = 1024;
const unitMagic = 0x4c534855;
const endMagic = 0x4c534845;

// ---- preamble ------------------------------------------------------------------------------------------------------

/** `ticket` is 64 hex digits. */
export function renderPreamble(ticket: string): Buffer {
  return Buffer.concat([preambleMagic, Buffer.from([laneVersion]), Buffer.from(ticket, "hex")]);
}

export function isTicket(text: string): boolean {
  return /^[0-9a-f]{64}$/.test(text);
}

/** The ticket in hex, of exactly {@link preambleBytes} bytes. Throws `BadRequest` for another protocol or version. */
export function parsePreamble(bytes: Buffer): string {
  assert(bytes.length === preambleBytes, "a preamble of the wrong length");
  if (!bytes.subarray(0, preambleMagic.length).equals(preambleMagic)) {
    throw new LongshoreError("BadRequest", "lane: what was received is not a Longshore lane");
  }
  const version = bytes[preambleMagic.length];
  if (version !== laneVersion) {
    throw new LongshoreError("BadRequest", `lane: version ${version} is asked for, ${laneVersion} is spoken here`);
  }
  return bytes.toString("hex", preambleMagic.length + 1);
}

// ---- status --------------------------------------------------------------------------------------------------------

/** The refusals there are, in the order of their numbers on the wire, which start at 1; 0 is acceptance. */
const refusals: readonly ErrorCode[] = ["TicketRefused", "BadRequest", "Unauthenticated"];

/** The error when the other side may be told of it, `undefined` for all others. */
export function refusalOf(error: unknown): LongshoreError | undefined {
  return error instanceof LongshoreError && refusals.includes(error.code) ? error : undefined;
}

/** `undefined` accepts the lane. */
export function renderStatus(refusal?: LongshoreError): Buffer {
  const reason = Buffer.from(refusal?.message ?? "").subarray(0, reasonBytesMax);
  const header = Buffer.alloc(statusHeaderBytes);
  statusMagic.copy(header);
  const number = refusal === undefined ? 0 : refusals.indexOf(refusal.code) + 1;
  assert(refusal === undefined || number > 0, `a lane refused with ${refusal?.code}`);
  header.writeUInt8(number, 4);
  header[5] = laneVersion;
  header.writeUInt16BE(reason.length, 6);
  return Buffer.concat([header, reason]);
}

export type Status = { readonly kind: "accepted" } | { readonly kind: "refused"; readonly error: LongshoreError };

/** `undefined` while more bytes are needed. Throws `BadRequest` for what is not a status, or has bytes after it. */
export function parseStatus(bytes: Buffer): Status | undefined {
  const begin = bytes.subarray(0, statusMagic.length);
  if (!begin.equals(statusMagic.subarray(0, begin.length))) {
    throw new LongshoreError("BadRequest", "lane: the other side does not speak the lane protocol");
  }
  if (bytes.length < statusHeaderBytes) return undefined;
  const end = statusHeaderBytes + bytes.readUInt16BE(6);
  if (end > statusHeaderBytes + reasonBytesMax || bytes.length > end) {
    throw new LongshoreError("BadRequest", "lane: the other side's answer is malformed");
  }
  if (bytes.length < end) return undefined;
  const number = bytes.readUInt8(4);
  if (number === 0) return { kind: "accepted" };
  const reason = bytes.toString("utf8", statusHeaderBytes);
  return { kind: "refused", error: new LongshoreError(refusals[number - 1] ?? "TicketRefused", reason) };
}

// ---- units ---------------------------------------------------------------------------------------------------------

/** What is said of a unit before its payload. */
export interface UnitHeader {
  readonly unit: number;
  readonly payloadBytes: number;
}

/** Writes a unit's header into `into` at `at`, where {@link unitHeaderBytes} must fit. */
export function writeUnitHeader({ unit, payloadBytes }: UnitHeader, into: Buffer, at: number): void {
  assert(Number.isInteger(unit) && unit >= 0 && unit < 2 ** 32, `a lane's unit ${unit}`);
  assert(Number.isInteger(payloadBytes) && isPayload(payloadBytes), `unit ${unit} of ${payloadBytes} bytes`);
  writeHeader(unitMagic, { unit, payloadBytes }, into, at);
}

/** What follows the last unit. */
export function renderEnd(): Buffer {
  const end = Buffer.alloc(unitHeaderBytes);
  writeHeader(endMagic, { unit: 0, payloadBytes: 0 }, end, 0);
  return end;
}

function writeHeader(magic: number, { unit, payloadBytes }: UnitHeader, into: Buffer, at: number): void {
  into.writeUInt32BE(magic, at);
  into.writeUInt32BE(unit, at + 4);
  into.writeUInt32BE(payloadBytes, at + 8);
  into.writeUInt32BE(crc32(into.subarray(at, at + 12)), at + 12);
}

function isPayload(bytes: number): boolean {
  return bytes > 0 && bytes <= unitPayloadBytesMax;
}

const endHeader = renderEnd();

/** `undefined` for the end. Throws `BadRequest` for anything that {@link writeUnitHeader} would not have written. */
export function parseUnitHeader(header: Buffer): UnitHeader | undefined {
  assert(header.length === unitHeaderBytes, "a unit header of the wrong length");
  if (header.equals(endHeader)) return undefined;
  const refuse = (what: string) => new LongshoreError("BadRequest", `lane: ${what}`);
  if (header.readUInt32BE(0) !== unitMagic) throw refuse("no unit begins where one should");
  if (header.readUInt32BE(12) !== crc32(header.subarray(0, 12))) throw refuse("a unit's header is damaged");
  const unit = header.readUInt32BE(4);
  const payloadBytes = header.readUInt32BE(8);
  if (!isPayload(payloadBytes)) throw refuse(`unit ${unit} announces ${payloadBytes} bytes`);
  return { unit, payloadBytes };
}

/** What comes out of a stream: that a unit begins, then its payload in pieces, in order; after all units the end. */
export type Piece =
  | { readonly kind: "end" }
  | { readonly kind: "unit"; readonly header: UnitHeader }
  | {
      readonly kind: "payload";
      /** A view of what was fed, never a copy. */
      readonly data: Buffer;
      /** Whether the unit's payload ends with this piece. */
      readonly isLast: boolean;
    };

/** Takes units apart as their bytes arrive, cut anywhere. Holds what was fed and not yet asked for, no more. */
export class UnitDecoder {
  readonly #header = Buffer.alloc(unitHeaderBytes);
  #headerFilled = 0;
  #payloadLeft = 0;
  #hasEnded = false;
  #fed: Buffer[] = [];

  feed(chunk: Buffer): void {
    if (chunk.length > 0) this.#fed.push(chunk);
  }

  /** Whether the end was among what {@link UnitDecoder.next} gave. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** The next piece, `undefined` when more must be fed first. Throws `BadRequest`, after which nothing more is to be asked. */
  next(): Piece | undefined {
    if (this.#hasEnded && this.#fed.length > 0) throw new LongshoreError("BadRequest", "lane: bytes follow the end");
    return this.#payloadLeft === 0 ? this.#nextUnit() : this.#nextPayload();
  }

  #nextUnit(): Piece | undefined {
    while (this.#headerFilled < unitHeaderBytes) {
      const part = this.#shift(unitHeaderBytes - this.#headerFilled);
      if (part === undefined) return undefined;
      this.#headerFilled += part.copy(this.#header, this.#headerFilled);
    }
    this.#headerFilled = 0;
    const header = parseUnitHeader(this.#header);
    if (header !== undefined) {
      this.#payloadLeft = header.payloadBytes;
      return { kind: "unit", header };
    }
    this.#hasEnded = true;
    return { kind: "end" };
  }

  #nextPayload(): Piece | undefined {
    const data = this.#shift(this.#payloadLeft);
    if (data === undefined) return undefined;
    this.#payloadLeft -= data.length;
    return { kind: "payload", data, isLast: this.#payloadLeft === 0 };
  }

  /** At most `bytesMax` bytes of the oldest chunk. */
  #shift(bytesMax: number): Buffer | undefined {
    const [chunk] = this.#fed;
    if (chunk === undefined) return undefined;
    if (chunk.length <= bytesMax) this.#fed.shift();
    else this.#fed[0] = chunk.subarray(bytesMax);
    return chunk.subarray(0, bytesMax);
  }
}
