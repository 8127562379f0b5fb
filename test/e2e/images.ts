// Ground truth for tests and the demo: what differs between two images, found by reading both, and real ext4 file systems
// made and changed in image files without mounting them (e2fsprogs writes the image directly, so no root is needed).
import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { lstat, mkdtemp, open, readdir, readFile, readlink, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const blockBytes = 4096;
const chunkBytes = 4 << 20;

/** Counts the bytes in 4 KiB blocks that really differ. A missing base, or what lies beyond its end, counts as zeros. */
export async function differingBytes(base: string | undefined, next: string): Promise<number> {
  const [one, two] = [base === undefined ? undefined : await open(base), await open(next)];
  try {
    const { size } = await two.stat();
    const [left, right] = [Buffer.alloc(chunkBytes), Buffer.alloc(chunkBytes)];
    let differing = 0;
    for (let offset = 0; offset < size; offset += chunkBytes) {
      left.fill(0);
      right.fill(0);
      await one?.read(left, 0, chunkBytes, offset);
      await two.read(right, 0, chunkBytes, offset);
      if (left.equals(right)) continue;
      for (let at = 0; at < chunkBytes; at += blockBytes) {
        if (left.compare(right, at, at + blockBytes, at, at + blockBytes) !== 0) differing += blockBytes;
      }
    }
    return differing;
  } finally {
    await one?.close();
    await two.close();
  }
}

/** Compares two files with cmp(1): the outcome is not ours to get wrong. */
export async function isEqualByCmp(one: string, two: string): Promise<boolean> {
  try {
    await run("cmp", ["-s", one, two]);
    return true;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === 1) return false;
    throw error;
  }
}

/** Makes an ext4 file system with the files of `tree` in the image, which keeps its size. */
export async function makeExt4(image: string, tree: string): Promise<void> {
  await run("mke2fs", ["-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "root_owner=0:0", "-d", tree, image], {
    env,
  });
}

/** Writes files into the ext4 image, on disk when it resolves; each replaces one of that path. */
export async function writeInto(image: string, files: readonly { from: string; path: string }[]): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "longshore-debugfs-"));
  try {
    const script = join(folder, "commands");
    await writeFile(script, files.map(({ from, path }) => `rm "${path}"\nwrite "${from}" "${path}"\n`).join(""));
    await run("debugfs", ["-w", "-f", script, image], { env, maxBuffer: 1 << 26 });
    const file = await open(image, "r+");
    await file.sync();
    await file.close();
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Extracts the image's whole tree into a folder that is there and empty. */
export async function extract(image: string, folder: string): Promise<void> {
  await run("debugfs", ["-R", `rdump / ${folder}`, image], { env, maxBuffer: 1 << 26 });
}

/** Every file, link and folder under a folder, by path relative to it, sorted. Links are not followed. */
export async function walk(folder: string, under = ""): Promise<string[]> {
  const found: string[] = [];
  if (!(await lstat(join(folder, under))).isDirectory()) return [];
  for (const entry of await readdir(join(folder, under), { withFileTypes: true })) {
    const path = join(under, entry.name);
    if (path === "lost+found") continue;
    found.push(path);
    if (entry.isDirectory()) found.push(...(await walk(folder, path)));
  }
  return found.sort();
}

/** What every file, link and folder under a folder holds, by path. */
export async function treeOf(folder: string): Promise<Map<string, string>> {
  const tree = new Map<string, string>();
  for (const path of await walk(folder)) tree.set(path, await contentOf(join(folder, path)));
  return tree;
}

async function contentOf(path: string): Promise<string> {
  const stat = await lstat(path);
  if (stat.isSymbolicLink()) return `link to ${await readlink(path)}`;
  if (!stat.isFile()) return "folder";
  return createHash("sha256")
    .update(await readFile(path))
    .digest("hex");
}

/** The paths that are not the same in both trees, sorted. */
export function differences(one: ReadonlyMap<string, string>, two: ReadonlyMap<string, string>): string[] {
  const paths = new Set([...one.keys(), ...two.keys()]);
  return [...paths].filter((path) => one.get(path) !== two.get(path)).sort();
}
