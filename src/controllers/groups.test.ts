// Consistency groups in a world of fakes: two agents of one cluster, and claims that carry the same label.
import { expect, test } from "@jest/globals";
import { CrashPoint } from "../../test/fakes/crash-point.ts";
import { location, OperatorWorld } from "../../test/fakes/operator-world.ts";
import type { Condition } from "../api/object.ts";
import { LongshoreError } from "../domain/errors.ts";
import type { KindRef, KubeObject } from "../kube/cluster.ts";
import type { ParticipantView } from "../wire/schemas.ts";
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

const minute = 60_000;
const hour = 60 * minute;

type WithConditions = KubeObject & { readonly status?: { readonly conditions?: readonly Condition[] } };

function conditionIn(world: OperatorWorld, kind: KindRef<WithConditions>, name: string, type = "Ready") {
  return world.server.get(kind, { name })?.status?.conditions?.find((each) => each.type === type);
}

/** `False GroupConflict`. */
function condition(world: OperatorWorld, kind: KindRef<WithConditions>, name: string, type?: string): string {
  const found = conditionIn(world, kind, name, type);
  return found === undefined ? "none" : `${found.status} ${found.reason}`;
}

const volumesOf = (world: OperatorWorld) => world.agents.flatMap((agent) => [...agent.volumes.values()]);
const volumeAt = (world: OperatorWorld, handle: string) => volumesOf(world).find(({ name }) => name === handle);
const hourOf = (name: string) => name.replace(/^auto-\d+t0?(\d+?)0000.000z$/, "$1").replace(/^demand-.*/, "d");

/** What each volume has by its hour, `g` when it was taken with the group: `a: 1 2g, b: 2g`. */
function snapshots(world: OperatorWorld): string {
  return volumesOf(world)
    .map(({ name, snapshots: all }) => {
      const words = all.map((each) => `${hourOf(each.name)}${each.groupPoint ? "g" : ""}${each.released ? "*" : ""}`);
      return `${name}: ${words.join(" ")}`;
    })
    .sort()
    .join(", ");
}

/** Where each volume's bases are: `a@1 b@1`; `a@1?` when the snapshot is not one of a group. */
function bases(world: OperatorWorld): string {
  return volumesOf(world)
    .flatMap(({ name, bases: all, snapshots: kept }) =>
      all.map(({ pointId }) => {
        const base = kept.find((each) => each.pointId === pointId);
        return `${name}@${hourOf(base?.name ?? "")}${base?.groupPoint ? "" : "?"}`;
      }),
    )
    .sort()
    .join(" ");
}

const jobs = (world: OperatorWorld) =>
  world.server.list(MigrationJobs).map(({ spec, status }) => {
    const of = spec.group
      ? `${spec.group.name}(${(spec.group.volumes ?? status?.volumes)?.join(",")})`
      : spec.volumeName;
    return `${of} ${hourOf(spec.toSnapshot ?? "demand-")} ${status?.phase}`;
  });

const events = (world: OperatorWorld, about: string) =>
  [...world.server.events.values()].filter((event) => event.about === about).map(({ reason }) => reason);

function claim(world: OperatorWorld, name: string, labels: Record<string, string> = {}): void {
  world.apply(
    PersistentVolumeClaims,
    `c-${name}`,
    { spec: { volumeName: `pv-${name}` } },
    { namespace: "shop", labels },
  );
}

/** The claim shop/c-NAME with its volume pv-NAME, which an agent has under the plain name. */
function addVolume(world: OperatorWorld, name: string, { label = "db", storageClass = "fast" } = {}): void {
  claim(world, name, label === "" ? {} : { "longshore.dev/group": label });
  world.apply(PersistentVolumes, `pv-${name}`, {
    spec: {
      storageClassName: storageClass,
      claimRef: { namespace: "shop", name: `c-${name}` },
      csi: { driver: "csi.longshore.dev", volumeHandle: name, fsType: "ext4" },
    },
  });
}

/** The claim is deleted, and the volume is to be deleted with it. */
function releaseClaim(world: OperatorWorld, name: string): void {
  const key = { name: `pv-${name}` };
  const spec = world.server.get(PersistentVolumes, key)?.spec;
  world.apply(PersistentVolumes, key.name, { spec: { ...spec, persistentVolumeReclaimPolicy: "Delete" } });
  world.server.delete(PersistentVolumeClaims, { namespace: "shop", name: `c-${name}` });
  world.server.setStatus(PersistentVolumes, key, { phase: "Released" });
}

