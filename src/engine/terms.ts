// Terms at the target: who may change a migrated volume now. A grant is one conditional transaction on the volume's row;
// leases live in memory on the monotonic clock, and count as live for one period after a restart.
import { createHash } from "node:crypto";
import { LongshoreError } from "../domain/errors.ts";
import type { Claim, PeerTarget, Term } from "../wire/peer.ts";
import type { Core } from "./core.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey } from "./migrated.ts";
import type { Caller, SourceRow, Sources } from "./sources.ts";

export class Terms {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;
  private readonly sources: Sources;
  private readonly leaseEndsMs = new Map<string, number>();

  constructor(core: Core, parts: { migrated: MigratedVolumes; sources: Sources }) {
    this.core = core;
    this.migrated = parts.migrated;
    this.sources = parts.sources;
    for (const row of this.migrated.inTerm()) this.renew(row.uid);
  }

  /**
   * Under the volume's lock: the row as granted to this claim; asking again with the same nonce gives the same grant.
   * `supersede` is called before another term is replaced, to close what writes under it. Throws `LeaseHeld`,
   * `QuotaExceeded`, and `InUse` for a copy that is being deleted.
   */
  async claim(caller: Caller, claim: Claim, supersede: (uid: string) => Promise<void>): Promise<MigratedRow> {
    const source = this.sources.seen(caller);
    const found = this.migrated.bySource(caller.clusterUid, claim.volume);
    if (found?.deleting === 1) throw new LongshoreError("InUse", `migrated volume ${found.name} is being deleted`);
    this.checkQuota(source, claim, found);
    const isSameTerm = found?.isTermLive === 1 && found.nonce === claim.nonce && found.claimant === claim.claimant;
    if (isSameTerm) {
      this.renew(found.uid);
      return found;
    }
    if (found !== undefined) {
      this.checkLease(found, claim);
      await supersede(found.uid);
    }
    const row = this.grant(source, { clusterUid: caller.clusterUid, claim, found });
    this.renew(row.uid);
    return row;
  }

  /** Runs `work` under the volume's lock if the term is the one granted, and counts as a sign of life. */
  inTerm<T>(caller: Caller, target: PeerTarget, work: (row: MigratedRow) => Promise<T>): Promise<T> {
    return this.inTermOrEnded(caller, target, (row) => {
      checkTerm(row, target.term);
      return work(row);
    });
  }

  /** As {@link inTerm}; `work` also gets the row of a term that ended regularly, to answer a repeat: `isTermLive` tells. */
  inTermOrEnded<T>(caller: Caller, target: PeerTarget, work: (row: MigratedRow) => Promise<T>): Promise<T> {
    const { clusterUid } = caller;
    this.sources.seen(caller);
    return this.core.lock.run(migratedLockKey({ clusterUid, volumeUid: target.volume }), async () => {
      const row = this.migrated.bySource(clusterUid, target.volume);
      if (row === undefined) throw new LongshoreError("NotFound", `volume ${target.volume} has no copy here`);
      if (!isTerm(row, target.term)) throw termLost(row, target.term);
      this.renew(row.uid);
      try {
        return await work(row);
      } finally {
        // Its work may have taken longer than the lease; the coordinator that waited for it was not silent.
        this.renew(row.uid);
      }
    });
  }

  /** Whether the coordinator was heard within its lease. */
  isAlive(uid: string): boolean {
    return this.leaseLeftMs(uid) > 0;
  }

  /** Within a transaction: ends a term, thawed, that its coordinator ended; nothing is granted under it again. */
  end(row: MigratedRow): void {
    checkTerm(this.migrated.require(row.uid), row);
    this.core.journal.run(
      "UPDATE migrated SET isTermLive = 0, frozenSince = NULL, revision = revision + 1 WHERE uid = ?",
      row.uid,
    );
  }

  /** Within a transaction: ends a silent coordinator's term under an epoch of our own, so that its late calls are refused. */
  takeAway(row: MigratedRow): void {
    checkTerm(this.migrated.require(row.uid), row);
    this.core.journal.run(
      `UPDATE migrated SET epoch = epoch + 1, nonce = ?, isTermLive = 0, frozenSince = NULL, revision = revision + 1
       WHERE uid = ?`,
      this.core.dice.hex(16),
      row.uid,
    );
  }

