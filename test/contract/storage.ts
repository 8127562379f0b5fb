// What every StorageBackend promises, whatever the mechanism and the file system below it.
import { createHash } from "node:crypto";
import { readSync } from "node:fs";
import * as fs from "node:fs/promises";
import { dirname, join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect } from "@jest/globals";
import { BugError } from "../../src/base/assert.ts";
import { type ErrorCode, LongshoreError } from "../../src/domain/errors.ts";
import {
  blockBytes,
  type ChangedExtent,
  type Changes,
  type FoundImage,
  type SealedPoint,
  type Staging,
  type StorageBackend,
} from "../../src/storage/backend.ts";
import { openBackend } from "../../src/storage/open.ts";
import { eventually } from "../e2e/process.ts";

/** Where a backend under test lives. */
export interface StorageGround {
  readonly kind: StorageBackend["kind"];
  /** A folder on the file system under test; emptied by `remove`. */
  readonly path: string;
  remove(): Promise<void>;
}

type TestFunction = () => Promise<void> | void;

export interface StorageContract {
  /** `test`, or what skips where the machine lacks the file system. */
  readonly it: (name: string, fn: TestFunction, timeoutMs?: number) => void;
  readonly open: () => Promise<StorageGround>;
}

const mebibyte = 2 ** 20;
const size = 4 * mebibyte;

let ground: StorageGround;
let root: string;
let backend: StorageBackend;
let rootCount = 0;

export function storageContract(implementation: string, { it, open }: StorageContract): void {
  describe(`the storage backend ${implementation}`, () => {
    beforeAll(async () => {
      ground = await open();
    });
    afterAll(async () => {
      await ground.remove();
    });
    beforeEach(async () => {
      root = join(ground.path, `root-${++rootCount}`);
      backend = await openBackend({ kind: ground.kind, root });
    });
    afterEach(async () => {
      await backend.close();
    });

    describe("names", () => names(it));
    describe("a volume", () => volumes(it));
    describe("what a volume is attached to", () => attachments(it));
    describe("a snapshot", () => snapshots(it));
    describe("a volume that nobody has attached, frozen,", () => freezing(it));
    describe("a sealed point", () => points(it));
    describe("what changed", () => changes(it));
    describe("staging", () => stagings(it));
    describe("sealing", () => sealing(it));
    describe("a clone", () => clones(it));
    describe("the inventory", () => inventory(it));
    describe("requests at once", () => atOnce(it));
  });
}

type It = StorageContract["it"];

// ---- Helpers ------------------------------------------------------------------------------------------------------

/** Resolves when `work` fails with `code`; the message must say something. */
async function refused(code: ErrorCode, work: Promise<unknown>): Promise<LongshoreError> {
  const error = await work.then(
    () => undefined,
    (thrown: unknown) => thrown,
  );
  expect(error).toBeInstanceOf(LongshoreError);
  const refusal = error as LongshoreError;
  expect(`${refusal.code}: ${refusal.message}`).toMatch(new RegExp(`^${code}: .{10,}`));
  return refusal;
}

/** Bytes without zeros in which no two blocks, and no two seeds, are alike. */
function filled(bytes: number, seed: number): Buffer {
  const data = Buffer.alloc(bytes, (seed % 250) + 1);
  for (let block = 0; block * blockBytes + 8 <= bytes; block++) {
    data.writeUInt32LE(block + 0x01010101, block * blockBytes);
    data.writeUInt32LE(seed + 0x01010101, block * blockBytes + 4);
  }
  return data;
}

async function writeLive(volume: string, offset: number, data: Uint8Array): Promise<void> {
  const live = await fs.open(backend.livePath(volume), "r+");
  await live.write(data, 0, data.length, offset);
  await live.close();
}

/** A volume with data at the start, in the middle and at the end, and holes between. */
async function makeVolume(volume = "vol"): Promise<string> {
  await backend.create(volume, size);
  await writeLive(volume, 0, filled(8 * blockBytes, 1));
  await writeLive(volume, mebibyte, filled(3 * blockBytes, 2));
  await writeLive(volume, size - blockBytes, filled(blockBytes, 3));
  return volume;
}

async function snap(volume: string, point: string): Promise<SealedPoint> {
  return { point, identity: (await backend.snapshot(volume, point)).identity };
}

async function contentOf(volume: string, point: SealedPoint): Promise<Buffer> {
  const reader = await backend.openPoint(volume, point);
  try {
    const content = Buffer.alloc(reader.sizeBytes);
    await reader.read(0, content);
    return content;
  } finally {
    await reader.close();
  }
}

function pathOf(volume: string, point: string): string {
  return join(root, "volumes", volume, "points", `${point}.img`);
}

async function exists(path: string): Promise<boolean> {
  return fs.lstat(path).then(
    () => true,
    () => false,
  );
}

async function found(volume: string, point?: string): Promise<FoundImage | undefined> {
  return (await backend.list()).find((image) => image.volume === volume && image.point === point);
}

/** What a crash in the middle of making an image leaves: a part of the content under the final name, mode 0000. */
async function leaveUnfinished(path: string): Promise<void> {
  await fs.mkdir(dirname(path), { recursive: true });
  await fs.writeFile(path, filled(5 * blockBytes, 99));
  await fs.chmod(path, 0);
}

/** Like somebody with too many rights: replaces or alters a sealed file, whatever protects it. */
async function tamper(path: string, how: (path: string) => Promise<void>): Promise<void> {
  if (ground.kind === "reflink") {
    const { setImmutable } = await import("../../src/native/file-calls.ts");
    const image = await fs.open(path, "r");
    setImmutable(image.fd, false);
    await image.close();
  }
  await fs.chmod(path, 0o600);
  await how(path);
}

function dataBytes(extents: Iterable<ChangedExtent>): number {
  return [...extents].filter(({ kind }) => kind === "data").reduce((sum, { length }) => sum + length, 0);
}

/** Checks a difference against the bytes themselves, and the form every difference has. */
function expectSound(base: Buffer, next: Buffer, changes: Changes): void {
  const extents = [...changes.extents];
  const rebuilt = Buffer.alloc(next.length);
  base.copy(rebuilt);
  let end = -1;
  for (const extent of extents) {
    expect([extent.offset % blockBytes, extent.length % blockBytes, extent.length > 0]).toEqual([0, 0, true]);
    expect(extent.offset).toBeGreaterThanOrEqual(Math.max(end, 0));
    end = extent.offset + extent.length;
    expect(end).toBeLessThanOrEqual(next.length);
    const content = next.subarray(extent.offset, end);
    if (extent.kind === "data") content.copy(rebuilt, extent.offset);
    else rebuilt.fill(0, extent.offset, end);
  }
  expect(rebuilt.equals(next)).toBe(true);
  for (const [index, extent] of extents.entries()) {
    const before = extents[index - 1];
    const touches = before?.kind === extent.kind && before.offset + before.length === extent.offset;
    expect(touches).toBe(false);
  }
}

