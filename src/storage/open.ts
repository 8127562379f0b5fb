// Opens the backend that an agent's configuration names, over one folder.

import * as fs from "node:fs/promises";
import { resolve } from "node:path";
import { type Clock, systemClock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import { type SharingFileSystem, sharingFileSystem } from "../native/file-calls.ts";
import type { StorageBackend } from "./backend.ts";
import { openBulkReader } from "./bulk-reader.ts";
import { copyMechanism } from "./copy.ts";
import { fileBackend } from "./file-backend.ts";
import { ensureLayout, type Layout, layoutOf } from "./layout.ts";
import { oneAtATime } from "./one-at-a-time.ts";
import { reflinkMechanism } from "./reflink.ts";

export interface BackendOptions {
  /** `auto` is `reflink` where the file system can share extents, else `copy`. */
  readonly kind: "reflink" | "copy" | "auto";
  /** The folder that holds everything; made when missing. One agent at a time. */
  readonly root: string;
  readonly clock?: Clock;
}

/**
 * Opens a backend. `Unsupported`, with what to do, when the file system cannot share extents and `reflink` was asked
 * for, or when the folder was laid out by another version.
 */
export async function openBackend({ kind, root, clock = systemClock }: BackendOptions): Promise<StorageBackend> {
  const layout = layoutOf(resolve(root));
  await ensureLayout(layout);
  const complaint = kind === "copy" ? "copy was asked for" : reflinkComplaint(root, await fileSystemOf(layout));
  if (complaint !== undefined && kind === "reflink") throw new LongshoreError("Unsupported", complaint);
  const reader = openBulkReader();
  const mechanism =
    complaint === undefined ? reflinkMechanism(clock, reader) : copyMechanism(await folderId(layout), reader);
  return oneAtATime(await fileBackend(layout, mechanism, { clock, reader }));
}

async function fileSystemOf(layout: Layout): Promise<SharingFileSystem | undefined> {
  const marker = await fs.open(layout.marker, "r");
  try {
    return sharingFileSystem(marker.fd);
  } finally {
    await marker.close();
  }
}

function reflinkComplaint(root: string, fileSystem: SharingFileSystem | undefined): string | undefined {
  const remedy = "use kind copy, or a folder on btrfs or on XFS made with -m reflink=1";
  if (fileSystem === undefined) return `${root} is neither on XFS nor on btrfs, so it cannot share extents: ${remedy}`;
  if (fileSystem.canShareExtents) return undefined;
  return `${root} is on an XFS made without reflink: ${remedy}`;
}

/** Stands for the file system: the marker file was born here, and a copy of the folder has another one. */
async function folderId({ marker }: Layout): Promise<string> {
  const stat = await fs.stat(marker, { bigint: true });
  return `folder-${stat.ino}.${stat.birthtimeNs}`;
}
