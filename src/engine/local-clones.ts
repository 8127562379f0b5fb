// Clones within this agent: a volume made of a snapshot of another one, or of what that holds now. The row tells the intent, and
// the snapshot is held, before the image exists; a clone that is not finished, whatever kept it from that, is undone without a
// trace, by whoever tried, or by the next start. It has no lineage, for that leads to copies of other clusters' volumes.
import { assert } from "../base/assert.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import { cloneSnapshotName } from "../domain/names.ts";
import type { VolumeOrigin, VolumeSpec } from "../wire/schemas.ts";
import { type Core, guarded } from "./core.ts";
import { dropHold, markLost, type PointRow, pointOf, sealedPoint, sweep, takeHold } from "./points.ts";
import type { Snapshots } from "./snapshots.ts";
import { publishVolume, touchVolume, type VolumeRow, type VolumeRows } from "./volume-rows.ts";

/** `volumes.originJson`. */
interface Origin {
  /** As it was asked for. */
  readonly from: VolumeOrigin;
  readonly volumeUid: string;
  /** Held, while the clone is being made; null until the snapshot of what the volume holds now is there. */
  readonly pointId: string | null;
}

export class LocalClones {
  private readonly core: Core;
  private readonly rows: VolumeRows;
  private readonly snapshots: Snapshots;

  constructor(core: Core, parts: { rows: VolumeRows; snapshots: Snapshots }) {
    this.core = core;
    this.rows = parts.rows;
    this.snapshots = parts.snapshots;
  }

  /** Under the lock of the clone's name, which nothing has: makes it. Throws as AgentApi.putVolume says, and leaves nothing. */
  async make(name: string, spec: VolumeSpec, from: VolumeOrigin): Promise<void> {
    const row = await this.intend(name, spec, from);
    try {
      const point = await this.heldPoint(row);
      await this.copy(row, point);
      this.finish(row, point);
    } catch (error) {
      await guarded(this.core, `clone ${name}`, () => this.undo(row));
      throw error;
    }
    const { volumeUid } = requireOrigin(row);
    this.core.feed.publish("volume", name);
    this.core.log.info({ volume: name, from }, "volume cloned");
    // The clone is there, whatever becomes of the snapshot that it was made by.
    await guarded(this.core, `snapshot for clone ${name}`, () => this.rows.sweep(volumeUid));
  }

  /**
   * Under the lock of its name: removes a volume that is still being made, and with a clone the hold and the snapshot that were taken
   * for it. Nobody was told of any of it. One that is ready stays, whatever failed after that.
   */
  async undo({ name }: Pick<VolumeRow, "name">): Promise<void> {
    const { core } = this;
    const row = this.rows.find(name);
    if (row?.state !== "creating") return;
    await core.storage.remove(row.uid);
    const origin = originOf(row);
    core.journal.transaction(() => {
      if (origin !== undefined) {
        core.journal.run(
          "DELETE FROM holds WHERE owner = ? AND reason = 'clone' AND holder = ?",
          origin.volumeUid,
          row.name,
        );
        this.releaseTemporary(row, origin);
        touchVolume(core, origin.volumeUid);
      }
      core.journal.run("DELETE FROM volumes WHERE uid = ?", row.uid);
    });
    if (origin === undefined) return;
    await sweep(core, origin.volumeUid);
    publishVolume(core, origin.volumeUid);
  }

  /** The row and, for a clone of a snapshot, the hold on it: from here on it cannot go. */
  private async intend(name: string, spec: VolumeSpec, from: VolumeOrigin): Promise<VolumeRow> {
    const { core, rows } = this;
    const source = rows.row(from.volume);
    const point = from.snapshot === undefined ? undefined : await this.snapshots.readable(source, from.snapshot);
    checkSize(name, spec, point ?? source);
    const origin: Origin = { from, volumeUid: source.uid, pointId: point?.pointId ?? null };
    core.journal.transaction(() => {
      rows.insert(name, spec, { originJson: JSON.stringify(origin) });
      if (point !== undefined) this.hold(name, point);
    });
    if (point !== undefined) publishVolume(core, source.uid);
    return rows.find(name) as VolumeRow;
  }

