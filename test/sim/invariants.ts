// What must hold after every step (I1 to I5 of docs/reliability.md), judged from outside: by the databases and files of all
// nodes and by what the world remembers, never by what the engine believes. Only what a step has changed is looked at.

import { type Block, firstDifference, showBlocks, tagOf } from "./blocks.ts";
import { GroupWrites } from "./group-writes.ts";
import type { Host, Process } from "./host.ts";
import type { DiskStep } from "./memory-storage.ts";
import type { World } from "./world.ts";

/** What a source sealed under a point id, once and for all. */
export interface KnownPoint {
  readonly blocks: readonly Block[];
  readonly sizeBytes: number;
  /** Its place among the snapshots of its volume, in the order of taking; they may be confirmed in another one. */
  readonly position: number;
  readonly host: Host;
}

interface PointRow {
  readonly owner: string;
  readonly pointId: string;
  readonly name: string | null;
  readonly state: string;
  readonly file: string;
  readonly inode: string | null;
  readonly position: number;
  readonly released: number;
  readonly groupName: string | null;
  readonly groupPoint: string | null;
}

interface MigratedRow {
  readonly uid: string;
  readonly name: string;
  readonly clusterUid: string;
  readonly volumeUid: string;
  readonly frozenSince: number | null;
  readonly epoch: number;
  readonly nonce: string;
  readonly isTermLive: number;
  readonly deleting: number;
}

interface CloneRow {
  readonly name: string;
  readonly specJson: string;
  readonly state: string;
  readonly migrated: string;
  readonly pointId: string | null;
  readonly volume: string | null;
}

/** What was seen of one node so far; forgotten when it is put back to an older image. */
interface Seen {
  readonly sealed: Set<string>;
  /** Points whose files were found to be missing at some time: such a one may be a base, is not held then, and may go. */
  readonly lost: Set<string>;
  readonly clones: Map<string, string>;
  readonly newest: Map<string, { position: number; pointId: string }>;
  readonly frozen: Map<string, { epoch: number; newest: string | undefined }>;
  /** By owner. */
  readonly votes: Map<string, { groupPoint: string; toId: string; epoch: number }>;
  /** Parts of group snapshots that were taken and do not count yet: their group points. */
  readonly parts: Map<string, string>;
  /** Group points of which a part was given up here. */
  readonly givenUp: Set<string>;
}

interface Term {
  readonly epoch: number;
  readonly nonce: string;
}

/** What a call is about that carries a term. */
interface Asked {
  readonly volume?: string;
  readonly group?: string;
  readonly job?: string;
  readonly term: Term;
  /** A term that is new there is taken over: it must be above the one that is there. */
  readonly isTakenOver: boolean;
}

function askedUnder(method: string, args: readonly unknown[]): Asked | undefined {
  const [first, second] = args as [
    { volume?: string; group?: string | { term: Term }; term?: Term } | string | undefined,
    { term?: Term } | undefined,
  ];
  if (method === "order" && typeof first === "string" && second?.term !== undefined) {
    return { job: first, term: second.term, isTakenOver: true };
  }
  if (typeof first !== "object") return undefined;
  const { volume, group, term } = first;
  if (method === "claim" && volume !== undefined && typeof group === "object") {
    return { volume, term: group.term, isTakenOver: true };
  }
  if (term === undefined || typeof group === "object") return undefined;
  return { ...(volume !== undefined && { volume }), ...(group !== undefined && { group }), term, isTakenOver: false };
}

function isFresh(held: Term, { term, isTakenOver }: Asked): boolean {
  if (held.epoch === term.epoch) return held.nonce === term.nonce || (isTakenOver && held.nonce === null);
  return isTakenOver && term.epoch > held.epoch;
}

const noVotes: ReadonlyMap<string, number> = new Map();

const emptySeen = (): Seen => ({
  sealed: new Set(),
  lost: new Set(),
  clones: new Map(),
  newest: new Map(),
  frozen: new Map(),
  votes: new Map(),
  parts: new Map(),
  givenUp: new Set(),
});

export class Invariants {
  /** By point id. */
  readonly points = new Map<string, KnownPoint>();
  /** `cluster volume point` of every commit there ever was. */
  readonly commits = new Set<string>();
  /** What the group homes have decided: `cluster group-point`, and whose point of which volume it made. */
  readonly decisions = new Map<string, readonly { volume: string; toId: string }[]>();
  private readonly groups: GroupWrites;
  private readonly world: World;
  private readonly seen = new Map<Host, Seen>();

