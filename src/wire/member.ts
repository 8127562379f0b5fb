// What the agents of one storage cluster say to each other. On the source side: the coordinator of a group's job to the
// participants. On the target side: who has a copy, and what a group home has decided. And on both: who there is.
// Only agents of the own cluster may call it; every call is safe to repeat.
import { type Static, Type } from "typebox";
import { Affinity, GroupCommitRecord, GroupRef, LocateRequest, Term } from "./peer.ts";
import {
  Bytes,
  JobSpec,
  JobState,
  JobVolume,
  Lineage,
  Member,
  Name,
  PointId,
  PointRef,
  Problem,
  SizeBytes,
  SnapshotView,
  Uid,
} from "./schemas.ts";

const strict = { additionalProperties: false } as const;
const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(schema: T) => Type.Union([schema, Type.Null()]);
const Count = Type.Integer({ minimum: 0 });

// ---- membership ----------------------------------------------------------------------------------------------------

/**
 * An agent as it is passed on from one to the next. Of two tellings about one agent the later state wins in the order
 * `member`, `lost`, `forgotten`; its addresses are those it gave last itself (the higher `incarnation`).
 */
export const KnownMember = Type.Object(
  {
    agentId: Uid,
    node: Type.String(),
    address: Member.properties.address,
    laneAddress: Member.properties.laneAddress,
    /** Grows with every start of the agent. */
    incarnation: Count,
    state: Type.Union([
      Type.Literal("member"),
      Type.Literal("lost", { description: "Its node is back under another agent id: with an empty disk" }),
      Type.Literal("forgotten", { description: "A person said that it will not come back" }),
    ]),
  },
  strict,
);
export type KnownMember = Static<typeof KnownMember>;

export const Meeting = Type.Object({ self: KnownMember, members: Type.Array(KnownMember, { maxItems: 1024 }) }, strict);
export type Meeting = Static<typeof Meeting>;

export const Acquaintance = Type.Object({
  isAcquainted: Type.Boolean({ description: "False while it is new, and cannot know who else there is" }),
});
export type Acquaintance = Static<typeof Acquaintance>;

// ---- names of volumes ------------------------------------------------------------------------------------------------

/** A name that an agent is about to give to a new volume. The volume's UID tells claims of one name apart. */
export const NameClaim = Type.Object({ agentId: Uid, name: Name, uid: Uid }, strict);
export type NameClaim = Static<typeof NameClaim>;

export const NameClaimed = Type.Object({
  takenBy: nullable(
    Type.Object(
      { agentId: Uid, isAway: Type.Boolean({ description: "It could not be asked whether it still has the name" }) },
      { description: "The agent that has the name, or has claimed it before; null when the claim is kept" },
    ),
  ),
  knows: Type.Array(Uid, { description: "Agents that have told this one which names they have" }),
});
export type NameClaimed = Static<typeof NameClaimed>;

export const VolumeNamesRequest = Type.Object({ agentId: Uid }, { ...strict, description: "Who asks" });
export type VolumeNamesRequest = Static<typeof VolumeNamesRequest>;

export const VolumeNames = Type.Object({ volumes: Type.Array(Type.Object({ name: Name, uid: Uid })) });
export type VolumeNames = Static<typeof VolumeNames>;

// ---- target side ---------------------------------------------------------------------------------------------------

export const CopiesRequest = Type.Object(
  {
    clusterUid: Uid,
    volumes: Type.Array(Uid, { minItems: 1, maxItems: 256 }),
    /** Points of this cluster's volumes, of which clones come back. */
    originals: Type.Optional(Type.Array(Lineage, { maxItems: 256 })),
    /** Of volumes of that cluster: whose copies are near. */
    affinities: Type.Optional(Type.Array(Affinity, { maxItems: 256 })),
  },
  strict,
);
export type CopiesRequest = Static<typeof CopiesRequest>;

/** A copy this agent has, or one it has placed and whose home has perhaps not heard of it yet. */
export const Copy = Type.Object({
  volume: Uid,
  /** The home. */
  agentId: Uid,
  /** `false`: only placed there. */
  isMade: Type.Boolean(),
  points: Count,
  epoch: Count,
  group: Type.Optional(GroupRef),
});
export type Copy = Static<typeof Copy>;

export const Copies = Type.Object({
  copies: Type.Array(Copy),
  freeBytes: Bytes,
  promisedBytes: Type.Optional(
    Type.Unsafe<number>({
      ...Bytes,
      description: "Of what is free, what first copies under way are still going to take",
    }),
  ),
  /** Ids of those of the originals asked for that this agent has. */
  originals: Type.Optional(Type.Array(PointId)),
  /** Homes of copies with any of the affinities asked for: this agent, where it has one, and those it has placed some at. */
  near: Type.Optional(Type.Array(Uid)),
});
export type Copies = Static<typeof Copies>;

