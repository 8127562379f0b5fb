// What users keep in Git stays as it is there: Longshore writes no field of it, so a GitOps tool never sees a difference. And
// what it makes of it can be read with kubectl.
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import { missing, needs } from "../needs.ts";
import { argocd, type Kind, type Manifest, type Seen } from "./kube-client.ts";
import { eventually } from "./process.ts";
import {
  location,
  makeVolume,
  migrationJob,
  namespaceManifest,
  openTwoSites,
  type SeenSite,
  schedule,
  source,
  storageClass,
  type TwoSites,
  volumeAndClaim,
} from "./two-sites.ts";

const test = needs("controlplane");
const slowMs = 600_000;
const intervals = 10;
const intervalMs = 1_000;

let sites: TwoSites;

beforeAll(async () => {
  if (missing("controlplane") === undefined) sites = await openTwoSites();
}, slowMs);

afterAll(async () => {
  await sites?.stop();
}, slowMs);

const wish = { name: "books", storageClass: "migrated" };

/** All that users write, on each side; the volume and its claim among it. */
function userObjects(): { mainland: Manifest[]; harbor: Manifest[] } {
  const { mainland, harbor } = sites;
  return {
    mainland: [
      schedule("often"),
      location("harbor", harbor.storage, { bandwidth: { limit: "1Gi" }, limits: { jobs: 2 } }),
      storageClass("migrated", { migrationLocations: "harbor", schedulePolicy: "often" }),
      ...volumeAndClaim(wish),
      migrationJob("now", { volumeName: "pv-books", location: "harbor" }),
    ],
    harbor: [source("mainland", mainland.storage, { publications: [{ namespace: "library" }], pointsKept: 2 })],
  };
}

async function applyWithKubectl(site: SeenSite, objects: readonly Manifest[]): Promise<void> {
  const options = ["apply", "--server-side", `--field-manager=${argocd}`, "-f", "-"];
  await site.plane.kubectl(options, { input: streamOf(objects) });
}

function streamOf(objects: readonly Manifest[]): string {
  return objects.map((object) => JSON.stringify(object)).join("\n---\n");
}

async function seen(site: SeenSite, objects: readonly Manifest[]): Promise<Seen[]> {
  const all = objects.map(({ kind, metadata }) => site.kube.get({ kind: kind as Kind, ...metadata }));
  return (await Promise.all(all)).map((object, index) => {
    if (object === undefined) throw new Error(`${objects[index]?.kind} ${objects[index]?.metadata.name} is gone`);
    return object;
  });
}

/** What the operator owns of an object, but for its status: `metadata`, `spec` and so on, with what is in them. */
function ownedByOperator(object: Seen): Record<string, string[]> {
  const entries = object.metadata.managedFields ?? [];
  const owned = entries.filter(({ manager, subresource }) => manager === "longshore" && subresource === undefined);
  const fields = owned.flatMap(({ fieldsV1 }) => Object.entries(fieldsV1));
  return Object.fromEntries(fields.map(([name, within]) => [name, Object.keys(within as object)]));
}

/** What kubectl would change, as a GitOps tool would show it; nothing when all is as it is in Git. */
async function difference(site: SeenSite, objects: readonly Manifest[]): Promise<string> {
  const options = ["diff", "--server-side", `--field-manager=${argocd}`, "-f", "-"];
  const { stdout } = await site.plane.kubectl(options, { input: streamOf(objects) });
  return stdout;
}

/** The rows that `kubectl get` prints, each by the names of its columns. */
async function rows(site: SeenSite, kind: string): Promise<Record<string, string>[]> {
  const { stdout } = await site.plane.kubectl(["get", kind]);
  const [header = "", ...lines] = stdout.trimEnd().split("\n");
  // Columns begin where their names do; a cell may be empty.
  const starts = [...header.matchAll(/\S+/g)].map(({ index }) => index);
  const cell = (line: string, column: number) => line.slice(starts[column], starts[column + 1]).trim();
  return lines.map((line) => Object.fromEntries(starts.map((_, column) => [cell(header, column), cell(line, column)])));
}

const migration = { kind: "VolumeMigration", name: "pv-books" } as const;
let before: { mainland: Seen[]; harbor: Seen[] };

