// The operator as a process: killed, cut off from its API server, and asked by users for single jobs. It has the rights of
// manifests/ and no others. All tests share one pair of sites.
import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, beforeAll, beforeEach, describe, expect } from "@jest/globals";
import { dueOfSnapshot } from "../../src/domain/names.ts";
import { missing, needs } from "../needs.ts";
import type { Seen } from "./kube-client.ts";
import { eventually } from "./process.ts";
import {
  goesOn,
  isMigrated,
  isQuiet,
  location,
  makeVolume,
  mebibyte,
  migrationJob,
  openTwoSites,
  refs,
  schedule,
  source,
  storageClass,
  type TwoSites,
  writeRandomly,
} from "./two-sites.ts";

const test = needs("controlplane");
const slowMs = 600_000;
const patience = { timeoutMs: 90_000, intervalMs: 100 };

let sites: TwoSites;

beforeAll(async () => {
  if (missing("controlplane") !== undefined) return;
  sites = await openTwoSites();
  const { mainland, harbor } = sites;
  await harbor.kube.apply(source("mainland", mainland.storage));
  await mainland.kube.apply(
    location("harbor", harbor.storage),
    schedule("often", history),
    storageClass("migrated", { migrationLocations: "harbor", schedulePolicy: "often" }),
  );
  await makeVolume(mainland, { name: "books", storageClass: "migrated" });
  await isMigrated(mainland, "books");
}, slowMs);

afterAll(async () => {
  await sites?.stop();
}, slowMs);

const history = { successfulJobsHistoryLimit: 2 };

beforeEach(async () => {
  if (sites === undefined) return;
  const { mainland, harbor } = sites;
  await mainland.kube.apply(location("harbor", harbor.storage), schedule("often", history));
  await goesOn(mainland, "books", 1);
}, slowMs);

/** No snapshot is taken any more, and no job is under way. */
async function quiet(): Promise<void> {
  const { mainland } = sites;
  await mainland.kube.apply(schedule("often", { ...history, suspend: true }));
  await isQuiet(mainland, "books");
}

/** So slow that a job of a few MiB is still under way whenever a test looks. */
async function slowDown(): Promise<void> {
  const { mainland, harbor } = sites;
  await mainland.kube.apply(location("harbor", harbor.storage, { bandwidth: { limit: "64Ki" } }));
  await eventually("the limit being in force", async () => {
    const { spec } = await mainland.storage.api.getLocation("harbor");
    return spec.bytesPerSecondMax !== undefined || undefined;
  });
}

function job(name: string) {
  return { kind: "MigrationJob", name } as const;
}

const phaseIs = (phase: string) => (object: Seen) => object.status?.phase === phase;

/** While it was starting: an API server refuses everybody until it has read its own roles. */
const starts: { readonly fromMs: number; readonly toMs: number }[] = [];

async function restartApiServer(whileDown: () => Promise<void>): Promise<void> {
  const fromMs = Date.now();
  await sites.mainland.plane.restartApiServer(whileDown);
  // What was refused at the last moment is logged after it, by a busy operator some seconds.
  starts.push({ fromMs, toMs: Date.now() + 10_000 });
}

function isOfStart(line: string): boolean {
  const atMs = Date.parse((JSON.parse(line) as { time: string }).time);
  return /forbidden/i.test(line) && starts.some(({ fromMs, toMs }) => fromMs <= atMs && atMs <= toMs);
}

/** The due times of all snapshots of the volume ever made, from the agent's log: a due time made twice is in it twice. */
function snapshotsMade(): string[] {
  const lines = readFileSync(sites.mainland.storage.agent().log, "utf8").trimEnd().split("\n");
  // The first words of an agent, before it has a log, are for people.
  const entries = lines.filter((line) => line.startsWith("{"));
  return entries.flatMap((line) => {
    const { msg, volume, snapshot } = JSON.parse(line) as { msg: string; volume?: string; snapshot?: string };
    return msg === "snapshot taken" && volume === "books" && snapshot !== undefined ? [snapshot] : [];
  });
}

