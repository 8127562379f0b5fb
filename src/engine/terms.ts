// Terms at the target: who may change a migrated volume now. A grant is one conditional transaction on the volume's row;
// leases are those of leases.ts. A member of a group takes the term over that its group home has granted.
import { createHash } from "node:crypto";
import { LongshoreError } from "../domain/errors.ts";
import type { Claim, PeerTarget } from "../wire/peer.ts";
import type { Core } from "./core.ts";
import { checkTerm, endTerm, grantTerm, isGranted, isTerm, Leases, takeAwayTerm, termLost } from "./leases.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey } from "./migrated.ts";
import type { Caller, SourceRow, Sources } from "./sources.ts";

export class Terms {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;
  private readonly sources: Sources;
  private readonly leases: Leases;

  constructor(core: Core, parts: { migrated: MigratedVolumes; sources: Sources }) {
    this.core = core;
    this.migrated = parts.migrated;
    this.sources = parts.sources;
    this.leases = new Leases(core, this.migrated.inTerm());
  }

  /**
   * Under the volume's lock: the row as granted to this claim; asking again with the same nonce gives the same grant.
   * `supersede` is called before another term is replaced, to close what writes under it. Throws `LeaseHeld`,
   * `QuotaExceeded`, `InUse` for a copy that is being deleted, and `TermLost` for a group's term that came too late.
   */
  async claim(caller: Caller, claim: Claim, supersede: (uid: string) => Promise<void>): Promise<MigratedRow> {
    const source = this.sources.seen(caller);
    const found = this.migrated.bySource(caller.clusterUid, claim.volume);
    if (found?.deleting === 1) throw new LongshoreError("InUse", `migrated volume ${found.name} is being deleted`);
    this.checkQuota(source, claim, found);
    if (found !== undefined && isSameTerm(found, claim)) {
      this.leases.renew(found.uid);
      return found;
    }
    if (found !== undefined) {
      this.checkFree(found, claim);
      await supersede(found.uid);
    }
    const row = this.grant(source, { clusterUid: caller.clusterUid, claim, found });
    this.leases.renew(row.uid);
    return row;
  }

  /**
   * A sign of life, under the term that was granted. It waits for nobody: who has the volume's lock may be at work for the very
   * coordinator that renews, for longer than a lease.
   */
  renew(caller: Caller, { volume, term }: PeerTarget): void {
    this.sources.seen(caller);
    const row = this.migrated.bySource(caller.clusterUid, volume);
    if (row === undefined) throw new LongshoreError("NotFound", `volume ${volume} has no copy here`);
    checkTerm(row, term);
    this.leases.renew(row.uid);
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
      this.leases.renew(row.uid);
      try {
        return await work(row);
      } finally {
        // Its work may have taken longer than the lease; the coordinator that waited for it was not silent.
        this.leases.renew(row.uid);
      }
    });
  }

  /** Whether the coordinator was heard within its lease. */
  isAlive(uid: string): boolean {
    return this.leases.isAlive(uid);
  }

  /** Forgets leases that are over; a term without one is not alive. */
  forgetEnded(): void {
    this.leases.forgetEnded();
  }

  /** Within a transaction: ends a term, thawed, that its coordinator ended; nothing is granted under it again. */
  end(row: MigratedRow): void {
    checkTerm(this.migrated.require(row.uid), row);
    endTerm(this.core, "migrated", row.uid);
    this.thaw(row.uid);
  }

  /** Within a transaction: ends a silent coordinator's term under an epoch of our own, so that its late calls are refused. */
  takeAway(row: MigratedRow): void {
    checkTerm(this.migrated.require(row.uid), row);
    takeAwayTerm(this.core, "migrated", row.uid);
    this.thaw(row.uid);
  }

  /** Within a transaction: the newest point is open again. */
  thaw(uid: string): void {
    this.core.journal.run("UPDATE migrated SET frozenSince = NULL WHERE uid = ?", uid);
  }

  /** Whether the claimant may have the term of this row now. */
  private checkFree(row: MigratedRow, claim: Claim): void {
    const { group } = claim;
    if (group !== undefined && group.term.epoch <= row.epoch) throw termLost(row, group.term);
    this.checkVote(row, claim);
    // Among coordinators of one group its home arbitrates: the higher epoch is the later grant.
    if (group === undefined || group.name !== row.groupName) this.leases.check(row, claim);
  }

  /** A vote binds the member to what its group home decides; nobody else gets the volume before that is known. */
  private checkVote(row: MigratedRow, { group }: Claim): void {
    const vote = this.migrated.vote(row.uid);
    if (vote === undefined || (group?.name === row.groupName && group?.home === row.groupHome)) return;
    throw new LongshoreError(
      "LeaseHeld",
      `${row.name} has voted for point ${vote.groupPoint} of group ${row.groupName}, and waits for its home's decision`,
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
    // So does one that has voted: what it has staged may be the newest point already.
    const isResumed = found?.job === claim.job && this.migrated.staging(uid) !== undefined;
    const frozenSince = isResumed || this.migrated.vote(uid) !== undefined ? (found?.frozenSince ?? null) : null;
    const { group } = claim;
    journal.transaction(() => {
      if (found === undefined) this.insertRow(source, uid, { clusterUid, claim });
      const epoch = group?.term.epoch ?? Math.max(found?.epoch ?? 0, claim.offeredEpoch) + 1;
      const { claimant, job } = claim;
      grantTerm(this.core, "migrated", {
        uid,
        epoch,
        asking: { claimant, job, nonce: group?.term.nonce ?? claim.nonce },
      });
      journal.run(
        `UPDATE migrated SET frozenSince = ?, groupName = ?, groupHome = ?,
         source = ?, clusterName = ?, metadataJson = ?, volumeName = ?, affinity = ? WHERE uid = ?`,
        frozenSince,
        group?.name ?? null,
        group?.home ?? null,
        source.name,
        source.spec.clusterName,
        JSON.stringify(claim.metadata),
        claim.name,
        claim.affinity ?? null,
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
}

/** Whether the claim asks for the term that it has already: a repeat. */
function isSameTerm(row: MigratedRow, { group, ...claim }: Claim): boolean {
  if (group === undefined) return row.groupName === null && isGranted(row, claim);
  return row.isTermLive === 1 && isTerm(row, group.term);
}

/** Readable, and never the same for two volumes: source, volume, and a hash of what identifies it. */
function migratedName(source: string, clusterUid: string, claim: Claim): string {
  const hash = createHash("sha256").update(`${clusterUid}/${claim.volume}`).digest("hex").slice(0, 10);
  return `${source.slice(0, 40)}-${claim.name.slice(0, 60)}-${hash}`.replaceAll(/[.-]{2,}/g, "-");
}