/** Claims a and b of group db, a at the first agent and b at the second; every hour, kept for two. */
function groupWorld(names = ["a", "b"]): OperatorWorld {
  const world = new OperatorWorld({ agents: 2 });
  world.apply(SnapshotSchedules, "hourly", { spec: { interval: "1h", retention: { age: "2h" } } });
  location(world, "berlin");
  const parameters = { migrationEnable: "true", migrationLocations: "berlin", schedulePolicy: "hourly" };
  world.apply(StorageClasses, "fast", { provisioner: "csi.longshore.dev", parameters });
  for (const [index, name] of ["a", "b", "c"].entries()) {
    void world.agents[index % 2]?.putVolume(name, { sizeBytes: 2 ** 20 });
  }
  for (const name of names) addVolume(world, name);
  return world;
}

test("claims of one label are snapshotted at one moment, and what expires is one job of all", async () => {
  const world = groupWorld();
  await world.runUntil(4 * hour);
  expect(snapshots(world)).toBe("a: 2g 3g 4g, b: 2g 3g 4g, c: ");
  const points = volumesOf(world).map((each) => each.snapshots.map(({ groupPoint }) => groupPoint));
  expect(points[0]).toEqual(points[2]);
  expect(bases(world)).toBe("a@2 b@2");
  expect(jobs(world)).toEqual(["db(pv-a,pv-b) 1 Succeeded", "db(pv-a,pv-b) 2 Succeeded"]);
  expect(condition(world, VolumeMigrations, "pv-a")).toBe("True Ok");
  expect(condition(world, VolumeMigrations, "pv-b")).toBe("True Ok");
  for (const name of ["pv-a", "pv-b"]) {
    expect(world.server.get(VolumeMigrations, { name })).toMatchObject({
      spec: { group: { namespace: "shop", name: "db" } },
      status: {
        lastScheduleTime: "2026-01-01T04:00:00.000Z",
        nextScheduleTime: "2026-01-01T05:00:00.000Z",
        schedule: { group: "shop/db" },
        locations: [{ name: "berlin", base: { generation: 2 }, lastJob: { phase: "Succeeded" } }],
      },
    });
  }
});

test("the job of a group is found by its labels, belongs to its volumes, and is given to an agent with a part in it", async () => {
  const world = groupWorld();
  await world.runUntil(3 * hour);
  const [job] = world.server.list(MigrationJobs);
  expect(job?.metadata.name).toMatch(/^shop-db-berlin-p[0-9a-f]{6}$/);
  expect(job?.metadata.labels).toMatchObject({
    "longshore.dev/group": "db",
    "longshore.dev/group-namespace": "shop",
    "longshore.dev/location": "berlin",
  });
  expect(job?.metadata.ownerReferences?.map(({ name, controller }) => `${name} ${controller}`)).toEqual([
    "pv-a false",
    "pv-b false",
  ]);
  for (const agent of world.agents) {
    expect([...agent.jobs.values()].map(({ spec }) => spec)).toEqual([
      { group: { name: "shop.db", volumes: ["a", "b"] }, location: "berlin", snapshot: job?.spec.toSnapshot },
    ]);
  }
  expect(events(world, "PersistentVolumeClaim shop/c-b")).toContain("MigrationSucceeded");
});

test("a second run of a settled operator changes nothing", async () => {
  const world = groupWorld();
  await world.runUntil(5 * hour);
  const crash = new CrashPoint();
  await world.run(0, crash);
  expect(crash.effects).toEqual([]);
});

test("all volumes of a group have one place in the jitter window", async () => {
  const world = groupWorld();
  world.apply(SnapshotSchedules, "hourly", { spec: { interval: "1h", retention: { age: "2h" }, jitter: "50m" } });
  await world.runUntil(1.9 * hour);
  const [a, b] = ["a", "b"].map((name) => volumeAt(world, name)?.snapshots.map(({ createdAt }) => createdAt));
  expect(a).toEqual(b);
  expect(a?.[0]).toMatch(/T00:[0-4]\d:/);
});

test("a group of one volume works", async () => {
  const world = groupWorld(["a"]);
  await world.runUntil(3 * hour);
  expect(bases(world)).toBe("a@1");
  expect(jobs(world)).toEqual(["db(pv-a) 1 Succeeded"]);
});

test("a volume joins from the next due time on; what it has by itself is migrated by itself", async () => {
  const world = groupWorld(["a"]);
  addVolume(world, "b", { label: "" });
  await world.runUntil(1.5 * hour);
  claim(world, "b", { "longshore.dev/group": "db" });
  await world.runUntil(1.6 * hour);
  expect(snapshots(world)).toBe("a: 1g, b: 1, c: ");
  await world.runUntil(3.5 * hour);
  expect(snapshots(world)).toBe("a: 1g 2g 3g, b: 1 2g 3g, c: ");
  expect(bases(world)).toBe("a@1 b@1?");
  await world.runUntil(4.5 * hour);
  expect(jobs(world).slice().sort()).toEqual(["db(pv-a) 1 Succeeded", "db(pv-a,pv-b) 2 Succeeded", "pv-b 1 Succeeded"]);
});

