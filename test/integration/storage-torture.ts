// One volume that is ill-treated at random, with what it must hold kept beside it: writes, holes, preallocation,
// truncation, clones within the image, defragmentation and balance, between snapshots that are then compared.
import { execFile } from "node:child_process";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import koffi from "koffi";
import { systemClock } from "../../src/base/clock.ts";
import type { Dice } from "../../src/base/dice.ts";
import { punchHole } from "../../src/native/file-calls.ts";
import {
  blockBytes,
  type ChangedExtent,
  type Changes,
  type SealedPoint,
  type StorageBackend,
} from "../../src/storage/backend.ts";
import { changesByMaps, fileMapper } from "../../src/storage/changed-extents.ts";
import type { Rules } from "../../src/storage/extent-diff.ts";

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

const libc = koffi.load("libc.so.6");
const ioctl = libc.func("ioctl", "int", ["int", "ulong", "void *"]);
const fallocate = libc.func("fallocate", "int", ["int", "int", "int64_t", "int64_t"]);

/** Clones a range of a file into another range of it (FICLONERANGE). */
export function cloneRange(fd: number, { from, to, length }: { from: number; to: number; length: number }): void {
  const argument = Buffer.alloc(32);
  argument.writeBigInt64LE(BigInt(fd), 0);
  argument.writeBigUInt64LE(BigInt(from), 8);
  argument.writeBigUInt64LE(BigInt(length), 16);
  argument.writeBigUInt64LE(BigInt(to), 24);
  if (ioctl(fd, 0x4020940d, argument) < 0) throw new Error(`FICLONERANGE failed: errno ${koffi.errno()}`);
}

function preallocate(fd: number, offset: number, length: number): void {
  const keepSize = 1;
  if (fallocate(fd, keepSize, offset, length) < 0) throw new Error(`fallocate failed: errno ${koffi.errno()}`);
}

export interface TortureOptions {
  readonly fs: "xfs" | "btrfs";
  readonly mount: string;
  readonly backend: StorageBackend;
  readonly dice: Dice;
  readonly volume: string;
  readonly sizeBytes: number;
  readonly sizeBytesMax: number;
}

/** How a comparison went wrong, or well. */
export interface Verdict {
  /** Blocks that differ and were not told, or were told with the wrong kind. */
  readonly missedBlocks: number;
  /** Blocks that differ. */
  readonly changedBlocks: number;
  /** Blocks told as data. */
  readonly toldBlocks: number;
  readonly mode: Changes["mode"]["kind"];
}

export type Act = (torture: Torture) => Promise<void>;

export class Torture {
  readonly options: TortureOptions;
  /** What the live image must hold. */
  content: Buffer;
  readonly points: { readonly sealed: SealedPoint; readonly content: Buffer }[] = [];
  private pointCount = 0;
  private readonly noisePool: Buffer;

  private constructor(options: TortureOptions) {
    this.options = options;
    this.content = Buffer.alloc(options.sizeBytes);
    this.noisePool = Buffer.from(options.dice.hex(64 * 1024 + 1), "hex");
  }

  /** Bytes that do not compress; hardly ever the same again. */
  noise(length: number): Buffer {
    const noise = Buffer.alloc(length, this.noisePool.subarray(this.integer(32 * 1024)));
    for (let at = 0; at + 4 <= length; at += blockBytes) noise.writeUInt32LE(this.integer(2 ** 32), at);
    return noise;
  }

  static async begin(options: TortureOptions): Promise<Torture> {
    await options.backend.create(options.volume, options.sizeBytes);
    return new Torture(options);
  }

  integer(below: number): number {
    return Math.floor(this.options.dice.random() * below);
  }

  block(): number {
    return this.integer(this.content.length / blockBytes) * blockBytes;
  }

  get livePath(): string {
    return this.options.backend.livePath(this.options.volume);
  }

  pointPath({ point }: SealedPoint): string {
    return join(this.livePath, "..", "points", `${point}.img`);
  }

  pick(acts: Readonly<Record<string, Act>>): Act {
    const names = Object.keys(acts);
    const act = acts[names[this.integer(names.length)] ?? ""];
    if (act === undefined) throw new Error("there are no acts to pick from");
    return act;
  }

  newest(): SealedPoint {
    const point = this.points.at(-1);
    if (point === undefined) throw new Error("no point was taken");
    return point.sealed;
  }

  async withLive(work: (live: fs.FileHandle) => Promise<void> | void): Promise<void> {
    const live = await fs.open(this.livePath, "r+");
    try {
      await work(live);
    } finally {
      await live.close();
    }
  }

  async write(live: fs.FileHandle, offset: number, data: Buffer): Promise<void> {
    const within = data.subarray(0, Math.max(0, this.content.length - offset));
    await live.write(within, 0, within.length, offset);
    within.copy(this.content, offset);
  }

  async snapshot(): Promise<SealedPoint> {
    const point = `p${++this.pointCount}`;
    const { identity } = await this.options.backend.snapshot(this.options.volume, point);
    const sealed = { point, identity };
    this.points.push({ sealed, content: Buffer.from(this.content) });
    return sealed;
  }

