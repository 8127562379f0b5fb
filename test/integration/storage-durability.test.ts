// A power cut, as near as a test comes to one: the file system stops at once, without writing back what only memory
// holds, and is mounted again. What a backend's method resolved for must be there; what was under way must be whole,
// absent, or known to be unfinished.
import { execFileSync } from "node:child_process";
import { readSync } from "node:fs";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { describe, expect } from "@jest/globals";
import type { SealedPoint, StorageBackend } from "../../src/storage/backend.ts";
import { clearImmutable } from "../../src/storage/image-file.ts";
import { openBackend } from "../../src/storage/open.ts";
import { type LoopFs, type LoopFsOptions, mountLoop } from "../fakes/loop-fs.ts";
import { needs } from "../needs.ts";

const mebibyte = 2 ** 20;
const size = 2 * mebibyte;
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

interface World {
  backend: StorageBackend;
  readonly base: SealedPoint;
  readonly loop: LoopFs;
  readonly kind: StorageBackend["kind"];
}

const content = (value: number) => Buffer.alloc(size, value);

/** A volume of ones, and a point of it, all on disk. */
async function begin(kind: StorageBackend["kind"], options: LoopFsOptions): Promise<World> {
  const loop = await mountLoop(options);
  const backend = await openBackend({ kind, root: join(loop.path, "root") });
  await backend.create("vol", size);
  await writeLive(backend, 1);
  const base = { point: "base", identity: (await backend.snapshot("vol", "base")).identity };
  execFileSync("sync", ["-f", loop.path], { env });
  return { backend, base, loop, kind };
}

/** The application's write, durable as a database's would be. */
async function writeLive(backend: StorageBackend, value: number): Promise<void> {
  const live = await fs.open(backend.livePath("vol"), "r+");
  await live.write(content(value), 0, size, 0);
  await live.sync();
  await live.close();
}

/** Stops the file system where it stands. */
function cutPower({ loop }: World): void {
  execFileSync("xfs_io", ["-x", "-c", "shutdown", loop.path], { env });
}

async function restart(world: World): Promise<void> {
  await world.backend.close().catch(() => undefined);
  await world.loop.detach();
  await world.loop.attach();
  world.backend = await openBackend({ kind: world.kind, root: join(world.loop.path, "root") });
}

async function read(backend: StorageBackend, point: SealedPoint): Promise<Buffer> {
  const reader = await backend.openPoint("vol", point);
  const into = Buffer.alloc(reader.sizeBytes);
  await reader.read(0, into);
  await reader.close();
  return into;
}

/** Each does one thing that resolves, and says how to see after the cut that it happened. */
const promises: Record<string, (world: World) => Promise<() => Promise<void>>> = {
  "a volume that was created": async (world) => {
    await world.backend.create("new", size);
    return async () => {
      expect((await fs.readFile(world.backend.livePath("new"))).equals(content(0))).toBe(true);
      await world.backend.create("new", size);
    };
  },
  "a volume that grew": async (world) => {
    await world.backend.expand("vol", 2 * size);
    return async () => expect((await fs.stat(world.backend.livePath("vol"))).size).toBe(2 * size);
  },
  "a volume that was removed": async (world) => {
    await world.backend.remove("vol");
    return async () => expect(await world.backend.list()).toMatchObject([{ kind: "point", point: "base" }]);
  },
  "a snapshot that was taken": async (world) => {
    await writeLive(world.backend, 2);
    const point = { point: "next", identity: (await world.backend.snapshot("vol", "next")).identity };
    return async () => expect((await read(world.backend, point)).equals(content(2))).toBe(true);
  },
  "a snapshot in a volume's first folder": async (world) => {
    await world.backend.create("new", size);
    const point = { point: "first", identity: (await world.backend.snapshot("new", "first")).identity };
    return async () => (await world.backend.openPoint("new", point)).close();
  },
  "a point that was deleted": async (world) => {
    await world.backend.deletePoint("vol", "base");
    return async () => expect(await world.backend.list()).toMatchObject([{ kind: "live" }]);
  },
  "a point's deletion, by a process that found it unlinked by one that was killed": async (world) => {
    const path = join(world.loop.path, "root", "volumes", "vol", "points", "base.img");
    await clearImmutable(path);
    await fs.unlink(path);
    await world.backend.deletePoint("vol", "base");
    return async () => expect(await world.backend.list()).toMatchObject([{ kind: "live" }]);
  },
  "a clone that was made": async (world) => {
    await world.backend.clone({ volume: "vol", ...world.base }, { volume: "clone", sizeBytes: 2 * size });
    return async () => {
      const cloned = await fs.readFile(world.backend.livePath("clone"));
      expect(cloned.equals(Buffer.concat([content(1), content(0)]))).toBe(true);
    };
  },
  "staging that was made": async (world) => {
    await world.backend.stage("target", "s", undefined, size);
    return async () => (await world.backend.openStaging("target", "s", size)).close();
  },
  "what was written into staging and synced": async (world) => {
    await world.backend.stage("vol", "s", world.base, size);
    const staging = await world.backend.openStaging("vol", "s", size);
    await staging.write(0, Buffer.alloc(mebibyte, 3));
    await staging.punch({ offset: mebibyte, length: mebibyte / 2 });
    await staging.sync();
    return async () => {
      const again = await world.backend.openStaging("vol", "s", size);
      const into = Buffer.alloc(size);
      readSync(again.fd, into, 0, size, 0);
      const expected = Buffer.concat([
        Buffer.alloc(mebibyte, 3),
        Buffer.alloc(mebibyte / 2),
        Buffer.alloc(mebibyte / 2, 1),
      ]);
      expect(into.equals(expected)).toBe(true);
      await again.close();
    };
  },
  "staging that was sealed": async (world) => {
    await world.backend.stage("vol", "s", undefined, size);
    const staging = await world.backend.openStaging("vol", "s", size);
    await staging.write(0, content(4));
    const identity = await world.backend.seal("vol", "s");
    return async () => {
      expect((await read(world.backend, { point: "s", identity })).equals(content(4))).toBe(true);
      expect(await world.backend.seal("vol", "s")).toEqual(identity);
    };
  },
  "an image in the quarantine": async (world) => {
    const image = (await world.backend.list()).find(({ kind }) => kind === "point");
    if (image === undefined) throw new Error("there is no point");
    const where = await world.backend.quarantine(image);
    return async () => {
      expect((await fs.readFile(where)).equals(content(1))).toBe(true);
      expect(await world.backend.list()).toMatchObject([{ kind: "live" }]);
    };
  },
};