test("a volume leaves from the next due time on, and goes alone with what it had", async () => {
  const world = groupWorld();
  await world.runUntil(1.5 * hour);
  claim(world, "b");
  await world.runUntil(3.5 * hour);
  expect(snapshots(world)).toBe("a: 1g 2g 3g, b: 1g 2 3, c: ");
  expect(jobs(world).slice().sort()).toEqual(["db(pv-a) 1 Succeeded", "pv-b 1 Succeeded"]);
});

test("a job that is under way when the group changes ends as it is", async () => {
  const world = groupWorld();
  world.onJob = () => undefined;
  await world.runUntil(3.2 * hour);
  expect(jobs(world)).toEqual(["db(pv-a,pv-b) 1 Running"].map((text) => text.replace("Running", "Pending")));
  claim(world, "b");
  addVolume(world, "c");
  await world.runUntil(3.4 * hour);
  world.holderOf(world.agent.jobs.keys().next().value ?? "")?.succeedJob([...world.agent.jobs.keys()][0] ?? "");
  await world.run();
  expect(jobs(world)).toEqual(["db(pv-a,pv-b) 1 Succeeded"]);
  expect(bases(world)).toBe("a@1 b@1");
});

test.each<[string, (world: OperatorWorld) => void, string]>([
  [
    "schedules",
    (world) => world.annotate(PersistentVolumes, "pv-b", { schedulePolicy: "daily" }),
    "schedule differ: daily for c-b, hourly for c-a",
  ],
  [
    "locations",
    (world) => world.annotate(PersistentVolumes, "pv-b", { migrationLocations: "berlin,oslo" }),
    "locations differ: berlin for c-a, berlin, oslo for c-b",
  ],
  [
    "being enabled",
    (world) => world.annotate(PersistentVolumes, "pv-b", { migrationEnable: "false" }),
    "c-b is not enabled",
  ],
  [
    "being of a class that migrates",
    (world) => {
      world.apply(StorageClasses, "plain", { provisioner: "csi.longshore.dev" });
      addVolume(world, "c", { storageClass: "plain" });
    },
    "c-c is not enabled",
  ],
  [
    "being volumes of ours",
    (world) => {
      claim(world, "c", { "longshore.dev/group": "db" });
      world.apply(PersistentVolumes, "pv-c", {
        spec: {
          storageClassName: "fast",
          claimRef: { namespace: "shop", name: "c-c" },
          csi: { driver: "other", volumeHandle: "c" },
        },
      });
    },
    "c-c is not a volume of csi.longshore.dev",
  ],
])(
  "volumes that do not agree on %s are told so, and nothing of the group moves until they do",
  async (_, edit, part) => {
    const world = groupWorld();
    world.apply(SnapshotSchedules, "daily", { spec: { interval: "24h", retention: { age: "48h" } } });
    location(world, "oslo");
    await world.runUntil(2.5 * hour);
    const before = snapshots(world);
    edit(world);
    await world.runUntil(6.5 * hour);
    expect(snapshots(world)).toBe(before);
    expect([bases(world), jobs(world)]).toEqual(["", []]);
    expect(condition(world, VolumeMigrations, "pv-a")).toBe("False GroupConflict");
    for (const name of ["pv-a", "pv-b"]) {
      const found = conditionIn(world, VolumeMigrations, name, "GroupConflict");
      expect([found?.status, found?.message]).toEqual(["True", expect.stringContaining(part)]);
    }
    expect(events(world, "PersistentVolumeClaim shop/c-a")).toContain("MigrationGroupConflict");
    const blocked = world.server.get(VolumeMigrations, { name: "pv-a" })?.status?.locations?.[0]?.blocked;
    expect(blocked).toContain(part);
  },
);

test("however long the names of what does not agree, the status has room for it", async () => {
  const world = groupWorld(["a"]);
  for (let index = 0; index < 9; index++) {
    const name = `${"long".repeat(60)}-${index}`;
    void world.agent.putVolume(`v-${index}`, { sizeBytes: 2 ** 20 });
    const metadata = { namespace: "shop", labels: { "longshore.dev/group": "db" } };
    world.apply(PersistentVolumeClaims, name, { spec: { volumeName: `pv-${index}` } }, metadata);
    world.apply(PersistentVolumes, `pv-${index}`, {
      spec: {
        storageClassName: "fast",
        claimRef: { namespace: "shop", name },
        csi: { driver: "csi.longshore.dev", volumeHandle: `v-${index}` },
      },
    });
  }
  await world.runUntil(2.5 * hour);
  for (let index = 0; index < 9; index++)
    world.annotate(PersistentVolumes, `pv-${index}`, { migrationLocations: "oslo" });
  await world.runUntil(5 * hour);
  const { status } = world.server.get(VolumeMigrations, { name: "pv-a" }) ?? {};
  expect(status?.locations?.[0]?.blocked).toHaveLength(1024);
  expect(conditionIn(world, VolumeMigrations, "pv-a")?.message).toContain("and 1 more");
});

