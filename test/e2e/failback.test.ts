// An application that went on with a clone where its copy is, and comes back: between two real agents, the first job back
// sends what was written since, however often it is interrupted; and both clusters can be each other's location at once.
import assert from "node:assert/strict";
import { expect } from "@jest/globals";
import type { CloneView, JobView } from "../../src/wire/schemas.ts";
import { onEachBackend } from "./on-each-backend.ts";
import { digestOf, kill, mebibyte, type Pair, reversed, soon } from "./pair.ts";
import { TrackedVolume } from "./tracked-volume.ts";

/** Frame headers, and the openings of lanes. */
const overhead = 1.02;

/** The way back, with consent for it. */
async function wayBack(pair: Pair): Promise<Pair> {
  await pair.source.api.putSource("target", { ...pair.target.asSource(), pointsKept: 3 });
  return reversed(pair);
}

/** A clone of the newest point where the copy is, from now on a volume that is migrated back. */
async function failOver(pair: Pair, volume: TrackedVolume): Promise<TrackedVolume> {
  const copy = await volume.arrived();
  const name = `${volume.name}-2`;
  await soon<CloneView>(`clone ${name}`, async () => {
    const view = await pair.target.api.putClone(name, { migratedVolume: copy.name, point: "latest" });
    return view.state === "Ready" ? view : undefined;
  });
  return TrackedVolume.make(await wayBack(pair), name);
}

async function liveDigest(volume: TrackedVolume): Promise<string> {
  return digestOf((await volume.view()).path);
}

function expectLineage(job: JobView, changedBytes: number, resentBytesMax = 0): void {
  expect(job.mode).toEqual({ kind: "Delta", reason: "Lineage" });
  expect(job.bytesTotal).toBe(changedBytes);
  expect(job.bytesSent).toBeGreaterThanOrEqual(changedBytes);
  expect(job.bytesSent).toBeLessThanOrEqual((changedBytes + resentBytesMax) * overhead);
}

onEachBackend((test) => {
  test("the first job back sends only what was written since, and the original stays as it was", async (pair) => {
    const original = await TrackedVolume.make(pair, "story");
    await original.writeAndSnapshot(1);
    await original.migrate("s1");
    const before = await liveDigest(original);
    const failedOver = await failOver(pair, original);
    await failedOver.write(2, mebibyte);
    await failedOver.snapshot("b1");
    expectLineage(await failedOver.migrate("b1"), mebibyte);
    await failedOver.checkSettled();
    await failedOver.write(3, mebibyte);
    await failedOver.snapshot("b2");
    expect((await failedOver.migrate("b2")).mode).toEqual({ kind: "Delta", reason: "CommonBase" });
    expect(await liveDigest(original)).toBe(before);
    await reversed(pair).checkEveryPoint();
  });

  for (const victim of ["source", "target"] as const) {
    const where = victim === "source" ? "original" : "clone";
    test(`when the agent of the ${where} is killed midway, the first job back goes on and stays a difference`, async (pair) => {
      const original = await TrackedVolume.make(pair, `killed-${victim}`);
      await original.writeAndSnapshot(1);
      await original.migrate("s1");
      const failedOver = await failOver(pair, original);
      await failedOver.write(2, 4 * mebibyte);
      await failedOver.snapshot("b1");
      const job = await failedOver.beginAndMeetMidway("b1");
      await kill(pair[victim]);
      await pair.ready();
      await failedOver.setPace("full");
      const view = await failedOver.succeeded(job);
      // Whoever died had not told of all it had stored, or counted all it had sent.
      expect(view).toMatchObject({ mode: { kind: "Delta", reason: "Lineage" }, bytesTotal: 4 * mebibyte });
      expect(view.bytesSent).toBeLessThanOrEqual(5 * mebibyte * overhead);
      await failedOver.checkArrived("b1");
      await failedOver.checkSettled();
      await reversed(pair).checkEveryPoint();
    });
  }

  test("two clusters are each other's location, with jobs both ways at the same time", async (pair) => {
    const there = await TrackedVolume.make(pair, "there");
    const back = await TrackedVolume.make(await wayBack(pair), "back");
    const rounds = async (volume: TrackedVolume, seed: number) => {
      for (let round = 1; round <= 3; round++) {
        await volume.writeAndSnapshot(seed + round, `s${round}`);
        const job = await volume.succeeded(await volume.begin(`s${round}`));
        assert.equal(job.mode?.kind, round === 1 ? "Allocated" : "Delta");
        await volume.checkArrived(`s${round}`);
      }
      await volume.checkSettled();
    };
    await Promise.all([rounds(there, 10), rounds(back, 20)]);
    await reversed(pair).checkEveryPoint();
  });
});
