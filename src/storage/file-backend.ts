// The storage backend over image files, for every mechanism: see backend.ts for what it promises.

import * as fs from "node:fs/promises";
import type { Clock } from "../base/clock.ts";
import { LongshoreError } from "../domain/errors.ts";
import {
  blockBytes,
  type PointReader,
  type Sealed,
  type SealedIdentity,
  type SealedPoint,
  type StorageBackend,
} from "./backend.ts";
import type { BulkReader } from "./bulk-reader.ts";
import { attempt } from "./failures.ts";
import { Freezer } from "./freezer.ts";
import {
  adoptImage,
  buildImage,
  identityOf,
  imageState,
  openImage,
  removeImage,
  sealImage,
  verifyIdentity,
} from "./image-file.ts";
import { listImages, quarantineImage, removeEmptyVolume } from "./inventory.ts";
import type { Layout } from "./layout.ts";
import type { Mechanism, OpenPoint } from "./mechanism.ts";
import { userOf } from "./mounts.ts";
import { readWhole, requireWithin } from "./positioned-io.ts";
import { SpareClones } from "./spare-clones.ts";
import { type StagingRegister, stagingRegister } from "./staging.ts";

interface Parts {
  readonly layout: Layout;
  readonly mechanism: Mechanism;
  readonly clock: Clock;
  readonly stagings: StagingRegister;
  readonly spares: SpareClones;
  readonly freezer: Freezer;
}

/** Opens a backend over a root that {@link ensureLayout} has prepared; what an earlier process left frozen is thawed. Changes to one volume must not overlap: see one-at-a-time.ts. */
export async function fileBackend(
  layout: Layout,
  mechanism: Mechanism,
  { clock, reader }: { readonly clock: Clock; readonly reader: BulkReader },
): Promise<StorageBackend> {
  const freezer = new Freezer(layout, clock);
  await attempt("thaw what an earlier process left frozen", () => freezer.recover());
  const spares = new SpareClones(clock);
  const parts: Parts = { layout, mechanism, clock, stagings: stagingRegister(reader), spares, freezer };
  return {
    kind: mechanism.kind,
    ...volumeMethods(parts),
    ...pointMethods(parts),
    ...stagingMethods(parts),
    list: () => attempt("list the images", () => listImages(layout)),
    quarantine: (image) => attempt("quarantine an image", () => quarantineImage(layout, image)),
    async space() {
      const { bavail, blocks, bsize } = await attempt("ask for free space", () => fs.statfs(layout.root));
      return { freeBytes: bavail * bsize, totalBytes: blocks * bsize };
    },
    async close() {
      await freezer.close();
      await parts.stagings.closeAll();
      await spares.close();
      await reader.close();
    },
  };
}

type VolumeMethods = Pick<StorageBackend, "create" | "expand" | "remove" | "livePath" | "attachedTo" | "clone">;

function volumeMethods(parts: Parts): VolumeMethods {
  const { layout, mechanism } = parts;
  return {
    livePath: (volume) => layout.live(volume),
    async attachedTo(volume) {
      const path = layout.live(volume);
      if ((await imageState(path)) !== "writable") return undefined;
      return attempt(`look at who uses volume ${volume}`, () => userOf(path));
    },
    async create(volume, sizeBytes) {
      requireSize(volume, sizeBytes);
      await makeLive(parts, volume, { sizeBytes }, async (live) => mechanism.prepareLive(live));
    },
    async clone(from, to) {
      requireSize(to.volume, to.sizeBytes);
      if (to.sizeBytes < from.identity.sizeBytes) throw shrinkRefused(to.volume, to.sizeBytes, from.identity.sizeBytes);
      // Asked again after success: the point may be gone by now, and the clone may have been written to.
      if (await isMade(parts, to.volume, to.sizeBytes)) return;
      await withPoint(parts, from.volume, from, (point) =>
        makeLive(parts, to.volume, to, async (live) => {
          mechanism.prepareLive(live);
          await mechanism.duplicate(point.image, live);
        }),
      );
    },
    expand: (volume, sizeBytes) => expand(layout, volume, sizeBytes),
    remove: (volume) =>
      attempt(`remove volume ${volume}`, async () => {
        await removeImage(layout.live(volume));
        await removeEmptyVolume(layout, volume);
      }),
  };
}

/** Makes a live image of exactly `sizeBytes`; a finished one of that size is left alone, whatever it holds by now. */
async function makeLive(
  parts: Parts,
  volume: string,
  { sizeBytes }: { sizeBytes: number },
  fill: (live: fs.FileHandle) => Promise<void>,
): Promise<void> {
  if (await isMade(parts, volume, sizeBytes)) return;
  await attempt(`make volume ${volume}`, () =>
    buildImage(parts.layout.live(volume), "writable", async (live) => {
      await fill(live);
      await live.truncate(sizeBytes);
    }),
  );
}

