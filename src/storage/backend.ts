// What a storage backend promises: how the bytes of volumes, points and staging images are kept on this node.
// A backend knows files, not rows: which image may be deleted, and when, is decided by its caller (src/engine/).
// Every method that changes something is idempotent for the same arguments, and is durable when it resolves.

/** Longshore's grain: extents begin and end on multiples of it, and changed bytes are counted in it. */
export const blockBytes = 4096;

/** Bytes [offset, offset + length) of an image; both are multiples of {@link blockBytes}. */
export interface Extent {
  readonly offset: number;
  readonly length: number;
}

/** An extent of the new point that differs (or may differ) from the base: `data` must be sent, `hole` must be punched. */
export interface ChangedExtent extends Extent {
  readonly kind: "data" | "hole";
}

/** What identifies a sealed file, recorded when it was sealed; a file that no longer answers to it is not that point. */
export interface SealedIdentity {
  readonly inode: string;
  readonly fsUuid: string;
  readonly sizeBytes: number;
}

/** How a difference was found. `allocated`: everything allocated in the new point, with the reason why not less. */
export type ChangeMode =
  | { readonly kind: "delta"; readonly unshared: boolean }
  | { readonly kind: "allocated"; readonly reason: string };

export interface Changes {
  readonly mode: ChangeMode;
  /** In ascending order, merged, not overlapping, within the new point's size. */
  readonly extents: Iterable<ChangedExtent>;
}

export interface Sealed {
  readonly identity: SealedIdentity;
  /** How long writers of the live image were held up, in milliseconds. */
  readonly stallMs: number;
  /** It is of one moment only if the volume was frozen all the while: {@link Thaw.wasFrozen} tells. */
  readonly restsOnFreeze?: true;
}

export interface Thaw {
  /** Whether nothing could be written without a break from the freeze until the thaw was asked for. */
  readonly wasFrozen: boolean;
  readonly frozenMs: number;
}

/** A volume whose writers are held up, until {@link thaw} or the timer of the freeze. */
export interface FrozenVolume {
  /** Whether there are writers: a file system on the image is mounted and frozen. Otherwise nobody has it attached. */
  readonly isMounted: boolean;
  /** Lets writers go on; asked again it gives the same answer. */
  thaw(): Promise<Thaw>;
}

/** A file the backend found, whether or not a row knows it. */
export interface FoundImage {
  readonly volume: string;
  readonly kind: "live" | "point";
  /** The point id for a `point`; absent for the live image. */
  readonly point?: string;
  readonly sizeBytes: number;
  readonly allocatedBytes: number;
}

/** Read access to one sealed point, held open: the file stays readable even if it is unlinked meanwhile. */
export interface PointReader {
  readonly sizeBytes: number;
  readonly fd: number;
  /** Fills `into` from `offset`; throws when the range leaves the image. */
  read(offset: number, into: Uint8Array): Promise<void>;
  close(): Promise<void>;
}

export interface Digest {
  readonly digest: string;
  readonly verified: "media" | "memory";
}

/** The image a migration writes into, held open; it becomes the point by {@link StorageBackend.seal}, under the name it has. */
export interface Staging {
  readonly sizeBytes: number;
  /** It was sealed before it was opened: it can only be read back. */
  readonly isSealed: boolean;
  /**
   * For whoever writes by itself, within the image; negative where there is no file. Whoever uses it has ended before
   * {@link close}, {@link StorageBackend.seal} and {@link StorageBackend.deletePoint}.
   */
  readonly fd: number;
  /** Throws `BadRequest` when the range leaves the image. */
  write(offset: number, data: Uint8Array): Promise<void>;
  /** Makes the range a hole that reads as zeros. */
  punch(extent: Extent): Promise<void>;
  /** Has what was written to the extent be on its way to the disk, as a head start for {@link sync}; says nothing about when it is there. */
  writeOut(extent: Extent): Promise<void>;
  /** Returns once everything written or punched so far is on disk. */
  sync(): Promise<void>;
  /**
   * SHA-256 (hex) of what these extents hold now, one after the other, for verification after {@link sync}. `media` bypasses
   * the page cache (O_DIRECT), where the file system allows that, `memory` does not; the answer says which it was.
   */
  digest(extents: readonly Extent[], wanted: "media" | "memory"): Promise<Digest>;
  close(): Promise<void>;
}

