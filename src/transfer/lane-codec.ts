// The bytes of a lane, the same for every transport: the preamble of the one who dials, the status that answers it, and
// frames of payload. Pure: nothing here reads a socket. Numbers are big-endian.
//
//   preamble  "LSHLANE" version(u8) ticket(32 bytes)
//   status    "LSHS" code(u8) version(u8) reasonBytes(u16) reason(UTF-8)
//   frame     "LSHF" unit(u32) offset(u64) length(u32) crc32 of these 20 bytes(u32), then the payload
//   end       "LSHE" and zeros in the form of a frame's header; without it a stream was cut short
//
// The status is said once more, accepting, when all that came before the end is written.
import { crc32 } from "node:zlib";
import { assert } from "../base/assert.ts";
import { type ErrorCode, LongshoreError } from "../domain/errors.ts";
import type { Frame } from "./lane.ts";

export const laneVersion = 1;
export const ticketBytes = 32;
/** No frame is longer; it equals the greatest unit of a plan. */
export const frameBytesMax = 8 * 1024 * 1024;
export const frameHeaderBytes = 24;

const preambleMagic = Buffer.from("LSHLANE");
export const preambleBytes = preambleMagic.length + 1 + ticketBytes;
const statusMagic = Buffer.from("LSHS");
const statusHeaderBytes = 8;
const reasonBytesMax = 1024;
const frameMagic = 0x4c534846;
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

// ---- frames --------------------------------------------------------------------------------------------------------

/** Writes the frame's header into `into` at `at`, where {@link frameHeaderBytes} must fit. */
export function writeFrameHeader(frame: Frame, into: Buffer, at: number): void {
  assertFrame(frame);
  writeHeader(frameMagic, frame, into, at);
}

/** What follows the last frame. */
export function renderEnd(): Buffer {
  const end = Buffer.alloc(frameHeaderBytes);
  writeHeader(endMagic, { unit: 0, offset: 0, length: 0 }, end, 0);
  return end;
}

function writeHeader(magic: number, { unit, offset, length }: Frame, into: Buffer, at: number): void {
  into.writeUInt32BE(magic, at);
  into.writeUInt32BE(unit, at + 4);
  into.writeUInt32BE(Math.floor(offset / 2 ** 32), at + 8);
  into.writeUInt32BE(offset % 2 ** 32, at + 12);
  into.writeUInt32BE(length, at + 16);
  into.writeUInt32BE(crc32(into.subarray(at, at + 20)), at + 20);
}

function assertFrame({ unit, offset, length }: Frame): void {
  assert(Number.isInteger(unit) && unit >= 0 && unit < 2 ** 32, `frame of unit ${unit}`);
  assert(Number.isInteger(length) && length > 0 && length <= frameBytesMax, `frame of ${length} bytes`);
  assert(offset >= 0 && Number.isSafeInteger(offset) && Number.isSafeInteger(offset + length), `frame at ${offset}`);
}

const endHeader = renderEnd();

/** `undefined` for the end. Throws `BadRequest` for anything that {@link writeFrameHeader} would not have written. */
export function parseFrameHeader(header: Buffer): Frame | undefined {
  assert(header.length === frameHeaderBytes, "a frame header of the wrong length");
  if (header.equals(endHeader)) return undefined;
  const refuse = (what: string) => new LongshoreError("BadRequest", `lane: ${what}`);
  if (header.readUInt32BE(0) !== frameMagic) throw refuse("no frame begins where one should");
  if (header.readUInt32BE(20) !== crc32(header.subarray(0, 20))) throw refuse("a frame's header is damaged");
  const frame = {
    unit: header.readUInt32BE(4),
    offset: header.readUInt32BE(8) * 2 ** 32 + header.readUInt32BE(12),
    length: header.readUInt32BE(16),
  };
  const isSound =
    frame.length > 0 && frame.length <= frameBytesMax && Number.isSafeInteger(frame.offset + frame.length);
  if (!isSound) throw refuse(`a frame announces ${frame.length} bytes at ${frame.offset}`);
  return frame;
}

/** What comes out of a stream: that a frame begins, then its payload in pieces, in order; after all frames the end. */
export type Piece =
  | { readonly kind: "end" }
  | { readonly kind: "frame"; readonly frame: Frame }
  | {
      readonly kind: "payload";
      readonly frame: Frame;
      /** Where in the image this piece belongs. */
      readonly offset: number;
      /** A view of what was fed, never a copy. */
      readonly data: Buffer;
      /** Whether the frame ends with this piece. */
      readonly isLast: boolean;
    };

/** Takes frames apart as their bytes arrive, cut anywhere. Holds what was fed and not yet asked for, no more. */
export class FrameDecoder {
  readonly #header = Buffer.alloc(frameHeaderBytes);
  #headerFilled = 0;
  #frame: Frame | undefined;
  #received = 0;
  #hasEnded = false;
  #fed: Buffer[] = [];

  feed(chunk: Buffer): void {
    if (chunk.length > 0) this.#fed.push(chunk);
  }

  /** Whether the end was among what {@link FrameDecoder.next} gave. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** The next piece, `undefined` when more must be fed first. Throws `BadRequest`, after which nothing more is to be asked. */
  next(): Piece | undefined {
    if (this.#hasEnded && this.#fed.length > 0) throw new LongshoreError("BadRequest", "lane: bytes follow the end");
    return this.#frame === undefined ? this.#nextFrame() : this.#nextPayload(this.#frame);
  }

  #nextFrame(): Piece | undefined {
    while (this.#headerFilled < frameHeaderBytes) {
      const part = this.#shift(frameHeaderBytes - this.#headerFilled);
      if (part === undefined) return undefined;
      this.#headerFilled += part.copy(this.#header, this.#headerFilled);
    }
    this.#headerFilled = 0;
    this.#received = 0;
    this.#frame = parseFrameHeader(this.#header);
    if (this.#frame !== undefined) return { kind: "frame", frame: this.#frame };
    this.#hasEnded = true;
    return { kind: "end" };
  }

  #nextPayload(frame: Frame): Piece | undefined {
    const data = this.#shift(frame.length - this.#received);
    if (data === undefined) return undefined;
    const offset = frame.offset + this.#received;
    this.#received += data.length;
    const isLast = this.#received === frame.length;
    if (isLast) this.#frame = undefined;
    return { kind: "payload", frame, offset, data, isLast };
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