describe("an operator killed by SIGKILL", () => {
  test(
    "in the middle of a job finds it, when it is started again, and brings it to its end",
    async () => {
      const { mainland } = sites;
      await quiet();
      await writeRandomly(mainland.storage, "books", 0, 4 * mebibyte);
      await slowDown();
      await mainland.kube.apply(migrationJob("orphan", { volumeName: "pv-books", location: "harbor" }));
      await mainland.kube.until(job("orphan"), "running", phaseIs("Running"));
      await mainland.operator().signal("SIGKILL");
      const { items } = await mainland.storage.api.listJobs();
      expect(items.filter(({ finishedAt }) => finishedAt === null)).toHaveLength(1);
      await mainland.startOperator();
      await mainland.kube.apply(location("harbor", sites.harbor.storage));
      const ended = await mainland.kube.until(job("orphan"), "success", phaseIs("Succeeded"));
      // Attempts that failed: neither the operator's end nor the new bandwidth broke it off.
      expect(ended.status).toMatchObject({ mode: "Delta", attempts: 0 });
      const ours = (await mainland.storage.api.listJobs()).items.filter(({ name }) => name.startsWith("orphan."));
      expect(ours).toHaveLength(1);
    },
    slowMs,
  );

  test(
    "again and again, at any moment, makes no snapshot twice, and everything goes on",
    async () => {
      const { mainland } = sites;
      const { generation } = await mainland.storage.api.getVolume("books");
      for (let kills = 0; kills < 6; kills++) {
        // Another moment of the second each time: before, within and after the work that a due time brings.
        await sleep(150 * kills);
        await mainland.operator().signal("SIGKILL");
        await mainland.startOperator();
        await goesOn(mainland, "books", 1);
      }
      await isMigrated(mainland, "books");
      const volume = await mainland.storage.api.getVolume("books");
      const dues = volume.snapshots.flatMap(({ name }) => dueOfSnapshot(name) ?? []);
      expect(dues).toEqual([...new Set(dues)].sort((left, right) => left - right));
      expect(volume.generation).toBeGreaterThan(generation);
      const made = snapshotsMade();
      expect(made.length).toBeGreaterThan(0);
      expect(made).toEqual([...new Set(made)]);
    },
    slowMs,
  );
});

describe("an API server that is restarted", () => {
  test(
    "while the operator runs is watched again, and what happened meanwhile is caught up with",
    async () => {
      const { mainland } = sites;
      const { pid } = mainland.operator();
      const before = await isMigrated(mainland, "books");
      await restartApiServer(async () => {
        // What runs at the agents goes on without it.
        await mainland.storage.api.putSnapshot("books", "while-away");
      });
      await mainland.kube.until(
        refs("books").migration,
        "a newer point",
        ({ status }) => status.oldestNewestPointTime > before.status.oldestNewestPointTime,
      );
      await goesOn(mainland, "books", 2);
      mainland.operator().checkRunning();
      expect(mainland.operator().pid).toBe(pid);
      await mainland.storage.api.removeSnapshot("books", "while-away");
    },
    slowMs,
  );
});

describe("a user's MigrationJob", () => {
  const spec = { volumeName: "pv-books", location: "harbor" };

  test(
    "snapshots now and migrates at once, though the schedule is suspended",
    async () => {
      const { mainland } = sites;
      await quiet();
      await writeRandomly(mainland.storage, "books", mebibyte, mebibyte);
      const { generation } = await mainland.storage.api.getVolume("books");
      await mainland.kube.apply(migrationJob("now", spec));
      const { status } = await mainland.kube.until(job("now"), "success", phaseIs("Succeeded"));
      expect(status).toMatchObject({ mode: "Delta", bytesChanged: mebibyte });
      expect(status.to.generation).toBeGreaterThanOrEqual(generation);
      await mainland.kube.told(job("now"), "MigrationSucceeded", "to harbor");
      await mainland.kube.told(refs("books").claim, "MigrationSucceeded", "MigrationJob now to harbor");
    },
    slowMs,
  );

  test(
    "that is a dry run says what would be sent, and sends nothing",
    async () => {
      const { mainland, harbor } = sites;
      await quiet();
      await writeRandomly(mainland.storage, "books", 0, 2 * mebibyte);
      const points = async () => (await harbor.storage.api.listMigratedVolumes()).items[0]?.points;
      const before = await points();
      await mainland.kube.apply(migrationJob("what-if", { ...spec, dryRun: true }));
      const { status } = await mainland.kube.until(job("what-if"), "success", phaseIs("Succeeded"));
      expect(status).toMatchObject({ mode: "Delta", bytesChanged: 2 * mebibyte, bytesSent: 0 });
      expect(await points()).toEqual(before);
    },
    slowMs,
  );

  test(
    "that is suspended stops, keeps what has arrived, and goes on when it is let go",
    async () => {
      const { mainland, harbor } = sites;
      await quiet();
      await writeRandomly(mainland.storage, "books", 0, 4 * mebibyte);
      await slowDown();
      await mainland.kube.apply(migrationJob("paused", spec));
      await mainland.kube.until(job("paused"), "running", phaseIs("Running"));
      await mainland.kube.apply(migrationJob("paused", { ...spec, suspend: true }));
      await mainland.kube.until(job("paused"), "suspended", phaseIs("Suspended"));
      await mainland.kube.condition(job("paused"), "Suspended", "True");
      await mainland.kube.apply(
        location("harbor", harbor.storage),
        migrationJob("paused", { ...spec, suspend: false }),
      );
      await mainland.kube.until(job("paused"), "success", phaseIs("Succeeded"));
    },
    slowMs,
  );

  test(
    "that is cancelled ends; the target is thawed at the point it had, and the next one brings everything",
    async () => {
      const { mainland, harbor } = sites;
      await quiet();
      await writeRandomly(mainland.storage, "books", 0, 4 * mebibyte);
      await slowDown();
      const copy = async () => (await harbor.storage.api.listMigratedVolumes()).items[0];
      const before = await copy();
      await mainland.kube.apply(migrationJob("regretted", spec));
      await eventually(
        "the target being frozen",
        async () => (await copy())?.state === "Frozen" || undefined,
        patience,
      );
      await mainland.kube.apply(migrationJob("regretted", { ...spec, cancel: true }));
      await mainland.kube.until(job("regretted"), "cancelled", phaseIs("Cancelled"));
      await mainland.kube.told(refs("books").claim, "MigrationCancelled", "MigrationJob regretted");
      await eventually("the thaw", async () => (await copy())?.state === "Available" || undefined, patience);
      expect((await copy())?.points).toEqual(before?.points);
      await mainland.kube.apply(location("harbor", harbor.storage), migrationJob("after-all", spec));
      const { status } = await mainland.kube.until(job("after-all"), "success", phaseIs("Succeeded"));
      expect(status).toMatchObject({ mode: "Delta", bytesChanged: 4 * mebibyte });
    },
    slowMs,
  );
});

