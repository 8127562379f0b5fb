// Clones: how a migrated volume is consumed. A request made while the newest point is closed is kept durably, and served by
// the commit (or by the thaw after an abort) before the next freeze. A clone is a volume of its own once it is ready.
import { assert } from "../base/assert.ts";
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { CloneSpec, CloneView, Lineage } from "../wire/schemas.ts";
import { type Core, timeText } from "./core.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey } from "./migrated.ts";
import { dropHold, markLost, type PointRow, pointOf, sealedPoint, sweep, takeHold } from "./points.ts";
import type { Volumes } from "./volumes.ts";

interface CloneRow {
  readonly name: string;
  readonly spec: CloneSpec;
  readonly state: "Waiting" | "Creating" | "Ready" | "Deleting";
  readonly migrated: string;
  readonly pointId: string | null;
  readonly sourceTime: number | null;
  readonly volume: string | null;
  readonly requestedAt: number;
  readonly askedAt: number;
  readonly servedAt: number | null;
  readonly revision: number;
}

export class Clones {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;
  private readonly volumes: Volumes;

  constructor(core: Core, parts: { migrated: MigratedVolumes; volumes: Volumes }) {
    this.core = core;
    this.migrated = parts.migrated;
    this.volumes = parts.volumes;
  }

  list(): CloneView[] {
    return this.rows()
      .filter((row) => row.state !== "Deleting")
      .map((row) => this.view(row));
  }

  get(name: string): CloneView {
    const row = this.find(name);
    if (row === undefined || row.state === "Deleting")
      throw new LongshoreError("NotFound", `clone ${name} does not exist`);
    return this.view(row);
  }

  /** See AgentApi.putClone. */
  async put(name: string, spec: CloneSpec): Promise<CloneView> {
    const known = this.find(name);
    if (known?.state === "Ready") return this.same(known, spec);
    const source = this.migrated.row(spec.migratedVolume);
    return this.core.lock.run(migratedLockKey(source), async () => {
      this.ask(name, spec, source);
      await this.serve(name);
      return this.get(name);
    });
  }

  /** See AgentApi.removeClone. */
  async remove(name: string): Promise<void> {
    const row = this.find(name);
    if (row === undefined) return;
    const source = this.migrated.byUid(row.migrated);
    const key = source === undefined ? `clone ${name}` : migratedLockKey(source);
    await this.core.lock.run(key, () => this.finishRemoval(name));
    this.core.feed.publish("clone", name);
  }

  /** Serves what waits for a migrated volume, ahead of whoever asks for its lock from now on. */
  serveWaiting(uid: string): void {
    const source = this.migrated.byUid(uid);
    if (source === undefined) return;
    const served = this.core.lock.run(migratedLockKey(source), async () => {
      const waiting = this.rows().filter((row) => row.migrated === uid && row.state === "Waiting");
      for (const row of waiting) await this.serveOne(row.name);
    });
    this.core.tasks.spawn("serve waiting clones", () => served);
  }

  /** Drops requests that were not repeated, and finishes what a crash interrupted. */
  async expire(): Promise<void> {
    const { clock, limits, journal, feed } = this.core;
    for (const row of this.rows()) {
      if (row.state !== "Waiting" || clock.nowMs() - row.askedAt < limits.cloneWaitMs) continue;
      journal.transaction(() => journal.run("DELETE FROM clones WHERE name = ? AND state = 'Waiting'", row.name));
      feed.publish("clone", row.name);
    }
  }

  async recover(): Promise<void> {
    for (const row of this.rows()) {
      if (row.state === "Deleting") await this.remove(row.name);
      if (row.state !== "Creating") continue;
      const source = this.migrated.byUid(row.migrated);
      if (source !== undefined) await this.core.lock.run(migratedLockKey(source), () => this.serveOne(row.name));
    }
  }

