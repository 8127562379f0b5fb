// A storage backend in memory, as one process has it open on a disk (memory-disk.ts). What it promises is that of
// src/storage/backend.ts; what it adds are the doors through which a test lets time pass, fail and crash.
import { createHash } from "node:crypto";
import { assert } from "../../src/base/assert.ts";
import { LongshoreError } from "../../src/domain/errors.ts";
import {
  type BasePoint,
  blockBytes,
  type ChangedExtent,
  type Changes,
  type Digest,
  type Extent,
  type FoundImage,
  type FrozenVolume,
  type SealedIdentity,
  type SealedPoint,
  type Staging,
  type StorageBackend,
} from "../../src/storage/backend.ts";
import { oneAtATime } from "../../src/storage/one-at-a-time.ts";
import { type Block, isSameBlock, keptBlock } from "./blocks.ts";
import { type Image, type MemoryDisk, newImage, type Place, resize } from "./memory-disk.ts";

/** One step on the disk, as whoever owns the doors sees it. */
export interface DiskStep {
  readonly name: string;
  readonly volume: string;
  readonly point: string | undefined;
  /** What it leaves when it is cut off: any of these, or nothing of it. */
  readonly cutShort: readonly (() => void)[];
}

export interface StorageDoors {
  /** Lets `apply` happen at its time; never resolves when the process dies before, and may fail instead. */
  step<T>(step: DiskStep, apply: () => T): Promise<T>;
  /** A clone is asked for. */
  cloning(from: SealedPoint & { volume: string }, to: string): void;
  /** What a write leaves on the disk. */
  landed(content: Buffer): Buffer;
  /** Whether the difference of two points is told soundly this time, and how much too much. */
  difference(): "exact" | "unsound" | "unshared";
  /** Milliseconds of a clock that never goes back. */
  nowMs(): number;
}

/** Doors that are always open. */
export const openDoors: StorageDoors = {
  step: async (_, apply) => apply(),
  cloning: () => undefined,
  landed: (content) => content,
  difference: () => "exact",
  nowMs: () => 0,
};

export function memoryStorage(disk: MemoryDisk, doors: StorageDoors = openDoors): StorageBackend {
  return oneAtATime(new MemoryStorage(disk, doors).backend());
}

type Needs = "room" | "none";

class MemoryStorage {
  private readonly disk: MemoryDisk;
  private readonly doors: StorageDoors;
  private readonly opened = new Set<OpenStaging>();

  constructor(disk: MemoryDisk, doors: StorageDoors) {
    this.disk = disk;
    this.doors = doors;
  }

  backend(): StorageBackend {
    return {
      kind: "reflink",
      create: (volume, sizeBytes) => this.create(volume, sizeBytes),
      expand: (volume, sizeBytes) => this.expand(volume, sizeBytes),
      remove: (volume) => this.remove(volume),
      livePath: (volume) => `/sim/${checkedName(volume)}/live.img`,
      // Guests write past the files: nothing is ever attached.
      attachedTo: async (volume) => {
        checkedName(volume);
        return undefined;
      },
      freeze: (volume, timeoutMs) => this.freeze(volume, timeoutMs),
      snapshot: (volume, point) => this.snapshot(volume, point),
      deletePoint: (volume, point) => this.deletePoint(volume, point),
      clone: (from, to) => this.clone(from, to),
      changed: (volume, base, next, signal) => this.changed(volume, { base, next, signal }),
      allocated: (volume, point, signal) => this.allocated(volume, point, signal),
      openPoint: (volume, point) => this.openPoint(volume, point),
      // Memory is cloned at once.
      stageSoon: () => undefined,
      stage: (volume, point, base, sizeBytes) => this.stage({ volume, point }, base, sizeBytes),
      openStaging: (volume, point, sizeBytes) => this.openStaging({ volume, point }, sizeBytes),
      seal: (volume, point) => this.seal({ volume, point }),
      list: async () => this.doors.step({ ...stepOf("list"), volume: "", point: undefined }, () => this.list()),
      quarantine: (image) => this.quarantine(image),
      space: async () => ({ freeBytes: this.disk.isFull ? 0 : 2 ** 40, totalBytes: 2 ** 41 }),
      close: async () => {
        for (const staging of [...this.opened]) await staging.close();
      },
    };
  }

  // ---- volumes -----------------------------------------------------------------------------------------------------

