// The volumes of this node and their snapshots: made, grown, snapshotted, released. The row tells the intent before the
// file exists and after it is gone, so every step can be repeated after a crash.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { BaseView, Lineage, SnapshotView, VolumeSpec, VolumeView } from "../wire/schemas.ts";
import { type Core, checkRevision, guarded, problemOf, timeText } from "./core.ts";
import { dropHold, holdsOf, nextPosition, type PointRow, pointsOf, sweep, takeHold } from "./points.ts";

export interface VolumeRow {
  readonly name: string;
  readonly uid: string;
  readonly state: "creating" | "ready" | "deleting";
  readonly sizeBytes: number;
  readonly metadataJson: string;
  readonly migrationEnabled: number;
  readonly createdAt: number;
  readonly generation: number;
  readonly lineageJson: string | null;
  readonly problemJson: string | null;
  readonly revision: number;
}

const metadataBytesMax = 4096;

/** The lock under which a volume's image, row and snapshots are made and removed. Taken after a migrated volume's, never before. */
export function volumeLockKey(name: string): string {
  return `volume ${name}`;
}

export class Volumes {
  private readonly core: Core;

  constructor(core: Core) {
    this.core = core;
  }

  list(): VolumeView[] {
    const rows = this.core.journal.all<VolumeRow>("SELECT * FROM volumes WHERE state = 'ready' ORDER BY name");
    return rows.map((row) => this.view(row));
  }

  get(name: string): VolumeView {
    return this.view(this.row(name));
  }

  /** The row of a volume that is ready; throws `NotFound` otherwise. */
  row(name: string): VolumeRow {
    const row = this.find(name);
    if (row?.state !== "ready") throw new LongshoreError("NotFound", `volume ${name} does not exist`);
    return row;
  }

  /** See AgentApi.putVolume. */
  async put(name: string, spec: VolumeSpec, { ifMatch }: Precondition = {}): Promise<VolumeView> {
    checkMetadata(spec.metadata);
    return this.core.lock.run(volumeLockKey(name), async () => {
      const row = this.find(name);
      if (row?.state === "deleting") throw new LongshoreError("InUse", `volume ${name} is being deleted; try again`);
      if (row === undefined) {
        if (ifMatch !== undefined) throw new LongshoreError("PreconditionFailed", `volume ${name} does not exist`);
        await this.checkReserve(0);
      } else checkRevision(`volume ${name}`, row.revision, ifMatch);
      const uid = row?.uid ?? this.core.journal.transaction(() => this.insert(name, spec, null));
      await this.settle(uid, name, spec);
      return this.get(name);
    });
  }

  /** Within a transaction: the row of a clone that storage is about to make, or of an earlier try at it; its UID. */
  intendClone(name: string, spec: VolumeSpec, lineage: Lineage): string {
    const row = this.find(name);
    if (row === undefined) return this.insert(name, spec, lineage);
    const isSame = row.state === "creating" && row.lineageJson === JSON.stringify(lineage);
    if (!isSame) throw new LongshoreError("NameTaken", `volume ${name} exists already; choose another name`);
    return row.uid;
  }

  /** Undoes {@link intendClone}: nobody was told about the image. */
  async dropClone(name: string): Promise<void> {
    const row = this.find(name);
    if (row?.state !== "creating") return;
    await this.core.storage.remove(row.uid);
    this.core.journal.transaction(() => this.core.journal.run("DELETE FROM volumes WHERE uid = ?", row.uid));
  }

  /** Within a transaction: the clone's image is complete. */
  finishClone(uid: string, sizeBytes: number): void {
    this.core.journal.run(
      "UPDATE volumes SET state = 'ready', sizeBytes = ?, revision = revision + 1 WHERE uid = ?",
      sizeBytes,
      uid,
    );
  }