  constructor(world: World) {
    this.world = world;
    this.groups = new GroupWrites((message) => world.violated("G", message));
  }

  /** A guest of a group has written into one of its volumes. */
  wrote(group: string, volume: string, tag: number): void {
    this.groups.wrote(group, volume, tag);
  }

  /** A node was put back to an older image: what it had forgotten is no breach. */
  restored(host: Host): void {
    this.seen.set(host, emptySeen());
    const rows = host.journal.read.all<PointRow>("SELECT * FROM points WHERE state IN ('sealed','lost')");
    for (const row of rows) {
      this.of(host).sealed.add(`${row.owner} ${row.pointId}`);
      if (row.state === "lost") this.of(host).lost.add(`${row.owner} ${row.pointId}`);
    }
    for (const row of host.journal.read.all<CloneRow>("SELECT * FROM clones")) {
      this.of(host).clones.set(row.name, row.state);
    }
  }

  /** A transaction was committed that changed these tables. */
  committed({ host }: Process, tables: ReadonlySet<string>): void {
    if (tables.has("groupCommits")) this.learnDecisions(host);
    if (tables.has("points")) this.checkPoints(host);
    const endedVotes = tables.has("votes") || tables.has("migrated") ? this.checkVotes(host) : noVotes;
    if (tables.has("points") || tables.has("holds")) this.checkHolds(host);
    if (tables.has("points")) this.checkNewest(host);
    if (tables.has("points") || tables.has("migrated")) this.checkThawed(host, endedVotes);
    // A job is taken, and ends, together with its hold.
    if (tables.has("bases") || tables.has("holds")) this.checkSource(host);
    if (tables.has("clones")) this.checkClones(host);
  }

  /** A step on a disk is about to be carried out. */
  onDisk({ host }: Process, { name, volume, point }: DiskStep): void {
    if (name === "staging.write" || name === "staging.punch") this.checkWrite(host, volume);
    if (name === "deletePoint" || name === "stage") this.checkReplaced(host, { name, volume, point: point ?? "" });
  }

  /** A clone is about to be made. */
  cloning({ host }: Process, from: { volume: string; point: string }, to: string): void {
    const sql = "SELECT 1 AS one FROM points WHERE owner = ? AND file = ? AND state = 'sealed'";
    const isPoint = host.journal.read.get(sql, from.volume, from.point) !== undefined;
    if (!isPoint) this.breach("I2", host, `${to} is cloned from ${from.point} of ${from.volume}, which is no point`);
    this.checkCloning(host, to);
  }

  /** A call is about to be carried out; the answer is called when it has succeeded. */
  serving({ host }: Process, method: string, args: readonly unknown[]): () => void {
    const asked = askedUnder(method, args);
    const held = asked && this.heldTerm(host, asked);
    if (asked === undefined || held === undefined || isFresh(held, asked)) return () => undefined;
    const text = `${method} of ${asked.volume ?? asked.group ?? asked.job} succeeded under epoch ${asked.term.epoch} while ${held.epoch} held`;
    return () => this.breach("I5", host, text);
  }

  /** The same call as a claimant would make it that was granted the present epoch as well, in a history that is gone. */
  twinOf(host: Host, sent: string): string {
    const args = JSON.parse(sent) as unknown[];
    const asked = askedUnder("", args) ?? askedUnder("claim", args) ?? askedUnder("order", args);
    const held = asked && this.heldTerm(host, asked);
    if (asked === undefined || held === undefined || held.nonce === asked.term.nonce) return sent;
    return sent.replace(`"epoch":${asked.term.epoch},`, `"epoch":${held.epoch},`);
  }

  private heldTerm({ journal }: Host, { volume, group, job }: Asked): Term | undefined {
    if (volume !== undefined) return journal.read.get("SELECT epoch, nonce FROM migrated WHERE volumeUid = ?", volume);
    // The groups of several clusters may have one name; then this cannot be told from here.
    const sql =
      group === undefined
        ? "SELECT epoch, nonce FROM jobs WHERE name = ? AND finishedAt IS NULL"
        : "SELECT epoch, nonce FROM groups WHERE name = ?";
    const rows = journal.read.all<Term>(sql, group ?? job ?? "");
    return rows.length === 1 ? rows[0] : undefined;
  }