describe("objects applied as Argo CD applies them, and ten intervals run", () => {
  beforeAll(async () => {
    if (sites === undefined) return;
    const { mainland, harbor } = sites;
    const objects = userObjects();
    await harbor.kube.apply(namespaceManifest);
    await applyWithKubectl(harbor, objects.harbor);
    await makeVolume(mainland, wish);
    await applyWithKubectl(mainland, objects.mainland);
    before = { mainland: await seen(mainland, objects.mainland), harbor: await seen(harbor, objects.harbor) };
    await tenIntervals();
  }, slowMs);

  async function tenIntervals(): Promise<void> {
    const { mainland, harbor } = sites;
    const runOf = ({ status }: Seen) => Date.parse(status?.lastScheduleTime ?? "");
    const first = runOf(await mainland.kube.until(migration, "a first run", (object) => runOf(object) > 0));
    const isLater = (object: Seen) => runOf(object) >= first + intervals * intervalMs;
    await mainland.kube.until(migration, `${intervals} intervals later`, isLater);
    const job = { kind: "MigrationJob", name: "now" } as const;
    await mainland.kube.until(job, "success", ({ status }) => status?.phase === "Succeeded");
    await eventually("the volume being published", async () => {
      const [snapshot] = await harbor.kube.list("VolumeSnapshot");
      return snapshot;
    });
  }

  test("kubectl diff finds nothing to change in any of them, on either side", async () => {
    const objects = userObjects();
    expect(await difference(sites.mainland, objects.mainland)).toBe("");
    expect(await difference(sites.harbor, objects.harbor)).toBe("");
  });

  test("the generation of each is what it was when it was applied", async () => {
    const objects = userObjects();
    const generations = (all: readonly Seen[]) =>
      all.map(({ kind, metadata }) => [kind, metadata.uid, metadata.generation]);
    expect(generations(await seen(sites.mainland, objects.mainland))).toEqual(generations(before.mainland));
    expect(generations(await seen(sites.harbor, objects.harbor))).toEqual(generations(before.harbor));
  });

  test("the operator owns nothing of them but a finalizer where one is needed, and their status", async () => {
    const objects = userObjects();
    const all = [...(await seen(sites.mainland, objects.mainland)), ...(await seen(sites.harbor, objects.harbor))];
    const finalizer = { "f:metadata": ["f:finalizers"] };
    const nothing = {};
    expect(Object.fromEntries(all.map((object) => [object.kind, ownedByOperator(object)]))).toEqual({
      SnapshotSchedule: nothing,
      MigrationLocation: finalizer,
      StorageClass: nothing,
      PersistentVolume: nothing,
      PersistentVolumeClaim: nothing,
      MigrationJob: nothing,
      MigrationSource: finalizer,
    });
    const statusOf = (object: Seen) =>
      object.metadata.managedFields?.find(({ subresource }) => subresource === "status");
    const ours = all.filter(({ apiVersion }) => apiVersion.startsWith("longshore.dev/"));
    expect(ours.map(statusOf).map((entry) => entry?.manager)).toEqual(ours.map(() => "longshore"));
  });

  test("applying them once more changes no object", async () => {
    const objects = userObjects();
    await applyWithKubectl(sites.mainland, objects.mainland);
    const generations = (await seen(sites.mainland, objects.mainland)).map(({ metadata }) => metadata.generation);
    expect(generations).toEqual(before.mainland.map(({ metadata }) => metadata.generation));
  });
});

describe("kubectl", () => {
  const time = expect.stringMatching(/^(-?\d+s|\d+m(\d+s)?)$/);
  const number = expect.stringMatching(/^\d+$/);

  test("prints locations with what can be reached", async () => {
    const [row] = await rows(sites.mainland, "mloc");
    expect(row).toEqual({ NAME: "harbor", CLUSTER: "harbor", READY: "True", VOLUMES: "1", PROBED: time, AGE: time });
  });

  test("prints schedules with when they run", async () => {
    const [row] = await rows(sites.mainland, "snapshotschedules");
    expect(row).toEqual({
      NAME: "often",
      INTERVAL: "1s",
      SCHEDULE: "",
      RETENTION: "2s",
      SUSPEND: "",
      READY: "True",
      VOLUMES: "1",
      NEXT: expect.any(String),
      AGE: time,
    });
  });

  test("prints volumes under migration by their claims", async () => {
    const [row] = await rows(sites.mainland, "volumemigrations");
    expect(row).toEqual({
      NAME: "pv-books",
      CLAIM: "books",
      SCHEDULE: "often",
      LOCATIONS: '["harbor"]',
      READY: "True",
      SNAPSHOT: time,
      MIGRATED: time,
      AGE: time,
    });
  });

  test("prints jobs with what they sent and how", async () => {
    const row = (await rows(sites.mainland, "mjob")).find(({ NAME }) => NAME === "now");
    expect(row).toEqual({
      NAME: "now",
      VOLUME: "pv-books",
      GROUP: "",
      LOCATION: "harbor",
      PHASE: "Succeeded",
      FROM: expect.any(String),
      TO: number,
      MODE: expect.stringMatching(/^(Allocated|Delta)$/),
      SENT: number,
      AGE: time,
    });
  });

  test("prints consent with what came of it", async () => {
    const [row] = await rows(sites.harbor, "migrationsources");
    expect(row).toEqual({
      NAME: "mainland",
      CLUSTER: "mainland",
      READY: "True",
      VOLUMES: "1",
      USED: number,
      RECEIVED: time,
      AGE: time,
    });
  });

  test("prints migrated volumes by the claims that they are copies of", async () => {
    const [row] = await rows(sites.harbor, "migratedvolumes");
    expect(row).toEqual({
      NAME: expect.any(String),
      SOURCE: "mainland",
      NAMESPACE: "library",
      CLAIM: "books",
      STATE: expect.stringMatching(/^(Available|Frozen)$/),
      GENERATION: number,
      POINTTIME: time,
      AGE: time,
    });
  });

  const fields = [
    "migrationlocations.spec.seeds",
    "snapshotschedules.spec.retention",
    "volumemigrations.status.locations",
    "migrationjobs.spec.dryRun",
    "migrationsources.spec.publications",
    "migratedvolumes.status.points",
  ];
  for (const field of fields) {
    test(`explains ${field}`, async () => {
      const { stdout } = await sites.harbor.plane.kubectl(["explain", field]);
      expect(stdout).toMatch(/GROUP: +longshore.dev/);
      expect(stdout).toMatch(/DESCRIPTION:\n +\S.{20}/);
    });
  }

  test("lists all of it by one category", async () => {
    const { stdout } = await sites.mainland.plane.kubectl(["get", "longshore", "-o", "name"]);
    const kinds = new Set(
      stdout
        .trim()
        .split("\n")
        .map((name) => name.split(".")[0]),
    );
    expect([...kinds].sort()).toEqual(["migrationjob", "migrationlocation", "snapshotschedule", "volumemigration"]);
  });
});