  /** See AgentApi.removeVolume. */
  async remove(name: string, { ifMatch }: Precondition = {}): Promise<void> {
    const { core } = this;
    await core.lock.run(volumeLockKey(name), async () => {
      const row = this.find(name);
      if (row === undefined) return;
      if (row.state === "ready") checkRevision(`volume ${name}`, row.revision, ifMatch);
      const clone = core.journal.get<{ migrated: string }>("SELECT migrated FROM clones WHERE name = ?", name);
      core.journal.transaction(() => this.markDeleting(row));
      core.feed.publish("volume", name);
      await this.finishRemoval(row);
      core.feed.publish("volume", name);
      if (row.lineageJson === null || clone === undefined) return;
      core.feed.publish("clone", name);
      await sweep(core, clone.migrated);
    });
  }

  /** See AgentApi.putSnapshot. */
  async snapshot(volume: string, name: string): Promise<SnapshotView> {
    return this.core.lock.run(volumeLockKey(volume), async () => {
      const row = this.row(volume);
      const existing = this.findSnapshot(row.uid, name);
      // Being made, under the lock that it is made under: an earlier try failed, and could not even be undone.
      if (existing?.state === "creating") await this.undoSnapshot(row.uid, existing);
      else if (existing !== undefined) return this.existingSnapshot(row, existing);
      await this.checkReserve(0);
      const point = this.intendSnapshot(row, name);
      try {
        await this.seal(row, point);
      } catch (error) {
        if (codeOf(error) === "VolumeGone") this.setProblem(row, false);
        await this.undoSnapshot(row.uid, point);
        throw error;
      }
      this.setProblem(this.row(volume), true);
      return this.snapshotView(volume, this.requireSnapshot(row.uid, volume, name));
    });
  }

  /** See AgentApi.removeSnapshot. */
  release(volume: string, name: string): Promise<SnapshotView | undefined> {
    const { core } = this;
    return core.lock.run(volumeLockKey(volume), async () => {
      const row = this.find(volume);
      const point = row && this.findSnapshot(row.uid, name);
      if (row === undefined || point === undefined) return undefined;
      if (point.state === "creating") await this.undoSnapshot(row.uid, point);
      else if (point.released === 0) {
        core.journal.transaction(() => {
          core.journal.run("UPDATE points SET released = 1 WHERE owner = ? AND pointId = ?", row.uid, point.pointId);
          this.touch(row.uid);
        });
      }
      await this.sweep(row.uid);
      const left = this.findSnapshot(row.uid, name);
      return left && this.snapshotView(volume, left);
    });
  }

  putHold(volume: string, snapshot: string, holder: string): SnapshotView {
    const { uid } = this.row(volume);
    const { pointId } = this.requireSnapshot(uid, volume, snapshot);
    this.core.journal.transaction(() => {
      takeHold(this.core, { owner: uid, pointId, reason: "user", holder });
      this.touch(uid);
    });
    this.core.feed.publish("volume", volume);
    return this.snapshotView(volume, this.requireSnapshot(uid, volume, snapshot));
  }

  /** See AgentApi.removeHold; a hold whose snapshot or volume is gone is gone with it. */
  async removeHold(volume: string, snapshot: string, hold: { reason: "user" | "base"; owner: string }): Promise<void> {
    const uid = this.find(volume)?.uid;
    const point = uid === undefined ? undefined : this.findSnapshot(uid, snapshot);
    if (uid === undefined || point === undefined) return;
    const { pointId } = point;
    this.core.journal.transaction(() => {
      dropHold(this.core.journal, { owner: uid, pointId, reason: hold.reason, holder: hold.owner });
      if (hold.reason === "base") {
        this.core.journal.run(
          "DELETE FROM bases WHERE owner = ? AND location = ? AND pointId = ?",
          uid,
          hold.owner,
          pointId,
        );
      }
      this.touch(uid);
    });
    await this.sweep(uid);
  }

  /** A snapshot by name; throws `NotFound` when there is none. */
  requireSnapshot(uid: string, volume: string, name: string): PointRow {
    const row = this.findSnapshot(uid, name);
    if (row === undefined) throw new LongshoreError("NotFound", `snapshot ${name} of volume ${volume} does not exist`);
    return row;
  }