describe("a SnapshotSchedule", () => {
  test(
    "that is suspended takes no snapshots, and does not make up for them when it goes on",
    async () => {
      const { mainland } = sites;
      await mainland.kube.apply(storageClass("other", { migrationLocations: "harbor", schedulePolicy: "clock" }));
      await mainland.kube.apply(schedule("clock"));
      await makeVolume(mainland, { name: "clock", storageClass: "other" });
      await quiet();
      const suspended = await mainland.storage.api.getVolume("books");
      await goesOn(mainland, "clock", 4);
      const after = await mainland.storage.api.getVolume("books");
      expect(after.generation).toBe(suspended.generation);
      const resumedMs = Date.now();
      await mainland.kube.apply(schedule("often", history));
      await goesOn(mainland, "books", 2);
      const { snapshots } = await mainland.storage.api.getVolume("books");
      const made = snapshots.filter(({ generation }) => generation > suspended.generation);
      const late = made.filter(({ name }) => (dueOfSnapshot(name) ?? Number.POSITIVE_INFINITY) < resumedMs - 1_000);
      expect(late.length).toBeLessThanOrEqual(1);
    },
    slowMs,
  );

  test(
    "keeps as many ended jobs as its limit says, and leaves those that users made",
    async () => {
      const { mainland } = sites;
      await goesOn(mainland, "books", 6);
      await quiet();
      const ended = async () => {
        const jobs = (await mainland.kube.list("MigrationJob")).filter(({ spec }) => spec.volumeName === "pv-books");
        const isOurs = ({ metadata }: Seen) => metadata.labels?.["app.kubernetes.io/managed-by"] === "longshore";
        return { ours: jobs.filter(isOurs), users: jobs.filter((each) => !isOurs(each)) };
      };
      const { ours } = await eventually(
        "the jobs being pruned",
        async () => {
          const jobs = await ended();
          return jobs.ours.length <= history.successfulJobsHistoryLimit ? jobs : undefined;
        },
        patience,
      );
      expect(ours.map(({ status }) => status.phase)).toEqual(["Succeeded", "Succeeded"]);
      expect((await ended()).users.map(({ metadata }) => metadata.name)).toEqual(expect.arrayContaining(["now"]));
    },
    slowMs,
  );
});

describe("the rights of manifests/", () => {
  test("suffice for all of this: no request of either operator was forbidden, and none failed as a defect", async () => {
    for (const site of [sites.mainland, sites.harbor]) {
      const log = readFileSync(site.operator().log, "utf8");
      expect(log).toContain('"phase":"leading"');
      const bad = log.split("\n").filter((line) => /forbidden|"statusCode":40[13]|BugError/i.test(line));
      expect(bad.filter((line) => !isOfStart(line))).toEqual([]);
    }
  });
});
