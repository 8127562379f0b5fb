// The case of a real file system: an ext4 with a package tree in it, before and after its packages were upgraded in place.
// It is made once, by mounting it and doing what a package manager does; each tool gets the image of before, and then the
// blocks by which the image of after differs.
import { createHash } from "node:crypto";
import {
  cp,
  type FileHandle,
  lstat,
  mkdir,
  open,
  readdir,
  readFile,
  realpath,
  rename,
  rm,
  writeFile,
} from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import { seededDice } from "../src/base/dice.ts";
import { mountImage } from "../test/fakes/mounted-image.ts";
import { blockBytes } from "./cases.ts";
import { runCommand } from "./command.ts";
import { joined } from "./data-set.ts";
import { tell } from "./progress.ts";
import type { Range } from "./tool.ts";

export interface PackageTree {
  /** Writes the image of before, holes where it has them. */
  copyInto(path: string): Promise<void>;
  /** Makes before after, and after before; the ranges that were written. */
  upgrade(path: string): Promise<Range[]>;
  revert(path: string): Promise<Range[]>;
  readonly describe: string;
  remove(): Promise<void>;
}

export interface PackageTreeOptions {
  readonly folder: string;
  readonly imageBytes: number;
  /** How much of the machine's own packages goes into it. */
  readonly treeBytes: number;
}

/** Folders that every machine on which this runs has, of packages with many small and some large files. */
const sources = [
  join(import.meta.dirname, "../node_modules"),
  "/usr/lib/python3",
  "/usr/share/doc",
  "/usr/share/man",
  "/usr/share/locale",
  "/usr/include",
];
/** What an upgrade does to how much of the files. */
const [replacedShare, removedShare, addedShare] = [0.1, 0.01, 0.01];
const pieceBytes = 1 << 20;

export async function makePackageTree({ folder, imageBytes, treeBytes }: PackageTreeOptions): Promise<PackageTree> {
  await mkdir(folder, { recursive: true });
  const [before, after] = [join(folder, "before.img"), join(folder, "after.img")];
  await runCommand("truncate", ["--size", String(imageBytes), before]);
  tell("making the package tree");
  const mounted = await mountImage(before, { fs: "ext4" });
  const filled = await fillTree(mounted.path, treeBytes).finally(() => mounted.unmount());
  await runCommand("cp", ["--sparse=always", before, after]);
  const again = await mountImage(after, { fs: "ext4", isMade: true });
  const upgraded = await upgradeTree(again.path).finally(() => again.unmount());
  const differing = await differingRanges(before, after);
  const copy = async (from: string, to: string) => {
    await copyRanges(from, to, differing);
    return differing;
  };
  return {
    copyInto: async (path) => {
      const whole = await open(path, "r+").catch(() => open(path, "w"));
      await whole.truncate(imageBytes);
      await whole.close();
      await copyRanges(before, path, await dataRanges(before, imageBytes));
    },
    upgrade: (path) => copy(after, path),
    revert: (path) => copy(before, path),
    describe: `ext4 with ${filled.files} files of ${Math.round(filled.bytes / 2 ** 20)} MiB; ${upgraded.replaced} files replaced, ${upgraded.removed} removed, ${upgraded.added} added`,
    remove: () => rm(folder, { recursive: true, force: true }),
  };
}

/** Copies packages until there are so many bytes. */
async function fillTree(root: string, treeBytes: number): Promise<{ files: number; bytes: number }> {
  let [files, bytes] = [0, 0];
  for (const [index, source] of sources.entries()) {
    for (const name of (await readdir(source).catch(() => [])).sort()) {
      if (bytes >= treeBytes) return { files, bytes };
      const to = join(root, String(index), name);
      const found = await filesUnder(join(source, name));
      const size = found.reduce((sum, file) => sum + file.bytes, 0);
      if (found.length === 0 || size > (treeBytes - bytes) * 1.05) continue;
      await cp(join(source, name), to, { recursive: true, preserveTimestamps: true, filter: isNoLink });
      files += found.length;
      bytes += size;
    }
  }
  return { files, bytes };
}

/** A link would lead whoever walks the copy out of it, into the machine's own packages. */
async function isNoLink(path: string): Promise<boolean> {
  return !(await lstat(path)).isSymbolicLink();
}

