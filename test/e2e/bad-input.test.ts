// What users get wrong on the source side: each is told on the object and on the claim with what to do about it, nothing runs
// meanwhile, and it heals when corrected. Each test has names of its own; all share one pair of sites.
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import { missing, needs } from "../needs.ts";
import { conditionOf, type Seen } from "./kube-client.ts";
import { eventually } from "./process.ts";
import {
  bindVolume,
  goesOn,
  isMigrated,
  isToldOf,
  location,
  makeVolume,
  off,
  openTwoSites,
  refs,
  schedule,
  source,
  storageClass,
  type Trouble,
  type TwoSites,
  volumeBytes,
} from "./two-sites.ts";

const test = needs("controlplane");
const slowMs = 600_000;
const patience = { timeoutMs: 90_000, intervalMs: 150 };

let sites: TwoSites;

beforeAll(async () => {
  if (missing("controlplane") !== undefined) return;
  sites = await openTwoSites();
  const { mainland, harbor } = sites;
  await harbor.kube.apply(source("mainland", mainland.storage));
  await mainland.kube.apply(location("harbor", harbor.storage), schedule("often"));
  await mainland.kube.condition({ kind: "MigrationLocation", name: "harbor" }, "Ready", "True");
}, slowMs);

afterAll(async () => {
  await sites?.stop();
}, slowMs);

const runs = (name: string) => isMigrated(sites.mainland, name);
const someRuns = (count?: number) => goesOn(sites.mainland, "bystander", count);
const isTold = (name: string, what: Trouble) => isToldOf(sites.mainland, name, what);

async function snapshotsOf(volume: string): Promise<readonly string[]> {
  const { snapshots } = await sites.mainland.storage.api.getVolume(volume);
  return snapshots.map(({ name }) => name);
}

beforeAll(async () => {
  if (sites === undefined) return;
  const { mainland } = sites;
  await mainland.kube.apply(storageClass("fine", { migrationLocations: "harbor", schedulePolicy: "often" }));
  await makeVolume(mainland, { name: "bystander", storageClass: "fine" });
}, slowMs);

describe("a StorageClass", () => {
  test(
    "that names an unknown location is told so; nothing runs until the location appears",
    async () => {
      const { mainland, harbor } = sites;
      await mainland.kube.apply(storageClass("elsewhere", { migrationLocations: "nowhere", schedulePolicy: "often" }));
      await makeVolume(mainland, { name: "lost", storageClass: "elsewhere" });
      const part = /MigrationLocation nowhere does not exist.*until it is created/;
      await isTold("lost", { reason: "LocationMissing", event: "MigrationLocationMissing", part });
      await someRuns();
      expect(await snapshotsOf("lost")).toEqual([]);
      await mainland.kube.apply(location("nowhere", harbor.storage));
      await runs("lost");
      await mainland.kube.apply(
        storageClass("elsewhere", { migrationLocations: "nowhere", schedulePolicy: "often" }, off),
      );
    },
    slowMs,
  );

  test(
    "that names an unknown schedule is told so; nothing runs until the schedule appears",
    async () => {
      const { mainland } = sites;
      await mainland.kube.apply(storageClass("whenever", { migrationLocations: "harbor", schedulePolicy: "never" }));
      await makeVolume(mainland, { name: "idle", storageClass: "whenever" });
      const part = /SnapshotSchedule never does not exist.*until it is created/;
      await isTold("idle", { reason: "ScheduleMissing", event: "SnapshotScheduleMissing", part });
      await someRuns();
      expect(await snapshotsOf("idle")).toEqual([]);
      await mainland.kube.apply(schedule("never"));
      await runs("idle");
      await mainland.kube.apply(
        storageClass("whenever", { migrationLocations: "harbor", schedulePolicy: "never" }, off),
      );
    },
    slowMs,
  );

  test(
    "with settings that make no sense is told so, and corrected by an annotation, for parameters are immutable",
    async () => {
      const { mainland } = sites;
      const parameters = { migrationEnable: "yes", migrationLocations: "harbor", schedulePolicy: "often" };
      await mainland.kube.apply(storageClass("confused", parameters));
      await makeVolume(mainland, { name: "puzzle", storageClass: "confused" });
      const { claim, migration, volume } = refs("puzzle");
      const part = /parameter of StorageClass confused: "yes" is neither "true" nor "false"/;
      expect(await mainland.kube.condition(migration, "Ready", "False", "InvalidPolicy")).toMatch(part);
      expect(await mainland.kube.condition(migration, "PolicyValid", "False")).toMatch(part);
      for (const ref of [claim, volume]) await mainland.kube.told(ref, "MigrationPolicyInvalid", part);
      await someRuns();
      expect(await snapshotsOf("puzzle")).toEqual([]);
      await mainland.kube.apply(storageClass("confused", parameters, { "longshore.dev/migrationEnable": "true" }));
      await runs("puzzle");
      await mainland.kube.apply(storageClass("confused", parameters, off));
    },
    slowMs,
  );

  test(
    "deleted while in use changes nothing for its volumes, which say so; made anew, it is adopted",
    async () => {
      const { mainland } = sites;
      const { kube } = mainland;
      const parameters = { migrationLocations: "harbor", schedulePolicy: "often" };
      await kube.apply(storageClass("passing", parameters));
      await makeVolume(mainland, { name: "heir", storageClass: "passing" });
      const { claim, migration } = refs("heir");
      const generation = (object: Seen) => object.status.locations[0].base?.generation ?? 0;
      await runs("heir");
      await kube.remove({ kind: "StorageClass", name: "passing" });
      expect(await kube.condition(migration, "ClassMissing", "True")).toMatch(/StorageClass passing does not exist/);
      await kube.told(claim, "StorageClassMissing", "StorageClass passing does not exist any more");
      const atLoss = generation(await runs("heir"));
      const later = await kube.until(migration, "more migrations", (object) => generation(object) >= atLoss + 2);
      expect(conditionOf(later, "Ready")?.status).toBe("True");
      await kube.apply(storageClass("passing", parameters, off));
      const isAdopted = (object: Seen) =>
        conditionOf(object, "ClassMissing") === undefined && object.spec.policy.enabled === false;
      await kube.until(migration, "adoption", isAdopted);
    },
    slowMs,
  );
});