// ---- The promises -------------------------------------------------------------------------------------------------

function names(it: It): void {
  const identity = { inode: "1.1", fsUuid: "x", sizeBytes: size };
  const calls: Record<string, (name: string) => Promise<unknown>> = {
    create: (name) => backend.create(name, size),
    expand: (name) => backend.expand(name, size),
    remove: (name) => backend.remove(name),
    attachedTo: (name) => backend.attachedTo(name),
    freeze: (name) => backend.freeze(name, 1_000),
    "snapshot (volume)": (name) => backend.snapshot(name, "p"),
    "snapshot (point)": (name) => backend.snapshot("vol", name),
    deletePoint: (name) => backend.deletePoint("vol", name),
    "clone (from)": (name) => backend.clone({ volume: name, point: "p", identity }, { volume: "b", sizeBytes: size }),
    "clone (to)": (name) => backend.clone({ volume: "a", point: "p", identity }, { volume: name, sizeBytes: size }),
    openPoint: (name) => backend.openPoint("vol", { point: name, identity }),
    stage: (name) => backend.stage("vol", name, undefined, size),
    openStaging: (name) => backend.openStaging("vol", name, size),
    seal: (name) => backend.seal("vol", name),
    quarantine: (volume) => backend.quarantine({ volume, kind: "live", sizeBytes: 0, allocatedBytes: 0 }),
  };
  for (const [call, invoke] of Object.entries(calls)) {
    it(`that could leave the folder, or are too long, are refused by ${call}`, async () => {
      for (const name of ["", ".", "..", "../x", "a/b", "a.b", "Upper", "ä", "a\0b", "x".repeat(121)]) {
        await refused("BadRequest", invoke(name));
      }
    });
  }

  it("of 120 characters work", async () => {
    const name = "n".repeat(120);
    await backend.create(name, size);
    await backend.snapshot(name, name);
    expect((await backend.list()).map((image) => image.point)).toEqual([undefined, name]);
  });
}

function volumes(it: It): void {
  it("begins as a hole of exactly its size", async () => {
    await backend.create("vol", size);
    const content = await fs.readFile(backend.livePath("vol"));
    expect(content.equals(Buffer.alloc(size))).toBe(true);
    expect(await found("vol")).toMatchObject({ kind: "live", sizeBytes: size, allocatedBytes: 0 });
  });

  it("made again with the same size keeps its content; another size is refused", async () => {
    await makeVolume();
    const before = await fs.readFile(backend.livePath("vol"));
    await backend.create("vol", size);
    await refused("BadRequest", backend.create("vol", size + blockBytes));
    expect((await fs.readFile(backend.livePath("vol"))).equals(before)).toBe(true);
  });

  it("has a positive size of whole blocks", async () => {
    for (const bad of [0, -blockBytes, 1, blockBytes + 1, size - 512, Number.NaN, Number.POSITIVE_INFINITY]) {
      await refused("BadRequest", backend.create("vol", bad));
      await refused("BadRequest", backend.stage("vol", "p", undefined, bad));
    }
    expect(await backend.list()).toEqual([]);
  });

  it("that a crash left unfinished is made anew", async () => {
    await leaveUnfinished(backend.livePath("vol"));
    await refused("VolumeGone", backend.snapshot("vol", "p"));
    await refused("VolumeGone", backend.expand("vol", size));
    await backend.create("vol", size);
    const content = await fs.readFile(backend.livePath("vol"));
    expect(content.equals(Buffer.alloc(size))).toBe(true);
  });

  it("grows, keeps its content, and reads zeros beyond", async () => {
    await makeVolume();
    const before = await fs.readFile(backend.livePath("vol"));
    await backend.expand("vol", 2 * size);
    await backend.expand("vol", 2 * size);
    const after = await fs.readFile(backend.livePath("vol"));
    expect(after.length).toBe(2 * size);
    expect(after.subarray(0, size).equals(before)).toBe(true);
    expect(after.subarray(size).equals(Buffer.alloc(size))).toBe(true);
  });

  it("never shrinks", async () => {
    await makeVolume();
    const refusal = await refused("BadRequest", backend.expand("vol", size - blockBytes));
    expect(refusal.message).toContain("shrink");
    expect((await fs.stat(backend.livePath("vol"))).size).toBe(size);
  });

  it("that is not there is gone", async () => {
    await refused("VolumeGone", backend.expand("nobody", size));
    await refused("VolumeGone", backend.snapshot("nobody", "p"));
    expect(await backend.list()).toEqual([]);
  });

  it("is removed with its folder, twice as well as once, but not with its points", async () => {
    await makeVolume();
    const point = await snap("vol", "p");
    const before = await contentOf("vol", point);
    await backend.remove("vol");
    await backend.remove("vol");
    expect(await backend.list()).toMatchObject([{ volume: "vol", kind: "point", point: "p" }]);
    expect((await contentOf("vol", point)).equals(before)).toBe(true);
    await backend.deletePoint("vol", "p");
    await backend.remove("vol");
    expect(await exists(join(root, "volumes", "vol"))).toBe(false);
  });
}

function attachments(it: It): void {
  it("is told while somebody has its image open for writing, and no longer", async () => {
    await makeVolume();
    expect(await backend.attachedTo("vol")).toBeUndefined();
    const writer = await fs.open(backend.livePath("vol"), "r+");
    expect(await backend.attachedTo("vol")).toMatch(/open for writing/);
    await writer.close();
    expect(await backend.attachedTo("vol")).toBeUndefined();
  });

  it("is not what reads it, nor what makes it larger", async () => {
    await makeVolume();
    const reader = await fs.open(backend.livePath("vol"), "r");
    const [, user] = await Promise.all([backend.expand("vol", 2 * size), backend.attachedTo("vol")]);
    expect(user).toBeUndefined();
    await reader.close();
  });

  it("is nothing for an image that is not there, or was never finished", async () => {
    expect(await backend.attachedTo("nobody")).toBeUndefined();
    await leaveUnfinished(backend.livePath("unfinished"));
    expect(await backend.attachedTo("unfinished")).toBeUndefined();
  });
}