export const PlaceRequest = Type.Object({ clusterUid: Uid, ...LocateRequest.properties }, strict);
export type PlaceRequest = Static<typeof PlaceRequest>;

export const DecisionQuery = Type.Object(
  {
    clusterUid: Uid,
    group: Name,
    groupPoint: PointId,
    /** The epoch under which the member that asks has voted. */
    epoch: Count,
  },
  strict,
);
export type DecisionQuery = Static<typeof DecisionQuery>;

/** What became of a group point. `pending`: a term is live, under which it may still be committed. */
export const Decision = Type.Union([
  Type.Object({ kind: Type.Literal("committed"), record: GroupCommitRecord }),
  Type.Object({
    kind: Type.Literal("aborted", {
      description: "No term of the asked epoch or below it can commit it any more",
    }),
    epoch: Count,
  }),
  Type.Object({ kind: Type.Literal("pending"), epoch: Count }),
]);
export type Decision = Static<typeof Decision>;

export const OutcomeQuery = Type.Object({ clusterUid: Uid, volume: Uid, groupPoint: PointId }, strict);
export type OutcomeQuery = Static<typeof OutcomeQuery>;

/** What a member itself knows of a group point; what the others go by when the group home was forgotten. */
export const MemberOutcome = Type.Object({
  outcome: Type.Union([Type.Literal("committed"), Type.Literal("prepared"), Type.Literal("none")]),
});
export type MemberOutcome = Static<typeof MemberOutcome>;

// ---- source side: snapshots of groups ------------------------------------------------------------------------------

export const HoldingsRequest = Type.Object(
  {
    volumes: Type.Array(Name, { maxItems: 256 }),
    groupPoint: Type.Optional(
      Type.Unsafe<string>({ ...PointId, description: "Also the volumes that have a snapshot of it" }),
    ),
  },
  strict,
);
export type HoldingsRequest = Static<typeof HoldingsRequest>;

/** The volumes asked for that have their home here. A snapshot that does not count yet is `creating`. */
export const Holdings = Type.Object({
  volumes: Type.Array(
    Type.Object({
      name: Name,
      uid: Uid,
      snapshots: Type.Array(SnapshotView, { description: "Those taken with a group, valid or not" }),
      lineage: Type.Optional(Lineage),
    }),
  ),
});
export type Holdings = Static<typeof Holdings>;

export const FreezeRequest = Type.Object(
  {
    group: Name,
    groupPoint: PointId,
    volumes: Type.Array(Name, { minItems: 1, maxItems: 256 }),
    /** Thaws by itself after this long, whatever happened to whoever asked. */
    timeoutMs: Type.Integer({ minimum: 1, maximum: 600_000 }),
  },
  strict,
);
export type FreezeRequest = Static<typeof FreezeRequest>;

export const FrozenRef = Type.Object({ group: Name, groupPoint: PointId }, strict);
export type FrozenRef = Static<typeof FrozenRef>;

export const GroupSnapshotPart = Type.Object({ group: Name, groupPoint: PointId, name: Name }, strict);
export type GroupSnapshotPart = Static<typeof GroupSnapshotPart>;

export const Thawed = Type.Object({
  /** Whether all of them were frozen without a break from the freeze to this moment. */
  wasFrozen: Type.Boolean(),
  frozenMs: Type.Number(),
});
export type Thawed = Static<typeof Thawed>;

// ---- source side: the job of a group -------------------------------------------------------------------------------

const SharedVolume = Type.Object(
  { name: Name, uid: Uid, toId: PointId, sizeBytes: SizeBytes, lineage: Type.Optional(Lineage) },
  strict,
);

/** A group's job as every source participant keeps it: what to move, and who takes part. */
export const ShareSpec = Type.Object(
  {
    spec: JobSpec,
    /** How often the spec's `suspend` and `cancel` were changed: of two tellings the later one holds, everywhere. */
    steered: Count,
    groupPoint: PointId,
    /** Stands for the whole group point: its id, the highest generation, the earliest time, all sizes together. */
    to: PointRef,
    participants: Type.Array(
      Type.Object({ agentId: Uid, volumes: Type.Array(SharedVolume, { minItems: 1, maxItems: 256 }) }, strict),
      { minItems: 1, maxItems: 256 },
    ),
  },
  strict,
);
export type ShareSpec = Static<typeof ShareSpec>;

/** How far a participant is to bring its share, and then wait. `Released` finishes forward, `Ended` gives up. */
export const Step = Type.Union([
  Type.Literal("Joined"),
  Type.Literal("Frozen"),
  Type.Literal("Stored", { description: "Stored and verified, and every member has voted" }),
  Type.Literal("Released", { description: "The group point is committed: base moved, terms ended" }),
  Type.Literal("Ended", { description: "It is decided that the job ends otherwise: Failed, Cancelled or Suspended" }),
]);
export type Step = Static<typeof Step>;

