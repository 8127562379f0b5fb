// Images on XFS or btrfs that share their extents: a snapshot is a FICLONE, and what may have changed between two
// snapshots is read from the file system's extent maps; only that is then read and compared.

import type { FileHandle } from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import { errnoOf } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";
import { cloneWhole, setCopiedExtentSizeHint, setExtentSizeHint, sharingFileSystem } from "../native/file-calls.ts";
import { blockBytes, type Changes } from "./backend.ts";
import type { BulkReader } from "./bulk-reader.ts";
import { allocatedByMap, changesByMaps, fileMapper } from "./changed-extents.ts";
import { differingBlocks } from "./differing-blocks.ts";
import type { Mechanism, OpenPoint } from "./mechanism.ts";

/** First writes into holes allocate in pieces of this size on XFS, so that scattered ones do not each make an extent. */
const liveExtentBytes = 64 * 1024;

export function reflinkMechanism(clock: Clock, reader: BulkReader): Mechanism {
  return {
    kind: "reflink",
    restsOnFreeze: false,
    sharesBlocks: true,
    wantsImmutable: true,
    fsUuid,
    prepareLive: (image) => hint(() => setExtentSizeHint(image.fd, liveExtentBytes)),
    // By default XFS takes 128 KiB for each shared block that is written, and keeps what was not written of it for minutes.
    prepareStaging: (image) => hint(() => setCopiedExtentSizeHint(image.fd, blockBytes)),
    duplicate: (source, target) => cloneWhole(source.fd, target.fd),
    async heldStill({ live }, work) {
      // FICLONE holds writers up while it runs, so its content is of one moment. It writes back what is dirty first;
      // doing that beforehand, while writers go on, makes the time they are held up shorter.
      await live.datasync();
      return work(() => undefined);
    },
    changed: (base, next, signal) => changed({ base, next }, { clock, reader }, signal),
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

/** Only XFS knows hints; they are a help, not a need. */
function hint(give: () => void): void {
  try {
    give();
  } catch (error) {
    if (!["EOPNOTSUPP", "ENOTTY", "EINVAL"].includes(errnoOf(error) ?? "")) throw error;
  }
}

async function changed(
  { base, next }: { readonly base: OpenPoint; readonly next: OpenPoint },
  { clock, reader }: { readonly clock: Clock; readonly reader: BulkReader },
  signal: AbortSignal | undefined,
): Promise<Changes> {
  const { mode, extents } = await changesByMaps({
    base: fileMapper(base.image.fd),
    next: fileMapper(next.image.fd),
    baseBytes: base.sizeBytes,
    nextBytes: next.sizeBytes,
    clock,
    signal,
  });
  if (mode.kind === "allocated") return { mode, extents };
  const differing = await differingBlocks(reader, { base, next }, extents, signal);
  return { mode: { kind: "delta", unshared: differing.isUnshared }, extents: differing.extents };
}
