// Contents of blocks. A block's content is a pure function of a number, kept once, so that images share blocks and are
// compared by identity; whatever is not such a content (torn, damaged, partial) is kept as it is.
import { blockBytes } from "../../src/storage/backend.ts";

/** Null is a hole. */
export type Block = Buffer | null;

const known: Buffer[] = [];
const zeros = Buffer.alloc(blockBytes);

/** The content with this number, 1 and above. */
export function contentOf(tag: number): Buffer {
  const present = known[tag];
  if (present !== undefined) return present;
  const content = Buffer.alloc(blockBytes, 0xa5);
  content.writeUInt32LE(tag, 0);
  content.writeUInt32LE(tag, blockBytes - 4);
  known[tag] = content;
  return content;
}

/** A block that may be kept: the shared one of this content, or a copy. */
export function keptBlock(content: Buffer): Buffer {
  const shared = known[content.readUInt32LE(0)];
  return shared?.equals(content) ? shared : Buffer.from(content);
}

/** The number of a block's content; 0 for a hole, undefined for a content that has none. */
export function tagOf(block: Block): number | undefined {
  if (block === null || block.equals(zeros)) return 0;
  const tag = block.readUInt32LE(0);
  return known[tag]?.equals(block) ? tag : undefined;
}

export function isSameBlock(left: Block, right: Block): boolean {
  return left === right || (left ?? zeros).equals(right ?? zeros);
}

/** The index of the first block in which two images differ as they are read; undefined when they do not. */
export function firstDifference(left: readonly Block[], right: readonly Block[]): number | undefined {
  for (let at = 0; at < Math.max(left.length, right.length); at++) {
    if (!isSameBlock(left[at] ?? null, right[at] ?? null)) return at;
  }
  return undefined;
}

/** For messages. */
export function showBlocks(blocks: readonly Block[]): string {
  return blocks.map((block) => tagOf(block) ?? "?").join(" ");
}