describe("a SnapshotSchedule", () => {
  const wrong = [
    {
      what: "an hour that no day has",
      name: "bad-cron",
      spec: { schedule: "0 25 * * *" },
      reason: "InvalidSchedule",
      part: /25/,
    },
    {
      what: "a time zone that does not exist",
      name: "bad-zone",
      spec: { schedule: "* * * * *", timeZone: "Europe/Atlantis" },
      reason: "InvalidTimeZone",
      part: /Europe\/Atlantis/,
    },
  ];
  for (const { what, name, spec, reason, part } of wrong) {
    test(
      `with ${what} is told so, as are its volumes; corrected, it runs`,
      async () => {
        const { mainland } = sites;
        const { kube } = mainland;
        const ref = { kind: "SnapshotSchedule", name } as const;
        const parameters = { migrationLocations: "harbor", schedulePolicy: name };
        await kube.apply(schedule(name, { ...spec, retention: { age: "2h" } }), storageClass(name, parameters));
        await makeVolume(mainland, { name: `by-${name}`, storageClass: name });
        expect(await kube.condition(ref, "Ready", "False", reason)).toMatch(part);
        await kube.told(ref, "SnapshotScheduleInvalid", part);
        await isTold(`by-${name}`, { reason: "ScheduleInvalid", event: "SnapshotScheduleInvalid", part });
        await someRuns();
        expect(await snapshotsOf(`by-${name}`)).toEqual([]);
        await kube.apply(schedule(name));
        await kube.condition(ref, "Ready", "True");
        await runs(`by-${name}`);
        await kube.apply(storageClass(name, parameters, off));
      },
      slowMs,
    );
  }

  test("whose retention is shorter than its interval is refused, with what to do instead", async () => {
    const applied = sites.mainland.kube.apply(schedule("hasty", { interval: "24h", retention: { age: "24m" } }));
    await expect(applied).rejects.toThrow(
      /retention.age must be at least interval.*raise it, or use migrateOn Creation/,
    );
    expect(await sites.mainland.kube.get({ kind: "SnapshotSchedule", name: "hasty" })).toBeUndefined();
  });

  test(
    "whose retention is shorter than the gaps of its cron expression runs, and warns",
    async () => {
      const { kube } = sites.mainland;
      const ref = { kind: "SnapshotSchedule", name: "gappy" } as const;
      await kube.apply(schedule("gappy", { schedule: "0 * * * *", retention: { age: "10m" } }));
      const part = /retention.age 10m is shorter than the time between runs.*Raise it/;
      expect(await kube.condition(ref, "RetentionCoversGaps", "False", "RetentionTooShort")).toMatch(part);
      await kube.told(ref, "RetentionTooShort", part);
      await kube.condition(ref, "Ready", "True");
      await kube.apply(schedule("gappy", { schedule: "0 * * * *", retention: { age: "1h" } }));
      await kube.condition(ref, "RetentionCoversGaps", "True");
    },
    slowMs,
  );

  test(
    "deleted while in use stops snapshots and migrations of its volumes, which say so, until it is made anew",
    async () => {
      const { mainland } = sites;
      const { kube, storage } = mainland;
      const parameters = { migrationLocations: "harbor", schedulePolicy: "fleeting" };
      await kube.apply(schedule("fleeting"), storageClass("fleeting", parameters));
      await makeVolume(mainland, { name: "stopped", storageClass: "fleeting" });
      await runs("stopped");
      await kube.remove({ kind: "SnapshotSchedule", name: "fleeting" });
      const part = /SnapshotSchedule fleeting does not exist/;
      await isTold("stopped", { reason: "ScheduleMissing", event: "SnapshotScheduleMissing", part });
      const { generation } = await storage.api.getVolume("stopped");
      await someRuns(3);
      const after = await storage.api.getVolume("stopped");
      expect(after.generation).toBe(generation);
      expect(after.bases.map((base) => base.location)).toEqual(["harbor"]);
      await kube.apply(schedule("fleeting"));
      await kube.until(refs("stopped").migration, "new snapshots", ({ status }) =>
        status.locations.some(({ base }: { base: { generation: number } }) => base.generation > generation),
      );
      await kube.apply(storageClass("fleeting", parameters, off));
    },
    slowMs,
  );
});

