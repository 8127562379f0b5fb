// Two clusters that Longshore is installed in and that know each other: `mainland` sends, `harbor` receives. They are of the tests'
// own making, of kubelets on this machine, unless SOURCE_KUBECONFIG and TARGET_KUBECONFIG lead to others.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { parse } from "yaml";
import { temporaryFolder } from "../../fakes/temporary-folder.ts";
import type { Manifest } from "../kube-client.ts";
import { openKubeletNetwork, startKubeletCluster } from "../kubelets/cluster.ts";
import { archiveOf, type Image, makeImages, systemImages } from "../kubelets/image-archives.ts";
import { collectFigures, type Figures } from "./figures.ts";
import { installLongshore, keysIn, pairClusters } from "./install.ts";
import { apply, list } from "./kube.ts";
import { fileSystem, migrating, namespace, namespaces, schedule, storageClass } from "./objects.ts";
import { auditPolicy, givenCluster, ownCluster, type TestCluster } from "./test-cluster.ts";
import { until } from "./watching.ts";

export interface World {
  readonly source: TestCluster;
  readonly target: TestCluster;
  readonly figures: Figures;
  close(): Promise<void>;
}

/** The MigrationLocations, all of them `harbor`: one as it is, one for few jobs at once, one that is made slow. */
export const locations = ["harbor", "narrow", "slow"] as const;

/** Every so many seconds, and at once over there when the next one exists. */
export const oftenSeconds = 5;

/** Kubeconfigs of clusters that are there, if any are named. */
export function givenKubeconfigs(): { readonly source: string; readonly target: string } | undefined {
  const { SOURCE_KUBECONFIG: source, TARGET_KUBECONFIG: target } = process.env;
  if (!source && !target) return undefined;
  if (!source || !target) throw new Error("give both SOURCE_KUBECONFIG and TARGET_KUBECONFIG, or neither");
  return { source, target };
}

const images: readonly Image[] = [...systemImages, "busybox", "postgres"];
const diskBytes = 3 * 2 ** 30;

/** Starts the clusters where none are given, installs and pairs them, and makes the classes and schedules of the scenarios. */
export async function openWorld(): Promise<World> {
  const closers: Closers = [];
  const close = () => closeAll(closers);
  try {
    const folder = await temporaryFolder("csi-clusters");
    closers.push(() => folder.remove());
    const { source, target } = await clustersIn(folder.path, closers);
    const [sourceFolder, targetFolder] = [join(folder.path, "install-source"), join(folder.path, "install-target")];
    await bothOf(installLongshore(source, sourceFolder), installLongshore(target, targetFolder));
    await pair({ source, target }, keysIn(sourceFolder), keysIn(targetFolder));
    return { source, target, figures: collectFigures(), close };
  } catch (error) {
    await close();
    throw error;
  }
}

export type Clusters = Pick<World, "source" | "target">;

/** What undoes each thing that was made, in the order of their making. */
export type Closers = (() => Promise<void>)[];

/** The newest first. */
export async function closeAll(closers: Closers): Promise<void> {
  for (const closer of closers.splice(0).reverse()) await closer();
}

async function clustersIn(folder: string, closers: Closers): Promise<Clusters> {
  const given = givenKubeconfigs();
  if (given === undefined) return openClusters(folder, closers);
  const homes = [join(folder, "home-source"), join(folder, "home-target")] as const;
  for (const home of homes) await mkdir(home);
  const source = await givenCluster("mainland", given.source, homes[0]);
  return { source, target: await givenCluster("harbor", given.target, homes[1]) };
}

/** Two clusters of kubelets in which nothing is installed yet, on one network. What ends them is added to `closers`. */
export async function openClusters(folder: string, closers: Closers): Promise<Clusters> {
  await makeImages();
  const network = await openKubeletNetwork(["mainland-1", "harbor-1", "harbor-2"]);
  closers.push(() => network.network.close());
  const start = async (name: string, nodes: readonly string[]) => {
    const options = { name, nodes, images: images.map(archiveOf), diskBytes, auditPolicy };
    const cluster = await startKubeletCluster(network, join(folder, name), options);
    closers.push(() => cluster.stop());
    return ownCluster(cluster);
  };
  const [source, target] = await bothOf(start("mainland", ["mainland-1"]), start("harbor", ["harbor-1", "harbor-2"]));
  return { source, target };
}

/** Awaits each to its end, so that what it started is known when the other one fails. */
async function bothOf<A, B>(one: Promise<A>, other: Promise<B>): Promise<[A, B]> {
  await Promise.allSettled([one, other]);
  return Promise.all([one, other]);
}

async function pair({ source, target }: Clusters, sourceKeys: string, targetKeys: string): Promise<void> {
  const spaces = namespaces.map(namespace);
  await bothOf(apply(source, ...spaces), apply(target, ...spaces));
  const pairing = await pairClusters(sourceKeys, targetKeys, await seedsOf(target));
  const consent = parse(await pairing.source("mainland")) as Manifest & { readonly spec: object };
  const publications = namespaces.map((each) => ({ sourceNamespaces: [each], namespace: each }));
  await apply(target, { ...consent, spec: { ...consent.spec, publications } }, storageClass("clones"));
  await apply(source, ...schedules, ...classes);
  for (const name of locations) await apply(source, parse(await pairing.location(name)) as Manifest);
  for (const name of locations) {
    await until(source, { kind: "migrationlocations", name }, "being Ready", ({ status }) => {
      const conditions: { type: string; status: string }[] = status?.conditions ?? [];
      return conditions.some((condition) => condition.type === "Ready" && condition.status === "True");
    });
  }
}

/** Where the target's agents are reached. */
async function seedsOf(target: TestCluster): Promise<string[]> {
  const nodes = await list(target, "nodes");
  return nodes.flatMap(({ metadata, status }) => {
    const addresses: { type: string; address: string }[] = status?.addresses ?? [];
    const internal = addresses.find(({ type }) => type === "InternalIP");
    return target.nodes.includes(metadata.name) && internal !== undefined ? [`${internal.address}:7420`] : [];
  });
}

const often = `${oftenSeconds}s`;

const schedules: readonly Manifest[] = [
  schedule("often", { interval: often, retention: { age: often }, successfulJobsHistoryLimit: 100 }),
  schedule("back-to-back", { interval: "1s", retention: { age: "1s" }, migrateOn: "Creation" }),
  // Whose snapshots stay for as long as the clusters do.
  schedule("kept", { interval: often, retention: { age: "1h" } }),
  // For volumes that are migrated by a job of their user's.
  schedule("on-demand", { interval: "1h", retention: { age: "1h" }, suspend: true }),
];

const later = "WaitForFirstConsumer";

const classes: readonly Manifest[] = [
  storageClass("often", { ...fileSystem("ext4"), ...migrating("harbor", "often") }, later),
  storageClass("on-demand", { ...fileSystem("ext4"), ...migrating("harbor", "on-demand") }, later),
  storageClass("on-demand-xfs", { ...fileSystem("xfs"), ...migrating("harbor", "on-demand") }, later),
  storageClass("on-demand-slow", migrating("slow", "on-demand"), later),
  storageClass("plain"),
  storageClass("attic"),
  storageClass("misspelt", { migrationEnabel: "true" }),
];
