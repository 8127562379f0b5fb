// What a file system reports of a file's extents, in the terms and the form of linux/fiemap.h.

/** Flags of a reported extent. */
export const extentFlags = {
  last: 0x1,
  unknown: 0x2,
  delayed: 0x4,
  encoded: 0x8,
  encrypted: 0x80,
  notAligned: 0x100,
  inline: 0x200,
  tail: 0x400,
  unwritten: 0x800,
  shared: 0x2000,
} as const;

/** A piece of a file and where it lies, as the file system reports it; in bytes, not always whole blocks. */
export interface ReportedExtent {
  readonly logical: number;
  readonly physical: number;
  readonly length: number;
  readonly flags: number;
}

/**
 * The extents that one call has reported, as they came: each is taken apart when it is looked at, for there are thousands. In order;
 * what is `unwritten` may also be a hole.
 */
export abstract class ExtentReport implements Iterable<ReportedExtent> {
  readonly count: number;
  /** There was no room for more: nothing is said of what follows the last extent. */
  readonly isCut: boolean;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer, count: number, isCut: boolean) {
    this.#bytes = bytes;
    this.count = count;
    this.isCut = isCut;
  }

  abstract at(index: number): ReportedExtent | undefined;

  *[Symbol.iterator](): Generator<ReportedExtent> {
    for (let index = 0; index < this.count; index++) yield this.at(index) as ReportedExtent;
  }

  /** Whether the other report begins with exactly these extents, word by word. */
  isStartOf(other: ExtentReport): boolean {
    const [mine, theirs] = [this.#bytes, other.#bytes];
    const isAlike = this.constructor === other.constructor && mine.length <= theirs.length;
    return isAlike && mine.equals(theirs.subarray(0, mine.length));
  }
}

const extentWords = 14;

/** What FIEMAP has answered. */
export class FiemapReport extends ExtentReport {
  readonly #words: Uint32Array;

  /** `words` are of `count` extents, in halves of 32 bits, lower one first. */
  constructor(words: Uint32Array, count: number, isCut: boolean) {
    const filled = words.subarray(0, count * extentWords);
    super(Buffer.from(filled.buffer, filled.byteOffset, filled.byteLength), count, isCut);
    this.#words = filled;
  }

  at(index: number): ReportedExtent | undefined {
    if (index < 0 || index >= this.count) return undefined;
    const [words, at] = [this.#words, index * extentWords];
    const physical = wholeAt(words, at + 2);
    return {
      logical: wholeAt(words, at),
      physical,
      length: wholeAt(words, at + 4),
      flags: (words[at + 10] as number) | inexact(physical),
    };
  }
}

/** A place that a JavaScript number cannot hold exactly could be taken for its neighbour: then it counts as unknown. */
export function inexact(physical: number): number {
  return physical <= Number.MAX_SAFE_INTEGER ? 0 : extentFlags.unknown;
}

/** From halves: a tenth of the time that BigInts take. */
function wholeAt(words: Uint32Array, at: number): number {
  return (words[at] as number) + (words[at + 1] as number) * 2 ** 32;
}
