// Which blocks a fake volume or snapshot has, and in which version: enough to tell what is allocated and what differs.
import type { ImageExtent } from "../../src/wire/schemas.ts";

const blockBytes = 4096;

export class FakeBlocks {
  /** Version by block; a hole has none. */
  readonly #versions: Map<number, number>;
  static #written = 0;

  constructor(versions: Iterable<readonly [number, number]> = []) {
    this.#versions = new Map(versions);
  }

  copy(): FakeBlocks {
    return new FakeBlocks(this.#versions);
  }

  write(offset: number, length: number): void {
    FakeBlocks.#written++;
    for (const block of blocksOf(offset, length)) this.#versions.set(block, FakeBlocks.#written);
  }

  discard(offset: number, length: number): void {
    for (const block of blocksOf(offset, length)) this.#versions.delete(block);
  }

  /** What is allocated or, with a base, what differs from it. */
  extents(base?: FakeBlocks): ImageExtent[] {
    const before = base === undefined ? new Map<number, number>() : base.#versions;
    const blocks = new Set([...this.#versions.keys(), ...before.keys()]);
    const told = [...blocks].filter((block) => this.#versions.get(block) !== before.get(block));
    const extents: { offset: number; length: number }[] = [];
    for (const block of told.sort((a, b) => a - b)) {
      const last = extents.at(-1);
      if (last !== undefined && last.offset + last.length === block * blockBytes) last.length += blockBytes;
      else extents.push({ offset: block * blockBytes, length: blockBytes });
    }
    return extents;
  }
}

function blocksOf(offset: number, length: number): number[] {
  const [first, end] = [Math.floor(offset / blockBytes), Math.ceil((offset + length) / blockBytes)];
  return Array.from({ length: end - first }, (_, nth) => first + nth);
}
