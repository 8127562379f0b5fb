// The scenes of the demo, in order. What it says is what it saw; what must hold is checked where it is said.
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { cp, lstat, mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import type { CloneView, JobView } from "../../../src/wire/schemas.ts";
import { differences, extract, makeExt4, treeOf, walk, writeInto } from "../images.ts";
import { eventually } from "../process.ts";
import type { Site } from "../site.ts";
import type { StorageCluster } from "../storage-cluster.ts";
import { watchEvents } from "./events.ts";
import { bytesText, type Narrator } from "./narrator.ts";
import { schedule, storageClass, volumeAndClaim, volumeHandle } from "./objects.ts";
import { type Migration, measure, migratedName } from "./report.ts";
import type { World } from "./world.ts";

const run = promisify(execFile);
const volumeBytes = 96 * 2 ** 20;
/** So much of the machine's documentation is put on the volume. */
const treeBytesMin = 40 * 2 ** 20;
const longshore = join(import.meta.dirname, "../../../src/bin/longshore.ts");
/** The first copy takes a few seconds at this rate, so that a clone can be seen to wait. */
const harborBandwidth = "16Mi";
/** Every point is compared at the end, so none may be pruned before. */
const pointsKept = 100;

export async function tellStory(world: World, tell: Narrator): Promise<Migration[]> {
  tell.title("Pairing: two pastes, no kubeconfig crosses");
  await pairClusters(world, tell);
  tell.title("A volume with a real file system, and a StorageClass that migrates");
  const tree = await makeVolume(world, tell);
  const { uid } = await world.mainland.storage.api.getVolume(volumeHandle);
  const events = watchEvents(world.mainland.storage, tell);
  try {
    tell.title("Snapshots, their expiry, and the first migration");
    await firstMigration(world, tell, tree);
    tell.title("Files change; the next migration sends only what changed");
    await increment(world, tell, tree);
    await applyAsArgo(world, schedule({ suspend: true }));
    await quiet(world);
    tell.title("What kubectl shows");
    await showObjects(world, tell);
    tell.title("Checking every migration: blocks compared at the source, images by cmp");
    return await measureAll(world, uid, events.ended());
  } finally {
    await events.stop();
  }
}

/** As Argo CD does it. */
async function applyAsArgo(world: World, input: string): Promise<void> {
  const options = ["apply", "--server-side", "--field-manager=argocd-controller", "-f", "-"];
  await world.mainland.plane.kubectl(options, { input });
}

async function longshoreCommand(args: readonly string[], input = ""): Promise<string> {
  const child = run(process.execPath, ["--disable-warning=ExperimentalWarning", longshore, ...args]);
  child.child.stdin?.end(input);
  return (await child).stdout;
}

async function pairClusters({ mainland, harbor, island }: World, tell: Narrator): Promise<void> {
  const exported = (cluster: StorageCluster) =>
    longshoreCommand(["pair", "export", "--dir", cluster.pki, "--seeds", cluster.address]);
  const [source, ...targets] = await Promise.all([mainland.storage, harbor.storage, island].map(exported));
  const [consent, ...locations] = await Promise.all([
    longshoreCommand(["pair", "import", "mainland", "--as", "source"], source),
    longshoreCommand(["pair", "import", "harbor", "--as", "location"], targets[0]),
    longshoreCommand(["pair", "import", "island", "--as", "location"], targets[1]),
  ]);
  await harbor.plane.kubectl(["apply", "--server-side", "-f", "-"], {
    input: `${consent}  pointsKept: ${pointsKept}\n`,
  });
  await island.api.putSource("mainland", { ...mainland.storage.asSource(), pointsKept });
  await isReady(harbor, "migrationsource", "mainland");
  const limited = `${locations[0]}  bandwidth:\n    limit: ${harborBandwidth}\n`;
  const options = ["apply", "--server-side", "--field-manager=argocd-controller", "-f", "-"];
  await mainland.plane.kubectl(options, { input: [limited, locations[1]].join("---\n") });
  for (const name of ["harbor", "island"]) {
    await isReady(mainland, "migrationlocation", name);
    tell.say("location", `${name} is reachable, trusted, and consents`);
  }
}

async function isReady(site: Site, kind: string, name: string): Promise<void> {
  await eventually(`${kind} ${name} being ready`, async () => {
    const { stdout } = await site.plane.kubectl(["get", kind, name, "-o", "json"]);
    const conditions: { type: string; status: string }[] = JSON.parse(stdout).status?.conditions ?? [];
    return conditions.some(({ type, status }) => type === "Ready" && status === "True") || undefined;
  });
}

/** Makes the volume at the agent and tells Kubernetes of it. Returns the folder with the same files. */
async function makeVolume(world: World, tell: Narrator): Promise<string> {
  const tree = join(world.folder, "tree");
  const source = "/usr/share/doc";
  await copySome(source, tree, treeBytesMin);
  const { api } = world.mainland.storage;
  const { path } = await api.putVolume(volumeHandle, { sizeBytes: volumeBytes });
  await makeExt4(path, tree);
  const files = (await walk(tree)).length;
  const { blocks } = await stat(path);
  tell.say(
    "volume",
    `ext4 with ${files} files of ${source}, ${bytesText(blocks * 512)} of ${bytesText(volumeBytes)} in use`,
  );
  await applyAsArgo(world, storageClass(["harbor", "island"]));
  await applyAsArgo(world, schedule({ suspend: false }));
  await world.mainland.plane.kubectl(["apply", "-f", "-"], { input: volumeAndClaim(volumeBytes) });
  await eventually("the claim being bound", async () => {
    const { stdout } = await world.mainland.plane.kubectl(["get", "pv", "pv-books", "-o", "jsonpath={.status.phase}"]);
    return stdout === "Bound" || undefined;
  });
  tell.say("claim", "library/books is bound to pv-books; its class migrates to harbor and island");
  return tree;
}

/** Copies folders of `source`, in the order of their names, until there are enough bytes. */
async function copySome(source: string, tree: string, bytesMin: number): Promise<void> {
  await mkdir(tree);
  let bytes = 0;
  for (const name of (await readdir(source)).sort()) {
    await cp(join(source, name), join(tree, name), { recursive: true, verbatimSymlinks: true });
    for (const path of await walk(tree, name)) bytes += (await lstat(join(tree, path))).size;
    if (bytes >= bytesMin) return;
  }
}

async function firstMigration(world: World, tell: Narrator, tree: string): Promise<void> {
  const { harbor } = world;
  const migrated = await eventually("a migrated volume at harbor", async () => {
    const { items } = await harbor.storage.api.listMigratedVolumes();
    return items.find(({ state }) => state === "Frozen")?.name;
  });
  const asked = await harbor.storage.api.putClone("early-reader", { migratedVolume: migrated, point: "latest" });
  assert.equal(asked.state, "Waiting", "a clone of a frozen volume has to wait");
  tell.say("clone", `early-reader waits: ${migrated} is frozen until its first point is complete`);
  const served = await eventually("the waiting clone being served", async () => {
    const clone = await harbor.storage.api.getClone("early-reader");
    return clone.state === "Ready" ? clone : undefined;
  });
  tell.say("clone", `early-reader was served by the commit, with point ${served.pointId?.slice(0, 8)}`);
  await compareTree(world, tell, { clone: served, tree, name: "early-reader" });
}

async function increment(world: World, tell: Narrator, tree: string): Promise<void> {
  const { path } = await world.mainland.storage.api.getVolume(volumeHandle);
  const files = await changedFiles(tree);
  await writeInto(path, files);
  const changedAt = Date.now();
  tell.say("files", `${files.length} files changed in the file system on the volume`);
  for (const target of [world.harbor.storage, world.island]) {
    const point = await eventually(`the changes at ${target.name}`, async () => {
      const { items } = await target.api.listMigratedVolumes();
      const newest = items[0]?.points.at(-1);
      return newest !== undefined && Date.parse(newest.sourceTime) > changedAt ? newest : undefined;
    });
    const { uid } = await world.mainland.storage.api.getVolume(volumeHandle);
    const name = `${target.name}-reader`;
    const migratedVolume = await migratedName(target, uid);
    const clone = await target.api.putClone(name, { migratedVolume, point: point.pointId });
    await compareTree(world, tell, { clone, tree, name });
  }
}

/** Changes every so many-th document in the tree, and says which. */
async function changedFiles(tree: string): Promise<{ from: string; path: string }[]> {
  const files: { from: string; path: string }[] = [];
  for (const path of await walk(tree)) {
    const from = join(tree, path);
    if ((await lstat(from)).isFile() && !/[ "]/.test(path)) files.push({ from, path: `/${path}` });
  }
  const chosen = files.filter((_, index) => index % 40 === 0);
  for (const { from } of chosen) {
    const text = await readFile(from);
    await writeFile(from, Buffer.concat([Buffer.from(`Changed at ${new Date().toISOString()}\n`), text]));
  }
  return chosen;
}

/** The clone's files, extracted from its image, against the tree the volume was made of. */
async function compareTree(
  world: World,
  tell: Narrator,
  { clone, tree, name }: { clone: CloneView; tree: string; name: string },
): Promise<void> {
  assert.ok(clone.path, `clone ${name} has no image`);
  const folder = join(world.folder, name);
  await mkdir(folder);
  await extract(clone.path, folder);
  const [expected, found] = [await treeOf(tree), await treeOf(folder)];
  const wrong = differences(expected, found);
  assert.deepEqual(wrong.slice(0, 5), [], `clone ${name} differs from the source's files`);
  tell.say("compared", `${name}: ${found.size} files, folders and links, all as at the source`);
}

async function quiet({ mainland }: World): Promise<void> {
  await eventually("the jobs ending", async () => {
    const { items } = await mainland.storage.api.listJobs();
    return items.every((job) => job.finishedAt !== null) || undefined;
  });
}

async function showObjects({ mainland, harbor }: World, tell: Narrator): Promise<void> {
  const kinds: [World["mainland"], string][] = [
    [mainland, "migrationlocations"],
    [mainland, "snapshotschedules"],
    [mainland, "volumemigrations"],
    [mainland, "migrationjobs"],
    [harbor, "migrationsources"],
    [harbor, "migratedvolumes"],
  ];
  for (const [site, kind] of kinds) {
    const { stdout } = await site.plane.kubectl(["get", kind]);
    assert.notEqual(stdout, "", `there are no ${kind} on ${site.plane.name}`);
    tell.block(`$ kubectl --context ${site.plane.name} get ${kind}\n${stdout}`);
  }
}

async function measureAll(world: World, volumeUid: string, ended: readonly JobView[]): Promise<Migration[]> {
  const migrations: Migration[] = [];
  for (const job of ended) {
    assert.equal(job.state, "Succeeded", `job ${job.name}: ${job.error?.detail}`);
    const target = job.spec.location === "harbor" ? world.harbor.storage : world.island;
    migrations.push(await measure(job, { source: world.mainland.storage, target, volumeUid }));
  }
  return migrations;
}
