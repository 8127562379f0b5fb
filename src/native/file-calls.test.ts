import * as fs from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { type LoopFs, mountLoop } from "../../test/fakes/loop-fs.ts";
import { thawNow } from "../../test/fakes/mounted-image.ts";
import { type TemporaryFolder, temporaryFolder } from "../../test/fakes/temporary-folder.ts";
import { needs } from "../../test/needs.ts";
import { errnoOf } from "../base/system-error.ts";
import { mountsHere } from "../storage/mounts.ts";
import {
  alignedBuffer,
  cloneWhole,
  dropCache,
  extentSizeHint,
  fiemap,
  freezeFileSystem,
  giveName,
  hasReadLease,
  isImmutable,
  loopBacking,
  namelessFlags,
  openDirectFlags,
  punchHole,
  releaseLease,
  seek,
  setExtentSizeHint,
  setImmutable,
  sharingFileSystem,
  startReading,
  startWriteOut,
  syncFileSystem,
  takeReadLease,
  thawFileSystem,
} from "./file-calls.ts";
import { extentFlags } from "./reported-extent.ts";

const block = 4096;
let temporary: TemporaryFolder;
let folder: string;
beforeAll(async () => {
  temporary = await temporaryFolder("native");
  folder = temporary.path;
});
afterAll(async () => {
  await temporary.remove();
});

/** Opens a file of 64 blocks with data in blocks 0..3 and 32..33, on disk. */
async function sparseFile(path: string): Promise<fs.FileHandle> {
  const file = await fs.open(path, "w+");
  await file.write(Buffer.alloc(4 * block, 1), 0, 4 * block, 0);
  await file.write(Buffer.alloc(2 * block, 2), 0, 2 * block, 32 * block);
  await file.truncate(64 * block);
  await file.sync();
  return file;
}

async function errnoIn(work: () => unknown): Promise<string | undefined> {
  try {
    await work();
    return undefined;
  } catch (error) {
    return errnoOf(error);
  }
}

test("a call that fails says which, and why, also from the pool", async () => {
  const notOpen = 1_000_000;
  await expect(punchHole(notOpen, 0, block)).rejects.toMatchObject({
    code: "EBADF",
    syscall: "fallocate",
    message: "EBADF: bad file descriptor, fallocate",
  });
  await expect(fiemap(notOpen, { offset: 0, length: block })).rejects.toMatchObject({ code: "EBADF" });
  await expect(cloneWhole(notOpen, notOpen)).rejects.toMatchObject({ code: "EBADF" });
  for (const call of [setImmutable, setExtentSizeHint, takeReadLease, sharingFileSystem] as const) {
    expect(() => (call as (fd: number, argument: number) => unknown)(notOpen, 1)).toThrow(/EBADF/);
  }
  expect(() => dropCache(notOpen, 0, 0)).toThrow(/EBADF/);
  expect(() => startReading(notOpen, 0, 0)).toThrow(/EBADF/);
  expect(() => seek(notOpen, 0, "data")).toThrow(/EBADF/);
});

test("a file without a name gets one that is free, and goes when it has none", async () => {
  const path = join(folder, "named");
  const image = await fs.open(folder, namelessFlags, 0o600);
  await image.write(Buffer.alloc(block, 7), 0, block, 0);
  const before = await fs.readdir(folder);
  giveName(image.fd, path);
  expect((await fs.readdir(folder)).sort()).toEqual([...before, "named"].sort());
  expect((await fs.readFile(path)).equals(Buffer.alloc(block, 7))).toBe(true);
  const other = await fs.open(folder, namelessFlags, 0o600);
  expect(await errnoIn(() => giveName(other.fd, path))).toBe("EEXIST");
  expect(await errnoIn(() => giveName(-1, join(folder, "nothing")))).toBe("ENOENT");
  await image.close();
  await other.close();
  expect(await fs.readdir(folder)).toHaveLength(before.length + 1);
});

test("each of many calls at once in the pool gets its own errno", async () => {
  const file = await sparseFile(join(folder, "many"));
  const calls = Array.from({ length: 40 }, (_, index) =>
    errnoIn(() => (index % 2 === 0 ? punchHole(1_000_000, 0, block) : punchHole(file.fd, -1, block))),
  );
  expect(new Set((await Promise.all(calls)).map((errno, index) => `${index % 2} ${errno}`))).toEqual(
    new Set(["0 EBADF", "1 EINVAL"]),
  );
  await file.close();
});