/**
 * One node's store. Volume keys and point ids are chosen by the caller ([a-z0-9-], at most 120 characters) and are the
 * only names there are: every path follows from them, so nothing is ever renamed.
 *
 * Errors are `LongshoreError`s: `DiskFull`, `VolumeGone`, `PointGone` (its file is missing, or is not the file that was
 * sealed), `BadRequest` (shrinking, unaligned sizes), `VolumeBusy` (copy backend: attached and not frozen).
 */
export interface StorageBackend {
  readonly kind: "reflink" | "copy";
  /** Makes an empty (all holes) live image. Repeating it with the same size changes nothing; another size is `BadRequest`. */
  create(volume: string, sizeBytes: number): Promise<void>;
  /** Grows the live image; the same size changes nothing, a smaller one is `BadRequest`. */
  expand(volume: string, sizeBytes: number): Promise<void>;
  /** Deletes the live image and, when it holds no points, the volume's folder. Gone already is success. */
  remove(volume: string): Promise<void>;
  /** The live image's path, for whoever attaches it. */
  livePath(volume: string): string;
  /**
   * What uses the live image on this node, for a person to read: the loop device it is attached to (`/dev/loop3`), or that somebody
   * has it open for writing, as far as this process can tell. `undefined` when nothing does, also when there is no image.
   */
  attachedTo(volume: string): Promise<string | undefined>;
  /**
   * Holds up all writers of the live image: every file system mounted from it is written out and frozen, or nobody may
   * attach it. It ends by itself after `timeoutMs`, also when this process is stopped or dies. `VolumeBusy` when it is
   * frozen already, or attached without being mounted here (nobody can tell then who writes to it); `Unsupported` when a
   * file system cannot be frozen, this process may not, or would hold itself up.
   */
  freeze(volume: string, timeoutMs: number): Promise<FrozenVolume>;
  /** Keeps the live image's content as a sealed, read-only point. The file exists under its final name before it is sealed. */
  snapshot(volume: string, point: string): Promise<Sealed>;
  /** Deletes a point or staging image. Gone already is success. Open readers keep reading. */
  deletePoint(volume: string, point: string): Promise<void>;
  /** Makes a new volume's live image from a point, at least the point's size; an unfinished earlier try is replaced. */
  clone(
    from: { volume: string; point: string; identity: SealedIdentity },
    to: { volume: string; sizeBytes: number },
  ): Promise<void>;
  /** What `next`, a sealed point of the volume, differs in from `base`; both must answer to their identities. */
  changed(volume: string, base: BasePoint, next: SealedPoint, signal?: AbortSignal): Promise<Changes>;
  /** What is allocated in a point: `data` extents only. */
  allocated(volume: string, point: SealedPoint, signal?: AbortSignal): Promise<Changes>;
  openPoint(volume: string, point: SealedPoint): Promise<PointReader>;
  /**
   * A hint that {@link stage} may soon be asked for on this base: where that takes long, it is begun. Nothing of it can be
   * seen, it takes no room to speak of, and if it is not used within a minute it is forgotten.
   */
  stageSoon(volume: string, base: BasePoint): void;
  /**
   * Makes the image that will become `point`: a clone of `base`, or empty; sized to `sizeBytes` (truncated up). What an
   * earlier try left under that name is removed first. Durable (file and directory) on return. What is sealed is read: that
   * the base is deleted meanwhile does not matter. Where it takes long, the signal ends it, and leaves nothing.
   */
  stage(
    volume: string,
    point: string,
    base: BasePoint | undefined,
    sizeBytes: number,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Opens an image made by {@link stage} to go on with it; `PointGone` when it is not there or has another size. */
  openStaging(volume: string, point: string, sizeBytes: number): Promise<Staging>;
  /** Makes a staging image a sealed point, in place. Sealing a sealed one returns its identity again. */
  seal(volume: string, point: string): Promise<SealedIdentity>;
  /** Every image found, for comparison with the rows after a start. */
  list(): Promise<readonly FoundImage[]>;
  /** Moves an image that no row knows out of the way, never deleting it; returns where it went. */
  quarantine(image: FoundImage): Promise<string>;
  /** Free and total bytes of the file system. */
  space(): Promise<{ freeBytes: number; totalBytes: number }>;
  close(): Promise<void>;
}

export interface SealedPoint {
  readonly point: string;
  readonly identity: SealedIdentity;
}

/** What a difference, or a staging image, starts from: a point of the same volume or, if it is named, of another one. */
export interface BasePoint extends SealedPoint {
  readonly volume?: string;
}
