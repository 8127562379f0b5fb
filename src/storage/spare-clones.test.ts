import * as fs from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { type TemporaryFolder, temporaryFolder } from "../../test/fakes/temporary-folder.ts";
import { SpareClones } from "./spare-clones.ts";

const base = { volume: "vol", point: "p", identity: { inode: "1.1", fsUuid: "u", sizeBytes: 4096 } };
const other = { ...base, identity: { ...base.identity, inode: "1.2" } };

let folder: TemporaryFolder;
let clock: FakeClock;
let spares: SpareClones;
let made: fs.FileHandle[];
beforeEach(async () => {
  folder = await temporaryFolder("spares");
  clock = new FakeClock();
  spares = new SpareClones(clock);
  made = [];
});
afterEach(async () => {
  await spares.close();
  await folder.remove();
});

function make(of = base, fail?: Error): void {
  spares.make("vol", of, folder.path, async (image) => {
    made.push(image);
    if (fail !== undefined) throw fail;
    await image.write("content");
  });
}

/** Waits until of the files that were made exactly these are open. */
async function untilOpen(...expected: boolean[]): Promise<void> {
  const isSo = () => made.map(({ fd }) => fd >= 0).join() === expected.join();
  for (let tries = 0; !isSo() && tries < 1000; tries++) await new Promise((resolve) => setTimeout(resolve, 5));
  expect(made.map(({ fd }) => fd >= 0)).toEqual(expected);
}

test("a spare is taken once, by whoever wants one of its base", async () => {
  make();
  make();
  const image = await spares.take("vol", base);
  expect(await image?.readFile({ encoding: "utf8" })).toBe("");
  expect((await image?.stat())?.size).toBe("content".length);
  expect(await spares.take("vol", base)).toBeUndefined();
  expect(made).toHaveLength(1);
  await image?.close();
});

test.each([
  ["of another base", "vol", other],
  ["without a base", "vol", undefined],
])("a spare is dropped when one %s is asked for", async (_, volume, wanted) => {
  make();
  expect(await spares.take(volume, wanted)).toBeUndefined();
  await untilOpen(false);
  expect(await spares.take("vol", base)).toBeUndefined();
});

test("a newer base takes the place of an older one", async () => {
  make();
  await untilOpen(true);
  make(other);
  const image = await spares.take("vol", other);
  expect(image).toBe(made[1]);
  await untilOpen(false, true);
  await image?.close();
});

test("a spare that nobody has taken goes after a minute", async () => {
  make();
  await untilOpen(true);
  await clock.advance(59_000);
  await untilOpen(true);
  await clock.advance(1_000);
  await untilOpen(false);
  expect(await spares.take("vol", base)).toBeUndefined();
});

test("a spare that could not be made is none, and nothing of it stays open", async () => {
  make(base, new Error("no room"));
  expect(await spares.take("vol", base)).toBeUndefined();
  await untilOpen(false);
  expect(clock.sleepers).toBe(0);
});

test("closing waits for what is being made, and leaves no file", async () => {
  make();
  await spares.close();
  await untilOpen(false);
  expect(await fs.readdir(folder.path)).toEqual([]);
});
