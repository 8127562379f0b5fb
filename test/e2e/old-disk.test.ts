// An agent whose data are put back to an older copy, on either side: no difference ever lands on a base that is not the same
// point, and new migrations bring both sides together again. Put back as a disk, files keep their identity; copied file by
// file they lose it, and no point counts any more.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { rename, rm } from "node:fs/promises";
import { promisify } from "node:util";
import { expect } from "@jest/globals";
import { seededDice } from "../../src/base/dice.ts";
import type { SnapshotView } from "../../src/wire/schemas.ts";
import { onEachBackend, type PairTest } from "./on-each-backend.ts";
import { mebibyte, type Side } from "./pair.ts";
import { TrackedVolume } from "./tracked-volume.ts";

const run = promisify(execFile);
const delta = { kind: "Delta", reason: "CommonBase" };
const noCommonPoint = { kind: "Allocated", reason: "NoCommonPoint" };

onEachBackend(
  (test, backend) => {
    if (backend === "reflink") diskTests(test);
    folderTests(test);
  },
  // A target put back to the middle of a job grants no other job a term before that one's lease is over.
  () => ({ limits: { lease: "5s" } }),
);

function diskTests(test: PairTest): void {
  test("a target put back gets the difference from the newest point that both sides still have", async (pair) => {
    const volume = await TrackedVolume.make(pair, "target-common");
    const [, second] = await migrateMany(volume, 1, 2);
    await save(pair.target);
    await migrateMany(volume, 3, 4);
    await putBack(pair.target);
    expect((await pointsThere(volume)).at(-1)).toBe(second?.pointId);
    const next = await volume.writeAndSnapshot(5);
    expect(await volume.migrate("s5")).toMatchObject({ mode: delta, from: { pointId: second?.pointId } });
    expect((await pointsThere(volume)).at(-1)).toBe(next.pointId);
    expect((await volume.arrived()).diverged).toBe(false);
  });

  test("a target put back to what the source has deleted gets everything, and is shown as diverged until the next", async (pair) => {
    const volume = await TrackedVolume.make(pair, "target-none");
    await migrateMany(volume, 1, 2);
    await save(pair.target);
    await migrateMany(volume, 3, 4);
    await volume.release("s1", "s2", "s3");
    await putBack(pair.target);
    await volume.writeAndSnapshot(5);
    expect(await volume.migrate("s5")).toMatchObject({ mode: noCommonPoint, from: null });
    expect((await volume.arrived()).diverged).toBe(true);
    await volume.writeAndSnapshot(6);
    expect(await volume.migrate("s6")).toMatchObject({ mode: delta });
    expect((await volume.arrived()).diverged).toBe(false);
  });

  test("a source put back sends the difference from the newest point that both have, shown as diverged until the next", async (pair) => {
    const volume = await TrackedVolume.make(pair, "source-common");
    const [, second] = await migrateMany(volume, 1, 2);
    await save(pair.source);
    const [, fourth] = await migrateMany(volume, 3, 4);
    await putBack(pair.source);
    await volume.writeAndSnapshot(5);
    expect(await volume.migrate("s5")).toMatchObject({ mode: delta, from: { pointId: second?.pointId } });
    expect((await volume.arrived()).diverged).toBe(true);
    const next = await volume.writeAndSnapshot(6);
    // Numbers are for people: they go on growing on both sides.
    expect(next.generation).toBeGreaterThan(fourth?.generation ?? 0);
    expect(await volume.migrate("s6")).toMatchObject({ mode: delta });
    expect((await volume.arrived()).diverged).toBe(false);
  });

  test("a source put back to before all points that the target keeps sends everything", async (pair) => {
    const volume = await TrackedVolume.make(pair, "source-none");
    await migrateMany(volume, 1, 2);
    await save(pair.source);
    await migrateMany(volume, 3, 4, 5);
    await putBack(pair.source);
    await volume.writeAndSnapshot(6);
    expect(await volume.migrate("s6")).toMatchObject({ mode: noCommonPoint, from: null });
    expect((await volume.arrived()).diverged).toBe(true);
    await volume.writeAndSnapshot(7);
    expect(await volume.migrate("s7")).toMatchObject({ mode: delta });
  });

  test("a target put back in the middle of a job goes on from what its disk has", async (pair) => {
    const volume = await TrackedVolume.make(pair, "target-midway");
    await migrateMany(volume, 1);
    await volume.writeAndSnapshot(2);
    const job = await volume.beginAndMeetMidway("s2");
    await save(pair.target);
    await volume.midway(job, 3 * mebibyte);
    await putBack(pair.target);
    await volume.setPace("full");
    expect(await volume.succeeded(job)).toMatchObject({ mode: delta });
    await volume.checkArrived("s2");
    await volume.checkSettled();
  });

  test("a target put back to the middle of a job that is long over takes the next point all the same", async (pair) => {
    const volume = await TrackedVolume.make(pair, "target-stale");
    const [first] = await migrateMany(volume, 1);
    await volume.writeAndSnapshot(2);
    const job = await volume.beginAndMeetMidway("s2");
    await save(pair.target);
    await volume.setPace("full");
    await volume.succeeded(job);
    await putBack(pair.target);
    await volume.writeAndSnapshot(3);
    expect(await volume.migrate("s3")).toMatchObject({ mode: delta, from: { pointId: first?.pointId } });
    await volume.checkSettled();
  });

  test("a source put back to the middle of a job that is long over finishes it forward", async (pair) => {
    const volume = await TrackedVolume.make(pair, "source-midway");
    await migrateMany(volume, 1);
    const second = await volume.writeAndSnapshot(2);
    const job = await volume.beginAndMeetMidway("s2");
    await save(pair.source);
    await volume.setPace("full");
    await volume.succeeded(job);
    await migrateMany(volume, 3);
    await putBack(pair.source);
    await volume.setPace("full");
    await volume.succeeded(job);
    expect((await volume.view()).bases).toMatchObject([{ pointId: second.pointId }]);
    await volume.writeAndSnapshot(4);
    expect(await volume.migrate("s4")).toMatchObject({ mode: delta, from: { pointId: second.pointId } });
    await volume.checkSettled();
  });

  const walkSeed = 3;
  test(`however often either side is put back, every point stays what it was (seed ${walkSeed})`, async (pair) => {
    const dice = seededDice(walkSeed);
    const volume = await TrackedVolume.make(pair, "walk");
    await migrateMany(volume, 1);
    await save(pair.source);
    await save(pair.target);
    for (let step = 2; step <= 6; step++) {
      const side = dice.random() < 0.5 ? pair.source : pair.target;
      const chance = dice.random();
      if (chance < 0.6) await putBack(side);
      else if (chance < 0.8) await save(side);
      if (dice.random() < 0.3) await volume.release(`s${step - 1}`, `s${step - 2}`);
      await volume.write(step, mebibyte);
      await volume.snapshot(`s${step}`);
      await volume.migrate(`s${step}`);
      await pair.checkEveryPoint();
    }
    await volume.checkSettled();
  });
}

