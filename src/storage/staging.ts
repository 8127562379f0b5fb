// The image a migration writes into, held open, and the register of those that are open: sealing or deleting an image
// closes them, so that no write can reach a file that counts as a point.

import { constants } from "node:fs";
import * as fs from "node:fs/promises";
import { assert } from "../base/assert.ts";
import { unlessErrno } from "../base/system-error.ts";
import { LongshoreError } from "../domain/errors.ts";
import { dropCache, openDirectFlags, punchHole, startWriteOut } from "../native/file-calls.ts";
import { blockBytes, type Digest, type Extent, type Staging } from "./backend.ts";
import type { BulkReader } from "./bulk-reader.ts";
import { attempt } from "./failures.ts";
import { openImage } from "./image-file.ts";
import { chunkBytesMax, chunksOf, requireWithin, writeWhole } from "./positioned-io.ts";

/** File systems that live in memory take O_DIRECT without a medium behind it. */
const memoryFileSystems = new Set([0x01021994 /* tmpfs */, 0x858458f6 /* ramfs */]);

/** The open staging images of one backend. */
export interface StagingRegister {
  open(path: string, name: string, options: { sizeBytes: number; isSealed: boolean }): Promise<Staging>;
  /**
   * Waits for what is under way in the images open under `path`, then closes them; later writes to them are bugs. Without a
   * path all are closed, for good: one that is being opened then is closed as well, and refused.
   */
  closeAll(path?: string): Promise<void>;
}

export function stagingRegister(reader: BulkReader): StagingRegister {
  const openImages = new Set<OpenStaging>();
  let isClosed = false;
  return {
    async open(path, name, { sizeBytes, isSealed }) {
      const direct = await openDirect(path);
      const image = await openImage(path, isSealed ? "read" : "write").catch(async (error) => {
        await direct?.close();
        throw error;
      });
      if (isClosed) {
        await direct?.close();
        await image.close();
        throw new LongshoreError("Unreachable", `cannot open ${name}: the storage was closed`);
      }
      const staging = openStaging({ path, name, sizeBytes, isSealed, image, direct, reader }, () =>
        openImages.delete(staging),
      );
      openImages.add(staging);
      return staging;
    },
    async closeAll(path) {
      isClosed ||= path === undefined;
      const chosen = [...openImages].filter((staging) => path === undefined || staging.path === path);
      await Promise.all(chosen.map((staging) => staging.close()));
    },
  };
}

interface OpenStaging extends Staging {
  readonly path: string;
}

interface StagingFacts {
  readonly path: string;
  readonly name: string;
  readonly sizeBytes: number;
  readonly isSealed: boolean;
  readonly image: fs.FileHandle;
  /** For reads past the page cache; absent where the file system has no such thing. */
  readonly direct: fs.FileHandle | undefined;
  readonly reader: BulkReader;
}

function openStaging(facts: StagingFacts, forget: () => void): OpenStaging {
  const { name, sizeBytes, image } = facts;
  const running = new Set<Promise<unknown>>();
  let closing: Promise<void> | undefined;

  // Everything but close goes through here: closing waits for what was begun, and nothing begins after it.
  async function run<T>(step: string, work: () => Promise<T>): Promise<T> {
    assert(closing === undefined, `${name} was closed, sealed or deleted; cannot ${step}`);
    const task = attempt(`${step} ${name}`, work);
    running.add(task);
    const forgetTask = () => running.delete(task);
    task.then(forgetTask, forgetTask);
    return task;
  }

  return {
    path: facts.path,
    sizeBytes,
    isSealed: facts.isSealed,
    fd: image.fd,
    write: (offset, data) =>
      run("write to", async () => {
        requireWritable(facts);
        requireWithin(name, { offset, length: data.length }, sizeBytes);
        await writeWhole(image, offset, data);
      }),
    punch: (extent) =>
      run("punch a hole into", async () => {
        requireWritable(facts);
        requireAligned(name, extent);
        requireWithin(name, extent, sizeBytes);
        if (extent.length > 0) await punchOrZero(image, extent);
      }),
    writeOut: (extent) =>
      run("write out", async () => {
        requireWithin(name, extent, sizeBytes);
        await startWriteOut(image.fd, extent.offset, extent.length);
      }),
    sync: () => run("sync", () => image.sync()),
    digest: (extents, wanted) =>
      run("read back", async () => {
        for (const extent of extents) requireWithin(name, extent, sizeBytes);
        return digestOf(facts, extents, wanted);
      }),
    close() {
      closing ??= Promise.allSettled(running).then(async () => {
        forget();
        await facts.direct?.close();
        await image.close();
      });
      return closing;
    },
  };
}

function requireWritable({ name, isSealed }: StagingFacts): void {
  if (isSealed) throw new LongshoreError("BadRequest", `${name} is sealed; it can only be read back`);
}

function requireAligned(name: string, extent: Extent): void {
  if (extent.offset % blockBytes === 0 && extent.length % blockBytes === 0) return;
  const text = `${name}: [${extent.offset}, +${extent.length}) is not made of whole blocks of ${blockBytes} bytes`;
  throw new LongshoreError("BadRequest", text);
}

async function punchOrZero(image: fs.FileHandle, extent: Extent): Promise<void> {
  const punched = await unlessErrno(["EOPNOTSUPP", "ENOSYS"], async () => {
    await punchHole(image.fd, extent.offset, extent.length);
    return true;
  });
  if (punched) return;
  const zeros = Buffer.alloc(Math.min(extent.length, chunkBytesMax));
  for (const { offset, length } of chunksOf(extent)) await writeWhole(image, offset, zeros.subarray(0, length));
}

async function digestOf(
  { image, direct, reader }: StagingFacts,
  extents: readonly Extent[],
  wanted: "media" | "memory",
): Promise<Digest> {
  const aligned = extents.every(({ offset, length }) => offset % blockBytes === 0 && length % blockBytes === 0);
  if (wanted === "media" && direct !== undefined && aligned) {
    const digest = await unlessErrno(["EINVAL"], () => digestPastCache(direct.fd, extents, reader));
    if (digest !== undefined) return { digest, verified: "media" };
  }
  return { digest: await reader.digest(image.fd, extents), verified: "memory" };
}

function digestPastCache(fd: number, extents: readonly Extent[], reader: BulkReader): Promise<string> {
  const start = extents[0]?.offset ?? 0;
  const last = extents.at(-1) ?? { offset: 0, length: 0 };
  // A compressed extent is read through the page cache even so; what is not in the cache comes from the medium.
  dropCache(fd, start, last.offset + last.length - start);
  return reader.digest(fd, extents);
}

async function openDirect(path: string): Promise<fs.FileHandle | undefined> {
  if (memoryFileSystems.has((await fs.statfs(path)).type)) return undefined;
  return unlessErrno(["EINVAL", "EOPNOTSUPP"], () => fs.open(path, openDirectFlags | constants.O_NOFOLLOW));
}
