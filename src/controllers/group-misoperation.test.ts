// Whatever users do to the claims of a group, in whichever order: no location loses what it needs, nothing of a group that is
// whole goes without the others, and once everything is as it was, the whole group is well again.
import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { location, OperatorWorld } from "../../test/fakes/operator-world.ts";
import { LongshoreError } from "../domain/errors.ts";
import {
  MigrationJobs,
  PersistentVolumeClaims,
  PersistentVolumes,
  SnapshotSchedules,
  StorageClasses,
  VolumeMigrations,
} from "./kinds.ts";

const minute = 60_000;
const hour = 60 * minute;
const names = ["a", "b", "c"];
const group = { namespace: "shop", name: "db" };

function label(world: OperatorWorld, name: string, value?: string): void {
  const labels = value === undefined ? {} : { "longshore.dev/group": value };
  world.apply(
    PersistentVolumeClaims,
    `c-${name}`,
    { spec: { volumeName: `pv-${name}` } },
    { namespace: "shop", labels },
  );
}

/** Three claims of one group; a and c at the first agent, b at the second. */
function groupWorld(): OperatorWorld {
  const world = new OperatorWorld({ agents: 2 });
  world.apply(SnapshotSchedules, "hourly", { spec: { interval: "1h", retention: { age: "2h" } } });
  world.apply(SnapshotSchedules, "daily", { spec: { schedule: "@daily", retention: { age: "48h" } } });
  location(world, "berlin");
  location(world, "oslo");
  const parameters = { migrationEnable: "true", migrationLocations: "berlin", schedulePolicy: "hourly" };
  world.apply(StorageClasses, "fast", { provisioner: "csi.longshore.dev", parameters });
  for (const [index, name] of names.entries()) {
    void world.agents[index % 2]?.putVolume(name, { sizeBytes: 2 ** 20 });
    label(world, name, group.name);
    world.apply(PersistentVolumes, `pv-${name}`, {
      spec: {
        storageClassName: "fast",
        claimRef: { namespace: "shop", name: `c-${name}` },
        csi: { driver: "csi.longshore.dev", volumeHandle: name, fsType: "ext4" },
      },
    });
  }
  return world;
}

type Act = (world: OperatorWorld) => void;

const annotate = (annotations: Record<string, string | null>): Act => {
  return (world) => world.annotate(PersistentVolumes, "pv-b", annotations);
};
let serial = 0;
const userJob = (spec: Record<string, unknown>): Act => {
  return (world) => world.apply(MigrationJobs, `user-${serial++}`, { spec: { location: "berlin", ...spec } });
};

const acts: Readonly<Record<string, Act>> = {
  "b leaves": (world) => label(world, "b"),
  "b comes back": (world) => label(world, "b", group.name),
  "c goes to another group": (world) => label(world, "c", "other"),
  "all go to another group": (world) => {
    for (const name of names) label(world, name, "Other");
  },
  "b is on another schedule": annotate({ schedulePolicy: "daily" }),
  "b goes to another location": annotate({ migrationLocations: "oslo" }),
  "b goes to two locations": annotate({ migrationLocations: "berlin,oslo" }),
  "b is switched off": annotate({ migrationEnable: "false" }),
  "b agrees again": annotate({ schedulePolicy: null, migrationLocations: null, migrationEnable: null }),
  "the schedule migrates on creation": (world) => {
    const spec = { interval: "1h", retention: { age: "2h" }, migrateOn: "Creation", jitter: "10m" };
    world.apply(SnapshotSchedules, "hourly", { spec });
  },
  "the schedule is by count": (world) => {
    world.apply(SnapshotSchedules, "hourly", { spec: { interval: "20m", retention: { count: 2 } } });
  },
  "what is ours of b is deleted": (world) => {
    if (world.server.get(VolumeMigrations, { name: "pv-b" })) world.server.delete(VolumeMigrations, { name: "pv-b" });
  },
  "the second agent goes away": (world) => {
    world.agentProblems.set(world.agents[1]?.view.agentId ?? "", "connection refused");
  },
  "the second agent comes back": (world) => world.agentProblems.clear(),
  "a snapshot of b is lost": (world) => {
    const newest = world.agents[1]?.volumes.get("b")?.snapshots.at(-1);
    if (newest?.state === "sealed" && newest.holds.length === 0) world.agents[1]?.loseSnapshot("b", newest.name);
  },
  "nothing can be frozen": (world) => {
    for (const agent of world.agents) agent.groupRefusal = new LongshoreError("GroupInvalid", "not frozen");
  },
  "everything can be frozen": (world) => {
    for (const agent of world.agents) agent.groupRefusal = undefined;
  },
  "migrations fail": (world) => {
    world.onJob = (name) => world.holderOf(name)?.failJob(name, new LongshoreError("DiskFull", "no room"));
  },
  "migrations take for ever": (world) => {
    world.onJob = () => undefined;
  },
  "migrations succeed": (world) => {
    world.onJob = (name) => world.holderOf(name)?.succeedJob(name);
  },
  "a user wants the group now": userJob({ group }),
  "a user plans for the group": userJob({ group, dryRun: true }),
  "a user wants one of it": userJob({ volumeName: "pv-b" }),
  "a user gives up": userJob({ group, cancel: true }),
  "a user deletes all jobs": (world) => {
    for (const { metadata } of world.server.list(MigrationJobs)) world.server.delete(MigrationJobs, metadata);
  },
  "an hour and a half goes by": () => undefined,
};

