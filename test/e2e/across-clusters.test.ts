// What goes wrong between two clusters: seeds, trust and consent are told apart, what is deleted or edited while in use harms
// no data, and what arrived is in the hands of the target. All tests share one pair of sites.
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect } from "@jest/globals";
import type { MigratedVolumeView } from "../../src/wire/schemas.ts";
import { missing, needs } from "../needs.ts";
import { conditionOf, type Manifest, type Seen } from "./kube-client.ts";
import { eventually } from "./process.ts";
import {
  goesOn,
  isMigrated,
  isQuiet,
  isToldOf,
  location,
  makeVolume,
  namespace,
  namespaceManifest,
  off,
  openTwoSites,
  refs,
  schedule,
  source,
  storageClass,
  type TwoSites,
} from "./two-sites.ts";

const test = needs("controlplane");
const slowMs = 600_000;
const patience = { timeoutMs: 90_000, intervalMs: 150 };
const nobody = ["127.0.0.1:1"];

let sites: TwoSites;

beforeAll(async () => {
  if (missing("controlplane") !== undefined) return;
  sites = await openTwoSites();
  const { mainland, harbor } = sites;
  await harbor.kube.apply(namespaceManifest, consent());
  await mainland.kube.apply(location("harbor", harbor.storage), schedule("often"), classTo("harbor"));
  await makeVolume(mainland, { name: "bystander", storageClass: "to-harbor" });
  await isMigrated(mainland, "bystander");
}, slowMs);

afterAll(async () => {
  await sites?.stop();
}, slowMs);

function consent(): Manifest {
  return source("mainland", sites.mainland.storage, { publications: [{ namespace }], pointsKept: 2 });
}

function classTo(name: string, annotations: object = {}): Manifest {
  return storageClass(`to-${name}`, { migrationLocations: name, schedulePolicy: "often" }, annotations);
}

function at(name: string) {
  return { kind: "MigrationLocation", name } as const;
}

async function arrived(volume: string): Promise<MigratedVolumeView> {
  const { items } = await sites.harbor.storage.api.listMigratedVolumes();
  const found = items.find(({ sourceVolumeName }) => sourceVolumeName === volume);
  if (found === undefined) throw new Error(`nothing of ${volume} has arrived`);
  return found;
}

/** A later point than this generation arrives. */
async function arrivesAfter(volume: string, generation: number): Promise<MigratedVolumeView> {
  return eventually(
    `a point of ${volume} after generation ${generation}`,
    async () => {
      const view = await arrived(volume);
      return (view.points.at(-1)?.generation ?? 0) > generation ? view : undefined;
    },
    patience,
  );
}

const baseOf = async (volume: string) => (await sites.mainland.storage.api.getVolume(volume)).bases[0];

// What a test that failed has left behind is no concern of the next.
beforeEach(async () => {
  if (sites === undefined) return;
  await sites.harbor.kube.apply(consent());
  await sites.mainland.kube.apply(schedule("often"));
  await sites.mainland.kube.condition(at("harbor"), "Ready", "True");
}, slowMs);

