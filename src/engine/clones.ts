// Clones: how a migrated volume is consumed. A request made while the newest point is closed is kept durably, and served by
// the commit (or by the thaw after an abort) before the next freeze. A clone is a volume of its own once it is ready.
//
// It is begun under the migrated volume's lock: the point is open then, and from then on held. Its image, which on some backends is
// a whole copy, is made without that lock: what is sealed does not change, what is held is not deleted, and whoever closes the
// newest point meanwhile closes it for those that come later.
import { codeOf, LongshoreError } from "../domain/errors.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { CloneSpec, CloneView, Lineage } from "../wire/schemas.ts";
import { type Core, guarded, timeText } from "./core.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey } from "./migrated.ts";
import { headerOf } from "./plans.ts";
import { dropHold, isPresent, markLost, type PointRow, pointOf, sealedPoint, sweep, takeHold } from "./points.ts";
import { volumeLockKey } from "./volume-rows.ts";
import type { Volumes } from "./volumes.ts";

interface CloneRow {
  readonly name: string;
  readonly spec: CloneSpec;
  /** `Creating`: bound to a point, which it holds. */
  readonly state: "Waiting" | "Creating" | "Ready";
  readonly migrated: string;
  readonly pointId: string | null;
  readonly sourceTime: number | null;
  readonly volume: string | null;
  readonly requestedAt: number;
  readonly askedAt: number;
  readonly servedAt: number | null;
  /** 0: it goes by itself once it was served, unless somebody asks for it or uses it in time. */
  readonly isKept: number;
  readonly revision: number;
}

export class Clones {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;
  private readonly volumes: Volumes;
  private readonly expiring = new Set<string>();
  /** Those that are being served now; whoever asks for one of them waits for the same. */
  private readonly serving = new Map<string, Promise<void>>();

  constructor(core: Core, parts: { migrated: MigratedVolumes; volumes: Volumes }) {
    this.core = core;
    this.migrated = parts.migrated;
    this.volumes = parts.volumes;
  }

  list(): CloneView[] {
    return this.rows("SELECT * FROM clones ORDER BY name").map((row) => this.view(row));
  }

  get(name: string): CloneView {
    const row = this.find(name);
    if (row === undefined) throw new LongshoreError("NotFound", `clone ${name} does not exist`);
    return this.view(row);
  }

  /** See AgentApi.putClone. */
  async put(name: string, spec: CloneSpec): Promise<CloneView> {
    const ready = await this.ready(name, spec);
    if (ready !== undefined) return this.view(ready);
    const source = this.migrated.row(spec.migratedVolume);
    const { served } = await this.core.lock.run(migratedLockKey(source), async () => {
      this.ask(name, spec, this.migrated.row(spec.migratedVolume));
      const begun = await this.begin(name);
      this.claimed(name, spec);
      return begun;
    });
    await served;
    const made = await this.ready(name, spec);
    return made === undefined ? this.get(name) : this.view(made);
  }

  /** See AgentApi.removeClone. */
  async remove(name: string): Promise<void> {
    // Nobody waits under the lock for what takes long; what became of it is told to whoever asked for it.
    await this.serving.get(name)?.catch(() => undefined);
    const row = this.find(name);
    if (row === undefined) return;
    await this.underLock(row, () => this.finishRemoval(name));
  }

  /** Serves what waits for a migrated volume, ahead of whoever asks for its lock from now on. */
  serveWaiting(uid: string): void {
    const source = this.migrated.byUid(uid);
    if (source === undefined) return;
    const begun = this.core.lock.run(migratedLockKey(source), async () => {
      const waiting = this.rows(
        "SELECT * FROM clones WHERE migrated = ? AND state <> 'Ready' ORDER BY requestedAt",
        uid,
      );
      for (const { name } of waiting) await this.serveSoon(name);
    });
    this.core.tasks.spawn("serve waiting clones", () => begun);
  }

  /** Drops requests that nobody repeats: waiting ones, and those that failed half-way; and clones that nobody claims. */
  expire(): void {
    for (const row of this.unserved().filter((one) => this.isForgotten(one))) {
      this.dropSoon(row, async () => {
        const now = this.find(row.name);
        if (now !== undefined && this.isForgotten(now)) await this.finishRemoval(row.name);
      });
    }
    for (const row of this.unclaimed().filter(({ servedAt }) => this.isOld(servedAt ?? 0))) {
      this.dropSoon(row, () => this.dropUnclaimed(row.name));
    }
  }

  /** Now and then: notes which clones that would go by themselves are used by somebody. */
  async keepUsed(): Promise<void> {
    for (const row of this.unclaimed()) {
      await guarded(this.core, `clone ${row.name}`, async () => {
        if (await this.volumes.isUsed(row.name)) this.keep(row.name);
      });
    }
  }

