// What the demo measured: one row for each migration, written to .cache/demo/report.json and shown as a table.
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { JobView } from "../../../src/wire/schemas.ts";
import { differingBytes, isEqualByCmp } from "../images.ts";
import type { StorageCluster } from "../storage-cluster.ts";
import { bytesText } from "./narrator.ts";

export interface Migration {
  readonly location: string;
  readonly from: string | null;
  readonly to: string;
  readonly mode: string;
  /** Counted by comparing the two snapshots block by block; the planner is not asked. */
  readonly bytesChanged: number;
  readonly bytesSent: number;
  readonly milliseconds: number;
  /** A clone of the point at the target is, by cmp, the source's snapshot. */
  readonly verified: boolean;
}

/** Measures a migration that has ended: both snapshots must still be there at the source, and the point at the target. */
export async function measure(
  job: JobView,
  at: { source: StorageCluster; target: StorageCluster; volumeUid: string },
): Promise<Migration> {
  const { source, target, volumeUid } = at;
  if (job.to === null) throw new Error(`job ${job.name} has no point`);
  const snapshot = source.pointFile(volumeUid, job.to.pointId);
  const base = job.from === null ? undefined : source.pointFile(volumeUid, job.from.pointId);
  const name = `check-${job.spec.location}-${job.to.generation}`;
  const clone = await target.api.putClone(name, {
    migratedVolume: await migratedName(target, volumeUid),
    point: job.to.pointId,
  });
  try {
    return {
      location: job.spec.location,
      from: job.from?.pointId ?? null,
      to: job.to.pointId,
      mode: job.mode === null ? "none" : `${job.mode.kind} (${job.mode.reason})`,
      bytesChanged: await differingBytes(base, snapshot),
      bytesSent: job.bytesSent,
      milliseconds: job.durationMs ?? 0,
      verified: clone.path !== null && (await isEqualByCmp(snapshot, clone.path)),
    };
  } finally {
    await target.api.removeClone(name);
  }
}

export async function migratedName(target: StorageCluster, volumeUid: string): Promise<string> {
  const { items } = await target.api.listMigratedVolumes();
  const found = items.find((item) => item.sourceVolumeUid === volumeUid);
  if (found === undefined) throw new Error(`${target.name} has no copy of volume ${volumeUid}`);
  return found.name;
}

export async function writeReport(root: string, report: object): Promise<string> {
  const folder = join(root, ".cache/demo");
  await mkdir(folder, { recursive: true });
  const file = join(folder, "report.json");
  await writeFile(file, `${JSON.stringify(report, null, 2)}\n`);
  return file;
}

export const summaryHeader = ["location", "mode", "from", "to", "changed", "sent", "sent/changed", "time", "verified"];

export function summaryRow(migration: Migration): string[] {
  const { location, mode, from, to, bytesChanged, bytesSent, milliseconds, verified } = migration;
  const ratio = bytesChanged === 0 ? "-" : (bytesSent / bytesChanged).toFixed(3);
  return [
    location,
    mode,
    from?.slice(0, 8) ?? "-",
    to.slice(0, 8),
    bytesText(bytesChanged),
    bytesText(bytesSent),
    ratio,
    `${milliseconds} ms`,
    verified ? "yes" : "NO",
  ];
}