  /** The point that the clone is made of, and which it holds. */
  private async heldPoint(row: VolumeRow): Promise<PointRow> {
    const { volumeUid, pointId } = requireOrigin(row);
    const held = pointId === null ? await this.takeTemporary(row) : pointOf(this.core.journal, volumeUid, pointId);
    if (held !== undefined) return held;
    throw new LongshoreError("SnapshotGone", `point ${pointId}, of which ${row.name} was to be made, is gone`);
  }

  /**
   * Waits for the lock of the other volume, which is there: whoever holds that lock waits for none but that of a volume that is
   * there as well, and those that are being made are not, so that nobody ever waits in a circle.
   */
  private async takeTemporary(row: VolumeRow): Promise<PointRow> {
    const { core } = this;
    const origin = requireOrigin(row);
    const { name } = this.rows.row(origin.from.volume);
    const snapshot = cloneSnapshotName(row.uid);
    await this.snapshots.take(name, snapshot, origin.volumeUid);
    return core.journal.transaction(() => {
      const point = this.snapshots.require(origin.volumeUid, name, snapshot);
      const held: Origin = { ...origin, pointId: point.pointId };
      core.journal.run("UPDATE volumes SET originJson = ? WHERE uid = ?", JSON.stringify(held), row.uid);
      this.hold(row.name, point);
      return point;
    });
  }

  private async copy(row: VolumeRow, point: PointRow): Promise<void> {
    const { core } = this;
    // It may have grown before it was snapshotted.
    checkSize(row.name, row, point);
    try {
      await core.storage.clone(
        { volume: point.owner, ...sealedPoint(point) },
        { volume: row.uid, sizeBytes: row.sizeBytes },
      );
    } catch (error) {
      if (codeOf(error) !== "PointGone") throw error;
      markLost(core, point);
      throw new LongshoreError("SnapshotGone", `what ${row.name} was to be made of is gone`, { cause: error });
    }
  }

  private finish(row: VolumeRow, point: PointRow): void {
    const { core } = this;
    core.journal.transaction(() => {
      core.journal.run("UPDATE volumes SET state = 'ready', revision = revision + 1 WHERE uid = ?", row.uid);
      dropHold(core.journal, { owner: point.owner, pointId: point.pointId, reason: "clone", holder: row.name });
      this.releaseTemporary(row, requireOrigin(row));
      touchVolume(core, point.owner);
    });
  }

  /** Within a transaction. */
  private hold(name: string, { owner, pointId }: PointRow): void {
    takeHold(this.core, { owner, pointId, reason: "clone", holder: name });
    touchVolume(this.core, owner);
  }

  /** Within a transaction: the snapshot that was taken for this clone alone, if it was, is not wanted any more. */
  private releaseTemporary(row: VolumeRow, { from, volumeUid }: Origin): void {
    if (from.snapshot !== undefined) return;
    this.core.journal.run(
      "UPDATE points SET released = 1 WHERE owner = ? AND name = ?",
      volumeUid,
      cloneSnapshotName(row.uid),
    );
  }
}

/** What a volume was made of, if it is a local clone. */
export function originOf({ originJson }: Pick<VolumeRow, "originJson">): Origin | undefined {
  return originJson === null ? undefined : (JSON.parse(originJson) as Origin);
}

/** Throws `NameTaken` when a volume that is there was not made of what is asked for now. */
export function checkSameOrigin(row: VolumeRow, asked: VolumeOrigin | undefined): void {
  if (asked === undefined) return;
  const made = originOf(row)?.from;
  if (made !== undefined && made.volume === asked.volume && made.snapshot === asked.snapshot) return;
  const what = made === undefined ? "no clone" : `a clone of ${textOf(made)}`;
  throw new LongshoreError("NameTaken", `volume ${row.name} exists, and is ${what}, not one of ${textOf(asked)}`);
}

function textOf({ volume, snapshot }: VolumeOrigin): string {
  return snapshot === undefined ? `volume ${volume}` : `snapshot ${snapshot} of volume ${volume}`;
}

function requireOrigin(row: VolumeRow): Origin {
  const origin = originOf(row);
  assert(origin !== undefined, `volume ${row.name} is no local clone`);
  return origin;
}

function checkSize(name: string, asked: { sizeBytes: number }, present: { sizeBytes: number }): void {
  if (asked.sizeBytes >= present.sizeBytes) return;
  throw new LongshoreError(
    "ShrinkRefused",
    `volume ${name} needs at least the ${present.sizeBytes} bytes of what it is made of, not ${asked.sizeBytes}`,
  );
}
