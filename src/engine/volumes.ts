// The volumes of this node: made, grown, shown, removed. The row tells the intent before the
// file exists and after it is gone, so every step can be repeated after a crash.
import { LongshoreError } from "../domain/errors.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { BaseView, Lineage, VolumeSpec, VolumeView } from "../wire/schemas.ts";
import { type Core, checkRevision, guarded, timeText } from "./core.ts";
import { Extents } from "./extents.ts";
import { keepClonedPoint, releaseClonedPoint, sweepClonedPoint } from "./lineage.ts";
import { checkSameOrigin, LocalClones, originOf } from "./local-clones.ts";
import { type Holds, pointsOf, readHolds, sweep } from "./points.ts";
import { Snapshots } from "./snapshots.ts";
import { VolumeNames } from "./volume-names.ts";
import { affinityOf, type VolumeRow, VolumeRows, volumeLockKey } from "./volume-rows.ts";

const metadataBytesMax = 4096;

export class Volumes extends VolumeRows {
  readonly snapshots: Snapshots;
  readonly extents: Extents;
  readonly names: VolumeNames;
  private readonly localClones: LocalClones;

  constructor(core: Core) {
    super(core);
    this.names = new VolumeNames(core);
    this.snapshots = new Snapshots(core, this);
    const parts = { rows: this, snapshots: this.snapshots };
    this.extents = new Extents(core, parts);
    this.localClones = new LocalClones(core, parts);
  }

  list(): VolumeView[] {
    const rows = this.core.journal.all<VolumeRow>("SELECT * FROM volumes WHERE state = 'ready' ORDER BY name");
    const holds = readHolds(this.core.journal);
    return rows.map((row) => this.view(row, holds));
  }

  get(name: string): VolumeView {
    return this.view(this.row(name));
  }

  /** See AgentApi.putVolume. */
  async put(name: string, spec: VolumeSpec, { ifMatch }: Precondition = {}): Promise<VolumeView> {
    checkMetadata(spec.metadata);
    return this.core.lock.run(volumeLockKey(name), async () => {
      const row = await this.begun(name);
      if (row === undefined) await this.make(name, spec, ifMatch);
      else {
        checkRevision(`volume ${name}`, row.revision, ifMatch);
        checkSameOrigin(row, spec.from);
        await this.settle(row.uid, name, spec);
      }
      return this.get(name);
    });
  }

  /** The row of a volume that is there, or is being made. What an earlier try at something else left half made is removed. */
  private async begun(name: string): Promise<VolumeRow | undefined> {
    const row = this.find(name);
    if (row?.state === "deleting") throw new LongshoreError("InUse", `volume ${name} is being deleted; try again`);
    if (row === undefined || !isHalfMade(row)) return row;
    await this.localClones.undo(row);
    return undefined;
  }

  private async make(name: string, spec: VolumeSpec, ifMatch: number | undefined): Promise<void> {
    if (ifMatch !== undefined) throw new LongshoreError("PreconditionFailed", `volume ${name} does not exist`);
    this.core.members.checkWelcome();
    await this.checkReserve(0);
    if (spec.from !== undefined) return this.localClones.make(name, spec, spec.from);
    await this.makeEmpty(name, spec);
  }

  /** The name is claimed last: of what is left half made before that, other agents know nothing, and need not wait for this one. */
  private async makeEmpty(name: string, spec: VolumeSpec): Promise<void> {
    const { core } = this;
    const uid = await this.names.take(name, () => this.insert(name, spec));
    try {
      await core.storage.create(uid, spec.sizeBytes);
      await this.names.claim(name, uid);
      core.journal.transaction(() => this.finish(uid, spec.sizeBytes));
    } catch (error) {
      await guarded(core, `volume ${name}`, () => this.localClones.undo({ name }));
      throw error;
    }
    core.feed.publish("volume", name);
  }