function snapshots(it: It): void {
  it("holds what the volume held, and goes on holding it", async () => {
    await makeVolume();
    const before = await fs.readFile(backend.livePath("vol"));
    const point = await snap("vol", "p");
    await writeLive("vol", 0, filled(size, 9));
    expect((await contentOf("vol", point)).equals(before)).toBe(true);
    expect(point.identity.sizeBytes).toBe(size);
  });

  it("includes what was written the moment before, still in memory", async () => {
    await makeVolume();
    await writeLive("vol", 2 * mebibyte, filled(mebibyte, 5));
    const point = await snap("vol", "p");
    const content = await contentOf("vol", point);
    expect(content.subarray(2 * mebibyte, 3 * mebibyte).equals(filled(mebibyte, 5))).toBe(true);
  });

  it("keeps holes as holes", async () => {
    await makeVolume();
    await snap("vol", "p");
    const image = await found("vol", "p");
    expect(image).toMatchObject({ kind: "point", sizeBytes: size });
    expect(image?.allocatedBytes).toBeLessThan(mebibyte);
  });

  it("asked for again is the one that was taken, not a new one", async () => {
    await makeVolume();
    const { identity } = await backend.snapshot("vol", "p");
    const before = await contentOf("vol", { point: "p", identity });
    await writeLive("vol", 0, filled(mebibyte, 9));
    expect(await backend.snapshot("vol", "p")).toEqual({ identity, stallMs: 0 });
    expect((await contentOf("vol", { point: "p", identity })).equals(before)).toBe(true);
  });

  it("that a crash left unfinished is taken anew", async () => {
    await makeVolume();
    await leaveUnfinished(pathOf("vol", "p"));
    const point = await snap("vol", "p");
    expect((await contentOf("vol", point)).equals(await fs.readFile(backend.livePath("vol")))).toBe(true);
  });

  it("of a volume that somebody cut in the middle of a block is refused", async () => {
    await makeVolume();
    await fs.truncate(backend.livePath("vol"), size - 1);
    await refused("BadRequest", backend.snapshot("vol", "p"));
    expect(await exists(pathOf("vol", "p"))).toBe(false);
  });

  it("tells how long it held writers up", async () => {
    await makeVolume();
    const { stallMs } = await backend.snapshot("vol", "p");
    expect(Number.isFinite(stallMs) && stallMs > 0).toBe(true);
  });

  it("of an attached volume is taken by reflink, and refused by copy without leaving anything", async () => {
    await makeVolume();
    const attached = await fs.open(backend.livePath("vol"), "r+");
    try {
      if (backend.kind === "reflink") await backend.snapshot("vol", "p");
      else await refused("VolumeBusy", backend.snapshot("vol", "p"));
      expect(await exists(pathOf("vol", "p"))).toBe(backend.kind === "reflink");
    } finally {
      await attached.close();
    }
    await backend.snapshot("vol", "p");
  });

  it("does not keep a volume from being opened and written afterwards", async () => {
    await makeVolume();
    await backend.snapshot("vol", "p");
    await writeLive("vol", 0, filled(blockBytes, 8));
    await backend.expand("vol", 2 * size);
  });
}

function freezing(it: It): void {
  const ample = 60_000;
  const openForWriting = () => fs.open(backend.livePath("vol"), "r+");

  /** Until somebody waits for a lease on the file: the kernel lists it as one that is being broken. */
  async function untilKeptOff(path: string): Promise<void> {
    const { ino } = await fs.stat(path);
    await eventually("the writer being kept off", async () => {
      const locks = (await fs.readFile("/proc/locks", "utf8")).split("\n");
      return locks.some((line) => line.includes("BREAKING") && line.includes(`:${ino} `)) || undefined;
    });
  }

  it("stays so until it is thawed, and its snapshot may be taken meanwhile", async () => {
    await makeVolume();
    const before = await fs.readFile(backend.livePath("vol"));
    const frozen = await backend.freeze("vol", ample);
    expect(frozen.isMounted).toBe(false);
    const point = await snap("vol", "p");
    const thaw = await frozen.thaw();
    expect(thaw.wasFrozen).toBe(true);
    expect(await frozen.thaw()).toEqual(thaw);
    expect((await contentOf("vol", point)).equals(before)).toBe(true);
  });

  it("keeps off whoever wants to write to it, and tells that somebody wanted to", async () => {
    await makeVolume();
    const frozen = await backend.freeze("vol", ample);
    let isOpen = false;
    const writer = openForWriting().then((file) => {
      isOpen = true;
      return file.close();
    });
    await untilKeptOff(backend.livePath("vol"));
    await backend.list();
    expect(isOpen).toBe(false);
    expect(await frozen.thaw()).toMatchObject({ wasFrozen: false });
    await writer;
  });

  it("is thawed by its own timer", async () => {
    await makeVolume();
    const frozen = await backend.freeze("vol", 50);
    // The kernel lets it in when the timer has thawed.
    await (await openForWriting()).close();
    expect(await frozen.thaw()).toMatchObject({ wasFrozen: false });
  });

  it("is frozen by one at a time, and again when it was thawed", async () => {
    await makeVolume();
    const frozen = await backend.freeze("vol", ample);
    await refused("VolumeBusy", backend.freeze("vol", ample));
    await frozen.thaw();
    const again = await backend.freeze("vol", ample);
    expect(await again.thaw()).toMatchObject({ wasFrozen: true });
  });

  it("is refused while its image is open for writing, or is not there", async () => {
    await makeVolume();
    const writer = await openForWriting();
    await refused("VolumeBusy", backend.freeze("vol", ample));
    await writer.close();
    await refused("VolumeGone", backend.freeze("nobody", ample));
    await leaveUnfinished(backend.livePath("unfinished"));
    await refused("VolumeGone", backend.freeze("unfinished", ample));
    await (await backend.freeze("vol", ample)).thaw();
  });

  it("is thawed when the backend is closed", async () => {
    await makeVolume();
    await backend.freeze("vol", ample);
    await backend.close();
    await (await openForWriting()).close();
  });
}

