// After a start: rows and files are brought together. What was being made is removed, what was being deleted is deleted,
// files no row knows are quarantined (never deleted), and rows whose file is gone are marked, so that people see it.
import type { FoundImage } from "../storage/backend.ts";
import type { Clones } from "./clones.ts";
import { type Core, guarded } from "./core.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey } from "./migrated.ts";
import { pointsOf, presentPoints, sweep } from "./points.ts";
import type { Volumes } from "./volumes.ts";

export async function recover(
  core: Core,
  parts: { volumes: Volumes; migrated: MigratedVolumes; clones: Clones },
): Promise<void> {
  await parts.volumes.recover();
  for (const row of parts.migrated.rows()) {
    await guarded(core, `migrated volume ${row.name}`, () =>
      row.deleting === 1 ? parts.migrated.finishRemoval(row) : sweep(core, row.uid),
    );
  }
  await quarantineUnknown(core, parts);
  await noteMissing(core, parts);
  parts.clones.recover();
}

/**
 * Now and then: goes on with what could not be finished when it was begun, such as on a full disk, as a start would. What is
 * under way is waited for, never touched.
 */
export async function tidy(core: Core, parts: { volumes: Volumes; migrated: MigratedVolumes; clones: Clones }) {
  const { volumes, migrated, clones } = parts;
  await clones.keepUsed();
  await volumes.tidy();
  for (const row of migrated.rows().filter((one) => isHalfGone(core, one))) {
    await guarded(core, `migrated volume ${row.name}`, () =>
      core.lock.run(migratedLockKey(row), async () => {
        const now = migrated.byUid(row.uid);
        if (now?.deleting === 1) await migrated.finishRemoval(now);
        else if (now !== undefined) await sweep(core, now.uid);
      }),
    );
  }
}

function isHalfGone({ journal }: Core, { uid, deleting }: MigratedRow): boolean {
  return deleting === 1 || pointsOf(journal, uid).some(({ state }) => state === "deleting");
}

async function quarantineUnknown(core: Core, { volumes, migrated }: { volumes: Volumes; migrated: MigratedVolumes }) {
  const live = new Set(volumes.rows().map((row) => row.uid));
  for (const image of await core.storage.list()) {
    if (isKnown(core, image, { live, migrated })) continue;
    const where = await core.storage.quarantine(image);
    core.log.error({ image, where }, "a file that no row knows was moved out of the way");
  }
}

function isKnown(core: Core, image: FoundImage, known: { live: Set<string>; migrated: MigratedVolumes }): boolean {
  if (image.kind === "live") return known.live.has(image.volume);
  if (known.migrated.staging(image.volume)?.toId === image.point) return true;
  return pointsOf(core.journal, image.volume).some((row) => row.file === image.point);
}

async function noteMissing(core: Core, { volumes, migrated }: { volumes: Volumes; migrated: MigratedVolumes }) {
  const found = new Set(
    (await core.storage.list()).filter((image) => image.kind === "live").map((image) => image.volume),
  );
  for (const row of volumes.rows().filter((volume) => volume.state === "ready")) {
    volumes.setProblem(row, found.has(row.uid));
    await presentPoints(core, row.uid);
  }
  for (const row of migrated.rows()) await presentPoints(core, row.uid);
}