async function isMade({ layout }: Parts, volume: string, sizeBytes: number): Promise<boolean> {
  const path = layout.live(volume);
  if ((await imageState(path)) !== "writable") return false;
  const { size } = await attempt(`look at volume ${volume}`, () => fs.stat(path), "VolumeGone");
  if (size === sizeBytes) return true;
  throw new LongshoreError("BadRequest", `volume ${volume} exists with ${size} bytes, not ${sizeBytes}`);
}

async function expand(layout: Layout, volume: string, sizeBytes: number): Promise<void> {
  requireSize(volume, sizeBytes);
  await withLive(layout, volume, { step: "grow", access: "write" }, async (live) => {
    const { size } = await live.stat();
    if (sizeBytes < size) throw shrinkRefused(volume, sizeBytes, size);
    if (sizeBytes > size) await live.truncate(sizeBytes);
    await live.sync();
  });
}

type PointMethods = Pick<StorageBackend, "freeze" | "snapshot" | "deletePoint" | "changed" | "allocated" | "openPoint">;

function pointMethods(parts: Parts): PointMethods {
  const { layout, mechanism, stagings } = parts;
  return {
    freeze: (volume, timeoutMs) => attempt(`freeze volume ${volume}`, () => parts.freezer.freeze(volume, timeoutMs)),
    snapshot: (volume, point) => snapshot(parts, volume, point),
    deletePoint: (volume, point) =>
      attempt(`delete point ${point} of ${volume}`, async () => {
        await stagings.closeAll(layout.point(volume, point));
        await removeImage(layout.point(volume, point));
      }),
    changed: (volume, base, next, signal) =>
      withPoint(parts, base.volume ?? volume, base, (openBase) =>
        withPoint(parts, volume, next, (openNext) =>
          attempt(`compare points ${base.point} and ${next.point} of ${volume}`, () =>
            mechanism.changed(openBase, openNext, signal),
          ),
        ),
      ),
    allocated: (volume, point, signal) => withPoint(parts, volume, point, (open) => mechanism.allocated(open, signal)),
    openPoint: async (volume, point) =>
      pointReader(`point ${point.point} of ${volume}`, await openPoint(parts, volume, point), point.identity.sizeBytes),
  };
}

async function snapshot(parts: Parts, volume: string, point: string): Promise<Sealed> {
  const { layout, mechanism, clock } = parts;
  const path = layout.point(volume, point);
  // A sealed point is never taken again: somebody may hold its content already.
  if ((await imageState(path)) === "sealed") return { identity: await seal(parts, volume, point), stallMs: 0 };
  const frozen = parts.freezer.checkpoint(volume);
  let stallMs = 0;
  await withLive(layout, volume, { step: "snapshot", access: "read" }, async (live) => {
    requireSize(`the live image of volume ${volume}`, (await live.stat()).size);
    await buildImage(path, "sealed", (image) =>
      mechanism.heldStill({ volume, live, frozen }, async (checkpoint) => {
        const startedMs = clock.monotonicMs();
        await mechanism.duplicate(live, image, checkpoint);
        stallMs = clock.monotonicMs() - startedMs;
      }),
    );
  });
  const restsOnFreeze = frozen !== undefined && mechanism.restsOnFreeze;
  return { identity: await seal(parts, volume, point), stallMs, ...(restsOnFreeze && { restsOnFreeze }) };
}

type StagingMethods = Pick<StorageBackend, "stageSoon" | "stage" | "openStaging" | "seal">;

function stagingMethods(parts: Parts): StagingMethods {
  const { layout, mechanism, stagings, spares } = parts;
  return {
    stageSoon(volume, base) {
      if (!mechanism.sharesBlocks) return;
      const fill = (image: fs.FileHandle) =>
        withPoint(parts, base.volume ?? volume, base, (open) => beginStaging(mechanism, image, open));
      spares.make(volume, base, layout.points(volume), fill);
    },
    async stage(volume, point, base, sizeBytes, signal) {
      requireSize(point, sizeBytes);
      const baseBytes = base?.identity.sizeBytes ?? 0;
      if (sizeBytes < baseBytes) throw shrinkRefused(point, sizeBytes, baseBytes);
      const path = layout.point(volume, point);
      await stagings.closeAll(path);
      const build = (open?: OpenPoint) =>
        buildImage(path, "writable", async (image) => {
          await beginStaging(mechanism, image, open, () => signal?.throwIfAborted());
          await image.truncate(sizeBytes);
        });
      await attempt(`stage point ${point} of ${volume}`, async () => {
        const spare = await spares.take(volume, base);
        if (spare !== undefined) await adoptSpare(path, spare, sizeBytes);
        else if (base === undefined) await build();
        else await withPoint(parts, base.volume ?? volume, base, build);
      });
    },
    openStaging: (volume, point, sizeBytes) => openStaging(parts, { volume, point, sizeBytes }),
    seal: (volume, point) => seal(parts, volume, point),
  };
}