function points(it: It): void {
  it("reads exactly the range asked for", async () => {
    await makeVolume();
    const point = await snap("vol", "p");
    const whole = await contentOf("vol", point);
    const reader = await backend.openPoint("vol", point);
    for (const [offset, length] of [
      [0, 1],
      [1, 4096],
      [mebibyte - 5, 10],
      [size - 1, 1],
      [size, 0],
    ] as const) {
      const part = Buffer.alloc(length);
      await reader.read(offset, part);
      expect(part.equals(whole.subarray(offset, offset + length))).toBe(true);
    }
    await reader.close();
  });

  it("refuses to read outside the image", async () => {
    await makeVolume();
    const reader = await backend.openPoint("vol", await snap("vol", "p"));
    for (const [offset, length] of [
      [size, 1],
      [size - 1, 2],
      [-1, 1],
      [Number.NaN, 1],
      [0.5, 1],
    ] as const) {
      await refused("BadRequest", reader.read(offset, Buffer.alloc(length)));
    }
    await reader.close();
  });

  it("stays readable for who has it open while it is deleted", async () => {
    await makeVolume();
    const point = await snap("vol", "p");
    const before = await contentOf("vol", point);
    const reader = await backend.openPoint("vol", point);
    await backend.deletePoint("vol", "p");
    await backend.deletePoint("vol", "p");
    const after = Buffer.alloc(size);
    await reader.read(0, after);
    expect(after.equals(before)).toBe(true);
    await reader.close();
    await refused("PointGone", backend.openPoint("vol", point));
  });

  it("cannot be opened for writing", async () => {
    await makeVolume();
    await snap("vol", "p");
    const isAlmighty = process.getuid?.() === 0 && backend.kind === "copy";
    const writing = fs.open(pathOf("vol", "p"), "r+").then((file) => file.close());
    await writing.then(
      () => expect(isAlmighty).toBe(true),
      (error) => expect(error.code).toMatch(/EPERM|EACCES/),
    );
    expect((await fs.stat(pathOf("vol", "p"))).mode & 0o777).toBe(0o444);
  });

  const tampering: Record<string, (path: string) => Promise<void>> = {
    "is missing": (path) => fs.rm(path),
    "was replaced by another file of its size": async (path) => {
      await fs.rm(path);
      await fs.writeFile(path, Buffer.alloc(size));
      await fs.chmod(path, 0o444);
    },
    "was replaced by a copy of itself": async (path) => {
      await fs.copyFile(path, `${path}.copy`);
      await fs.chmod(`${path}.copy`, 0o444);
      await fs.rename(`${path}.copy`, path);
    },
    "was cut": async (path) => {
      await fs.truncate(path, size - blockBytes);
      await fs.chmod(path, 0o444);
    },
    "was made writable": (path) => fs.chmod(path, 0o644),
    "is being made anew": (path) => fs.chmod(path, 0),
    "was replaced by a link to somewhere": async (path) => {
      await fs.rename(path, `${path}.away`);
      await fs.symlink(`${path}.away`, path);
    },
    "was replaced by a folder": async (path) => {
      await fs.rm(path);
      await fs.mkdir(path);
    },
    "lost the folder it was in": (path) => fs.rm(dirname(path), { recursive: true }),
  };
  for (const [what, how] of Object.entries(tampering)) {
    it(`that ${what} is gone, for every use`, async () => {
      await makeVolume();
      const [point, other] = [await snap("vol", "p"), await snap("vol", "q")];
      if (what.startsWith("lost")) await tamper(pathOf("vol", "q"), async () => undefined);
      await tamper(pathOf("vol", "p"), how);
      await refused("PointGone", backend.openPoint("vol", point));
      await refused("PointGone", backend.changed("vol", point, other));
      await refused("PointGone", backend.changed("vol", other, point));
      await refused("PointGone", backend.allocated("vol", point));
      await refused("PointGone", backend.stage("vol", "s", point, size));
      await refused("PointGone", backend.clone({ volume: "vol", ...point }, { volume: "c", sizeBytes: size }));
      expect(await exists(pathOf("vol", "s"))).toBe(false);
      expect(await exists(backend.livePath("c"))).toBe(false);
    });
  }

  it("recorded on another file system is gone", async () => {
    await makeVolume();
    const { point, identity } = await snap("vol", "p");
    await refused("PointGone", backend.openPoint("vol", { point, identity: { ...identity, fsUuid: "elsewhere" } }));
  });

  it("is the same point after a restart", async () => {
    await makeVolume();
    const point = await snap("vol", "p");
    const before = await contentOf("vol", point);
    backend = await openBackend({ kind: ground.kind, root });
    expect((await contentOf("vol", point)).equals(before)).toBe(true);
    expect(await snap("vol", "p")).toEqual(point);
  });
}

function changes(it: It): void {
  const hole = async (offset: number, length: number) => {
    const { punchHole } = await import("../../src/native/file-calls.ts");
    const live = await fs.open(backend.livePath("vol"), "r+");
    await punchHole(live.fd, offset, length);
    await live.close();
  };
  const b = blockBytes;
  const scenarios: Record<string, [() => Promise<void>, ChangedExtent[]]> = {
    "nothing happened": [async () => undefined, []],
    "a block was written": [() => writeLive("vol", 2 * b, filled(b, 7)), [{ kind: "data", offset: 2 * b, length: b }]],
    "a few bytes were written across two blocks": [
      () => writeLive("vol", 2 * b - 3, filled(6, 7)),
      [{ kind: "data", offset: b, length: 2 * b }],
    ],
    "a hole was written to": [
      () => writeLive("vol", 2 * mebibyte, filled(2 * b, 7)),
      [{ kind: "data", offset: 2 * mebibyte, length: 2 * b }],
    ],
    "data was discarded": [() => hole(mebibyte, 2 * b), [{ kind: "hole", offset: mebibyte, length: 2 * b }]],
    "a hole was punched into a hole": [() => hole(2 * mebibyte, mebibyte), []],
    "the last block was written": [
      () => writeLive("vol", size - b, filled(b, 8)),
      [{ kind: "data", offset: size - b, length: b }],
    ],
    "it grew": [() => backend.expand("vol", 2 * size), []],
    "it grew and was written beyond the old end": [
      async () => {
        await backend.expand("vol", 2 * size);
        await writeLive("vol", size, filled(b, 5));
        await writeLive("vol", 2 * size - b, filled(b, 5));
      },
      [
        { kind: "data", offset: size, length: b },
        { kind: "data", offset: 2 * size - b, length: b },
      ],
    ],
    "neighbours were written and discarded": [
      async () => {
        await writeLive("vol", 0, filled(2 * b, 7));
        await hole(2 * b, b);
        await writeLive("vol", 3 * b, filled(b, 7));
      },
      [
        { kind: "data", offset: 0, length: 2 * b },
        { kind: "hole", offset: 2 * b, length: b },
        { kind: "data", offset: 3 * b, length: b },
      ],
    ],
  };
  for (const [what, [act, expected]] of Object.entries(scenarios)) {
    it(`when ${what} is told exactly`, async () => {
      await makeVolume();
      const base = await snap("vol", "base");
      await act();
      const next = await snap("vol", "next");
      const changed = await backend.changed("vol", base, next);
      expectSound(await contentOf("vol", base), await contentOf("vol", next), changed);
      expect(changed.mode).toEqual({ kind: "delta", unshared: false });
      expect([...changed.extents]).toEqual(expected);
    });
  }

  it("backwards, from a larger to a smaller point, stays within the smaller", async () => {
    await makeVolume();
    const small = await snap("vol", "small");
    await backend.expand("vol", 2 * size);
    await writeLive("vol", size - 2 * b, filled(4 * b, 6));
    const large = await snap("vol", "large");
    const changed = await backend.changed("vol", large, small);
    const smallContent = await contentOf("vol", small);
    expectSound((await contentOf("vol", large)).subarray(0, size), smallContent, changed);
    expect([...changed.extents]).toEqual([
      { kind: "hole", offset: size - 2 * b, length: b },
      { kind: "data", offset: size - b, length: b },
    ]);
  });

  it("between a point and itself is nothing", async () => {
    await makeVolume();
    const point = await snap("vol", "p");
    expect([...(await backend.changed("vol", point, point)).extents]).toEqual([]);
  });

  it("ends when it is told to", async () => {
    await makeVolume();
    const [base, next] = [await snap("vol", "base"), await snap("vol", "next")];
    const reason = new Error("enough");
    const ended = AbortSignal.abort(reason);
    await expect(backend.changed("vol", base, next, ended)).rejects.toBe(reason);
    await expect(backend.allocated("vol", base, ended)).rejects.toBe(reason);
  });

  it("since ever is what is allocated: all data and no holes", async () => {
    await makeVolume();
    const point = await snap("vol", "p");
    const content = await contentOf("vol", point);
    const allocated = await backend.allocated("vol", point);
    expect(allocated.mode.kind).toBe("allocated");
    expect(new Set(Array.from(allocated.extents, ({ kind }) => kind))).toEqual(new Set(["data"]));
    expectSound(Buffer.alloc(size), content, allocated);
    expect(dataBytes(allocated.extents)).toBe(12 * b);
  });

  it("since ever in an empty volume is nothing", async () => {
    await backend.create("vol", size);
    expect([...(await backend.allocated("vol", await snap("vol", "p"))).extents]).toEqual([]);
  });
}

