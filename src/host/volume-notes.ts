// What the node must know of a volume and cannot see any more once it is interrupted: one file for each volume that is staged here.
// A note is on disk before what it tells of is done, and goes last.
import { join } from "node:path";
import { assert } from "../base/assert.ts";
import { makeFolderDurably } from "../base/durable-folder.ts";
import { isVolumeHandle } from "../domain/handles.ts";
import { readText, removeDurably, writeDurably } from "./durable-file.ts";
import { type FileSystemType, isFileSystemType } from "./file-systems.ts";
import { attempt, HostError } from "./host-error.ts";
import type { ImageIdentity } from "./loop-devices.ts";

export interface VolumeNote {
  /** Of the volume; another one may have had its name before. */
  readonly uid: string;
  /** What is, or was about to be, attached for it. */
  readonly image: ImageIdentity;
  /**
   * The file system that is being made on it. While this is here nobody has mounted what is on the device, however whole it may look, so
   * it is made again.
   */
  readonly formatting: FileSystemType | null;
  /** Where it is, or was about to be, published. */
  readonly targets: readonly string[];
}

export interface VolumeNotes {
  /** `undefined` when there is none. Throws {@link HostError} for one that cannot be read, rather than to guess. */
  read(volume: string): Promise<VolumeNote | undefined>;
  write(volume: string, note: VolumeNote): Promise<void>;
  /** Gone already is success. */
  remove(volume: string): Promise<void>;
}

/** Keeps the notes in a folder, which is made if it is not there. */
export async function openVolumeNotes(folder: string): Promise<VolumeNotes> {
  await attempt(`make ${folder}`, () => makeFolderDurably(folder, 0o700));
  const pathOf = (volume: string) => {
    assert(isVolumeHandle(volume), `not the name of a volume: ${volume}`);
    return join(folder, `${volume}.json`);
  };
  return {
    async read(volume) {
      const path = pathOf(volume);
      const text = await attempt(`read ${path}`, () => readText(path));
      if (text === undefined) return undefined;
      const note = parseVolumeNote(text);
      if (note !== undefined) return note;
      throw new HostError(`the note ${path} is damaged; remove it (nothing is formatted for want of it)`);
    },
    async write(volume, note) {
      const path = pathOf(volume);
      await attempt(`write ${path}`, () => writeDurably(path, `${JSON.stringify(note)}\n`));
    },
    async remove(volume) {
      const path = pathOf(volume);
      await attempt(`remove ${path}`, () => removeDurably(path));
    },
  };
}

/** `undefined` for what is not, in every field, a note. */
export function parseVolumeNote(text: string): VolumeNote | undefined {
  const value = parsed(text);
  if (!isRecord(value)) return undefined;
  const { uid, image, formatting, targets } = value;
  if (typeof uid !== "string" || !isIdentity(image) || !isTexts(targets)) return undefined;
  if (formatting !== null && !isFileSystemType(formatting)) return undefined;
  return { uid, image, formatting, targets };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function isIdentity(value: unknown): value is ImageIdentity {
  if (!isRecord(value)) return false;
  const { path, device, inode, bootId } = value;
  return isTexts([path, device, inode, bootId]);
}

function isTexts(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((one) => typeof one === "string");
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null;
}
