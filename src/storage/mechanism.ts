// What sets one kind of backend apart: how a whole image is copied, held still, and compared. Everything else (names,
// states, sealing, staging, lists) is the same for all and lives in file-backend.ts.

import type { FileHandle } from "node:fs/promises";
import type { Changes, StorageBackend } from "./backend.ts";

/** A sealed point, open, whose identity has been verified. */
export interface OpenPoint {
  readonly image: FileHandle;
  readonly sizeBytes: number;
}

/** A live image whose content has to stand still. */
export interface Held {
  readonly volume: string;
  readonly live: FileHandle;
  readonly frozen: (() => void) | undefined;
}

export interface Mechanism {
  readonly kind: StorageBackend["kind"];
  /** Whether content duplicated while the volume was frozen is of one moment only if it stayed so. */
  readonly restsOnFreeze: boolean;
  /** Whether a duplicate shares the blocks of its source, and takes no room of its own until it is written to. */
  readonly sharesBlocks: boolean;
  /** Whether sealed files get the immutable attribute where that is allowed. */
  readonly wantsImmutable: boolean;
  /** Identifies the file system that holds an open file, the same after a remount. */
  fsUuid(image: FileHandle): string;
  /** Called on a new, empty image that will be written to at random. */
  prepareLive(image: FileHandle): void;
  /** Called on a new, empty image that will be written to once, at places known beforehand. */
  prepareStaging(image: FileHandle): void;
  /** Gives the empty `target` the whole content and size of `source`, holes included; may call `checkpoint` on the way. */
  duplicate(source: FileHandle, target: FileHandle, checkpoint?: () => void): Promise<void>;
  /**
   * Runs `work`, during which the content of `live` as `duplicate` sees it stands still; `VolumeBusy` when it does not.
   * `checkpoint` throws as soon as it is known to move. `frozen` is given for a volume whose writers are held up by its
   * file system, and throws when they are not any more.
   */
  heldStill<T>(held: Held, work: (checkpoint: () => void) => Promise<T>): Promise<T>;
  changed(base: OpenPoint, next: OpenPoint, signal: AbortSignal | undefined): Promise<Changes>;
  allocated(point: OpenPoint, signal: AbortSignal | undefined): Promise<Changes>;
}
