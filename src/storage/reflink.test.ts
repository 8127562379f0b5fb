import { execFileSync } from "node:child_process";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect } from "@jest/globals";
import { type LoopFs, mountLoop } from "../../test/fakes/loop-fs.ts";
import { needs } from "../../test/needs.ts";
import { extentSizeHint, isImmutable, syncFileSystem } from "../native/file-calls.ts";
import type { SealedPoint, StorageBackend } from "./backend.ts";
import { openBackend } from "./open.ts";

const mebibyte = 2 ** 20;
const size = 8 * mebibyte;

for (const type of ["xfs", "btrfs"] as const) {
  describe(`reflink on ${type}`, () => {
    const it = needs("root", type);
    let loop: LoopFs;
    let backend: StorageBackend;
    let volumeCount = 0;
    let volume: string;

    beforeAll(async () => {
      loop = await mountLoop({ fs: type, sizeBytes: 512 * mebibyte });
      backend = await openBackend({ kind: "reflink", root: join(loop.path, "root") });
    });
    afterAll(async () => {
      await backend.close();
      await loop.unmount();
    });
    beforeEach(async () => {
      volume = `vol-${++volumeCount}`;
      await backend.create(volume, size);
    });

    const write = async (offset: number, data: Buffer) => {
      const live = await fs.open(backend.livePath(volume), "r+");
      await live.write(data, 0, data.length, offset);
      await live.close();
    };
    const snap = async (point: string): Promise<SealedPoint> => {
      return { point, identity: (await backend.snapshot(volume, point)).identity };
    };

    it("blocks rewritten with what they held are no change, and many of them are told as lost sharing", async () => {
      await write(0, Buffer.alloc(4 * mebibyte, 1));
      const base = await snap("base");
      await write(0, Buffer.alloc(4 * mebibyte, 1));
      const { mode, extents } = await backend.changed(volume, base, await snap("next"));
      expect(mode).toEqual({ kind: "delta", unshared: true });
      expect([...extents]).toEqual([]);
    });

    it("scattered blocks written into staging take no more room than they need", async () => {
      const large = `${volume}-large`;
      await backend.create(large, 64 * mebibyte);
      const live = await fs.open(backend.livePath(large), "r+");
      await live.write(Buffer.alloc(64 * mebibyte, 1));
      await live.close();
      const base = { point: "base", identity: (await backend.snapshot(large, "base")).identity };
      await backend.stage(large, "next", base, 64 * mebibyte);
      const free = async () => {
        await syncFileSystem(staging.fd);
        const { bavail, bsize } = await fs.statfs(loop.path);
        return bavail * bsize;
      };
      const staging = await backend.openStaging(large, "next", 64 * mebibyte);
      const before = await free();
      for (let at = 0; at < 64; at++) await staging.write(at * mebibyte, Buffer.alloc(4096, 2));
      expect(before - (await free())).toBeLessThan(2 * mebibyte);
      await staging.close();
    });

    it("a delta of blocks that differ is not, nor is a small one", async () => {
      await write(0, Buffer.alloc(4 * mebibyte, 1));
      const base = await snap("base");
      await write(0, Buffer.alloc(4 * mebibyte, 2));
      const next = await snap("next");
      expect((await backend.changed(volume, base, next)).mode).toEqual({ kind: "delta", unshared: false });
      await write(0, Buffer.alloc(8 * 4096, 2));
      expect((await backend.changed(volume, next, await snap("last"))).mode).toEqual({
        kind: "delta",
        unshared: false,
      });
    });

    it("a volume of very many extents is compared in windows, exactly", async () => {
      const live = await fs.open(backend.livePath(volume), "r+");
      await live.write(Buffer.alloc(size, 1), 0, size, 0);
      await backend.expand(volume, 64 * mebibyte);
      // Every other block of its own, so that neither map fits one call.
      const writeEveryOther = async (value: number, step: number) => {
        for (let at = 0; at < 64 * mebibyte; at += step) await live.write(Buffer.alloc(4096, value), 0, 4096, at);
      };
      await writeEveryOther(2, 8192);
      const base = await snap("base");
      await writeEveryOther(3, 7 * 8192);
      await live.close();
      const { mode, extents } = await backend.changed(volume, base, await snap("next"));
      expect(mode).toEqual({ kind: "delta", unshared: false });
      const expected = Array.from({ length: Math.ceil((64 * mebibyte) / (7 * 8192)) }, (_, index) => index * 7 * 8192);
      expect([...extents].map(({ offset }) => offset)).toEqual(expected);
    });

    it("a sealed point carries the immutable attribute; what is staged anew does not", async () => {
      const point = await snap("p");
      const path = join(backend.livePath(volume), "..", "points", "p.img");
      const flagOf = async () => {
        const image = await fs.open(path, "r");
        const isOn = isImmutable(image.fd);
        await image.close();
        return isOn;
      };
      expect(await flagOf()).toBe(true);
      await backend.stage(volume, point.point, undefined, size);
      expect(await flagOf()).toBe(false);
      await backend.seal(volume, point.point);
      expect(await flagOf()).toBe(true);
    });

    it("live images allocate in larger pieces where the file system can be asked to", async () => {
      const { point, identity } = await snap("p");
      await backend.clone({ volume, point, identity }, { volume: `${volume}-clone`, sizeBytes: size });
      for (const name of [volume, `${volume}-clone`]) {
        const live = await fs.open(backend.livePath(name), "r");
        expect(extentSizeHint(live.fd)).toBe(type === "xfs" ? 65536 : 0);
        await live.close();
      }
    });
  });
}

needs("root", "btrfs")("a quota that is used up is a full disk", async () => {
  const loop = await mountLoop({ fs: "btrfs", sizeBytes: 256 * mebibyte });
  const btrfs = (...args: string[]) => {
    execFileSync("btrfs", args, { env: { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` } });
  };
  const root = join(loop.path, "root");
  btrfs("quota", "enable", loop.path);
  btrfs("subvolume", "create", root);
  btrfs("qgroup", "limit", "4m", root);
  const backend = await openBackend({ kind: "reflink", root });
  try {
    await backend.stage("vol", "s", undefined, 16 * mebibyte);
    const staging = await backend.openStaging("vol", "s", 16 * mebibyte);
    const filling = async () => {
      for (let at = 0; at < 16; at++) await staging.write(at * mebibyte, Buffer.alloc(mebibyte, 1));
      await staging.sync();
    };
    await expect(filling()).rejects.toMatchObject({ code: "DiskFull" });
  } finally {
    await backend.close();
    await loop.unmount();
  }
});
