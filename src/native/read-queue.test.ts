import { createHash, randomBytes } from "node:crypto";
import * as fs from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { type TemporaryFolder, temporaryFolder } from "../../test/fakes/temporary-folder.ts";
import { alignedBuffer, openDirectFlags } from "./file-calls.ts";
import { openReadQueue, type ReadQueue } from "./read-queue.ts";

const block = 4096;
const blocks = 64;
const content = randomBytes(blocks * block);
let temporary: TemporaryFolder;
let path: string;
let queue: ReadQueue;
beforeAll(async () => {
  temporary = await temporaryFolder("read-queue");
  path = join(temporary.path, "file");
  await fs.writeFile(path, content, { flush: true });
  const opened = openReadQueue(16);
  if (opened === undefined) throw new Error("this system has no queue of reads to test: see openReadQueue");
  queue = opened;
});
afterAll(async () => {
  queue.close();
  await temporary.remove();
});

async function withFile<T>(flags: string | number, work: (fd: number) => T): Promise<T> {
  const file = await fs.open(path, flags);
  try {
    return work(file.fd);
  } finally {
    await file.close();
  }
}

function piece(first: number, count = 1) {
  return { offset: first * block, length: count * block };
}

function contentOf(pieces: readonly { offset: number; length: number }[]): string {
  const hash = createHash("sha256");
  for (const { offset, length } of pieces) hash.update(content.subarray(offset, offset + length));
  return hash.digest("hex");
}

describe.each([
  ["through the page cache", "r"],
  ["past the page cache", openDirectFlags],
])("a read queue %s", (_, flags) => {
  test("reads pieces in the order given, one after the other", async () => {
    const pieces = [piece(40), piece(3, 5), piece(63), piece(0, 2)];
    const into = alignedBuffer(16 * block);
    const got = await withFile(flags, (fd) => queue.read(fd, pieces, into));
    expect(got).toEqual(pieces.map(({ length }) => length));
    expect(
      createHash("sha256")
        .update(into.subarray(0, 9 * block))
        .digest("hex"),
    ).toBe(contentOf(pieces));
  });

  test("reads as many pieces as it is deep, again and again", async () => {
    const into = alignedBuffer(16 * block);
    await withFile(flags, (fd) => {
      for (let first = 0; first < blocks; first += 16) {
        const pieces = Array.from({ length: 16 }, (_, at) => piece(first + at));
        queue.read(fd, pieces, into);
        expect(into.equals(content.subarray(first * block, (first + 16) * block))).toBe(true);
      }
    });
  });

  test("tells how much each piece got where the file ends", async () => {
    const into = alignedBuffer(8 * block);
    const got = await withFile(flags, (fd) => queue.read(fd, [piece(62, 4), piece(1), piece(70)], into));
    expect(got).toEqual([2 * block, block, 0]);
  });
});

test("a read queue throws what a read fails with, and serves the next one", async () => {
  const into = alignedBuffer(2 * block);
  expect(() => queue.read(-1, [piece(0)], into)).toThrow(expect.objectContaining({ code: "EBADF" }));
  const misplaced = () =>
    withFile(openDirectFlags, (fd) => queue.read(fd, [piece(0), { offset: 7, length: block }], into));
  await expect(misplaced()).rejects.toMatchObject({ code: "EINVAL" });
  await withFile(openDirectFlags, (fd) => queue.read(fd, [piece(5)], into));
  expect(into.subarray(0, block).equals(content.subarray(5 * block, 6 * block))).toBe(true);
});

test("a read queue refuses more pieces than it is deep, and more bytes than there is room for", async () => {
  await withFile("r", (fd) => {
    const many = Array.from({ length: 17 }, (_, at) => piece(at));
    expect(() => queue.read(fd, many, alignedBuffer(17 * block))).toThrow(RangeError);
    expect(() => queue.read(fd, [piece(0, 2)], alignedBuffer(block))).toThrow(RangeError);
  });
});

test("where the system has no room for another queue there is none", () => {
  expect(openReadQueue(1_000_000_000)).toBeUndefined();
});
