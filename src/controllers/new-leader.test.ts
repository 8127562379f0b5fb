// A leader that has just begun may go by a cache that is behind what the last one did. What cannot be taken back is not done on
// such a view.
import { expect, test } from "@jest/globals";
import { location, type OperatorWorld, seenAgent, sourceWorld, targetWorld } from "../../test/fakes/operator-world.ts";
import { silentLog } from "../base/log.ts";
import { agentJobName } from "../domain/names.ts";
import type { KindRef, ReconcileContext } from "../kube/cluster.ts";
import type { ControllerDeps } from "./deps.ts";
import {
  MigratedVolumes,
  MigrationJobs,
  MigrationLocations,
  MigrationSources,
  PersistentVolumes,
  StorageClasses,
  VolumeMigrations,
} from "./kinds.ts";
import { migratedVolumeController } from "./migrated-volume.ts";
import { migrationJobController } from "./migration-job.ts";
import { migrationLocationController } from "./migration-location.ts";
import { migrationSourceController } from "./migration-source.ts";
import { persistentVolumeController } from "./persistent-volume.ts";
import { openSnapshotPace } from "./snapshot-pace.ts";

const hour = 3_600_000;

const context: ReconcileContext = { signal: new AbortController().signal, log: silentLog, reconcileId: "1" };

/** With the cache of the process that ran last, which gets no more news until it is told to catch up. */
function newLeader(world: OperatorWorld): ControllerDeps {
  const { cluster, clock, metrics, agent } = world;
  cluster.holdBack();
  return { cluster, clock, metrics, agents: { all: () => [seenAgent(agent)], members: () => [] } };
}

/** Lets an object go that waits for its finalizers, as the last leader did. */
function release(world: OperatorWorld, kind: KindRef, name: string): void {
  const held = world.server.require(kind, { name });
  world.server.change(kind, held, { metadata: { ...held.metadata, finalizers: [] } });
}

test("a job that was just given to an agent is not cancelled, and one that nobody wants is", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  const deps = newLeader(world);
  world.apply(MigrationJobs, "now", { spec: { volumeName: "pv1", location: "berlin" } });
  const name = agentJobName(world.server.require(MigrationJobs, { name: "now" }));
  await world.agent.putSnapshot("vol-1", "one");
  await world.agent.putJob(name, { volume: "vol-1", location: "berlin", snapshot: "one" });
  const controller = migrationJobController(deps, openSnapshotPace(deps.clock));
  expect(deps.cluster.get(MigrationJobs, { name: "now" })).toBeUndefined();
  await controller.reconcile({ name: "now" }, context);
  expect(world.agent.jobs.get(name)).toMatchObject({ state: "Pending", spec: { volume: "vol-1" } });
  // What it has read is known from then on.
  expect(deps.cluster.get(MigrationJobs, { name: "now" })).toBeDefined();
  world.server.delete(MigrationJobs, { name: "now" });
  world.cluster.catchUp();
  await controller.reconcile({ name: "now" }, context);
  expect(world.agent.jobs.get(name)?.state).toBe("Cancelled");
  await controller.reconcile({ name: "now" }, context);
  expect(world.agent.jobs.has(name)).toBe(false);
});

test("a job that ended as never started is cancelled at the agent that was given it all the same", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  world.apply(MigrationJobs, "now", { spec: { volumeName: "pv1", location: "berlin", cancel: true } });
  await world.run();
  const ended = world.server.require(MigrationJobs, { name: "now" });
  expect(ended.status).toMatchObject({ phase: "Cancelled", message: "Cancelled before it was given to an agent." });
  // What the last leader has asked for arrives.
  const name = agentJobName(ended);
  await world.agent.putSnapshot("vol-1", "one");
  await world.agent.putJob(name, { volume: "vol-1", location: "berlin", snapshot: "one" });
  await world.run();
  expect(world.agent.jobs.get(name)?.state).toBe("Cancelled");
  expect(world.server.require(MigrationJobs, { name: "now" }).status).toEqual(ended.status);
});

test("a job of an earlier MigrationJob of the same name is cancelled", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  const deps = newLeader(world);
  world.apply(MigrationJobs, "now", { spec: { volumeName: "pv1", location: "berlin" } });
  const name = "now.6f2c1a58-0000-4000-8000-000000000001";
  await world.agent.putSnapshot("vol-1", "one");
  await world.agent.putJob(name, { volume: "vol-1", location: "berlin", snapshot: "one" });
  await migrationJobController(deps, openSnapshotPace(deps.clock)).reconcile({ name: "now" }, context);
  expect(world.agent.jobs.get(name)?.state).toBe("Cancelled");
});

