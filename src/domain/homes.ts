// Where the copy of a volume lives among the agents of a target cluster. Pure: what the agents answered goes in.

/** What one agent says of one volume's copy. */
export interface CopyFacts {
  readonly agentId: string;
  /** `false`: it was only decided that the copy shall be there. */
  readonly isMade: boolean;
  readonly points: number;
  readonly epoch: number;
}

export type Home =
  | { readonly kind: "at"; readonly agentId: string }
  /** These may have it, and did not answer. */
  | { readonly kind: "unknown"; readonly silent: readonly string[] }
  | { readonly kind: "new" };

/**
 * A copy that was made is at home where it was made; should there be several (agents restored from old disks), where the
 * most has arrived. A new one is placed only when everybody has said that there is none.
 */
export function findHome(facts: readonly CopyFacts[], silent: readonly string[]): Home {
  const [made] = facts.filter(({ isMade }) => isMade).sort(byWorth);
  if (made !== undefined) return { kind: "at", agentId: made.agentId };
  if (silent.length > 0) return { kind: "unknown", silent };
  const [placed] = [...facts].sort(byWorth);
  return placed === undefined ? { kind: "new" } : { kind: "at", agentId: placed.agentId };
}

function byWorth(a: CopyFacts, b: CopyFacts): number {
  return b.points - a.points || b.epoch - a.epoch || (a.agentId < b.agentId ? -1 : 1);
}

export interface Room {
  readonly agentId: string;
  /** Without what was placed there and has not arrived yet; below zero where that is more than there is room for. */
  readonly freeBytes: number;
  /** Ids of points here that copies could start from. */
  readonly originals?: readonly string[];
}

/** What draws a new copy to one home or another. */
interface Ties {
  readonly rooms: readonly Room[];
  /** Homes of the copies of its group. */
  readonly siblings: readonly string[];
  /** Homes of copies with the same affinity. */
  readonly near?: readonly string[];
  /** The point that it can start from. */
  readonly original?: string;
}

/**
 * The home of a new copy: where the point is that it can start from; with its siblings, or else with those of its affinity, if
 * it fits there, so that a pod can use all of them; else where most is free.
 */
export function chooseHome(sizeBytes: number, { rooms, siblings, near = [], original }: Ties): string | undefined {
  const origin = rooms.find(({ originals = [] }) => original !== undefined && originals.includes(original));
  if (origin !== undefined) return origin.agentId;
  const byRoom = [...rooms].sort((a, b) => b.freeBytes - a.freeBytes || (a.agentId < b.agentId ? -1 : 1));
  const roomiest = (among: readonly string[]) =>
    byRoom.find(({ agentId, freeBytes }) => among.includes(agentId) && freeBytes >= sizeBytes);
  return (roomiest(siblings) ?? roomiest(near) ?? byRoom[0])?.agentId;
}
