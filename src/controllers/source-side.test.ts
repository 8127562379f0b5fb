// The reconcilers of the source side together, in a world of fakes: what a user sees happen, and that it happens all the same
// when the process is killed at any of its effects.
import { expect, test } from "@jest/globals";
import { CrashPoint } from "../../test/fakes/crash-point.ts";
import { location, OperatorWorld, sourceWorld, volume } from "../../test/fakes/operator-world.ts";
import type { Condition } from "../api/object.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { KindRef, KubeObject } from "../kube/cluster.ts";
import { KubeError } from "../kube/errors.ts";
import { routeNews } from "./controllers.ts";
import {
  MigrationJobs,
  MigrationLocations,
  PersistentVolumeClaims,
  PersistentVolumes,
  SnapshotSchedules,
  StorageClasses,
  VolumeMigrations,
} from "./kinds.ts";
import { openLagMetric } from "./lag-metric.ts";

const second = 1_000;
const minute = 60 * second;
const hour = 60 * minute;

const migration = (world: OperatorWorld, name = "pv1") => world.server.get(VolumeMigrations, { name });
const job = (world: OperatorWorld, name: string) => world.server.get(MigrationJobs, { name });

type WithConditions = KubeObject & { readonly status?: { readonly conditions?: readonly Condition[] } };

/** `False LocationMissing`. */
function condition(world: OperatorWorld, kind: KindRef<WithConditions>, name: string, type = "Ready"): string {
  const found = world.server.get(kind, { name })?.status?.conditions?.find((each) => each.type === type);
  return found === undefined ? "none" : `${found.status} ${found.reason}`;
}

/** The snapshots at the agent by their hour, `*` for those that were released: `3 4*`. */
function snapshots(world: OperatorWorld, handle = "vol-1"): string {
  return (world.agent.volumes.get(handle)?.snapshots ?? [])
    .map(({ name, released }) => `${name.replace(/^auto-\d+t0?(\d+?)0000.000z$/, "$1")}${released ? "*" : ""}`)
    .join(" ");
}

const bases = (world: OperatorWorld, handle = "vol-1") =>
  (world.agent.volumes.get(handle)?.bases ?? []).map((base) => `${base.location}@${base.generation}`).join(" ");

/** Without the point's id. */
const shortly = (name: string) => name.replace(/(-g\d+)-.*$/, "$1");

const jobs = (world: OperatorWorld) =>
  world.server
    .list(MigrationJobs)
    .map(({ metadata, status }) => `${shortly(metadata.name)} ${status?.phase}`)
    .join(", ");

const events = (world: OperatorWorld, about: string) =>
  [...world.server.events.values()].filter((event) => event.about === about).map(({ reason }) => reason);

const claim = "PersistentVolumeClaim shop/db-pv1";

const paused = { bandwidth: { limit: "0" }, suspend: true };
const nonsense = { bandwidth: { timeZone: "Europe/Atlantis" } };
const silent = { state: "unreachable", message: "no answer" } as const;

/** What Kubernetes makes of a volume whose claim is gone, unless it is told otherwise. */
function releaseClaim(world: OperatorWorld, { phase = "Released", policy = "Delete" } = {}): void {
  const key = { name: "pv1" };
  const spec = world.server.get(PersistentVolumes, key)?.spec;
  world.apply(PersistentVolumes, key.name, { spec: { ...spec, persistentVolumeReclaimPolicy: policy } });
  world.server.setStatus(PersistentVolumes, key, { phase });
}

test("a volume of an enabled class is snapshotted on its schedule, and what expires is migrated", async () => {
  const world = sourceWorld();
  await world.runUntil(5 * hour);
  expect(migration(world)?.spec.policy).toMatchObject({ enabled: true, locations: ["berlin"], schedule: "hourly" });
  expect(migration(world)?.metadata.ownerReferences).toMatchObject([{ kind: "PersistentVolume", name: "pv1" }]);
  // What was taken at 3 expired at 5 and is the base; 1 and 2 were brought over before, and are gone.
  expect(snapshots(world)).toBe("3 4 5");
  expect(bases(world)).toBe("berlin@3");
  expect(jobs(world)).toBe("pv1-berlin-g1 Succeeded, pv1-berlin-g2 Succeeded, pv1-berlin-g3 Succeeded");
  expect(condition(world, VolumeMigrations, "pv1")).toBe("True Ok");
  expect(migration(world)?.status).toMatchObject({
    nextScheduleTime: "2026-01-01T06:00:00.000Z",
    oldestNewestPointTime: "2026-01-01T03:00:00.000Z",
    snapshotCount: 3,
    locations: [{ name: "berlin", base: { generation: 3 }, lastJob: { phase: "Succeeded", mode: "Delta" } }],
  });
});

test("the agent is told what travels with the volume", async () => {
  const world = sourceWorld();
  await world.run();
  expect(world.agent.volumes.get("vol-1")).toMatchObject({
    migrationEnabled: true,
    metadata: {
      "pv.name": "pv1",
      "pvc.namespace": "shop",
      "pvc.name": "db-pv1",
      "pvc.labels": '{"app":"db"}',
      volumeMode: "Filesystem",
      fsType: "ext4",
    },
  });
});

test("how a volume is used stays as its maker said, whatever a PersistentVolume says that was made for it by hand", async () => {
  const world = sourceWorld();
  const said = { volumeMode: "Block", fsType: "xfs" };
  await world.agent.putVolume("vol-1", { sizeBytes: world.agent.volumes.get("vol-1")?.sizeBytes ?? 0, metadata: said });
  await world.run();
  expect(world.agent.volumes.get("vol-1")?.metadata).toMatchObject({ ...said, "pvc.name": "db-pv1" });
});

test("nothing happens merely because objects were applied, nor when they are applied again", async () => {
  const world = sourceWorld();
  await world.run(59 * minute);
  expect(snapshots(world)).toBe("");
  await world.run(2 * hour);
  const before = world.server.resourceVersion;
  world.apply(SnapshotSchedules, "hourly", { spec: { interval: "1h", retention: { age: "2h" } } });
  await world.run();
  expect(world.server.resourceVersion).toBe(before);
});

test("a second run of a settled operator changes nothing, at the API server or at the agent", async () => {
  const world = sourceWorld();
  await world.runUntil(5 * hour);
  const crash = new CrashPoint();
  await world.run(0, crash);
  expect(crash.effects).toEqual([]);
});

test("a schedule that is changed runs by the new timing only from then on", async () => {
  const world = sourceWorld();
  await world.runUntil(90 * minute);
  expect(snapshots(world)).toBe("1");
  // The runs of the new timing at 1:05 and 1:30 were due before it was there.
  world.apply(SnapshotSchedules, "hourly", { spec: { interval: "25m", retention: { age: "2h" } } });
  await world.runUntil(114 * minute);
  expect(snapshots(world)).toBe("1");
  await world.runUntil(116 * minute);
  expect(world.agent.volumes.get("vol-1")?.snapshots.at(-1)?.name).toBe("auto-20260101t015500.000z");
});

