// What must hold after every step (I1 to I5 of docs/reliability.md), judged from outside: by the databases and files of all
// nodes and by what the world remembers, never by what the engine believes. Only what a step has changed is looked at.

import type { Block } from "./blocks.ts";
import { firstDifference, showBlocks } from "./blocks.ts";
import type { Host, Process } from "./host.ts";
import type { DiskStep } from "./memory-storage.ts";
import type { World } from "./world.ts";

/** What a source sealed under a point id, once and for all. */
export interface KnownPoint {
  readonly blocks: readonly Block[];
  readonly sizeBytes: number;
  /** Order of sealing in the whole world. */
  readonly order: number;
  readonly host: Host;
}

interface PointRow {
  readonly owner: string;
  readonly pointId: string;
  readonly name: string | null;
  readonly state: string;
  readonly file: string;
  readonly sizeBytes: number;
  readonly position: number;
  readonly released: number;
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
  readonly clones: Map<string, string>;
  readonly newest: Map<string, { position: number; pointId: string }>;
  readonly frozen: Map<string, { epoch: number; newest: string | undefined }>;
}

const emptySeen = (): Seen => ({ sealed: new Set(), clones: new Map(), newest: new Map(), frozen: new Map() });

export class Invariants {
  /** By point id. */
  readonly points = new Map<string, KnownPoint>();
  /** `cluster volume point` of every commit there ever was. */
  readonly commits = new Set<string>();
  private readonly world: World;
  private readonly seen = new Map<Host, Seen>();

  constructor(world: World) {
    this.world = world;
  }

  /** A node was put back to an older image: what it had forgotten is no breach. */
  restored(host: Host): void {
    this.seen.set(host, emptySeen());
    const rows = host.journal.read.all<PointRow>("SELECT * FROM points WHERE state IN ('sealed','lost')");
    for (const row of rows) this.of(host).sealed.add(`${row.owner} ${row.pointId}`);
    for (const row of host.journal.read.all<CloneRow>("SELECT * FROM clones")) {
      this.of(host).clones.set(row.name, row.state);
    }
  }

  /** A transaction was committed that changed these tables. */
  committed({ host }: Process, tables: ReadonlySet<string>): void {
    if (tables.has("points")) this.checkPoints(host);
    if (tables.has("points") || tables.has("holds")) this.checkHolds(host);
    if (tables.has("points") || tables.has("migrated")) this.checkMigrated(host);
    if (tables.has("bases") || tables.has("jobs") || tables.has("holds")) this.checkSource(host);
    if (tables.has("clones")) this.checkClones(host);
  }

  /** A step on a disk is about to be carried out. */
  onDisk({ host }: Process, { name, volume, point }: DiskStep): void {
    if (name === "staging.write" || name === "staging.punch") this.checkWrite(host, volume);
    if (name === "deletePoint" || name === "stage") this.checkReplaced(host, { name, volume, point: point ?? "" });
    if (name === "clone") this.checkCloning(host, volume);
  }

  /** A call is about to be carried out; the answer is called when it has succeeded. */
  serving({ host }: Process, method: string, args: readonly unknown[]): () => void {
    const target = args[0] as { volume?: string; term?: { epoch: number; nonce: string } } | undefined;
    const { volume, term } = target ?? {};
    if (typeof volume !== "string" || term === undefined) return () => undefined;
    const row = this.migratedOf(host, volume);
    if (row === undefined || (row.epoch === term.epoch && row.nonce === term.nonce)) return () => undefined;
    return () =>
      this.breach("I5", host, `${method} of ${row.name} succeeded under epoch ${term.epoch} while ${row.epoch} held`);
  }

  // ---- I1 and I3: points -------------------------------------------------------------------------------------------

  private checkPoints(host: Host): void {
    const { sealed } = this.of(host);
    const rows = host.journal.read.all<PointRow>("SELECT * FROM points");
    for (const row of rows) {
      const key = `${row.owner} ${row.pointId}`;
      if (row.state === "deleting" || row.state === "creating") sealed.delete(key);
      if (row.state !== "sealed" || sealed.has(key)) continue;
      sealed.add(key);
      if (row.name !== null) this.learn(host, row);
      else this.checkArrived(host, row, rows);
    }
    if (sealed.size > rows.length) {
      const present = new Set(rows.map((row) => `${row.owner} ${row.pointId}`));
      for (const key of sealed) if (!present.has(key)) sealed.delete(key);
    }
  }