  // ---- I1 and I3: points -------------------------------------------------------------------------------------------

  private checkPoints(host: Host): void {
    const { sealed, lost } = this.of(host);
    const rows = host.journal.read.all<PointRow>(
      "SELECT owner, pointId, name, state, file, inode, position, released, groupName, groupPoint FROM points",
    );
    for (const row of rows) {
      const key = `${row.owner} ${row.pointId}`;
      if (row.state === "deleting" || row.state === "creating") sealed.delete(key);
      if (row.state === "lost") lost.add(key);
      if (row.state !== "sealed" || sealed.has(key)) continue;
      sealed.add(key);
      if (row.name !== null) this.learn(host, row);
      else this.checkArrived(host, row, rows);
    }
    if (sealed.size > rows.length) {
      const present = new Set(rows.map((row) => `${row.owner} ${row.pointId}`));
      for (const key of sealed) if (!present.has(key)) sealed.delete(key);
    }
    this.checkParts(host, rows);
  }

  /** (G) Of the parts of a group's snapshot on one node all come to count, or none does. */
  private checkParts(host: Host, rows: readonly PointRow[]): void {
    // One whose file went with an older image of the disk is given up by itself.
    if (host.wasRestored) return;
    const { parts, givenUp } = this.of(host);
    // The copies of group points have no names, and are not taken but committed.
    const snapshots = rows.filter((row) => row.name !== null && row.groupPoint !== null && row.inode !== null);
    const byKey = new Map(snapshots.map((row) => [`${row.owner} ${row.pointId}`, row]));
    for (const [key, groupPoint] of parts) {
      const row = byKey.get(key);
      if (row?.state === "creating") continue;
      parts.delete(key);
      if (row === undefined) givenUp.add(groupPoint);
    }
    for (const [key, { state, groupPoint, name }] of byKey) {
      if (state === "creating") parts.set(key, groupPoint ?? "");
      else if (state === "sealed" && givenUp.has(groupPoint ?? ""))
        this.breach("G", host, `snapshot ${name} of ${groupPoint} counts, and another part of it was given up`);
    }
  }

  private learn(host: Host, row: PointRow): void {
    const image = host.disk.image({ volume: row.owner, point: row.file });
    if (image === undefined) {
      this.breach("I1", host, `snapshot ${row.name} is sealed without a file`);
      return;
    }
    const known = this.points.get(row.pointId);
    // One that a journal which was put back had not sealed yet is sealed again: it must be the same.
    if (known !== undefined) {
      this.checkContent(host, `snapshot ${row.name} sealed again`, row, known);
      return;
    }
    const { blocks, sizeBytes } = image;
    this.points.set(row.pointId, { blocks: [...blocks], sizeBytes, position: row.position, host });
    const { groupName, groupPoint } = row;
    if (groupPoint === null || groupName === null || host.wasRestored) return;
    const volume = host.journal.read.get<{ name: string }>("SELECT name FROM volumes WHERE uid = ?", row.owner)?.name;
    this.groups.snapshotted({ groupName, groupPoint }, volume ?? "", tagOf(blocks[0] ?? null));
  }

  private checkArrived(host: Host, row: PointRow, rows: readonly PointRow[]): void {
    const known = this.points.get(row.pointId);
    const migrated = host.journal.read.get<MigratedRow>("SELECT * FROM migrated WHERE uid = ?", row.owner);
    if (known === undefined || migrated === undefined) {
      return void this.breach("I1", host, `point ${row.pointId} was committed, and no source has taken it`);
    }
    this.commits.add(`${host.cluster.uid} ${migrated.volumeUid} ${row.pointId}`);
    this.checkContent(host, `point ${row.pointId} of ${migrated.name}`, row, known);
    if (row.groupPoint !== null && !this.decisions.has(`${host.cluster.uid} ${row.groupPoint}`)) {
      this.breach(
        "G",
        host,
        `point ${row.pointId} of ${migrated.name} was committed, and group point ${row.groupPoint} never was`,
      );
    }
    // A source that was put back has two histories; both are points of its volume.
    if (known.host.wasRestored) return;
    for (const other of rows) {
      if (other.owner !== row.owner || other.state !== "sealed" || other.pointId === row.pointId) continue;
      const position = this.points.get(other.pointId)?.position ?? -1;
      if (position > known.position && other.position < row.position) {
        this.breach("I3", host, `${migrated.name} went back from ${other.pointId} to ${row.pointId}`);
      }
    }
  }