  private async create(volume: string, sizeBytes: number): Promise<void> {
    const at = place(volume);
    checkSize(volume, sizeBytes);
    if (this.isMade(at, sizeBytes)) return;
    await this.build("create", at, "writable", () => newImage(sizeBytes));
  }

  private async expand(volume: string, sizeBytes: number): Promise<void> {
    const at = place(volume);
    checkSize(volume, sizeBytes);
    this.live(at);
    await this.change("expand", at, "none", () => {
      const image = this.live(at);
      if (sizeBytes < image.sizeBytes) throw bad(`${volume} cannot shrink from ${image.sizeBytes} to ${sizeBytes}`);
      resize(image, sizeBytes);
    });
  }

  private async remove(volume: string): Promise<void> {
    const at = place(volume);
    await this.change("remove", at, "none", () => this.disk.remove(at));
  }

  private async clone(
    from: SealedPoint & { volume: string },
    to: { volume: string; sizeBytes: number },
  ): Promise<void> {
    const at = place(to.volume);
    checkSize(to.volume, to.sizeBytes);
    checkedName(from.volume);
    if (to.sizeBytes < from.identity.sizeBytes) throw bad(`${to.volume} would be smaller than its point`);
    if (this.isMade(at, to.sizeBytes)) return;
    this.doors.cloning(from, to.volume);
    this.sealed(from.volume, from);
    await this.build("clone", at, "writable", () => {
      const image = newImage(0);
      image.blocks = [...this.sealed(from.volume, from).blocks];
      resize(image, to.sizeBytes);
      return image;
    });
  }

  private async freeze(volume: string, timeoutMs: number): Promise<FrozenVolume> {
    const at = place(volume);
    this.live(at);
    const { disk, doors } = this;
    const { freeze, startMs } = await doors.step({ ...stepOf("freeze"), ...at }, () => {
      const nowMs = doors.nowMs();
      if (disk.isFrozen(volume, nowMs)) throw new LongshoreError("VolumeBusy", `volume ${volume} is frozen already`);
      const made = { untilMs: nowMs + timeoutMs };
      disk.freezes.set(volume, made);
      return { freeze: made, startMs: nowMs };
    });
    const thaw = async () => {
      const isOurs = disk.freezes.get(volume) === freeze;
      const wasFrozen = isOurs && disk.isFrozen(volume, doors.nowMs());
      if (isOurs) disk.freezes.delete(volume);
      return { wasFrozen, frozenMs: doors.nowMs() - startMs };
    };
    let thawed: ReturnType<typeof thaw> | undefined;
    return {
      isMounted: true,
      thaw: () => {
        thawed ??= doors.step({ ...stepOf("thaw"), ...at }, () => undefined).then(thaw);
        return thawed;
      },
    };
  }

  private isMade(at: Place, sizeBytes: number): boolean {
    const image = this.disk.image(at);
    if (image?.state !== "writable") return false;
    if (image.sizeBytes === sizeBytes) return true;
    throw bad(`volume ${at.volume} exists with ${image.sizeBytes} bytes, not ${sizeBytes}`);
  }

  private live(at: Place): Image {
    const image = this.disk.image(at);
    if (image?.state === "writable") return image;
    throw new LongshoreError("VolumeGone", `the live image of volume ${at.volume} is ${image?.state ?? "missing"}`);
  }

  // ---- points ------------------------------------------------------------------------------------------------------

  private async snapshot(volume: string, point: string) {
    const at = place(volume, point);
    if (this.disk.image(at)?.state === "sealed") return { identity: await this.seal(at), stallMs: 0 };
    this.live(place(volume));
    await this.build("snapshot", at, "sealed", () => {
      const image = newImage(0);
      const live = this.live(place(volume));
      image.blocks = [...live.blocks];
      image.sizeBytes = live.sizeBytes;
      return image;
    });
    return { identity: await this.seal(at), stallMs: 1 };
  }

  private async deletePoint(volume: string, point: string): Promise<void> {
    const at = place(volume, point);
    await this.closeAll(at);
    await this.change("deletePoint", at, "none", () => this.disk.remove(at));
  }

  private sealed(volume: string, { point, identity }: SealedPoint): Image {
    const image = this.disk.image(place(volume, point));
    const isIt =
      image?.state === "sealed" &&
      identity.fsUuid === this.disk.fsUuid &&
      identity.inode === image.inode &&
      identity.sizeBytes === image.sizeBytes;
    if (isIt) return image;
    throw new LongshoreError(
      "PointGone",
      `point ${point} of ${volume} is ${image?.state ?? "missing"}, or another file`,
    );
  }