  /** Keeps the newest `count` points. */
  async prune(count: number): Promise<void> {
    for (const { sealed } of this.points.splice(0, Math.max(0, this.points.length - count))) {
      await this.options.backend.deletePoint(this.options.volume, sealed.point);
    }
  }

  async read(sealed: SealedPoint): Promise<Buffer> {
    const reader = await this.options.backend.openPoint(this.options.volume, sealed);
    try {
      const content = Buffer.alloc(reader.sizeBytes);
      await reader.read(0, content);
      return content;
    } finally {
      await reader.close();
    }
  }

  /** Compares two of our points as the backend does, or by the same maps under other rules, and judges the answer. */
  async judge(base: SealedPoint, next: SealedPoint, rules: Rules): Promise<Verdict> {
    const changes = await (rules === "sound"
      ? this.options.backend.changed(this.options.volume, base, next)
      : this.changedByRules(base, next, rules));
    return judged(await this.read(base), await this.read(next), changes);
  }

  private async changedByRules(base: SealedPoint, next: SealedPoint, rules: Rules): Promise<Changes> {
    const files = [await fs.open(this.pointPath(base), "r"), await fs.open(this.pointPath(next), "r")] as const;
    try {
      return await changesByMaps({
        base: fileMapper(files[0].fd, rules),
        next: fileMapper(files[1].fd, rules),
        baseBytes: base.identity.sizeBytes,
        nextBytes: next.identity.sizeBytes,
        clock: systemClock,
        signal: undefined,
      });
    } finally {
      for (const file of files) await file.close();
    }
  }

  /** Builds the next point from the base and the changes, as a target does, and answers what came out. */
  async rebuilt(base: SealedPoint, next: SealedPoint): Promise<Buffer> {
    const { backend, volume } = this.options;
    const { extents } = await backend.changed(volume, base, next);
    const content = await this.read(next);
    await backend.stage(volume, "rebuilt", base, content.length);
    const staging = await backend.openStaging(volume, "rebuilt", content.length);
    for (const extent of extents) {
      if (extent.kind === "hole") await staging.punch(extent);
      else await staging.write(extent.offset, content.subarray(extent.offset, extent.offset + extent.length));
    }
    await staging.sync();
    const identity = await backend.seal(volume, "rebuilt");
    const built = await this.read({ point: "rebuilt", identity });
    await backend.deletePoint(volume, "rebuilt");
    return built;
  }
}

/** Compares an answer with the bytes themselves. */
export function judged(base: Buffer, next: Buffer, { mode, extents }: Changes): Verdict {
  const told = new Map<number, ChangedExtent["kind"]>();
  for (const { kind, offset, length } of extents) {
    for (let at = offset; at < offset + length; at += blockBytes) told.set(at, kind);
  }
  const zeros = Buffer.alloc(blockBytes);
  let missedBlocks = 0;
  let changedBlocks = 0;
  for (let at = 0; at < next.length; at += blockBytes) {
    const [from, fromAt] = at < base.length ? [base, at] : [zeros, 0];
    const isChanged = next.compare(from, fromAt, fromAt + blockBytes, at, at + blockBytes) !== 0;
    if (isChanged) changedBlocks++;
    const kind = told.get(at);
    const isFalseHole = kind === "hole" && next.compare(zeros, 0, blockBytes, at, at + blockBytes) !== 0;
    if ((kind === undefined && isChanged) || isFalseHole) missedBlocks++;
  }
  const toldBlocks = [...told.values()].filter((kind) => kind === "data").length;
  return { missedBlocks, changedBlocks, toldBlocks, mode: mode.kind };
}

// ---- The acts -----------------------------------------------------------------------------------------------------

/** Noise, or text that compresses well, or zeros: each file system treats them differently. */
function bytes(torture: Torture, length: number): Buffer {
  const choice = torture.integer(8);
  if (choice === 0) return Buffer.alloc(length);
  if (choice < 4) return Buffer.alloc(length, `line ${torture.integer(1e9)} of some text that repeats itself\n`);
  return torture.noise(length);
}

const scatteredWrites: Act = (torture) =>
  torture.withLive(async (live) => {
    for (let count = torture.integer(120); count >= 0; count--) {
      await torture.write(live, torture.block(), bytes(torture, blockBytes));
    }
  });

const unalignedWrites: Act = (torture) =>
  torture.withLive(async (live) => {
    for (let count = torture.integer(20); count >= 0; count--) {
      const offset = torture.integer(torture.content.length);
      await torture.write(live, offset, bytes(torture, 1 + torture.integer(50_000)));
    }
  });

const largeWrite: Act = (torture) =>
  torture.withLive((live) => torture.write(live, torture.block(), bytes(torture, 2 ** 20 * (1 + torture.integer(3)))));

const sameContentAgain: Act = (torture) =>
  torture.withLive(async (live) => {
    const offset = torture.block();
    await torture.write(live, offset, Buffer.from(torture.content.subarray(offset, offset + 20 * blockBytes)));
  });