/** Each begins one thing, and judges what a cut in its middle left. */
const undertakings: Record<string, { begin(world: World): Promise<unknown>; judge(world: World): Promise<void> }> = {
  snapshot: {
    begin: ({ backend }) => backend.snapshot("vol", "next"),
    async judge({ backend }) {
      const { identity } = await backend.snapshot("vol", "next");
      expect((await read(backend, { point: "next", identity })).equals(content(2))).toBe(true);
    },
  },
  clone: {
    begin: ({ backend, base }) => backend.clone({ volume: "vol", ...base }, { volume: "clone", sizeBytes: size }),
    async judge({ backend, base }) {
      await backend.clone({ volume: "vol", ...base }, { volume: "clone", sizeBytes: size });
      expect((await fs.readFile(backend.livePath("clone"))).equals(content(1))).toBe(true);
    },
  },
  stage: {
    begin: ({ backend, base }) => backend.stage("vol", "s", base, size),
    async judge({ backend }) {
      // Whoever asked and got no answer asks again; but what can be opened must be whole.
      const staging = await backend.openStaging("vol", "s", size).catch((error) => {
        expect(error.code).toBe("PointGone");
        return undefined;
      });
      const into = content(1);
      if (staging !== undefined) readSync(staging.fd, into, 0, size, 0);
      await staging?.close();
      expect(into.equals(content(1))).toBe(true);
    },
  },
};

for (const [kind, options] of [
  ["reflink", { fs: "xfs", sizeBytes: 300 * mebibyte }],
  ["copy", { fs: "ext4", sizeBytes: 64 * mebibyte }],
] as const) {
  describe(`after a power cut, ${kind} on ${options.fs}`, () => {
    // xfs_io of xfsprogs stops ext4 as well.
    const it = needs("root", "xfs");

    for (const [what, act] of Object.entries(promises)) {
      it(`${what} is there`, async () => {
        const world = await begin(kind, options);
        try {
          const check = await act(world);
          cutPower(world);
          await restart(world);
          await check();
          expect(world.backend.kind).toBe(kind);
        } finally {
          await world.backend.close();
          await world.loop.unmount();
        }
      });
    }

    for (const [what, { begin: undertake, judge }] of Object.entries(undertakings)) {
      it(`a ${what} that was under way is whole, or made anew`, async () => {
        const world = await begin(kind, options);
        const outcomes = new Set<string>();
        try {
          await writeLive(world.backend, 2);
          for (let turns = 0; turns < 40; turns += 1 + (turns >> 3)) {
            const work = undertake(world).then(
              () => outcomes.add("done"),
              () => outcomes.add("cut"),
            );
            for (let turn = 0; turn < turns; turn++) await new Promise((resolve) => setImmediate(resolve));
            cutPower(world);
            await work;
            await restart(world);
            expect((await read(world.backend, world.base)).equals(content(1))).toBe(true);
            await judge(world);
            await world.backend.deletePoint("vol", "next");
            await world.backend.deletePoint("vol", "s");
            await world.backend.remove("clone");
          }
          expect(outcomes).toContain("cut");
        } finally {
          await world.backend.close();
          await world.loop.unmount();
        }
      }, 600_000);
    }
  });
}
