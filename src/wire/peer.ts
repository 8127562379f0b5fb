// The migration protocol between clusters: what a job's coordinator says to the decider and participants of the target.
// Every call after the claim carries the granted term; a call under any other term throws `TermLost` and changes nothing.

import { type Static, Type } from "typebox";
import {
  Barrier,
  Bytes,
  Lineage,
  Member,
  Metadata,
  Mode,
  Name,
  PointId,
  PointRef,
  SizeBytes,
  Time,
  Transport,
  Uid,
  Understands,
  Verification,
} from "./schemas.ts";

const strict = { additionalProperties: false } as const;

const Digest = Type.String({ pattern: "^[0-9a-f]{64}$", description: "SHA-256, hex" });
const Index = Type.Integer({ minimum: 0, maximum: 2 ** 31 });
const Nonce = Type.String({ pattern: "^[0-9a-f]{32}$" });
/** Copies of one cluster's volumes with the same affinity get one home, where there is room. */
export const Affinity = Type.String({ minLength: 1, maxLength: 253 });

export const Hello = Type.Object({
  clusterUid: Uid,
  clusterName: Type.String(),
  agentId: Uid,
  members: Type.Array(Member),
  freeBytes: Bytes,
  understands: Type.Optional(Understands),
});
export type Hello = Static<typeof Hello>;

export const Term = Type.Object({ epoch: Type.Integer({ minimum: 1 }), nonce: Nonce });
export type Term = Static<typeof Term>;

/** A group as one of its members remembers it: the agent of the target cluster that decides for it. */
export const GroupRef = Type.Object({
  name: Name,
  home: Type.Unsafe<string>({ ...Uid, description: "Agent id of the group home" }),
});
export type GroupRef = Static<typeof GroupRef>;

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
  /**
   * For a member of a group: the term that the group home has granted for the whole job. The member takes it over as it
   * is, if it is above every epoch it has seen (or is the very term it has), and grants none of its own.
   */
  group: Type.Optional(Type.Object({ ...GroupRef.properties, term: Term }, strict)),
  /** For a clone: the point it was made of. If the target is the original's cluster, its report says whether it is there. */
  lineage: Type.Optional(Lineage),
  /** The volume's affinity, for copies that are placed later; an older target passes it over. */
  affinity: Type.Optional(Affinity),
});
export type Claim = Static<typeof Claim>;

export const CommitRecord = Type.Object({
  job: Name,
  epoch: Type.Integer(),
  baseId: Type.Union([PointId, Type.Null()]),
  toId: PointId,
  planDigest: Digest,
  committedAt: Time,
  groupPoint: Type.Optional(
    Type.Unsafe<string>({
      ...PointId,
      description: "The group point it was committed with; none for one that was committed by itself",
    }),
  ),
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
  /** The highest epoch it has accepted; a term below it changes nothing. */
  epoch: Type.Integer({ minimum: 0 }),
  group: Type.Optional(GroupRef),
  /** It has voted to commit this group point, under this epoch, and waits for the group home's decision. */
  prepared: Type.Optional(Type.Object({ groupPoint: PointId, epoch: Type.Integer() })),
  /** When the claimed lineage is of this very cluster: the original's point, or null when this agent does not have it. */
  lineage: Type.Optional(Type.Union([PointRef, Type.Null()])),
});
export type Report = Static<typeof Report>;

/** Of an agent that knows nothing of the volume. */
export const emptyReport: Report = {
  agentId: "none",
  barrier: "None",
  points: [],
  staging: null,
  commits: [],
  generationMax: 0,
  epoch: 0,
};

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
  /** The group point that `to` is a part of. */
  groupPoint: Type.Optional(PointId),
  /** The base is this point of the original, which the target has; the copy itself has none yet. */
  lineage: Type.Optional(Lineage),
});
export type PlanHeader = Static<typeof PlanHeader>;

export const PlanPage = Type.Object({ first: Index, units: Type.Array(WireUnit, { maxItems: 1024 }) });
export type PlanPage = Static<typeof PlanPage>;

export const StoreRequest = Type.Object({
  lane: Index,
  /** How the units are to be compared with their digests; `none` has no digests. */
  verification: Verification,
  units: Type.Array(Type.Object({ index: Index, digest: Type.Optional(Digest) }), { minItems: 1, maxItems: 1024 }),
});
export type StoreRequest = Static<typeof StoreRequest>;

export const StoreResult = Type.Object({
  stored: Type.Array(Index),
  damaged: Type.Array(Index, { description: "Arrived or read back with another digest; send them again" }),
  verified: Verification,
});
export type StoreResult = Static<typeof StoreResult>;

export const CommitRequest = Type.Object({
  baseId: Type.Union([PointId, Type.Null()]),
  toId: PointId,
  planDigest: Digest,
  /** Whether the term ends with it, as by a release: nothing more is asked under it. */
  releases: Type.Optional(Type.Boolean()),
});
export type CommitRequest = Static<typeof CommitRequest>;

export const LaneRequest = Type.Object({ lane: Index, transport: Transport });
export type LaneRequest = Static<typeof LaneRequest>;

