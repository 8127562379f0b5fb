// What to bring where, and which snapshots nobody needs any more, for one volume. Locations do not wait for each other:
// each has its own base, and at most one job. A backlog is coalesced: only the newest due snapshot is brought over.
//
// The volumes of a consistency group go together: a snapshot that was taken of all of them is due when it is due for one,
// is brought over in one job when each of them has it and is behind it, and is kept by each until that is so no more.
import { dueOfSnapshot } from "./names.ts";

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
  /** The id that it shares with those of the other volumes it was taken together with. */
  readonly groupPoint?: string;
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
  readonly volume: string;
  readonly migrateOn: "Expiry" | "Creation";
  /** Oldest first. */
  readonly snapshots: readonly SnapshotFacts[];
  /** Every location of the policy, and every other one that has a base or a job. */
  readonly locations: readonly LocationFacts[];
  /** The locations of the policy; empty when the volume is not (any longer) enabled. */
  readonly wanted: readonly string[];
  /** The other volumes of its consistency group; absent for a volume by itself. */
  readonly peers?: readonly PeerFacts[];
}

/** Another volume of the same consistency group. */
export interface PeerFacts extends Pick<VolumeFacts, "volume" | "locations"> {
  /** `undefined`: nobody is seen to hold it, so what it has is not known. */
  readonly snapshots: readonly SnapshotFacts[] | undefined;
  /** Since when it belongs to the group, in milliseconds: it has no part in what was due by then. */
  readonly sinceMs: number;
}

export interface DueJob {
  readonly location: string;
  readonly snapshot: string;
  readonly pointId: string;
  readonly generation: number;
  /** The job is one of all these volumes, in order of name. */
  readonly group?: { readonly groupPoint: string; readonly volumes: readonly string[] };
}

export interface MigrationPlan {
  readonly jobs: readonly DueJob[];
  /** Names of snapshots to release, oldest first. */
  readonly releases: readonly string[];
  /** Locations to which something is due that may not be started now, and why. */
  readonly blocked: readonly { readonly location: string; readonly reason: string }[];
}

/** A volume that the candidate is brought over of: the volume itself, and those of its group that have it. */
interface Carrier {
  readonly volume: string;
  readonly snapshot: SnapshotFacts;
  readonly locations: readonly LocationFacts[];
}

/** Decides what to start and what to release. Never releases what a location still needs. */
export function planMigrations(facts: VolumeFacts): MigrationPlan {
  const candidate = candidateOf(facts);
  const carriers = candidate === undefined ? [] : carriersOf(facts, candidate);
  const due = candidate === undefined ? [] : facts.locations.filter(({ name }) => isDue(name, carriers, facts));
  const ready = due.filter(({ name }) => at(carriers, name).every((each) => isFree(each)));
  return {
    jobs: candidate === undefined ? [] : ready.map(({ name }) => dueJob(name, candidate, facts.peers && carriers)),
    releases: releasable(facts, candidate, carriers).map(({ name }) => name),
    blocked: due.flatMap(({ name, blocked }) => (blocked === undefined ? [] : [{ location: name, reason: blocked }])),
  };
}

function dueJob(location: string, candidate: SnapshotFacts, carriers: readonly Carrier[] | undefined): DueJob {
  const { name, pointId, generation, groupPoint } = candidate;
  const job = { location, snapshot: name, pointId, generation };
  if (carriers === undefined || groupPoint === undefined) return job;
  return { ...job, group: { groupPoint, volumes: carriers.map(({ volume }) => volume).sort() } };
}

/** The snapshot that locations should get next: the newest expired one, or the newest of all. */
function candidateOf(facts: VolumeFacts): SnapshotFacts | undefined {
  return facts.snapshots.findLast(
    (snapshot) =>
      snapshot.origin === "schedule" &&
      isMovable(snapshot) &&
      (facts.migrateOn === "Creation" || isExpired(snapshot, facts)) &&
      isWithAll(snapshot, facts),
  );
}

function isMovable({ isWhole, isReleased }: SnapshotFacts): boolean {
  return isWhole && !isReleased;
}