function folderTests(test: PairTest): void {
  test("a source restored from a copy of its files has lost its points, and sends everything", async (pair) => {
    const volume = await TrackedVolume.make(pair, "source-files");
    await migrateMany(volume, 1, 2);
    await restoreFiles(pair.source, () => migrateMany(volume, 3, 4));
    const states = (await volume.view()).snapshots.map(({ name, state }) => `${name} ${state}`);
    expect(states).toEqual(["s1 lost", "s2 lost"]);
    await volume.writeAndSnapshot(5);
    expect(await volume.migrate("s5")).toMatchObject({ mode: noCommonPoint, from: null });
    expect((await volume.arrived()).diverged).toBe(true);
    await volume.writeAndSnapshot(6);
    expect(await volume.migrate("s6")).toMatchObject({ mode: delta });
    expect((await volume.arrived()).diverged).toBe(false);
  });

  test("a target restored from a copy of its files has lost its points, and gets everything", async (pair) => {
    const volume = await TrackedVolume.make(pair, "target-files");
    await migrateMany(volume, 1, 2);
    await restoreFiles(pair.target, () => migrateMany(volume, 3, 4));
    const { points, state } = await volume.arrived();
    expect(points.map((point) => point.state)).toEqual(["lost", "lost"]);
    expect(state).toBe("Empty");
    await volume.writeAndSnapshot(5);
    expect(await volume.migrate("s5")).toMatchObject({
      mode: { kind: "Allocated", reason: "NoCommonPoint" },
      from: null,
    });
    await volume.writeAndSnapshot(6);
    expect(await volume.migrate("s6")).toMatchObject({ mode: delta });
  });
}

/** One migration after the other, each with changes of its own; the snapshots they were of. */
async function migrateMany(volume: TrackedVolume, ...numbers: readonly number[]): Promise<SnapshotView[]> {
  const snapshots: SnapshotView[] = [];
  for (const number of numbers) {
    await volume.write(number, 2 * mebibyte);
    snapshots.push(await volume.snapshot(`s${number}`));
    await volume.migrate(`s${number}`);
  }
  return snapshots;
}

async function pointsThere(volume: TrackedVolume): Promise<string[]> {
  return (await volume.arrived()).points.map(({ pointId }) => pointId);
}

/** Keeps the disk of a side as it is now. */
function save(side: Side): Promise<void> {
  return whileDetached(side, async (disk) => disk.save("old"));
}

/** Makes the disk of a side what it was when it was saved last. */
function putBack(side: Side): Promise<void> {
  return whileDetached(side, async (disk) => disk.restore("old"));
}

async function whileDetached(side: Side, work: (disk: NonNullable<Side["disk"]>) => Promise<void>): Promise<void> {
  const { disk } = side;
  assert.ok(disk, `the ${side.name} has no disk of its own`);
  await side.agent().signal("SIGTERM");
  await disk.detach();
  await work(disk);
  await disk.attach();
  await side.start();
}

/** Copies the data of a side file by file, lets something happen, and has the agent go on with the copy. */
async function restoreFiles(side: Side, meanwhile: () => Promise<unknown>): Promise<void> {
  const copy = `${side.dataDir}.copy`;
  await side.agent().signal("SIGTERM");
  await run("cp", ["--archive", "--sparse=always", side.dataDir, copy]);
  await side.start();
  await meanwhile();
  await side.agent().signal("SIGTERM");
  await makeMutable(side);
  await rm(side.dataDir, { recursive: true });
  await rename(copy, side.dataDir);
  await side.start();
}

/** Sealed points may be immutable; the `copy` backend leaves them alone. */
async function makeMutable(side: Side): Promise<void> {
  if (side.disk !== undefined) await run("chattr", ["-R", "-i", side.dataDir]);
}
