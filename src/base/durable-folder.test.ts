import { mkdtemp, rm, stat } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { makeFolderDurably, syncFolder } from "./durable-folder.ts";

let root: string;
beforeEach(async () => {
  root = await mkdtemp(join(tmpdir(), "longshore-durable-"));
});
afterEach(() => rm(root, { recursive: true }));

test("a folder is made with those above it, and as it is asked for; made again, nothing changes", async () => {
  const path = join(root, "a/b/c");
  await makeFolderDurably(path, 0o700);
  await makeFolderDurably(path, 0o755);
  for (const folder of [path, join(root, "a/b"), join(root, "a")])
    expect((await stat(folder)).mode & 0o777).toBe(0o700);
});

test("a folder that is not there cannot be made durable", async () => {
  await syncFolder(root);
  await expect(syncFolder(join(root, "nothing"))).rejects.toMatchObject({ code: "ENOENT" });
});
