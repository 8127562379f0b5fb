// How much a volume holds, and its way to the disk.
import * as fs from "node:fs/promises";

export interface Amount {
  readonly total: number;
  readonly used: number;
  /** For whoever writes without special rights. */
  readonly available: number;
}

export type Usage =
  /** `inodes.total` is nought where there is no limit to them. */
  | { readonly kind: "fileSystem"; readonly bytes: Amount; readonly inodes: Amount }
  | { readonly kind: "block"; readonly totalBytes: number };

export async function usageOfFileSystem(path: string): Promise<Usage> {
  const { bsize, blocks, bfree, bavail, files, ffree } = await fs.statfs(path);
  return {
    kind: "fileSystem",
    bytes: { total: blocks * bsize, used: (blocks - bfree) * bsize, available: bavail * bsize },
    inodes: { total: files, used: files - ffree, available: ffree },
  };
}

/** Resolves when everything written to a device is on disk. */
export async function syncDevice(path: string): Promise<void> {
  const device = await fs.open(path, "r+");
  try {
    await device.sync();
  } finally {
    await device.close();
  }
}