export const LaneTicket = Type.Object({
  ticket: Type.String({ pattern: "^[0-9a-f]{64}$" }),
  laneAddress: Type.String(),
});
export type LaneTicket = Static<typeof LaneTicket>;

export const FreezeResult = Type.Object({
  stored: Ranges,
  isChecking: Type.Optional(
    Type.Boolean({
      description:
        "Staging is still being made, or what an earlier process stored read again, and nothing is told: ask again",
    }),
  ),
});
export type FreezeResult = Static<typeof FreezeResult>;

/** How a freeze is to be answered. */
export const FreezeOptions = Type.Object({
  inParts: Type.Optional(Type.Boolean({ description: "Within a while, with `isChecking` where it takes longer" })),
});
export type FreezeOptions = Static<typeof FreezeOptions>;

/** What goes along with a part of a plan, to save a request. */
export const PlanExtras = Type.Object({
  /** The first page; only with the header. */
  page: Type.Optional(PlanPage),
  /** Freezes as soon as this part is there; only with the last one. */
  freezes: Type.Optional(Type.Boolean()),
});
export type PlanExtras = Static<typeof PlanExtras>;

export const PlanResult = Type.Object({
  frozen: Type.Union([FreezeResult, Type.Null()], {
    description:
      "As freezing answers; null unless asked for, and when that takes longer: then freezing is to be asked for",
  }),
});
export type PlanResult = Static<typeof PlanResult>;

// ---- several nodes, and groups ----------------------------------------------------------------------------------------

export const LocateRequest = Type.Object(
  {
    volumes: Type.Array(
      Type.Object(
        {
          volume: Uid,
          sizeBytes: SizeBytes,
          /** Of a clone: a new copy goes where the point it was made of is, for only there can it start from it. */
          lineage: Type.Optional(Lineage),
          /** A new copy goes where those of the same affinity are. */
          affinity: Type.Optional(Affinity),
        },
        strict,
      ),
      { minItems: 1, maxItems: 256 },
    ),
    /** The group they are members of. */
    group: Type.Optional(Name),
  },
  strict,
);
export type LocateRequest = Static<typeof LocateRequest>;

/** Where volumes have, or will have, their copies. */
export const Homes = Type.Object({
  clusterUid: Uid,
  homes: Type.Array(Type.Object({ volume: Uid, agentId: Uid })),
  /** Who decides for the group; null when none was asked for. */
  groupHome: Type.Union([Uid, Type.Null()]),
  members: Type.Array(Member),
});
export type Homes = Static<typeof Homes>;

export const GroupClaim = Type.Object(
  {
    group: Name,
    job: Name,
    /** The one group point that may be committed under the term; a vote for any other is void once the term is granted. */
    groupPoint: PointId,
    claimant: Uid,
    nonce: Nonce,
    /** The highest epoch that any participant, source or target, has seen. */
    offeredEpoch: Type.Integer({ minimum: 0 }),
  },
  strict,
);
export type GroupClaim = Static<typeof GroupClaim>;

export const GroupCommitMember = Type.Object(
  {
    volume: Uid,
    /** The home of its copy. */
    agentId: Uid,
    baseId: Type.Union([PointId, Type.Null()]),
    toId: PointId,
    planDigest: Digest,
  },
  strict,
);
export type GroupCommitMember = Static<typeof GroupCommitMember>;

export const GroupCommitRequest = Type.Object(
  { groupPoint: PointId, members: Type.Array(GroupCommitMember, { minItems: 1, maxItems: 256 }) },
  strict,
);
export type GroupCommitRequest = Static<typeof GroupCommitRequest>;

export const GroupCommitRecord = Type.Object({
  groupPoint: PointId,
  job: Name,
  epoch: Type.Integer(),
  members: Type.Array(GroupCommitMember),
  committedAt: Time,
});
export type GroupCommitRecord = Static<typeof GroupCommitRecord>;

/** What the group home durably knows. */
export const GroupReport = Type.Object({
  agentId: Uid,
  epoch: Type.Integer({ minimum: 0 }),
  job: Type.String(),
  isTermLive: Type.Boolean(),
  commits: Type.Array(GroupCommitRecord, { description: "The newest ones, oldest first" }),
});
export type GroupReport = Static<typeof GroupReport>;

export const GroupGrant = Type.Object({ term: Term, leaseMs: Type.Integer(), report: GroupReport });
export type GroupGrant = Static<typeof GroupGrant>;

export const PrepareRequest = Type.Object(
  {
    baseId: Type.Union([PointId, Type.Null()]),
    toId: PointId,
    planDigest: Digest,
    groupPoint: PointId,
    /** All members of the group point with the homes of their copies: whom to ask should the group home be forgotten. */
    members: Type.Array(Type.Object({ volume: Uid, agentId: Uid }, strict), { minItems: 1, maxItems: 256 }),
  },
  strict,
);
export type PrepareRequest = Static<typeof PrepareRequest>;

/** A group point that was decided, as the source knows it. */
export const DecidedPoint = Type.Object(
  { group: Type.Object(GroupRef.properties, strict), groupPoint: PointId },
  strict,
);
export type DecidedPoint = Static<typeof DecidedPoint>;

