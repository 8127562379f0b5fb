// Snapshots of volumes, and the holds on them: taken, released, held, shown. The row tells the intent before the file exists
// and after it is gone, so every step can be repeated after a crash.
import { codeOf, describe, LongshoreError } from "../domain/errors.ts";
import type { FrozenVolume, Sealed, Thaw } from "../storage/backend.ts";
import type { SnapshotView } from "../wire/schemas.ts";
import { type Core, timeText } from "./core.ts";
import {
  dropHold,
  type Holds,
  hasFile,
  isPresent,
  nextPosition,
  type PointRow,
  pointsOf,
  readHolds,
  sweep,
  takeHold,
} from "./points.ts";
import { type VolumeRow, type VolumeRows, volumeLockKey } from "./volume-rows.ts";

export class Snapshots {
  private readonly core: Core;
  private readonly rows: VolumeRows;

  constructor(core: Core, rows: VolumeRows) {
    this.core = core;
    this.rows = rows;
  }

  /** See AgentApi.putSnapshot. With `uid`, of that very volume: `NotFound` when it is another one of this name by now. */
  async take(volume: string, name: string, uid?: string): Promise<SnapshotView> {
    return this.core.lock.run(volumeLockKey(volume), async () => {
      const row = this.rows.row(volume);
      if (uid !== undefined && row.uid !== uid) throw new LongshoreError("NotFound", `volume ${volume} was deleted`);
      const existing = this.find(row.uid, name);
      if (existing !== undefined && isUnconfirmed(existing)) throw unconfirmed(volume, name);
      // Being made, under the lock that it is made under: an earlier try failed, and could not even be undone.
      if (existing?.state === "creating") await this.undo(row.uid, existing);
      else if (existing !== undefined) return this.existing(row, existing);
      await this.rows.checkReserve(0);
      const point = this.intend(row, name);
      try {
        await this.seal(row, point, await this.image(row, point));
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
      if (isUnconfirmed(point)) throw unconfirmed(volume, name);
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

  /** A snapshot whose content may be read. Throws `NotFound`, `Conflict` for one that is being taken, and `SnapshotGone`. */
  async readable(row: VolumeRow, name: string): Promise<PointRow> {
    const point = this.require(row.uid, row.name, name);
    const what = `snapshot ${name} of volume ${row.name}`;
    if (point.state === "creating") throw new LongshoreError("Conflict", `${what} is being taken; try again`);
    if (point.state === "deleting" || point.released === 1) {
      throw new LongshoreError("SnapshotGone", `${what} is being deleted`);
    }
    if (await isPresent(this.core, point)) return point;
    throw new LongshoreError("SnapshotGone", `the file of ${what} vanished or was replaced`);
  }

  /**
   * After a start: what was being taken is undone, what was being deleted is deleted. Parts of groups wait for their fate, unless
   * their files went with an older image of the disk.
   */
  async recover(row: VolumeRow): Promise<void> {
    for (const point of pointsOf(this.core.journal, row.uid)) {
      const isTaken = isUnconfirmed(point) && (await hasFile(this.core, point));
      if (point.state === "creating" && !isTaken) await this.undo(row.uid, point);
    }
    await sweep(this.core, row.uid);
  }

  view(volume: string, row: PointRow, holds: Holds = readHolds(this.core.journal, row.owner)): SnapshotView {
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
      ...(row.groupName !== null && { group: row.groupName }),
      ...(row.groupPoint !== null && { groupPoint: row.groupPoint }),
      holds: holds(row),
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

  /** Under the volume's lock, while it is frozen: its part of a group snapshot, which does not count until {@link confirm}. */
  async takePart(row: VolumeRow, name: string, group: GroupPoint): Promise<void> {
    const existing = this.find(row.uid, name);
    const isLeftHalfMade = existing?.state === "creating" && !isUnconfirmed(existing);
    if (existing !== undefined && !isLeftHalfMade) {
      if (existing.groupPoint === group.groupPoint) return;
      throw new LongshoreError("NameTaken", `volume ${row.name} has a snapshot ${name} already`);
    }
    if (existing !== undefined) await this.undo(row.uid, existing);
    const point = this.intend(row, name, group);
    try {
      const { identity, stallMs } = await this.core.storage.snapshot(row.uid, point.pointId);
      this.record(row, point, { identity, stallMs, isConfirmed: false });
    } catch (error) {
      await this.undo(row.uid, point);
      throw error;
    }
  }

  /** Within a transaction: a part of a group snapshot counts from now on. */
  confirm(part: PointRow): void {
    this.core.journal.run(
      "UPDATE points SET state = 'sealed', isValid = 1 WHERE owner = ? AND pointId = ? AND state = 'creating' AND inode IS NOT NULL",
      part.owner,
      part.pointId,
    );
    this.rows.touch(part.owner);
  }

  /** Within a transaction: a part of a group snapshot cannot be confirmed any more; whether it was there. {@link drop} comes next. */
  giveUp(part: PointRow): boolean {
    const sql = "UPDATE points SET inode = NULL WHERE owner = ? AND pointId = ? AND state = 'creating'";
    return this.core.journal.run(sql, part.owner, part.pointId) > 0;
  }

  /** Under the volume's lock: what is left of a part that was given up. */
  async drop(part: PointRow): Promise<void> {
    await this.undo(part.owner, part);
    this.rows.published(part.owner);
  }

  private intend(row: VolumeRow, name: string, group?: GroupPoint): PointRow {
    const { journal, dice, clock } = this.core;
    const pointId = dice.hex(16);
    return journal.transaction(() => {
      journal.run(
        `INSERT INTO points (owner, pointId, name, generation, state, file, sizeBytes, sourceTime, position, groupName, groupPoint, isValid)
         VALUES (?,?,?,?,'creating',?,?,?,?,?,?,?)`,
        row.uid,
        pointId,
        name,
        row.generation,
        pointId,
        row.sizeBytes,
        clock.nowMs(),
        nextPosition(journal, row.uid),
        group?.group ?? null,
        group?.groupPoint ?? null,
        group === undefined ? 1 : 0,
      );
      return this.require(row.uid, row.name, name);
    });
  }

  /** The image, with the file systems on it in order where that can be had. */
  private async image(row: VolumeRow, point: PointRow): Promise<Sealed> {
    const frozen = await this.freeze(row);
    if (frozen === undefined) return this.core.storage.snapshot(row.uid, point.pointId);
    let thaw: Thaw;
    let sealed: Sealed;
    try {
      sealed = await this.core.storage.snapshot(row.uid, point.pointId);
    } finally {
      thaw = await frozen.thaw();
    }
    if (sealed.restsOnFreeze && !thaw.wasFrozen) {
      const text = `volume ${row.name} did not stay frozen while it was copied (${Math.round(thaw.frozenMs)} ms)`;
      throw new LongshoreError("VolumeBusy", text);
    }
    return frozen.isMounted ? { ...sealed, stallMs: thaw.frozenMs } : sealed;
  }

  /** A volume that cannot be frozen is snapshotted as it is: as after a loss of power, if the backend can do that. */
  private async freeze(row: VolumeRow): Promise<FrozenVolume | undefined> {
    const { storage, limits, log } = this.core;
    try {
      return await storage.freeze(row.uid, limits.freezeMs);
    } catch (error) {
      if (codeOf(error) !== "VolumeBusy" && codeOf(error) !== "Unsupported") throw error;
      log.warn({ volume: row.name, problem: describe(error) }, "not frozen for its snapshot");
      return undefined;
    }
  }

  private async seal(row: VolumeRow, point: PointRow, { identity, stallMs }: Sealed): Promise<void> {
    this.record(row, point, { identity, stallMs, isConfirmed: true });
    this.core.feed.publish("volume", row.name);
    observeStall(this.core, stallMs);
    const about = { volume: row.name, snapshot: point.name, point: point.pointId, stallMs };
    this.core.log.info(about, "snapshot taken");
  }

  private record(
    row: VolumeRow,
    point: PointRow,
    { identity, stallMs, isConfirmed }: Pick<Sealed, "identity" | "stallMs"> & { isConfirmed: boolean },
  ): void {
    const { journal } = this.core;
    journal.transaction(() => {
      journal.run(
        "UPDATE points SET state = ?, inode = ?, fsUuid = ?, sizeBytes = ?, stallMs = ? WHERE owner = ? AND pointId = ?",
        isConfirmed ? "sealed" : "creating",
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

/** What the snapshots of one moment share. */
export interface GroupPoint {
  readonly group: string;
  readonly groupPoint: string;
}

/** Taken with its group, and not yet known to be of the group's moment. */
export function isUnconfirmed(point: PointRow): boolean {
  return point.state === "creating" && point.isValid === 0 && point.inode !== null;
}

export function observeStall({ metrics }: Pick<Core, "metrics">, stallMs: number): void {
  metrics
    .histogram("longshore_snapshot_stall_seconds", "How long writers were held up by a snapshot")
    .observe(stallMs / 1000);
}

function unconfirmed(volume: string, name: string): LongshoreError {
  return new LongshoreError(
    "Conflict",
    `snapshot ${name} of volume ${volume} is being taken with its group; try again`,
  );
}