test("a copy is not deleted for an object that is gone, when a new one has its name", async () => {
  const world = targetWorld();
  await world.run();
  world.agent.arrive("east-vol-1", { source: "east" });
  await world.run();
  const { spec } = world.server.require(MigratedVolumes, { name: "east-vol-1" });
  world.server.delete(MigratedVolumes, { name: "east-vol-1" });
  const deps = newLeader(world);
  release(world, MigratedVolumes, "east-vol-1");
  world.server.create(MigratedVolumes, { metadata: { name: "east-vol-1" }, spec });
  expect(deps.cluster.get(MigratedVolumes, { name: "east-vol-1" })?.metadata.deletionTimestamp).toBeDefined();
  await migratedVolumeController(deps).reconcile({ name: "east-vol-1" }, context);
  expect(world.agent.migratedVolumes.has("east-vol-1")).toBe(true);
});

test("bases are not given up for a location that is gone, when a new one has its name", async () => {
  const world = sourceWorld();
  await world.runUntil(3.5 * hour);
  expect(world.agent.volumes.get("vol-1")?.bases).toHaveLength(1);
  world.server.edit(VolumeMigrations, { name: "pv1" }, { spec: { policy: { enabled: false } } });
  world.annotate(MigrationLocations, "berlin", { "release-holds": "true" });
  world.server.delete(MigrationLocations, { name: "berlin" });
  const deps = newLeader(world);
  release(world, MigrationLocations, "berlin");
  location(world, "berlin");
  await migrationLocationController(deps).reconcile({ name: "berlin" }, context);
  expect(world.agent.volumes.get("vol-1")?.bases).toHaveLength(1);
  expect(world.agent.locations.has("berlin")).toBe(true);
});

test("consent is not withdrawn for a source that is gone, when a new one has its name", async () => {
  const world = targetWorld();
  await world.run();
  const { spec } = world.server.require(MigrationSources, { name: "east" });
  world.server.delete(MigrationSources, { name: "east" });
  const deps = newLeader(world);
  release(world, MigrationSources, "east");
  world.server.create(MigrationSources, { metadata: { name: "east" }, spec });
  await migrationSourceController(deps).reconcile({ name: "east" }, context);
  expect(world.agent.sources.has("east")).toBe(true);
});

test("the VolumeMigration of a dry run that is given up is not removed, when it is more than that by now", async () => {
  const world = sourceWorld();
  world.annotate(StorageClasses, "fast", { "dry-run": "true" });
  await world.run();
  world.annotate(PersistentVolumes, "pv1", { migrationEnable: "false" });
  const controller = persistentVolumeController(newLeader(world));
  const { status } = world.server.require(VolumeMigrations, { name: "pv1" });
  world.server.setStatus(VolumeMigrations, { name: "pv1" }, { ...status, snapshotCount: 201 });
  await expect(controller.reconcile({ name: "pv1" }, context)).rejects.toMatchObject({ code: "Conflict" });
  world.cluster.catchUp();
  await controller.reconcile({ name: "pv1" }, context);
  expect(world.server.get(VolumeMigrations, { name: "pv1" })?.spec.policy).not.toHaveProperty("dryRun");
});

test.each(["Undecided", "Running"] as const)("a job that is %s stays so while its agent is not seen", async (state) => {
  const world = sourceWorld();
  world.onJob = (name) => world.agent.progressJob(name, { state });
  await world.run();
  world.apply(MigrationJobs, "now", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run();
  const told = [...world.server.events.values()];
  const deps = newLeader(world);
  const unseen = { volumes: new Map(), jobs: new Map(), problem: "not asked yet" };
  const agents = { all: () => [{ ...seenAgent(world.agent), ...unseen }], members: () => [] };
  const controller = migrationJobController({ ...deps, agents }, openSnapshotPace(deps.clock));
  await controller.reconcile({ name: "now" }, context);
  const { status } = world.server.require(MigrationJobs, { name: "now" });
  expect(status).toMatchObject({ phase: state, message: `agent ${world.agent.view.agentId}: not asked yet` });
  expect([...world.server.events.values()]).toEqual(told);
});