  /** Deletes what nothing holds any more, and tells the readers of the volume. */
  async sweep(uid: string): Promise<void> {
    await sweep(this.core, uid);
    this.published(uid);
  }

  /** Within a transaction: the volume changed in a way its view shows. */
  touch(uid: string): void {
    this.core.journal.run("UPDATE volumes SET revision = revision + 1 WHERE uid = ?", uid);
  }

  published(uid: string): void {
    const row = this.core.journal.get<VolumeRow>("SELECT * FROM volumes WHERE uid = ?", uid);
    if (row !== undefined) this.core.feed.publish("volume", row.name);
  }

  /** Throws `DiskFull` when `bytes` more would go below the reserve. */
  async checkReserve(bytes: number): Promise<void> {
    const { freeBytes } = await this.core.storage.space();
    const { reserveBytes } = this.core.limits;
    if (freeBytes - bytes >= reserveBytes) return;
    throw new LongshoreError("DiskFull", `${freeBytes} bytes are free and ${reserveBytes} are kept in reserve`);
  }

  /** After a start: what was being made is removed, what was being deleted is deleted, and what is missing is told. */
  async recover(): Promise<void> {
    const { core } = this;
    for (const row of this.rows()) {
      await guarded(core, `volume ${row.name}`, () =>
        row.state === "deleting" ? this.finishRemoval(row) : this.recoverSnapshots(row),
      );
    }
  }

  private async recoverSnapshots(row: VolumeRow): Promise<void> {
    for (const point of pointsOf(this.core.journal, row.uid)) {
      if (point.state === "creating") await this.undoSnapshot(row.uid, point);
    }
    await sweep(this.core, row.uid);
  }

  /** Records whether the live image was found; a missing one is the volume's problem until it is back. */
  setProblem(row: VolumeRow, isPresent: boolean): void {
    const gone = new LongshoreError("VolumeGone", `the image of volume ${row.name} is missing`);
    const problem = isPresent ? null : JSON.stringify(problemOf(gone));
    if (problem === row.problemJson) return;
    this.core.journal.transaction(() => {
      this.core.journal.run("UPDATE volumes SET problemJson = ? WHERE uid = ?", problem, row.uid);
      this.touch(row.uid);
    });
    this.core.feed.publish("volume", row.name);
  }

  rows(): VolumeRow[] {
    return this.core.journal.all<VolumeRow>("SELECT * FROM volumes");
  }

  find(name: string): VolumeRow | undefined {
    return this.core.journal.get<VolumeRow>("SELECT * FROM volumes WHERE name = ?", name);
  }

  private findSnapshot(uid: string, name: string): PointRow | undefined {
    return this.core.journal.get<PointRow>("SELECT * FROM points WHERE owner = ? AND name = ?", uid, name);
  }

  private insert(name: string, spec: VolumeSpec, lineage: Lineage | null): string {
    const uid = this.core.dice.uuid();
    this.core.journal.run(
      `INSERT INTO volumes (name, uid, state, sizeBytes, metadataJson, migrationEnabled, createdAt, generation, lineageJson, revision)
       VALUES (?,?,'creating',?,?,?,?,1,?,1)`,
      name,
      uid,
      spec.sizeBytes,
      JSON.stringify(spec.metadata ?? {}),
      spec.migrationEnabled === true ? 1 : 0,
      this.core.clock.nowMs(),
      lineage === null ? null : JSON.stringify(lineage),
    );
    return uid;
  }

