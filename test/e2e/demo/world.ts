// The demo's world: two Kubernetes control planes and three storage clusters. `mainland` is the source; `harbor` is a target with
// Kubernetes of its own, `island` a plain storage host without, for an agent knows nothing of Kubernetes.
import { rmSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { mountLoop } from "../../fakes/loop-fs.ts";
import { onInterrupt } from "../../interrupt.ts";
import { missing } from "../../machine.ts";
import { type ControlPlane, startControlPlane } from "../control-plane.ts";
import { openSite, type Site } from "../site.ts";
import { type StorageCluster, startStorageCluster } from "../storage-cluster.ts";
import type { Narrator } from "./narrator.ts";

export interface World {
  /** For whatever the demo needs besides. */
  readonly folder: string;
  readonly mainland: Site;
  readonly harbor: Site;
  readonly island: StorageCluster;
  readonly backend: "reflink" | "copy";
}

type Closer = () => Promise<unknown>;

/** Starts everything; what was started is pushed to `closers`, to be undone in the opposite order. */
export async function openWorld(tell: Narrator, closers: Closer[], signal: AbortSignal): Promise<World> {
  const folder = await mkdtemp(join(tmpdir(), "longshore-demo-"));
  // Registered first, so it is undone last: after the processes that write into it.
  onInterrupt(() => rmSync(folder, { recursive: true, force: true }));
  closers.push(() => rm(folder, { recursive: true, force: true }));
  const complaint = missing("xfs");
  const backend = complaint === undefined ? "reflink" : "copy";
  tell.say(
    "storage",
    backend === "reflink" ? "reflink, each on an XFS of its own" : `copy, for XFS cannot be mounted here: ${complaint}`,
  );
  const planes = startPlanes(closers, signal);
  const names = ["mainland", "harbor", "island"];
  const storages = await Promise.all(names.map((name) => openStorage(name, { folder, backend }, closers)));
  const [mainland, harbor, island] = storages as [StorageCluster, StorageCluster, StorageCluster];
  tell.say("agents", "three storage clusters answer, each with a CA of its own");
  const [one, two] = await planes;
  tell.say("kubernetes", `two control planes: ${one.server}, ${two.server}`);
  const sites = await Promise.all([
    openSite(one, mainland, join(folder, "mainland")),
    openSite(two, harbor, join(folder, "harbor")),
  ]);
  for (const site of sites) closers.push(() => site.stop());
  tell.say("operators", "running as service accounts with the RBAC of manifests/");
  return { folder, mainland: sites[0], harbor: sites[1], island, backend };
}

async function startPlanes(closers: Closer[], signal: AbortSignal): Promise<[ControlPlane, ControlPlane]> {
  const start = async (name: string) => {
    const plane = await startControlPlane({ name, signal });
    closers.push(() => plane.stop());
    return plane;
  };
  return Promise.all([start("mainland"), start("harbor")]);
}

async function openStorage(
  name: string,
  { folder, backend }: { folder: string; backend: "reflink" | "copy" },
  closers: Closer[],
): Promise<StorageCluster> {
  let dataDir: string | undefined;
  if (backend === "reflink") {
    const loop = await mountLoop({ fs: "xfs", sizeBytes: 900 * 2 ** 20, mkfsArgs: ["-m", "reflink=1"] });
    closers.push(() => loop.unmount());
    dataDir = join(loop.path, "longshore");
  }
  const cluster = await startStorageCluster({
    name,
    folder: join(folder, name),
    backend,
    ...(dataDir !== undefined && { dataDir }),
  });
  closers.push(() => cluster.stop());
  return cluster;
}