test("a group whose volumes agree again goes on with what it had", async () => {
  const world = groupWorld();
  await world.runUntil(2.5 * hour);
  world.annotate(PersistentVolumes, "pv-b", { migrationEnable: "false" });
  await world.runUntil(6.5 * hour);
  world.annotate(PersistentVolumes, "pv-b", { migrationEnable: null });
  await world.runUntil(6.6 * hour);
  expect(conditionIn(world, VolumeMigrations, "pv-a", "GroupConflict")).toBeUndefined();
  expect(condition(world, VolumeMigrations, "pv-a")).toBe("True Ok");
  // The newest that had expired is brought over; one run is made up for.
  expect(bases(world)).toBe("a@2 b@2");
  expect(snapshots(world)).toBe("a: 2g 6g, b: 2g 6g, c: ");
});

test("a claim that has no volume yet does not hold up its group", async () => {
  const world = groupWorld();
  const metadata = { namespace: "shop", labels: { "longshore.dev/group": "db" } };
  world.apply(PersistentVolumeClaims, "c-pending", { spec: {} }, metadata);
  await world.runUntil(3 * hour);
  expect(bases(world)).toBe("a@1 b@1");
});

test("claims of the same label in other namespaces are other groups", async () => {
  const world = groupWorld();
  const metadata = { namespace: "bank", labels: { "longshore.dev/group": "db" } };
  world.apply(PersistentVolumeClaims, "c-c", { spec: { volumeName: "pv-c" } }, metadata);
  world.apply(PersistentVolumes, "pv-c", {
    spec: {
      storageClassName: "fast",
      claimRef: { namespace: "bank", name: "c-c" },
      csi: { driver: "csi.longshore.dev", volumeHandle: "c" },
    },
  });
  await world.runUntil(3 * hour);
  expect(jobs(world).slice().sort()).toEqual(["db(pv-a,pv-b) 1 Succeeded", "db(pv-c) 1 Succeeded"]);
});

test("a snapshot that the group does not get is told to each of its claims, tried again, and then taken", async () => {
  const world = groupWorld();
  world.agent.groupRefusal = new LongshoreError("GroupInvalid", "volume b was thawed too early");
  await world.runUntil(1.1 * hour);
  for (const name of ["a", "b"]) {
    expect(condition(world, VolumeMigrations, `pv-${name}`, "Snapshotted")).toBe("False SnapshotFailed");
    expect(conditionIn(world, VolumeMigrations, `pv-${name}`)?.message).toContain("thawed too early");
    expect(events(world, `PersistentVolumeClaim shop/c-${name}`)).toContain("SnapshotFailed");
  }
  world.agent.groupRefusal = undefined;
  await world.runUntil(1.2 * hour);
  expect(snapshots(world)).toBe("a: 1g, b: 1g, c: ");
  for (const name of ["pv-a", "pv-b"]) {
    expect(condition(world, VolumeMigrations, name, "Snapshotted")).toBe("True Ok");
    expect(condition(world, VolumeMigrations, name)).toBe("True Ok");
  }
});

test("a snapshot of which only a part was confirmed is asked for again, of all, until all of it is", async () => {
  const world = groupWorld();
  const second = world.agents[1];
  // The answer is lost, and so is what the second agent was to be told.
  const crash = new CrashPoint({ effect: effectOf(await effectsOf(hour), "putGroupSnapshot"), mode: "after" });
  await world.run(hour, crash);
  second?.unconfirmSnapshot("b", "auto-20260101t010000.000z");
  await world.run(minute);
  expect(second?.volumes.get("b")?.snapshots.map(({ state }) => state)).toEqual(["sealed"]);
  expect(snapshots(world)).toBe("a: 1g, b: 1g, c: ");
});

async function effectsOf(untilMs: number): Promise<readonly string[]> {
  const crash = new CrashPoint();
  await groupWorld().run(untilMs, crash);
  return crash.effects;
}

function effectOf(effects: readonly string[], part: string): number {
  return effects.findIndex((effect) => effect.includes(part)) + 1;
}

