// Affinity: volumes that are used together get their copies at one home. It is kept with the volume, told when a home is asked
// for and with each claim, and remembered where the copy is, so that those that come later are drawn there.
import type { Claim, LocateRequest } from "../wire/peer.ts";
import type { Core } from "./core.ts";
import type { VolumeRow } from "./volume-rows.ts";

/** What is told of a volume's affinity wherever its copy is asked for. */
export function claimedAffinity({ affinity }: Pick<VolumeRow, "affinity">): Pick<Claim, "affinity"> {
  return affinity === null ? {} : { affinity };
}

/** As {@link claimedAffinity}, of a volume that perhaps is another agent's: that one's is not known here. */
export function affinityHere({ journal }: Pick<Core, "journal">, uid: string): Pick<Claim, "affinity"> {
  const row = journal.get<VolumeRow>("SELECT * FROM volumes WHERE uid = ?", uid);
  return row === undefined ? {} : claimedAffinity(row);
}

/** The affinities in a request, each once. */
export function affinitiesOf({ volumes }: LocateRequest): string[] {
  return [...new Set(volumes.flatMap(({ affinity }) => affinity ?? []))];
}
