// What operator, CSI driver and agents say to each other: one schema for each resource of the agent's API under /v1.
// The same schemas validate requests, type the code, and make the OpenAPI document.

import { type Static, type TSchema, Type } from "typebox";

const strict = { additionalProperties: false } as const;
const nullable = <T extends TSchema>(schema: T) => Type.Union([schema, Type.Null()]);

/** A name given by the client: volumes, snapshots, jobs, clones. It is used in paths and file names. */
export const Name = Type.String({ pattern: "^[a-z0-9]([a-z0-9.-]{0,118}[a-z0-9])?$", description: "Lower-case name" });
export const Uid = Type.String({ pattern: "^[a-z0-9-]{1,63}$", description: "Identity for machines" });
export const PointId = Type.String({ pattern: "^[0-9a-f]{32}$", description: "Random 128-bit id of a point, in hex" });
export const Time = Type.String({ pattern: "^\\d{4}-\\d\\d-\\d\\dT[0-9:.]{8,18}Z$", description: "RFC 3339, UTC" });
export const Bytes = Type.Integer({ minimum: 0, maximum: 2 ** 52 });
export const SizeBytes = Type.Integer({ minimum: 4096, maximum: 2 ** 50, multipleOf: 4096 });
const Count = Type.Integer({ minimum: 0 });
/** Grows with every change of the object; sent as ETag, and expected back in If-Match. */
const Revision = Type.Integer({ minimum: 1, description: "Revision, the ETag of the resource" });
const CaBundle = Type.String({
  minLength: 1,
  maxLength: 65536,
  description: "PEM certificates of the CA, concatenated",
});
const Address = Type.String({
  pattern: "^[^\\s/:]+:\\d{1,5}$|^\\[[0-9a-fA-F:]+\\]:\\d{1,5}$",
  description: "host:port",
});

/** Up to 4 KiB that the agent carries along with each job and never looks into (PVC, labels, volume mode, ...). */
// Written out, because Type.Record would let names with line breaks pass unchecked.
export const Metadata = Type.Unsafe<Record<string, string>>({
  type: "object",
  propertyNames: { maxLength: 128 },
  additionalProperties: { type: "string", maxLength: 4096 },
  maxProperties: 128,
});
export type Metadata = Static<typeof Metadata>;

export const Problem = Type.Object({
  type: Type.String({ description: "urn:longshore:problem:<code>, stable" }),
  title: Type.String(),
  status: Type.Integer(),
  detail: Type.String(),
  code: Type.String(),
  advice: Type.String({ description: "What to do next" }),
});
export type Problem = Static<typeof Problem>;

// ---- the agent and its cluster -------------------------------------------------------------------------------------

export const Member = Type.Object({
  agentId: Uid,
  node: Type.String(),
  address: Address,
  laneAddress: Address,
  state: Type.Optional(
    Type.Union(
      [
        Type.Literal("alive"),
        Type.Literal("unreachable", { description: "Known, and does not answer now" }),
        Type.Literal("lost", { description: "Its node came back without its data; it counts until it is forgotten" }),
      ],
      { description: "As the answering agent sees it; absent from older agents" },
    ),
  ),
});
export type Member = Static<typeof Member>;

/** Names of what requests between agents may have, and agents of earlier versions refuse (`newer` in routes.ts). */
export const Understands = Type.Array(Type.String({ minLength: 1, maxLength: 64 }), {
  maxItems: 256,
  description: "Names of what may be sent to this agent that earlier versions refuse; absent from the first version",
});
export type Understands = Static<typeof Understands>;

export const AgentView = Type.Object({
  agentId: Uid,
  node: Type.String(),
  version: Type.String(),
  clusterUid: Uid,
  clusterName: Type.String(),
  backend: Type.Union([Type.Literal("reflink"), Type.Literal("copy")]),
  members: Type.Array(Member),
  isAcquainted: Type.Optional(
    Type.Boolean({
      description: "False while it is new, and too few have answered it: there may be members it has not heard of",
    }),
  ),
  freeBytes: Bytes,
  totalBytes: Bytes,
  understands: Type.Optional(Understands),
});
export type AgentView = Static<typeof AgentView>;