  private checkContent(host: Host, what: string, row: PointRow, known: KnownPoint): void {
    const image = host.disk.image({ volume: row.owner, point: row.file });
    // Files that were put back without their rows leave rows without their file: such a point is lost, and is found to be.
    if (host.wasRestored && (image?.state !== "sealed" || image.inode !== row.inode)) return;
    if (image?.state !== "sealed") {
      return void this.breach("I1", host, `${what} is ${image?.state ?? "without a file"}`);
    }
    const at = firstDifference(image.blocks, known.blocks);
    if (at === undefined && image.sizeBytes === known.sizeBytes) return;
    this.breach(
      "I1",
      host,
      `${what} differs at block ${at} from the snapshot of ${known.host.name}\n  here  ${showBlocks(image.blocks)}\n  there ${showBlocks(known.blocks)}`,
    );
  }

  private checkNewest(host: Host): void {
    const { newest: seen } = this.of(host);
    const rows = host.journal.read.all<{
      uid: string;
      name: string;
      deleting: number;
      pointId: string;
      position: number;
    }>(
      `SELECT uid, migrated.name, deleting, pointId, max(position) AS position FROM migrated JOIN points ON owner = uid
       WHERE points.state = 'sealed' AND released = 0 GROUP BY uid`,
    );
    for (const [uid, before] of seen) {
      const now = rows.find((row) => row.uid === uid);
      if ((now?.position ?? 0) >= before.position) continue;
      seen.delete(uid);
      const left = host.journal.read.get<{ name: string; deleting: number; state: string | null }>(
        `SELECT migrated.name, deleting, (SELECT state FROM points WHERE owner = uid AND pointId = ?) AS state
         FROM migrated WHERE uid = ?`,
        before.pointId,
        uid,
      );
      if (left === undefined || left.deleting === 1 || left.state === "lost") continue;
      this.breach("I3", host, `${left.name} has lost its newest point ${before.pointId}`);
    }
    for (const { uid, position, pointId } of rows) seen.set(uid, { position, pointId });
  }

  /**
   * Under one term a volume that was frozen is thawed by its commit, or by the end of the term; or by the end of a vote that
   * is older than the term, for nothing is planned, nor frozen, under a term before such a vote has ended.
   */
  private checkThawed(host: Host, endedVotes: ReadonlyMap<string, number>): void {
    const { frozen, newest } = this.of(host);
    const rows = host.journal.read.all<MigratedRow>("SELECT uid, name, frozenSince, epoch, isTermLive FROM migrated");
    for (const row of rows) {
      const now = newest.get(row.uid)?.pointId;
      const before = frozen.get(row.uid);
      if (row.frozenSince !== null) frozen.set(row.uid, { epoch: row.epoch, newest: now });
      if (row.frozenSince !== null || before === undefined) continue;
      frozen.delete(row.uid);
      const isSameTerm = row.isTermLive === 1 && row.epoch === before.epoch;
      const isOlderVote = (endedVotes.get(row.uid) ?? row.epoch) < row.epoch;
      if (isSameTerm && !isOlderVote && now === before.newest) {
        this.breach("I2", host, `${row.name} was thawed in the middle of its term, and nothing was committed`);
      }
    }
  }

  private newestOf(host: Host, owner: string): { position: number; pointId: string } | undefined {
    return host.journal.read.get(
      "SELECT position, pointId FROM points WHERE owner = ? AND state = 'sealed' AND released = 0 ORDER BY position DESC LIMIT 1",
      owner,
    );
  }

  // ---- G: groups ---------------------------------------------------------------------------------------------------

  private learnDecisions(host: Host): void {
    const rows = host.journal.read.all<{ groupPoint: string; membersJson: string }>("SELECT * FROM groupCommits");
    for (const { groupPoint, membersJson } of rows) {
      const key = `${host.cluster.uid} ${groupPoint}`;
      const members = (JSON.parse(membersJson) as { volume: string; toId: string }[])
        .map(({ volume, toId }) => ({ volume, toId }))
        .sort((left, right) => left.volume.localeCompare(right.volume));
      const known = this.decisions.get(key);
      if (known !== undefined && JSON.stringify(known) !== JSON.stringify(members)) {
        this.breach("G", host, `group point ${groupPoint} was decided twice, of different members`);
      }
      this.decisions.set(key, members);
    }
  }