  /** Brings image and row to the spec. */
  private async settle(uid: string, name: string, spec: VolumeSpec): Promise<void> {
    const { journal, storage, feed } = this.core;
    const row = journal.get<VolumeRow>("SELECT * FROM volumes WHERE uid = ?", uid);
    if (row === undefined) throw new LongshoreError("NotFound", `volume ${name} does not exist`);
    if (row.state === "ready" && spec.sizeBytes < row.sizeBytes) {
      throw new LongshoreError(
        "ShrinkRefused",
        `volume ${name} has ${row.sizeBytes} bytes, ${spec.sizeBytes} asked for`,
      );
    }
    if (row.state === "creating") await this.createImage(row, spec);
    else if (spec.sizeBytes > row.sizeBytes) await storage.expand(uid, spec.sizeBytes);
    const metadataJson = spec.metadata === undefined ? row.metadataJson : JSON.stringify(spec.metadata);
    const enabled = spec.migrationEnabled === undefined ? row.migrationEnabled : Number(spec.migrationEnabled);
    const changed =
      row.state === "creating" ||
      row.sizeBytes !== spec.sizeBytes ||
      row.metadataJson !== metadataJson ||
      row.migrationEnabled !== enabled;
    if (!changed) return;
    journal.transaction(() =>
      journal.run(
        `UPDATE volumes SET state = 'ready', sizeBytes = ?, metadataJson = ?, migrationEnabled = ?, revision = revision + 1 WHERE uid = ?`,
        spec.sizeBytes,
        metadataJson,
        enabled,
        uid,
      ),
    );
    feed.publish("volume", name);
  }

  private async createImage(row: VolumeRow, spec: VolumeSpec): Promise<void> {
    if (row.lineageJson !== null) {
      throw new LongshoreError("NameTaken", `volume ${row.name} is being made as a clone; ask for the clone`);
    }
    // An earlier try, perhaps under another size, may have left an image; nobody was told about it.
    await this.core.storage.remove(row.uid);
    await this.core.storage.create(row.uid, spec.sizeBytes);
  }

  private markDeleting(row: VolumeRow): void {
    const { journal } = this.core;
    const job = journal.get<{ name: string }>("SELECT name FROM jobs WHERE owner = ? AND finishedAt IS NULL", row.uid);
    if (job !== undefined) throw new LongshoreError("InUse", `volume ${row.name} is being migrated by job ${job.name}`);
    const hold = journal.get<{ holder: string }>(
      "SELECT holder FROM holds WHERE owner = ? AND reason = 'user'",
      row.uid,
    );
    if (hold !== undefined)
      throw new LongshoreError("InUse", `volume ${row.name} has a snapshot held by ${hold.holder}`);
    journal.run("UPDATE volumes SET state = 'deleting', revision = revision + 1 WHERE uid = ?", row.uid);
    journal.run("DELETE FROM holds WHERE owner = ?", row.uid);
    journal.run("DELETE FROM bases WHERE owner = ?", row.uid);
    if (row.lineageJson !== null) {
      journal.run("DELETE FROM holds WHERE reason = 'clone' AND holder = ?", row.name);
      journal.run("DELETE FROM clones WHERE name = ? AND state <> 'Waiting'", row.name);
    }
    journal.run("UPDATE points SET released = 1 WHERE owner = ?", row.uid);
    journal.run("UPDATE points SET state = 'deleting' WHERE owner = ? AND state = 'creating'", row.uid);
  }

  private async finishRemoval(row: VolumeRow): Promise<void> {
    await sweep(this.core, row.uid);
    await this.core.storage.remove(row.uid);
    this.core.journal.transaction(() => this.core.journal.run("DELETE FROM volumes WHERE uid = ?", row.uid));
    this.core.log.info({ volume: row.name, uid: row.uid }, "volume deleted");
  }

  private existingSnapshot(row: VolumeRow, point: PointRow): SnapshotView {
    if (point.state === "deleting" || point.released === 1) {
      throw new LongshoreError("SnapshotDeleting", `snapshot ${point.name} of volume ${row.name} is being deleted`);
    }
    return this.snapshotView(row.name, point);
  }