  private learn(host: Host, row: PointRow): void {
    const image = host.disk.image({ volume: row.owner, point: row.file });
    if (image === undefined) {
      return void this.breach("I1", host, `snapshot ${row.name} is sealed without a file`);
    }
    const known = this.points.get(row.pointId);
    if (known !== undefined) {
      return void this.breach("I1", host, `point ${row.pointId} was taken twice`);
    }
    const { blocks, sizeBytes } = image;
    this.points.set(row.pointId, { blocks: [...blocks], sizeBytes, order: this.points.size, host });
  }

  private checkArrived(host: Host, row: PointRow, rows: readonly PointRow[]): void {
    const known = this.points.get(row.pointId);
    const migrated = host.journal.read.get<MigratedRow>("SELECT * FROM migrated WHERE uid = ?", row.owner);
    if (known === undefined || migrated === undefined) {
      return void this.breach("I1", host, `point ${row.pointId} was committed, and no source has taken it`);
    }
    this.commits.add(`${host.cluster.uid} ${migrated.volumeUid} ${row.pointId}`);
    this.checkContent(host, `point ${row.pointId} of ${migrated.name}`, row, known);
    // A source that was put back has two histories; both are points of its volume.
    if (known.host.wasRestored) return;
    for (const other of rows) {
      if (other.owner !== row.owner || other.state !== "sealed" || other.pointId === row.pointId) continue;
      const order = this.points.get(other.pointId)?.order ?? -1;
      if (order > known.order && other.position < row.position) {
        this.breach("I3", host, `${migrated.name} went back from ${other.pointId} to ${row.pointId}`);
      }
    }
  }

  private checkContent(host: Host, what: string, row: PointRow, known: KnownPoint): void {
    const image = host.disk.image({ volume: row.owner, point: row.file });
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

  private checkMigrated(host: Host): void {
    const seen = this.of(host);
    for (const row of host.journal.read.all<MigratedRow>("SELECT * FROM migrated")) {
      const newest = this.newestOf(host, row.uid);
      const before = seen.newest.get(row.uid);
      if (row.deleting === 0 && before !== undefined && before.position > (newest?.position ?? 0)) {
        const old = host.journal.read.get<PointRow>(
          "SELECT * FROM points WHERE owner = ? AND pointId = ?",
          row.uid,
          before.pointId,
        );
        if (old?.state !== "lost") this.breach("I3", host, `${row.name} has lost its newest point ${before.pointId}`);
      }
      if (newest !== undefined) seen.newest.set(row.uid, newest);
      this.checkThaw(host, row, newest?.pointId);
    }
  }

  /** Under one term a volume that was frozen is thawed by its commit, or by the end of the term. */
  private checkThaw(host: Host, row: MigratedRow, newest: string | undefined): void {
    const { frozen } = this.of(host);
    if (row.frozenSince !== null) frozen.set(row.uid, { epoch: row.epoch, newest });
    const before = frozen.get(row.uid);
    if (row.frozenSince !== null || before === undefined) return;
    frozen.delete(row.uid);
    const isSameTerm = row.isTermLive === 1 && row.epoch === before.epoch;
    if (isSameTerm && newest === before.newest) {
      this.breach("I2", host, `${row.name} was thawed in the middle of its term, and nothing was committed`);
    }
  }

  private newestOf(host: Host, owner: string): { position: number; pointId: string } | undefined {
    return host.journal.read.get(
      "SELECT position, pointId FROM points WHERE owner = ? AND state = 'sealed' AND released = 0 ORDER BY position DESC LIMIT 1",
      owner,
    );
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
      if (held === 0 && state !== "lost") {
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

  private migratedOf(host: Host, volumeUid: string): MigratedRow | undefined {
    return host.journal.read.get<MigratedRow>("SELECT * FROM migrated WHERE volumeUid = ?", volumeUid);
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