describe("a location", () => {
  /** Told on the location and on the claim, each of the three things apart; nothing is migrated; healed by what is right. */
  async function isWrong(name: string, wrong: Manifest, { conditions, part }: { conditions: object; part: RegExp }) {
    const { mainland } = sites;
    await mainland.kube.apply(wrong, classTo(name));
    await makeVolume(mainland, { name, storageClass: `to-${name}` });
    const reason =
      Object.values(conditions)
        .find((each) => each.startsWith("False "))
        ?.slice("False ".length) ?? "";
    expect(await mainland.kube.condition(at(name), "Ready", "False", reason)).toMatch(part);
    // One probe of a busy machine may find it otherwise.
    await mainland.kube.until(at(name), JSON.stringify(conditions), (seen) =>
      Object.entries(conditions).every(([type, expected]) => {
        const condition = conditionOf(seen, type);
        return expected === (condition?.status === "False" ? `False ${condition.reason}` : condition?.status);
      }),
    );
    expect((await mainland.kube.told(at(name), "MigrationLocationNotReady", part)).type).toBe("Warning");
    await isToldOf(mainland, name, { reason: "LocationNotReady", event: "MigrationLocationNotReady", part });
    await goesOn(mainland, "bystander", 3);
    expect((await mainland.kube.list("MigrationJob")).filter(({ spec }) => spec.location === name)).toEqual([]);
  }

  async function heals(name: string): Promise<void> {
    const { mainland } = sites;
    await mainland.kube.condition(at(name), "Ready", "True");
    await mainland.kube.told(at(name), "MigrationLocationReady", /./);
    await isMigrated(mainland, name);
    await mainland.kube.apply(classTo(name, off));
  }

  test(
    "whose seeds do not answer is unreachable; given the right ones, it is used",
    async () => {
      const right = location("silent", sites.harbor.storage);
      await isWrong("silent", location("silent", sites.harbor.storage, { seeds: nobody }), {
        conditions: { Reachable: "False Unreachable", Trusted: "Unknown", Consented: "Unknown" },
        part: /127\.0\.0\.1:1\b.*[Cc]heck/,
      });
      await sites.mainland.kube.apply(right);
      await heals("silent");
    },
    slowMs,
  );

  test(
    "that answers with a stranger's certificate is untrusted; given the right bundle, it is used",
    async () => {
      const right = location("masked", sites.harbor.storage);
      const { caBundle } = sites.mainland.storage;
      await isWrong("masked", location("masked", sites.harbor.storage, { caBundle }), {
        conditions: { Reachable: "True", Trusted: "False Untrusted", Consented: "Unknown" },
        part: /certificate.*Check the CA bundle/,
      });
      await sites.mainland.kube.apply(right);
      await heals("masked");
    },
    slowMs,
  );

  test(
    "that has no consent for us says so, and is used once it is given",
    async () => {
      const { harbor } = sites;
      await harbor.kube.remove({ kind: "MigrationSource", name: "mainland" });
      await harbor.kube.untilGone({ kind: "MigrationSource", name: "mainland" });
      await isWrong("shy", location("shy", harbor.storage), {
        conditions: { Reachable: "True", Trusted: "True", Consented: "False NotConsented" },
        part: /MigrationSource.*in the target cluster/,
      });
      await harbor.kube.apply(consent());
      await heals("shy");
    },
    slowMs,
  );

  test(
    "edited to seeds that do not answer, or are of another cluster, keeps its base; edited back, it goes on from there",
    async () => {
      const { mainland, harbor } = sites;
      const { clusterName, seeds, caBundle } = harbor.storage.asLocation();
      const right = { ...location("moving", harbor.storage), spec: { clusterName, seeds, caBundle } };
      await mainland.kube.apply(right, classTo("moving"));
      await makeVolume(mainland, { name: "moving", storageClass: "to-moving" });
      await isMigrated(mainland, "moving");
      await mainland.kube.apply({ ...right, spec: { ...right.spec, seeds: nobody } });
      await mainland.kube.condition(at("moving"), "Reachable", "False", "Unreachable");
      const own = mainland.storage.asLocation();
      await mainland.kube.apply({ ...right, spec: { ...right.spec, seeds: own.seeds, caBundle: own.caBundle } });
      const message = await mainland.kube.condition(at("moving"), "Trusted", "False", "Untrusted");
      expect(message).toMatch(/lead to this cluster itself.*Check .* the address/);
      const base = await baseOf("moving");
      expect(base).toMatchObject({ location: "moving", clusterUid: harbor.storage.uid });
      await goesOn(mainland, "bystander", 3);
      expect(await baseOf("moving")).toEqual(base);
      await mainland.kube.apply(right);
      await arrivesAfter("moving", base?.generation ?? 0);
      await eventually("a job that says it sent a Delta", async () => {
        const jobs = (await mainland.kube.list("MigrationJob")).filter(({ spec }) => spec.location === "moving");
        return jobs.find(({ status }) => status?.mode === "Delta");
      });
      await mainland.kube.apply(classTo("moving", off));
    },
    slowMs,
  );

  test(
    "deleted while in use stays and says why, until no policy names it and its bases are given up knowingly",
    async () => {
      const { mainland, harbor } = sites;
      const { kube, storage } = mainland;
      await kube.apply(location("leaving", harbor.storage), classTo("leaving"));
      await makeVolume(mainland, { name: "leaving", storageClass: "to-leaving" });
      await isMigrated(mainland, "leaving");
      await kube.remove(at("leaving"));
      const named = /policies of these volumes name it: pv-leaving\. Remove it from their classes or annotations first/;
      expect(await kube.condition(at("leaving"), "Deletable", "False", "InUse")).toMatch(named);
      await kube.told(at("leaving"), "MigrationLocationInUse", named);
      const beingDeleted = /MigrationLocation leaving is being deleted/;
      expect(await kube.condition(refs("leaving").migration, "Ready", "False", "LocationNotReady")).toMatch(
        beingDeleted,
      );
      await kube.apply(classTo("leaving", off));
      const held = /To give up these bases knowingly.*longshore\.dev\/release-holds: "true"/;
      await kube.until(at("leaving"), "held by a base", (object) =>
        held.test(conditionOf(object, "Deletable")?.message ?? ""),
      );
      expect(await baseOf("leaving")).toMatchObject({ location: "leaving" });
      await kube.patch(at("leaving"), { metadata: { annotations: { "longshore.dev/release-holds": "true" } } });
      await kube.untilGone(at("leaving"));
      expect((await storage.api.listLocations()).items.map(({ name }) => name)).not.toContain("leaving");
      expect(await baseOf("leaving")).toBeUndefined();
      expect((await arrived("leaving")).points.length).toBeGreaterThan(0);
    },
    slowMs,
  );

  test(
    "that no volume has ever used goes at once",
    async () => {
      const { mainland, harbor } = sites;
      await mainland.kube.apply(location("unused", harbor.storage));
      await mainland.kube.condition(at("unused"), "Ready", "True");
      await mainland.kube.remove(at("unused"));
      await mainland.kube.untilGone(at("unused"));
    },
    slowMs,
  );
});