// ---- volumes and snapshots -----------------------------------------------------------------------------------------

export const Hold = Type.Object({
  reason: Type.Union([Type.Literal("base"), Type.Literal("job"), Type.Literal("clone"), Type.Literal("user")]),
  owner: Type.String({ maxLength: 253, description: "Location (base), job, clone, or what the user calls it" }),
  since: Time,
});
export type Hold = Static<typeof Hold>;

export const SnapshotView = Type.Object({
  name: Name,
  volume: Name,
  pointId: PointId,
  generation: Count,
  state: Type.Union([
    Type.Literal("creating"),
    Type.Literal("sealed"),
    Type.Literal("deleting"),
    Type.Literal("lost", { description: "Its file vanished or was replaced behind our back" }),
  ]),
  released: Type.Boolean({ description: "Deleted by its owner; the file goes when the last hold does" }),
  sizeBytes: Bytes,
  createdAt: Time,
  stallMs: Type.Number({ description: "How long writers were held up" }),
  group: Type.Optional(Type.Unsafe<string>({ ...Name, description: "The group it was taken with" })),
  groupPoint: Type.Optional(
    Type.Unsafe<string>({ ...PointId, description: "Taken together with others: the id all of them share" }),
  ),
  holds: Type.Array(Hold),
});
export type SnapshotView = Static<typeof SnapshotView>;

export const BaseView = Type.Object({
  location: Name,
  clusterUid: Uid,
  pointId: PointId,
  generation: Count,
  sourceTime: Time,
  movedAt: Time,
});
export type BaseView = Static<typeof BaseView>;

/** Where the content of a volume came from, when it is a clone: what makes the first job back a Delta. */
export const Lineage = Type.Object({ clusterUid: Uid, volumeUid: Uid, pointId: PointId });
export type Lineage = Static<typeof Lineage>;

/** What a local clone is made of: a snapshot of a volume of the same agent or, without `snapshot`, what the volume holds now. */
export const VolumeOrigin = Type.Object({ volume: Name, snapshot: Type.Optional(Name) }, strict);
export type VolumeOrigin = Static<typeof VolumeOrigin>;

export const VolumeSpec = Type.Object(
  {
    sizeBytes: SizeBytes,
    metadata: Type.Optional(Metadata),
    migrationEnabled: Type.Optional(Type.Boolean()),
    from: Type.Optional(
      Type.Unsafe<VolumeOrigin>({
        ...VolumeOrigin,
        description:
          "Makes it a clone of that snapshot of a volume of the same agent or, without a snapshot, of what the volume holds now",
      }),
    ),
    affinity: Type.Optional(
      Type.String({
        maxLength: 253,
        description:
          "Volumes of one cluster with the same affinity get one home at a target, where there is room; new copies only. Empty: none",
      }),
    ),
  },
  strict,
);
export type VolumeSpec = Static<typeof VolumeSpec>;

export const VolumeView = Type.Object({
  name: Name,
  uid: Uid,
  sizeBytes: Bytes,
  metadata: Metadata,
  migrationEnabled: Type.Boolean(),
  from: Type.Optional(
    Type.Unsafe<VolumeOrigin>({ ...VolumeOrigin, description: "What it was made as a clone of; perhaps gone by now" }),
  ),
  affinity: Type.Optional(
    Type.Union([Type.String(), Type.Null()], { description: "Null for none; absent from older agents" }),
  ),
  home: Uid,
  path: Type.String({ description: "The live image on its home" }),
  createdAt: Time,
  generation: Count,
  lineage: nullable(Lineage),
  problem: nullable(Problem),
  snapshots: Type.Array(SnapshotView, { description: "Oldest first" }),
  bases: Type.Array(BaseView),
  revision: Revision,
});
/** As whoever asks is given it: what older agents do not tell is filled in. */
export type VolumeView = Static<typeof VolumeView> & { affinity: string | null };