  private intendSnapshot(row: VolumeRow, name: string): PointRow {
    const { journal, dice, clock } = this.core;
    const pointId = dice.hex(16);
    return journal.transaction(() => {
      journal.run(
        `INSERT INTO points (owner, pointId, name, generation, state, file, sizeBytes, sourceTime, position)
         VALUES (?,?,?,?,'creating',?,?,?,?)`,
        row.uid,
        pointId,
        name,
        row.generation,
        pointId,
        row.sizeBytes,
        clock.nowMs(),
        nextPosition(journal, row.uid),
      );
      return this.requireSnapshot(row.uid, row.name, name);
    });
  }

  private async seal(row: VolumeRow, point: PointRow): Promise<void> {
    const { journal, storage, log, feed } = this.core;
    const { identity, stallMs } = await storage.snapshot(row.uid, point.pointId);
    journal.transaction(() => {
      journal.run(
        "UPDATE points SET state = 'sealed', inode = ?, fsUuid = ?, sizeBytes = ?, stallMs = ? WHERE owner = ? AND pointId = ?",
        identity.inode,
        identity.fsUuid,
        identity.sizeBytes,
        stallMs,
        row.uid,
        point.pointId,
      );
      journal.run("UPDATE volumes SET generation = generation + 1 WHERE uid = ?", row.uid);
      this.touch(row.uid);
    });
    feed.publish("volume", row.name);
    this.core.metrics
      .histogram("longshore_snapshot_stall_seconds", "How long writers were held up by a snapshot")
      .observe(stallMs / 1000);
    log.info({ volume: row.name, snapshot: point.name, point: point.pointId, stallMs }, "snapshot taken");
  }

  private async undoSnapshot(uid: string, point: PointRow): Promise<void> {
    await this.core.storage.deletePoint(uid, point.file);
    this.core.journal.transaction(() =>
      this.core.journal.run(
        "DELETE FROM points WHERE owner = ? AND pointId = ? AND state = 'creating'",
        uid,
        point.pointId,
      ),
    );
  }

  private view(row: VolumeRow): VolumeView {
    const { journal, storage, agentId } = this.core;
    const points = pointsOf(journal, row.uid).filter((point) => point.name !== null);
    return {
      name: row.name,
      uid: row.uid,
      sizeBytes: row.sizeBytes,
      metadata: JSON.parse(row.metadataJson),
      migrationEnabled: row.migrationEnabled === 1,
      home: agentId,
      path: storage.livePath(row.uid),
      createdAt: timeText(row.createdAt),
      generation: row.generation,
      lineage: row.lineageJson === null ? null : JSON.parse(row.lineageJson),
      problem: row.problemJson === null ? null : JSON.parse(row.problemJson),
      snapshots: points.map((point) => this.snapshotView(row.name, point)),
      bases: this.bases(row.uid),
      revision: row.revision,
    };
  }

  private bases(uid: string): BaseView[] {
    const rows = this.core.journal.all<{
      location: string;
      clusterUid: string;
      pointId: string;
      generation: number;
      sourceTime: number;
      movedAt: number;
    }>("SELECT * FROM bases WHERE owner = ? ORDER BY location", uid);
    return rows.map(({ location, clusterUid, pointId, generation, sourceTime, movedAt }) => ({
      location,
      clusterUid,
      pointId,
      generation,
      sourceTime: timeText(sourceTime),
      movedAt: timeText(movedAt),
    }));
  }

  private snapshotView(volume: string, row: PointRow): SnapshotView {
    return {
      name: row.name ?? row.pointId,
      volume,
      pointId: row.pointId,
      generation: row.generation,
      state: row.state,
      released: row.released === 1,
      sizeBytes: row.sizeBytes,
      createdAt: timeText(row.sourceTime),
      stallMs: row.stallMs,
      holds: holdsOf(this.core.journal, row.owner, row.pointId),
    };
  }
}

function checkMetadata(metadata: Readonly<Record<string, string>> | undefined): void {
  if (metadata === undefined || Buffer.byteLength(JSON.stringify(metadata)) <= metadataBytesMax) return;
  throw new LongshoreError("BadRequest", `metadata takes more than ${metadataBytesMax} bytes; shorten it`);
}
