// A job's plan: the changed extents of a point, merged and cut into units, the grain of retry, resume and progress.
// Both sides compute the digest with the same code: the source when it plans, the target page by page as it arrives.
import { createHash } from "node:crypto";
import { assert } from "../base/assert.ts";
import { LongshoreError } from "./errors.ts";
import { type PlannedExtent, type Unit, UnitList, unitDataBytes, unitPunchedBytes } from "./unit-list.ts";

export interface Plan {
  readonly units: UnitList;
  readonly bytesData: number;
  readonly bytesPunched: number;
  /** SHA-256 in hex over base, target point, size and every unit, as {@link openPlanDigest} computes it. */
  readonly digest: string;
}

/** What a plan is about, before any of its units. `baseId` is null when everything allocated is sent. */
export interface PlanIdentity {
  readonly baseId: string | null;
  readonly toId: string;
  readonly sizeBytes: number;
}

/** Bounds of one unit: memory and repeated work are limited by the bytes, and messages by the extents. */
export interface UnitLimits {
  readonly unitBytesMax: number;
  readonly unitExtentsMax: number;
}

/** Extents begin and end on multiples of this many bytes. */
const blockBytes = 4096;
export const unitBytesMax = 8 * 1024 * 1024;
export const unitExtentsMax = 2048;
const defaultLimits: UnitLimits = { unitBytesMax, unitExtentsMax };

interface InputExtent {
  readonly offset: number;
  readonly length: number;
  readonly kind: "data" | "hole";
}

/**
 * Cuts changed extents (ascending, aligned, within the size: anything else is a bug) into units. Extents of one kind
 * that touch are merged first, so the same difference gives the same plan however it was found. Holes cost no bytes
 * and are never cut.
 */
export function planUnits(
  input: PlanIdentity & { readonly extents: Iterable<InputExtent> },
  limits: UnitLimits = defaultLimits,
): Plan {
  assert(limits.unitExtentsMax >= 1, "a unit of no extents");
  assert(limits.unitBytesMax >= blockBytes && limits.unitBytesMax % blockBytes === 0, "a unit of no whole blocks");
  const units = cutIntoUnits(mergedExtents(input.extents, input.sizeBytes), limits);
  const digest = openPlanDigest(input, limits);
  digest.add(units);
  const { bytesData, bytesPunched, digest: hex } = digest.finish();
  return { units, bytesData, bytesPunched, digest: hex };
}

function* mergedExtents(extents: Iterable<InputExtent>, sizeBytes: number): Generator<PlannedExtent> {
  let last: PlannedExtent | undefined;
  let end = 0;
  for (const { offset, length, kind } of extents) {
    assert(isPlaced(offset, length, end, sizeBytes), `extent ${offset}+${length} after ${end} of ${sizeBytes} bytes`);
    const data = kind === "data" ? 1 : 0;
    if (last !== undefined && end === offset && last[2] === data) {
      last = [last[0], last[1] + length, data];
    } else {
      if (last !== undefined) yield last;
      last = [offset, length, data];
    }
    end = offset + length;
  }
  if (last !== undefined) yield last;
}

/** Whether the extent is aligned, not empty, and lies in [from, sizeBytes). */
function isPlaced(offset: number, length: number, from: number, sizeBytes: number): boolean {
  const isAligned = Number.isSafeInteger(offset) && offset % blockBytes === 0 && length % blockBytes === 0;
  return isAligned && length > 0 && offset >= from && offset + length <= sizeBytes;
}

function cutIntoUnits(extents: Iterable<PlannedExtent>, limits: UnitLimits): UnitList {
  const units = new UnitList();
  let unit: PlannedExtent[] = [];
  let roomBytes = limits.unitBytesMax;
  const seal = () => {
    units.add(unit);
    unit = [];
    roomBytes = limits.unitBytesMax;
  };
  for (const [start, length, data] of extents) {
    let done = 0;
    while (done < length) {
      if (unit.length === limits.unitExtentsMax || (data === 1 && roomBytes === 0)) seal();
      const part = data === 1 ? Math.min(length - done, roomBytes) : length;
      unit.push([start + done, part, data]);
      if (data === 1) roomBytes -= part;
      done += part;
    }
  }
  if (unit.length > 0) seal();
  return units;
}

