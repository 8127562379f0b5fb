// Whatever users do, in whichever order: the operator never breaks, the agent never loses what a location needs, and once
// everything is as it was, everything is well again.
import { expect, test } from "@jest/globals";
import fc from "fast-check";
import { location, type OperatorWorld, sourceWorld } from "../../test/fakes/operator-world.ts";
import { LongshoreError } from "../domain/errors.ts";
import {
  MigrationJobs,
  MigrationLocations,
  PersistentVolumeClaims,
  PersistentVolumes,
  SnapshotSchedules,
  StorageClasses,
  VolumeMigrations,
} from "./kinds.ts";

const minute = 60_000;
const hour = 60 * minute;

const classParameters = { migrationEnable: "true", migrationLocations: "berlin", schedulePolicy: "hourly" };
const goodSchedule = { interval: "1h", retention: { age: "2h" } };

type Act = (world: OperatorWorld) => void;

const setClass = (parameters: Record<string, string>): Act => {
  return (world) => world.apply(StorageClasses, "fast", { provisioner: "csi.longshore.dev", parameters });
};
const setSchedule = (spec: Record<string, unknown>): Act => {
  return (world) => world.apply(SnapshotSchedules, "hourly", { spec });
};
const remove = (kind: Parameters<OperatorWorld["server"]["delete"]>[0], name: string): Act => {
  return (world) => {
    if (world.server.get(kind, { name }) !== undefined) world.server.delete(kind, { name });
  };
};
const annotate = (annotations: Record<string, string | null>): Act => {
  return (world) => world.annotate(PersistentVolumes, "pv1", annotations);
};
let serial = 0;
const userJob = (spec: Record<string, unknown>): Act => {
  return (world) => world.apply(MigrationJobs, `user-${serial++}`, { spec: { volumeName: "pv1", ...spec } });
};

const acts: Readonly<Record<string, Act>> = {
  "the class names another location": setClass({ ...classParameters, migrationLocations: "oslo" }),
  "the class names two locations": setClass({ ...classParameters, migrationLocations: "oslo,berlin" }),
  "the class names one that is not there": setClass({ ...classParameters, migrationLocations: "paris" }),
  "the class is switched off": setClass({ ...classParameters, migrationEnable: "false" }),
  "the class makes no sense": setClass({ migrationEnable: "perhaps" }),
  "the class is deleted": remove(StorageClasses, "fast"),
  "the schedule is fast": setSchedule({ interval: "7m", retention: { count: 2 } }),
  "the schedule is invalid": setSchedule({ schedule: "61 * * * *", retention: { age: "1h" } }),
  "the schedule has no such time zone": setSchedule({
    schedule: "@hourly",
    timeZone: "Mars/Olympus",
    retention: { count: 1 },
  }),
  "the schedule is suspended": setSchedule({ ...goodSchedule, suspend: true }),
  "the schedule migrates on creation": setSchedule({ ...goodSchedule, migrateOn: "Creation", jitter: "10m" }),
  "the schedule is deleted": remove(SnapshotSchedules, "hourly"),
  "the location is suspended": (world) => location(world, "berlin", { suspend: true }),
  "the location is slowed to nought": (world) => location(world, "berlin", { bandwidth: { limit: "0" } }),
  "the location makes no sense": (world) => {
    location(world, "berlin", { bandwidth: { timeZone: "Mars/Olympus", windows: [{ start: "01:00", end: "02:00" }] } });
  },
  "the location is deleted": remove(MigrationLocations, "berlin"),
  "the volume picks another schedule": annotate({ schedulePolicy: "daily" }),
  "the volume opts out": annotate({ migrationEnable: "false" }),
  "the volume is only to be looked at": annotate({ "dry-run": "true" }),
  "the volume talks nonsense": annotate({ migrationLocations: "Not A Name" }),
  "a user wants it now": userJob({ location: "berlin" }),
  "a user wants it elsewhere": userJob({ location: "nowhere" }),
  "a user only plans": userJob({ location: "berlin", dryRun: true }),
  "a user gives up": userJob({ location: "berlin", cancel: true }),
  "a user deletes all jobs": (world) => {
    for (const { metadata } of world.server.list(MigrationJobs)) world.server.delete(MigrationJobs, metadata);
  },
  "a user deletes what is ours": remove(VolumeMigrations, "pv1"),
  "the claim wants something": (world) => {
    const metadata = { namespace: "shop", annotations: { "longshore.dev/migrationLocations": "everywhere" } };
    world.apply(PersistentVolumeClaims, "db-pv1", { spec: { volumeName: "pv1" } }, metadata);
  },
  "the agent goes away": (world) => {
    world.agentProblem = "connection refused";
  },
  "the location goes away": (world) => world.agent.probeFinds("berlin", { state: "unreachable", message: "no answer" }),
  "migrations fail": (world) => {
    world.onJob = (name) => world.agent.failJob(name, new LongshoreError("DiskFull", "no room"));
  },
  "migrations take for ever": (world) => {
    world.onJob = () => undefined;
  },
  "an hour and a half goes by": () => undefined,
};