test("a volume that no agent holds keeps its group from being halved, and is named", async () => {
  const world = groupWorld();
  await world.runUntil(1.5 * hour);
  world.agents[1]?.volumes.delete("b");
  await world.runUntil(5.5 * hour);
  expect(snapshots(world)).toBe("a: 1g, c: ");
  expect(condition(world, VolumeMigrations, "pv-a")).toBe("False GroupIncomplete");
  expect(conditionIn(world, VolumeMigrations, "pv-a")?.message).toContain("c-b");
  expect(condition(world, VolumeMigrations, "pv-b")).toBe("False VolumeMissing");
});

test("a new volume of a group whose agent's news has not come yet is no warning to the others, until it stays away", async () => {
  const world = groupWorld();
  await world.runUntil(1.5 * hour);
  addVolume(world, "d");
  await world.run(9_000);
  expect(condition(world, VolumeMigrations, "pv-a")).toBe("False GroupIncomplete");
  expect(events(world, "PersistentVolumeClaim shop/c-a")).not.toContain("VolumeMissing");
  await world.run(minute);
  expect(events(world, "PersistentVolumeClaim shop/c-a")).toContain("VolumeMissing");
});

test("a point whose part was lost is skipped; the next one takes over", async () => {
  const world = groupWorld();
  await world.runUntil(2.5 * hour);
  world.agents[1]?.loseSnapshot("b", "auto-20260101t010000.000z");
  await world.runUntil(4.5 * hour);
  expect(bases(world)).toBe("a@2 b@2");
  expect(jobs(world)).toEqual(["db(pv-a,pv-b) 2 Succeeded"]);
});

test("a user's job of a group snapshots all of it now, migrates it at once, and says which volumes", async () => {
  const world = groupWorld();
  await world.runUntil(minute);
  world.apply(MigrationJobs, "now", { spec: { group: { namespace: "shop", name: "db" }, location: "berlin" } });
  await world.run();
  const job = world.server.get(MigrationJobs, { name: "now" });
  expect(job?.status).toMatchObject({ phase: "Succeeded", volumes: ["pv-a", "pv-b"] });
  expect(job?.status?.to?.groupPoint).toBe(volumeAt(world, "a")?.snapshots[0]?.groupPoint);
  expect(bases(world)).toBe("a@d b@d");
});

test("a job whose snapshot is seen while it is still being made goes on when it is sealed", async () => {
  const world = groupWorld();
  claim(world, "a");
  await world.runUntil(minute);
  const { agent } = world;
  const put = agent.putSnapshot.bind(agent);
  agent.putSnapshot = async (volume, name) => {
    const taken = await put(volume, name);
    agent.putSnapshot = put;
    agent.unconfirmSnapshot(volume, name);
    return taken;
  };
  world.apply(MigrationJobs, "now", { spec: { volumeName: "pv-a", location: "berlin" } });
  await world.run();
  const row = agent.volumes.get("a");
  Object.assign(row ?? {}, { snapshots: row?.snapshots.map((one) => ({ ...one, state: "sealed" })) });
  // What the volume's status shows does not change by this, so the job has to be told by itself.
  const concern = { controller: "migration-job", key: { name: "now" } };
  expect(routeNews(world.cluster)({ kind: "volume", name: "a" })).toContainEqual(concern);
  await world.run(1_000);
  expect(world.server.get(MigrationJobs, { name: "now" })?.status?.phase).toBe("Succeeded");
});

test("a dry run of a group plans for each of its volumes, tells of all together, and leaves nothing behind", async () => {
  const world = groupWorld();
  const asked: string[] = [];
  world.onJob = (name) => {
    const { volume } = world.holderOf(name)?.jobs.get(name)?.spec ?? {};
    asked.push(String(volume));
    const kind = volume === "a" ? "Delta" : "Full";
    world.holderOf(name)?.succeedJob(name, { bytesTotal: 100, unitsTotal: 1, mode: { kind, reason: "Why" } });
  };
  const group = { namespace: "shop", name: "db" };
  world.apply(MigrationJobs, "plan", { spec: { group, location: "berlin", dryRun: true } });
  await world.run();
  expect(condition(world, MigrationJobs, "plan", "Complete")).toBe("True Planned");
  expect(asked.sort()).toEqual(["a", "b"]);
  const { status } = world.server.get(MigrationJobs, { name: "plan" }) ?? {};
  expect(status).toMatchObject({ bytesChanged: 200, unitsTotal: 2, mode: "Full", volumes: ["pv-a", "pv-b"] });
  expect([bases(world), snapshots(world)]).toEqual(["", "a: , b: , c: "]);
  world.server.delete(MigrationJobs, { name: "plan" });
  await world.run();
  expect(world.agents.map(({ jobs: kept }) => kept.size)).toEqual([0, 0]);
});

