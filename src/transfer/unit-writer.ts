// Puts a unit's payload where it belongs: into the staging file from this thread, or by way of the main thread where there is no
// file. Small pieces are gathered, for each write costs a system call or a message.
import { writeSync } from "node:fs";
import { LongshoreError } from "../domain/errors.ts";
import type { FlatExtents, FromTarget } from "./lane-messages.ts";
import type { LaneSignals } from "./lane-signals.ts";
import { UnitPlaces } from "./unit-places.ts";

/** Takes the payload of one unit after the other. */
export interface UnitWriter {
  begin(unit: number, extents: FlatExtents): void;
  /** The next bytes of the unit's payload, the unit's last ones with `isLast`; it may keep a copy for a while. Throws what a write throws. */
  put(data: Buffer, isLast: boolean): void;
}

/** Keeps writes well within the processor's cache, and few. */
const fileGatherBytes = 512 * 1024;

/** Writes at once, on this thread: when {@link UnitWriter.put} has returned with `isLast`, the unit is written. */
export class FileWriter implements UnitWriter {
  readonly #fd: number;
  readonly #signals: LaneSignals;
  readonly #buffer = Buffer.allocUnsafeSlow(fileGatherBytes);
  #filled = 0;
  #places: UnitPlaces | undefined;

  constructor(fd: number, signals: LaneSignals) {
    this.#fd = fd;
    this.#signals = signals;
  }

  begin(_unit: number, extents: FlatExtents): void {
    this.#places = new UnitPlaces(extents);
  }

  put(data: Buffer, isLast: boolean): void {
    for (let done = 0; done < data.length; ) {
      const copied = data.copy(this.#buffer, this.#filled, done);
      this.#filled += copied;
      done += copied;
      if (this.#filled === this.#buffer.length) this.#flush();
    }
    if (isLast) this.#flush();
  }

  #flush(): void {
    for (let done = 0; done < this.#filled; ) {
      // Once it is stopped the main thread may close the file at any moment after our last word.
      if (this.#signals.isStopped) throw new LongshoreError("StreamTorn", "lane: it was closed");
      const place = this.#places?.take(this.#filled - done);
      if (place === undefined) throw new LongshoreError("Internal", "lane: payload without a unit");
      writeWhole(this.#fd, this.#buffer.subarray(done, done + place.length), place.offset);
      done += place.length;
    }
    this.#filled = 0;
  }
}

/** Pieces are handed over at this size. */
export const messageGatherBytes = 256 * 1024;

/** Hands the bytes to the main thread, which writes them; `post` is called once for each write. */
export class MessageWriter implements UnitWriter {
  readonly #post: (message: Extract<FromTarget, { kind: "write" }>) => void;
  #buffer: Buffer<ArrayBuffer> | undefined;
  #filled = 0;
  #unit = 0;
  #places: UnitPlaces | undefined;

  constructor(post: (message: Extract<FromTarget, { kind: "write" }>) => void) {
    this.#post = post;
  }

  begin(unit: number, extents: FlatExtents): void {
    this.#unit = unit;
    this.#places = new UnitPlaces(extents);
  }

  put(data: Buffer, isLast: boolean): void {
    for (let done = 0; done < data.length; ) {
      this.#buffer ??= Buffer.allocUnsafeSlow(messageGatherBytes);
      const copied = data.copy(this.#buffer, this.#filled, done);
      this.#filled += copied;
      done += copied;
      if (this.#filled === this.#buffer.length) this.#flush();
    }
    if (isLast) this.#flush();
  }

  #flush(): void {
    const gathered = this.#buffer?.subarray(0, this.#filled) ?? Buffer.alloc(0);
    for (let done = 0; done < gathered.length; ) {
      const place = this.#places?.take(gathered.length - done);
      if (place === undefined) throw new LongshoreError("Internal", "lane: payload without a unit");
      // A copy, for the message takes the memory along, and the gathered bytes may have several places.
      const data = Uint8Array.from(gathered.subarray(done, done + place.length));
      this.#post({ kind: "write", unit: this.#unit, offset: place.offset, data });
      done += place.length;
    }
    this.#filled = 0;
  }
}

/** Writes all of `data` at `offset`, at once. */
export function writeWhole(fd: number, data: Buffer, offset: number): void {
  for (let done = 0; done < data.length; ) {
    done += writeSync(fd, data, done, data.length - done, offset + done);
  }
}