async function staged(point = "s", base?: SealedPoint, sizeBytes = size): Promise<Staging> {
  await backend.stage("vol", point, base, sizeBytes);
  return backend.openStaging("vol", point, sizeBytes);
}

async function stagedContent(staging: Staging): Promise<Buffer> {
  const content = Buffer.alloc(staging.sizeBytes);
  readSync(staging.fd, content, 0, content.length, 0);
  return content;
}

function stagings(it: It): void {
  it("without a base begins as zeros, all holes", async () => {
    const staging = await staged();
    expect((await stagedContent(staging)).equals(Buffer.alloc(size))).toBe(true);
    expect((await found("vol", "s"))?.allocatedBytes).toBe(0);
  });

  it("on a base begins with its content, grown by zeros", async () => {
    await makeVolume();
    const base = await snap("vol", "base");
    const staging = await staged("s", base, 2 * size);
    const expected = Buffer.concat([await contentOf("vol", base), Buffer.alloc(size)]);
    expect((await stagedContent(staging)).equals(expected)).toBe(true);
    expect((await found("vol", "s"))?.allocatedBytes).toBeLessThan(mebibyte);
  });

  it("that was told of beforehand is the same", async () => {
    await makeVolume();
    const base = await snap("vol", "base");
    const before = await backend.list();
    backend.stageSoon("vol", base);
    backend.stageSoon("vol", base);
    expect(await backend.list()).toEqual(before);
    await leaveUnfinished(pathOf("vol", "s"));
    const staging = await staged("s", base, 2 * size);
    const expected = Buffer.concat([await contentOf("vol", base), Buffer.alloc(size)]);
    expect((await stagedContent(staging)).equals(expected)).toBe(true);
    await staging.write(0, filled(blockBytes, 9));
    await staging.close();
    await backend.seal("vol", "s");
    expect((await contentOf("vol", base)).equals(expected.subarray(0, size))).toBe(true);
  });

  it("that was told of beforehand on one base is made of another one as well, or of none", async () => {
    await makeVolume();
    const [base, other] = [await snap("vol", "base"), await snap("vol", "other")];
    await writeLive("vol", 0, filled(blockBytes, 9));
    const newer = await snap("vol", "newer");
    for (const told of [base, other]) {
      backend.stageSoon("vol", told);
      const staging = await staged("s", newer);
      expect((await stagedContent(staging)).equals(await contentOf("vol", newer))).toBe(true);
    }
    backend.stageSoon("vol", base);
    expect((await stagedContent(await staged())).equals(Buffer.alloc(size))).toBe(true);
  });

  it("that was told of beforehand on a base that is gone is refused as any other", async () => {
    await makeVolume();
    const base = await snap("vol", "base");
    await backend.deletePoint("vol", "base");
    backend.stageSoon("vol", base);
    await refused("PointGone", backend.stage("vol", "s", base, size));
    expect(await backend.list()).toHaveLength(1);
  });

  it("that was told of beforehand, and never made, leaves nothing behind", async () => {
    await makeVolume();
    const base = await snap("vol", "base");
    const before = await backend.list();
    backend.stageSoon("vol", base);
    await backend.close();
    backend = await openBackend({ kind: ground.kind, root });
    expect(await backend.list()).toEqual(before);
  });

  it("never shrinks its base", async () => {
    await makeVolume();
    const base = await snap("vol", "base");
    await refused("BadRequest", backend.stage("vol", "s", base, size - blockBytes));
    backend.stageSoon("vol", base);
    await refused("BadRequest", backend.stage("vol", "s", base, size - blockBytes));
    expect(await found("vol", "s")).toBeUndefined();
  });

  it("leaves its base as it was", async () => {
    await makeVolume();
    const base = await snap("vol", "base");
    const before = await contentOf("vol", base);
    const staging = await staged("s", base);
    await staging.write(0, filled(mebibyte, 4));
    await staging.punch({ offset: mebibyte, length: mebibyte });
    await staging.sync();
    await staging.close();
    expect((await contentOf("vol", base)).equals(before)).toBe(true);
  });

  it("made again forgets the earlier try, open, unfinished or sealed", async () => {
    const first = await staged();
    await first.write(0, filled(blockBytes, 1));
    const second = await staged();
    expect((await stagedContent(second)).equals(Buffer.alloc(size))).toBe(true);
    await expect(first.write(0, filled(blockBytes, 1))).rejects.toThrow(BugError);

    await second.write(0, filled(blockBytes, 1));
    await backend.seal("vol", "s");
    expect((await stagedContent(await staged())).equals(Buffer.alloc(size))).toBe(true);

    await backend.deletePoint("vol", "s");
    await leaveUnfinished(pathOf("vol", "s"));
    await refused("PointGone", backend.openStaging("vol", "s", 5 * blockBytes));
    await refused("PointGone", backend.seal("vol", "s"));
    expect((await stagedContent(await staged())).equals(Buffer.alloc(size))).toBe(true);
  });

  it("is opened again with what was written", async () => {
    const staging = await staged();
    await staging.write(blockBytes, filled(blockBytes, 4));
    await staging.sync();
    await staging.close();
    backend = await openBackend({ kind: ground.kind, root });
    const again = await backend.openStaging("vol", "s", size);
    expect(again.isSealed).toBe(false);
    expect((await stagedContent(again)).subarray(blockBytes, 2 * blockBytes).equals(filled(blockBytes, 4))).toBe(true);
    await again.close();
    await again.close();
  });

  it("that is not there, or has another size, is gone", async () => {
    await refused("PointGone", backend.openStaging("vol", "s", size));
    await backend.stage("vol", "s", undefined, size);
    await refused("PointGone", backend.openStaging("vol", "s", size + blockBytes));
  });

  it("takes writes of any length within it, many at once", async () => {
    const staging = await staged();
    const expected = Buffer.alloc(size);
    const writes = Array.from({ length: 64 }, (_, index) => ({ offset: index * 60_001, data: filled(50_000, index) }));
    for (const { offset, data } of writes) data.copy(expected, offset);
    await Promise.all(writes.map(({ offset, data }) => staging.write(offset, data)));
    await staging.sync();
    expect((await stagedContent(staging)).equals(expected)).toBe(true);
  });

  it("refuses to be written, punched or read outside its range, or punched in parts of blocks", async () => {
    const staging = await staged();
    await refused("BadRequest", staging.write(size - 1, Buffer.alloc(2)));
    await refused("BadRequest", staging.write(-1, Buffer.alloc(1)));
    await refused("BadRequest", staging.digest([{ offset: size, length: blockBytes }], "media"));
    for (const [offset, length] of [
      [size, blockBytes],
      [-blockBytes, blockBytes],
      [0, 2 * size],
      [1, blockBytes],
      [0, 5],
    ] as const) {
      await refused("BadRequest", staging.punch({ offset, length }));
    }
    expect((await fs.stat(pathOf("vol", "s"))).size).toBe(size);
  });

  it("punched has a hole that reads as zeros and takes no space", async () => {
    const staging = await staged();
    const data = filled(size, 3);
    await staging.write(0, data);
    await staging.sync();
    await staging.punch({ offset: mebibyte, length: 2 * mebibyte });
    await staging.sync();
    data.fill(0, mebibyte, 3 * mebibyte);
    expect((await stagedContent(staging)).equals(data)).toBe(true);
    expect((await found("vol", "s"))?.allocatedBytes).toBeLessThan(2.5 * mebibyte);
  });

  it("is read back in any pieces, and says from where", async () => {
    const staging = await staged();
    const data = filled(size, 6);
    await staging.write(0, data);
    await staging.sync();
    const ranges = [
      [0, size],
      [1, 4095],
      [4095, 2],
      [mebibyte - 1, mebibyte + 2],
      [size - 1, 1],
      [0, 0],
    ] as const;
    const sha256 = (pieces: readonly (readonly [number, number])[]) => {
      const hash = createHash("sha256");
      for (const [offset, length] of pieces) hash.update(data.subarray(offset, offset + length));
      return hash.digest("hex");
    };
    const extents = (pieces: readonly (readonly [number, number])[]) =>
      pieces.map(([offset, length]) => ({ offset, length }));
    const blocks = [
      [0, blockBytes],
      [3 * blockBytes, 300 * blockBytes],
      [size - blockBytes, blockBytes],
    ] as const;
    for (const pieces of [...ranges.map((range) => [range]), ranges, blocks, []]) {
      const media = await staging.digest(extents(pieces), "media");
      expect(["media", "memory"]).toContain(media.verified);
      expect(media.digest).toBe(sha256(pieces));
      expect(await staging.digest(extents(pieces), "memory")).toEqual({ digest: sha256(pieces), verified: "memory" });
    }
  });

  it("that is deleted while open is closed", async () => {
    const staging = await staged();
    await backend.deletePoint("vol", "s");
    await expect(staging.write(0, filled(1, 1))).rejects.toThrow(BugError);
    expect(await backend.list()).toEqual([]);
  });
}