test("seeking finds the next data and the next hole", async () => {
  const file = await sparseFile(join(folder, "seek"));
  expect(seek(file.fd, 0, "hole")).toBe(4 * block);
  expect(seek(file.fd, 4 * block, "data")).toBe(32 * block);
  expect(seek(file.fd, 33 * block, "hole")).toBe(34 * block);
  expect(seek(file.fd, 34 * block, "data")).toBeUndefined();
  expect(seek(file.fd, 64 * block, "data")).toBeUndefined();
  await file.close();
});

test("a punched hole reads as zeros, and the size stays", async () => {
  const file = await sparseFile(join(folder, "punch"));
  await punchHole(file.fd, block, 2 * block);
  const content = await fs.readFile(join(folder, "punch"));
  expect(content.length).toBe(64 * block);
  expect(content.subarray(block, 3 * block).equals(Buffer.alloc(2 * block))).toBe(true);
  expect(content[3 * block]).toBe(1);
  expect(seek(file.fd, 0, "hole")).toBe(block);
  await file.close();
});

test("the map of a file names its extents, as many as asked for, from where it is asked", async () => {
  const file = await sparseFile(join(folder, "map"));
  const mapped = async (range: Parameters<typeof fiemap>[1]) => [...(await fiemap(file.fd, range))];
  const whole = await mapped({ offset: 0, length: 64 * block });
  expect(whole.map(({ logical, length }) => [logical, length])).toEqual([
    [0, 4 * block],
    [32 * block, 2 * block],
  ]);
  expect(new Set(whole.map(({ physical }) => physical)).size).toBe(2);
  expect((whole.at(-1)?.flags ?? 0) & extentFlags.last).toBe(extentFlags.last);
  expect(await mapped({ offset: 0, length: 64 * block, extentsMax: 1 })).toEqual(whole.slice(0, 1));
  expect(await mapped({ offset: 5 * block, length: 60 * block })).toEqual(whole.slice(1));
  expect(await mapped({ offset: 5 * block, length: block })).toEqual([]);
  await file.close();
});

test("what is written out or read ahead of time is the same afterwards", async () => {
  const file = await sparseFile(join(folder, "ahead"));
  await startWriteOut(file.fd, 0, 64 * block);
  startReading(file.fd, 0, 64 * block);
  expect((await fs.readFile(join(folder, "ahead")))[32 * block]).toBe(2);
  await file.close();
});

test("dropping a file's cache leaves its content", async () => {
  const file = await sparseFile(join(folder, "drop"));
  dropCache(file.fd, 0, 64 * block);
  expect((await fs.readFile(join(folder, "drop")))[32 * block]).toBe(2);
  await file.close();
});

test.each([0, 16, 4096])("memory aligned at byte %i serves a read past the page cache from there", async (aligned) => {
  await (await sparseFile(join(folder, "direct"))).close();
  const file = await fs.open(join(folder, "direct"), openDirectFlags);
  const memory = alignedBuffer(aligned + block, aligned);
  expect(memory).toHaveLength(aligned + block);
  expect((await file.read(memory, aligned, block, 0)).bytesRead).toBe(block);
  expect(memory[aligned]).toBe(1);
  await file.close();
});

describe("a read lease", () => {
  test("is refused while the file is open for writing, also by ourselves", async () => {
    const path = join(folder, "leased");
    const writer = await sparseFile(path);
    const reader = await fs.open(path, "r");
    expect(takeReadLease(reader.fd)).toBe(false);
    await writer.close();
    expect(takeReadLease(reader.fd)).toBe(true);
    expect(hasReadLease(reader.fd)).toBe(true);
    releaseLease(reader.fd);
    expect(hasReadLease(reader.fd)).toBe(false);
    await reader.close();
  });

  test("is seen to break when somebody wants to write, who goes on once it is released", async () => {
    const path = join(folder, "broken");
    await (await sparseFile(path)).close();
    const reader = await fs.open(path, "r");
    expect(takeReadLease(reader.fd)).toBe(true);
    const opening = fs.open(path, "r+");
    while (hasReadLease(reader.fd)) await new Promise((resolve) => setImmediate(resolve));
    releaseLease(reader.fd);
    await (await opening).close();
    await reader.close();
  });

  test("allows other readers", async () => {
    const path = join(folder, "shared");
    await (await sparseFile(path)).close();
    const reader = await fs.open(path, "r");
    expect(takeReadLease(reader.fd)).toBe(true);
    expect((await fs.readFile(path)).length).toBe(64 * block);
    expect(hasReadLease(reader.fd)).toBe(true);
    releaseLease(reader.fd);
    await reader.close();
  });
});

