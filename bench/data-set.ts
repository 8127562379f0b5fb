// The data of a case, the same for every tool: made anew from the same seeds each time, for memory holds one tool's data
// at a time. Content is the key stream of a cipher, so nothing can be compressed and no two blocks are equal.
import { createCipheriv, createHash } from "node:crypto";
import { type FileHandle, open } from "node:fs/promises";
import { seededDice } from "../src/base/dice.ts";
import { blockBytes, type Case } from "./cases.ts";
import type { PackageTree } from "./package-tree.ts";
import { distinctBelow } from "./statistics.ts";
import type { Range, Session } from "./tool.ts";

const pieceBytes = 4 << 20;
const writtenAtOnce = 64;

export interface DataSet {
  /** Writes the volumes' first content into the live images. */
  fill(session: Session): Promise<void>;
  /** Changes the live images for this step; the ranges by volume that were written. */
  change(session: Session, step: number): Promise<readonly (readonly Range[])[]>;
  /** Changes that come before those that count, so that the volumes are in pieces and the tools have warmed up; from round 1 on. */
  warmUp(session: Session, round: number): Promise<readonly (readonly Range[])[]>;
  /** Changes them back, for what can be changed in one way only; `undefined` for what changes to something new each time. */
  readonly revert: ((session: Session) => Promise<readonly (readonly Range[])[]>) | undefined;
}

export interface DataSetOptions {
  readonly case: Case;
  readonly seed: number;
  /** For the case whose change is that of a tree. */
  readonly tree: PackageTree | undefined;
}

export function dataSetOf({ case: measured, seed, tree }: DataSetOptions): DataSet {
  const { change, volumes, volumeBytes } = measured;
  const each = async (work: (volume: number) => Promise<readonly Range[]>) => {
    const ranges: (readonly Range[])[] = [];
    for (let volume = 0; volume < volumes; volume++) ranges.push(await work(volume));
    return ranges;
  };
  const whole = [{ offset: 0, length: volumeBytes }];
  if (change.kind === "tree") {
    if (tree === undefined) throw new Error(`${measured.name} has no tree`);
    return {
      fill: (session) => tree.copyInto(session.livePath(0)),
      change: async (session) => [await tree.upgrade(session.livePath(0))],
      warmUp: async (session) => [await tree.upgrade(session.livePath(0))],
      revert: async (session) => [await tree.revert(session.livePath(0))],
    };
  }
  // Each step changes the same blocks, to something new: were they others each time, the images would fall into more and
  // more pieces, and each run would measure something else than the one before it.
  const changeTo = (session: Session, blocks: number, step: string) =>
    each((volume) => {
      const [where, content] = [`${seed} volume ${volume}`, `${seed} ${step} volume ${volume}`];
      return scatter(session.livePath(volume), { volumeBytes, blocks, where, content });
    });
  const warmUpBlocks = change.kind === "scattered" ? change.blocksOfVolume : Math.floor(volumeBytes / blockBytes / 100);
  return {
    fill: async (session) => {
      await each(async (volume) => {
        await fillImage(session.livePath(volume), volumeBytes, `${seed} base ${volume}`);
        return whole;
      });
    },
    async change(session, step) {
      if (change.kind === "scattered") return changeTo(session, change.blocksOfVolume, `step ${step}`);
      return each(async () => (change.kind === "all" ? whole : []));
    },
    warmUp: (session, round) => changeTo(session, warmUpBlocks, `warm-up ${round}`),
    revert: undefined,
  };
}

/** Writes the whole image, in order. */
async function fillImage(path: string, sizeBytes: number, name: string): Promise<void> {
  const stream = keyStream(name);
  const image = await open(path, "r+").catch(() => open(path, "w"));
  try {
    for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
      await writeWhole(image, offset, stream(Math.min(pieceBytes, sizeBytes - offset)));
    }
    await image.sync();
  } finally {
    await image.close();
  }
}

export interface Scattering {
  readonly volumeBytes: number;
  readonly blocks: number;
  /** Names that decide which blocks, and what is written into them. */
  readonly where: string;
  readonly content: string;
}

/** Writes new content into so many distinct blocks, wherever the dice have them. */
export async function scatter(path: string, scattering: Scattering): Promise<Range[]> {
  const { volumeBytes, blocks, where, content } = scattering;
  const dice = seededDice(createHash("sha256").update(where).digest().readUInt32LE());
  const chosen = distinctBelow(blocks, volumeBytes / blockBytes, dice);
  const stream = keyStream(content);
  const image = await open(path, "r+");
  try {
    for (let first = 0; first < chosen.length; first += writtenAtOnce) {
      const blocks = chosen.slice(first, first + writtenAtOnce);
      await Promise.all(blocks.map((block) => writeWhole(image, block * blockBytes, stream(blockBytes))));
    }
    await image.sync();
  } finally {
    await image.close();
  }
  return joined(chosen.map((block) => ({ offset: block * blockBytes, length: blockBytes })));
}

/** Ascending ranges, with neighbours made one. */
export function joined(ranges: readonly Range[]): Range[] {
  const result: Range[] = [];
  for (const { offset, length } of ranges) {
    const last = result.at(-1);
    if (last !== undefined && last.offset + last.length === offset)
      result[result.length - 1] = { offset: last.offset, length: last.length + length };
    else result.push({ offset, length });
  }
  return result;
}

export function bytesOf(ranges: readonly (readonly Range[])[]): number {
  return ranges.flat().reduce((sum, { length }) => sum + length, 0);
}

/** The next so many bytes of an endless stream that follows from its name. */
function keyStream(name: string): (bytes: number) => Buffer {
  const key = createHash("sha256").update(name).digest();
  const cipher = createCipheriv("aes-256-ctr", key, Buffer.alloc(16));
  const zeros = Buffer.alloc(pieceBytes);
  return (bytes) => cipher.update(zeros.subarray(0, bytes));
}

async function writeWhole(image: FileHandle, offset: number, bytes: Buffer): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    done += (await image.write(bytes, done, bytes.length - done, offset + done)).bytesWritten;
  }
}