  private checkLease(row: MigratedRow, claim: Claim): void {
    // A coordinator that lost its memory or its connection goes on with its own job at once; another one has to wait.
    const isOwn = row.claimant === claim.claimant && row.job === claim.job;
    if (row.isTermLive === 0 || isOwn) return;
    const leftMs = this.leaseLeftMs(row.uid);
    if (leftMs <= 0) return;
    throw new LongshoreError(
      "LeaseHeld",
      `job ${row.job} of ${row.claimant} holds the term of ${row.name} for another ${Math.ceil(leftMs)} ms`,
    );
  }

  private checkQuota(source: SourceRow, claim: Claim, found: MigratedRow | undefined): void {
    const { quotaBytes } = source.spec;
    if (quotaBytes === undefined) return;
    const countedBytes = found?.source === source.name ? found.sizeBytes : 0;
    const usedBytes = this.sources.usedBytes(source.name) - countedBytes + claim.sizeBytes;
    if (usedBytes <= quotaBytes) return;
    throw new LongshoreError(
      "QuotaExceeded",
      `${claim.name} would bring source ${source.name} to ${usedBytes} of ${quotaBytes} bytes`,
    );
  }

  private grant(
    source: SourceRow,
    { clusterUid, claim, found }: { clusterUid: string; claim: Claim; found: MigratedRow | undefined },
  ): MigratedRow {
    const { journal, dice } = this.core;
    const uid = found?.uid ?? dice.uuid();
    // A job that is resumed stays frozen: to thaw for a moment would hand out the old point to those who wait for the new.
    const frozenSince = found?.job === claim.job && this.migrated.staging(uid) !== undefined ? found.frozenSince : null;
    journal.transaction(() => {
      if (found === undefined) this.insertRow(source, uid, { clusterUid, claim });
      journal.run(
        `UPDATE migrated SET epoch = max(epoch, ?) + 1, nonce = ?, claimant = ?, job = ?, isTermLive = 1, frozenSince = ?,
         source = ?, clusterName = ?, metadataJson = ?, volumeName = ?, revision = revision + 1 WHERE uid = ?`,
        claim.offeredEpoch,
        claim.nonce,
        claim.claimant,
        claim.job,
        frozenSince,
        source.name,
        source.spec.clusterName,
        JSON.stringify(claim.metadata),
        claim.name,
        uid,
      );
    });
    return this.migrated.require(uid);
  }

  private insertRow(source: SourceRow, uid: string, { clusterUid, claim }: { clusterUid: string; claim: Claim }): void {
    this.core.journal.run(
      `INSERT INTO migrated (uid, name, source, clusterUid, clusterName, volumeUid, volumeName, metadataJson, sizeBytes,
       epoch, nonce, claimant, job, isTermLive, revision) VALUES (?,?,?,?,?,?,?,?,?,0,'','','',0,0)`,
      uid,
      migratedName(source.name, clusterUid, claim),
      source.name,
      clusterUid,
      source.spec.clusterName,
      claim.volume,
      claim.name,
      JSON.stringify(claim.metadata),
      claim.sizeBytes,
    );
  }

  private renew(uid: string): void {
    this.leaseEndsMs.set(uid, this.core.clock.monotonicMs() + this.core.limits.leaseMs);
  }

  private leaseLeftMs(uid: string): number {
    return (this.leaseEndsMs.get(uid) ?? 0) - this.core.clock.monotonicMs();
  }
}

/** Throws `TermLost` unless the term is the one granted and has not ended. */
export function checkTerm(row: MigratedRow, term: Term): void {
  if (row.isTermLive === 0 || !isTerm(row, term)) throw termLost(row, term);
}

function isTerm(row: MigratedRow, term: Term): boolean {
  return row.epoch === term.epoch && row.nonce === term.nonce;
}

function termLost(row: MigratedRow, term: Term): LongshoreError {
  return new LongshoreError("TermLost", `epoch ${term.epoch} no longer holds for ${row.name}`);
}

/** Readable, and never the same for two volumes: source, volume, and a hash of what identifies it. */
function migratedName(source: string, clusterUid: string, claim: Claim): string {
  const hash = createHash("sha256").update(`${clusterUid}/${claim.volume}`).digest("hex").slice(0, 10);
  return `${source.slice(0, 40)}-${claim.name.slice(0, 60)}-${hash}`.replaceAll(/[.-]{2,}/g, "-");
}