/** The group a call is about; the caller's cluster comes from its certificate. */
export interface GroupTarget {
  readonly group: string;
  readonly term: Term;
}

/**
 * What groups add to {@link PeerApi}. A group has one decider, the group home; its members hold what is staged. The
 * coordinator has every member vote by `prepare`, and then asks the group home to `commitGroup`: that one conditional
 * write is the decision for all of them. A member that has voted neither aborts by itself nor commits by itself: it asks.
 */
export interface PeerGroupApi {
  /**
   * Where the copies of these volumes are, and which agent decides for the group. Places those that are new, durably.
   * `Unreachable` when a member that may have one does not answer: bring it back, or have it forgotten.
   */
  locate(request: LocateRequest): Promise<Homes>;
  /** At the group home: as {@link PeerApi.claim}, for the whole group. */
  claimGroup(claim: GroupClaim): Promise<GroupGrant>;
  /** What the group home durably knows; needs no term. */
  reportGroup(group: string): Promise<GroupReport | undefined>;
  renewGroup(target: GroupTarget): Promise<void>;
  /**
   * At a member, under the group's term: its vote. Seals staging in place and records the vote, durably; `PlanMismatch`
   * unless exactly the plan is stored. From here on the member is bound by the group home's decision. One that was committed
   * before, by whatever job, needs no vote: that it is there, and no other vote is open, is all it says.
   */
  prepare(target: PeerTarget, request: PrepareRequest): Promise<void>;
  /** At the group home: the decision, one conditional write. A repeat answers with the record. */
  commitGroup(target: GroupTarget, request: GroupCommitRequest): Promise<GroupCommitRecord>;
  /** At the group home: ends the term without a commit; members that ask from now on are told so. */
  abortGroup(target: GroupTarget): Promise<void>;
  /** At the group home: ends the term after the commit. */
  releaseGroup(target: GroupTarget): Promise<void>;
  /**
   * At a member: has it ask the group home now, and do what was decided; answers what holds then (`prepared` is still
   * there while nothing is decided, or the home does not answer). Needs no term: the decision is not the caller's.
   */
  settle(volume: string): Promise<Report | undefined>;
  /**
   * At a member that has its part by a job of its own: has it ask the group home, and note that part as one of the group point
   * if that was decided with it. Needs no term: the decision is not the caller's. `NotFound` from an agent of an earlier version.
   */
  joinGroupPoint(volume: string, decided: DecidedPoint): Promise<void>;
}

/** The volume a call is about, as the source names it; the caller's cluster comes from its certificate. */
export interface PeerTarget {
  readonly volume: string;
  readonly term: Term;
}

/**
 * The target as a coordinator sees it. Each call is safe to repeat: what was done already is answered with its result.
 * Errors: `NotConsented`, `QuotaExceeded`, `LeaseHeld`, `TermLost`, `PlanMismatch`, `DiskFull`, and those of the network.
 */
export interface PeerApi extends PeerGroupApi {
  hello(): Promise<Hello>;
  /** One conditional transaction: grants the next epoch, unless another claimant's lease is live (`LeaseHeld`). */
  claim(claim: Claim): Promise<Grant>;
  /**
   * What is durable there; needs no term, so that an outcome can be asked for after a term was lost. With a clone's lineage
   * also whether the point it was made of is there, even if nothing is known of the volume itself.
   */
  report(volume: string, lineage?: Lineage): Promise<Report | undefined>;
  /** Renews the lease. */
  renew(target: PeerTarget): Promise<void>;
  /** Persists the plan's header; drops staging of another (base, to, digest). Complete once all its pages are there. */
  putPlan(target: PeerTarget, header: PlanHeader, extras?: PlanExtras): Promise<PlanResult>;
  putPlanPage(target: PeerTarget, page: PlanPage, extras?: Pick<PlanExtras, "freezes">): Promise<PlanResult>;
  /**
   * Closes the newest point for new clones, makes or opens staging, applies punches; answers what is stored already. A job of a single
   * volume, which waits for nobody between plan and freeze, has it done with the last part of the plan. What an earlier process stored
   * is read again first, which may take hours: `inParts` has the answer come before, and is asked again until it is all there.
   */
  freeze(target: PeerTarget, options?: FreezeOptions): Promise<FreezeResult>;
  laneTicket(target: PeerTarget, request: LaneRequest): Promise<LaneTicket>;
  /** Waits for the units' bytes, syncs, reads back, compares, and records those that match. */
  store(target: PeerTarget, request: StoreRequest): Promise<StoreResult>;
  /** The decision: one conditional write. `PlanMismatch` unless base, to and plan are those of the row and all is stored. */
  commit(target: PeerTarget, request: CommitRequest): Promise<CommitRecord>;
  /** Thaws at the previous point and ends the term; staging stays for resume, unless `discard`. */
  abort(target: PeerTarget, options: { discard: boolean }): Promise<void>;
  /** Ends the term after the commit. */
  release(target: PeerTarget): Promise<void>;
}