test("after a long downtime one run is made up for, and the backlog is one job", async () => {
  const world = sourceWorld();
  await world.runUntil(3 * hour);
  expect(snapshots(world)).toBe("1 2 3");
  await world.clock.advance(20.5 * hour);
  await world.run();
  expect(snapshots(world)).toBe("3 23");
  expect(bases(world)).toBe("berlin@3");
  expect(jobs(world)).toBe("pv1-berlin-g1 Succeeded, pv1-berlin-g3 Succeeded");
});

test("a run that is missed past the starting deadline is told, and not made", async () => {
  const world = sourceWorld();
  const spec = { interval: "1h", retention: { age: "2h" }, startingDeadlineSeconds: 600 };
  world.apply(SnapshotSchedules, "hourly", { spec });
  await world.runUntil(hour);
  await world.clock.advance(2.5 * hour);
  await world.run();
  expect(migration(world)?.status).toMatchObject({ lastMissedTime: "2026-01-01T03:00:00.000Z" });
  expect(world.agent.volumes.get("vol-1")?.snapshots.length).toBe(1);
  await world.run();
  expect(events(world, claim).filter((reason) => reason === "SnapshotRunMissed")).toHaveLength(1);
});

test("what a clock that was ahead has left behind keeps no run from being made", async () => {
  const world = sourceWorld();
  await world.runUntil(1.5 * hour);
  // For a while it was noon two days later, and everything began, and was taken, then.
  const ahead = "2026-01-03T12:00:00.000Z";
  await world.agent.putSnapshot("vol-1", "auto-20260103t120000.000z");
  const since = { schedule: { name: "hourly", since: ahead }, lastScheduleTime: ahead };
  world.server.setStatus(VolumeMigrations, { name: "pv1" }, { ...migration(world)?.status, ...since });
  const schedule = world.server.get(SnapshotSchedules, { name: "hourly" });
  world.server.setStatus(SnapshotSchedules, { name: "hourly" }, { ...schedule?.status, effectiveTime: ahead });
  await world.runUntil(3.25 * hour);
  expect(snapshots(world)).toBe("1 12 2 3");
  expect(migration(world)?.status).toMatchObject({
    lastScheduleTime: "2026-01-01T03:00:00.000Z",
    schedule: { since: "2026-01-01T01:30:00.000Z" },
  });
});

test("a run that was made by a clock only a little ahead counts, and the one before is not made up for", async () => {
  const world = sourceWorld();
  await world.runUntil(1.5 * hour);
  await world.clock.advance(29.5 * minute);
  await world.agent.removeSnapshot("vol-1", "auto-20260101t010000.000z");
  await world.agent.putSnapshot("vol-1", "auto-20260101t020000.000z");
  const last = { lastScheduleTime: "2026-01-01T02:00:00.000Z" };
  world.server.setStatus(VolumeMigrations, { name: "pv1" }, { ...migration(world)?.status, ...last });
  await world.run(minute);
  expect(snapshots(world)).toBe("2");
});

test("a suspended schedule takes no snapshots, and what there is goes on expiring", async () => {
  const world = sourceWorld();
  await world.runUntil(2 * hour);
  const spec = { interval: "1h", retention: { age: "2h" }, suspend: true };
  world.apply(SnapshotSchedules, "hourly", { spec });
  await world.runUntil(6 * hour);
  expect(bases(world)).toBe("berlin@2");
  expect(world.agent.volumes.get("vol-1")?.generation).toBe(3);
  world.apply(SnapshotSchedules, "hourly", { spec: { ...spec, suspend: false } });
  await world.runUntil(6.5 * hour);
  expect(world.agent.volumes.get("vol-1")?.generation).toBe(4);
});

test("on creation, a snapshot is migrated at once, and kept until it expires", async () => {
  const world = sourceWorld();
  const spec = { interval: "1h", retention: { age: "2h" }, migrateOn: "Creation" };
  world.apply(SnapshotSchedules, "hourly", { spec });
  await world.runUntil(3 * hour);
  expect(bases(world)).toBe("berlin@3");
  expect(snapshots(world)).toBe("2 3");
});

test("locations have each their own base, and do not wait for each other", async () => {
  const world = sourceWorld();
  location(world, "oslo");
  world.annotate(PersistentVolumes, "pv1", { migrationLocations: "berlin,oslo" });
  world.agent.probeFinds("oslo", { state: "unreachable", message: "nobody answers at agent.oslo.example:7420" });
  await world.runUntil(5 * hour);
  expect(bases(world)).toBe("berlin@3");
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False LocationNotReady");
  expect(migration(world)?.status?.locations?.[1]?.blocked).toContain("nobody answers");
  // The one that is away has nothing yet: it pins the newest that has expired, and nothing else.
  expect(snapshots(world)).toBe("3 4 5");
  world.agent.probeFinds("oslo", { state: "reachable", message: "" });
  await world.runUntil(5 * hour + minute);
  expect(bases(world)).toBe("berlin@3 oslo@3");
});

test.each([
  ["unreachable", "False Unreachable", "Unknown Unreachable", "Unknown Unreachable"],
  ["untrusted", "True Ok", "False Untrusted", "Unknown Untrusted"],
  ["notConsented", "True Ok", "True Ok", "False NotConsented"],
  ["reachable", "True Ok", "True Ok", "True Ok"],
  ["unknown", "Unknown NotProbed", "Unknown NotProbed", "Unknown NotProbed"],
] as const)("a location that is %s says so", async (state, reachable, trusted, consented) => {
  const world = sourceWorld();
  world.agent.probeFinds("berlin", { state, message: "what the probe says" });
  await world.run();
  const found = ["Reachable", "Trusted", "Consented"].map((type) =>
    condition(world, MigrationLocations, "berlin", type),
  );
  expect(found).toEqual([reachable, trusted, consented]);
});

test("a location that does not exist is named on the claim, nothing runs, and it heals when it appears", async () => {
  const world = sourceWorld();
  world.annotate(PersistentVolumes, "pv1", { migrationLocations: "oslo" });
  await world.runUntil(5 * hour);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False LocationMissing");
  expect(events(world, claim)).toContain("MigrationLocationMissing");
  expect([snapshots(world), jobs(world)]).toEqual(["", ""]);
  location(world, "oslo");
  await world.runUntil(9 * hour);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("True Ok");
  expect(bases(world)).toMatch(/^oslo@/);
});

