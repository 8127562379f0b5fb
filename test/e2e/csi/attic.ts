// Volumes that were there before anybody thought of migrating them: an annotation on their class shows what it would come to, and
// another one has it done, no more at once than the location takes. In the end all of it is given up again.
import { expect } from "@jest/globals";
import type { Seen } from "../kube-client.ts";
import { eventually } from "../process.ts";
import { apply, inPod, list, patch, podIsReady, told } from "./kube.ts";
import { copyOf, volumeOf } from "./migration.ts";
import { claim, pod } from "./objects.ts";
import { follow, until } from "./watching.ts";
import type { World } from "./world.ts";

const namespace = "attic";
const location = "narrow";
const boxes = ["box-1", "box-2", "box-3"];
const boxMebibytes = 16;
const mover = { kind: "pod", namespace, name: "mover" } as const;
const storageClass = { kind: "storageclass", name: "attic" } as const;

const annotate = ({ source }: World, annotations: Readonly<Record<string, string | null>>) =>
  patch(source, storageClass, { metadata: { annotations } });

export async function whatIsInUseIsEnabledByAnnotation(world: World): Promise<void> {
  const { source, target } = world;
  await boxesAreInUse(world);
  const limits = { limits: { jobs: 1 }, bandwidth: { limit: "4Mi" } };
  await patch(source, { kind: "migrationlocation", name: location }, { spec: limits });
  await dryRunTellsTheTotal(world);

  await annotate(world, { "longshore.dev/migrationEnable": "true" });
  const volumes = await Promise.all(boxes.map((name) => volumeOf(source, { namespace, name })));
  const arrived = new Set<string>();
  const jobs = { kind: "migrationjobs", labels: `longshore.dev/location=${location}` };
  await follow(source, jobs, { what: "migration of every volume" }, ({ object }) => {
    if (object.status?.phase === "Succeeded") arrived.add(object.spec.volumeName);
    return volumes.every((volume) => arrived.has(volume));
  });
  for (const name of boxes) {
    await copyOf(target, { namespace, name }, "being available", ({ status }) => status?.newestPoint !== undefined);
  }
  expect(overlapping(await jobsTo(world))).toEqual([]);
  await isGivenUp(world);
}

/** And does nothing; taken back, it leaves nothing. */
async function dryRunTellsTheTotal(world: World): Promise<void> {
  const { source } = world;
  await annotate(world, {
    "longshore.dev/dry-run": "true",
    "longshore.dev/migrationEnable": "true",
    "longshore.dev/migrationLocations": location,
    "longshore.dev/schedulePolicy": "often",
  });
  const planned = { kind: "migrationlocations", name: location };
  await until(source, planned, "telling what would come", ({ status }) => {
    return status?.plannedVolumes === boxes.length && status.plannedBytes === boxes.length * boxMebibytes * 2 ** 20;
  });
  const isTotal = ({ reason, message }: { reason: string; message: string }) =>
    reason === "MigrationDryRun" && message.includes(`${boxes.length} volumes of ${boxes.length * boxMebibytes}`);
  await told(source, { kind: "StorageClass", name: storageClass.name }, isTotal);
  expect((await copiesIn(world)).length).toBe(0);
  expect(await jobsTo(world)).toEqual([]);
  await annotate(world, { "longshore.dev/dry-run": null, "longshore.dev/migrationEnable": null });
  await until(source, planned, "planning nothing any more", ({ status }) => (status?.plannedVolumes ?? 0) === 0);
}

/** The location with its bases, and the copies over there; what is left of the volumes is what their pod has. */
async function isGivenUp(world: World): Promise<void> {
  const { source, target } = world;
  await annotate(world, { "longshore.dev/migrationEnable": "false" });
  const annotations = { "longshore.dev/release-holds": "true" };
  await patch(source, { kind: "migrationlocation", name: location }, { metadata: { annotations } });
  await source.kubectl(["delete", "migrationlocation", location, "--timeout=120s"]);
  const copies = (await copiesIn(world)).map(({ metadata }) => metadata.name);
  expect(copies.length).toBe(boxes.length);
  await target.kubectl(["delete", "migratedvolume", ...copies, "--timeout=120s"]);
  const isWithdrawn = async () => (await list(target, "volumesnapshots", namespace)).length === 0 || undefined;
  await eventually("nothing being published any more", isWithdrawn, { timeoutMs: 200_000, intervalMs: 500 });
}

/** Three raw block volumes of a class that says nothing of migration, held by a pod and with something in them. */
async function boxesAreInUse({ source }: World): Promise<void> {
  const wish = { namespace, storageClass: storageClass.name, size: `${boxMebibytes}Mi`, volumeMode: "Block" } as const;
  const claims = boxes.map((name) => claim({ ...wish, name }));
  await apply(source, ...claims, pod({ namespace, name: mover.name, script: "sleep 86400", devices: boxes }));
  await podIsReady(source, namespace, mover.name);
  const fill = boxes.map((box) => `dd if=/dev/urandom of=/dev/${box} bs=1M count=8 conv=notrunc,fsync status=none`);
  await inPod(source, mover, fill.join(" && "));
}

async function copiesIn({ target }: World): Promise<readonly Seen[]> {
  const copies = await list(target, "migratedvolumes");
  return copies.filter(({ status }) => status?.claim?.namespace === namespace);
}

async function jobsTo({ source }: World): Promise<readonly Seen[]> {
  return (await list(source, "migrationjobs")).filter(({ spec }) => spec.location === location);
}

/** Jobs that ran while another one did, by the agent's own times. */
function overlapping(jobs: readonly Seen[]): string[] {
  const runs = jobs
    .filter(({ status }) => status?.completionTime !== undefined)
    .map(({ metadata, status }) => ({
      name: metadata.name,
      startMs: Date.parse(status.startTime),
      endMs: Date.parse(status.completionTime),
    }))
    .sort((one, other) => one.startMs - other.startMs);
  return runs.flatMap(({ name, startMs }, index) => {
    const earlier = runs.slice(0, index).find(({ endMs }) => endMs > startMs);
    return earlier === undefined ? [] : [`${name} began before ${earlier.name} ended`];
  });
}
