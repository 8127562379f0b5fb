// A group that failed over as a set of clones of one group point comes back as a group: every volume as a difference, on the
// agent that has its original.
import { randomBytes } from "node:crypto";
import { readFile } from "node:fs/promises";
import { afterEach, beforeEach, expect, test } from "@jest/globals";
import { type Cluster, pair } from "../fakes/engines.ts";
import {
  copyAt,
  endedEverywhere,
  type GroupWorld,
  homeOf,
  openGroupWorld,
  snapshotGroup,
  startGroup,
} from "../fakes/group-world.ts";
import { cloneBytes, leftovers, settled, volumeBytes, write } from "../fakes/migration-world.ts";

const blockBytes = 4096;
let world: GroupWorld;
let back: GroupWorld;
beforeEach(async () => {
  world = await openGroupWorld();
  await pair(world.targets, world.sources);
  back = { ...world, sources: world.targets, targets: world.sources, volumes: ["w1", "w2"] };
});
afterEach(() => world.clusters.close());

/** Clones every copy at the group point, where it is, as a volume that is to be migrated back. */
async function failOver(groupPoint: string): Promise<void> {
  for (const [index, volume] of world.volumes.entries()) {
    const { engine } = homeOf(world, volume).target;
    const copy = await copyAt(homeOf(world, volume).target, volume);
    const name = back.volumes[index] as string;
    await engine.api.putClone(name, { migratedVolume: copy?.name ?? "", point: groupPoint });
    await engine.api.putVolume(name, { sizeBytes: volumeBytes, migrationEnabled: true });
  }
}

test("comes back as a group, each volume as a difference on the agent of its original", async () => {
  const groupPoint = await snapshotGroup(world, "s1");
  await startGroup(world, "s1");
  for (const job of await endedEverywhere(world, "shop.s1")) expect(job.state).toBe("Succeeded");
  await failOver(groupPoint);
  for (const volume of back.volumes) await write(homeOf(back, volume).source, volume, 0, randomBytes(2 * blockBytes));

  await snapshotGroup(back, "b1");
  await startGroup(back, "b1", { location: "source" });
  for (const job of await endedEverywhere(back, "shop.b1")) {
    expect(job).toMatchObject({ state: "Succeeded", error: null, mode: { kind: "Delta", reason: "Lineage" } });
    // Only the coordinator knows for sure what the others had to send.
    expect([2 * blockBytes, 4 * blockBytes]).toContain(job.bytesTotal);
  }
  for (const [index, volume] of back.volumes.entries()) {
    const at = world.sources[index] as Cluster;
    const copy = await copyAt(at, volume);
    const point = copy?.points.at(-1)?.pointId ?? "";
    const { path } = await homeOf(back, volume).source.engine.api.getVolume(volume);
    expect((await cloneBytes(at, copy?.name ?? "", point)).equals(await readFile(path))).toBe(true);
  }
  expect(
    await settled(
      () => leftovers(world.clusters),
      (found) => found.length === 0,
    ),
  ).toEqual([]);
});