  private async changed(
    volume: string,
    { base, next, signal }: { base: BasePoint; next: SealedPoint; signal: AbortSignal | undefined },
  ): Promise<Changes> {
    signal?.throwIfAborted();
    return this.doors.step({ ...stepOf("changed"), volume, point: next.point }, () => {
      const [from, to] = [this.sealed(base.volume ?? volume, base), this.sealed(volume, next)];
      const how = this.doors.difference();
      if (how === "unsound") {
        return { mode: { kind: "allocated", reason: "the base was moving" } as const, extents: dataOf(to) };
      }
      const isUnshared = how === "unshared";
      const extents = extentsOf(to, (block, at) => {
        const old = from.blocks[at] ?? null;
        if (block === old) return undefined;
        if (block === null) return at < from.blocks.length ? "hole" : undefined;
        return isUnshared || old === null || !isSameBlock(block, old) ? "data" : undefined;
      });
      return { mode: { kind: "delta", unshared: isUnshared } as const, extents };
    });
  }

  private async allocated(volume: string, point: SealedPoint, signal: AbortSignal | undefined): Promise<Changes> {
    signal?.throwIfAborted();
    const mode = { kind: "allocated", reason: "everything allocated was asked for" } as const;
    return this.doors.step({ ...stepOf("allocated"), volume, point: point.point }, () => ({
      mode,
      extents: dataOf(this.sealed(volume, point)),
    }));
  }

  private async openPoint(volume: string, point: SealedPoint) {
    checkedName(point.point);
    checkedName(volume);
    const image = this.sealed(volume, point);
    return {
      sizeBytes: image.sizeBytes,
      fd: -1,
      read: async (offset: number, into: Uint8Array) => {
        checkRange(point.point, { offset, length: into.length }, image.sizeBytes);
        readBlocks(image, offset, into);
      },
      close: async () => undefined,
    };
  }

  // ---- staging -----------------------------------------------------------------------------------------------------

  private async stage(at: { volume: string; point: string }, base: BasePoint | undefined, sizeBytes: number) {
    place(at.volume, at.point);
    checkSize(at.point, sizeBytes);
    if (sizeBytes < (base?.identity.sizeBytes ?? 0)) throw bad(`${at.point} would be smaller than its base`);
    await this.closeAll(at);
    if (base !== undefined) this.sealed(base.volume ?? at.volume, base);
    await this.build("stage", at, "writable", () => {
      const image = newImage(0);
      if (base !== undefined) image.blocks = [...this.sealed(base.volume ?? at.volume, base).blocks];
      resize(image, sizeBytes);
      return image;
    });
  }

  private async openStaging(at: { volume: string; point: string }, sizeBytes: number): Promise<Staging> {
    place(at.volume, at.point);
    const image = this.disk.image(at);
    if (image === undefined || image.state === "unfinished" || image.sizeBytes !== sizeBytes) {
      throw new LongshoreError(
        "PointGone",
        `staging ${at.point} of ${at.volume} is missing, unfinished or of another size`,
      );
    }
    const staging = new OpenStaging(this.disk, this.doors, { at, image }, () => this.opened.delete(staging));
    this.opened.add(staging);
    return staging;
  }

  private async seal(at: Place): Promise<SealedIdentity> {
    place(at.volume, at.point);
    await this.closeAll(at);
    const found = () => {
      const image = this.disk.image(at);
      if (image !== undefined && image.state !== "unfinished") return image;
      throw new LongshoreError("PointGone", `${at.point} of ${at.volume} is ${image?.state ?? "missing"}`);
    };
    found();
    const sealing = () => {
      const image = found();
      image.unsynced.clear();
      image.state = "sealed";
      return { inode: image.inode, fsUuid: this.disk.fsUuid, sizeBytes: image.sizeBytes };
    };
    return this.doors.step({ ...stepOf("seal"), ...at, cutShort: [sealing] }, sealing);
  }

  private async closeAll(at: Place): Promise<void> {
    const open = [...this.opened].filter((staging) => staging.isAt(at));
    await Promise.all(open.map((staging) => staging.close()));
  }

  // ---- the inventory -----------------------------------------------------------------------------------------------

