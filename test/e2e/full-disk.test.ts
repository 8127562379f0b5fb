// Disks that are full, on either side: what cannot be done is refused or put off with a reason and advice, nothing is left
// half made, and everything goes on once there is room.
import assert from "node:assert/strict";
import { closeSync, fsyncSync, openSync, readFileSync, rmSync, statfsSync, statSync, writeSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect } from "@jest/globals";
import { errorTable } from "../../src/domain/errors.ts";
import type { LoopFsOptions } from "../fakes/loop-fs.ts";
import { rawRequest } from "../fakes/raw-request.ts";
import { readJournal } from "./dead-journal.ts";
import { onEachBackend, type PairTest } from "./on-each-backend.ts";
import { type Backend, kill, mebibyte, type Side, soon } from "./pair.ts";
import { TrackedVolume } from "./tracked-volume.ts";

const disks: Readonly<Record<Backend, LoopFsOptions>> = {
  copy: { fs: "ext4", sizeBytes: 160 * mebibyte, mkfsArgs: ["-m", "0"] },
  reflink: { fs: "xfs", sizeBytes: 320 * mebibyte, mkfsArgs: ["-m", "reflink=1"] },
};

// With a reserve the agent stops by itself; without, the file system stops it in the middle of something.
describe.each(["16Mi", "0"])("with a reserve of %s", (reserve) => {
  onEachBackend(
    (test, backend) => {
      // A reflink takes no room worth mentioning, so without a reserve it succeeds, or not, as XFS likes.
      if (backend === "copy" || reserve !== "0") snapshotTest(test);
      jobTests(test);
    },
    (backend) => ({ disk: disks[backend], needsDisk: true, limits: { reserve } }),
  );
});

function snapshotTest(test: PairTest): void {
  test("a snapshot on a full disk is refused with advice, leaves nothing, and is taken once there is room", async (pair) => {
    const { source } = pair;
    const volume = await TrackedVolume.make(pair, "refused");
    await volume.writeAndSnapshot(1);
    await volume.write(2);
    const before = await imagesOf(source, volume);
    await whileFull(source, async () => {
      const answer = await rawRequest(source.address, {
        method: "PUT",
        path: `/v1/volumes/${volume.name}/snapshots/s2`,
        headers: { "content-type": "application/json" },
        body: "{}",
        show: operatorOf(source),
      });
      expect(answer.json).toMatchObject({ status: 507, code: "DiskFull", advice: errorTable.DiskFull.advice });
      expect((await volume.view()).snapshots.map(({ name }) => name)).toEqual(["s1"]);
      expect(await imagesOf(source, volume)).toEqual(before);
    });
    await volume.snapshot("s2");
    await volume.migrate("s2");
  });
}

function jobTests(test: PairTest): void {
  test("a job whose target is full tells so, keeps what is stored, and ends well once there is room", async (pair) => {
    const { source, target } = pair;
    const volume = await TrackedVolume.make(pair, "target-full");
    // More than what an agent without reserve makes room for by giving up the ballast of its journal.
    await volume.write(1, 14 * mebibyte);
    await volume.snapshot("s1");
    const job = await volume.beginAndMeetMidway("s1");
    await whileFull(target, async () => {
      await volume.setPace("full");
      const failing = await soon("the job telling that the disk is full", async () => {
        const view = await source.api.getJob(job);
        return view.error?.code === "DiskFull" ? view : undefined;
      });
      expect(failing).toMatchObject({ state: "Running", error: { advice: errorTable.DiskFull.advice } });
      // The journal takes what has to be recorded, and an agent that is killed now starts again.
      await kill(target);
      expect(await readJournal(target.dataDir, "PRAGMA integrity_check")).toEqual([{ integrity_check: "ok" }]);
      await target.start();
      const { attempts } = await source.api.getJob(job);
      await soon("the job trying again", async () => {
        return (await source.api.getJob(job)).attempts > attempts + 1 ? true : undefined;
      });
    });
    const { bytesStored, bytesTotal } = await volume.succeeded(job);
    expect(bytesStored).toBe(bytesTotal);
    await volume.checkArrived("s1");
    await volume.checkSettled();
  });

  test("a job whose source is full ends well, and its journal survives a kill", async (pair) => {
    const { source } = pair;
    const volume = await TrackedVolume.make(pair, "source-full");
    await volume.writeAndSnapshot(1);
    const job = await volume.beginAndMeetMidway("s1");
    await whileFull(source, async () => {
      await kill(source);
      expect(await readJournal(source.dataDir, "PRAGMA integrity_check")).toEqual([{ integrity_check: "ok" }]);
      await source.start();
      await volume.midway(job, 2 * mebibyte);
    });
    await volume.setPace("full");
    await volume.succeeded(job);
    await volume.checkArrived("s1");
    await volume.checkSettled();
  });
}

/** Does `work` while every byte of a side's disk is taken, and gives the room back afterwards. */
async function whileFull({ disk }: Side, work: () => Promise<void>): Promise<void> {
  assert.ok(disk, "only a disk of its own may be filled");
  const path = join(disk.path, "filler");
  try {
    fill(path);
    assert.ok(statfsSync(disk.path).bavail < 256, "the disk is not full");
    await work();
  } finally {
    const { size } = statSync(path);
    rmSync(path);
    // XFS frees what a removed file had a moment later.
    await soon("the room being free again", async () => {
      const { bavail, bsize } = statfsSync(disk.path);
      return bavail * bsize > size / 2 || undefined;
    });
  }
}

function fill(path: string): void {
  const file = openSync(path, "w");
  try {
    // Room that was set aside for later comes back as it is written out, so it takes some rounds.
    for (let round = 0; round < 3; round++) {
      for (const pieceBytes of [mebibyte, 4096]) writeUntilFull(file, Buffer.alloc(pieceBytes, 0x55));
      syncAsFarAsItGoes(file);
    }
  } finally {
    closeSync(file);
  }
}

function writeUntilFull(file: number, piece: Buffer): void {
  try {
    for (;;) writeSync(file, piece);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
}

function syncAsFarAsItGoes(file: number): void {
  try {
    fsyncSync(file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOSPC") throw error;
  }
}

async function imagesOf(source: Side, volume: TrackedVolume): Promise<string[]> {
  const entries = await readdir(join(source.dataDir, "volumes", volume.uid), { recursive: true });
  return entries.sort();
}

function operatorOf({ pki }: Side): { cert: string; key: string } {
  const read = (name: string) => readFileSync(join(pki, name), "utf8");
  return { cert: read("operator.crt"), key: read("operator.key") };
}
