// The migration protocol between clusters: what a job's coordinator says to the decider and participants of the target.
// Every call after the claim carries the granted term; a call under any other term throws `TermLost` and changes nothing.

import { type Static, Type } from "typebox";
import { Barrier, Bytes, Member, Metadata, Mode, Name, PointId, PointRef, SizeBytes, Time, Uid } from "./schemas.ts";

const Digest = Type.String({ pattern: "^[0-9a-f]{64}$", description: "SHA-256, hex" });
const Index = Type.Integer({ minimum: 0, maximum: 2 ** 31 });
const Nonce = Type.String({ pattern: "^[0-9a-f]{32}$" });

export const Hello = Type.Object({
  clusterUid: Uid,
  clusterName: Type.String(),
  agentId: Uid,
  members: Type.Array(Member),
  freeBytes: Bytes,
});
export type Hello = Static<typeof Hello>;

export const Term = Type.Object({ epoch: Type.Integer({ minimum: 1 }), nonce: Nonce });
export type Term = Static<typeof Term>;

export const Claim = Type.Object({
  job: Name,
  /** The source volume's UID; `name` is for people. */
  volume: Uid,
  name: Name,
  metadata: Metadata,
  sizeBytes: SizeBytes,
  claimant: Uid,
  nonce: Nonce,
  /** The highest epoch the claimant has seen; the grant is above it and above all that were granted. */
  offeredEpoch: Type.Integer({ minimum: 0 }),
});
export type Claim = Static<typeof Claim>;

export const CommitRecord = Type.Object({
  job: Name,
  epoch: Type.Integer(),
  baseId: Type.Union([PointId, Type.Null()]),
  toId: PointId,
  planDigest: Digest,
  committedAt: Time,
});
export type CommitRecord = Static<typeof CommitRecord>;

/** Inclusive ranges of unit indexes. */
export const Ranges = Type.Array(Type.Tuple([Index, Index]));

/** What the target durably knows of a migrated volume. */
export const Report = Type.Object({
  agentId: Uid,
  barrier: Barrier,
  points: Type.Array(PointRef, { description: "Committed, with their file present; oldest first" }),
  staging: Type.Union([
    Type.Null(),
    Type.Object({ baseId: Type.Union([PointId, Type.Null()]), toId: PointId, planDigest: Digest, stored: Ranges }),
  ]),
  commits: Type.Array(CommitRecord, { description: "The newest ones, oldest first" }),
  generationMax: Type.Integer(),
});
export type Report = Static<typeof Report>;

export const Grant = Type.Object({ term: Term, leaseMs: Type.Integer(), report: Report });
export type Grant = Static<typeof Grant>;

/** One unit: its extents as [offset, length, 1 for data or 0 for a hole], ascending. */
export const WireUnit = Type.Array(Type.Tuple([Bytes, Bytes, Type.Integer({ minimum: 0, maximum: 1 })]), {
  maxItems: 4096,
});
export type WireUnit = Static<typeof WireUnit>;

export const PlanHeader = Type.Object({
  job: Name,
  baseId: Type.Union([PointId, Type.Null()]),
  to: PointRef,
  mode: Mode,
  unitCount: Index,
  bytesData: Bytes,
  bytesPunched: Bytes,
  planDigest: Digest,
  diverged: Type.Boolean(),
});
export type PlanHeader = Static<typeof PlanHeader>;

export const PlanPage = Type.Object({ first: Index, units: Type.Array(WireUnit, { maxItems: 1024 }) });
export type PlanPage = Static<typeof PlanPage>;

export const StoreRequest = Type.Object({
  lane: Index,
  units: Type.Array(Type.Object({ index: Index, digest: Digest }), { minItems: 1, maxItems: 1024 }),
});
export type StoreRequest = Static<typeof StoreRequest>;

export const StoreResult = Type.Object({
  stored: Type.Array(Index),
  damaged: Type.Array(Index, { description: "Arrived or read back with another digest; send them again" }),
  verified: Type.Union([Type.Literal("media"), Type.Literal("memory")]),
});
export type StoreResult = Static<typeof StoreResult>;

export const CommitRequest = Type.Object({
  baseId: Type.Union([PointId, Type.Null()]),
  toId: PointId,
  planDigest: Digest,
});
export type CommitRequest = Static<typeof CommitRequest>;

export const LaneTicket = Type.Object({
  ticket: Type.String({ pattern: "^[0-9a-f]{64}$" }),
  laneAddress: Type.String(),
});
export type LaneTicket = Static<typeof LaneTicket>;

export const FreezeResult = Type.Object({ stored: Ranges });
export type FreezeResult = Static<typeof FreezeResult>;

/** The volume a call is about, as the source names it; the caller's cluster comes from its certificate. */
export interface PeerTarget {
  readonly volume: string;
  readonly term: Term;
}

/**
 * The target as a coordinator sees it. Each call is safe to repeat: what was done already is answered with its result.
 * Errors: `NotConsented`, `QuotaExceeded`, `LeaseHeld`, `TermLost`, `PlanMismatch`, `DiskFull`, and those of the network.
 */
export interface PeerApi {
  hello(): Promise<Hello>;
  /** One conditional transaction: grants the next epoch, unless another claimant's lease is live (`LeaseHeld`). */
  claim(claim: Claim): Promise<Grant>;
  /** What is durable there; needs no term, so that an outcome can be asked for after a term was lost. */
  report(volume: string): Promise<Report | undefined>;
  /** Renews the lease. */
  renew(target: PeerTarget): Promise<void>;
  /** Persists the plan's header; drops staging of another (base, to, digest). Complete once all its pages are there. */
  putPlan(target: PeerTarget, header: PlanHeader): Promise<void>;
  putPlanPage(target: PeerTarget, page: PlanPage): Promise<void>;
  /** Closes the newest point for new clones, makes or opens staging, applies punches; answers what is stored already. */
  freeze(target: PeerTarget): Promise<FreezeResult>;
  laneTicket(target: PeerTarget, lane: number): Promise<LaneTicket>;
  /** Waits for the units' bytes, syncs, reads back, compares, and records those that match. */
  store(target: PeerTarget, request: StoreRequest): Promise<StoreResult>;
  /** The decision: one conditional write. `PlanMismatch` unless base, to and plan are those of the row and all is stored. */
  commit(target: PeerTarget, request: CommitRequest): Promise<CommitRecord>;
  /** Thaws at the previous point and ends the term; staging stays for resume, unless `discard`. */
  abort(target: PeerTarget, options: { discard: boolean }): Promise<void>;
  /** Ends the term after the commit. */
  release(target: PeerTarget): Promise<void>;
}