test("a schedule that does not exist is named on the claim, nothing runs, and it heals when it appears", async () => {
  const world = sourceWorld();
  world.server.delete(SnapshotSchedules, { name: "hourly" });
  await world.runUntil(5 * hour);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False ScheduleMissing");
  expect(events(world, claim)).toContain("SnapshotScheduleMissing");
  expect([snapshots(world), jobs(world)]).toEqual(["", ""]);
  world.apply(SnapshotSchedules, "hourly", { spec: { interval: "1h", retention: { age: "2h" } } });
  await world.runUntil(9 * hour);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("True Ok");
  expect(bases(world)).not.toBe("");
});

test.each([
  [{ schedule: "61 * * * *", retention: { count: 1 } }, "False InvalidSchedule"],
  [{ schedule: "@daily", timeZone: "Mars/Olympus", retention: { count: 1 } }, "False InvalidTimeZone"],
  [{ schedule: "0 8,9 * * *", retention: { age: "30m" } }, "True Ok"],
])("schedule %j is judged %s", async (spec, judged) => {
  const world = sourceWorld();
  world.server.delete(SnapshotSchedules, { name: "hourly" });
  world.apply(SnapshotSchedules, "hourly", { spec });
  await world.runUntil(3 * hour);
  expect(condition(world, SnapshotSchedules, "hourly")).toBe(judged);
  const covers = condition(world, SnapshotSchedules, "hourly", "RetentionCoversGaps");
  expect(covers).toBe(judged === "True Ok" ? "False RetentionTooShort" : "none");
  if (judged === "True Ok") return;
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False ScheduleInvalid");
  expect(events(world, claim)).toContain("SnapshotScheduleInvalid");
});

test("a policy that makes no sense is told to the claim; what runs goes on by the last good one", async () => {
  const world = sourceWorld();
  await world.runUntil(hour);
  world.annotate(PersistentVolumes, "pv1", { schedulePolicy: "Every Hour" });
  await world.runUntil(5 * hour);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False InvalidPolicy");
  expect(events(world, claim)).toContain("MigrationPolicyInvalid");
  expect(bases(world)).toBe("berlin@3");
  world.annotate(PersistentVolumes, "pv1", { schedulePolicy: null });
  await world.run();
  expect(condition(world, VolumeMigrations, "pv1")).toBe("True Ok");
});

test("a new volume with a policy that makes no sense shows it, and nothing runs", async () => {
  const world = sourceWorld();
  world.apply(StorageClasses, "fast", { provisioner: "csi.longshore.dev", parameters: { migrationEnable: "true" } });
  await world.runUntil(3 * hour);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False InvalidPolicy");
  expect(snapshots(world)).toBe("");
});

test("what a claim may not decide is refused by an event, and the policy holds", async () => {
  const world = sourceWorld();
  const metadata = { namespace: "shop", annotations: { "longshore.dev/migrationEnable": "false" } };
  world.apply(PersistentVolumeClaims, "db-pv1", { spec: { volumeName: "pv1" } }, metadata);
  await world.run();
  expect(condition(world, VolumeMigrations, "pv1", "PolicyValid")).toBe("True PolicyRefused");
  expect(events(world, claim)).toContain("MigrationPolicyRefused");
  expect(migration(world)?.spec.policy.enabled).toBe(true);
});

test("a class that is deleted changes nothing for its volumes, and one made anew is adopted", async () => {
  const world = sourceWorld();
  await world.runUntil(hour);
  world.server.delete(StorageClasses, { name: "fast" });
  await world.runUntil(5 * hour);
  expect(condition(world, VolumeMigrations, "pv1", "ClassMissing")).toBe("True ClassMissing");
  expect(bases(world)).toBe("berlin@3");
  const origins = migration(world)?.spec.policy.origins;
  expect(origins?.schedulePolicy).toBe("schedulePolicy, parameter of StorageClass fast");
  location(world, "oslo");
  const parameters = { migrationEnable: "true", migrationLocations: "oslo", schedulePolicy: "hourly" };
  world.apply(StorageClasses, "fast", { provisioner: "csi.longshore.dev", parameters });
  await world.runUntil(5.5 * hour);
  expect(condition(world, VolumeMigrations, "pv1", "ClassMissing")).toBe("none");
  expect(migration(world)?.spec.policy.locations).toEqual(["oslo"]);
  expect(bases(world)).toBe("berlin@3 oslo@3");
});

test("a volume that is no longer enabled keeps its base, lets everything else expire, and takes no more snapshots", async () => {
  const world = sourceWorld();
  await world.runUntil(3 * hour);
  world.annotate(PersistentVolumes, "pv1", { migrationEnable: "false" });
  await world.runUntil(9 * hour);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False Disabled");
  expect([snapshots(world), bases(world)]).toEqual(["1", "berlin@1"]);
  expect(world.agent.volumes.get("vol-1")?.migrationEnabled).toBe(false);
});

test("how far each location is can be alerted on, and is forgotten with the volume", async () => {
  const world = sourceWorld();
  await world.runUntil(5 * hour);
  const at = Date.parse("2026-01-01T03:00:00Z") / 1000;
  const labels = 'volume="pv1",namespace="shop",claim="db-pv1",location="berlin"';
  expect(await world.metrics.render()).toContain(`longshore_newest_point_timestamp_seconds{${labels}} ${at}`);
  const lag = openLagMetric(world.metrics);
  const found = migration(world);
  if (found === undefined) throw new Error("no VolumeMigration");
  lag.set(found, found.status?.locations ?? []);
  lag.forget("pv1");
  expect(await world.metrics.render()).not.toContain('volume="pv1"');
});

test("a volume made anew under a name is another one", async () => {
  const world = sourceWorld();
  await world.run();
  const before = migration(world)?.metadata.uid;
  world.server.delete(PersistentVolumes, { name: "pv1" });
  expect(migration(world)).toBeUndefined();
  void world.agent.putVolume("vol-2", { sizeBytes: 2 ** 20 });
  volume(world, "pv1", "vol-2");
  await world.run();
  expect(migration(world)?.metadata.uid).not.toBe(before);
  expect(migration(world)?.spec.volume.handle).toBe("vol-2");
});

test("a volume that no agent holds says so, and one whose agent is away says that instead", async () => {
  const world = sourceWorld();
  volume(world, "pv2", "vol-2");
  await world.run(minute);
  expect(condition(world, VolumeMigrations, "pv2")).toBe("False VolumeMissing");
  expect(events(world, "PersistentVolumeClaim shop/db-pv2")).toContain("VolumeMissing");
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv2", location: "berlin" } });
  await world.run();
  expect(job(world, "one")?.status?.message).toContain("holds volume vol-2; check the PersistentVolume's volumeHandle");
  world.agentProblem = "connection refused";
  await world.run();
  expect(condition(world, VolumeMigrations, "pv2")).toBe("False AgentUnreachable");
});

