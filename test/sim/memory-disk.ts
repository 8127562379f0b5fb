// A node's disk: the images that survive its process, and what of them a loss of power takes. It knows no time; who uses
// it (memory-storage.ts) says when something begins and when it is done.
import { blockBytes } from "../../src/storage/backend.ts";
import { type Block, contentOf, isSameBlock } from "./blocks.ts";
import type { Chance } from "./chance.ts";

export interface Image {
  state: "unfinished" | "writable" | "sealed";
  sizeBytes: number;
  blocks: Block[];
  /** Never the same for two files that were made. */
  inode: string;
  /** What is on the medium where that is not (yet) what reads see: block index and old content. */
  readonly unsynced: Map<number, Block>;
}

/** A file's place: the live image of a volume, or one of its points. */
export interface Place {
  readonly volume: string;
  readonly point: string | undefined;
}

export interface Freeze {
  /** At the latest. */
  readonly untilMs: number;
}

let inodes = 0;

export function newImage(sizeBytes: number, state: Image["state"] = "unfinished"): Image {
  inodes += 1;
  const blocks = Array.from({ length: sizeBytes / blockBytes }, () => null);
  return { state, sizeBytes, blocks, inode: `${inodes}.0`, unsynced: new Map() };
}

export function resize(image: Image, sizeBytes: number): void {
  const count = sizeBytes / blockBytes;
  while (image.blocks.length < count) image.blocks.push(null);
  image.blocks.length = count;
  image.sizeBytes = sizeBytes;
}

export class MemoryDisk {
  readonly fsUuid: string;
  files = new Map<string, Image>();
  readonly quarantined = new Map<string, Image>();
  /** While it is: nothing that needs room succeeds. */
  isFull = false;
  /** Volumes whose guests are held up, each by one freeze at a time. */
  readonly freezes = new Map<string, Freeze>();

  constructor(fsUuid: string) {
    this.fsUuid = fsUuid;
  }

  image(at: Place): Image | undefined {
    return this.files.get(keyOf(at));
  }

  put(at: Place, image: Image): void {
    this.files.set(keyOf(at), image);
  }

  remove(at: Place): void {
    this.files.delete(keyOf(at));
  }

  places(): Place[] {
    return [...this.files.keys()].sort().map(placeOf);
  }

  isFrozen(volume: string, nowMs: number): boolean {
    return (this.freezes.get(volume)?.untilMs ?? Number.NEGATIVE_INFINITY) > nowMs;
  }

  /** Writes into an image as a program does: seen by all at once, on the medium only after a sync. */
  write(image: Image, index: number, content: Block): void {
    if (!image.unsynced.has(index)) image.unsynced.set(index, image.blocks[index] ?? null);
    image.blocks[index] = content;
  }

  /** The power goes: of what was not synced each block is there, not there, or torn, whatever became of its neighbours. */
  losePower(chance: Chance): void {
    for (const image of this.files.values()) {
      for (const [index, old] of image.unsynced) {
        const now = image.blocks[index] ?? null;
        const fate = chance.whole(0, 4);
        if (fate <= 1) image.blocks[index] = old;
        else if (fate === 2) image.blocks[index] = torn(old, now);
      }
      image.unsynced.clear();
    }
  }

  /** The files as they are now; a later {@link rollBack} puts them back as the very same files, or as copies of them. */
  copyFiles(): Map<string, Image> {
    return new Map([...this.files].map(([key, image]) => [key, duplicate(image)]));
  }

  rollBack(files: ReadonlyMap<string, Image>, isSameFiles: boolean): void {
    this.files = new Map([...files].map(([key, image]) => [key, duplicate(image)]));
    if (isSameFiles) return;
    for (const image of this.files.values()) image.inode = newImage(0).inode;
  }
}

function duplicate(image: Image): Image {
  return { ...image, blocks: [...image.blocks], unsynced: new Map() };
}

function torn(old: Block, now: Block): Block {
  if (isSameBlock(old, now)) return now;
  const half = Buffer.alloc(blockBytes);
  now?.copy(half, 0, 0, blockBytes / 2);
  old?.copy(half, blockBytes / 2, blockBytes / 2);
  return half;
}

/** The same bytes but for one bit. */
export function flipped(content: Buffer, chance: Chance): Buffer {
  const damaged = Buffer.from(content);
  const at = chance.whole(0, damaged.length - 1);
  damaged[at] = (damaged[at] ?? 0) ^ (1 << chance.whole(0, 7));
  return damaged;
}

/** What a guest writes into a live image; kept by the medium, for nobody here promises anything about it. */
export function writeLive(image: Image, index: number, tag: number): void {
  image.blocks[index] = tag === 0 ? null : contentOf(tag);
}

function keyOf({ volume, point }: Place): string {
  return point === undefined ? volume : `${volume} ${point}`;
}

function placeOf(key: string): Place {
  const [volume = "", point] = key.split(" ");
  return { volume, point };
}
