import * as fs from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { type TemporaryFolder, temporaryFolder } from "../../test/fakes/temporary-folder.ts";
import { openBulkReader } from "./bulk-reader.ts";
import { copyMechanism, dataOf } from "./copy.ts";
import { openBackend } from "./open.ts";

const block = 4096;
const mechanism = copyMechanism("folder", openBulkReader());
let temporary: TemporaryFolder;
let folder: string;
let live: fs.FileHandle;
beforeEach(async () => {
  temporary = await temporaryFolder("copy");
  folder = temporary.path;
  await fs.writeFile(join(folder, "live"), Buffer.alloc(8 * block, 1));
  live = await fs.open(join(folder, "live"), "r");
});
afterEach(async () => {
  await live.close();
  await temporary.remove();
});

test("a writer who comes while the image is held still stops the work, and then gets in", async () => {
  const writers: Promise<fs.FileHandle>[] = [];
  const work = mechanism.heldStill({ volume: "vol", live, frozen: undefined }, async (checkpoint) => {
    checkpoint();
    writers.push(fs.open(join(folder, "live"), "r+"));
    for (;;) {
      checkpoint();
      await new Promise((resolve) => setImmediate(resolve));
    }
  });
  await expect(work).rejects.toMatchObject({ code: "VolumeBusy" });
  for (const writer of writers) await (await writer).close();
});

test("a copy made while a writer came is not believed, even if the copying did not notice", async () => {
  const opened = Promise.withResolvers<void>();
  let writer: Promise<fs.FileHandle> | undefined;
  const work = mechanism.heldStill({ volume: "vol", live, frozen: undefined }, async (checkpoint) => {
    writer = fs.open(join(folder, "live"), "r+");
    const isBroken = () => {
      try {
        checkpoint();
        return false;
      } catch {
        return true;
      }
    };
    while (!isBroken()) await new Promise((resolve) => setImmediate(resolve));
    opened.resolve();
    return "a copy";
  });
  await opened.promise;
  await expect(work).rejects.toMatchObject({ code: "VolumeBusy" });
  await (await writer)?.close();
});

test("the lease is given back when the work fails", async () => {
  const failing = mechanism.heldStill({ volume: "vol", live, frozen: undefined }, () =>
    Promise.reject(new Error("no")),
  );
  await expect(failing).rejects.toThrow("no");
  const writer = await fs.open(join(folder, "live"), "r+");
  await writer.close();
});

test("an image whose file system is frozen is copied although it is attached, until the freeze is known to be over", async () => {
  const attached = await fs.open(join(folder, "live"), "r+");
  let isOver = false;
  const frozen = () => {
    if (isOver) throw new Error("thawed");
  };
  const held = { volume: "vol", live, frozen };
  expect(await mechanism.heldStill(held, async () => "a copy")).toBe("a copy");
  const late = mechanism.heldStill(held, async (checkpoint) => {
    isOver = true;
    checkpoint();
  });
  await expect(late).rejects.toThrow("thawed");
  await expect(mechanism.heldStill(held, async () => "a copy")).rejects.toThrow("thawed");
  await attached.close();
});

test("what holds data is found in whole blocks", async () => {
  const file = await fs.open(join(folder, "sparse"), "w+");
  await file.truncate(64 * block);
  expect(dataOf(file.fd, 64 * block)).toEqual([]);
  await file.write(Buffer.alloc(10, 1), 0, 10, 20 * block + 100);
  await file.write(Buffer.alloc(10, 1), 0, 10, 63 * block);
  await file.sync();
  expect(dataOf(file.fd, 64 * block)).toEqual([
    { offset: 20 * block, length: block },
    { offset: 63 * block, length: block },
  ]);
  expect(dataOf(file.fd, 21 * block)).toEqual([{ offset: 20 * block, length: block }]);
  expect(dataOf(file.fd, 20 * block)).toEqual([]);
  await file.close();
});

test("a staging image that is not wanted any more is given up between two pieces, and leaves nothing", async () => {
  const backend = await openBackend({ kind: "copy", root: join(folder, "store") });
  const sizeBytes = 8 * block;
  await backend.create("vol", sizeBytes);
  await fs.writeFile(backend.livePath("vol"), Buffer.alloc(sizeBytes, 1), { flag: "r+" });
  const base = { point: "one", ...(await backend.snapshot("vol", "one")) };
  const reason = new Error("not wanted any more");
  await expect(backend.stage("vol", "two", base, sizeBytes, AbortSignal.abort(reason))).rejects.toBe(reason);
  expect((await backend.list()).flatMap(({ point }) => point ?? [])).toEqual(["one"]);
  await backend.stage("vol", "two", base, sizeBytes);
  expect((await backend.list()).flatMap(({ point }) => point ?? [])).toEqual(["one", "two"]);
  await backend.close();
});
