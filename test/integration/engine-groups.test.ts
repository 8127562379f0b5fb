// Jobs of consistency groups between clusters of several agents: one commit for all volumes, wherever they are, and a job
// that ends as it must whoever of them dies, is cut off, or comes back late.
import { afterEach, describe, expect, test } from "@jest/globals";
import {
  changeAll,
  endedEverywhere,
  type GroupWorld,
  groupFlaws,
  groupPointsOf,
  openGroupWorld,
  snapshotGroup,
  startGroup,
} from "../fakes/group-world.ts";

let world: GroupWorld;
afterEach(() => world.clusters.close());

async function allIsWell(): Promise<void> {
  expect(await groupFlaws(world)).toEqual([]);
}

describe("a group with two homes a side", () => {
  test("arrives as a whole: a first copy, and what changed since", async () => {
    world = await openGroupWorld();
    const first = await snapshotGroup(world, "s1");
    const views = await endedEverywhere(world, await startGroup(world, "s1"));
    expect(views.map(({ state, error }) => [state, error])).toEqual([
      ["Succeeded", null],
      ["Succeeded", null],
    ]);
    await changeAll(world);
    const second = await snapshotGroup(world, "s2");
    const again = await endedEverywhere(world, await startGroup(world, "s2", { at: world.sources[1] as never }));
    expect(again.map(({ state, mode }) => [state, mode?.kind])).toEqual([
      ["Succeeded", "Delta"],
      ["Succeeded", "Delta"],
    ]);
    expect(await groupPointsOf(world)).toEqual([
      [first, second],
      [first, second],
    ]);
    await allIsWell();
  });
});