/** Regular files under a path, which may be one itself, with their sizes. Links are not followed. */
async function filesUnder(path: string): Promise<{ readonly path: string; readonly bytes: number }[]> {
  const stat = await lstat(path);
  if (stat.isFile()) return [{ path, bytes: stat.size }];
  if (!stat.isDirectory()) return [];
  const found: { readonly path: string; readonly bytes: number }[] = [];
  for (const name of (await readdir(path)).sort()) found.push(...(await filesUnder(join(path, name))));
  return found;
}

/** As package managers do: new content is written beside the old and renamed over it. */
async function upgradeTree(root: string): Promise<{ replaced: number; removed: number; added: number }> {
  const dice = seededDice(7);
  const counts = { replaced: 0, removed: 0, added: 0 };
  const { dev } = await lstat(root);
  for (const { path: file } of await filesUnder(root)) {
    if ((await lstat(dirname(await realpath(file)))).dev !== dev) throw new Error(`${file} is not in the tree`);
    const chance = dice.random();
    if (chance < replacedShare) {
      const old = await readFile(file);
      await writeFile(`${file}.dpkg-new`, newVersion(old, relative(root, file)));
      await rename(`${file}.dpkg-new`, file);
      counts.replaced += 1;
    } else if (chance < replacedShare + removedShare) {
      await rm(file);
      counts.removed += 1;
    } else if (chance < replacedShare + removedShare + addedShare) {
      await writeFile(`${file}.added`, newVersion(await readFile(file), `${relative(root, file)} added`));
      counts.added += 1;
    }
  }
  return counts;
}

/** Mostly what it was, with a line here and there that is new, so that what follows is shifted. */
function newVersion(old: Buffer, name: string): Buffer {
  const parts: Buffer[] = [Buffer.from(`# ${createHash("sha256").update(name).digest("hex")}\n`)];
  for (let at = 0; at < old.length; at += 64 << 10) {
    parts.push(old.subarray(at, at + (64 << 10)), Buffer.from(`# ${at} ${name.length}\n`));
  }
  return Buffer.concat(parts);
}

/** Where two images of one size differ, block by block. */
export async function differingRanges(one: string, other: string): Promise<Range[]> {
  const [left, right] = [await open(one), await open(other)];
  try {
    const { size } = await left.stat();
    const [a, b] = [Buffer.alloc(pieceBytes), Buffer.alloc(pieceBytes)];
    const found: Range[] = [];
    for (let offset = 0; offset < size; offset += pieceBytes) {
      const { bytesRead } = await left.read(a, 0, pieceBytes, offset);
      await right.read(b, 0, pieceBytes, offset);
      if (a.equals(b)) continue;
      for (let at = 0; at < bytesRead; at += blockBytes) {
        const isEqual = a.compare(b, at, at + blockBytes, at, at + blockBytes) === 0;
        if (!isEqual) found.push({ offset: offset + at, length: blockBytes });
      }
    }
    return joined(found);
  } finally {
    await left.close();
    await right.close();
  }
}

/** The blocks that are not all zeros. */
async function dataRanges(path: string, sizeBytes: number): Promise<Range[]> {
  const image = await open(path);
  try {
    const piece = Buffer.alloc(pieceBytes);
    const zeros = Buffer.alloc(pieceBytes);
    const found: Range[] = [];
    for (let offset = 0; offset < sizeBytes; offset += pieceBytes) {
      await image.read(piece, 0, pieceBytes, offset);
      for (let at = 0; at < pieceBytes && offset + at < sizeBytes; at += blockBytes) {
        const isZero = piece.compare(zeros, 0, blockBytes, at, at + blockBytes) === 0;
        if (!isZero) found.push({ offset: offset + at, length: blockBytes });
      }
    }
    return joined(found);
  } finally {
    await image.close();
  }
}

/** Copies these ranges to the same places of another image, durably. */
async function copyRanges(from: string, to: string, ranges: readonly Range[]): Promise<void> {
  const [source, target] = [await open(from), await open(to, "r+")];
  try {
    const piece = Buffer.alloc(pieceBytes);
    for (const range of ranges) await copyRange(source, target, range, piece);
    await target.sync();
  } finally {
    await source.close();
    await target.close();
  }
}

async function copyRange(
  source: FileHandle,
  target: FileHandle,
  { offset, length }: Range,
  piece: Buffer,
): Promise<void> {
  for (let done = 0; done < length; done += piece.length) {
    const bytes = Math.min(piece.length, length - done);
    await source.read(piece, 0, bytes, offset + done);
    await target.write(piece, 0, bytes, offset + done);
  }
}