  private list(): FoundImage[] {
    return this.disk.places().map((at) => {
      const image = this.disk.image(at) as Image;
      const allocatedBytes = image.blocks.filter((block) => block !== null).length * blockBytes;
      const found = { volume: at.volume, sizeBytes: image.sizeBytes, allocatedBytes };
      return at.point === undefined ? { ...found, kind: "live" } : { ...found, kind: "point", point: at.point };
    });
  }

  private async quarantine(found: FoundImage): Promise<string> {
    const at = place(found.volume, found.kind === "point" ? (found.point ?? "") : undefined);
    const stem = `/sim/quarantine/${found.volume}.${found.kind === "point" ? found.point : "live"}`;
    const taken = [...this.disk.quarantined.keys()].filter((name) => name.startsWith(`${stem}.`));
    if (this.disk.image(at) === undefined) {
      const before = taken.at(-1);
      if (before !== undefined) return before;
      throw new LongshoreError(found.kind === "live" ? "VolumeGone" : "PointGone", `${stem} is gone`);
    }
    const to = `${stem}.${taken.length + 1}.img`;
    await this.change("quarantine", at, "none", () => {
      const image = this.disk.image(at);
      if (image !== undefined) this.disk.quarantined.set(to, image);
      this.disk.remove(at);
    });
    return to;
  }

  // ---- steps -------------------------------------------------------------------------------------------------------

  /** Makes an image under its final name; cut off, it leaves nothing, an unfinished one, or all of it. */
  private build(name: string, at: Place, finish: "writable" | "sealed", make: () => Image): Promise<void> {
    const whole = () => {
      const image = make();
      image.state = finish;
      this.disk.put(at, image);
    };
    const part = () => {
      const image = make();
      image.blocks.fill(null, Math.floor(image.blocks.length / 2));
      this.disk.put(at, image);
    };
    const nothing = () => this.disk.remove(at);
    return this.doors.step({ name, ...at, cutShort: [whole, part, nothing] }, () => {
      this.checkRoom(name, "room");
      whole();
    });
  }

  private change(name: string, at: Place, needs: Needs, apply: () => void): Promise<void> {
    return this.doors.step({ name, ...at, cutShort: [apply] }, () => {
      this.checkRoom(name, needs);
      apply();
    });
  }

  private checkRoom(name: string, needs: Needs): void {
    if (needs === "room" && this.disk.isFull) throw new LongshoreError("DiskFull", `cannot ${name}: the disk is full`);
  }
}

class OpenStaging implements Staging {
  readonly sizeBytes: number;
  readonly fd = -1;
  private readonly disk: MemoryDisk;
  private readonly doors: StorageDoors;
  private readonly at: Place;
  private readonly image: Image;
  private readonly forget: () => void;
  private readonly running = new Set<Promise<unknown>>();
  private closing: Promise<void> | undefined;

  constructor(disk: MemoryDisk, doors: StorageDoors, { at, image }: { at: Place; image: Image }, forget: () => void) {
    this.disk = disk;
    this.doors = doors;
    this.at = at;
    this.image = image;
    this.sizeBytes = image.sizeBytes;
    this.forget = forget;
  }

  get isSealed(): boolean {
    return this.image.state === "sealed";
  }

  isAt({ volume, point }: Place): boolean {
    return this.at.volume === volume && this.at.point === point;
  }

  write(offset: number, data: Uint8Array): Promise<void> {
    return this.run("write", () => {
      this.checkWritable(offset, data.length);
      if (this.disk.isFull) throw new LongshoreError("DiskFull", "cannot write: the disk is full");
      const content = this.doors.landed(Buffer.from(data.buffer, data.byteOffset, data.byteLength));
      writeBlocks(
        content,
        offset,
        (index) => this.image.blocks[index] ?? null,
        (index, block) => this.disk.write(this.image, index, block),
      );
    });
  }

  punch({ offset, length }: { offset: number; length: number }): Promise<void> {
    return this.run("punch", () => {
      this.checkWritable(offset, length);
      if (offset % blockBytes !== 0 || length % blockBytes !== 0) throw bad("a hole is made of whole blocks");
      for (let at = offset; at < offset + length; at += blockBytes) this.disk.write(this.image, at / blockBytes, null);
    });
  }

  async writeOut(): Promise<void> {
    // What is on its way may be lost all the same.
  }

  sync(): Promise<void> {
    return this.run("sync", () => this.image.unsynced.clear());
  }