test("of a volume that has just been made the agent's news is waited for, and nobody is warned", async () => {
  const world = sourceWorld();
  volume(world, "pv2", "vol-2");
  await world.run(9 * second);
  expect(condition(world, VolumeMigrations, "pv2")).toBe("False Applying");
  void world.agent.putVolume("vol-2", { sizeBytes: 2 ** 20 });
  await world.run(minute);
  expect(condition(world, VolumeMigrations, "pv2")).toBe("True Ok");
  expect(events(world, "PersistentVolumeClaim shop/db-pv2")).not.toContain("VolumeMissing");
});

test.each([
  // Under a handle that one of our volumes has.
  ["of another driver", { csi: { driver: "EBS.csi.aws.com", volumeHandle: "vol-1" } }, "ebs.csi.aws.com"],
  ["without CSI", { nfs: { server: "nas", path: "/" } }, "none"],
])("a volume %s is told that it is not migrated, and nothing is done for it", async (_, source, driver) => {
  const world = sourceWorld();
  world.apply(PersistentVolumes, "pv3", { spec: { storageClassName: "fast", ...source } });
  await world.runUntil(5 * hour);
  expect(events(world, "PersistentVolume pv3")).toEqual(["UnsupportedDriver"]);
  const [event] = [...world.server.events.values()].filter(({ about }) => about === "PersistentVolume pv3");
  expect(event?.message).toContain("take the annotations off that ask for it");
  expect(condition(world, VolumeMigrations, "pv3")).toBe("False UnsupportedDriver");
  expect(migration(world, "pv3")?.spec).toMatchObject({ volume: { handle: "", driver }, policy: { enabled: false } });
  expect(migration(world, "pv3")?.status).not.toHaveProperty("snapshots");
  expect(jobs(world)).not.toContain("pv3");
  // What is asked of it no more leaves nothing behind.
  world.annotate(PersistentVolumes, "pv3", { migrationEnable: "false" });
  await world.run();
  expect(migration(world, "pv3")).toBeUndefined();
});

test("nothing of ours keeps a volume from being deleted", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.runUntil(3.5 * hour);
  expect(jobs(world)).toBe("pv1-berlin-g1 Pending");
  expect(world.server.get(PersistentVolumes, { name: "pv1" })?.metadata).not.toHaveProperty("finalizers");
  expect(migration(world)?.metadata).not.toHaveProperty("finalizers");
  // Not even a deletion that waits for what depends on the volume.
  expect(migration(world)?.metadata.ownerReferences).toMatchObject([{ name: "pv1", blockOwnerDeletion: false }]);
  world.server.delete(PersistentVolumes, { name: "pv1" });
  expect([world.server.get(PersistentVolumes, { name: "pv1" }), migration(world)]).toEqual([undefined, undefined]);
  await world.run(minute);
  expect([jobs(world), world.agent.jobs.size]).toEqual(["", 0]);
});

test.each([
  ["whose claim is gone", "Released", "Delete", true],
  ["whose deletion has failed once", "Failed", "Delete", true],
  ["that is kept without its claim", "Released", "Retain", false],
  ["that is used", "Bound", "Delete", false],
])(
  "a volume %s (%s, %s) is let go of with its jobs, and what it has expires: %s",
  async (_, phase, policy, isLetGo) => {
    const world = sourceWorld();
    world.onJob = () => undefined;
    await world.runUntil(3.5 * hour);
    expect(jobs(world)).toBe("pv1-berlin-g1 Pending");
    releaseClaim(world, { phase, policy });
    await world.run(minute);
    const left = [migration(world)?.spec.policy.enabled, jobs(world), world.agent.jobs.size];
    expect(left).toEqual(isLetGo ? [false, "", 0] : [true, "pv1-berlin-g1 Pending", 1]);
    // However long a user's snapshot keeps it from being deleted.
    await world.run(4 * hour);
    expect(snapshots(world)).toBe(isLetGo ? "" : "1 5 6 7");
    expect(jobs(world)).toBe(isLetGo ? "" : "pv1-berlin-g1 Pending");
  },
);

test.each([
  ["was given to its agent", true],
  ["was not", false],
])("a user's job that is suspended and %s ends when its volume is to be deleted", async (_, isGiven) => {
  const world = sourceWorld();
  if (isGiven) await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin", suspend: true } });
  if (isGiven) await world.run();
  expect(world.agent.jobs.size).toBe(isGiven ? 1 : 0);
  releaseClaim(world);
  await world.run(minute);
  expect(jobs(world)).toBe("one Cancelled");
  expect(condition(world, MigrationJobs, "one", "Failed")).toBe("True VolumeMissing");
  await world.agent.removeVolume("vol-1");
});

test("a suspended job is told of its volume's end also when nothing is asked of the volume any more", async () => {
  const world = sourceWorld();
  await world.run();
  world.apply(StorageClasses, "fast", { provisioner: "csi.longshore.dev", parameters: {} });
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin", suspend: true } });
  await world.run();
  expect([migration(world)?.spec.policy.enabled, jobs(world)]).toEqual([false, "one Suspended"]);
  const released = world.clock.sleep(minute).then(() => releaseClaim(world));
  await world.run(hour);
  await released;
  expect(jobs(world)).toBe("one Cancelled");
});

test.each([
  ["that is used", "Bound", 0],
  // A new job of its may have to go.
  ["whose claim is gone", "Released", 1],
])("what is told of a job has a volume %s (%s) looked at so often: %i", async (_, phase, more) => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run();
  releaseClaim(world, { phase });
  await world.run();
  const lookedAt = async () => {
    const { reconciles } = await world.run();
    return reconciles.filter((each) => each === "persistent-volume pv1").length;
  };
  const atStart = await lookedAt();
  const [name = ""] = world.agent.jobs.keys();
  world.agent.progressJob(name, { barrier: "Frozen", bytesSent: 1 });
  expect(await lookedAt()).toBe(atStart + more);
  expect(job(world, "one")?.status).toMatchObject({ phase: "Running", barrier: "Frozen" });
});

test("a snapshot that cannot be taken is shown with its reason, tried again, and then taken", async () => {
  const world = sourceWorld();
  const { agent } = world;
  const take = agent.putSnapshot.bind(agent);
  agent.putSnapshot = async () => {
    throw new LongshoreError("VolumeBusy", "vol-1 is attached; the copy backend snapshots unattached volumes only");
  };
  await world.runUntil(hour);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False SnapshotFailed");
  expect(condition(world, VolumeMigrations, "pv1", "Snapshotted")).toBe("False SnapshotFailed");
  expect(events(world, claim)).toContain("SnapshotFailed");
  agent.putSnapshot = take;
  await world.runUntil(hour + 5 * second);
  expect(condition(world, VolumeMigrations, "pv1", "Snapshotted")).toBe("True Ok");
  expect(snapshots(world)).toBe("1");
});

