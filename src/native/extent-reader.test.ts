import { execFile, execFileSync } from "node:child_process";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { type LoopFs, mountLoop } from "../../test/fakes/loop-fs.ts";
import { needs } from "../../test/needs.ts";
import { seededDice } from "../base/dice.ts";
import { clipRuns, type MappedRun, runsOf } from "../storage/extent-diff.ts";
import { type ExtentReader, extentReader, isAtLeast } from "./extent-reader.ts";
import { cloneWhole, fiemap, punchHole } from "./file-calls.ts";

const block = 4096;
const blocks = 512;
const mebibyte = 2 ** 20;

test.each([
  ["6.1.0-18-amd64", true],
  ["6.18.44", true],
  ["7.0-rc1", true],
  ["6.0.19", false],
  ["5.15.0", false],
  ["unknown", false],
])("whether Linux %s is at least 6.1: %s", (release, expected) => {
  expect(isAtLeast(release, 6, 1)).toBe(expected);
});

describe("on btrfs", () => {
  const it = needs("root", "btrfs");
  let [plain, compressing]: LoopFs[] = [];
  const disks = () => [plain, compressing].map((loop) => loop?.path ?? "");
  beforeAll(async () => {
    plain = await mountLoop({ fs: "btrfs", sizeBytes: 400 * mebibyte });
    compressing = await mountLoop({ fs: "btrfs", sizeBytes: 400 * mebibyte, mountArgs: ["compress-force=zstd"] });
  });
  afterAll(async () => {
    await plain?.unmount();
    await compressing?.unmount();
  });

  /** Written, cloned, punched, and preallocated at random; the clone keeps its extents shared. */
  async function illTreated(folder: string, seed: number): Promise<fs.FileHandle> {
    const dice = seededDice(seed);
    const below = (end: number) => Math.floor(dice.random() * end);
    const path = join(folder, `ill-treated-${seed}`);
    const file = await fs.open(path, "w+");
    await file.truncate(blocks * block);
    for (let act = 0; act < 120; act++) {
      const at = below(blocks);
      const length = block * Math.min(blocks - at, 1 + below(below(4) === 0 ? 64 : 3));
      const kind = below(8);
      if (kind === 0) await punchHole(file.fd, at * block, length);
      else if (kind === 1) execFileSync("fallocate", ["-o", String(at * block), "-l", String(length), path]);
      else await file.write(Buffer.alloc(length, act), 0, length, at * block);
      if (below(5) === 0) await file.sync();
      if (act === 60) await (await cloneOf(file, `${path}-clone`)).close();
    }
    return file;
  }

  async function cloneOf(file: fs.FileHandle, path: string): Promise<fs.FileHandle> {
    const clone = await fs.open(path, "w+");
    await cloneWhole(file.fd, clone.fd);
    return clone;
  }

  it("the items of a file tell what FIEMAP tells, from wherever and however few are asked for", async () => {
    for (const folder of disks()) {
      for (let seed = 1; seed <= 6; seed++) {
        const file = await illTreated(folder, seed);
        const size = blocks * block;
        const read = extentReader(file.fd);
        const first = await read({ offset: 0, length: size });
        const whole = runsOf(await fiemap(file.fd, { offset: 0, length: size }), { start: 0, end: size });
        expect(runsOf(first, { start: 0, end: size })).toEqual(whole);
        expect(first.constructor.name).toBe("FileExtentItems");
        for (let start = 0; start < size; start += 7 * block) {
          const report = await read({ offset: start, length: size - start, extentsMax: 5 });
          const last = report.at(report.count - 1);
          const end = report.isCut && last !== undefined ? last.logical + last.length : size;
          expect(end).toBeGreaterThan(start);
          expect(runsOf(report, { start, end })).toEqual(clipRuns(whole, { start, end }));
        }
        await file.close();
      }
    }
  });

  it("what was just written is told, without anybody having synced it", async () => {
    const file = await fs.open(join(disks()[0] as string, "fresh"), "w+");
    for (let round = 0; round < 50; round++) {
      await file.write(Buffer.alloc(block, round), 0, block, round * 3 * block);
      const [extent] = await extentReader(file.fd)({ offset: round * 3 * block, length: block });
      expect(extent).toMatchObject({ logical: round * 3 * block, length: block, flags: 0 });
    }
    await file.close();
  });

  it("in the middle of a large extent, and past one, nothing is missed", async () => {
    const file = await fs.open(join(disks()[0] as string, "large"), "w+");
    await file.write(Buffer.alloc(16 * mebibyte, 1));
    await file.truncate(64 * mebibyte);
    await file.sync();
    for (const [start, end] of [
      [8 * mebibyte, 16 * mebibyte],
      [32 * mebibyte, 64 * mebibyte],
    ] as const) {
      const range = { offset: start, length: end - start };
      const runs = runsOf(await extentReader(file.fd)(range), { start, end });
      expect(runs).toEqual(runsOf(await fiemap(file.fd, range), { start, end }));
      expect(runs.reduce((sum, { length }) => sum + length, 0)).toBe(start < 16 * mebibyte ? end - start : 0);
    }
    await file.close();
  });

  it("while its extents are moved, no data is taken for a hole", async () => {
    const path = join(disks()[0] as string, "moving");
    const file = await fs.open(path, "w+");
    const size = 4096 * block;
    const read = extentReader(file.fd);
    let moves = 0;
    for (let round = 0; round < 12; round++) {
      // In pieces again: every other block is written anew.
      for (let at = 0; at < size; at += 2 * block) await file.write(Buffer.alloc(block, round + 1), 0, block, at);
      await file.sync();
      for (let at = block; at < size; at += 2 * block) await file.write(Buffer.alloc(block, round + 1), 0, block, at);
      await file.sync();
      let isMoving = true;
      const moving = promisify(execFile)("btrfs", ["filesystem", "defragment", "-f", "-t", "64M", path]).finally(() => {
        isMoving = false;
      });
      while (isMoving) {
        const runs = await runsIn(read, size);
        expect(runs.reduce((sum, { length }) => sum + length, 0)).toBe(size);
        moves += 1;
      }
      await moving;
    }
    expect(moves).toBeGreaterThan(12);
    await file.close();
  });

  /** All of a file, a window after the other. */
  async function runsIn(read: ExtentReader, size: number): Promise<MappedRun[]> {
    const runs: MappedRun[] = [];
    for (let start = 0; start < size; ) {
      const report = await read({ offset: start, length: size - start });
      const last = report.isCut ? report.at(report.count - 1) : undefined;
      const end = last === undefined ? size : last.logical + last.length;
      runs.push(...runsOf(report, { start, end }));
      start = end;
    }
    return runs;
  }

  it("a file that is small enough to lie among the items is told by FIEMAP", async () => {
    const file = await fs.open(join(disks()[0] as string, "tiny"), "w+");
    await file.write("a few bytes");
    await file.sync();
    const report = await extentReader(file.fd)({ offset: 0, length: block });
    expect(runsOf(report, { start: 0, end: block })).toEqual([{ offset: 0, length: block }]);
    await file.close();
  });

  it("without the right to search, FIEMAP tells it", async () => {
    const path = join(disks()[0] as string, "unprivileged");
    await fs.writeFile(path, Buffer.alloc(3 * block, 1), { flush: true });
    const program = `
      import { openSync } from "node:fs";
      import { extentReader } from ${JSON.stringify(new URL("./extent-reader.ts", import.meta.url).href)};
      const report = await extentReader(openSync(process.argv[1], "r"))({ offset: 0, length: ${3 * block} });
      process.stdout.write(report.constructor.name + " " + report.at(0).length);
    `;
    const dropped = ["--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    const args = [...dropped, process.execPath, "--input-type=module", "--eval", program, path];
    expect(execFileSync("setpriv", args, { encoding: "utf8" })).toBe(`FiemapReport ${3 * block}`);
  });
});
