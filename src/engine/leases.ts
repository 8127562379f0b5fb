// What terms have in common, be it of one migrated volume or of a whole group: a row with the epoch and nonce that were
// granted, and a lease in memory on the monotonic clock. A lease counts as live for one period after a restart.
import { LongshoreError } from "../domain/errors.ts";
import type { Term } from "../wire/peer.ts";
import type { Core } from "./core.ts";

/** The columns of a row that terms are granted on. */
export interface TermRow {
  readonly uid: string;
  readonly name: string;
  readonly epoch: number;
  readonly nonce: string;
  readonly claimant: string;
  readonly job: string;
  readonly isTermLive: number;
}

/** The tables with such rows. */
type TermTable = "migrated" | "groups";

/** Who asks for a term, and for what. */
export interface Claimant {
  readonly claimant: string;
  readonly job: string;
  readonly nonce: string;
}

export class Leases {
  private readonly core: Core;
  private readonly endsMs = new Map<string, number>();

  /** `live`: the rows whose term had not ended when the agent stopped. */
  constructor(core: Core, live: readonly TermRow[]) {
    this.core = core;
    for (const { uid } of live) this.renew(uid);
  }

  renew(uid: string): void {
    this.endsMs.set(uid, this.core.clock.monotonicMs() + this.core.limits.leaseMs);
  }

  /** Whether the coordinator was heard within its lease. */
  isAlive(uid: string): boolean {
    return this.leftMs(uid) > 0;
  }

  /** To be called now and then: what is over is not kept for as long as the agent runs. */
  forgetEnded(): void {
    for (const uid of [...this.endsMs.keys()]) if (!this.isAlive(uid)) this.endsMs.delete(uid);
  }

  /** Throws `LeaseHeld` while another claimant's lease is live, or another job's of the same one. */
  check(row: TermRow, asking: Claimant): void {
    // A coordinator that lost its memory or its connection goes on with its own job at once; another one has to wait.
    const isOwn = row.claimant === asking.claimant && row.job === asking.job;
    if (row.isTermLive === 0 || isOwn || !this.isAlive(row.uid)) return;
    const leftMs = Math.ceil(this.leftMs(row.uid));
    throw new LongshoreError(
      "LeaseHeld",
      `job ${row.job} of ${row.claimant} holds the term of ${row.name} for another ${leftMs} ms`,
    );
  }

  private leftMs(uid: string): number {
    return (this.endsMs.get(uid) ?? 0) - this.core.clock.monotonicMs();
  }
}

/** Whether the row is already granted to this very request. */
export function isGranted(row: TermRow, asking: Claimant): boolean {
  return row.isTermLive === 1 && row.nonce === asking.nonce && row.claimant === asking.claimant;
}

/** Throws `TermLost` unless the term is the one granted and has not ended. */
export function checkTerm(row: TermRow, term: Term): void {
  if (row.isTermLive === 0 || !isTerm(row, term)) throw termLost(row, term);
}

export function isTerm(row: TermRow, term: Term): boolean {
  return row.epoch === term.epoch && row.nonce === term.nonce;
}

export function termLost(row: TermRow, term: Term): LongshoreError {
  return new LongshoreError("TermLost", `epoch ${term.epoch} no longer holds for ${row.name}; it is at ${row.epoch}`);
}

/** Within a transaction: the term is the claimant's from now on. */
export function grantTerm(core: Core, table: TermTable, at: { uid: string; epoch: number; asking: Claimant }): void {
  core.journal.run(
    `UPDATE ${table} SET epoch = ?, nonce = ?, claimant = ?, job = ?, isTermLive = 1, revision = revision + 1 WHERE uid = ?`,
    at.epoch,
    at.asking.nonce,
    at.asking.claimant,
    at.asking.job,
    at.uid,
  );
}

/** Within a transaction: ends a term that its coordinator ended; nothing is granted under it again. */
export function endTerm(core: Core, table: TermTable, uid: string): void {
  core.journal.run(`UPDATE ${table} SET isTermLive = 0, revision = revision + 1 WHERE uid = ?`, uid);
}

/** Within a transaction: ends a term under an epoch of our own, so that late calls of its coordinator are refused. */
export function takeAwayTerm(core: Core, table: TermTable, uid: string): void {
  core.journal.run(
    `UPDATE ${table} SET epoch = epoch + 1, nonce = ?, isTermLive = 0, revision = revision + 1 WHERE uid = ?`,
    core.dice.hex(16),
    uid,
  );
}