test("a failure that says another number each time is written once", async () => {
  const world = sourceWorld();
  let freeBytes = 1_000;
  world.agent.putSnapshot = async () => {
    throw new LongshoreError("DiskFull", `${freeBytes++} bytes are free and 4096 are kept in reserve`);
  };
  await world.runUntil(hour);
  expect(condition(world, VolumeMigrations, "pv1", "Snapshotted")).toBe("False SnapshotFailed");
  const before = migration(world)?.metadata.resourceVersion;
  await world.run(minute);
  expect(freeBytes).toBeGreaterThan(1_010);
  expect(migration(world)?.metadata.resourceVersion).toBe(before);
});

test("a snapshot that is due while the agent is away is taken when it is back, and not asked for until then", async () => {
  const world = sourceWorld();
  await world.runUntil(30 * minute);
  world.agentProblem = "connection refused";
  const { errors } = await world.run(hour);
  expect(errors).toEqual([]);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False AgentUnreachable");
  expect(condition(world, VolumeMigrations, "pv1", "Snapshotted")).toBe("False SnapshotFailed");
  expect(events(world, claim)).not.toContain("SnapshotFailed");
  world.agentProblem = undefined;
  await world.run();
  expect(condition(world, VolumeMigrations, "pv1")).toBe("True Ok");
  expect(snapshots(world)).toBe("1");
});

test("a snapshot that cannot be taken does not keep those that nobody needs any more", async () => {
  const world = sourceWorld();
  await world.runUntil(4 * hour);
  const newest = snapshots(world).split(" ").at(-1);
  world.agent.putSnapshot = async () => {
    throw new LongshoreError("DiskFull", "0 bytes are free");
  };
  await world.runUntil(8 * hour);
  // All have expired, the newest was migrated, and is the base now.
  expect(snapshots(world)).toBe(newest);
  expect(condition(world, VolumeMigrations, "pv1", "Snapshotted")).toBe("False SnapshotFailed");
});

test("jobs that the API server does not let be made are told, and what nobody needs any more is let go of", async () => {
  const world = sourceWorld();
  const create = world.server.create.bind(world.server);
  world.server.create = (kind, draft) => {
    if (kind.plural === MigrationJobs.plural) throw new KubeError("Forbidden", "denied by policy no-jobs");
    return create(kind, draft);
  };
  await world.runUntil(6 * hour);
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False Applying");
  const ready = migration(world)?.status?.conditions?.find(({ type }) => type === "Ready");
  expect(ready?.message).toContain("denied by policy no-jobs");
  expect(snapshots(world)).toBe("4 5 6");
  world.server.create = create;
  await world.run(10 * minute);
  expect(bases(world)).toBe("berlin@4");
  expect(condition(world, VolumeMigrations, "pv1")).toBe("True Ok");
});

test("a scheduled job that could not be given to its agent ends when the policy names its location no more", async () => {
  const world = sourceWorld();
  location(world, "oslo");
  const put = world.agent.putJob.bind(world.agent);
  world.agent.putJob = async () => {
    throw new LongshoreError("Unreachable", "the agent does not answer");
  };
  await world.runUntil(3.5 * hour);
  expect(jobs(world)).toBe("pv1-berlin-g1 Pending");
  world.annotate(PersistentVolumes, "pv1", { migrationLocations: "oslo" });
  await world.runUntil(3.6 * hour);
  world.agent.putJob = put;
  await world.runUntil(6 * hour);
  expect(job(world, world.server.list(MigrationJobs)[0]?.metadata.name ?? "")?.status).toMatchObject({
    phase: "Cancelled",
    message: "The policy of PersistentVolume pv1 does not name location berlin any more.",
  });
  // Nothing is kept for it.
  expect([bases(world), snapshots(world)]).toEqual(["oslo@4", "4 5 6"]);
});

test("a failed job is not repeated; its changes are part of the next", async () => {
  const world = sourceWorld();
  const succeed = world.onJob;
  world.onJob = (name) => world.agent.failJob(name, new LongshoreError("DiskFull", "berlin has no room"));
  await world.runUntil(3.5 * hour);
  expect(jobs(world)).toBe("pv1-berlin-g1 Failed");
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False JobFailed");
  expect(migration(world)?.status?.locations?.[0]?.lastJob?.message).toContain("berlin has no room");
  expect(events(world, claim)).toContain("MigrationFailed");
  world.onJob = succeed;
  await world.runUntil(4.5 * hour);
  expect(jobs(world)).toBe("pv1-berlin-g1 Failed, pv1-berlin-g2 Succeeded");
  expect(condition(world, VolumeMigrations, "pv1")).toBe("True Ok");
});

test("deleting a failed job asks for it again", async () => {
  const world = sourceWorld();
  const succeed = world.onJob;
  world.onJob = (name) => world.agent.failJob(name, new LongshoreError("DiskFull", "berlin has no room"));
  await world.runUntil(3 * hour);
  world.onJob = succeed;
  const [failed] = world.server.list(MigrationJobs);
  world.server.delete(MigrationJobs, { name: failed?.metadata.name ?? "" });
  await world.runUntil(3 * hour + minute);
  expect(jobs(world)).toBe("pv1-berlin-g1 Succeeded");
});

test("ended jobs are pruned by the history limits, at the agent as well", async () => {
  const world = sourceWorld();
  const spec = { interval: "1h", retention: { age: "1h" }, successfulJobsHistoryLimit: 2 };
  world.apply(SnapshotSchedules, "hourly", { spec });
  await world.runUntil(9 * hour);
  expect(jobs(world)).toBe("pv1-berlin-g7 Succeeded, pv1-berlin-g8 Succeeded");
  expect([...world.agent.jobs.keys()].map(shortly)).toEqual(["pv1-berlin-g7", "pv1-berlin-g8"]);
});