export const SnapshotSpec = Type.Object({}, strict);

/** Most extents of a page, and as many as there are unless fewer are asked for. */
export const extentsPerPageMax = 4096;

export const ImageExtent = Type.Object({ offset: Bytes, length: Bytes });
export type ImageExtent = Static<typeof ImageExtent>;

export const ExtentPage = Type.Object({
  sizeBytes: Type.Unsafe<number>({ ...Bytes, description: "Of the snapshot" }),
  extents: Type.Array(ImageExtent, { maxItems: extentsPerPageMax, description: "Ascending, not overlapping" }),
  next: nullable(Type.Unsafe<number>({ ...Bytes, description: "The byte to go on from; null when this was the last" })),
});
export type ExtentPage = Static<typeof ExtentPage>;

/** All volumes are frozen, then all are snapshotted, then all are thawed. */
export const GroupSnapshotSpec = Type.Object(
  { volumes: Type.Array(Name, { minItems: 1, maxItems: 256, uniqueItems: true }) },
  strict,
);
export type GroupSnapshotSpec = Static<typeof GroupSnapshotSpec>;

export const GroupSnapshotView = Type.Object({
  group: Name,
  name: Name,
  groupPoint: PointId,
  snapshots: Type.Array(SnapshotView, { description: "One of each volume, in the order asked for" }),
  frozenMs: Type.Number({ description: "How long the writers of the group were held up" }),
});
export type GroupSnapshotView = Static<typeof GroupSnapshotView>;

// ---- locations (source side) ---------------------------------------------------------------------------------------

export const Transport = Type.Union([
  Type.Literal("tls", { description: "Mutual TLS 1.3; the default" }),
  Type.Literal("kernel", {
    description:
      "Plain TCP, from file to file within the kernel, for trusted or already encrypted networks. It protects against accidents, not against attackers",
  }),
]);
export type Transport = Static<typeof Transport>;

export const Verification = Type.Union([
  Type.Literal("media", { description: "Read back past the page cache, where the file system can; the default" }),
  Type.Literal("memory", { description: "Read back through the page cache" }),
  Type.Literal("none", { description: "Not read back" }),
]);
export type Verification = Static<typeof Verification>;

export const LocationSpec = Type.Object(
  {
    clusterName: Type.String({ minLength: 1, maxLength: 63 }),
    clusterUid: Type.Optional(Uid),
    seeds: Type.Array(Address, { minItems: 1, maxItems: 16 }),
    caBundle: CaBundle,
    jobsMax: Type.Optional(Type.Integer({ minimum: 1, maximum: 1000, description: "Jobs at once to this location" })),
    bytesPerSecondMax: Type.Optional(Type.Integer({ minimum: 1, maximum: 2 ** 52, description: "All jobs together" })),
    transport: Type.Optional(Transport),
    verification: Type.Optional(Verification),
  },
  strict,
);
export type LocationSpec = Static<typeof LocationSpec>;

export const LocationState = Type.Union([
  Type.Literal("unknown", { description: "Not probed yet" }),
  Type.Literal("reachable"),
  Type.Literal("unreachable", { description: "No seed answers" }),
  Type.Literal("untrusted", { description: "What answers is not of the CA bundle, or not the cluster named" }),
  Type.Literal("notConsented", { description: "It answers, but has no MigrationSource for this cluster" }),
]);
export type LocationState = Static<typeof LocationState>;

export const LocationView = Type.Object({
  name: Name,
  spec: LocationSpec,
  state: LocationState,
  message: Type.String(),
  clusterUid: nullable(Uid),
  members: Type.Array(Member),
  freeBytes: nullable(Bytes),
  roundTripMs: nullable(Type.Number()),
  probedAt: nullable(Time),
  volumes: Type.Integer({ description: "Volumes with a base or a job at this location" }),
  revision: Revision,
});
export type LocationView = Static<typeof LocationView>;