function sealing(it: It): void {
  it("makes staging a point in place, and again the same", async () => {
    const staging = await staged();
    await staging.write(0, filled(mebibyte, 3));
    await staging.sync();
    await staging.close();
    const identity = await backend.seal("vol", "s");
    expect(await backend.seal("vol", "s")).toEqual(identity);
    const content = await contentOf("vol", { point: "s", identity });
    expect(content.subarray(0, mebibyte).equals(filled(mebibyte, 3))).toBe(true);
    expect(await backend.list()).toMatchObject([{ kind: "point", point: "s", sizeBytes: size }]);
  });

  it("waits for writes that were begun, and closes the image for later ones", async () => {
    const staging = await staged();
    const writing = staging.write(0, filled(size, 3));
    const identity = await backend.seal("vol", "s");
    await writing;
    await expect(staging.write(0, filled(1, 1))).rejects.toThrow(BugError);
    await expect(staging.punch({ offset: 0, length: blockBytes })).rejects.toThrow(BugError);
    await staging.close();
    expect((await contentOf("vol", { point: "s", identity })).equals(filled(size, 3))).toBe(true);
  });

  it("leaves an image that can be read back but not written", async () => {
    const staging = await staged();
    await staging.write(0, filled(blockBytes, 3));
    await backend.seal("vol", "s");
    const again = await backend.openStaging("vol", "s", size);
    expect(again.isSealed).toBe(true);
    await refused("BadRequest", again.write(0, filled(1, 1)));
    await refused("BadRequest", again.punch({ offset: 0, length: blockBytes }));
    expect((await stagedContent(again)).subarray(0, blockBytes).equals(filled(blockBytes, 3))).toBe(true);
  });

  it("what is not there is refused", async () => {
    await refused("PointGone", backend.seal("vol", "s"));
  });

  it("a base with the changes written into it gives the next point", async () => {
    await makeVolume();
    const base = await snap("vol", "base");
    await writeLive("vol", 2 * mebibyte, filled(mebibyte / 2, 6));
    await writeLive("vol", blockBytes, filled(10, 6));
    await backend.expand("vol", 2 * size);
    await writeLive("vol", size + mebibyte, filled(blockBytes, 6));
    const next = await snap("vol", "next");
    const { extents } = await backend.changed("vol", base, next);
    const content = await contentOf("vol", next);
    const staging = await staged("copy", base, 2 * size);
    for (const extent of extents) {
      if (extent.kind === "hole") await staging.punch(extent);
      else await staging.write(extent.offset, content.subarray(extent.offset, extent.offset + extent.length));
    }
    await staging.sync();
    const identity = await backend.seal("vol", "copy");
    expect((await contentOf("vol", { point: "copy", identity })).equals(content)).toBe(true);
    await backend.remove("vol");
    expect((await contentOf("vol", { point: "copy", identity })).equals(content)).toBe(true);
  });
}

