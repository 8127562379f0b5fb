// Small files that must be there, or gone, after a loss of power: whole or not at all, and on disk before anybody is told.
import * as fs from "node:fs/promises";
import { dirname } from "node:path";
import { syncFolder } from "../base/durable-folder.ts";
import { unlessErrno } from "../base/system-error.ts";

/** Puts the text in the place of what was there. */
export async function writeDurably(path: string, text: string): Promise<void> {
  const unfinished = `${path}.unfinished`;
  const file = await fs.open(unfinished, "w", 0o600);
  try {
    await file.writeFile(text);
    await file.sync();
  } finally {
    await file.close();
  }
  await fs.rename(unfinished, path);
  await syncFolder(dirname(path));
}

/** Gone already is success. */
export async function removeDurably(path: string): Promise<void> {
  await fs.rm(path, { force: true });
  await syncFolder(dirname(path));
}

/** What a file says, without the space around it; `undefined` when there is none. */
export async function readText(path: string): Promise<string | undefined> {
  const text = await unlessErrno(["ENOENT", "ENOTDIR", "ENODEV", "ENXIO"], () => fs.readFile(path, "utf8"));
  return text?.trim();
}