// ---- jobs (source side) --------------------------------------------------------------------------------------------

/** Volumes that are snapshotted and migrated as one. */
export const JobGroup = Type.Object(
  { name: Name, volumes: Type.Array(Name, { minItems: 1, maxItems: 256, uniqueItems: true }) },
  strict,
);
export type JobGroup = Static<typeof JobGroup>;

export const JobSpec = Type.Object(
  {
    volume: Type.Optional(Name),
    group: Type.Optional(JobGroup),
    location: Name,
    snapshot: Type.Unsafe<string>({ ...Name, description: "Of the volume, or the group's, which each volume has" }),
    dryRun: Type.Optional(Type.Boolean({ description: "Plan, report, and move nothing" })),
    suspend: Type.Optional(Type.Boolean()),
    cancel: Type.Optional(Type.Boolean()),
  },
  { ...strict, oneOf: [{ required: ["volume"] }, { required: ["group"] }] },
);
/** Exactly one of `volume` and `group` is there. */
export type JobSpec = Static<typeof JobSpec>;

export const Barrier = Type.Union([
  Type.Literal("None"),
  Type.Literal("Joined"),
  Type.Literal("Frozen"),
  Type.Literal("Stored"),
  Type.Literal("Committed"),
  Type.Literal("Released"),
]);
export type Barrier = Static<typeof Barrier>;

export const JobState = Type.Union([
  Type.Literal("Pending"),
  Type.Literal("Running"),
  Type.Literal("Suspended"),
  Type.Literal("Undecided", { description: "The outcome at the target is not known; every hold stays" }),
  Type.Literal("Succeeded"),
  Type.Literal("Failed"),
  Type.Literal("Cancelled"),
]);
export type JobState = Static<typeof JobState>;

export const Mode = Type.Object({
  kind: Type.Union([Type.Literal("Delta"), Type.Literal("Allocated"), Type.Literal("Full")]),
  reason: Type.String({ description: "CamelCase reason, such as FirstCopy, NoCommonPoint, CommonBase, Unshared" }),
});
export type Mode = Static<typeof Mode>;

export const PointRef = Type.Object({ pointId: PointId, generation: Count, sourceTime: Time, sizeBytes: Bytes });
export type PointRef = Static<typeof PointRef>;

export const ParticipantState = Type.Union([
  Type.Literal("idle", { description: "Has done what was asked of it, and waits for the others" }),
  Type.Literal("running"),
  Type.Literal("failed", { description: "Its last try failed; it is asked again" }),
  Type.Literal("finished"),
  Type.Literal("unreachable", { description: "What is told of it is what was heard last" }),
]);
export type ParticipantState = Static<typeof ParticipantState>;

export const ParticipantView = Type.Object({
  agentId: Uid,
  node: nullable(Type.String({ description: "Null while it is not known" })),
  role: Type.Union([
    Type.Literal("coordinator"),
    Type.Literal("source"),
    Type.Literal("target"),
    Type.Literal("decider"),
  ]),
  state: ParticipantState,
  /** Names of the volumes it has a part in. */
  volumes: Type.Array(Name),
  barrier: Barrier,
  unitsDone: Count,
  epoch: Count,
  lastError: nullable(Type.String()),
  lastHeardAt: nullable(Time),
});
export type ParticipantView = Static<typeof ParticipantView>;

