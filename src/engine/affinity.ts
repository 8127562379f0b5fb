// Affinity: volumes that are used together get their copies at one home. It is kept with the volume, told when a home is asked
// for and with each claim, and remembered where the copy is, so that those that come later are drawn there.
import { codeOf } from "../domain/errors.ts";
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

/** The same request without affinities; undefined when there are none in it. */
export function withoutAffinity<R extends LocateRequest>(request: R): R | undefined {
  if (affinitiesOf(request).length === 0) return undefined;
  const volumes = request.volumes.map(({ affinity: _, ...volume }) => volume);
  return { ...request, volumes };
}

/**
 * Asks and, where that is refused, asks for the plain request, if there is one: bodies between agents are strict, and an agent of
 * the version before does not know of affinities. What it answers then is as good as it was before.
 */
export async function askOrPlain<R, A>(ask: (request: R) => Promise<A>, full: R, plain: R | undefined): Promise<A> {
  try {
    return await ask(full);
  } catch (error) {
    if (plain === undefined || codeOf(error) !== "BadRequest") throw error;
    return ask(plain);
  }
}