function restore(world: OperatorWorld): void {
  for (const name of [
    "the second agent comes back",
    "everything can be frozen",
    "migrations succeed",
    "b agrees again",
  ])
    acts[name]?.(world);
  world.apply(SnapshotSchedules, "hourly", { spec: { interval: "1h", retention: { age: "2h" } } });
  for (const name of names) label(world, name, group.name);
  acts["a user deletes all jobs"]?.(world);
}

const volumesOf = (world: OperatorWorld) => world.agents.flatMap((agent) => [...agent.volumes.values()]);

/** What each location and each job needs is there. */
function checkNothingIsLost(world: OperatorWorld): void {
  for (const { name, bases, snapshots } of volumesOf(world)) {
    for (const base of bases)
      expect([name, snapshots.map(({ pointId }) => pointId)]).toEqual([name, expect.arrayContaining([base.pointId])]);
  }
}

test("after any misuse of a group, everything as it was is well again, and of one point", async () => {
  const chosen = fc.array(fc.constantFrom(...Object.keys(acts)), { minLength: 1, maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(chosen, async (steps) => {
      const world = groupWorld();
      await world.run(2.5 * hour);
      for (const name of steps) {
        acts[name]?.(world);
        await world.run(name === "an hour and a half goes by" ? 1.5 * hour : 20 * minute);
        checkNothingIsLost(world);
      }
      restore(world);
      await world.run(8 * hour);
      checkNothingIsLost(world);
      const points = volumesOf(world).map(({ bases, snapshots }) => {
        const { pointId } = bases.find((base) => base.location === "berlin") ?? {};
        return snapshots.find((snapshot) => snapshot.pointId === pointId);
      });
      // The base of all is the part of one group point: the newest that has expired.
      expect(new Set(points.map((point) => point?.groupPoint)).size).toBe(1);
      expect(points[0]?.groupPoint).toBeDefined();
      for (const { snapshots } of volumesOf(world)) {
        expect(snapshots.at(-3)?.groupPoint).toBe(points[0]?.groupPoint);
        expect(snapshots.filter(({ holds, released }) => released && holds.length === 0)).toEqual([]);
        expect(snapshots.length).toBeLessThanOrEqual(4);
      }
      for (const name of names) {
        const { status } = world.server.get(VolumeMigrations, { name: `pv-${name}` }) ?? {};
        expect(status?.conditions?.find(({ type }) => type === "Ready")).toMatchObject({ reason: "Ok" });
        expect(status?.conditions?.find(({ type }) => type === "GroupConflict")).toBeUndefined();
      }
    }),
    { numRuns: 12 },
  );
}, 600_000);