test("a user's job snapshots now and migrates at once, and is not pruned", async () => {
  const world = sourceWorld();
  await world.runUntil(30 * minute);
  world.apply(MigrationJobs, "now", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.runUntil(31 * minute);
  expect(jobs(world)).toBe("now Succeeded");
  expect(job(world, "now")?.status).toMatchObject({
    to: { generation: 1 },
    completionTime: "2026-01-01T00:30:00.000Z",
  });
  expect(bases(world)).toBe("berlin@1");
  await world.runUntil(9 * hour);
  // The snapshot of the user's job was let go of when it was no base any more.
  expect(world.agent.volumes.get("vol-1")?.snapshots.some(({ name }) => name.startsWith("demand-"))).toBe(false);
  expect(jobs(world)).toContain("now Succeeded");
});

test("a dry run plans, transfers nothing, and leaves nothing behind", async () => {
  const world = sourceWorld();
  await world.run();
  world.onJob = (name) =>
    world.agent.succeedJob(name, { bytesTotal: 4096, mode: { kind: "Full", reason: "FirstCopy" } });
  world.apply(MigrationJobs, "plan", { spec: { volumeName: "pv1", location: "berlin", dryRun: true } });
  await world.run();
  expect(job(world, "plan")?.status).toMatchObject({ phase: "Succeeded", bytesChanged: 4096, mode: "Full" });
  expect(job(world, "plan")?.status?.message).toContain("nothing was transferred");
  expect([bases(world), snapshots(world)]).toEqual(["", ""]);
});

test("a job that is cancelled ends, whether or not the agent has it", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin" } });
  world.apply(MigrationJobs, "two", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run();
  expect(jobs(world)).toBe("one Pending, two Pending");
  expect(job(world, "two")?.status?.message).toContain("Waits for MigrationJob one");
  for (const name of ["two", "one"]) world.server.edit(MigrationJobs, { name }, { spec: { cancel: true } });
  await world.run();
  expect(jobs(world)).toBe("one Cancelled, two Cancelled");
  expect(snapshots(world)).toBe("");
});

test("a job whose cancellation does not reach its agent is shown as it is, with the reason", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run();
  const [name = ""] = world.agent.jobs.keys();
  world.agent.progressJob(name, { barrier: "Frozen" });
  await world.run();
  expect(jobs(world)).toBe("one Running");
  const put = world.agent.putJob.bind(world.agent);
  world.agent.putJob = async () => {
    throw new LongshoreError("StreamTorn", "the connection broke");
  };
  world.server.edit(MigrationJobs, { name: "one" }, { spec: { cancel: true } });
  await world.run();
  expect(job(world, "one")?.status).toMatchObject({
    phase: "Running",
    message: expect.stringContaining("the connection broke"),
  });
  world.agent.putJob = put;
  world.agentProblem = "connection refused";
  await world.run();
  expect(job(world, "one")?.status).toMatchObject({
    phase: "Running",
    message: expect.stringContaining("connection refused"),
  });
  world.agentProblem = undefined;
  await world.run();
  expect(jobs(world)).toBe("one Cancelled");
});

test("a job whose agent is away waits, and is looked at as soon as that is back", async () => {
  const world = sourceWorld();
  await world.run();
  world.agentProblem = "connection refused";
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run();
  expect(job(world, "one")?.status).toMatchObject({
    phase: "Pending",
    message: expect.stringContaining("connection refused"),
  });
  const concerned = routeNews(world.cluster)({ kind: "synced", name: world.agent.view.agentId });
  expect(concerned).toContainEqual({ controller: "migration-job", key: { name: "one" } });
  world.agentProblem = undefined;
  await world.run();
  expect(jobs(world)).toBe("one Succeeded");
});

test("a job is suspended and goes on", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin", suspend: true } });
  await world.run();
  expect(jobs(world)).toBe("one Suspended");
  world.server.edit(MigrationJobs, { name: "one" }, { spec: { suspend: false } });
  await world.run();
  expect(jobs(world)).toBe("one Pending");
});

test("no job is started while its location is suspended, and what runs goes on", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  world.apply(MigrationJobs, "runs", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run();
  location(world, "berlin", { suspend: true });
  for (const number of [2, 3]) {
    await world.agent.putVolume(`vol-${number}`, { sizeBytes: 2 ** 20 });
    volume(world, `pv${number}`, `vol-${number}`);
  }
  world.apply(MigrationJobs, "waits", { spec: { volumeName: "pv2", location: "berlin" } });
  world.apply(MigrationJobs, "plans", { spec: { volumeName: "pv3", location: "berlin", dryRun: true } });
  await world.run(minute);
  expect(condition(world, MigrationJobs, "waits", "Complete")).toBe("False Waiting");
  const given = () => [...world.agent.jobs.keys()].map((name) => name.split(".")[0]);
  expect(given()).toEqual(["runs", "plans"]);
  expect(jobs(world)).toBe("plans Pending, runs Pending, waits Pending");
  const lifted = world.clock.sleep(minute).then(() => location(world, "berlin"));
  await world.run(70 * second);
  await lifted;
  expect(given()).toEqual(["runs", "plans", "waits"]);
});

test("no job is started towards a location that is being deleted, for its base would keep the location", async () => {
  const world = sourceWorld();
  await world.run();
  world.server.delete(MigrationLocations, { name: "berlin" });
  world.apply(MigrationJobs, "late", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run(minute);
  expect([condition(world, MigrationJobs, "late", "Complete"), bases(world)]).toEqual(["False Waiting", ""]);
  expect(job(world, "late")?.status?.message).toContain("is being deleted");
});

test("a job past its deadline fails with that reason", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin", activeDeadlineSeconds: 60 } });
  await world.run(61 * second);
  expect(jobs(world)).toBe("one Failed");
  expect(condition(world, MigrationJobs, "one", "Failed")).toBe("True DeadlineExceeded");
  expect(job(world, "one")?.status?.message).toContain("(60); make another job with more, or without");
});

test("deleting a running job cancels it at the agent first", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run();
  world.server.delete(MigrationJobs, { name: "one" });
  expect(jobs(world)).toBe("one Pending");
  await world.run();
  expect([jobs(world), world.agent.jobs.size]).toEqual(["", 0]);
});

test.each([
  [{ volumeName: "pv9", location: "berlin" }, "PersistentVolume pv9 has no VolumeMigration"],
  [{ volumeName: "pv1", location: "oslo" }, "does not name location oslo"],
])("a job that cannot start waits and says why: %j", async (spec, message) => {
  const world = sourceWorld();
  await world.run();
  world.apply(MigrationJobs, "one", { spec });
  await world.run();
  expect(job(world, "one")?.status).toMatchObject({ phase: "Pending", message: expect.stringContaining(message) });
});

test("a job that its agent refuses for good fails, and its claim is told", async () => {
  const world = sourceWorld();
  await world.run();
  world.agent.putSnapshot = async () => {
    throw new LongshoreError("Unsupported", "this volume takes no snapshots");
  };
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run();
  expect(jobs(world)).toBe("one Failed");
  expect(events(world, claim)).toContain("MigrationFailed");
});

test("a job for a snapshot that is not there fails and says so", async () => {
  const world = sourceWorld();
  await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin", toSnapshot: "auto-gone" } });
  await world.run();
  expect(condition(world, MigrationJobs, "one", "Failed")).toBe("True SnapshotGone");
});

