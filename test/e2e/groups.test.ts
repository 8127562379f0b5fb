// Consistency groups between two clusters of real processes: claims of one label, their volumes on two agents, are snapshotted
// together on their schedule, cross as one job, and are cloned at one group point.
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import type { MigratedVolumeView } from "../../src/wire/schemas.ts";
import { missing, needs } from "../needs.ts";
import { isEqualByCmp } from "./images.ts";
import { conditionOf, type Seen } from "./kube-client.ts";
import { eventually } from "./process.ts";
import { type Member, startMember } from "./storage-cluster.ts";
import {
  location,
  makeVolume,
  mebibyte,
  migrationJob,
  namespace,
  namespaceManifest,
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
const patience = { timeoutMs: 120_000, intervalMs: 200 };
const labels = { "longshore.dev/group": "shelf" };
const group = { namespace, name: "shelf" };
/** By agent: the first of mainland has one, the second the other. */
const volumes = ["fiction", "poetry"] as const;

let sites: TwoSites;
let second: Member;

const holderOf = (volume: string) => (volume === "fiction" ? sites.mainland.storage : second);

beforeAll(async () => {
  if (missing("controlplane") !== undefined) return;
  sites = await openTwoSites();
  const { mainland, harbor, folder } = sites;
  const memberFolder = join(folder, "mainland-2");
  mkdirSync(memberFolder);
  second = await startMember(mainland.storage, "mainland-2", memberFolder);
  await harbor.kube.apply(namespaceManifest, source("mainland", mainland.storage, { pointsKept: 10 }));
  await mainland.kube.apply(
    location("harbor", harbor.storage),
    // Runs that are under way when the schedule is suspended are not to push out what a test has just seen.
    schedule("often", { successfulJobsHistoryLimit: 10 }),
    storageClass("migrated", { migrationLocations: "harbor", schedulePolicy: "often" }),
  );
}, slowMs);

afterAll(async () => {
  await second?.stop();
  await sites?.stop();
}, slowMs);

async function arrived(volume: string): Promise<MigratedVolumeView | undefined> {
  const { items } = await sites.harbor.storage.api.listMigratedVolumes();
  return items.find(({ sourceVolumeName }) => sourceVolumeName === volume);
}

const groupPointsOf = (view: MigratedVolumeView | undefined) =>
  (view?.points ?? []).map(({ groupPoint }) => groupPoint);

/** Every volume as the API server shows it has this as its newest point. */
async function isShown(groupPoint: string | undefined): Promise<Seen[]> {
  const { kube } = sites.harbor;
  const views = await Promise.all(volumes.map((volume) => arrived(volume)));
  return Promise.all(
    views.map((view) =>
      kube.until({ kind: "MigratedVolume", name: view?.name ?? "" }, `group point ${groupPoint}`, ({ status }) =>
        (status?.points ?? []).some((point: { groupPoint?: string }) => point.groupPoint === groupPoint),
      ),
    ),
  );
}

/** Clones of one group point are what the volumes held. */
async function holdsAll(groupPoint: string): Promise<void> {
  const { api } = sites.harbor.storage;
  for (const volume of volumes) {
    const name = `clone-${volume}-${groupPoint.slice(0, 6)}`;
    await api.putClone(name, { migratedVolume: (await arrived(volume))?.name ?? "", point: groupPoint });
    const { path } = await eventually(
      `clone ${name}`,
      async () => {
        const clone = await api.getClone(name);
        return clone.state === "Ready" ? clone : undefined;
      },
      patience,
    );
    const live = await holderOf(volume).api.getVolume(volume);
    expect([volume, await isEqualByCmp(String(path), live.path)]).toEqual([volume, true]);
    await api.removeClone(name);
  }
}

async function ended(job: string): Promise<Seen> {
  const { kube } = sites.mainland;
  return kube.until({ kind: "MigrationJob", name: job }, "ended", ({ status }) =>
    ["Succeeded", "Failed", "Cancelled"].includes(status?.phase),
  );
}

describe("two claims of one label, on two agents", () => {
  test(
    "are snapshotted together when it is due, and arrive as one group point, each with what it held",
    async () => {
      const { mainland } = sites;
      for (const name of volumes) {
        await makeVolume(mainland, { name, storageClass: "migrated", claimLabels: labels }, holderOf(name));
      }
      const common = await eventually(
        "a group point that both have",
        async () => {
          const [one, other] = (await Promise.all(volumes.map((volume) => arrived(volume)))).map(groupPointsOf);
          return one?.findLast((point) => point !== undefined && other?.includes(point));
        },
        patience,
      );
      await mainland.kube.apply(schedule("often", { successfulJobsHistoryLimit: 10, suspend: true }));
      await isShown(common);
      for (const volume of volumes) {
        const { migration } = refs(volume);
        const seen = await mainland.kube.until(
          migration,
          "well",
          (each) => conditionOf(each, "Ready")?.status === "True",
        );
        expect(seen.spec.group).toEqual(group);
      }
      // Earlier ones may have been of the first claim alone, before there was the second.
      const job = await eventually("the job that brought it being told", async () => {
        const jobs = await mainland.kube.list("MigrationJob");
        return jobs.find(({ status }) => status?.to?.groupPoint === common);
      });
      expect(job.spec.group).toEqual({ ...group, volumes: ["pv-fiction", "pv-poetry"] });
      expect(job.metadata.name).toMatch(/^library-shelf-harbor-p/);
      await holdsAll(common);
    },
    slowMs,
  );

  test(
    "are migrated at once by a job of the group, in which both agents take part",
    async () => {
      const { mainland } = sites;
      for (const volume of volumes) await writeRandomly(holderOf(volume), volume, mebibyte, 2 * mebibyte);
      await mainland.kube.apply(migrationJob("now", { group, location: "harbor" }));
      const { status } = await ended("now");
      expect([status?.phase, status?.message, status?.volumes]).toEqual([
        "Succeeded",
        expect.any(String),
        ["pv-fiction", "pv-poetry"],
      ]);
      const agents = new Set(status?.participants?.map(({ agentId }: { agentId: string }) => agentId));
      for (const { api } of [mainland.storage, second]) expect(agents).toContain((await api.describe()).agentId);
      const { groupPoint } = status?.to ?? {};
      await isShown(groupPoint);
      await holdsAll(groupPoint);
    },
    slowMs,
  );

  test(
    "are planned for without moving anything",
    async () => {
      const { mainland } = sites;
      await writeRandomly(second, "poetry", 0, mebibyte);
      await mainland.kube.apply(migrationJob("plan", { group, location: "harbor", dryRun: true }));
      const { status } = await ended("plan");
      expect([status?.phase, status?.message]).toEqual([
        "Succeeded",
        expect.stringContaining("nothing was transferred"),
      ]);
      expect(status?.bytesChanged).toBe(mebibyte);
    },
    slowMs,
  );

  test("are what docs/operator.md says how to apply", async () => {
    const text = readFileSync(join(import.meta.dirname, "../../docs/operator.md"), "utf8");
    const blocks = [...text.matchAll(/^```yaml\n(.*?)^```$/gms)].map(([, yaml]) => yaml);
    expect(blocks.length).toBeGreaterThanOrEqual(2);
    const options = ["--server-side", "--force-conflicts", "--dry-run=server", "--field-manager=docs", "-f", "-"];
    const { stdout } = await sites.mainland.plane.kubectl(["apply", ...options], { input: blocks.join("---\n") });
    expect(stdout.match(/serverside-applied/g)).toHaveLength(5);
  });

  test(
    "that no longer agree stop, say what differs, and go on when they agree again",
    async () => {
      const { mainland } = sites;
      const { claim, migration, volume } = refs("poetry");
      await mainland.kube.apply(schedule("often"), schedule("seldom", { interval: "24h", retention: { age: "48h" } }));
      await mainland.plane.kubectl(["annotate", "pv", volume.name, "longshore.dev/schedulePolicy=seldom"]);
      const message = await mainland.kube.condition(migration, "Ready", "False", "GroupConflict");
      expect(message).toContain("schedule differ: often for fiction, seldom for poetry");
      await mainland.kube.told(claim, "MigrationGroupConflict", /schedule differ/);
      await mainland.plane.kubectl(["annotate", "pv", volume.name, "longshore.dev/schedulePolicy-"]);
      await mainland.kube.condition(migration, "Ready", "True");
      await mainland.kube.apply(schedule("often", { suspend: true }));
    },
    slowMs,
  );
});
