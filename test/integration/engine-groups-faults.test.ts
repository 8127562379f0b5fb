// A job of a group in which each of those who take part ends as a process, at each call between the clusters, before it is
// carried out and after. Each time the job ends as if nothing had happened, with one and the same point for all members.
import { afterAll, beforeAll, describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { PeerApi } from "../../src/wire/peer.ts";
import { type Cluster, restart } from "../fakes/engines.ts";
import {
  changeAll,
  endedEverywhere,
  type GroupWorld,
  groupFlaws,
  groupPointsOf,
  homeOf,
  openGroupWorld,
  snapshotGroup,
  startGroup,
} from "../fakes/group-world.ts";
import { settled } from "../fakes/migration-world.ts";

let world: GroupWorld;
let runs = 0;
beforeAll(async () => {
  world = await openGroupWorld({ limits: { leaseMs: 300 } });
});
afterAll(async () => {
  const flaws = await groupFlaws(world);
  await world.clusters.close();
  expect(flaws).toEqual([]);
});

const failure = new LongshoreError("Unreachable", "the network is down");

const roles = {
  "the coordinator": () => world.sources[0] as Cluster,
  "the other source participant": () => world.sources[1] as Cluster,
  "the group home": () => groupHome(),
  "the other home": () => world.targets.find((agent) => agent !== groupHome()) as Cluster,
};

/** The home of the lowest volume UID's copy decides. */
let lowest = "";
function groupHome(): Cluster {
  return homeOf(world, lowest).target;
}

beforeAll(async () => {
  const uids = await Promise.all(
    world.volumes.map(async (volume) => {
      const { uid } = await homeOf(world, volume).source.engine.api.getVolume(volume);
      return { volume, uid };
    }),
  );
  lowest = uids.sort((a, b) => (a.uid < b.uid ? -1 : 1))[0]?.volume ?? "";
});

/** Ends the agent's process as soon as that call reaches any agent of the target, once. */
function strike(method: keyof PeerApi, when: "before" | "after", agent: Cluster): () => boolean {
  let isHit = false;
  const hit = async (called: keyof PeerApi) => {
    if (isHit || called !== method) return;
    isHit = true;
    // Only begins to: the process waits for the very work that this is called from.
    void restart(agent);
    throw failure;
  };
  for (const target of world.targets) {
    if (when === "before") target.onCall = hit;
    else target.onReply = hit;
  }
  return () => isHit;
}

function quiet(): void {
  for (const agent of world.clusters.all) {
    agent.onCall = () => undefined;
    agent.onReply = () => undefined;
  }
}

const calls = [
  "locate",
  "report",
  "claimGroup",
  "claim",
  "putPlan",
  "putPlanPage",
  "freeze",
  "laneTicket",
  "store",
  "prepare",
  "commitGroup",
  "settle",
  "release",
  "releaseGroup",
] as const satisfies readonly (keyof PeerApi)[];

describe.each(Object.keys(roles) as (keyof typeof roles)[])("a group's job in which %s is killed", (role) => {
  test.each(calls.flatMap((call) => [[call, "before"] as const, [call, "after"] as const]))(
    "at %s, %s it is carried out",
    async (call, when) => {
      runs += 1;
      const name = `s${runs}`;
      await changeAll(world);
      const point = await snapshotGroup(world, name);
      const wasHit = strike(call, when, roles[role]());
      const views = await endedEverywhere(world, await startGroup(world, name));
      // The group's term is ended after the job itself.
      expect(await settled(async () => wasHit(), Boolean)).toBe(true);
      await Promise.all(world.clusters.all.map((agent) => agent.running));
      quiet();
      expect(views.map(({ state, error }) => [state, error?.detail])).toEqual(
        views.map(() => ["Succeeded", undefined]),
      );
      expect((await groupPointsOf(world)).map((points) => points.at(-1))).toEqual([point, point]);
    },
  );
});