/** Everything as it was at the start. */
function restore(world: OperatorWorld): void {
  world.agentProblem = undefined;
  world.agent.probeFinds("berlin", { state: "reachable", message: "" });
  world.onJob = (name) => world.agent.succeedJob(name);
  setClass(classParameters)(world);
  setSchedule(goodSchedule)(world);
  location(world, "berlin");
  annotate({ schedulePolicy: null, migrationEnable: null, migrationLocations: null, "dry-run": null })(world);
  // Users' jobs that wait for what will never be are theirs to delete, like those that never end.
  for (const { metadata } of world.server.list(MigrationJobs)) world.server.delete(MigrationJobs, metadata);
}

/** What each location needs of the volume is there, and has not been released. */
function checkNothingIsLost(world: OperatorWorld): void {
  const view = world.agent.volumes.get("vol-1");
  for (const base of view?.bases ?? []) {
    expect(view?.snapshots.map(({ pointId }) => pointId)).toContain(base.pointId);
  }
  for (const { spec, state } of world.agent.jobs.values()) {
    if (state === "Pending" || state === "Running")
      expect(view?.snapshots.map(({ name }) => name)).toContain(spec.snapshot);
  }
}

test("after any misuse, everything as it was is well again", async () => {
  const names = fc.array(fc.constantFrom(...Object.keys(acts)), { minLength: 1, maxLength: 8 });
  await fc.assert(
    fc.asyncProperty(names, async (chosen) => {
      const world = sourceWorld();
      location(world, "oslo");
      world.apply(SnapshotSchedules, "daily", { spec: { schedule: "@daily", retention: { age: "48h" } } });
      await world.run(2.5 * hour);
      for (const name of chosen) {
        acts[name]?.(world);
        await world.run(name === "an hour and a half goes by" ? 1.5 * hour : 20 * minute);
        checkNothingIsLost(world);
      }
      restore(world);
      await world.run(minute);
      // A location that was deleted goes, now that it is known to; then it is made again.
      if (world.server.get(MigrationLocations, { name: "berlin" })?.metadata.deletionTimestamp !== undefined) {
        setClass({ ...classParameters, migrationLocations: "oslo" })(world);
        world.annotate(MigrationLocations, "berlin", { "release-holds": "true" });
        await world.run(minute);
        restore(world);
      }
      await world.run(6 * hour);
      const migration = world.server.get(VolumeMigrations, { name: "pv1" });
      expect(migration?.status?.conditions?.find(({ type }) => type === "Ready")).toMatchObject({ reason: "Ok" });
      const view = world.agent.volumes.get("vol-1");
      const newest = view?.snapshots.at(-1)?.generation ?? 0;
      // The base is the newest that has expired, and nothing is kept but that and what has not.
      expect(view?.bases.find(({ location: name }) => name === "berlin")?.generation).toBe(newest - 2);
      expect(view?.snapshots.filter(({ holds, released }) => released && holds.length === 0)).toEqual([]);
      expect(view?.snapshots.length).toBeLessThanOrEqual(4);
      checkNothingIsLost(world);
    }),
    { numRuns: 15 },
  );
}, 600_000);

test("an agent that is asked on an old view is not asked to give up what a location needs", async () => {
  const world = sourceWorld();
  await world.runUntil(3.5 * hour);
  const view = world.agent.volumes.get("vol-1");
  const base = view?.bases[0]?.pointId;
  if (view === undefined || base === undefined) throw new Error("nothing was migrated");
  // The operator sees the volume as if no location had anything: to it, what is the base is an old snapshot like others.
  world.seenVolumes = new Map([["vol-1", { ...structuredClone(view), bases: [] }]]);
  world.onJob = () => undefined;
  await world.run(hour);
  expect(world.agent.volumes.get("vol-1")?.snapshots.find(({ pointId }) => pointId === base)).toMatchObject({
    released: false,
  });
});