function clones(it: It): void {
  const to = { volume: "clone", sizeBytes: 2 * size };
  const cloned = () => fs.readFile(backend.livePath("clone"));

  it("holds the point's content and zeros beyond, and can be written without touching the point", async () => {
    await makeVolume();
    const point = await snap("vol", "p");
    const before = await contentOf("vol", point);
    await backend.clone({ volume: "vol", ...point }, to);
    expect((await cloned()).equals(Buffer.concat([before, Buffer.alloc(size)]))).toBe(true);
    await writeLive("clone", 0, filled(mebibyte, 9));
    expect((await contentOf("vol", point)).equals(before)).toBe(true);
  });

  it("asked for again is left alone, even when its point is gone", async () => {
    await makeVolume();
    const point = await snap("vol", "p");
    await backend.clone({ volume: "vol", ...point }, to);
    await writeLive("clone", 0, filled(mebibyte, 9));
    const written = await cloned();
    await backend.clone({ volume: "vol", ...point }, to);
    await backend.deletePoint("vol", "p");
    await backend.clone({ volume: "vol", ...point }, to);
    expect((await cloned()).equals(written)).toBe(true);
  });

  it("that a crash left unfinished is made anew", async () => {
    await makeVolume();
    const point = await snap("vol", "p");
    await leaveUnfinished(backend.livePath("clone"));
    await backend.clone({ volume: "vol", ...point }, to);
    expect((await cloned()).subarray(0, size).equals(await contentOf("vol", point))).toBe(true);
  });

  it("is at least as large as its point, and of one size", async () => {
    await makeVolume();
    const from = { volume: "vol", ...(await snap("vol", "p")) };
    await refused("BadRequest", backend.clone(from, { volume: "clone", sizeBytes: size - blockBytes }));
    expect(await exists(backend.livePath("clone"))).toBe(false);
    await backend.clone(from, to);
    await refused("BadRequest", backend.clone(from, { volume: "clone", sizeBytes: size }));
  });

  it("is a volume like any other", async () => {
    await makeVolume();
    await backend.clone({ volume: "vol", ...(await snap("vol", "p")) }, to);
    const base = await snap("clone", "base");
    await writeLive("clone", size, filled(blockBytes, 7));
    const { extents } = await backend.changed("clone", base, await snap("clone", "next"));
    expect([...extents]).toEqual([{ kind: "data", offset: size, length: blockBytes }]);
    await backend.remove("clone");
  });

  it("differs from the point it was made of in what was written to it, though that is another volume's", async () => {
    await makeVolume();
    const base = { volume: "vol", ...(await snap("vol", "p")) };
    await backend.clone(base, to);
    const untouched = await snap("clone", "untouched");
    expect([...(await backend.changed("clone", base, untouched)).extents]).toEqual([]);
    await writeLive("vol", 0, filled(size, 8));
    await writeLive("clone", size, filled(blockBytes, 7));
    const next = await snap("clone", "next");
    const changed = await backend.changed("clone", base, next);
    expect(changed.mode).toEqual({ kind: "delta", unshared: false });
    expect([...changed.extents]).toEqual([{ kind: "data", offset: size, length: blockBytes }]);
    await refused("PointGone", backend.changed("clone", { ...base, volume: "nobody" }, next));
    await refused("PointGone", backend.changed("clone", { point: base.point, identity: base.identity }, next));
  });

  it("can be brought to a new volume on top of the point it was made of, which stays as it was", async () => {
    await makeVolume();
    const base = { volume: "vol", ...(await snap("vol", "p")) };
    const before = await contentOf("vol", base);
    await backend.stage("copy", "s", base, 2 * size);
    const staging = await backend.openStaging("copy", "s", 2 * size);
    expect((await stagedContent(staging)).equals(Buffer.concat([before, Buffer.alloc(size)]))).toBe(true);
    expect((await found("copy", "s"))?.allocatedBytes).toBeLessThan(mebibyte);
    await staging.write(0, filled(mebibyte, 9));
    await staging.sync();
    await staging.close();
    const identity = await backend.seal("copy", "s");
    expect((await contentOf("vol", base)).equals(before)).toBe(true);
    await backend.deletePoint("vol", "p");
    const content = await contentOf("copy", { point: "s", identity });
    expect(content.subarray(0, mebibyte).equals(filled(mebibyte, 9))).toBe(true);
    expect(content.subarray(mebibyte, size).equals(before.subarray(mebibyte))).toBe(true);
    await refused("PointGone", backend.stage("copy", "t", base, size));
  });
}

function inventory(it: It): void {
  it("names every image, finished or not, and nothing else", async () => {
    await makeVolume("b-vol");
    await backend.create("a-vol", size);
    await backend.snapshot("b-vol", "p2");
    await backend.snapshot("b-vol", "p1");
    await backend.stage("c-vol", "s", undefined, 2 * size);
    await leaveUnfinished(pathOf("c-vol", "t"));
    await fs.writeFile(join(root, "volumes", "a-vol", "notes.txt"), "by a person");
    await fs.mkdir(join(root, "volumes", "lost+found"));
    await fs.writeFile(join(root, "volumes", "b-vol", "points", "Strange.img"), "");
    const images = (await backend.list()).map(({ volume, kind, point, sizeBytes }) =>
      [volume, kind, point, sizeBytes / blockBytes].join(" "),
    );
    expect(images).toEqual([
      "a-vol live  1024",
      "b-vol live  1024",
      "b-vol point p1 1024",
      "b-vol point p2 1024",
      "c-vol point s 2048",
      "c-vol point t 5",
    ]);
  });

  it("moves an image to the quarantine with its content, sealed or live, and asked again says where", async () => {
    await makeVolume();
    await snap("vol", "p");
    const content = await fs.readFile(backend.livePath("vol"));
    for (const image of await backend.list()) {
      const where = await backend.quarantine(image);
      expect(dirname(where)).toBe(join(root, "quarantine"));
      expect((await fs.readFile(where)).equals(content)).toBe(true);
      expect(await backend.quarantine(image)).toBe(where);
    }
    expect(await backend.list()).toEqual([]);
    expect(await exists(join(root, "volumes", "vol"))).toBe(false);
  });

  it("keeps what is in the quarantine already", async () => {
    const places: string[] = [];
    for (let round = 0; round < 3; round++) {
      await backend.stage("vol", "p", undefined, size + round * blockBytes);
      const [image] = await backend.list();
      places.push(await backend.quarantine(image as FoundImage));
    }
    const sizes = await Promise.all(places.map(async (place) => (await fs.stat(place)).size));
    expect(sizes).toEqual([size, size + blockBytes, size + 2 * blockBytes]);
  });

  it("cannot move what is not there", async () => {
    const image = { volume: "vol", sizeBytes: 0, allocatedBytes: 0 };
    await refused("VolumeGone", backend.quarantine({ ...image, kind: "live" }));
    await refused("PointGone", backend.quarantine({ ...image, kind: "point", point: "p" }));
  });

  it("knows the space of its file system", async () => {
    const { freeBytes, totalBytes } = await backend.space();
    expect(freeBytes).toBeGreaterThan(size);
    expect(totalBytes).toBeGreaterThan(freeBytes);
  });
}

