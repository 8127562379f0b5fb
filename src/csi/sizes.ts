// How large a volume becomes: what is asked for, in whole blocks, and no less than what it is made of or its file system needs.
import { renderBytes } from "../domain/quantity.ts";
import { leastFileSystemBytes } from "../host/file-systems.ts";
import type { CapacityRange } from "./csi-messages.ts";
import { CsiError } from "./status.ts";
import type { VolumeUse } from "./volume-capabilities.ts";

/** Volumes consist of whole blocks of this size. */
export const blockBytes = 4096;

/** The largest volume that agents keep. */
export const sizeBytesMax = 2 ** 50;

/** Where nothing is asked for. */
const usualBytes = 2 ** 30;

/** The smallest volume that is of any use so; a clone is not held to it, for it is never formatted. */
export function leastBytes(use: VolumeUse): number {
  return use.mode === "Block" ? blockBytes : leastFileSystemBytes[use.fileSystem];
}

/** What a size is chosen above, and where nothing is asked for. */
export interface SizeFloor {
  readonly leastBytes: number;
  readonly usualBytes: number;
  /** Why it cannot be less, for people. */
  readonly reason: string;
}

/** The floor of an empty volume that is to be used so. */
export function emptyFloor(use: VolumeUse): SizeFloor {
  const reason = use.mode === "Block" ? "one block" : `the least for ${use.fileSystem}`;
  return { leastBytes: leastBytes(use), usualBytes, reason };
}

/** The floor of a volume that is made of one of this size. */
export function sourceFloor(sizeBytes: number): SizeFloor {
  return { leastBytes: sizeBytes, usualBytes: sizeBytes, reason: "the size of its source" };
}

/**
 * The smallest size that serves: what is required, in whole blocks, and no less than the floor. Throws INVALID_ARGUMENT for a
 * range that contradicts itself, and OUT_OF_RANGE when its limit is below that size, or the size above what agents keep.
 */
export function chooseSize(range: CapacityRange | null, floor: SizeFloor): number {
  const { requiredBytes, limitBytes } = checkedRange(range);
  const usual = limitBytes === 0 ? floor.usualBytes : Math.min(floor.usualBytes, floorToBlock(limitBytes));
  const size = ceilToBlock(Math.max(floor.leastBytes, requiredBytes === 0 ? usual : requiredBytes));
  if (limitBytes !== 0 && size > limitBytes) {
    const isTooFine = requiredBytes >= floor.leastBytes;
    const why = isTooFine ? `${requiredBytes} in whole blocks of ${blockBytes}` : floor.reason;
    throw outOfRange(`the limit of ${limitBytes} bytes is too low: ${size} are needed (${why})`);
  }
  if (size <= sizeBytesMax) return size;
  throw outOfRange(`${size} bytes are more than the ${renderBytes(sizeBytesMax)} that a volume may have`);
}

/** The size that an expansion leads to; a volume that is large enough keeps its own. Throws like {@link chooseSize}. */
export function chooseExpandedSize(range: CapacityRange | null, presentBytes: number): number {
  const { requiredBytes, limitBytes } = checkedRange(range);
  if (requiredBytes === 0 && limitBytes === 0) {
    throw invalid("capacity_range is missing: say in required_bytes how large the volume is to be");
  }
  return chooseSize(range, { ...sourceFloor(presentBytes), reason: "the volume has them already, and only grows" });
}

/** Whether a volume of this size is what the range asks for; a range that says nothing takes any. */
export function isWithin(range: CapacityRange | null, sizeBytes: number): boolean {
  const { requiredBytes, limitBytes } = checkedRange(range);
  return sizeBytes >= requiredBytes && (limitBytes === 0 || sizeBytes <= limitBytes);
}

function checkedRange(range: CapacityRange | null): CapacityRange {
  const { requiredBytes, limitBytes } = range ?? { requiredBytes: 0, limitBytes: 0 };
  if (requiredBytes < 0 || limitBytes < 0) {
    throw invalid(`a size cannot be negative: required ${requiredBytes}, limit ${limitBytes}`);
  }
  if (limitBytes !== 0 && limitBytes < requiredBytes) {
    throw invalid(`the limit of ${limitBytes} bytes is below the ${requiredBytes} that are required`);
  }
  return { requiredBytes, limitBytes };
}

export function floorToBlock(bytes: number): number {
  return Math.floor(bytes / blockBytes) * blockBytes;
}

function ceilToBlock(bytes: number): number {
  return Math.ceil(bytes / blockBytes) * blockBytes;
}

function invalid(message: string): CsiError {
  return new CsiError("INVALID_ARGUMENT", message);
}

function outOfRange(message: string): CsiError {
  return new CsiError("OUT_OF_RANGE", message);
}