async function beginStaging(
  mechanism: Mechanism,
  image: fs.FileHandle,
  base: OpenPoint | undefined,
  checkpoint?: () => void,
): Promise<void> {
  mechanism.prepareStaging(image);
  if (base !== undefined) await mechanism.duplicate(base.image, image, checkpoint);
}

async function adoptSpare(path: string, spare: fs.FileHandle, sizeBytes: number): Promise<void> {
  try {
    await spare.truncate(sizeBytes);
    await adoptImage(path, spare);
  } finally {
    await spare.close();
  }
}

async function openStaging({ layout, stagings }: Parts, at: { volume: string; point: string; sizeBytes: number }) {
  const path = layout.point(at.volume, at.point);
  const name = `staging ${at.point} of ${at.volume}`;
  const state = await imageState(path);
  if (state === "missing" || state === "unfinished") throw new LongshoreError("PointGone", `${name} is ${state}`);
  const { size } = await fs.stat(path);
  if (size !== at.sizeBytes) {
    throw new LongshoreError("PointGone", `${name} has ${size} bytes where ${at.sizeBytes} are expected`);
  }
  return attempt(
    `open ${name}`,
    () => stagings.open(path, name, { sizeBytes: size, isSealed: state === "sealed" }),
    "PointGone",
  );
}

async function seal({ layout, mechanism, stagings }: Parts, volume: string, point: string): Promise<SealedIdentity> {
  const path = layout.point(volume, point);
  await stagings.closeAll(path);
  return attempt(
    `seal point ${point} of ${volume}`,
    async () => {
      if ((await imageState(path)) === "unfinished")
        throw new LongshoreError("PointGone", `${point} was never finished`);
      const image = await openImage(path, "read");
      try {
        await sealImage(image, mechanism.wantsImmutable);
        return await identityOf(image, mechanism.fsUuid(image));
      } finally {
        await image.close();
      }
    },
    "PointGone",
  );
}

async function openPoint(parts: Parts, volume: string, { point, identity }: SealedPoint): Promise<fs.FileHandle> {
  const name = `point ${point} of ${volume}`;
  const path = parts.layout.point(volume, point);
  const state = await imageState(path);
  if (state !== "sealed") throw new LongshoreError("PointGone", `${name} is ${state}`);
  const image = await attempt(`open ${name}`, () => openImage(path, "read"), "PointGone");
  try {
    await verifyIdentity(name, image, { recorded: identity, fsUuid: parts.mechanism.fsUuid(image) });
    return image;
  } catch (error) {
    await image.close();
    throw error;
  }
}

async function withPoint<T>(
  parts: Parts,
  volume: string,
  point: SealedPoint,
  work: (open: OpenPoint) => Promise<T>,
): Promise<T> {
  const image = await openPoint(parts, volume, point);
  try {
    return await attempt(`read point ${point.point} of ${volume}`, () =>
      work({ image, sizeBytes: point.identity.sizeBytes }),
    );
  } finally {
    await image.close();
  }
}

async function withLive<T>(
  layout: Layout,
  volume: string,
  { step, access }: { step: string; access: "read" | "write" },
  work: (live: fs.FileHandle) => Promise<T>,
): Promise<T> {
  const path = layout.live(volume);
  const state = await imageState(path);
  if (state !== "writable") throw new LongshoreError("VolumeGone", `the live image of volume ${volume} is ${state}`);
  const live = await attempt(`open volume ${volume}`, () => openImage(path, access), "VolumeGone");
  try {
    return await attempt(`${step} volume ${volume}`, () => work(live));
  } finally {
    await live.close();
  }
}

function pointReader(name: string, image: fs.FileHandle, sizeBytes: number): PointReader {
  return {
    sizeBytes,
    fd: image.fd,
    read: (offset, into) =>
      attempt(`read ${name}`, async () => {
        requireWithin(name, { offset, length: into.length }, sizeBytes);
        await readWhole(image, offset, into);
      }),
    close: () => image.close(),
  };
}

function requireSize(name: string, sizeBytes: number): void {
  if (Number.isSafeInteger(sizeBytes) && sizeBytes > 0 && sizeBytes % blockBytes === 0) return;
  throw new LongshoreError("BadRequest", `${name}: a size is a positive multiple of ${blockBytes}, not ${sizeBytes}`);
}

function shrinkRefused(name: string, wanted: number, present: number): LongshoreError {
  return new LongshoreError("BadRequest", `${name} cannot shrink to ${wanted} bytes: it has ${present}`);
}