  async digest(extents: readonly Extent[], _wanted: "media" | "memory"): Promise<Digest> {
    assert(this.closing === undefined, `staging ${this.at.point} was closed; it cannot be read back`);
    const hash = createHash("sha256");
    for (const { offset, length } of extents) {
      checkRange("staging", { offset, length }, this.sizeBytes);
      const into = Buffer.alloc(length);
      readBlocks(this.image, offset, into);
      hash.update(into);
    }
    return { digest: hash.digest("hex"), verified: "memory" };
  }

  close(): Promise<void> {
    this.closing ??= Promise.allSettled(this.running).then(() => this.forget());
    return this.closing;
  }

  private checkWritable(offset: number, length: number): void {
    if (this.image.state === "sealed") throw bad(`staging ${this.at.point} is sealed; it can only be read back`);
    checkRange("staging", { offset, length }, this.sizeBytes);
  }

  private async run(name: string, apply: () => void): Promise<void> {
    assert(this.closing === undefined, `staging ${this.at.point} was closed, sealed or deleted; cannot ${name}`);
    const task = this.doors.step({ name: `staging.${name}`, ...this.at, cutShort: [apply] }, apply);
    this.running.add(task);
    const forgetTask = () => this.running.delete(task);
    task.then(forgetTask, forgetTask);
    return task;
  }
}

// ---- blocks and extents --------------------------------------------------------------------------------------------

function readBlocks(image: Image, offset: number, into: Uint8Array): void {
  for (let done = 0; done < into.length; ) {
    const at = offset + done;
    const within = at % blockBytes;
    const length = Math.min(blockBytes - within, into.length - done);
    const block = image.blocks[(at - within) / blockBytes] ?? null;
    if (block === null) into.fill(0, done, done + length);
    else into.set(block.subarray(within, within + length), done);
    done += length;
  }
}

function writeBlocks(
  content: Buffer,
  offset: number,
  old: (index: number) => Block,
  put: (index: number, block: Buffer) => void,
): void {
  for (let done = 0; done < content.length; ) {
    const at = offset + done;
    const within = at % blockBytes;
    const length = Math.min(blockBytes - within, content.length - done);
    const part = content.subarray(done, done + length);
    const index = (at - within) / blockBytes;
    if (length === blockBytes) put(index, keptBlock(part));
    else {
      const mixed = Buffer.from(old(index) ?? Buffer.alloc(blockBytes));
      part.copy(mixed, within);
      put(index, mixed);
    }
    done += length;
  }
}

function dataOf(image: Image): ChangedExtent[] {
  return extentsOf(image, (block) => (block === null ? undefined : "data"));
}

/** Extents of what `kindOf` says of each block, merged. */
function extentsOf(
  image: Image,
  kindOf: (block: Block, index: number) => ChangedExtent["kind"] | undefined,
): ChangedExtent[] {
  const extents: { kind: ChangedExtent["kind"]; offset: number; length: number }[] = [];
  for (const [index, block] of image.blocks.entries()) {
    const kind = kindOf(block, index);
    if (kind === undefined) continue;
    const last = extents.at(-1);
    const offset = index * blockBytes;
    if (last?.kind === kind && last.offset + last.length === offset) last.length += blockBytes;
    else extents.push({ kind, offset, length: blockBytes });
  }
  return extents;
}

// ---- checks --------------------------------------------------------------------------------------------------------

const stepOf = (name: string) => ({ name, cutShort: [] });

function place(volume: string, point?: string): Place {
  return { volume: checkedName(volume), point: point === undefined ? undefined : checkedName(point) };
}

function checkedName(name: string): string {
  if (/^[a-z0-9-]{1,120}$/.test(name)) return name;
  throw bad(`${JSON.stringify(name)} is no name for a file of ours`);
}

function checkSize(name: string, sizeBytes: number): void {
  if (Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % blockBytes === 0) return;
  throw bad(`${name}: a size is a positive multiple of ${blockBytes}, not ${sizeBytes}`);
}

function checkRange(name: string, { offset, length }: { offset: number; length: number }, sizeBytes: number): void {
  if (Number.isSafeInteger(offset) && offset >= 0 && offset + length <= sizeBytes) return;
  throw bad(`${name}: [${offset}, +${length}) leaves its ${sizeBytes} bytes`);
}

function bad(message: string): LongshoreError {
  return new LongshoreError("BadRequest", message);
}