  /**
   * Whoever has voted stays as it is, frozen, until it knows what was decided, and then does that. Answers the epochs of the
   * votes that have ended, by their owners.
   */
  private checkVotes(host: Host): ReadonlyMap<string, number> {
    const { votes } = this.of(host);
    const ended = new Map<string, number>();
    const rows = host.journal.read.all<{
      owner: string;
      groupPoint: string;
      epoch: number;
      requestJson: string;
      name: string;
      frozenSince: number | null;
    }>("SELECT votes.*, migrated.name, frozenSince FROM votes JOIN migrated ON uid = owner");
    for (const { owner, groupPoint, epoch, requestJson, name, frozenSince } of rows) {
      const { toId } = JSON.parse(requestJson) as { toId: string };
      votes.set(owner, { groupPoint, toId, epoch });
      if (frozenSince === null) this.breach("G", host, `${name} was thawed with a vote for ${groupPoint}`);
    }
    for (const [owner, { groupPoint, toId, epoch }] of votes) {
      if (rows.some((row) => row.owner === owner)) continue;
      votes.delete(owner);
      ended.set(owner, epoch);
      if (!this.decisions.has(`${host.cluster.uid} ${groupPoint}`)) continue;
      const row = host.journal.read.get("SELECT 1 AS one FROM points WHERE owner = ? AND pointId = ?", owner, toId);
      const isForgotten = this.world.clusterOf(host.cluster.uid)?.hosts.some(({ wasRestored }) => wasRestored) === true;
      if (row === undefined && !isForgotten) {
        this.breach("G", host, `the vote of ${owner} for ${groupPoint} ended without its point, and it was decided`);
      }
    }
    return ended;
  }

  // ---- I4: holds and bases -----------------------------------------------------------------------------------------

  private checkHolds(host: Host): void {
    const held = host.journal.read.get<{ pointId: string; reason: string; holder: string; state: string | null }>(
      `SELECT holds.pointId, reason, holder, state FROM holds LEFT JOIN points USING (owner, pointId)
       WHERE state IS NULL OR state IN ('deleting','creating') LIMIT 1`,
    );
    if (held === undefined) return;
    this.breach(
      "I4",
      host,
      `${held.pointId} is ${held.state ?? "gone"} with the ${held.reason} hold of ${held.holder}`,
    );
  }

  private checkSource(host: Host): void {
    const { read } = host.journal;
    const bases = read.all<{
      owner: string;
      location: string;
      clusterUid: string;
      pointId: string;
      held: number;
      state: string | null;
    }>(
      `SELECT bases.*, points.state, EXISTS (SELECT 1 FROM holds WHERE holds.owner = bases.owner AND holds.pointId = bases.pointId
       AND reason = 'base' AND holder = location) AS held
       FROM bases LEFT JOIN points ON points.owner = bases.owner AND points.pointId = bases.pointId`,
    );
    for (const { owner, location, clusterUid, pointId, held, state } of bases) {
      if (held === 0 && !this.of(host).lost.has(`${owner} ${pointId}`)) {
        this.breach("I4", host, `the base ${pointId} of ${owner} for ${location} is ${state ?? "gone"} and not held`);
      }
      if (!this.commits.has(`${clusterUid} ${owner} ${pointId}`)) {
        this.breach("I4", host, `the base for ${location} was moved to ${pointId}, which was never committed there`);
      }
    }
    const unheld = read.get<{ name: string; toId: string; state: string }>(
      `SELECT jobs.name, toId, points.state FROM jobs JOIN points ON points.owner = jobs.owner AND pointId = toId
       WHERE finishedAt IS NULL AND points.state <> 'lost' AND NOT EXISTS (SELECT 1 FROM holds WHERE holds.owner = jobs.owner
       AND holds.pointId = toId AND reason = 'job') LIMIT 1`,
    );
    if (unheld !== undefined) this.breach("I4", host, `job ${unheld.name} does not hold its snapshot ${unheld.toId}`);
  }

