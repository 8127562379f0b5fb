// Puts a cluster back to an earlier state of its disk, as a roll-back of the whole file system would: journal, live and
// staging images as they were, sealed files as the very same files (which their identity tells).
import { copyFile, link, mkdir, readdir, rm, stat } from "node:fs/promises";
import { basename, join } from "node:path";
import type { Cluster } from "./engines.ts";

export interface Backup {
  /** Stops the cluster, puts its disk back, and starts it. */
  restore(): Promise<void>;
}

/** `journal` or `files` alone put back makes the two disagree, as a careless restore does. */
export async function backUp(cluster: Cluster, what: "all" | "journal" | "files" = "all"): Promise<Backup> {
  const aside = `${cluster.folder}-backup`;
  await cluster.stop();
  await rm(aside, { recursive: true, force: true });
  await duplicate(cluster.folder, aside, () => true);
  await cluster.start();
  const isJournal = (name: string) => basename(name).startsWith("state.db");
  const isMeant = (name: string) => what === "all" || isJournal(name) === (what === "journal");
  return {
    async restore() {
      await cluster.stop();
      await removeAll(cluster.folder, isMeant);
      await duplicate(aside, cluster.folder, isMeant);
      await cluster.start();
    },
  };
}

async function duplicate(from: string, to: string, isMeant: (name: string) => boolean): Promise<void> {
  await mkdir(to, { recursive: true });
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const [source, target] = [join(from, entry.name), join(to, entry.name)];
    if (entry.isDirectory()) await duplicate(source, target, isMeant);
    else if (isMeant(source)) await put(source, target);
  }
}

async function put(source: string, target: string): Promise<void> {
  const { mode } = await stat(source);
  const isSealed = (mode & 0o222) === 0;
  if (isSealed || basename(source).startsWith("format-")) await link(source, target);
  else await copyFile(source, target);
}

async function removeAll(folder: string, isMeant: (name: string) => boolean): Promise<void> {
  for (const entry of await readdir(folder, { withFileTypes: true })) {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) await removeAll(path, isMeant);
    else if (isMeant(path)) await rm(path);
  }
}
