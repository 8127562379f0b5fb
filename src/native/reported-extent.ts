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

const extentWords = 14;

/** The extents that one call has reported, as they came: each is taken apart when it is looked at, for there are thousands. */
export class ExtentReport implements Iterable<ReportedExtent> {
  readonly count: number;
  readonly #words: Uint32Array;

  /** `words` are of `count` extents, in halves of 32 bits, lower one first. */
  constructor(words: Uint32Array, count: number) {
    this.#words = words.subarray(0, count * extentWords);
    this.count = count;
  }

  at(index: number): ReportedExtent | undefined {
    if (index < 0 || index >= this.count) return undefined;
    const [words, at] = [this.#words, index * extentWords];
    const physical = wholeAt(words, at + 2);
    // A place that a JavaScript number cannot hold exactly could be taken for its neighbour: then it counts as unknown.
    const isExact = physical <= Number.MAX_SAFE_INTEGER;
    const flags = (words[at + 10] as number) | (isExact ? 0 : extentFlags.unknown);
    return { logical: wholeAt(words, at), physical, length: wholeAt(words, at + 4), flags };
  }

  *[Symbol.iterator](): Generator<ReportedExtent> {
    for (let index = 0; index < this.count; index++) yield this.at(index) as ReportedExtent;
  }

  /** Whether the other report begins with exactly these extents. */
  isStartOf(other: ExtentReport): boolean {
    const [mine, theirs] = [bytesOf(this.#words), bytesOf(other.#words)];
    return mine.length <= theirs.length && mine.equals(theirs.subarray(0, mine.length));
  }
}

/** From halves: a tenth of the time that BigInts take. */
function wholeAt(words: Uint32Array, at: number): number {
  return (words[at] as number) + (words[at + 1] as number) * 2 ** 32;
}

function bytesOf(words: Uint32Array): Buffer {
  return Buffer.from(words.buffer, words.byteOffset, words.byteLength);
}
