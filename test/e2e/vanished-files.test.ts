// Images that vanish behind the agent's back: snapshots, bases and staging, at rest and in the middle of a job.
import { execFile } from "node:child_process";
import { unlink } from "node:fs/promises";
import { promisify } from "node:util";
import { expect } from "@jest/globals";
import { onEachBackend } from "./on-each-backend.ts";
import { kill, mebibyte, type Pair, pointFile, type Side, soon } from "./pair.ts";
import { TrackedVolume } from "./tracked-volume.ts";

const run = promisify(execFile);
const delta = { kind: "Delta", reason: "CommonBase" };

onEachBackend((test) => {
  test("a base that vanished at the source gives way to the next older point that both have", async (pair) => {
    const volume = await TrackedVolume.make(pair, "base-source");
    const first = await volume.writeAndSnapshot(1);
    await volume.migrate("s1");
    const second = await volume.writeAndSnapshot(2);
    await volume.migrate("s2");
    await vanish(pair, pair.source, second.pointId);
    await volume.writeAndSnapshot(3);
    expect(await volume.migrate("s3")).toMatchObject({ mode: delta, from: { pointId: first.pointId } });
    expect((await volume.view()).snapshots).toMatchObject([
      { state: "sealed" },
      { state: "lost" },
      { state: "sealed" },
    ]);
    await volume.checkSettled();
  });

  test("a base that vanished at the target gives way to everything, when there is no older one", async (pair) => {
    const volume = await TrackedVolume.make(pair, "base-target");
    const { pointId } = await volume.writeAndSnapshot(1);
    await volume.migrate("s1");
    await vanish(pair, pair.target, pointId);
    await volume.writeAndSnapshot(2);
    expect(await volume.migrate("s2")).toMatchObject({
      mode: { kind: "Allocated", reason: "NoCommonPoint" },
      from: null,
    });
    expect((await volume.arrived()).points).toMatchObject([{ state: "lost" }, { state: "sealed" }]);
    await volume.checkSettled();
  });

  test("a job for a snapshot that vanished before it began fails with the reason, and the next carries its changes", async (pair) => {
    const volume = await TrackedVolume.make(pair, "rest");
    await volume.writeAndSnapshot(1);
    await volume.migrate("s1");
    const { pointId } = await volume.writeAndSnapshot(2);
    await vanish(pair, pair.source, pointId);
    expect(await volume.ended(await volume.begin("s2"))).toMatchObject({
      state: "Failed",
      error: { code: "SnapshotGone" },
    });
    await volume.writeAndSnapshot(3);
    expect(await volume.migrate("s3")).toMatchObject({ mode: delta });
    await volume.checkSettled();
  });

  test("a job whose snapshot vanishes midway, and whose source then dies, fails with the reason and thaws the target", async (pair) => {
    const volume = await TrackedVolume.make(pair, "midway");
    const { pointId: first } = await volume.writeAndSnapshot(1);
    await volume.migrate("s1");
    const { pointId } = await volume.writeAndSnapshot(2);
    const job = await volume.beginAndMeetMidway("s2");
    await vanish(pair, pair.source, pointId);
    await kill(pair.source);
    await pair.ready();
    expect(await volume.ended(job)).toMatchObject({ state: "Failed", error: { code: "SnapshotGone" } });
    expect(await volume.arrived()).toMatchObject({ state: "Available", points: [{ pointId: first }] });
    await volume.setPace("full");
    await volume.writeAndSnapshot(3);
    expect(await volume.migrate("s3")).toMatchObject({ mode: delta, from: { pointId: first } });
    await volume.checkSettled();
  });

  test("a job whose snapshot vanishes midway still ends well while its source holds the file open", async (pair) => {
    const volume = await TrackedVolume.make(pair, "open");
    await volume.write(1, 5 * mebibyte);
    const { pointId } = await volume.snapshot("s1");
    const job = await volume.beginAndMeetMidway("s1");
    await vanish(pair, pair.source, pointId);
    // At its slow pace: a change of the location would have the job open the file anew.
    await volume.succeeded(job);
    expect((await volume.arrived()).points).toMatchObject([{ pointId, state: "sealed" }]);
    await volume.setPace("full");
    await volume.writeAndSnapshot(2);
    await volume.migrate("s2");
    await volume.checkSettled();
  });

  test("a staging image that vanishes while its job is suspended is made again", async (pair) => {
    const volume = await TrackedVolume.make(pair, "staging-rest");
    const { pointId } = await volume.writeAndSnapshot(1);
    const job = await volume.beginAndMeetMidway("s1");
    const { spec } = await pair.source.api.getJob(job);
    await pair.source.api.putJob(job, { ...spec, suspend: true });
    await soon("the job being suspended", async () => {
      return (await pair.source.api.getJob(job)).state === "Suspended" ? true : undefined;
    });
    await remove(await pointFile(pair.target, pointId));
    await volume.setPace("full");
    await pair.source.api.putJob(job, spec);
    await volume.succeeded(job);
    await volume.checkArrived("s1");
    await volume.checkSettled();
  });

  test("a staging image that vanishes in the middle of a job is made again", async (pair) => {
    const volume = await TrackedVolume.make(pair, "staging-midway");
    await volume.writeAndSnapshot(1);
    await volume.migrate("s1");
    const { pointId } = await volume.writeAndSnapshot(2);
    const job = await volume.beginAndMeetMidway("s2");
    await remove(await pointFile(pair.target, pointId));
    await volume.setPace("full");
    await volume.succeeded(job);
    await volume.checkArrived("s2");
    await volume.checkSettled();
  });
});

/** Unlinks the image of a point, sealed as it is. */
async function vanish(pair: Pair, side: Side, pointId: string): Promise<void> {
  await remove(await pointFile(side, pointId));
  pair.vanished.add(pointId);
}

async function remove(path: string): Promise<void> {
  await unlink(path).catch(async (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPERM") throw error;
    await run("chattr", ["-i", path]);
    await unlink(path);
  });
}