/** One volume's part of a job, as the agent that reads it knows it. */
export const JobVolume = Type.Object({
  volume: Name,
  uid: Uid,
  toId: PointId,
  barrier: Barrier,
  isPrepared: Type.Boolean({
    description: "The home of its copy was asked to vote, or has voted, for the group's commit",
  }),
  from: nullable(PointRef),
  mode: nullable(Mode),
  planDigest: nullable(Type.String()),
  bytesTotal: Bytes,
  bytesPunched: Bytes,
  bytesSent: Bytes,
  bytesStored: Bytes,
  unitsTotal: Count,
  unitsStored: Count,
  verified: nullable(Verification),
  targetAgent: nullable(Type.Unsafe<string>({ ...Uid, description: "Home of its copy, once it is known" })),
  targetBarrier: nullable(Type.Unsafe<Barrier>({ ...Barrier, description: "What that home reported last" })),
});
export type JobVolume = Static<typeof JobVolume>;

export const JobView = Type.Object({
  name: Name,
  spec: JobSpec,
  state: JobState,
  barrier: Barrier,
  epoch: Count,
  attempts: Count,
  from: nullable(PointRef),
  to: nullable(PointRef),
  mode: nullable(Mode),
  bytesTotal: Bytes,
  bytesPunched: Bytes,
  bytesSent: Type.Integer({ minimum: 0, description: "On the wire, frames included, repeats included" }),
  bytesStored: Bytes,
  unitsTotal: Count,
  unitsStored: Count,
  bytesPerSecond: nullable(Type.Number()),
  etaSeconds: nullable(
    Type.Number({
      description: "Until all is stored; of a plan (dryRun), what the transfer would take, by the last ones there",
    }),
  ),
  verified: nullable(Verification),
  createdAt: Time,
  startedAt: nullable(Time),
  finishedAt: nullable(Time),
  durationMs: nullable(Type.Number({ description: "From first start to Released, waiting between attempts included" })),
  error: nullable(Problem),
  participants: Type.Array(ParticipantView),
  volumes: Type.Array(JobVolume, { description: "Its parts, as far as the answering agent knows them" }),
  revision: Revision,
});
export type JobView = Static<typeof JobView>;

// ---- consent and migrated volumes (target side) --------------------------------------------------------------------

export const SourceSpec = Type.Object(
  {
    clusterName: Type.String({ minLength: 1, maxLength: 63 }),
    clusterUid: Type.Optional(Uid),
    caBundle: CaBundle,
    quotaBytes: Type.Optional(Bytes),
    pointsKept: Type.Optional(Type.Integer({ minimum: 1, maximum: 100, description: "Default 3" })),
  },
  strict,
);
export type SourceSpec = Static<typeof SourceSpec>;

export const SourceView = Type.Object({
  name: Name,
  spec: SourceSpec,
  clusterUid: nullable(Uid),
  volumes: Count,
  usedBytes: Bytes,
  lastSeenAt: nullable(Time),
  revision: Revision,
});
export type SourceView = Static<typeof SourceView>;

export const MigratedPoint = Type.Object({
  pointId: PointId,
  generation: Count,
  sourceTime: Time,
  committedAt: Time,
  sizeBytes: Bytes,
  state: Type.Union([Type.Literal("sealed"), Type.Literal("lost"), Type.Literal("deleting")]),
  verified: Verification,
  groupPoint: Type.Optional(
    Type.Unsafe<string>({ ...PointId, description: "Committed together with others: the id all of them share" }),
  ),
  holds: Type.Array(Hold),
});
export type MigratedPoint = Static<typeof MigratedPoint>;

export const MigratedVolumeView = Type.Object({
  name: Name,
  source: Name,
  sourceClusterUid: Uid,
  sourceClusterName: Type.String(),
  sourceVolumeUid: Uid,
  sourceVolumeName: Name,
  metadata: Metadata,
  sizeBytes: Bytes,
  home: Uid,
  state: Type.Union([
    Type.Literal("Empty", { description: "No point has been committed yet" }),
    Type.Literal("Available"),
    Type.Literal("Frozen", { description: "A transfer runs; the newest point is closed for new clones" }),
    Type.Literal("Undecided", {
      description: "Frozen, with a vote to commit whose group home does not answer, or has not decided in time",
    }),
  ]),
  /** The group it was last migrated with, and the agent that decides for it. */
  group: Type.Optional(Type.Object({ name: Name, home: Uid })),
  diverged: Type.Boolean({ description: "The newest point here was unknown to the source at the last job" }),
  transfer: nullable(
    Type.Object({
      job: Type.String(),
      epoch: Count,
      since: Time,
      to: PointRef,
      bytesTotal: Bytes,
      bytesStored: Bytes,
    }),
  ),
  points: Type.Array(MigratedPoint, { description: "Oldest first; the last is the newest point in time" }),
  waitingClones: Count,
  revision: Revision,
});
export type MigratedVolumeView = Static<typeof MigratedVolumeView>;

