// Volumes as rows, shared by those who make them (volumes.ts) and those who snapshot them (snapshots.ts).
import { LongshoreError } from "../domain/errors.ts";
import type { Lineage, VolumeSpec } from "../wire/schemas.ts";
import { type Core, problemOf } from "./core.ts";
import { sweep } from "./points.ts";

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
  /** What a local clone is made of; see local-clones.ts. */
  readonly originJson: string | null;
  readonly affinity: string | null;
  readonly problemJson: string | null;
  readonly revision: number;
}

/** The lock under which a volume's image, row and snapshots are made and removed. Taken after a migrated volume's, never before. */
export function volumeLockKey(name: string): string {
  return `volume ${name}`;
}

export class VolumeRows {
  protected readonly core: Core;

  constructor(core: Core) {
    this.core = core;
  }

  /** The row of a volume that is ready; throws `NotFound` otherwise. */
  row(name: string): VolumeRow {
    const row = this.find(name);
    if (row?.state !== "ready") throw new LongshoreError("NotFound", `volume ${name} does not exist`);
    return row;
  }

  /** Within a transaction: the row of a volume whose image is about to be made; its UID. `originJson`: of a local clone. */
  insert(name: string, spec: VolumeSpec, made: { lineage?: Lineage; originJson?: string } = {}): string {
    const uid = this.core.dice.uuid();
    this.core.journal.run(
      `INSERT INTO volumes (name, uid, state, sizeBytes, metadataJson, migrationEnabled, affinity, createdAt, generation,
       lineageJson, originJson, revision) VALUES (?,?,'creating',?,?,?,?,?,1,?,?,1)`,
      name,
      uid,
      spec.sizeBytes,
      JSON.stringify(spec.metadata ?? {}),
      spec.migrationEnabled === true ? 1 : 0,
      affinityOf(spec) ?? null,
      this.core.clock.nowMs(),
      made.lineage === undefined ? null : JSON.stringify(made.lineage),
      made.originJson ?? null,
    );
    return uid;
  }

  /** Deletes what nothing holds any more, and tells the readers of the volume. */
  async sweep(uid: string): Promise<void> {
    await sweep(this.core, uid);
    this.published(uid);
  }

  /** Within a transaction: the volume changed in a way its view shows. */
  touch(uid: string): void {
    touchVolume(this.core, uid);
  }

  published(uid: string): void {
    publishVolume(this.core, uid);
  }

  /** Throws `DiskFull` when `bytes` more would go below the reserve. */
  async checkReserve(bytes: number): Promise<void> {
    const { freeBytes } = await this.core.storage.space();
    const { reserveBytes } = this.core.limits;
    if (freeBytes - bytes >= reserveBytes) return;
    throw new LongshoreError("DiskFull", `${freeBytes} bytes are free and ${reserveBytes} are kept in reserve`);
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
}

/** What a spec asks for: null for none, undefined when it leaves it as it is. */
export function affinityOf({ affinity }: Pick<VolumeSpec, "affinity">): string | null | undefined {
  return affinity === "" ? null : affinity;
}

/** Within a transaction: the volume, if it is there, changed in a way its view shows. {@link publishVolume} afterwards. */
export function touchVolume({ journal }: Pick<Core, "journal">, uid: string): void {
  journal.run("UPDATE volumes SET revision = revision + 1 WHERE uid = ?", uid);
}

export function publishVolume({ journal, feed }: Pick<Core, "journal" | "feed">, uid: string): void {
  const volume = journal.get<{ name: string }>("SELECT name FROM volumes WHERE uid = ?", uid);
  if (volume !== undefined) feed.publish("volume", volume.name);
}
