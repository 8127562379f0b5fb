// The units of a plan, kept small: a volume that was written all over has millions of changed extents, and a plan of them is
// in memory at both sides for as long as it is carried out.
import { RunList } from "../base/run-list.ts";

/** Bytes [offset, offset + length) of the image: `1` is data to be sent, `0` a hole to be punched. */
export type PlannedExtent = readonly [offset: number, length: number, data: 0 | 1];

/** Ascending extents that are stored, verified and retried together. Units of one plan ascend as well. */
export type Unit = readonly PlannedExtent[];

/** Units by their index; 16 bytes an extent. What is handed out is made anew each time. */
export class UnitList implements Iterable<Unit> {
  readonly #extents = new RunList();
  /** By unit: the number of its first extent, and the bytes that travel. */
  readonly #units: { readonly first: number; readonly dataBytes: number }[] = [];

  constructor(units: Iterable<Unit> = []) {
    for (const unit of units) this.add(unit);
  }

  get length(): number {
    return this.#units.length;
  }

  /** Adds a unit after the last one. */
  add(unit: Unit): void {
    this.#units.push({ first: this.#extents.length, dataBytes: unitDataBytes(unit) });
    for (const [offset, length, data] of unit) this.#extents.push(offset, offset + length, data === 0);
  }

  /** Undefined past the last one. */
  at(index: number): Unit | undefined {
    const from = this.#units[index];
    if (from === undefined) return undefined;
    return Array.from({ length: this.extentsOf(index) }, (_, nth) => this.#extent(from.first + nth));
  }

  /** How many extents a unit has; 0 past the last one. */
  extentsOf(index: number): number {
    const from = this.#units[index];
    return from === undefined ? 0 : (this.#units[index + 1]?.first ?? this.#extents.length) - from.first;
  }

  /** The bytes of a unit that travel; 0 past the last one. */
  dataBytesOf(index: number): number {
    return this.#units[index]?.dataBytes ?? 0;
  }

  *[Symbol.iterator](): Generator<Unit> {
    for (let index = 0; index < this.length; index++) yield this.at(index) as Unit;
  }

  #extent(nth: number): PlannedExtent {
    const offset = this.#extents.startOf(nth);
    return [offset, this.#extents.endOf(nth) - offset, this.#extents.isHole(nth) ? 0 : 1];
  }
}

/** The places of a unit's bytes that travel, ascending. */
export function dataExtentsOf(unit: Unit): (readonly [offset: number, length: number])[] {
  return unit.flatMap(([offset, length, data]) => (data === 1 ? [[offset, length] as const] : []));
}

/** The bytes of a unit that travel: its data extents. */
export function unitDataBytes(unit: Unit): number {
  return bytesOf(unit, 1);
}

/** The bytes of a unit that become holes. */
export function unitPunchedBytes(unit: Unit): number {
  return bytesOf(unit, 0);
}

function bytesOf(unit: Unit, kind: 0 | 1): number {
  let bytes = 0;
  for (const [, length, data] of unit) if (data === kind) bytes += length;
  return bytes;
}