/** What was committed together: one point of each volume. */
export const GroupPoint = Type.Object({
  groupPoint: PointId,
  job: Type.String(),
  epoch: Count,
  committedAt: Time,
  members: Type.Array(
    Type.Object({
      volume: Type.Unsafe<string>({ ...Uid, description: "UID of the source's volume" }),
      home: Type.Unsafe<string>({ ...Uid, description: "The agent that has its copy" }),
      toId: PointId,
    }),
  ),
});
export type GroupPoint = Static<typeof GroupPoint>;

export const GroupView = Type.Object({
  name: Name,
  source: nullable(Name),
  sourceClusterUid: Uid,
  home: Type.Unsafe<string>({ ...Uid, description: "The agent that decides for it; only it lists the group" }),
  state: Type.Union([
    Type.Literal("Idle"),
    Type.Literal("Deciding", { description: "A job holds its term; it may commit the next group point" }),
  ]),
  epoch: Count,
  job: Type.String({ description: "The last one that was granted a term" }),
  points: Type.Array(GroupPoint, { description: "Oldest first; the newest ones" }),
  revision: Revision,
});
export type GroupView = Static<typeof GroupView>;

export const CloneSpec = Type.Object(
  {
    migratedVolume: Name,
    /** A point's id, or the id of a group point that one of its points is a part of. */
    point: Type.Union([Type.Literal("latest"), PointId]),
    sizeBytes: Type.Optional(SizeBytes),
    metadata: Type.Optional(Metadata),
    expires: Type.Optional(
      Type.Boolean({
        description:
          "Removed with its volume when nobody has asked for it since it was served, for 15 minutes, nor uses it. Once whoever asked was told that it is ready, it stays",
      }),
    ),
  },
  strict,
);
export type CloneSpec = Static<typeof CloneSpec>;

export const CloneView = Type.Object({
  name: Name,
  spec: CloneSpec,
  state: Type.Union([
    Type.Literal("Waiting", {
      description: "Frozen or empty now; the commit serves it. Dropped when not asked for in 15 minutes",
    }),
    Type.Literal("Ready"),
  ]),
  pointId: nullable(PointId),
  sourceTime: nullable(Time),
  volume: nullable(Name),
  path: nullable(Type.String()),
  sizeBytes: nullable(Bytes),
  bytesTotal: nullable(Bytes),
  bytesStored: nullable(Bytes),
  requestedAt: Time,
  servedAt: nullable(Time),
  revision: Revision,
});
export type CloneView = Static<typeof CloneView>;

// ---- lists and changes ---------------------------------------------------------------------------------------------

export const listOf = <T extends TSchema>(item: T) =>
  Type.Object({
    items: Type.Array(item),
    sequence: Type.Integer({ description: "Pass to /v1/changes to go on from here" }),
  });
export interface List<T> {
  readonly items: readonly T[];
  readonly sequence: number;
}

export const ChangeKind = Type.Union([
  Type.Literal("volume"),
  Type.Literal("location"),
  Type.Literal("job"),
  Type.Literal("source"),
  Type.Literal("migratedVolume"),
  Type.Literal("clone"),
  Type.Literal("resync", { description: "Changes were missed; list everything again" }),
]);
export const Change = Type.Object({ sequence: Type.Integer(), kind: ChangeKind, name: Type.String() });
export type Change = Static<typeof Change>;
