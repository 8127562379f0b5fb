// Where everything lies under a backend's root, the same for all backends:
//
//   <root>/format-1                              what wrote this folder; another number is refused
//   <root>/volumes/<volume>/live.img             the image applications write to
//   <root>/volumes/<volume>/points/<point>.img   sealed points, and staging images on their way to become one
//   <root>/quarantine/                           images that nobody knew
//   <root>/frozen/<volume>                       which file systems are frozen at this moment (freezer.ts)
//
// Paths follow from names alone, so a crash never leaves a file whose meaning is in doubt.

import * as fs from "node:fs/promises";
import { join } from "node:path";
import { makeFolderDurably, syncFolder } from "../base/durable-folder.ts";
import { LongshoreError } from "../domain/errors.ts";
import { attempt } from "./failures.ts";

const formatVersion = 1;
const namePattern = /^[a-z0-9-]{1,120}$/;

export interface Layout {
  readonly root: string;
  readonly marker: string;
  readonly volumes: string;
  readonly quarantine: string;
  volume(volume: string): string;
  live(volume: string): string;
  points(volume: string): string;
  point(volume: string, point: string): string;
}

/** The paths under `root`. Asking for one with a name that is not allowed throws `BadRequest`. */
export function layoutOf(root: string): Layout {
  const volume = (name: string) => join(root, "volumes", checkedName(name));
  return {
    root,
    marker: join(root, `format-${formatVersion}`),
    volumes: join(root, "volumes"),
    quarantine: join(root, "quarantine"),
    volume,
    live: (name) => join(volume(name), "live.img"),
    points: (name) => join(volume(name), "points"),
    point: (name, point) => join(volume(name), "points", `${checkedName(point)}.img`),
  };
}

export function isName(text: string): boolean {
  return namePattern.test(text);
}

function checkedName(name: string): string {
  if (isName(name)) return name;
  throw new LongshoreError("BadRequest", `not a volume key or point id: ${JSON.stringify(name)}`);
}

/** Makes the root ready for use, durably; refuses one that another version of Longshore has laid out. Idempotent. */
export async function ensureLayout(layout: Layout): Promise<void> {
  await attempt(`prepare the folder ${layout.root}`, async () => {
    await fs.mkdir(layout.root, { recursive: true });
    await refuseForeignFormat(layout.root);
    await makeFolderDurably(layout.volumes);
    await makeFolderDurably(layout.quarantine);
    await (await fs.open(layout.marker, "a", 0o644)).close();
    await syncFolder(layout.root);
  });
}

async function refuseForeignFormat(root: string): Promise<void> {
  const foreign = (await fs.readdir(root)).find(
    (name) => /^format-\d+$/.test(name) && name !== `format-${formatVersion}`,
  );
  if (foreign === undefined) return;
  const text = `${root} is laid out as ${foreign}; this version of Longshore knows format-${formatVersion} only`;
  throw new LongshoreError("Unsupported", text);
}
