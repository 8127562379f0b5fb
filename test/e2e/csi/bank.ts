// A database in one cluster is written to while it is snapshotted and migrated again and again; in the other it comes up from a
// clone, whole, and as it was at a time of the schedule.
import { expect } from "@jest/globals";
import { dueOfSnapshot } from "../../../src/domain/names.ts";
import {
  checkDatabase,
  databaseServes,
  entriesBefore,
  judgeDatabase,
  ledger,
  ledgerClaim,
  ledgerPod,
  restored,
} from "./database.ts";
import { apply, get, list, remove } from "./kube.ts";
import { copyOf, pointOf, publishedAs, volumeOf } from "./migration.ts";
import { claim } from "./objects.ts";
import { oftenSeconds, type World } from "./world.ts";

const namespace = "bank";
const ledgerRef = { namespace, name: ledgerClaim };

/** Goes on for as long as the clusters do. */
export async function openBank({ source }: World): Promise<void> {
  await apply(source, ledger("often"));
  await databaseServes(source, ledgerPod);
}

export async function databaseComesUpFromAClone({ source, target }: World): Promise<void> {
  const volume = await volumeOf(source, ledgerRef);
  // One migration after the other has brought something while the database was written to.
  await copyOf(target, ledgerRef, "having several points", ({ status }) => (status?.newestPoint?.generation ?? 0) >= 3);
  await publishedAs(target, ledgerRef);
  const wish = { namespace, name: "restored", storageClass: "clones", size: "1Gi", from: ledgerClaim } as const;
  await apply(target, claim(wish), restored("restored", "restored"));
  await databaseServes(target, "restored");
  await checkDatabase(target, "restored");
  const found = await judgeDatabase(target, "restored");
  expect(found).toMatchObject({ broken: 0, sum: 0 });

  const point = await pointOf(target, wish);
  const jobs = await list(source, "migrationjobs");
  const job = jobs.find(({ spec, status }) => spec.volumeName === volume && status?.to?.pointId === point);
  const dueMs = dueOfSnapshot(job?.status.to.snapshot ?? "") ?? Number.NaN;
  expect(dueMs % (oftenSeconds * 1_000)).toBe(0);
  // All that was there when the snapshot was due, and nothing that was written after it had arrived.
  expect(found.entries).toBeGreaterThanOrEqual(await entriesBefore(source, ledgerPod, dueMs));
  expect(Date.parse(found.lastWritten)).toBeLessThan(Date.parse(job?.status.completionTime));
  const modes = jobs.filter(({ spec }) => spec.volumeName === volume).map(({ status }) => status?.mode);
  expect(modes).toContain("Delta");

  // Who writes has noticed nothing.
  const { status } = await get(source, { kind: "pod", namespace, name: ledgerPod });
  const containers: { name: string; restartCount: number }[] = status.containerStatuses;
  expect(containers.map(({ restartCount }) => restartCount)).toEqual([0, 0]);
  await remove(target, "pod", namespace, ["restored"]);
  await remove(target, "pvc", namespace, ["restored"]);
}
