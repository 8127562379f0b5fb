// Which folders of node_modules are needed where nothing is developed, by package-lock.json.
import { existsSync } from "node:fs";
import { cp } from "node:fs/promises";
import { basename, join } from "node:path";

export interface LockFile {
  readonly packages: Readonly<Record<string, LockedPackage>>;
}

interface LockedPackage {
  readonly version?: string;
  readonly dev?: boolean;
  readonly devOptional?: boolean;
  readonly optional?: boolean;
  readonly os?: readonly string[];
  readonly cpu?: readonly string[];
}

export interface Platform {
  readonly os: string;
  readonly cpu: string;
}

export interface NeededFolder {
  /** From the root of the tree. */
  readonly path: string;
  /** Whether npm may have left it out. */
  readonly isOptional: boolean;
}

/** In the order of the lock file, which is that of the paths. */
export function neededFolders({ packages }: LockFile, { os, cpu }: Platform): NeededFolder[] {
  return Object.entries(packages).flatMap(([path, { dev, devOptional, optional, ...fits }]) => {
    const isNeeded = path.startsWith("node_modules/") && dev !== true && isOneOf(os, fits.os) && isOneOf(cpu, fits.cpu);
    return isNeeded ? [{ path, isOptional: optional === true || devOptional === true }] : [];
  });
}

/** npm writes a list of those that fit, or of those that do not, with `!`. */
function isOneOf(value: string, list: readonly string[] | undefined): boolean {
  if (list === undefined) return true;
  if (list.includes(`!${value}`)) return false;
  return list.every((one) => one.startsWith("!")) || list.includes(value);
}

/** Copies the folders of the tree at `from` to `to`, each without those within it, which are folders of their own. */
export async function copyFolders(folders: readonly NeededFolder[], from: string, to: string): Promise<void> {
  for (const { path, isOptional } of folders) {
    const source = join(from, path);
    if (!existsSync(source)) {
      if (isOptional) continue;
      throw new Error(`${path} is not installed; run make setup`);
    }
    const filter = (file: string) => basename(file) !== "node_modules";
    await cp(source, join(to, path), { recursive: true, verbatimSymlinks: true, filter });
  }
}
