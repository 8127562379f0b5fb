// How much of a volume is used, where a pod has it.
import type { NodeVolumeUsage } from "./node-messages.ts";
import { checkMounted, type NodeParts, stagedVolume } from "./node-parts.ts";
import { CsiError } from "./status.ts";

/** NOT_FOUND for a volume that is not staged here, and for a path where it is not. */
export async function statsOf(
  parts: NodeParts,
  { volume, path }: { volume: string; path: string },
): Promise<NodeVolumeUsage[]> {
  const staged = await stagedVolume(parts, volume);
  if (staged === undefined) throw new CsiError("NOT_FOUND", `volume ${volume} is not staged on this node`);
  const mounted = parts.host.reaches(path) ? await parts.host.mountAt(path) : undefined;
  if (mounted?.device !== staged.device.number) {
    throw new CsiError("NOT_FOUND", `volume ${volume} is not published at ${path}`);
  }
  checkMounted(volume, staged, mounted);
  const usage = await parts.host.usage(mounted);
  if (usage.kind === "block") return [{ unit: "BYTES", total: usage.totalBytes }];
  const { bytes, inodes } = usage;
  // A btrfs has no limit to them, and an alert on "all of none are used" helps nobody.
  return [{ unit: "BYTES", ...bytes }, ...(inodes.total > 0 ? [{ unit: "INODES" as const, ...inodes }] : [])];
}
