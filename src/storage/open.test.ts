import * as fs from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { mountLoop } from "../../test/fakes/loop-fs.ts";
import { type TemporaryFolder, temporaryFolder } from "../../test/fakes/temporary-folder.ts";
import { needs } from "../../test/needs.ts";
import { sharingFileSystem } from "../native/file-calls.ts";
import { openBackend } from "./open.ts";

let temporary: TemporaryFolder;
let folder: string;
beforeEach(async () => {
  temporary = await temporaryFolder("open");
  folder = temporary.path;
});
afterEach(async () => {
  await temporary.remove();
});

async function canShare(path: string): Promise<boolean> {
  const handle = await fs.open(path, "r");
  const fileSystem = sharingFileSystem(handle.fd);
  await handle.close();
  return fileSystem?.canShareExtents ?? false;
}

test("a backend makes its folder, and finds it again", async () => {
  const root = join(folder, "a", "b");
  const first = await openBackend({ kind: "copy", root });
  await first.create("vol", 4096);
  await first.close();
  expect((await fs.readdir(root)).sort()).toEqual(["format-1", "quarantine", "volumes"]);
  const again = await openBackend({ kind: "copy", root });
  expect(await again.list()).toMatchObject([{ volume: "vol", kind: "live", sizeBytes: 4096 }]);
});

test("auto is reflink where extents can be shared, else copy", async () => {
  const backend = await openBackend({ kind: "auto", root: folder });
  expect(backend.kind).toBe((await canShare(folder)) ? "reflink" : "copy");
});

test("a folder laid out by another version is refused", async () => {
  await fs.writeFile(join(folder, "format-2"), "");
  await expect(openBackend({ kind: "copy", root: folder })).rejects.toMatchObject({
    code: "Unsupported",
    message: expect.stringContaining("format-2"),
  });
  expect(await fs.readdir(folder)).toEqual(["format-2"]);
});

needs("root")("reflink on ext4 is refused with what to do", async () => {
  const loop = await mountLoop({ fs: "ext4", sizeBytes: 16 * 2 ** 20 });
  try {
    await expect(openBackend({ kind: "reflink", root: loop.path })).rejects.toMatchObject({
      code: "Unsupported",
      message: expect.stringMatching(/neither on XFS nor on btrfs.*use kind copy.*XFS made with -m reflink=1/),
    });
    expect((await openBackend({ kind: "auto", root: loop.path })).kind).toBe("copy");
  } finally {
    await loop.unmount();
  }
});

needs("root", "xfs")("reflink on an XFS without it is refused with what to do, and auto is copy there", async () => {
  const loop = await mountLoop({ fs: "xfs", sizeBytes: 300 * 2 ** 20, mkfsArgs: ["-m", "reflink=0"] });
  try {
    await expect(openBackend({ kind: "reflink", root: loop.path })).rejects.toMatchObject({
      code: "Unsupported",
      message: expect.stringMatching(/an XFS made without reflink: use kind copy/),
    });
    expect((await openBackend({ kind: "auto", root: loop.path })).kind).toBe("copy");
  } finally {
    await loop.unmount();
  }
});
