// What to bring where, and which snapshots nobody needs any more, for one volume. Locations do not wait for each other:
// each has its own base, and at most one job. A backlog is coalesced: only the newest due snapshot is brought over.

export interface SnapshotFacts {
  readonly name: string;
  readonly pointId: string;
  /** Closed by the snapshot; later snapshots of the volume have higher ones. */
  readonly generation: number;
  /** `demand`: taken for a user's job; it is no concern of the retention, and due for nobody else. */
  readonly origin: "schedule" | "demand";
  readonly isExpired: boolean;
  /** Sealed, its file present, and not on its way out: fit to be brought over. */
  readonly isWhole: boolean;
  /** Its owner, that is us, has released it already. */
  readonly isReleased: boolean;
}

/** A job that has not ended, or is asked for and not yet begun. */
export interface JobFacts {
  readonly fromPointId?: string;
  /** The name of the snapshot it brings over; it may not have been taken yet. */
  readonly toSnapshot: string;
}

export interface LocationFacts {
  readonly name: string;
  readonly base?: { readonly pointId: string; readonly generation: number };
  readonly jobs: readonly JobFacts[];
  /**
   * The names of the snapshots of jobs to it that ended, however they ended: a failed one is not tried again, its changes are
   * part of the next. Names, for numbers begin again when an agent is restored from an old disk.
   */
  readonly triedSnapshots: readonly string[];
  /** Why no job may be started now; what is due stays due. */
  readonly blocked?: string;
}

export interface VolumeFacts {
  readonly migrateOn: "Expiry" | "Creation";
  /** Oldest first. */
  readonly snapshots: readonly SnapshotFacts[];
  /** Every location of the policy, and every other one that has a base or a job. */
  readonly locations: readonly LocationFacts[];
  /** The locations of the policy; empty when the volume is not (any longer) enabled. */
  readonly wanted: readonly string[];
}

export interface DueJob {
  readonly location: string;
  readonly snapshot: string;
  readonly pointId: string;
  readonly generation: number;
}

export interface MigrationPlan {
  readonly jobs: readonly DueJob[];
  /** Names of snapshots to release, oldest first. */
  readonly releases: readonly string[];
  /** Locations to which something is due that may not be started now, and why. */
  readonly blocked: readonly { readonly location: string; readonly reason: string }[];
}

/** Decides what to start and what to release. Never releases what a location still needs. */
export function planMigrations(facts: VolumeFacts): MigrationPlan {
  const candidate = candidateOf(facts);
  const due = candidate === undefined ? [] : facts.locations.filter((location) => isDue(location, candidate, facts));
  const ready = due.filter(({ blocked, jobs }) => blocked === undefined && jobs.length === 0);
  return {
    jobs: candidate === undefined ? [] : ready.map(({ name }) => dueJob(name, candidate)),
    releases: releasable(facts, candidate).map(({ name }) => name),
    blocked: due.flatMap(({ name, blocked }) => (blocked === undefined ? [] : [{ location: name, reason: blocked }])),
  };
}

function dueJob(location: string, { name, pointId, generation }: SnapshotFacts): DueJob {
  return { location, snapshot: name, pointId, generation };
}

/** The snapshot that locations should get next: the newest expired one, or the newest of all. */
function candidateOf({ snapshots, migrateOn }: VolumeFacts): SnapshotFacts | undefined {
  return snapshots.findLast(
    ({ origin, isWhole, isReleased, isExpired }) =>
      origin === "schedule" && isWhole && !isReleased && (isExpired || migrateOn === "Creation"),
  );
}

function isDue(location: LocationFacts, candidate: SnapshotFacts, { wanted }: VolumeFacts): boolean {
  return (
    wanted.includes(location.name) && isBehind(location, candidate) && !location.triedSnapshots.includes(candidate.name)
  );
}

function isBehind({ base }: LocationFacts, { generation }: SnapshotFacts): boolean {
  return base === undefined || base.generation < generation;
}

function releasable(facts: VolumeFacts, candidate: SnapshotFacts | undefined): readonly SnapshotFacts[] {
  const { snapshots, locations, wanted } = facts;
  const isNeededNext = locations.some((each) => wanted.includes(each.name) && candidate && isBehind(each, candidate));
  return snapshots.filter(
    (snapshot) =>
      !snapshot.isReleased &&
      (snapshot.isExpired || snapshot.origin === "demand") &&
      !(isNeededNext && snapshot === candidate) &&
      !locations.some((location) => isInUse(location, snapshot)),
  );
}

function isInUse({ base, jobs }: LocationFacts, { name, pointId }: SnapshotFacts): boolean {
  return base?.pointId === pointId || jobs.some((job) => job.fromPointId === pointId || job.toSnapshot === name);
}