  /** After a start: goes on with those that were being made, and serves those that an earlier process thawed the volume for. */
  recover(): void {
    for (const row of this.unserved()) {
      const begun = this.underLock(row, () => this.serveSoon(row.name));
      this.core.tasks.spawn(`clone ${row.name}`, () => begun);
    }
  }

  private isForgotten({ name, state, askedAt }: CloneRow): boolean {
    return state !== "Ready" && !this.serving.has(name) && this.isOld(askedAt);
  }

  /** So is what happened far in the future: the wall clock was set back since, and it would stay until then. */
  private isOld(atMs: number): boolean {
    return Math.abs(this.core.clock.nowMs() - atMs) >= this.core.limits.cloneWaitMs;
  }

  private dropSoon({ name, migrated }: CloneRow, work: () => Promise<void>): void {
    if (this.expiring.has(name)) return;
    this.expiring.add(name);
    const drop = () => this.underLock({ name, migrated }, work);
    this.core.tasks.spawn(`drop clone ${name}`, () => drop().finally(() => this.expiring.delete(name)));
  }

  /** Under the lock: it was served, and whoever waited for it does not ask any more. */
  private async dropUnclaimed(name: string): Promise<void> {
    const row = this.find(name);
    if (row?.state !== "Ready" || row.isKept === 1) return;
    const volume = this.volumes.find(name);
    try {
      // Although nobody was told that it is ready.
      if (await this.volumes.isUsed(name)) return this.keep(name);
      await this.finishRemoval(name, { ifMatch: volume?.revision });
    } catch (error) {
      const code = codeOf(error);
      // Somebody has done something with it since it was looked at: it is looked at again.
      if (code === "PreconditionFailed") return;
      if (code !== "InUse") throw error;
      return this.keep(name);
    }
    this.core.log.info({ clone: name }, "clone removed: nobody has asked for it since it was served");
  }

  /** As {@link claimed}, under its lock. */
  private async ready(name: string, spec: CloneSpec): Promise<CloneRow | undefined> {
    const known = this.find(name);
    if (known?.state !== "Ready") return undefined;
    if (known.isKept === 1) return this.same(known, spec);
    // One that is about to go may be gone once it is our turn; then it is asked for anew.
    return this.underLock(known, async () => this.claimed(name, spec));
  }

  /** Under the lock: the clone, if it is ready; whoever is told so relies on it, so from now on it stays until it is deleted. */
  private claimed(name: string, spec: CloneSpec): CloneRow | undefined {
    const row = this.find(name);
    if (row?.state !== "Ready") return undefined;
    this.same(row, spec);
    if (row.isKept === 0) this.keep(name);
    return row;
  }

  private keep(name: string): void {
    const { journal } = this.core;
    journal.transaction(() => journal.run("UPDATE clones SET isKept = 1 WHERE name = ?", name));
  }

  /** Under the migrated volume's lock, as long as that is there, and the clone's own: one is not claimed while it is dropped. */
  private underLock<T>({ name, migrated }: Pick<CloneRow, "name" | "migrated">, work: () => Promise<T>): Promise<T> {
    const { lock } = this.core;
    const source = this.migrated.byUid(migrated);
    const locked = () => lock.run(`clone ${name}`, work);
    return source === undefined ? locked() : lock.run(migratedLockKey(source), locked);
  }

  private unserved(): CloneRow[] {
    return this.rows("SELECT * FROM clones WHERE state <> 'Ready'");
  }

  /** Those that were served, and go by themselves unless they are asked for. */
  private unclaimed(): CloneRow[] {
    return this.rows("SELECT * FROM clones WHERE state = 'Ready' AND isKept = 0");
  }

  private rows(sql: string, ...values: string[]): CloneRow[] {
    return this.core.journal
      .all<Omit<CloneRow, "spec"> & { specJson: string }>(sql, ...values)
      .map(({ specJson, ...row }) => ({ ...row, spec: JSON.parse(specJson) as CloneSpec }));
  }

  private find(name: string): CloneRow | undefined {
    return this.rows("SELECT * FROM clones WHERE name = ?", name)[0];
  }

  /** The same name asks for the same clone; a size may only be left out, not differ. Who asks for it to stay gets it, too. */
  private same(row: CloneRow, spec: CloneSpec): CloneRow {
    const isSame =
      row.spec.migratedVolume === spec.migratedVolume &&
      row.spec.point === spec.point &&
      (spec.sizeBytes ?? row.spec.sizeBytes) === row.spec.sizeBytes;
    if (isSame) return row;
    throw new LongshoreError("NameTaken", `clone ${row.name} exists with other parameters`);
  }