export const Order = Type.Object(
  {
    /** As granted by the group home; a participant acts on none below the highest it has persisted. */
    term: Term,
    /** Who coordinates, by its agent id. */
    coordinator: Uid,
    step: Step,
    targetClusterUid: Uid,
    group: GroupRef,
    homes: Type.Array(Type.Object({ volume: Uid, member: Member }), { maxItems: 256 }),
    /** With `Ended`: as what, why, and whether staging at the target is dropped as well. */
    end: Type.Optional(Type.Object({ state: JobState, problem: nullable(Problem), discard: Type.Boolean() }, strict)),
  },
  strict,
);
export type Order = Static<typeof Order>;

/** What a person asks of a job that is under way; see `steered` of {@link ShareSpec}. */
export const Steering = Type.Object({ steered: Count, suspend: Type.Boolean(), cancel: Type.Boolean() });
export type Steering = Static<typeof Steering>;

export const ShareReport = Type.Object({
  agentId: Uid,
  job: Name,
  /** The highest epoch it has persisted for this job. */
  epoch: Count,
  /** `idle`: the last order is done. */
  state: Type.Union([Type.Literal("idle"), Type.Literal("running"), Type.Literal("failed"), Type.Literal("finished")]),
  /** What the last order asked for. */
  step: nullable(Step),
  /** Why the last order failed. */
  problem: nullable(Problem),
  finishedAs: nullable(JobState),
  /** What is asked of the job, as this participant has heard it last. */
  steering: Steering,
  isReserved: Type.Optional(
    Type.Boolean({ description: "Whether the job has its room on this node; absent from older agents" }),
  ),
  isSuspended: Type.Optional(
    Type.Boolean({ description: "Whether its part of the job has come to rest; absent from older agents" }),
  ),
  shares: Type.Array(JobVolume),
});
export type ShareReport = Static<typeof ShareReport>;

/** One agent as the others of its cluster see it. */
export interface MemberApi {
  /** Introduces the caller, and exchanges who is known. `Forbidden` for an agent that was forgotten, `Unreachable` when this one was. */
  meet(meeting: Meeting): Promise<Meeting>;
  /** For one that is new: whether this agent, who has answered it, can know who else there is. */
  acquaintance(): Promise<Acquaintance>;

  /** Keeps the claim, durably, unless the name is another agent's: then nothing changes. Asks that one whether it still is. */
  claimName(claim: NameClaim): Promise<NameClaimed>;
  /** The names of all volumes here, those being made included. `Unreachable` while whoever asks is not known here. */
  volumeNames(request: VolumeNamesRequest): Promise<VolumeNames>;

  copies(request: CopiesRequest): Promise<Copies>;
  /** At the member that places (the first of all that count): chooses homes for new copies, durably; once for each. */
  place(request: PlaceRequest): Promise<Copies>;
  /** At a group home. A group it does not know of is answered as aborted: it can commit nothing for it. */
  decision(query: DecisionQuery): Promise<Decision>;
  memberOutcome(query: OutcomeQuery): Promise<MemberOutcome>;

  holdings(request: HoldingsRequest): Promise<Holdings>;
  /** Freezes all of them or none. Frozen already for the same group point: nothing changes. */
  freeze(request: FreezeRequest): Promise<void>;
  /** Snapshots what is frozen for this group point. The snapshots do not count until they are confirmed. */
  snapshotFrozen(part: GroupSnapshotPart): Promise<void>;
  thaw(ref: FrozenRef): Promise<Thawed>;
  /** Every thaw was good: the snapshots count from now on. `SnapshotGone` when they were dropped here. */
  confirmGroup(part: GroupSnapshotPart): Promise<{ snapshots: SnapshotView[] }>;
  /** Drops what does not count. What was confirmed stays, and the caller is told by `Conflict`. */
  discardGroup(part: GroupSnapshotPart): Promise<void>;

  /** Takes part in a group's job: row and holds, durably. The same again changes nothing but what is asked of the job. */
  takeShare(job: string, share: ShareSpec): Promise<ShareReport>;
  /** What it durably knows of the job and its part in it; undefined for a job it does not know. */
  shareReport(job: string): Promise<ShareReport | undefined>;
  /**
   * Brings the share to a step, and answers when it is there, when it failed, or after ten seconds with `running`: then
   * the same order again waits on. `TermLost` for an epoch below the persisted one, or another term of the same epoch.
   */
  order(job: string, order: Order): Promise<ShareReport>;
  /**
   * The coordinator of this term pauses: as soon as nothing is under way there, the room that the job has on this node is
   * free for others. Nothing else changes, and under another term nothing at all.
   */
  pauseShare(job: string, term: Term): Promise<void>;
}