test("a dry run of a group of which one volume cannot be planned for fails with that reason", async () => {
  const world = groupWorld();
  world.onJob = (name) => {
    const agent = world.holderOf(name);
    if (agent === world.agents[0]) agent?.succeedJob(name);
    else agent?.failJob(name, new LongshoreError("QuotaExceeded", "no room for b"));
  };
  world.apply(MigrationJobs, "plan", {
    spec: { group: { namespace: "shop", name: "db" }, location: "berlin", dryRun: true },
  });
  await world.run();
  expect(world.server.get(MigrationJobs, { name: "plan" })?.status).toMatchObject({
    phase: "Failed",
    message: expect.stringContaining("no room for b"),
  });
});

test("a user's job brings over a snapshot of the group that exists", async () => {
  const world = groupWorld();
  await world.runUntil(1.5 * hour);
  const toSnapshot = "auto-20260101t010000.000z";
  world.apply(MigrationJobs, "old", {
    spec: { group: { namespace: "shop", name: "db" }, location: "berlin", toSnapshot },
  });
  await world.run();
  expect(bases(world)).toBe("a@1 b@1");
});

test.each([
  [
    { group: { namespace: "shop", name: "none" }, location: "berlin" },
    "Pending",
    "No migrated volume belongs to group shop/none",
  ],
  [{ group: { namespace: "shop", name: "db" }, location: "oslo" }, "Pending", "does not name location oslo"],
  [
    { group: { namespace: "shop", name: "db" }, location: "berlin", toSnapshot: "auto-gone" },
    "Failed",
    "has snapshot auto-gone",
  ],
  [{ volumeName: "pv-a", location: "berlin" }, "Failed", "belongs to group shop/db"],
])("a job %j is %s and says why", async (spec, phase, part) => {
  const world = groupWorld();
  world.apply(MigrationJobs, "one", { spec });
  await world.run();
  expect(world.server.get(MigrationJobs, { name: "one" })?.status).toMatchObject({
    phase,
    message: expect.stringContaining(part),
  });
});

test("a single volume of a group may still be planned for", async () => {
  const world = groupWorld();
  world.apply(MigrationJobs, "one", { spec: { volumeName: "pv-a", location: "berlin", dryRun: true } });
  await world.run();
  expect(condition(world, MigrationJobs, "one", "Complete")).toBe("True Planned");
});

test("a job of a group that is cancelled ends at every agent", async () => {
  const world = groupWorld();
  world.onJob = () => undefined;
  await world.runUntil(3.1 * hour);
  const [job] = world.server.list(MigrationJobs);
  world.server.edit(MigrationJobs, { name: job?.metadata.name ?? "" }, { spec: { cancel: true } });
  await world.run();
  expect(jobs(world)).toEqual(["db(pv-a,pv-b) 1 Cancelled"]);
  expect(world.agents.flatMap((agent) => [...agent.jobs.values()].map(({ state }) => state))).toEqual([
    "Cancelled",
    "Cancelled",
  ]);
});

test.each([
  ["that its user has suspended ends", { suspend: true }, {}, "Cancelled", "True VolumeMissing"],
  ["that goes on is waited for", {}, {}, "Pending", "False Pending"],
  ["that a pause has suspended is waited for", {}, { bandwidth: { limit: "0" } }, "Suspended", "False Suspended"],
])("a job %s when one of its volumes is to be deleted", async (_, spec, pause, phase, failed) => {
  const world = groupWorld();
  await world.runUntil(3.1 * hour);
  const [arrived, succeed] = [bases(world), world.onJob];
  world.onJob = () => undefined;
  await world.runUntil(4.1 * hour);
  const name = world.server.list(MigrationJobs).at(-1)?.metadata.name ?? "";
  world.server.edit(MigrationJobs, { name }, { spec });
  location(world, "berlin", pause);
  await world.run(minute);
  releaseClaim(world, "a");
  await world.run(minute);
  expect(jobs(world)).toEqual(["db(pv-a,pv-b) 1 Succeeded", `db(pv-a,pv-b) 2 ${phase}`]);
  expect(condition(world, MigrationJobs, name, "Failed")).toBe(failed);
  expect(bases(world)).toBe(arrived);
  if (phase !== "Cancelled") {
    await expect(world.agent.removeVolume("a")).rejects.toThrow("in use by job");
    return;
  }
  expect(condition(world, VolumeMigrations, "pv-b")).toBe("True Ok");
  await world.agent.removeVolume("a");
  world.server.delete(PersistentVolumes, { name: "pv-a" });
  // The other volume goes on alone, from where it was.
  world.onJob = succeed;
  await world.runUntil(5.1 * hour);
  expect(jobs(world).at(-1)).toBe("db(pv-b) 3 Succeeded");
});