for (const type of ["xfs", "btrfs"] as const) {
  describe(`on ${type}`, () => {
    const it = needs("root", type);
    let loop: LoopFs;
    beforeAll(async () => {
      loop = await mountLoop({ fs: type, sizeBytes: 400 * 2 ** 20 });
    });
    afterAll(async () => {
      await loop.unmount();
    });

    it("the file system says who it is, the same for every file", async () => {
      const [file, other] = [await sparseFile(join(loop.path, "a")), await fs.open(loop.path, "r")];
      const fileSystem = sharingFileSystem(file.fd);
      expect(fileSystem).toMatchObject({ type, canShareExtents: true });
      expect(fileSystem?.uuid).toMatch(/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/);
      expect(fileSystem?.uuid).not.toMatch(/^0{8}/);
      expect(sharingFileSystem(other.fd)).toEqual(fileSystem);
      await file.close();
      await other.close();
    });

    it("a clone shares the places of all extents", async () => {
      const source = await sparseFile(join(loop.path, "source"));
      const target = await fs.open(join(loop.path, "target"), "w+");
      await cloneWhole(source.fd, target.fd);
      const places = async (file: fs.FileHandle) =>
        [...(await fiemap(file.fd, { offset: 0, length: 64 * block }))].map(({ physical }) => physical);
      expect(await places(target)).toEqual(await places(source));
      expect((await fs.readFile(join(loop.path, "target"))).equals(await fs.readFile(join(loop.path, "source")))).toBe(
        true,
      );
      await source.close();
      await target.close();
    });

    it("an immutable file is not written, renamed or removed until it is mutable again", async () => {
      const path = join(loop.path, "immutable");
      const file = await sparseFile(path);
      expect(isImmutable(file.fd)).toBe(false);
      setImmutable(file.fd, true);
      expect(isImmutable(file.fd)).toBe(true);
      for (const act of [() => fs.open(path, "r+"), () => fs.rename(path, `${path}.2`), () => fs.unlink(path)]) {
        expect(await errnoIn(act)).toBe("EPERM");
      }
      setImmutable(file.fd, false);
      await file.close();
      await fs.unlink(path);
    });

    it("an extent size hint is kept by XFS and refused by btrfs", async () => {
      const file = await fs.open(join(loop.path, "hinted"), "w+");
      expect(extentSizeHint(file.fd)).toBe(0);
      const refusal = await errnoIn(() => setExtentSizeHint(file.fd, 65536));
      expect(refusal).toBe(type === "xfs" ? undefined : "EOPNOTSUPP");
      expect(extentSizeHint(file.fd)).toBe(type === "xfs" ? 65536 : 0);
      await file.close();
    });
  });
}

test("a file system that is neither XFS nor btrfs is not taken for one", async () => {
  const zero = await fs.open("/dev/zero", "r");
  expect(sharingFileSystem(zero.fd)).toBeUndefined();
  await zero.close();
});

describe("a file system that is frozen", () => {
  let disk: LoopFs | undefined;
  afterAll(async () => {
    if (disk === undefined) return;
    thawNow(disk.path);
    await disk.unmount();
  });

  needs("root")("is so until it is thawed, cannot be frozen twice, and says whether it was", async () => {
    disk = await mountLoop({ fs: "ext4", sizeBytes: 16 * 2 ** 20 });
    const root = await fs.open(disk.path, "r");
    await syncFileSystem(root.fd);
    expect(await thawFileSystem(root.fd)).toBe(false);
    await freezeFileSystem(root.fd);
    expect(await errnoIn(() => freezeFileSystem(root.fd))).toBe("EBUSY");
    expect(await thawFileSystem(root.fd)).toBe(true);
    expect(await thawFileSystem(root.fd)).toBe(false);
    await root.close();
  });

  needs("root")("cannot be one without a device", async () => {
    const proc = await fs.open("/proc/self", "r");
    expect(await errnoIn(() => freezeFileSystem(proc.fd))).toBe("EOPNOTSUPP");
    await proc.close();
  });
});

needs("root")("a loop device tells which file is behind it", async () => {
  const disk = await mountLoop({ fs: "ext4", sizeBytes: 16 * 2 ** 20 });
  try {
    const mount = (await mountsHere()).find(({ path }) => path === disk.path);
    const device = await fs.open(mount?.source ?? "", "r");
    const image = await fs.stat(join(disk.path, "../image"), { bigint: true });
    expect(loopBacking(device.fd)).toEqual({ device: image.dev, inode: image.ino });
    await device.close();
  } finally {
    await disk.unmount();
  }
});

test("what is no loop device has no file behind it", async () => {
  const file = await fs.open(join(folder, "no-loop"), "w+");
  expect(await errnoIn(() => loopBacking(file.fd))).toBe("ENOTTY");
  await file.close();
});
