// What lies in a backend's folder, whether or not anybody knows it, and the way out for what nobody knows.

import * as fs from "node:fs/promises";
import { dirname, join } from "node:path";
import { syncFolder } from "../base/durable-folder.ts";
import { unlessErrno } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { FoundImage } from "./backend.ts";
import { clearImmutable } from "./image-file.ts";
import { isName, type Layout } from "./layout.ts";

/** Every image under the layout, unfinished ones included; what does not look like ours is left out. */
export async function listImages(layout: Layout): Promise<FoundImage[]> {
  const found: FoundImage[] = [];
  for (const volume of (await namesIn(layout.volumes)).filter(isName)) {
    await add(found, layout.live(volume), { volume, kind: "live" });
    for (const point of (await namesIn(layout.points(volume))).flatMap(pointOf)) {
      await add(found, layout.point(volume, point), { volume, kind: "point", point });
    }
  }
  return found;
}

function pointOf(fileName: string): string[] {
  const point = fileName.replace(/\.img$/, "");
  return point !== fileName && isName(point) ? [point] : [];
}

async function namesIn(folder: string): Promise<string[]> {
  const names = await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.readdir(folder));
  return (names ?? []).sort();
}

type ImageName = Pick<FoundImage, "volume" | "kind" | "point">;

async function add(found: FoundImage[], path: string, name: ImageName): Promise<void> {
  const stat = await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.lstat(path));
  if (stat?.isFile()) found.push({ ...name, sizeBytes: stat.size, allocatedBytes: stat.blocks * 512 });
}

/**
 * Moves an image into the quarantine folder under a name that says what it was; an older one of that name stays.
 * Repeating it after success answers where it went.
 */
export async function quarantineImage(layout: Layout, image: FoundImage): Promise<string> {
  const isLive = image.kind === "live";
  const from = isLive ? layout.live(image.volume) : layout.point(image.volume, image.point ?? "");
  const stem = join(layout.quarantine, `${image.volume}.${isLive ? "live" : image.point}`);
  const taken = await namesTaken(stem);
  if (!(await exists(from))) {
    const gone = new LongshoreError(isLive ? "VolumeGone" : "PointGone", `${from} is gone; it cannot be quarantined`);
    const before = taken.at(-1);
    if (before === undefined) throw gone;
    return before;
  }
  const to = nthName(stem, taken.length + 1);
  await renameImage(from, to);
  await syncFolder(layout.quarantine);
  await syncFolder(dirname(from));
  await removeEmptyVolume(layout, image.volume);
  return to;
}

async function namesTaken(stem: string): Promise<string[]> {
  const taken: string[] = [];
  while (await exists(nthName(stem, taken.length + 1))) taken.push(nthName(stem, taken.length + 1));
  return taken;
}

function nthName(stem: string, nth: number): string {
  return nth === 1 ? `${stem}.img` : `${stem}.${nth}.img`;
}

async function exists(path: string): Promise<boolean> {
  return (await unlessErrno(["ENOENT", "ENOTDIR"], () => fs.lstat(path))) !== undefined;
}

async function renameImage(from: string, to: string): Promise<void> {
  const isRenamed = await unlessErrno(["EPERM"], async () => {
    await fs.rename(from, to);
    return true;
  });
  if (isRenamed) return;
  await clearImmutable(from);
  await fs.rename(from, to);
}

/** Removes a volume's folder when nothing is left in it, durably. */
export async function removeEmptyVolume(layout: Layout, volume: string): Promise<void> {
  for (const folder of [layout.points(volume), layout.volume(volume)]) {
    const isRemoved = await unlessErrno(["ENOENT", "ENOTDIR", "ENOTEMPTY", "EEXIST"], async () => {
      await fs.rmdir(folder);
      return true;
    });
    if (isRemoved) await unlessErrno(["ENOENT"], () => syncFolder(dirname(folder)));
  }
}
