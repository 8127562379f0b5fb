// Which snapshots are past their retention. Expiry is what makes a snapshot due for migration; deleting it comes later.

export interface Retention {
  /** A snapshot at least this old has expired. */
  readonly ageMs?: number;
  /** Snapshots older than the newest so many have expired. */
  readonly count?: number;
}

export interface Aged {
  readonly name: string;
  /** When the snapshot was taken. */
  readonly timeMs: number;
}

export interface Expiry {
  /** In the order given. */
  readonly expired: readonly string[];
  /** When the next one expires by age; absent when none will. */
  readonly nextMs?: number;
}

/** Judges a volume's scheduled snapshots, given oldest first. The first limit that is passed counts. */
export function expiryOf(snapshots: readonly Aged[], { ageMs, count }: Retention, nowMs: number): Expiry {
  const firstCounted = count === undefined ? 0 : Math.max(0, snapshots.length - count);
  const isExpired = ({ timeMs }: Aged, index: number) =>
    index < firstCounted || (ageMs !== undefined && nowMs - timeMs >= ageMs);
  const expired = snapshots.filter(isExpired).map(({ name }) => name);
  const kept = snapshots.filter((snapshot, index) => !isExpired(snapshot, index));
  if (ageMs === undefined || kept.length === 0) return { expired };
  return { expired, nextMs: Math.min(...kept.map(({ timeMs }) => timeMs + ageMs)) };
}