  private rows(): CloneRow[] {
    return this.core.journal
      .all<Omit<CloneRow, "spec"> & { specJson: string }>("SELECT * FROM clones ORDER BY requestedAt, name")
      .map(({ specJson, ...row }) => ({ ...row, spec: JSON.parse(specJson) as CloneSpec }));
  }

  private find(name: string): CloneRow | undefined {
    return this.rows().find((row) => row.name === name);
  }

  /** The same name asks for the same clone; metadata and size may only be left out, not differ. */
  private same(row: CloneRow, spec: CloneSpec): CloneView {
    const isSame =
      row.spec.migratedVolume === spec.migratedVolume &&
      row.spec.point === spec.point &&
      (spec.sizeBytes ?? row.spec.sizeBytes) === row.spec.sizeBytes;
    if (isSame) return this.view(row);
    throw new LongshoreError("NameTaken", `clone ${row.name} exists with other parameters`);
  }

  /** Makes the request durable, or notes that it was asked for again. */
  private ask(name: string, spec: CloneSpec, source: MigratedRow): void {
    const { journal, clock } = this.core;
    const known = this.find(name);
    if (known?.state === "Deleting")
      throw new LongshoreError("InUse", `clone ${name} is being deleted; ask again later`);
    if (known !== undefined) this.same(known, spec);
    if (spec.point !== "latest") this.requirePoint(source, spec.point);
    const nowMs = clock.nowMs();
    journal.transaction(() =>
      journal.run(
        `INSERT INTO clones (name, specJson, state, migrated, requestedAt, askedAt, revision) VALUES (?,?,'Waiting',?,?,?,1)
         ON CONFLICT (name) DO UPDATE SET askedAt = excluded.askedAt`,
        name,
        JSON.stringify(spec),
        source.uid,
        nowMs,
        nowMs,
      ),
    );
  }

  /** Under the volume's lock; a failure is logged, and the request stays for the next time it is asked for. */
  private async serveOne(name: string): Promise<void> {
    try {
      await this.serve(name);
    } catch (error) {
      this.core.log.error({ clone: name, err: error }, "clone not served");
    }
  }

  /** Under the volume's lock: makes the clone if its point is open. Repeating it goes on where it was. */
  private async serve(name: string): Promise<void> {
    const row = this.find(name);
    if (row === undefined || row.state === "Ready" || row.state === "Deleting") return;
    const source = this.migrated.byUid(row.migrated);
    if (source === undefined) return;
    const point = row.state === "Creating" ? this.chosen(row) : this.choose(row, source);
    if (point === undefined) return;
    const volume = this.intend(row, point, source);
    const sizeBytes = Math.max(point.sizeBytes, row.spec.sizeBytes ?? 0);
    try {
      await this.core.storage.clone({ volume: point.owner, ...sealedPoint(point) }, { volume, sizeBytes });
    } catch (error) {
      if (codeOf(error) === "PointGone") markLost(this.core, point);
      throw error;
    }
    this.finish(row, point, { volume, sizeBytes });
    this.core.log.info({ clone: name, migratedVolume: source.name, point: point.pointId }, "clone served");
    await sweep(this.core, point.owner);
  }

  /** The point to clone now; none while it is closed: the newest while a transfer runs, any while there is none. */
  private choose(row: CloneRow, source: MigratedRow): PointRow | undefined {
    const points = this.migrated.points(source.uid);
    const newest = points.at(-1);
    const wanted = row.spec.point === "latest" ? newest : points.find((point) => point.pointId === row.spec.point);
    if (wanted === undefined) return undefined;
    return source.frozenSince !== null && wanted === newest ? undefined : wanted;
  }

  private chosen(row: CloneRow): PointRow {
    const point = row.pointId === null ? undefined : pointOf(this.core.journal, row.migrated, row.pointId);
    if (point?.state === "sealed") return point;
    throw new LongshoreError("PointGone", `the point that clone ${row.name} was made from is gone; delete the clone`);
  }

