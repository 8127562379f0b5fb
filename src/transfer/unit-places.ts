// Where the bytes of a unit's payload belong, as they come in one after the other.
import { assert } from "../base/assert.ts";
import { type LaneExtent, unitPayloadBytesMax } from "./lane.ts";
import type { FlatExtents } from "./lane-messages.ts";

export interface Place {
  readonly offset: number;
  readonly length: number;
}

export class UnitPlaces {
  readonly #extents: FlatExtents;
  #at = 0;
  /** Of the present extent. */
  #placed = 0;

  constructor(extents: FlatExtents) {
    this.#extents = extents;
  }

  /** The next place: `bytesMax` bytes, or less where an extent ends. */
  take(bytesMax: number): Place {
    const offset = this.#extents[this.#at];
    const length = this.#extents[this.#at + 1];
    assert(offset !== undefined && length !== undefined, "a unit has more payload than places");
    const place = { offset: offset + this.#placed, length: Math.min(bytesMax, length - this.#placed) };
    this.#placed += place.length;
    if (this.#placed === length) {
      this.#at += 2;
      this.#placed = 0;
    }
    return place;
  }
}

/** The length of a unit's payload; a unit that the plan could not have is a bug. */
export function unitPayloadBytes(unit: number, extents: readonly LaneExtent[]): number {
  let bytes = 0;
  let end = 0;
  for (const [offset, length] of extents) {
    const isSound =
      Number.isSafeInteger(offset) && length > 0 && Number.isSafeInteger(offset + length) && offset >= end;
    assert(isSound, `unit ${unit} has the extent ${offset}+${length} after ${end}`);
    bytes += length;
    end = offset + length;
  }
  assert(bytes > 0 && bytes <= unitPayloadBytesMax, `unit ${unit} of ${bytes} bytes`);
  return bytes;
}