test("ended jobs of a group are pruned by the history limits, at every agent as well", async () => {
  const world = groupWorld();
  const spec = { interval: "1h", retention: { age: "2h" }, successfulJobsHistoryLimit: 2 };
  world.apply(SnapshotSchedules, "hourly", { spec });
  await world.runUntil(8.5 * hour);
  expect(jobs(world).map((text) => text.split(" ")[1])).toEqual(expect.arrayContaining(["5", "6"]));
  expect(jobs(world)).toHaveLength(2);
  expect(world.agents.map(({ jobs: kept }) => kept.size)).toEqual([2, 2]);
});

function participant(index: number, fields: Partial<ParticipantView> = {}): ParticipantView {
  return {
    agentId: `agent-${index}`,
    node: `node-${index}`,
    role: "source",
    state: "running",
    volumes: ["a"],
    barrier: "Joined",
    unitsDone: 0,
    epoch: 3,
    lastError: null,
    lastHeardAt: null,
    ...fields,
  };
}

test("the state of the machine is shown, bounded: who decides, who is in trouble, and how many more", async () => {
  const world = groupWorld();
  world.onJob = (name) => {
    const many = Array.from({ length: 40 }, (_, index) => participant(index));
    const failing = participant(40, { state: "failed", lastError: "x".repeat(500) });
    const decider = participant(41, { role: "decider", node: null });
    const participants = [...many, failing, decider];
    world.holderOf(name)?.progressJob(name, { barrier: "Frozen", epoch: 3, participants });
  };
  await world.runUntil(3.1 * hour);
  const { participants = [], ...status } = world.server.list(MigrationJobs)[0]?.status ?? {};
  expect(status).toMatchObject({ phase: "Running", barrier: "Frozen", epoch: 3, participantsOmitted: 10 });
  expect(participants).toHaveLength(32);
  expect(participants[0]).toEqual({
    agentId: "agent-41",
    role: "decider",
    state: "running",
    barrier: "Joined",
    epoch: 3,
    volumes: 1,
  });
  expect([participants[1]?.agentId, participants[1]?.lastError?.length]).toEqual(["agent-40", 256]);
});

test("what participants are at is written at most every 30 seconds", async () => {
  const world = groupWorld();
  world.onJob = (name) => world.holderOf(name)?.progressJob(name, { participants: [participant(1)] });
  await world.runUntil(3.1 * hour);
  const name = [...world.agent.jobs.keys()][0] ?? "";
  const versions = new Set<string | undefined>();
  for (let second = 0; second < 90; second++) {
    world.agent.progressJob(name, { participants: [participant(1, { lastError: `failed ${second} times` })] });
    await world.run(1_000);
    versions.add(world.server.list(MigrationJobs)[0]?.metadata.resourceVersion);
  }
  expect(versions.size).toBeLessThanOrEqual(4);
  expect(world.server.list(MigrationJobs)[0]?.status?.participants?.[0]?.lastError).toMatch(/^failed [6-8]\d times$/);
});

test("a job that becomes undecided says since when and why, to each claim, and says so when it is decided", async () => {
  const world = groupWorld();
  const error = {
    type: "t",
    title: "t",
    status: 503,
    detail: "agent-9 does not answer",
    code: "Unreachable",
    advice: "Look.",
  };
  world.onJob = (name) => world.holderOf(name)?.progressJob(name, { state: "Undecided", barrier: "Stored", error });
  await world.runUntil(3.1 * hour);
  const name = world.server.list(MigrationJobs)[0]?.metadata.name ?? "";
  expect(conditionIn(world, MigrationJobs, name, "Undecided")).toMatchObject({
    status: "True",
    reason: "Unreachable",
    message: "agent-9 does not answer. Look.",
    lastTransitionTime: "2026-01-01T03:00:00Z",
  });
  expect(events(world, "PersistentVolumeClaim shop/c-a")).toContain("MigrationUndecided");
  expect(events(world, "PersistentVolumeClaim shop/c-b")).toContain("MigrationUndecided");
  world.agent.succeedJob([...world.agent.jobs.keys()][0] ?? "");
  await world.run();
  expect(condition(world, MigrationJobs, name, "Undecided")).toBe("False Succeeded");
  expect(events(world, "PersistentVolumeClaim shop/c-b")).toEqual(
    expect.arrayContaining(["MigrationDecided", "MigrationSucceeded"]),
  );
});

test("the view of the agent that coordinates is the one that is shown", async () => {
  const world = groupWorld();
  world.onJob = () => undefined;
  await world.runUntil(3.1 * hour);
  const name = [...world.agent.jobs.keys()][0] ?? "";
  const [first, second] = world.agents;
  const coordinator = participant(2, { agentId: second?.view.agentId ?? "", role: "coordinator" });
  first?.progressJob(name, { barrier: "Joined", epoch: 3, participants: [coordinator] });
  second?.progressJob(name, { barrier: "Stored", epoch: 3, participants: [coordinator] });
  await world.run();
  expect(world.server.list(MigrationJobs)[0]?.status?.barrier).toBe("Stored");
});

