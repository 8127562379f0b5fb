// Classes in use that are enabled by annotation, and dry runs that say before what that would come to. In a world of fakes.
import { expect, test } from "@jest/globals";
import { CrashPoint } from "../../test/fakes/crash-point.ts";
import { location, OperatorWorld, volume } from "../../test/fakes/operator-world.ts";
import { silentLog } from "../base/log.ts";
import { dryRunController } from "./dry-run.ts";
import {
  MigrationJobs,
  MigrationLocations,
  PersistentVolumes,
  SnapshotSchedules,
  StorageClasses,
  VolumeMigrations,
} from "./kinds.ts";

const second = 1_000;
const minute = 60 * second;
const hour = 60 * minute;

const wishes = { migrationEnable: "true", migrationLocations: "berlin", schedulePolicy: "hourly" };

/** A class of somebody else's that says nothing of migration, with three volumes of ours in use. */
function worldInUse(): OperatorWorld {
  const world = new OperatorWorld();
  world.apply(SnapshotSchedules, "hourly", { spec: { interval: "1h", retention: { age: "2h" } } });
  location(world, "berlin");
  location(world, "oslo");
  world.apply(StorageClasses, "fast", { provisioner: "csi.longshore.dev" });
  for (const [index, name] of ["pv1", "pv2", "pv3"].entries()) {
    void world.agent.putVolume(`vol-${index + 1}`, { sizeBytes: (index + 1) * 2 ** 20 });
    volume(world, name, `vol-${index + 1}`);
  }
  return world;
}

const migration = (world: OperatorWorld, name: string) => world.server.get(VolumeMigrations, { name });
const ready = (world: OperatorWorld, name: string) =>
  migration(world, name)?.status?.conditions?.find(({ type }) => type === "Ready");
const planned = (world: OperatorWorld, name: string) => {
  const { plannedVolumes, plannedBytes, volumes } = world.server.get(MigrationLocations, { name })?.status ?? {};
  return [plannedVolumes, plannedBytes, volumes];
};
const told = (world: OperatorWorld, about: string) =>
  [...world.server.events.values()].filter((event) => event.about === about).map(({ message }) => message);

/** What is at the agent, and what was made for it. */
const done = (world: OperatorWorld) => ({
  snapshots: [...world.agent.volumes.values()].flatMap(({ snapshots }) => snapshots).length,
  enabled: [...world.agent.volumes.values()].filter(({ migrationEnabled }) => migrationEnabled).length,
  jobs: world.server.list(MigrationJobs).length,
});
const nothingDone = { snapshots: 0, enabled: 0, jobs: 0 };

test("an annotation on a class in use enables its volumes, and one that goes disables them", async () => {
  const world = worldInUse();
  await world.runUntil(90 * minute);
  expect([world.server.list(VolumeMigrations), done(world)]).toEqual([[], nothingDone]);
  world.annotate(StorageClasses, "fast", wishes);
  await world.runUntil(5.5 * hour);
  for (const name of ["pv1", "pv2", "pv3"]) expect(ready(world, name)?.reason).toBe("Ok");
  expect(done(world).enabled).toBe(3);
  expect([...world.agent.volumes.values()].map(({ bases }) => bases.length)).toEqual([1, 1, 1]);
  world.annotate(StorageClasses, "fast", { migrationEnable: null, migrationLocations: null, schedulePolicy: null });
  await world.run();
  for (const name of ["pv1", "pv2", "pv3"]) expect(ready(world, name)?.reason).toBe("Disabled");
});

test("a dry run tells the total, of each location, of each volume, and of the class, and does nothing", async () => {
  const world = worldInUse();
  world.annotate(StorageClasses, "fast", { ...wishes, "dry-run": "true" });
  world.annotate(PersistentVolumes, "pv3", { migrationLocations: "berlin,oslo" });
  const before = structuredClone([...world.agent.volumes.values()]);
  await world.runUntil(5 * hour);
  expect([done(world), [...world.agent.volumes.values()]]).toEqual([nothingDone, before]);
  expect(planned(world, "berlin")).toEqual([3, 6 * 2 ** 20, 0]);
  expect(planned(world, "oslo")).toEqual([1, 3 * 2 ** 20, 0]);
  expect(migration(world, "pv2")?.spec.policy).toMatchObject({ enabled: false, dryRun: true, schedule: "hourly" });
  expect(ready(world, "pv3")).toMatchObject({
    status: "False",
    reason: "DryRun",
    message: expect.stringContaining("brought to berlin, oslo, at first at most 3 MiB to each"),
  });
  expect(told(world, "StorageClass fast")).toEqual([
    "Enabling migration would bring to berlin 3 volumes of 6 MiB, to oslo 1 volume of 3 MiB, at first and at most. Nothing is moved before the annotation longshore.dev/dry-run is taken off.",
  ]);
  // Tenants are not told of what is only looked at.
  expect(told(world, "PersistentVolumeClaim shop/db-pv1")).toEqual([]);
  const settled = new CrashPoint();
  await world.run(0, settled);
  expect(settled.effects).toEqual([]);
});

test("what would be in the way is what a dry run shows", async () => {
  const world = worldInUse();
  world.annotate(StorageClasses, "fast", { ...wishes, migrationLocations: "paris", "dry-run": "true" });
  await world.run(minute);
  expect(ready(world, "pv1")?.reason).toBe("LocationMissing");
  expect(told(world, "StorageClass fast")).toEqual([expect.stringContaining("3 of them could not start")]);
  expect(told(world, "PersistentVolumeClaim shop/db-pv1")).toEqual([]);
  expect(done(world)).toEqual(nothingDone);
});

