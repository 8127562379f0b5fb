// Snapshots of volumes, and the holds on them: taken, released, held, shown. The row tells the intent before the file exists
// and after it is gone, so every step can be repeated after a crash.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { SnapshotView } from "../wire/schemas.ts";
import { type Core, timeText } from "./core.ts";
import { dropHold, holdsOf, nextPosition, type PointRow, pointsOf, sweep, takeHold } from "./points.ts";
import { type VolumeRow, type VolumeRows, volumeLockKey } from "./volume-rows.ts";

export class Snapshots {
  private readonly core: Core;
  private readonly rows: VolumeRows;

  constructor(core: Core, rows: VolumeRows) {
    this.core = core;
    this.rows = rows;
  }

  /** See AgentApi.putSnapshot. */
  async take(volume: string, name: string): Promise<SnapshotView> {
    return this.core.lock.run(volumeLockKey(volume), async () => {
      const row = this.rows.row(volume);
      const existing = this.find(row.uid, name);
      // Being made, under the lock that it is made under: an earlier try failed, and could not even be undone.
      if (existing?.state === "creating") await this.undo(row.uid, existing);
      else if (existing !== undefined) return this.existing(row, existing);
      await this.rows.checkReserve(0);
      const point = this.intend(row, name);
      try {
        await this.seal(row, point);
      } catch (error) {
        if (codeOf(error) === "VolumeGone") this.rows.setProblem(row, false);
        await this.undo(row.uid, point);
        throw error;
      }
      this.rows.setProblem(this.rows.row(volume), true);
      return this.view(volume, this.require(row.uid, volume, name));
    });
  }

  /** See AgentApi.removeSnapshot. */
  release(volume: string, name: string): Promise<SnapshotView | undefined> {
    const { core } = this;
    return core.lock.run(volumeLockKey(volume), async () => {
      const row = this.rows.find(volume);
      const point = row && this.find(row.uid, name);
      if (row === undefined || point === undefined) return undefined;
      if (point.state === "creating") await this.undo(row.uid, point);
      else if (point.released === 0) {
        core.journal.transaction(() => {
          core.journal.run("UPDATE points SET released = 1 WHERE owner = ? AND pointId = ?", row.uid, point.pointId);
          this.rows.touch(row.uid);
        });
      }
      await this.rows.sweep(row.uid);
      const left = this.find(row.uid, name);
      return left && this.view(volume, left);
    });
  }

  putHold(volume: string, snapshot: string, holder: string): SnapshotView {
    const { uid } = this.rows.row(volume);
    const { pointId } = this.require(uid, volume, snapshot);
    this.core.journal.transaction(() => {
      takeHold(this.core, { owner: uid, pointId, reason: "user", holder });
      this.rows.touch(uid);
    });
    this.core.feed.publish("volume", volume);
    return this.view(volume, this.require(uid, volume, snapshot));
  }

  /** See AgentApi.removeHold; a hold whose snapshot or volume is gone is gone with it. */
  async removeHold(volume: string, snapshot: string, hold: { reason: "user" | "base"; owner: string }): Promise<void> {
    const uid = this.rows.find(volume)?.uid;
    const point = uid === undefined ? undefined : this.find(uid, snapshot);
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
      this.rows.touch(uid);
    });
    await this.rows.sweep(uid);
  }

  /** A snapshot by name; throws `NotFound` when there is none. */
  require(uid: string, volume: string, name: string): PointRow {
    const row = this.find(uid, name);
    if (row === undefined) throw new LongshoreError("NotFound", `snapshot ${name} of volume ${volume} does not exist`);
    return row;
  }

  /** After a start: what was being taken is undone, what was being deleted is deleted. */
  async recover(row: VolumeRow): Promise<void> {
    for (const point of pointsOf(this.core.journal, row.uid)) {
      if (point.state === "creating") await this.undo(row.uid, point);
    }
    await sweep(this.core, row.uid);
  }

  view(volume: string, row: PointRow): SnapshotView {
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

  private find(uid: string, name: string): PointRow | undefined {
    return this.core.journal.get<PointRow>("SELECT * FROM points WHERE owner = ? AND name = ?", uid, name);
  }

  private existing(row: VolumeRow, point: PointRow): SnapshotView {
    if (point.state === "deleting" || point.released === 1) {
      throw new LongshoreError("SnapshotDeleting", `snapshot ${point.name} of volume ${row.name} is being deleted`);
    }
    return this.view(row.name, point);
  }

  private intend(row: VolumeRow, name: string): PointRow {
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
      return this.require(row.uid, row.name, name);
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
      this.rows.touch(row.uid);
    });
    feed.publish("volume", row.name);
    this.core.metrics
      .histogram("longshore_snapshot_stall_seconds", "How long writers were held up by a snapshot")
      .observe(stallMs / 1000);
    log.info({ volume: row.name, snapshot: point.name, point: point.pointId, stallMs }, "snapshot taken");
  }

  private async undo(uid: string, point: PointRow): Promise<void> {
    await this.core.storage.deletePoint(uid, point.file);
    this.core.journal.transaction(() =>
      this.core.journal.run(
        "DELETE FROM points WHERE owner = ? AND pointId = ? AND state = 'creating'",
        uid,
        point.pointId,
      ),
    );
  }
}