export interface PlanSummary {
  readonly unitCount: number;
  readonly bytesData: number;
  readonly bytesPunched: number;
  readonly digest: string;
}

export interface PlanDigest {
  /**
   * Takes the next units, in order; how they are split into pages does not matter. Throws `BadRequest` for units that
   * are empty, past a limit, unaligned, out of order or outside the image: they may come from another cluster.
   */
  add(units: Iterable<readonly (readonly [number, number, number])[]>): void;
  /** Ends the plan; nothing can be added afterwards. */
  finish(): PlanSummary;
}

/** Starts the digest of a plan; both sides compare what {@link PlanDigest.finish} gives. */
export function openPlanDigest(identity: PlanIdentity, limits: UnitLimits = defaultLimits): PlanDigest {
  const hash = createHash("sha256");
  // JSON makes the form injective: no id can run into its neighbour.
  hash.update(`${JSON.stringify(["longshore plan 1", identity.baseId, identity.toId, identity.sizeBytes])}\n`);
  let end = 0;
  const sum = { unitCount: 0, bytesData: 0, bytesPunched: 0 };
  return {
    add: (units) => {
      for (const unit of units) {
        end = checkUnit({ unit, index: sum.unitCount, from: end }, identity.sizeBytes, limits);
        hash.update(`${JSON.stringify(unit)}\n`);
        sum.unitCount++;
        sum.bytesData += unitDataBytes(unit as Unit);
        sum.bytesPunched += unitPunchedBytes(unit as Unit);
      }
    },
    finish: () => ({ ...sum, digest: hash.digest("hex") }),
  };
}

interface UnitInPlan {
  readonly unit: readonly (readonly [number, number, number])[];
  readonly index: number;
  readonly from: number;
}

/** Returns where the unit ends, for the check of the next one. */
function checkUnit({ unit, index, from }: UnitInPlan, sizeBytes: number, limits: UnitLimits): number {
  const refuse = (what: string) => new LongshoreError("BadRequest", `plan: unit ${index} ${what}`);
  if (unit.length === 0) throw refuse("is empty");
  if (unit.length > limits.unitExtentsMax) throw refuse(`has ${unit.length} extents, over ${limits.unitExtentsMax}`);
  let end = from;
  for (const [offset, length, data] of unit) {
    if (!isPlaced(offset, length, end, sizeBytes)) {
      throw refuse(`has the extent ${offset}+${length}, unaligned, out of order or outside ${sizeBytes} bytes`);
    }
    if (data !== 0 && data !== 1) throw refuse(`has an extent of kind ${data}`);
    end = offset + length;
  }
  const bytes = unitDataBytes(unit as Unit);
  if (bytes > limits.unitBytesMax) throw refuse(`has ${bytes} bytes of data, over ${limits.unitBytesMax}`);
  return end;
}

/** The digest of a whole plan at once. Throws `BadRequest` like {@link PlanDigest.add}. */
export function planDigest(identity: PlanIdentity, units: Iterable<Unit>, limits: UnitLimits = defaultLimits): string {
  const digest = openPlanDigest(identity, limits);
  digest.add(units);
  return digest.finish().digest;
}

/** Indexes, in any order and with repeats, as ascending inclusive ranges that do not touch. */
export function rangesOf(indexes: Iterable<number>): [first: number, last: number][] {
  const ranges: [number, number][] = [];
  for (const index of Float64Array.from(indexes).sort()) {
    const open = ranges.at(-1);
    if (open !== undefined && index <= open[1] + 1) open[1] = Math.max(open[1], index);
    else ranges.push([index, index]);
  }
  return ranges;
}

/** Every index of inclusive ranges, one after the other; lazy, for a range may come from elsewhere and be vast. */
export function* indexesIn(ranges: Iterable<readonly [first: number, last: number]>): Generator<number> {
  for (const [first, last] of ranges) {
    for (let index = first; index <= last; index++) yield index;
  }
}