test("an agent that is away holds up the volumes it has, and the groups of which it has a part, and no others", async () => {
  const world = groupWorld();
  addVolume(world, "c", { label: "" });
  await world.runUntil(1.5 * hour);
  const second = world.agents[1];
  world.agentProblems.set(second?.view.agentId ?? "", "connection refused");
  world.agent.groupRefusal = new LongshoreError("Unreachable", "agent 2 does not answer");
  await world.runUntil(4.5 * hour);
  expect(snapshots(world)).toBe("a: 1g, b: 1g, c: 2 3 4");
  expect(bases(world)).toBe("c@2?");
  expect(condition(world, VolumeMigrations, "pv-b")).toBe("False AgentUnreachable");
  expect(condition(world, VolumeMigrations, "pv-c")).toBe("True Ok");
  const blocked = world.server.get(VolumeMigrations, { name: "pv-b" })?.status?.locations?.[0]?.blocked;
  expect(blocked).toContain("connection refused");
});

test("volumes whose agent lost its data say so, and what to do next", async () => {
  const world = groupWorld();
  await world.runUntil(1.5 * hour);
  const second = world.agents[1]?.view.agentId ?? "";
  world.agent.view.members = world.agent.view.members.map((one) =>
    one.agentId === second ? { ...one, state: "lost" } : one,
  );
  await world.run();
  expect(condition(world, VolumeMigrations, "pv-b", "HomeLost")).toBe("True HomeLost");
  expect(conditionIn(world, VolumeMigrations, "pv-b")?.message).toContain(`longshore node forget ${second}`);
  expect(events(world, "PersistentVolumeClaim shop/c-b")).toContain("VolumeHomeLost");
  expect(condition(world, VolumeMigrations, "pv-a", "HomeLost")).toBe("none");
});

test("a location shows how the agents over there see each other", async () => {
  const world = groupWorld();
  const states = ["alive", "unreachable", "lost"] as const;
  const members = states.map((state, index) => ({
    agentId: `agent-${index}`,
    node: `node-${index}`,
    address: `10.0.0.${index}:7420`,
    laneAddress: `10.0.0.${index}:7421`,
    state,
  }));
  for (const agent of world.agents) agent.probeFinds("berlin", { state: "reachable", message: "", members });
  await world.run();
  const shown = world.server.get(MigrationLocations, { name: "berlin" })?.status?.members;
  expect(shown?.map(({ id, state }) => `${id} ${state}`)).toEqual([
    "agent-0 alive",
    "agent-1 unreachable",
    "agent-2 lost",
  ]);
});

function summary(world: OperatorWorld): unknown {
  return {
    snapshots: snapshots(world),
    bases: bases(world),
    holds: volumesOf(world).map(({ name, snapshots: all }) => [
      name,
      all.map(({ holds }) => holds.map(({ reason, owner }) => `${reason}/${owner}`)),
    ]),
    jobs: jobs(world).slice().sort(),
    agentJobs: world.agents.map((agent) => [...agent.jobs.values()].map(({ state }) => state)),
    ready: ["pv-a", "pv-b"].map((name) => condition(world, VolumeMigrations, name)),
    points: volumesOf(world).map(({ snapshots: all }) => all.map(({ groupPoint }) => groupPoint !== undefined)),
    last: ["pv-a", "pv-b"].map((name) => world.server.get(VolumeMigrations, { name })?.status?.lastScheduleTime),
  };
}

/** A user's job, a volume that joins, runs, expiry and jobs. */
async function story(crash?: CrashPoint): Promise<OperatorWorld> {
  const world = groupWorld(["a"]);
  const group = { namespace: "shop", name: "db" };
  world.apply(MigrationJobs, "now", { spec: { group, location: "berlin" } });
  await world.runUntil(0.5 * hour, crash);
  addVolume(world, "b");
  world.apply(MigrationJobs, "plan", { spec: { group, location: "berlin", dryRun: true } });
  await world.runUntil(3.5 * hour, crash?.isDead === false ? crash : undefined);
  return world;
}

test.each(["before", "after", "lostReply"] as const)(
  "killed %s any effect, and started again, a group comes to the same end",
  async (mode) => {
    const expected = summary(await story());
    for (let effect = 1; ; effect++) {
      const crash = new CrashPoint({ effect, mode });
      const world = await story(crash);
      if (!crash.wasReached) break;
      expect([effect, crash.effects[effect - 1], summary(world)]).toEqual([
        effect,
        crash.effects[effect - 1],
        expected,
      ]);
      expect(effect).toBeLessThan(500);
    }
  },
  600_000,
);