  /** Makes the request durable, or notes that it was asked for again. */
  private ask(name: string, spec: CloneSpec, source: MigratedRow): void {
    const { journal, clock, feed } = this.core;
    const known = this.find(name);
    if (known !== undefined) this.same(known, spec);
    else if (this.volumes.find(name) !== undefined) {
      throw new LongshoreError("NameTaken", `volume ${name} exists already; choose another name for the clone`);
    }
    if (spec.point !== "latest" && known?.state !== "Creating") this.requirePoint(source, spec.point);
    const nowMs = clock.nowMs();
    journal.transaction(() => {
      journal.run(
        `INSERT INTO clones (name, specJson, state, migrated, requestedAt, askedAt, isKept, revision)
         VALUES (?,?,'Waiting',?,?,?,?,1)
         ON CONFLICT (name) DO UPDATE SET askedAt = excluded.askedAt, isKept = max(isKept, excluded.isKept)`,
        name,
        JSON.stringify(spec),
        source.uid,
        nowMs,
        nowMs,
        spec.expires === true ? 0 : 1,
      );
      if (known === undefined) this.migrated.touch(source.uid);
    });
    if (known !== undefined) return;
    feed.publish("clone", name);
    this.migrated.published(source.uid);
  }

  /** As {@link begin}; a failure is logged, and the request stays for the next time it is asked for. */
  private async serveSoon(name: string): Promise<void> {
    const { served } = await this.begin(name);
    this.core.tasks.spawn(`clone ${name}`, () => guarded(this.core, `clone ${name}`, () => served));
  }

  /**
   * Under the migrated volume's lock: begins to make the clone if its point is open, and waits until it has begun. `served`, for
   * which nobody waits under that lock, settles when the clone is ready, cannot be made now, or failed.
   */
  private async begin(name: string): Promise<{ served: Promise<void> }> {
    const known = this.serving.get(name);
    if (known !== undefined) return { served: known };
    const begun = Promise.withResolvers<void>();
    const served = this.core.lock
      .run(volumeLockKey(name), () => this.serve(name, begun.resolve))
      .finally(() => {
        this.serving.delete(name);
        begun.resolve();
      });
    this.serving.set(name, served);
    // It may fail before anybody waits for it; whoever does is told.
    served.catch(() => undefined);
    await begun.promise;
    return { served };
  }

  /**
   * Under the lock of the clone's name, and under the migrated volume's until it calls `begun`: makes the clone if its point is
   * open. Repeating it goes on where it was.
   */
  private async serve(name: string, begun: () => void): Promise<void> {
    const row = this.find(name);
    const source = row && this.migrated.byUid(row.migrated);
    if (row === undefined || source === undefined || row.state === "Ready") return;
    const bound = await this.bound(row);
    // Nobody begins to clone the newest point while it is closed, not even those that had begun before and failed.
    if (bound !== undefined && !this.isOpen(bound, source)) return;
    const point = bound ?? this.choose(row, source);
    if (point !== undefined) await this.make(row, { source, point }, begun);
  }

  private async make(
    row: CloneRow,
    { source, point }: { source: MigratedRow; point: PointRow },
    begun: () => void,
  ): Promise<void> {
    const { storage, log } = this.core;
    const sizeBytes = Math.max(point.sizeBytes, row.spec.sizeBytes ?? 0);
    const volume = this.intend(row, { point, source, sizeBytes });
    try {
      const cloned = storage.clone({ volume: point.owner, ...sealedPoint(point) }, { volume, sizeBytes });
      begun();
      await cloned;
    } catch (error) {
      if (codeOf(error) === "PointGone") {
        markLost(this.core, point);
        await this.unbind(row);
      }
      throw error;
    }
    this.finish(row, point, { volume, sizeBytes });
    log.info({ clone: row.name, migratedVolume: source.name, point: point.pointId }, "clone served");
    await sweep(this.core, point.owner);
  }

  /** The point to clone now; none while it is closed: the newest while a transfer runs, any while there is none. */
  private choose(row: CloneRow, source: MigratedRow): PointRow | undefined {
    const points = this.migrated.points(source.uid);
    const newest = points.at(-1);
    const wanted = row.spec.point === "latest" ? newest : points.findLast((point) => isOf(point, row.spec.point));
    return wanted !== undefined && this.isOpen(wanted, source) ? wanted : undefined;
  }

  private isOpen(point: PointRow, source: MigratedRow): boolean {
    return source.frozenSince === null || point.pointId !== this.migrated.points(source.uid).at(-1)?.pointId;
  }

