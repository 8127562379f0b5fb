// What lanes of the contract read from and write to: images in memory, which see each write and may hold it up, and files, which
// the lanes' threads read and write by themselves.
import { createHash } from "node:crypto";
import * as fs from "node:fs";
import { join } from "node:path";
import { LongshoreError } from "../../src/domain/errors.ts";
import {
  type LaneExtent,
  type LaneSink,
  type LaneSource,
  type LaneUnit,
  unitPayloadBytesMax,
} from "../../src/transfer/lane.ts";

export const block = 4096;

/** Repeats after {@link unitPayloadBytesMax} bytes, and not before: a byte in the wrong place is seen. */
const noise = Buffer.alloc(2 * unitPayloadBytesMax);
for (let at = 0; at < unitPayloadBytesMax; at += 4) noise.writeUInt32LE(Math.imul(at + 4, 0x9e3779b1) >>> 0, at);
noise.copyWithin(unitPayloadBytesMax, 0, unitPayloadBytesMax);

/** What every source has in [offset, offset + length). */
export function sourceBytes(offset: number, length: number): Buffer {
  const start = offset % unitPayloadBytesMax;
  return noise.subarray(start, start + length);
}

export function payloadOf({ extents }: LaneUnit): Buffer {
  return Buffer.concat(extents.map(([offset, length]) => sourceBytes(offset, length)));
}

export function digestOf(unit: LaneUnit): string {
  return createHash("sha256").update(payloadOf(unit)).digest("hex");
}

export function bytesOf({ extents }: LaneUnit): number {
  return extents.reduce((sum, [, length]) => sum + length, 0);
}

/** A unit of these extents, [offset, length] each. */
export function unit(index: number, ...extents: LaneExtent[]): LaneUnit {
  return { index, extents };
}

/** An image of `sizeBytes` after these units have arrived, and nothing else. */
export function imageOf(sizeBytes: number, units: readonly LaneUnit[]): Buffer {
  const image = Buffer.alloc(sizeBytes);
  for (const { extents } of units) {
    for (const [offset, length] of extents) sourceBytes(offset, length).copy(image, offset);
  }
  return image;
}

/** How many bytes of the image are neither as wanted nor untouched. */
export function strayBytes(image: Buffer, wanted: Buffer): number {
  let stray = 0;
  for (let offset = 0; offset < image.length; offset += block) {
    if (image.compare(wanted, offset, offset + block, offset, offset + block) === 0) continue;
    for (let at = offset; at < offset + block; at++) if (image[at] !== wanted[at] && image[at] !== 0) stray++;
  }
  return stray;
}

export const memorySource: LaneSource = {
  fd: -1,
  read: async (offset, into) => into.set(sourceBytes(offset, into.length)),
};

/** A file of `sizeBytes` with what every source has. */
export function fileSource(folder: string, sizeBytes: number): LaneSource & { close(): void } {
  const path = join(folder, `source-${sizeBytes}`);
  if (!fs.existsSync(path)) {
    const file = fs.openSync(path, "w");
    for (let at = 0; at < sizeBytes; at += unitPayloadBytesMax) {
      fs.writeSync(file, sourceBytes(at, Math.min(unitPayloadBytesMax, sizeBytes - at)), 0, undefined, at);
    }
    fs.closeSync(file);
  }
  const fd = fs.openSync(path, "r");
  const read = async () => {
    throw new Error("a file is read by the lane's thread");
  };
  return { fd, read, close: () => fs.closeSync(fd) };
}

interface Write {
  readonly unit: number;
  readonly offset: number;
  readonly length: number;
}

/** What sinks have in common: a plan, and what they were told. */
abstract class PlannedSink implements LaneSink {
  abstract readonly fd: number;
  readonly begun: number[] = [];
  readonly arrivals: number[] = [];
  readonly broken: (error: Error) => void;
  /** Resolves with the error when the lane breaks. */
  readonly brokenBy: Promise<Error>;
  readonly #plan: ReadonlyMap<number, LaneUnit>;
  #onChange: (() => void)[] = [];

  constructor(units: readonly LaneUnit[]) {
    this.#plan = new Map(units.map((unit) => [unit.index, unit]));
    const { promise, resolve } = Promise.withResolvers<Error>();
    this.brokenBy = promise;
    this.broken = resolve;
  }

  abstract get image(): Buffer;

  begin(index: number): readonly LaneExtent[] {
    const unit = this.#plan.get(index);
    if (unit === undefined) throw new LongshoreError("BadRequest", `no unit ${index} in the plan`);
    this.begun.push(index);
    this.changed();
    return unit.extents;
  }

  abstract write(unit: number, offset: number, data: Uint8Array): Promise<void>;

  arrived(unit: number): void {
    this.arrivals.push(unit);
    this.changed();
  }

  protected changed(): void {
    for (const notify of this.#onChange.splice(0)) notify();
  }

  /** Resolves when the condition holds, looking again at everything the sink is told. */
  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#onChange.push(resolve));
  }
}

/** An image in memory. */
export class MemorySink extends PlannedSink {
  readonly fd = -1;
  readonly image: Buffer;
  readonly writes: Write[] = [];
  bytesInFlight = 0;
  bytesInFlightMax = 0;
  writesInFlight = 0;
  writesInFlightMax = 0;
  bytesWritten = 0;
  /** What a write waits for. */
  gate: () => Promise<void> = async () => {};

  constructor(units: readonly LaneUnit[], sizeBytes = 64 * block) {
    super(units);
    this.image = Buffer.alloc(sizeBytes);
  }

  override async write(unit: number, offset: number, data: Uint8Array): Promise<void> {
    this.writes.push({ unit, offset, length: data.length });
    this.bytesInFlight += data.length;
    this.bytesInFlightMax = Math.max(this.bytesInFlight, this.bytesInFlightMax);
    this.writesInFlight++;
    this.writesInFlightMax = Math.max(this.writesInFlight, this.writesInFlightMax);
    this.changed();
    try {
      await this.gate();
      if (this.image.length > 0) this.image.set(data, offset);
      this.bytesWritten += data.length;
    } finally {
      this.bytesInFlight -= data.length;
      this.writesInFlight--;
    }
  }
}

/** An image in a file that is there already. */
export class FileSink extends PlannedSink {
  readonly fd: number;

  constructor(units: readonly LaneUnit[], { path, flags = "r+" }: { readonly path: string; readonly flags?: string }) {
    super(units);
    this.fd = fs.openSync(path, flags);
  }

  override get image(): Buffer {
    const image = Buffer.alloc(fs.fstatSync(this.fd).size);
    for (let at = 0; at < image.length; ) at += fs.readSync(this.fd, image, at, image.length - at, at);
    return image;
  }

  override async write(): Promise<void> {
    throw new Error("a file is written by the lane's thread");
  }

  close(): void {
    fs.closeSync(this.fd);
  }
}