/** A request is repeated when its answer was lost, while the first may still be running. */
function atOnce(it: It): void {
  it("for one snapshot take one", async () => {
    await makeVolume();
    const taken = await Promise.all(Array.from({ length: 8 }, () => backend.snapshot("vol", "p")));
    expect(new Set(taken.map(({ identity }) => JSON.stringify(identity))).size).toBe(1);
    const point = await snap("vol", "p");
    expect((await contentOf("vol", point)).equals(await fs.readFile(backend.livePath("vol")))).toBe(true);
  });

  it("for one volume or clone make one", async () => {
    await makeVolume();
    const from = { volume: "vol", ...(await snap("vol", "p")) };
    const made = Array.from({ length: 6 }, () => [
      backend.create("other", size),
      backend.clone(from, { volume: "clone", sizeBytes: size }),
    ]);
    await Promise.all(made.flat());
    expect((await backend.list()).map(({ volume, kind }) => `${volume} ${kind}`)).toEqual([
      "clone live",
      "other live",
      "vol live",
      "vol point",
    ]);
    expect((await fs.readFile(backend.livePath("clone"))).equals(await contentOf("vol", from))).toBe(true);
  });

  it("to make and to delete points leave those that were made last", async () => {
    await makeVolume();
    for (let round = 0; round < 5; round++) {
      const names = ["a", "b", "c", "d"];
      const made = names.map((name) => backend.stage("migrated", name, undefined, size));
      const removed = [backend.deletePoint("migrated", "a"), backend.remove("migrated")];
      const again = [backend.stage("migrated", "a", undefined, size), backend.deletePoint("migrated", "b")];
      await Promise.all([...made, ...removed, ...again]);
      const left = (await backend.list()).filter(({ volume }) => volume === "migrated").map(({ point }) => point);
      expect(left).toEqual(["a", "c", "d"]);
      for (const name of left) await backend.deletePoint("migrated", name ?? "");
      await backend.remove("migrated");
    }
  });
}

// ---- A full disk --------------------------------------------------------------------------------------------------

/** What holds when the disk is full; `open` gives a small file system that may be filled. */
export function diskFullContract(implementation: string, { it, open }: StorageContract): void {
  describe(`a full disk under the storage backend ${implementation}`, () => {
    beforeEach(async () => {
      ground = await open();
      root = join(ground.path, "root");
      backend = await openBackend({ kind: ground.kind, root });
    });
    afterEach(async () => {
      await backend.close();
      await ground.remove();
    });

    it("is told by writes into staging, which go on where they stopped when there is space again", async () => {
      await backend.stage("vol", "s", undefined, 64 * mebibyte);
      const staging = await backend.openStaging("vol", "s", 64 * mebibyte);
      await staging.write(0, filled(mebibyte, 1));
      await staging.sync();
      await fill();
      const writing = async () => {
        for (let at = 1; at < 64; at++) await staging.write(at * mebibyte, filled(mebibyte, at));
        await staging.sync();
      };
      await refused("DiskFull", writing());
      await makeRoom();
      await staging.write(mebibyte, filled(mebibyte, 2));
      await staging.sync();
      expect(
        (await stagedContent(staging))
          .subarray(0, 2 * mebibyte)
          .equals(Buffer.concat([filled(mebibyte, 1), filled(mebibyte, 2)])),
      ).toBe(true);
    });

    it("leaves nothing half of what could not be made", async () => {
      await makeVolume();
      await writeLive("vol", 0, filled(2 * mebibyte, 1));
      const point = await snap("vol", "p");
      await fill();
      const before = await backend.list();
      const attempts: [string, Promise<unknown>][] = [];
      const attempted = async (path: string, work: Promise<unknown>) => {
        attempts.push([path, work]);
        await work.catch(() => undefined);
      };
      await attempted(pathOf("vol", "q"), backend.snapshot("vol", "q"));
      await attempted(pathOf("vol", "s"), backend.stage("vol", "s", point, size));
      await attempted(
        backend.livePath("c"),
        backend.clone({ volume: "vol", ...point }, { volume: "c", sizeBytes: size }),
      );
      // Sharing extents needs hardly any space, so a reflink may succeed where a copy cannot.
      let failures = 0;
      for (const [path, work] of attempts) {
        const isMade = await work.then(
          () => true,
          () => false,
        );
        if (!isMade) await refused("DiskFull", work);
        if (!isMade) failures++;
        expect(await exists(path)).toBe(isMade);
      }
      expect(failures).toBe(backend.kind === "copy" ? 3 : failures);
      expect((await contentOf("vol", point)).length).toBe(size);
      await makeRoom();
      for (const image of await backend.list()) {
        const isOld = before.some((old) => old.volume === image.volume && old.point === image.point);
        if (!isOld && image.kind === "point") await backend.deletePoint(image.volume, image.point ?? "");
      }
      expect((await snap("vol", "q")).identity.sizeBytes).toBe(size);
    });

    it("does not keep points from being deleted", async () => {
      await makeVolume();
      await writeLive("vol", 0, filled(2 * mebibyte, 1));
      await snap("vol", "p");
      await fill();
      await backend.deletePoint("vol", "p");
      expect(await found("vol", "p")).toBeUndefined();
    });
  });
}

const ballast = () => join(ground.path, "ballast");

/** Writes until nothing goes any more, down to the last block. */
async function fill(): Promise<void> {
  const file = await fs.open(ballast(), "a");
  for (let bytes = 4 * mebibyte; bytes >= 512; bytes /= 2) {
    const isFull = async () => {
      try {
        const { bytesWritten } = await file.write(filled(bytes, 1));
        await file.sync();
        return bytesWritten < bytes;
      } catch (error) {
        expect((error as NodeJS.ErrnoException).code).toBe("ENOSPC");
        return true;
      }
    };
    while (!(await isFull()));
  }
  await file.close();
}

async function makeRoom(): Promise<void> {
  await fs.rm(ballast());
  const folder = await fs.open(ground.path, "r");
  await folder.sync();
  await folder.close();
}