  private checkReplaced(host: Host, { name, volume, point }: { name: string; volume: string; point: string }): void {
    const row = host.journal.read.get<PointRow>(
      `SELECT * FROM points WHERE owner = ? AND file = ? AND (state = 'sealed' OR state = 'deleting' AND EXISTS
       (SELECT 1 FROM holds WHERE holds.owner = points.owner AND holds.pointId = points.pointId)) LIMIT 1`,
      volume,
      point,
    );
    if (row !== undefined) this.breach("I4", host, `${name} of the file of ${row.state} point ${row.pointId}`);
  }

  // ---- I5: terms ---------------------------------------------------------------------------------------------------

  private checkWrite(host: Host, owner: string): void {
    const row = host.journal.read.get<MigratedRow>("SELECT * FROM migrated WHERE uid = ?", owner);
    if (row?.isTermLive === 1 && row.frozenSince !== null) return;
    this.breach("I5", host, `staging of ${row?.name ?? owner} is written to while nobody has a term and froze it`);
  }

  // ---- I2: clones --------------------------------------------------------------------------------------------------

  private checkClones(host: Host): void {
    const { clones } = this.of(host);
    for (const row of host.journal.read.all<CloneRow>("SELECT * FROM clones")) {
      const before = clones.get(row.name);
      if (before === row.state) continue;
      clones.set(row.name, row.state);
      if (row.state === "Creating") this.checkBound(host, row);
      if (row.state === "Ready") this.checkServed(host, row);
    }
  }

  private checkBound(host: Host, row: CloneRow): void {
    const { point } = JSON.parse(row.specJson) as { point: string };
    const newest = this.newestOf(host, row.migrated);
    const migrated = host.journal.read.get<MigratedRow>("SELECT * FROM migrated WHERE uid = ?", row.migrated);
    const bound = host.journal.read.get<PointRow & { groupPoint: string | null }>(
      "SELECT * FROM points WHERE owner = ? AND pointId = ?",
      row.migrated,
      row.pointId,
    );
    if (bound?.state !== "sealed")
      return void this.breach("I2", host, `clone ${row.name} of a ${bound?.state ?? "missing"} point`);
    const isAsked =
      point === "latest" ? row.pointId === newest?.pointId : point === row.pointId || point === bound.groupPoint;
    if (!isAsked) this.breach("I2", host, `clone ${row.name} of ${point} was given ${row.pointId}`);
    if (migrated?.frozenSince !== null && row.pointId === newest?.pointId) {
      this.breach("I2", host, `clone ${row.name} was given the newest point while it is closed`);
    }
  }

  private checkCloning(host: Host, volume: string): void {
    const { read } = host.journal;
    const row = read.get<CloneRow>(
      "SELECT clones.* FROM clones JOIN volumes USING (name) WHERE volumes.uid = ? AND clones.state = 'Creating'",
      volume,
    );
    if (row === undefined)
      return void this.breach("I2", host, `volume ${volume} is cloned, and no clone is being made of it`);
    const migrated = read.get<MigratedRow>("SELECT * FROM migrated WHERE uid = ?", row.migrated);
    if (migrated?.frozenSince !== null && row.pointId === this.newestOf(host, row.migrated)?.pointId) {
      this.breach("I2", host, `clone ${row.name} is made of the newest point while it is closed`);
    }
  }

  private checkServed(host: Host, row: CloneRow): void {
    const known = this.points.get(row.pointId ?? "");
    const volume = host.journal.read.get<{ uid: string }>("SELECT uid FROM volumes WHERE name = ?", row.name);
    const image = host.disk.image({ volume: volume?.uid ?? "", point: undefined });
    if (known === undefined || image === undefined)
      return void this.breach("I2", host, `clone ${row.name} is ready without image`);
    const at = firstDifference(image.blocks, known.blocks);
    if (at === undefined) return;
    this.breach(
      "I1",
      host,
      `clone ${row.name} differs at block ${at} from its point\n  here  ${showBlocks(image.blocks)}\n  there ${showBlocks(known.blocks)}`,
    );
  }

  private of(host: Host): Seen {
    const known = this.seen.get(host);
    if (known !== undefined) return known;
    const seen = emptySeen();
    this.seen.set(host, seen);
    return seen;
  }

  private breach(invariant: string, host: Host, message: string): void {
    this.world.violated(invariant, `${host.name}: ${message}`);
  }
}