  /** The point an earlier try was bound to. When that is gone the request is free again: nobody got anything of it. */
  private async bound(row: CloneRow): Promise<PointRow | undefined> {
    if (row.state !== "Creating" || row.pointId === null) return undefined;
    const point = pointOf(this.core.journal, row.migrated, row.pointId);
    if (point !== undefined && (await isPresent(this.core, point))) return point;
    await this.unbind(row);
    return undefined;
  }

  private async unbind(row: CloneRow): Promise<void> {
    const { journal } = this.core;
    await this.volumes.dropClone(row.name);
    journal.transaction(() => {
      this.unhold(row.name);
      journal.run("UPDATE clones SET state = 'Waiting', pointId = NULL, sourceTime = NULL WHERE name = ?", row.name);
    });
  }

  private requirePoint(source: MigratedRow, pointId: string): void {
    if (this.migrated.points(source.uid).some((point) => isOf(point, pointId))) return;
    // A part of a group point that is on its way here, or has been voted for, is waited for.
    const staging = source.frozenSince === null ? undefined : this.migrated.staging(source.uid);
    if (staging !== undefined && headerOf(staging).groupPoint === pointId) return;
    throw new LongshoreError("PointGone", `${source.name} has no point ${pointId}`);
  }

  /** Binds the request to its point and holds it, so that the point stays whatever is committed meanwhile. */
  private intend(
    row: CloneRow,
    { point, source, sizeBytes }: { point: PointRow; source: MigratedRow; sizeBytes: number },
  ): string {
    const { journal } = this.core;
    if (row.spec.sizeBytes !== undefined && row.spec.sizeBytes < point.sizeBytes) {
      throw new LongshoreError(
        "ShrinkRefused",
        `clone ${row.name} needs at least its point's ${point.sizeBytes} bytes`,
      );
    }
    const lineage: Lineage = { clusterUid: source.clusterUid, volumeUid: source.volumeUid, pointId: point.pointId };
    const metadata = row.spec.metadata ?? (JSON.parse(source.metadataJson) as Record<string, string>);
    return journal.transaction(() => {
      const volume = this.volumes.intendClone(row.name, { sizeBytes, metadata }, lineage);
      takeHold(this.core, { owner: point.owner, pointId: point.pointId, reason: "clone", holder: row.name });
      journal.run(
        "UPDATE clones SET state = 'Creating', pointId = ?, sourceTime = ? WHERE name = ?",
        point.pointId,
        point.sourceTime,
        row.name,
      );
      return volume;
    });
  }

  private finish(row: CloneRow, point: PointRow, made: { volume: string; sizeBytes: number }): void {
    const { journal, clock, feed } = this.core;
    journal.transaction(() => {
      this.volumes.finish(made.volume, made.sizeBytes);
      dropHold(journal, { owner: point.owner, pointId: point.pointId, reason: "clone", holder: row.name });
      journal.run(
        "UPDATE clones SET state = 'Ready', volume = ?, servedAt = ?, revision = revision + 1 WHERE name = ?",
        row.name,
        clock.nowMs(),
        row.name,
      );
      this.migrated.touch(row.migrated);
    });
    feed.publish("clone", row.name);
    feed.publish("volume", row.name);
    this.migrated.published(row.migrated);
  }

  /**
   * The volume takes its clone along; what is left is a request. Throws `InUse` when the volume is, `PreconditionFailed` when it is not
   * what it was, and changes nothing.
   */
  private async finishRemoval(name: string, precondition: Precondition = {}): Promise<void> {
    const row = this.find(name);
    if (row === undefined) return;
    if (row.state !== "Waiting") await this.volumes.remove(name, precondition);
    const { journal } = this.core;
    journal.transaction(() => {
      this.unhold(name);
      journal.run("DELETE FROM clones WHERE name = ?", name);
      this.migrated.touch(row.migrated);
    });
    this.core.feed.publish("clone", name);
    this.migrated.published(row.migrated);
    await sweep(this.core, row.migrated);
  }

  private unhold(name: string): void {
    this.core.journal.run("DELETE FROM holds WHERE reason = 'clone' AND holder = ?", name);
  }

  private view(row: CloneRow): CloneView {
    const source = row.state === "Ready" ? undefined : this.migrated.byUid(row.migrated);
    const transfer = source && this.migrated.transfer(source);
    const volume = row.volume === null ? undefined : this.volumes.find(row.volume);
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

/** Whether a point is the one asked for, or the part of a group point that was. */
function isOf(point: PointRow, asked: string): boolean {
  return point.pointId === asked || point.groupPoint === asked;
}
