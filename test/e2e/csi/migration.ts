// Volumes on their way from one cluster to the other, as users of both see them.
import { randomBytes } from "node:crypto";
import type { Seen } from "../kube-client.ts";
import { apply, get, longshore } from "./kube.ts";
import { migrationJob } from "./objects.ts";
import type { TestCluster } from "./test-cluster.ts";
import { until, untilOne } from "./watching.ts";

export interface ClaimRef {
  readonly namespace: string;
  readonly name: string;
}

/** The PersistentVolume of a claim, once it has one. */
export async function volumeOf(cluster: TestCluster, claim: ClaimRef): Promise<string> {
  const isBound = ({ status }: Seen) => status?.phase === "Bound";
  const bound = await until(cluster, { kind: "pvc", ...claim }, "being bound", isBound);
  return bound.spec.volumeName as string;
}

/** Has a claim's volume migrated now; resolves with the job's name when the operator knows it. */
export async function startMigration(source: TestCluster, claim: ClaimRef, location: string): Promise<string> {
  const volume = await volumeOf(source, claim);
  const name = `${claim.name}-${randomBytes(4).toString("hex")}`;
  await until(source, { kind: "volumemigrations", name: volume }, "being known", () => true);
  await apply(source, migrationJob(name, volume, location));
  return name;
}

/** Waits until a job has succeeded; throws what it failed of. */
export async function jobSucceeds(source: TestCluster, name: string): Promise<Seen> {
  const ends = ["Succeeded", "Failed", "Cancelled"];
  const isOver = ({ status }: Seen) => ends.includes(status?.phase ?? "");
  const job = await until(source, { kind: "migrationjobs", name }, "the job having ended", isOver);
  if (job.status.phase !== "Succeeded") throw new Error(`job ${name} ${job.status.phase}: ${job.status.message}`);
  return job;
}

/** Has a claim's volume migrated, and resolves with the job when it has arrived. */
export async function migrate(source: TestCluster, claim: ClaimRef, location: string): Promise<Seen> {
  return jobSucceeds(source, await startMigration(source, claim, location));
}

/** The MigratedVolume of a source claim, once `holds` of it. */
export function copyOf(
  target: TestCluster,
  claim: ClaimRef,
  what: string,
  holds: (copy: Seen) => boolean = () => true,
): Promise<Seen> {
  return untilOne(target, { kind: "migratedvolumes" }, `copy of ${claim.name} ${what}`, (copy) => {
    const of: Partial<ClaimRef> = copy.status?.claim ?? {};
    return of.namespace === claim.namespace && of.name === claim.name && holds(copy);
  });
}

/** The VolumeSnapshot that a source claim's copy is published as, once clones can be made of it. */
export function publishedAs(target: TestCluster, { namespace, name }: ClaimRef): Promise<Seen> {
  const isReady = ({ status }: Seen) => status?.readyToUse === true;
  return until(target, { kind: "volumesnapshots", namespace, name }, "being ready to use", isReady);
}

/** By which agents know the volume of a claim. */
export const handleOf = ({ metadata }: Seen) => `pvc-${metadata.uid}`;

/** The point in time that a claim's volume was cloned from. */
export async function pointOf(target: TestCluster, { namespace, name }: ClaimRef): Promise<string> {
  const claim = await get(target, { kind: "pvc", namespace, name });
  const volume = await longshore<{ lineage: { pointId: string } | null }>(target, "volume", "show", handleOf(claim));
  if (volume.lineage === null) throw new Error(`${namespace}/${name} is no clone`);
  return volume.lineage.pointId;
}