  private requirePoint(source: MigratedRow, pointId: string): void {
    if (this.migrated.points(source.uid).some((point) => point.pointId === pointId)) return;
    throw new LongshoreError("PointGone", `${source.name} has no point ${pointId}`);
  }

  /** Binds the request to its point and holds it, so that the point stays whatever is committed meanwhile. */
  private intend(row: CloneRow, point: PointRow, source: MigratedRow): string {
    const { journal } = this.core;
    const sizeBytes = Math.max(point.sizeBytes, row.spec.sizeBytes ?? 0);
    if (row.spec.sizeBytes !== undefined && row.spec.sizeBytes < point.sizeBytes) {
      throw new LongshoreError(
        "ShrinkRefused",
        `clone ${row.name} needs at least its point's ${point.sizeBytes} bytes`,
      );
    }
    const lineage: Lineage = { clusterUid: source.clusterUid, volumeUid: source.volumeUid, pointId: point.pointId };
    const metadata = row.spec.metadata ?? (JSON.parse(source.metadataJson) as Record<string, string>);
    const volume = this.volumes.intendClone(row.name, { sizeBytes, metadata }, lineage);
    journal.transaction(() => {
      takeHold(this.core, { owner: point.owner, pointId: point.pointId, reason: "clone", holder: row.name });
      journal.run(
        "UPDATE clones SET state = 'Creating', pointId = ?, sourceTime = ? WHERE name = ?",
        point.pointId,
        point.sourceTime,
        row.name,
      );
    });
    return volume;
  }

  private finish(row: CloneRow, point: PointRow, made: { volume: string; sizeBytes: number }): void {
    const { journal, clock, feed } = this.core;
    journal.transaction(() => {
      this.volumes.finishClone(made.volume, made.sizeBytes);
      dropHold(journal, { owner: point.owner, pointId: point.pointId, reason: "clone", holder: row.name });
      journal.run(
        "UPDATE clones SET state = 'Ready', volume = ?, servedAt = ?, revision = revision + 1 WHERE name = ?",
        row.name,
        clock.nowMs(),
        row.name,
      );
    });
    feed.publish("clone", row.name);
    feed.publish("volume", row.name);
  }

  private async finishRemoval(name: string): Promise<void> {
    const row = this.find(name);
    if (row === undefined) return;
    const { journal } = this.core;
    journal.transaction(() => journal.run("UPDATE clones SET state = 'Deleting' WHERE name = ?", name));
    if (row.state !== "Waiting") await this.volumes.remove(name);
    journal.transaction(() => {
      if (row.pointId !== null) {
        dropHold(journal, { owner: row.migrated, pointId: row.pointId, reason: "clone", holder: name });
      }
      journal.run("DELETE FROM clones WHERE name = ?", name);
    });
    await sweep(this.core, row.migrated);
  }

  private view(row: CloneRow): CloneView {
    const source = this.migrated.byUid(row.migrated);
    const transfer = source === undefined || row.state === "Ready" ? null : this.migrated.view(source).transfer;
    const volume = row.volume === null ? undefined : this.volumes.find(row.volume);
    assert(row.state !== "Deleting", "a clone on its way out has no view");
    return {
      name: row.name,
      spec: row.spec,
      state: row.state === "Ready" ? "Ready" : "Waiting",
      pointId: row.pointId,
      sourceTime: row.sourceTime === null ? null : timeText(row.sourceTime),
      volume: row.volume,
      path: volume === undefined ? null : this.core.storage.livePath(volume.uid),
      sizeBytes: volume?.sizeBytes ?? null,
      bytesTotal: transfer?.bytesTotal ?? null,
      bytesStored: transfer?.bytesStored ?? null,
      requestedAt: timeText(row.requestedAt),
      servedAt: row.servedAt === null ? null : timeText(row.servedAt),
      revision: row.revision,
    };
  }
}