const syncNow: Act = (torture) => torture.withLive((live) => live.sync());

const holes: Act = (torture) =>
  torture.withLive(async (live) => {
    for (let count = torture.integer(10); count >= 0; count--) {
      const offset = torture.integer(torture.content.length);
      const length = 1 + torture.integer(200_000);
      await punchHole(live.fd, offset, length);
      torture.content.fill(0, offset, Math.min(offset + length, torture.content.length));
    }
  });

const preallocation: Act = (torture) =>
  torture.withLive((live) => {
    const offset = torture.block();
    preallocate(live.fd, offset, Math.min(blockBytes * (1 + torture.integer(100)), torture.content.length - offset));
  });

/** What a discard of the volume's end and a later write beyond it may come down to. */
const truncation: Act = (torture) =>
  torture.withLive(async (live) => {
    const size = torture.content.length;
    const cut = torture.integer(size);
    await live.truncate(cut);
    if (torture.integer(2) === 0) await live.sync();
    await live.truncate(size);
    torture.content.fill(0, cut);
  });

const growth: Act = async (torture) => {
  const size = Math.min(torture.options.sizeBytesMax, torture.content.length + blockBytes * torture.integer(300));
  await torture.options.backend.expand(torture.options.volume, size);
  torture.content = Buffer.concat([torture.content, Buffer.alloc(size - torture.content.length)]);
};

const clonesWithin: Act = (torture) =>
  torture.withLive((live) => {
    for (let count = torture.integer(12); count >= 0; count--) {
      const length = blockBytes * (1 + torture.integer(64));
      const [from, to] = [torture.block(), torture.block()];
      const fits = Math.max(from, to) + length <= torture.content.length && Math.abs(from - to) >= length;
      if (!fits) continue;
      cloneRange(live.fd, { from, to, length });
      torture.content.copyWithin(to, from, from + length);
    }
  });

/**
 * On a compressing btrfs both halves of a compressed extent are reported at one place. Here one half takes the other's
 * position: the place stays, the bytes change.
 */
export const halvesExchanged: Act = async (torture) => {
  const half = 64 * 1024;
  const [first, second] = [0, 2 ** 20];
  await torture.withLive(async (live) => {
    const line = (which: string) => Buffer.alloc(half, `${which} half ${torture.integer(1e9)}, repeated\n`);
    await torture.write(live, first, Buffer.concat([line("first"), line("second")]));
    await live.sync();
    cloneRange(live.fd, { from: first, to: second, length: 2 * half });
    torture.content.copyWithin(second, first, first + 2 * half);
    await torture.write(live, second, line("other"));
    await live.sync();
  });
  await torture.snapshot();
  await torture.withLive((live) => {
    cloneRange(live.fd, { from: first, to: second + half, length: half });
    torture.content.copyWithin(second + half, first, first + half);
  });
};

const defragmentedLive: Act = async ({ options, livePath }) => {
  if (options.fs === "xfs") await run("xfs_fsr", [livePath], { env });
  else await run("btrfs", ["filesystem", "defragment", "-f", "-t", "1M", livePath], { env });
};

/** Sealed files carry the immutable attribute, so this is refused; whatever it does must not matter. */
const defragmentedPoint: Act = async (torture) => {
  const { sealed } = torture.points[torture.integer(torture.points.length)] ?? {};
  if (sealed === undefined) return;
  const command = torture.options.fs === "xfs" ? ["xfs_fsr"] : ["btrfs", "filesystem", "defragment", "-f"];
  const [program = "", ...args] = [...command, torture.pointPath(sealed)];
  await run(program, args, { env }).catch(() => undefined);
};

const compressedLive: Act = async ({ livePath }) => {
  await run("btrfs", ["filesystem", "defragment", "-f", "-czstd", livePath], { env });
};

export const everywhere = {
  scatteredWrites,
  unalignedWrites,
  largeWrite,
  sameContentAgain,
  syncNow,
  holes,
  preallocation,
  truncation,
  growth,
  clonesWithin,
  defragmentedLive,
  defragmentedPoint,
};

// Btrfs never compresses a file again that once had preallocated blocks, so that act stays away from these.
const { preallocation: _, ...compressible } = everywhere;
export const onCompressingBtrfs = { ...compressible, compressedLive, halvesExchanged };

export const onBtrfs = { ...everywhere, compressedLive, halvesExchanged };

/** Moves every extent of the file system, again and again, while `work` runs. */
export async function duringBalance<T>(mount: string, work: () => Promise<T>): Promise<T> {
  let isDone = false;
  const balancing = (async () => {
    while (!isDone) await run("btrfs", ["balance", "start", "--full-balance", mount], { env });
  })();
  try {
    return await work();
  } finally {
    isDone = true;
    // "Not in progress" is as good as cancelled.
    await run("btrfs", ["balance", "cancel", mount], { env }).catch(() => undefined);
    await balancing.catch((error) => {
      if (!/canceled|cancelled/i.test(String(error))) throw error;
    });
  }
}