test("taking the annotation off begins, and nothing is planned any more", async () => {
  const world = worldInUse();
  world.annotate(StorageClasses, "fast", { ...wishes, "dry-run": "true" });
  await world.run(minute);
  world.annotate(StorageClasses, "fast", { "dry-run": null });
  await world.runUntil(5 * hour);
  expect(planned(world, "berlin")).toEqual([undefined, undefined, 3]);
  expect(migration(world, "pv1")?.spec.policy).not.toHaveProperty("dryRun");
  for (const name of ["pv1", "pv2", "pv3"]) expect(ready(world, name)?.reason).toBe("Ok");
});

test("a dry run that is given up leaves nothing behind", async () => {
  const world = worldInUse();
  world.annotate(StorageClasses, "fast", { ...wishes, "dry-run": "true" });
  await world.run(minute);
  world.annotate(PersistentVolumes, "pv1", { migrationEnable: "false" });
  await world.run(minute);
  expect([migration(world, "pv1"), planned(world, "berlin")[0]]).toEqual([undefined, 2]);
  const nothing = { migrationEnable: null, migrationLocations: null, schedulePolicy: null, "dry-run": null };
  world.annotate(StorageClasses, "fast", nothing);
  await world.run(minute);
  expect(world.server.list(VolumeMigrations)).toEqual([]);
  expect([planned(world, "berlin"), done(world)]).toEqual([[undefined, undefined, 0], nothingDone]);
});

test("a dry run never stops what runs, and what has a base is kept when it is given up", async () => {
  const world = worldInUse();
  world.annotate(StorageClasses, "fast", wishes);
  await world.runUntil(3.5 * hour);
  world.annotate(StorageClasses, "fast", { "dry-run": "true" });
  await world.runUntil(5.5 * hour);
  expect(ready(world, "pv1")?.reason).toBe("Ok");
  expect(world.agent.volumes.get("vol-1")?.bases[0]?.generation).toBe(3);
  // One that was switched off meanwhile is looked at before it goes on.
  world.annotate(PersistentVolumes, "pv1", { migrationEnable: "false" });
  await world.run();
  expect(ready(world, "pv1")?.reason).toBe("Disabled");
  world.annotate(PersistentVolumes, "pv1", { migrationEnable: null });
  await world.run();
  expect([ready(world, "pv1")?.reason, planned(world, "berlin")[0]]).toEqual(["DryRun", 1]);
  world.annotate(PersistentVolumes, "pv1", { migrationEnable: "false" });
  await world.run();
  expect([ready(world, "pv1")?.reason, world.agent.volumes.get("vol-1")?.bases.length]).toEqual(["Disabled", 1]);
});

test("a location that is only planned for goes when it is deleted", async () => {
  const world = worldInUse();
  world.annotate(StorageClasses, "fast", { ...wishes, "dry-run": "true" });
  await world.run(minute);
  world.server.delete(MigrationLocations, { name: "berlin" });
  await world.run(minute);
  expect(world.server.get(MigrationLocations, { name: "berlin" })).toBeUndefined();
});

test("how much one volume would send to the byte is told by a job that only plans, without enabling it", async () => {
  const world = worldInUse();
  world.annotate(StorageClasses, "fast", { ...wishes, "dry-run": "true" });
  await world.run(minute);
  world.onJob = (name) =>
    world.agent.succeedJob(name, { bytesTotal: 4096, mode: { kind: "Full", reason: "FirstCopy" } });
  world.apply(MigrationJobs, "plan", { spec: { volumeName: "pv1", location: "berlin", dryRun: true } });
  await world.run(minute);
  const plan = world.server.get(MigrationJobs, { name: "plan" });
  expect(plan?.status).toMatchObject({ phase: "Succeeded", bytesChanged: 4096, mode: "Full" });
  expect(done(world)).toMatchObject({ snapshots: 0, enabled: 0 });
});

test("each total is told once, and the one that stands is the one that was told last, also when it comes back", async () => {
  const world = worldInUse();
  world.annotate(StorageClasses, "fast", { ...wishes, "dry-run": "true" });
  await world.run();
  const { cluster, clock, metrics } = world;
  const controller = dryRunController({ cluster, clock, metrics, agents: { all: () => [], members: () => [] } });
  const context = { signal: new AbortController().signal, log: silentLog, reconcileId: "1" };
  const look = async () => {
    await controller.reconcile({ name: "fast" }, context);
    await clock.advance(5 * second);
    await controller.reconcile({ name: "fast" }, context);
    const all = [...world.server.events.values()].filter(({ about }) => about === "StorageClass fast");
    return all.map(({ count, message }) => `${count} ${message.replace(/, at first.*/, "")}`);
  };
  const move = (locations: string[]) =>
    world.server.edit(VolumeMigrations, { name: "pv1" }, { spec: { policy: { locations } } });
  const before = "Enabling migration would bring to berlin 3 volumes of 6 MiB";
  expect(await look()).toEqual([`1 ${before}`]);
  expect(await look()).toEqual([`1 ${before}`]);
  move(["oslo"]);
  expect(await look()).toEqual([
    "2 Enabling migration would bring to berlin 2 volumes of 5 MiB, to oslo 1 volume of 1 MiB",
  ]);
  move(["berlin"]);
  expect(await look()).toEqual([`3 ${before}`]);
});