describe("a volume", () => {
  test(
    "whose handle no agent knows is told so, and runs once an agent has it",
    async () => {
      const { mainland } = sites;
      await bindVolume(mainland, { name: "absent", storageClass: "fine" });
      const part = /No agent of this cluster holds volume absent; check the PersistentVolume's volumeHandle/;
      await isTold("absent", { reason: "VolumeMissing", event: "VolumeMissing", part });
      await mainland.storage.api.putVolume("absent", { sizeBytes: volumeBytes });
      await runs("absent");
      await mainland.kube.patch(refs("absent").volume, { metadata: { annotations: off } });
      await mainland.kube.condition(refs("absent").migration, "Ready", "False", "Disabled");
    },
    slowMs,
  );

  test(
    "whose claim opts out without being allowed goes on, and the claim is told; allowed, it stops",
    async () => {
      const { mainland } = sites;
      const { kube } = mainland;
      const parameters = { migrationLocations: "harbor", schedulePolicy: "often" };
      await kube.apply(storageClass("strict", parameters));
      await makeVolume(mainland, { name: "rebel", storageClass: "strict", claimAnnotations: off });
      const { claim, migration } = refs("rebel");
      const part = /PersistentVolumeClaim library\/rebel: the class does not let claims opt out \(allowOptOut\)/;
      await runs("rebel");
      expect(await kube.condition(migration, "PolicyValid", "True", "PolicyRefused")).toMatch(part);
      await kube.told(claim, "MigrationPolicyRefused", part);
      await kube.apply(storageClass("strict", parameters, { "longshore.dev/allowOptOut": "true" }));
      await kube.condition(migration, "Ready", "False", "Disabled");
      const { generation } = await mainland.storage.api.getVolume("rebel");
      await someRuns();
      expect((await mainland.storage.api.getVolume("rebel")).generation).toBe(generation);
    },
    slowMs,
  );

  test(
    "whose VolumeMigration is deleted by hand gets another, and goes on from its base",
    async () => {
      const { mainland } = sites;
      const { kube } = mainland;
      const { migration } = refs("bystander");
      const before = await runs("bystander");
      await kube.remove(migration);
      await kube.until(migration, "remade", ({ metadata }) => metadata.uid !== before.metadata.uid);
      await runs("bystander");
      const { generation } = await mainland.storage.api.getVolume("bystander");
      await eventually(
        "a later base",
        async () => {
          const { bases } = await mainland.storage.api.getVolume("bystander");
          return bases.some((base) => base.generation > generation) || undefined;
        },
        patience,
      );
      const jobs = (await kube.list("MigrationJob")).filter(({ spec }) => spec.volumeName === "pv-bystander");
      const modes = jobs.flatMap(({ status }) => status?.mode ?? []);
      expect(new Set(modes)).toEqual(new Set(["Delta"]));
    },
    slowMs,
  );
});