test("progress is written at most every 30 seconds, and a new barrier at once", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run();
  const [name = ""] = world.agent.jobs.keys();
  world.agent.progressJob(name, { barrier: "Frozen", bytesSent: 1 });
  await world.run();
  expect(job(world, "one")?.status).toMatchObject({ phase: "Running", barrier: "Frozen", bytesSent: 1 });
  await world.clock.advance(10 * second);
  world.agent.progressJob(name, { bytesSent: 2, unitsStored: 1 });
  await world.run();
  expect(job(world, "one")?.status?.bytesSent).toBe(1);
  await world.run(20 * second);
  expect(job(world, "one")?.status?.bytesSent).toBe(2);
  // A clock that was ahead has written when it was written last.
  const later = { lastProgressTime: "2026-01-03T12:00:00.000Z" };
  world.server.setStatus(MigrationJobs, { name: "one" }, { ...job(world, "one")?.status, ...later });
  world.agent.progressJob(name, { bytesSent: 3 });
  await world.run();
  expect(job(world, "one")?.status?.bytesSent).toBe(3);
});

test("agents are told how a location's data travels and is verified, in their own words", async () => {
  const world = sourceWorld();
  const spec = () => world.agent.locations.get("berlin")?.spec;
  location(world, "berlin", {});
  await world.run();
  expect(spec()).not.toHaveProperty("transport");
  expect(spec()).not.toHaveProperty("verification");
  location(world, "berlin", { transport: "Kernel", verification: "Memory" });
  await world.run();
  expect(spec()).toMatchObject({ transport: "kernel", verification: "memory" });
  location(world, "berlin", { transport: "TLS", verification: "None" });
  await world.run();
  expect(spec()).toMatchObject({ transport: "tls", verification: "none" });
});

test("bandwidth follows its windows", async () => {
  const world = sourceWorld();
  location(world, "berlin", { bandwidth: { limit: "10M", windows: [{ start: "01:00", end: "02:00", limit: "1M" }] } });
  const limit = () => world.agent.locations.get("berlin")?.spec.bytesPerSecondMax;
  await world.runUntil(30 * minute);
  expect(limit()).toBe(10e6);
  await world.runUntil(90 * minute);
  expect(limit()).toBe(1e6);
  await world.runUntil(150 * minute);
  expect(limit()).toBe(10e6);
});

test("while the bandwidth is nought nothing is started, and what runs is suspended", async () => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  location(world, "berlin", { bandwidth: { windows: [{ start: "00:10", end: "00:20", limit: "0" }] } });
  await world.runUntil(5 * minute);
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.runUntil(15 * minute);
  expect(condition(world, MigrationLocations, "berlin")).toBe("True Paused");
  expect(jobs(world)).toBe("one Suspended");
  expect(world.agent.locations.get("berlin")?.spec.bytesPerSecondMax).toBeUndefined();
  await world.runUntil(25 * minute);
  expect(condition(world, MigrationLocations, "berlin")).toBe("True Ok");
  expect(jobs(world)).toBe("one Pending");
});

test("until what runs is suspended, it goes on at the least rate that is not nought", async () => {
  const world = sourceWorld();
  const windows = [
    { start: "00:10", end: "00:20", limit: "0" },
    { start: "00:20", end: "00:30", limit: "2M" },
  ];
  location(world, "berlin", { bandwidth: { limit: "10M", windows } });
  const limit = () => world.agent.locations.get("berlin")?.spec.bytesPerSecondMax;
  await world.runUntil(5 * minute);
  expect(limit()).toBe(10e6);
  await world.runUntil(15 * minute);
  expect([condition(world, MigrationLocations, "berlin"), limit()]).toEqual(["True Paused", 2e6]);
});

test.each([
  ["is suspended by its user", "True Suspended", (world: OperatorWorld) => location(world, "berlin", paused)],
  ["does not answer", "False Unreachable", (world: OperatorWorld) => world.agent.probeFinds("berlin", silent)],
  ["says what cannot be followed", "False Invalid", (world: OperatorWorld) => location(world, "berlin", nonsense)],
])("jobs stay suspended while a location whose bandwidth is nought %s", async (_, ready, happens) => {
  const world = sourceWorld();
  world.onJob = () => undefined;
  location(world, "berlin", { ...paused, suspend: false });
  await world.run();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.run(minute);
  expect(jobs(world)).toBe("one Suspended");
  happens(world);
  await world.run(minute);
  expect(condition(world, MigrationLocations, "berlin")).toBe(ready);
  expect(jobs(world)).toBe("one Suspended");
  expect(condition(world, MigrationLocations, "berlin", "Paused")).toBe("True Paused");
  expect([...world.agent.jobs.values()].map(({ spec }) => spec.suspend)).toEqual([true]);
  location(world, "berlin");
  await world.run(minute);
  expect([condition(world, MigrationLocations, "berlin", "Paused"), jobs(world)]).toEqual(["none", "one Pending"]);
});

test("a location that an agent refuses says why, and is told again", async () => {
  const world = sourceWorld();
  const put = world.agent.putLocation.bind(world.agent);
  world.agent.putLocation = async () => {
    throw new LongshoreError("BadRequest", "caBundle: no certificate in it can be read");
  };
  await world.run(minute);
  expect(condition(world, MigrationLocations, "berlin")).toBe("False Invalid");
  world.agent.putLocation = put;
  await world.run(minute);
  expect(condition(world, MigrationLocations, "berlin")).toBe("True Ok");
});

test("an agent that does not take a location keeps no other from hearing of it", async () => {
  const world = new OperatorWorld({ agents: 2 });
  location(world, "berlin");
  world.agent.putLocation = async () => {
    throw new LongshoreError("Timeout", "no answer in time");
  };
  await world.run(minute);
  expect(world.agents.map(({ locations }) => [...locations.keys()])).toEqual([[], ["berlin"]]);
  expect(condition(world, MigrationLocations, "berlin")).toBe("False Invalid");
});

test("what a probe finds is recorded, whatever clock has recorded the last one", async () => {
  const world = sourceWorld();
  await world.run();
  const found = () => world.server.get(MigrationLocations, { name: "berlin" })?.status;
  const later = { lastProbeTime: "2026-01-03T12:00:00.000Z" };
  world.server.setStatus(MigrationLocations, { name: "berlin" }, { ...found(), ...later });
  world.agent.probeFinds("berlin", { state: "reachable", message: "", freeBytes: 7 });
  await world.run();
  expect(found()).toMatchObject({ freeBytes: 7, lastProbeTime: "2026-01-01T00:00:00.000Z" });
});

test("a snapshot whose file vanished is told, and the next migration does without it", async () => {
  const world = sourceWorld();
  await world.runUntil(3.5 * hour);
  const [base] = world.agent.volumes.get("vol-1")?.snapshots ?? [];
  world.agent.loseSnapshot("vol-1", base?.name ?? "");
  await world.run();
  expect(condition(world, VolumeMigrations, "pv1")).toBe("False SnapshotLost");
  expect(events(world, claim)).toContain("SnapshotLost");
  await world.runUntil(4.5 * hour);
  expect(bases(world)).toBe("berlin@2");
  expect(condition(world, VolumeMigrations, "pv1")).toBe("True Ok");
});