  /** Within a transaction: the row of a clone that storage is about to make, or of an earlier try at it; its UID. */
  intendClone(name: string, spec: VolumeSpec, lineage: Lineage): string {
    const row = this.find(name);
    if (row === undefined) return this.insert(name, spec, { lineage });
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

  /** Within a transaction: the image is complete. */
  finish(uid: string, sizeBytes: number): void {
    this.core.journal.run(
      "UPDATE volumes SET state = 'ready', sizeBytes = ?, revision = revision + 1 WHERE uid = ?",
      sizeBytes,
      uid,
    );
  }

  /** Whether somebody uses a volume: has it attached, has snapshotted it, or has it migrated. */
  async isUsed(name: string): Promise<boolean> {
    const row = this.find(name);
    if (row === undefined) return false;
    if (row.migrationEnabled === 1 || pointsOf(this.core.journal, row.uid).length > 0) return true;
    return (await this.core.storage.attachedTo(row.uid)) !== undefined;
  }

  /** See AgentApi.removeVolume. */
  async remove(name: string, { ifMatch }: Precondition = {}): Promise<void> {
    const { core } = this;
    await core.lock.run(volumeLockKey(name), async () => {
      const row = this.find(name);
      if (row === undefined) return;
      if (isHalfMade(row)) return this.localClones.undo(row);
      if (row.state === "ready") {
        checkRevision(`volume ${name}`, row.revision, ifMatch);
        await this.checkDetached(row);
      }
      const clone = core.journal.get<{ migrated: string }>("SELECT migrated FROM clones WHERE name = ?", name);
      core.journal.transaction(() => this.markDeleting(row));
      core.feed.publish("volume", name);
      await this.finishRemoval(row);
      core.feed.publish("volume", name);
      await sweepClonedPoint(core, row);
      if (row.lineageJson === null || clone === undefined) return;
      core.feed.publish("clone", name);
      await sweep(core, clone.migrated);
    });
  }

  /** After a start: what was being made is removed, what was being deleted is deleted, and what is missing is told. */
  async recover(): Promise<void> {
    for (const row of this.rows()) await guarded(this.core, `volume ${row.name}`, () => this.settleLeftovers(row));
  }

  /** Does for volumes with something half made or half gone what a start would do; see recovery.ts. */
  async tidy(): Promise<void> {
    this.extents.expire();
    const halfDone = this.core.journal.all<{ name: string }>(
      `SELECT DISTINCT volumes.name FROM volumes LEFT JOIN points ON owner = uid AND points.state IN ('creating','deleting')
       WHERE volumes.state = 'deleting' OR owner IS NOT NULL OR (volumes.state = 'creating' AND lineageJson IS NULL)`,
    );
    for (const { name } of halfDone) {
      await guarded(this.core, `volume ${name}`, () =>
        this.core.lock.run(volumeLockKey(name), async () => {
          const row = this.find(name);
          if (row !== undefined) await this.settleLeftovers(row);
        }),
      );
    }
  }

  private settleLeftovers(row: VolumeRow): Promise<void> {
    if (row.state === "deleting") return this.finishRemoval(row);
    return isHalfMade(row) ? this.localClones.undo(row) : this.snapshots.recover(row);
  }

  /** Brings image and row to the spec. */
  private async settle(uid: string, name: string, spec: VolumeSpec): Promise<void> {
    const { journal, storage, feed } = this.core;
    const row = journal.get<VolumeRow>("SELECT * FROM volumes WHERE uid = ?", uid);
    if (row === undefined) throw new LongshoreError("NotFound", `volume ${name} does not exist`);
    if (row.state === "creating") {
      throw new LongshoreError("NameTaken", `volume ${name} is being made as a clone; ask for the clone`);
    }
    if (spec.sizeBytes < row.sizeBytes) {
      throw new LongshoreError(
        "ShrinkRefused",
        `volume ${name} has ${row.sizeBytes} bytes, ${spec.sizeBytes} asked for`,
      );
    }
    if (spec.sizeBytes > row.sizeBytes) await storage.expand(uid, spec.sizeBytes);
    const metadataJson = spec.metadata === undefined ? row.metadataJson : JSON.stringify(spec.metadata);
    const enabled = spec.migrationEnabled === undefined ? row.migrationEnabled : Number(spec.migrationEnabled);
    const asked = affinityOf(spec);
    const affinity = asked === undefined ? row.affinity : asked;
    const changed =
      row.sizeBytes !== spec.sizeBytes ||
      row.metadataJson !== metadataJson ||
      row.migrationEnabled !== enabled ||
      row.affinity !== affinity;
    if (!changed) return;
    journal.transaction(() => {
      journal.run(
        `UPDATE volumes SET sizeBytes = ?, metadataJson = ?, migrationEnabled = ?, affinity = ?,
         revision = revision + 1 WHERE uid = ?`,
        spec.sizeBytes,
        metadataJson,
        enabled,
        affinity,
        uid,
      );
      keepClonedPoint(this.core, row, enabled === 1);
    });
    if (enabled === 0) await sweepClonedPoint(this.core, row);
    feed.publish("volume", name);
  }

  /** What is removed must not be in use: whoever writes to it would do so into nothing. */
  private async checkDetached({ name, uid }: VolumeRow): Promise<void> {
    const user = await this.core.storage.attachedTo(uid);
    if (user !== undefined) throw new LongshoreError("InUse", `volume ${name} is in use by ${user}; detach it first`);
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
    const cloned = journal.get<{ holder: string }>(
      "SELECT holder FROM holds WHERE owner = ? AND reason = 'clone'",
      row.uid,
    );
    if (cloned !== undefined)
      throw new LongshoreError("InUse", `volume ${row.name} is being cloned to ${cloned.holder}`);
    journal.run("UPDATE volumes SET state = 'deleting', revision = revision + 1 WHERE uid = ?", row.uid);
    journal.run("DELETE FROM holds WHERE owner = ?", row.uid);
    releaseClonedPoint(this.core, row, "volume gone");
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

  private view(row: VolumeRow, holds: Holds = readHolds(this.core.journal, row.uid)): VolumeView {
    const { journal, storage, agentId } = this.core;
    const points = pointsOf(journal, row.uid).filter((point) => point.name !== null);
    const from = originOf(row)?.from;
    return {
      name: row.name,
      uid: row.uid,
      sizeBytes: row.sizeBytes,
      metadata: JSON.parse(row.metadataJson),
      migrationEnabled: row.migrationEnabled === 1,
      ...(from !== undefined && { from }),
      affinity: row.affinity,
      home: agentId,
      path: storage.livePath(row.uid),
      createdAt: timeText(row.createdAt),
      generation: row.generation,
      lineage: row.lineageJson === null ? null : JSON.parse(row.lineageJson),
      problem: row.problemJson === null ? null : JSON.parse(row.problemJson),
      snapshots: points.map((point) => this.snapshots.view(row.name, point, holds)),
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
}

/** Nobody was told of it, and nobody makes it any more once its lock is free. What is made of a point, its clone's request goes on with. */
function isHalfMade({ state, lineageJson }: VolumeRow): boolean {
  return state === "creating" && lineageJson === null;
}

function checkMetadata(metadata: Readonly<Record<string, string>> | undefined): void {
  if (metadata === undefined || Buffer.byteLength(JSON.stringify(metadata)) <= metadataBytesMax) return;
  throw new LongshoreError("BadRequest", `metadata takes more than ${metadataBytesMax} bytes; shorten it`);
}
