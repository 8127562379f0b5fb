// Folders, and the names in them, that are still there after a loss of power.
import * as fs from "node:fs/promises";
import { dirname } from "node:path";

/** Makes a folder, and those above it, durably; `mode` is that of each one made. */
export async function makeFolderDurably(path: string, mode = 0o777): Promise<void> {
  const first = await fs.mkdir(path, { recursive: true, mode });
  if (first === undefined) return;
  for (let made = path; made.length >= first.length; made = dirname(made)) await syncFolder(dirname(made));
}

/** Makes names that were added to or removed from a folder durable. */
export async function syncFolder(path: string): Promise<void> {
  const folder = await fs.open(path, "r");
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