test("an agent restored from an old disk counts generations anew, and is migrated all the same", async () => {
  const world = sourceWorld();
  await world.runUntil(2.5 * hour);
  const old = structuredClone(world.agent.volumes.get("vol-1"));
  await world.runUntil(6.5 * hour);
  expect(bases(world)).toBe("berlin@4");
  if (old === undefined) throw new Error("no volume");
  world.agent.volumes.set("vol-1", { ...old, bases: [], revision: 1_000 });
  await world.runUntil(9.5 * hour);
  // Snapshots of 7:00, 8:00 and 9:00 are generations 3, 4 and 5; the one of 7:00 has expired.
  expect(world.agent.volumes.get("vol-1")?.generation).toBe(6);
  expect(bases(world)).toBe("berlin@3");
});

test("a time zone of windows that does not exist is told, and the agent keeps what it had", async () => {
  const world = sourceWorld();
  await world.run();
  const windows = [{ start: "01:00", end: "02:00" }];
  location(world, "berlin", { bandwidth: { timeZone: "Mars/Olympus", windows } });
  await world.run();
  expect(condition(world, MigrationLocations, "berlin")).toBe("False Invalid");
  expect(world.agent.locations.get("berlin")?.spec.seeds).toEqual(["agent.berlin.example:7420"]);
});

test("a location in use is not deleted under its volumes", async () => {
  const world = sourceWorld();
  await world.runUntil(3.5 * hour);
  world.server.delete(MigrationLocations, { name: "berlin" });
  await world.run();
  expect(condition(world, MigrationLocations, "berlin", "Deletable")).toBe("False InUse");
  // No policy names it any more, but the volume's base is held for it.
  world.annotate(PersistentVolumes, "pv1", { migrationEnable: "false" });
  await world.run(minute);
  expect(condition(world, MigrationLocations, "berlin", "Deletable")).toBe("False InUse");
  world.annotate(MigrationLocations, "berlin", { "release-holds": "true" });
  await world.run(minute);
  expect(world.server.get(MigrationLocations, { name: "berlin" })).toBeUndefined();
  expect([bases(world), world.agent.locations.size]).toEqual(["", 0]);
});

test("however many volumes change in a second, their schedule and location count them once", async () => {
  const world = sourceWorld();
  const spec = { interval: "1h", jitter: "5s", retention: { age: "2h" } };
  world.apply(SnapshotSchedules, "hourly", { spec });
  for (let index = 2; index <= 60; index++) {
    void world.agent.putVolume(`vol-${index}`, { sizeBytes: 2 ** 20 });
    volume(world, `pv${index}`, `vol-${index}`);
  }
  const { reconciles } = await world.run(hour + minute);
  const lookedAt = (key: string) => reconciles.filter((each) => each === key).length;
  expect(lookedAt("volume-migration pv60")).toBeGreaterThan(2);
  expect(lookedAt("snapshot-schedule hourly")).toBeLessThan(20);
  expect(lookedAt("migration-location berlin")).toBeLessThan(20);
  expect(world.server.get(SnapshotSchedules, { name: "hourly" })?.status?.volumes).toBe(60);
  expect(world.server.get(MigrationLocations, { name: "berlin" })?.status?.volumes).toBe(60);
});

test("many volumes on one schedule are spread over the jitter window, each at its own place", async () => {
  const world = sourceWorld();
  const spec = { interval: "1h", retention: { age: "2h" }, jitter: "30m" };
  world.apply(SnapshotSchedules, "hourly", { spec });
  for (let index = 0; index < 40; index++) {
    void world.agent.putVolume(`many-${index}`, { sizeBytes: 2 ** 20 });
    volume(world, `many-${index}`, `many-${index}`);
  }
  await world.runUntil(90 * minute);
  const minutesOf = (times: readonly string[]) => times.map((time) => Math.floor((Date.parse(time) % hour) / minute));
  const places = [...world.agent.volumes.values()].map((each) =>
    minutesOf(each.snapshots.map(({ createdAt }) => createdAt)),
  );
  for (const minutes of places)
    expect([minutes.length, new Set(minutes).size, (minutes[0] ?? 60) < 30]).toEqual([2, 1, true]);
  expect(new Set(places.map(([first]) => first)).size).toBeGreaterThan(15);
});

/** What counts in the end: data at the agent, and what a user is shown of it. */
function summary(world: OperatorWorld): unknown {
  const { volumes, jobs: agentJobs, locations } = world.agent;
  return {
    volumes: [...volumes.values()].map(({ name, metadata, migrationEnabled }) => ({
      name,
      metadata,
      migrationEnabled,
      snapshots: snapshots(world, name),
      bases: bases(world, name),
      holds: volumes.get(name)?.snapshots.map(({ holds }) => holds.map(({ reason, owner }) => `${reason}/${owner}`)),
    })),
    agentJobs: [...agentJobs.values()].map(({ name, state }) => `${shortly(name.split(".")[0] ?? "")} ${state}`),
    locations: [...locations.values()].map(({ name, spec }) => ({ name, spec })),
    jobs: world.server.list(MigrationJobs).map(({ metadata, spec, status }) => ({
      name: shortly(metadata.name),
      spec,
      phase: status?.phase,
      finalizers: metadata.finalizers ?? [],
    })),
    ready: [
      condition(world, VolumeMigrations, "pv1"),
      condition(world, MigrationLocations, "berlin"),
      condition(world, SnapshotSchedules, "hourly"),
    ],
    lastScheduleTime: migration(world)?.status?.lastScheduleTime,
    finalizers: world.server.get(MigrationLocations, { name: "berlin" })?.metadata.finalizers,
  };
}

/** A day in short: schedule, expiry, migrations, a user's job, and a location that is deleted when it is free. */
async function story(crash?: CrashPoint): Promise<OperatorWorld> {
  const world = sourceWorld();
  location(world, "oslo");
  world.apply(MigrationJobs, "now", { spec: { volumeName: "pv1", location: "berlin" } });
  await world.runUntil(3.5 * hour, crash);
  world.server.delete(MigrationLocations, { name: "oslo" });
  await world.runUntil(4 * hour, crash?.isDead === false ? crash : undefined);
  return world;
}

test.each(["before", "after", "lostReply"] as const)(
  "killed %s any effect, and started again, it comes to the same end",
  async (mode) => {
    const expected = summary(await story());
    const reference = new CrashPoint();
    await sourceWorld().runUntil(3.5 * hour, reference);
    expect(reference.effects.length).toBeGreaterThan(20);
    for (let effect = 1; ; effect++) {
      const crash = new CrashPoint({ effect, mode });
      const world = await story(crash);
      if (!crash.wasReached) break;
      expect([effect, crash.effects[effect - 1], summary(world)]).toEqual([
        effect,
        crash.effects[effect - 1],
        expected,
      ]);
    }
  },
  600_000,
);
