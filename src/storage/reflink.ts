// Images on XFS or btrfs that share their extents: a snapshot is a FICLONE, and what changed between two snapshots is
// read from the file system's extent maps, without reading the data.

import type { FileHandle } from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { ChangedExtent, Changes } from "./backend.ts";
import { allocatedByMap, compareMaps, fileMapper, withHolesBetween } from "./changed-extents.ts";
import type { Mechanism, OpenPoint } from "./mechanism.ts";
import { cloneWhole, errnoOf, setExtentSizeHint, sharingFileSystem } from "./native.ts";
import { sampleEqualBlocks } from "./sharing-sample.ts";

/** First writes into holes allocate in pieces of this size on XFS, so that scattered ones do not each make an extent. */
const liveExtentBytes = 64 * 1024;

export function reflinkMechanism(clock: Clock): Mechanism {
  return {
    kind: "reflink",
    wantsImmutable: true,
    fsUuid,
    prepareLive,
    duplicate: (source, target) => cloneWhole(source.fd, target.fd),
    // FICLONE itself holds writers up while it runs: nothing else is needed for a content of one moment.
    heldStill: (_volume, _live, work) => work(() => undefined),
    changed: (base, next, signal) => changed(base, next, clock, signal),
    async allocated(point, signal) {
      const extents = await allocatedByMap(fileMapper(point.image.fd), point.sizeBytes, signal);
      return { mode: { kind: "allocated", reason: "everything allocated was asked for" }, extents };
    },
  };
}

function fsUuid(image: FileHandle): string {
  const fileSystem = sharingFileSystem(image.fd);
  if (fileSystem !== undefined) return fileSystem.uuid;
  throw new LongshoreError("Unsupported", "the reflink backend's folder is not on XFS or btrfs any more");
}

function prepareLive(image: FileHandle): void {
  try {
    setExtentSizeHint(image.fd, liveExtentBytes);
  } catch (error) {
    // Only XFS knows the hint; it is a help, not a need.
    if (!["EOPNOTSUPP", "ENOTTY", "EINVAL"].includes(errnoOf(error) ?? "")) throw error;
  }
}

async function changed(
  base: OpenPoint,
  next: OpenPoint,
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<Changes> {
  const nextMap = fileMapper(next.image.fd);
  const comparison = { base: fileMapper(base.image.fd), next: nextMap, nextBytes: next.sizeBytes, clock, signal };
  const result = await compareMaps(comparison);
  if (result.kind === "compared") return delta(base, next, result.extents, signal);
  const data = await allocatedByMap(nextMap, next.sizeBytes, signal);
  return {
    mode: { kind: "allocated", reason: `extents of the base kept moving near byte ${result.offset}` },
    extents: withHolesBetween(data, Math.min(base.sizeBytes, next.sizeBytes)),
  };
}

async function delta(
  base: OpenPoint,
  next: OpenPoint,
  extents: readonly ChangedExtent[],
  signal: AbortSignal | undefined,
): Promise<Changes> {
  const sample = await sampleEqualBlocks(base, next, extents, signal);
  return { mode: { kind: "delta", unshared: sample.isMostlyEqual }, extents };
}