/** Those of one group point expire together, with the first of them; not while any of them may be out of sight. */
function isExpired(snapshot: SnapshotFacts, { peers = [] }: VolumeFacts): boolean {
  const { groupPoint } = snapshot;
  if (groupPoint === undefined) return snapshot.isExpired;
  if (peers.some(({ snapshots }) => snapshots === undefined)) return false;
  return snapshot.isExpired || peers.some((peer) => hasExpired(partOf(peer, groupPoint)));
}

/** One whose file is lost counts as expired for its own volume, which shall let go of it, and for no other. */
function hasExpired(part: SnapshotFacts | undefined): boolean {
  return part?.isWhole === true && part.isExpired;
}

/** Whether every volume that has a part in the snapshot is fit to be brought over. */
function isWithAll({ name, groupPoint }: SnapshotFacts, { peers = [] }: VolumeFacts): boolean {
  if (groupPoint === undefined) return true;
  const dueMs = dueOfSnapshot(name) ?? Number.POSITIVE_INFINITY;
  return peers.every((peer) => {
    if (peer.snapshots === undefined) return false;
    const part = partOf(peer, groupPoint);
    return part === undefined ? peer.sinceMs >= dueMs : isMovable(part);
  });
}

function partOf({ snapshots = [] }: PeerFacts, groupPoint: string): SnapshotFacts | undefined {
  return snapshots.find((snapshot) => snapshot.groupPoint === groupPoint);
}

function carriersOf({ volume, locations, peers = [] }: VolumeFacts, snapshot: SnapshotFacts): readonly Carrier[] {
  const { groupPoint } = snapshot;
  const others = groupPoint === undefined ? [] : peers;
  return [
    { volume, snapshot, locations },
    ...others.flatMap((peer) => {
      const part = groupPoint === undefined ? undefined : partOf(peer, groupPoint);
      return part === undefined ? [] : [{ volume: peer.volume, snapshot: part, locations: peer.locations }];
    }),
  ];
}

/** What each carrier knows of a location. One that knows nothing of it has neither base nor job there. */
function at(carriers: readonly Carrier[], location: string): readonly LocationFacts[] {
  return carriers.flatMap(({ locations }) => locations.filter(({ name }) => name === location));
}

function isFree({ blocked, jobs }: LocationFacts): boolean {
  return blocked === undefined && jobs.length === 0;
}

/** `facts.wanted` is the same for all of a group. */
function isDue(location: string, carriers: readonly Carrier[], facts: VolumeFacts): boolean {
  return (
    isNeeded(location, carriers, facts) &&
    carriers.every(({ snapshot, locations }) =>
      locations.every(({ name, triedSnapshots }) => name !== location || !triedSnapshots.includes(snapshot.name)),
    )
  );
}

/** One that has overtaken the others waits for them: bringing it back would take away its newest point. */
function isNeeded(location: string, carriers: readonly Carrier[], { wanted }: VolumeFacts): boolean {
  return wanted.includes(location) && carriers.every((carrier) => isBehind(location, carrier));
}

function isBehind(location: string, { snapshot, locations }: Carrier): boolean {
  const base = locations.find(({ name }) => name === location)?.base;
  return base === undefined || base.generation < snapshot.generation;
}

function releasable(
  facts: VolumeFacts,
  candidate: SnapshotFacts | undefined,
  carriers: readonly Carrier[],
): readonly SnapshotFacts[] {
  const { snapshots, locations } = facts;
  const isNeededNext = carriers.length > 0 && locations.some(({ name }) => isNeeded(name, carriers, facts));
  return snapshots.filter(
    (snapshot) =>
      !snapshot.isReleased &&
      (isExpired(snapshot, facts) || snapshot.origin === "demand") &&
      !(isNeededNext && snapshot === candidate) &&
      !locations.some((location) => isInUse(location, snapshot)),
  );
}

function isInUse({ base, jobs }: LocationFacts, { name, pointId }: SnapshotFacts): boolean {
  return base?.pointId === pointId || jobs.some((job) => job.fromPointId === pointId || job.toSnapshot === name);
}