describe("what has arrived", () => {
  const published = { kind: "VolumeSnapshot", namespace, name: "bystander" } as const;

  const isPublished = (object: Seen) => conditionOf(object, "Published")?.status === "True";

  test(
    "is published as a VolumeSnapshot, which is made anew when a tenant deletes it or its content",
    async () => {
      const { harbor } = sites;
      const { kube } = harbor;
      const first = await kube.until(published, "made", () => true);
      const content = { kind: "VolumeSnapshotContent", name: first.spec.source.volumeSnapshotContentName } as const;
      const before = await kube.until(content, "made", () => true);
      expect(before.spec).toMatchObject({ deletionPolicy: "Retain", driver: "csi.longshore.dev" });
      await kube.remove(published);
      const second = await kube.until(published, "made anew", ({ metadata }) => metadata.uid !== first.metadata.uid);
      expect(second.spec).toEqual(first.spec);
      await kube.remove(content);
      const after = await kube.until(content, "made anew", ({ metadata }) => metadata.uid !== before.metadata.uid);
      expect(after.spec).toEqual(before.spec);
      const { name } = await arrived("bystander");
      await kube.until({ kind: "MigratedVolume", name }, "published", isPublished);
    },
    slowMs,
  );

  test(
    "goes when a user deletes its MigratedVolume, with its files and its publication, and comes again if it is still sent",
    async () => {
      const { mainland, harbor } = sites;
      await mainland.kube.apply(location("doomed", harbor.storage), classTo("doomed"));
      await makeVolume(mainland, { name: "doomed", storageClass: "to-doomed" });
      await isMigrated(mainland, "doomed");
      await mainland.kube.apply(schedule("often", { suspend: true }));
      await isQuiet(mainland, "doomed");
      const { name, sourceVolumeUid } = await arrived("doomed");
      const kept = await copies();
      const ref = { kind: "MigratedVolume", name } as const;
      const snapshot = { ...published, name: "doomed" };
      await harbor.kube.until(snapshot, "published", () => true);
      await harbor.kube.remove(ref);
      await harbor.kube.untilGone(ref);
      await harbor.kube.untilGone(snapshot);
      await expect(harbor.storage.api.getMigratedVolume(name)).rejects.toThrow(/not/);
      const left = await copies();
      expect(kept.filter((folder) => !left.includes(folder))).toHaveLength(1);
      await mainland.kube.apply(schedule("often"));
      const anew = await eventually(
        "the volume arriving anew",
        async () => {
          const view = await arrived("doomed");
          return view.sourceVolumeUid === sourceVolumeUid ? view.points[0] : undefined;
        },
        patience,
      );
      const job = await eventually(
        "the job that brought it",
        async () => {
          const jobs = await mainland.kube.list("MigrationJob");
          return jobs.find(({ status }) => status?.to?.pointId === anew.pointId && status.phase === "Succeeded");
        },
        patience,
      );
      expect(job.status).toMatchObject({ mode: "Allocated", modeReason: "FirstCopy" });
      await mainland.kube.apply(classTo("doomed", off));
    },
    slowMs,
  );

  /** The folders of the copies at the target. */
  const copies = () => readdir(join(sites.harbor.storage.dataDir, "volumes"));

  test(
    "stays when consent is withdrawn, and nothing more is received or published; given again, it goes on from there",
    async () => {
      const { mainland, harbor } = sites;
      const consented = { kind: "MigrationSource", name: "mainland" } as const;
      await harbor.kube.remove(consented);
      await harbor.kube.untilGone(consented);
      await mainland.kube.condition(at("harbor"), "Consented", "False", "NotConsented");
      const before = await arrived("bystander");
      await goesOn(mainland, "bystander", 4);
      expect((await arrived("bystander")).points).toEqual(before.points);
      // What is shown is behind what the agent has.
      const newest = before.points.at(-1)?.generation;
      await harbor.kube.until(
        { kind: "MigratedVolume", name: before.name },
        `still there with generation ${newest}`,
        ({ status }) => status?.newestPoint?.generation === newest,
      );
      await harbor.kube.untilGone(published);
      await harbor.kube.apply(consent());
      await arrivesAfter("bystander", before.points.at(-1)?.generation ?? 0);
      await harbor.kube.until(published, "published again", () => true);
      const jobs = (await mainland.kube.list("MigrationJob")).filter(({ spec }) => spec.volumeName === "pv-bystander");
      expect(jobs.findLast(({ status }) => status?.phase === "Succeeded")?.status.mode).toBe("Delta");
    },
    slowMs,
  );
});
