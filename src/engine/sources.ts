// Consent: which foreign clusters may send volumes here, under which CA, and how much.
import { LongshoreError } from "../domain/errors.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { SourceSpec, SourceView } from "../wire/schemas.ts";
import { type Core, checkRevision, timeText } from "./core.ts";

export interface SourceRow {
  readonly name: string;
  readonly spec: SourceSpec;
  /** Given in the spec, or learned from the first certificate under its CA, and from then on the only one accepted. */
  readonly clusterUid: string | null;
  readonly lastSeenAt: number | null;
  readonly revision: number;
}

/** A foreign cluster as its certificate says, and the source whose CA bundle that was verified with. */
export interface Caller {
  readonly clusterUid: string;
  readonly source: string;
}

/** `lastSeenAt` is written at most this often; it is for people. */
const seenIntervalMs = 60_000;

export class Sources {
  private readonly core: Core;
  private readonly listeners = new Set<() => void>();
  private cached: readonly SourceRow[] | undefined;

  constructor(core: Core) {
    this.core = core;
  }

  /** Asked for with every call of the protocol, so kept in memory. */
  rows(): readonly SourceRow[] {
    this.cached ??= this.core.journal
      .all<Omit<SourceRow, "spec"> & { specJson: string }>("SELECT * FROM sources ORDER BY name")
      .map(({ specJson, ...row }) => ({ ...row, spec: JSON.parse(specJson) as SourceSpec }));
    return this.cached;
  }

  byName(name: string): SourceRow | undefined {
    return this.rows().find((row) => row.name === name);
  }

  list(): SourceView[] {
    return this.rows().map((row) => this.view(row));
  }

  get(name: string): SourceView {
    const row = this.byName(name);
    if (row === undefined) throw new LongshoreError("NotFound", `source ${name} does not exist`);
    return this.view(row);
  }

  /** See AgentApi.putSource. */
  put(name: string, spec: SourceSpec, { ifMatch }: Precondition): SourceView {
    const { journal, cluster } = this.core;
    if (spec.clusterUid === cluster.uid) {
      throw new LongshoreError("BadRequest", `source ${name} names this cluster itself (${cluster.uid})`);
    }
    const row = this.byName(name);
    checkRevision(`source ${name}`, row?.revision ?? 0, ifMatch);
    const isSame = row !== undefined && JSON.stringify(row.spec) === JSON.stringify(spec);
    if (isSame) return this.view(row);
    // Another CA is another cluster until its UID is known again.
    const isSameCa = row?.spec.caBundle === spec.caBundle;
    const clusterUid = spec.clusterUid ?? (isSameCa ? row?.clusterUid : null) ?? null;
    journal.transaction(() =>
      journal.run(
        `INSERT INTO sources (name, specJson, clusterUid, revision) VALUES (?,?,?,1)
         ON CONFLICT (name) DO UPDATE SET specJson = excluded.specJson, clusterUid = excluded.clusterUid, revision = revision + 1`,
        name,
        JSON.stringify(spec),
        clusterUid,
      ),
    );
    this.changed(name);
    return this.get(name);
  }

  remove(name: string, { ifMatch }: Precondition): void {
    const row = this.byName(name);
    if (row === undefined) return;
    checkRevision(`source ${name}`, row.revision, ifMatch);
    this.core.journal.transaction(() => this.core.journal.run("DELETE FROM sources WHERE name = ?", name));
    this.changed(name);
  }

  /**
   * The source a foreign cluster's certificate speaks for. `verifiedUnder` names the sources whose bundle the
   * certificate was verified with; the first use binds a source without UID to the cluster. Throws `NotConsented`.
   */
  admit(clusterUid: string, verifiedUnder: readonly string[]): SourceRow {
    const rows = this.rows().filter((row) => verifiedUnder.includes(row.name));
    const bound = rows.find((row) => row.clusterUid === clusterUid);
    if (bound !== undefined) return bound;
    // A cluster known under one CA is not handed over to whoever claims its UID under another.
    if (this.rows().some((row) => row.clusterUid === clusterUid)) throw notConsented(clusterUid);
    const free = rows.find((row) => row.clusterUid === null);
    if (free === undefined) throw notConsented(clusterUid);
    this.core.journal.transaction(() =>
      this.core.journal.run(
        "UPDATE sources SET clusterUid = ?, revision = revision + 1 WHERE name = ?",
        clusterUid,
        free.name,
      ),
    );
    this.changed(free.name);
    return { ...free, clusterUid };
  }

  /** The source a caller was admitted under; notes that it was heard of. Throws `NotConsented` once withdrawn. */
  seen({ clusterUid, source }: Caller): SourceRow {
    const row = this.byName(source);
    if (row?.clusterUid !== clusterUid) throw notConsented(clusterUid);
    const nowMs = this.core.clock.nowMs();
    if (row.lastSeenAt === null || Math.abs(nowMs - row.lastSeenAt) > seenIntervalMs) {
      this.core.journal.transaction(() =>
        this.core.journal.run("UPDATE sources SET lastSeenAt = ? WHERE name = ?", nowMs, row.name),
      );
      this.cached = undefined;
      this.core.feed.publish("source", row.name);
    }
    return row;
  }

  /** Logical size of everything that came from a source. */
  usedBytes(name: string): number {
    const row = this.core.journal.get<{ used: number }>(
      "SELECT coalesce(sum(sizeBytes), 0) AS used FROM migrated WHERE source = ? AND deleting = 0",
      name,
    );
    return row?.used ?? 0;
  }

  /** Calls back when consent was given, changed or withdrawn. */
  onChange(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  private changed(name: string): void {
    this.cached = undefined;
    this.core.feed.publish("source", name);
    for (const listener of this.listeners) listener();
  }

  private view(row: SourceRow): SourceView {
    const count = this.core.journal.get<{ n: number }>(
      "SELECT count(*) AS n FROM migrated WHERE source = ? AND deleting = 0",
      row.name,
    );
    return {
      name: row.name,
      spec: row.spec,
      clusterUid: row.clusterUid,
      volumes: count?.n ?? 0,
      usedBytes: this.usedBytes(row.name),
      lastSeenAt: row.lastSeenAt === null ? null : timeText(row.lastSeenAt),
      revision: row.revision,
    };
  }
}

function notConsented(clusterUid: string): LongshoreError {
  return new LongshoreError("NotConsented", `no MigrationSource here takes volumes of cluster ${clusterUid}`);
}
