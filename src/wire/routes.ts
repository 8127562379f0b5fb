// Every request of the agent's API in one table: its path, its schemas, who may make it. The server registers what the
// table says, the clients call by it, and the OpenAPI document is made of it, so the three cannot disagree.
import { type Static, type TSchema, Type } from "typebox";
import * as member from "./member.ts";
import * as peer from "./peer.ts";
import {
  AgentView,
  Change,
  CloneSpec,
  CloneView,
  ExtentPage,
  GroupSnapshotSpec,
  GroupSnapshotView,
  GroupView,
  JobSpec,
  JobView,
  Lineage,
  LocationSpec,
  LocationView,
  listOf,
  MigratedVolumeView,
  Name,
  SnapshotSpec,
  SnapshotView,
  SourceSpec,
  SourceView,
  Uid,
  VolumeSpec,
  VolumeView,
} from "./schemas.ts";

/** What a role may be allowed to use; see src/agent/admission.ts for who may. */
export type RouteGroup =
  | "agent"
  | "members"
  | "volumes"
  | "locations"
  | "jobs"
  | "sources"
  | "migratedVolumes"
  | "clones"
  | "changes"
  | "member"
  | "peer";

export interface Route {
  readonly method: "GET" | "PUT" | "POST" | "DELETE";
  /** With `:name` for parameters. */
  readonly path: string;
  readonly group: RouteGroup;
  readonly summary: string;
  readonly params?: TSchema;
  readonly query?: TSchema;
  readonly body?: TSchema;
  /** The body of a successful answer; none: 204. */
  readonly response?: TSchema;
  /** Whether a change may be made to depend on the revision, by `If-Match`. */
  readonly conditional?: true;
  /** The answer is a stream of server-sent events whose data is this. */
  readonly events?: TSchema;
  /** How long a caller waits for the answer, in milliseconds; half a minute unless said. */
  readonly timeoutMs?: number;
  /** Largest body taken, in bytes; {@link bodyBytesMax} unless said. */
  readonly bodyBytesMax?: number;
  /**
   * Optional fields of the body that agents of earlier versions refuse, under the name by which an agent says that it
   * understands them (understood.ts): paths with dots, `*` for every item of a list. A client leaves out what the other side
   * does not understand, so each must be one that may be missing.
   */
  readonly newer?: Readonly<Record<string, readonly string[]>>;
}

/**
 * Header of a request that is meant for one agent and no other: its id. Agents are addressed by host and port, and an
 * agent that is new on a node answers where the former one did; what that one has durably said it cannot say.
 */
export const agentHeader = "x-longshore-agent";

export const bodyBytesMax = 1 << 20;
export const planPageBytesMax = 16 << 20;
/** For what copies or compares whole images on backends that cannot share blocks. */
const copyingMs = 30 * 60_000;

const strict = { additionalProperties: false } as const;
const named = Type.Object({ name: Name }, strict);
const snapshotOf = Type.Object({ volume: Name, name: Name }, strict);
const holdOf = Type.Object(
  { volume: Name, name: Name, owner: Type.String({ minLength: 1, maxLength: 253, description: "Percent-encoded" }) },
  strict,
);
const flag = Type.Union([Type.Literal("true"), Type.Literal("false")]);
const byteText = Type.String({ pattern: "^\\d{1,16}$", description: "The byte to begin at" });
const extentCountText = Type.String({ pattern: "^[1-9]\\d{0,3}$", description: "How many at most, up to 4096" });
const sequenceText = Type.String({ pattern: "^\\d{1,15}$", description: "The sequence of a list" });

export const agentRoutes = {
  describe: {
    method: "GET",
    path: "/v1/agent",
    group: "agent",
    summary: "The agent and its cluster",
    response: AgentView,
  },
  forgetMember: {
    method: "DELETE",
    path: "/v1/members/:agentId",
    group: "members",
    summary: "Say that an agent and its data will not come back",
    params: Type.Object({ agentId: Uid }, strict),
  },

  listVolumes: {
    method: "GET",
    path: "/v1/volumes",
    group: "volumes",
    summary: "All volumes with their snapshots, holds and bases",
    response: listOf(VolumeView),
  },
  getVolume: {
    method: "GET",
    path: "/v1/volumes/:name",
    group: "volumes",
    summary: "One volume",
    params: named,
    response: VolumeView,
  },
  putVolume: {
    method: "PUT",
    path: "/v1/volumes/:name",
    group: "volumes",
    summary: "Make, clone or grow a volume, set its metadata and whether it migrates",
    params: named,
    body: VolumeSpec,
    response: VolumeView,
    conditional: true,
  },
  removeVolume: {
    method: "DELETE",
    path: "/v1/volumes/:name",
    group: "volumes",
    summary: "Delete a volume with its snapshots and holds",
    params: named,
    conditional: true,
  },
  putSnapshot: {
    method: "PUT",
    path: "/v1/volumes/:volume/snapshots/:name",
    group: "volumes",
    summary: "Take a snapshot; the same name is the same snapshot",
    params: snapshotOf,
    body: SnapshotSpec,
    response: SnapshotView,
    timeoutMs: copyingMs,
  },
  putGroupSnapshot: {
    method: "PUT",
    path: "/v1/groups/:group/snapshots/:name",
    group: "volumes",
    summary: "Snapshot volumes of this cluster at one moment; the same name is the same group snapshot",
    params: Type.Object({ group: Name, name: Name }, strict),
    body: GroupSnapshotSpec,
    response: GroupSnapshotView,
    timeoutMs: 5 * 60_000,
  },
  removeSnapshot: {
    method: "DELETE",
    path: "/v1/volumes/:volume/snapshots/:name",
    group: "volumes",
    summary: "Release a snapshot; it goes with its last hold",
    params: snapshotOf,
    response: SnapshotView,
  },
  listExtents: {
    method: "GET",
    path: "/v1/volumes/:volume/snapshots/:name/extents",
    group: "volumes",
    summary: "What is allocated in a sealed snapshot, or may differ from an older one, in pages",
    params: snapshotOf,
    query: Type.Object(
      {
        base: Type.Optional(Type.Unsafe<string>({ ...Name, description: "An older snapshot of the same volume" })),
        from: Type.Optional(byteText),
        max: Type.Optional(extentCountText),
      },
      strict,
    ),
    response: ExtentPage,
    timeoutMs: copyingMs,
  },
  putHold: {
    method: "PUT",
    path: "/v1/volumes/:volume/snapshots/:name/holds/:owner",
    group: "volumes",
    summary: "Keep a snapshot for a reason of the user's",
    params: holdOf,
    body: SnapshotSpec,
    response: SnapshotView,
  },
  removeHold: {
    method: "DELETE",
    path: "/v1/volumes/:volume/snapshots/:name/holds/:owner",
    group: "volumes",
    summary: "Drop a user's hold, or knowingly the base hold of a location",
    params: holdOf,
    query: Type.Object({ reason: Type.Optional(Type.Union([Type.Literal("user"), Type.Literal("base")])) }, strict),
  },

  listLocations: {
    method: "GET",
    path: "/v1/locations",
    group: "locations",
    summary: "All migration locations and what their probes found",
    response: listOf(LocationView),
  },
  getLocation: {
    method: "GET",
    path: "/v1/locations/:name",
    group: "locations",
    summary: "One migration location",
    params: named,
    response: LocationView,
  },
  putLocation: {
    method: "PUT",
    path: "/v1/locations/:name",
    group: "locations",
    summary: "Set a migration location, and probe it",
    params: named,
    body: LocationSpec,
    response: LocationView,
    conditional: true,
  },
  removeLocation: {
    method: "DELETE",
    path: "/v1/locations/:name",
    group: "locations",
    summary: "Remove a migration location",
    params: named,
    query: Type.Object({ force: Type.Optional(flag) }, strict),
    conditional: true,
  },

  listJobs: {
    method: "GET",
    path: "/v1/jobs",
    group: "jobs",
    summary: "All jobs, finished ones included while they are remembered",
    response: listOf(JobView),
  },
  getJob: {
    method: "GET",
    path: "/v1/jobs/:name",
    group: "jobs",
    summary: "One job",
    params: named,
    response: JobView,
  },
  putJob: {
    method: "PUT",
    path: "/v1/jobs/:name",
    group: "jobs",
    summary: "Start a job, suspend, resume or cancel it",
    params: named,
    body: JobSpec,
    response: JobView,
    conditional: true,
  },
  removeJob: {
    method: "DELETE",
    path: "/v1/jobs/:name",
    group: "jobs",
    summary: "Forget a finished job",
    params: named,
  },
  followJob: {
    method: "GET",
    path: "/v1/jobs/:name/events",
    group: "jobs",
    summary: "The job now and at every change, until it has finished",
    params: named,
    events: JobView,
  },

  listSources: {
    method: "GET",
    path: "/v1/sources",
    group: "sources",
    summary: "Whose volumes are taken",
    response: listOf(SourceView),
  },
  getSource: {
    method: "GET",
    path: "/v1/sources/:name",
    group: "sources",
    summary: "One consent",
    params: named,
    response: SourceView,
  },
  putSource: {
    method: "PUT",
    path: "/v1/sources/:name",
    group: "sources",
    summary: "Consent to take a cluster's volumes",
    params: named,
    body: SourceSpec,
    response: SourceView,
    conditional: true,
  },
  removeSource: {
    method: "DELETE",
    path: "/v1/sources/:name",
    group: "sources",
    summary: "Withdraw consent; what has arrived stays",
    params: named,
    conditional: true,
  },

  listMigratedVolumes: {
    method: "GET",
    path: "/v1/migrated-volumes",
    group: "migratedVolumes",
    summary: "All that arrived here",
    response: listOf(MigratedVolumeView),
  },
  getMigratedVolume: {
    method: "GET",
    path: "/v1/migrated-volumes/:name",
    group: "migratedVolumes",
    summary: "One migrated volume and its points in time",
    params: named,
    response: MigratedVolumeView,
  },
  removeMigratedVolume: {
    method: "DELETE",
    path: "/v1/migrated-volumes/:name",
    group: "migratedVolumes",
    summary: "Delete the copy and its points; clones live on",
    params: named,
    conditional: true,
  },

  listGroups: {
    method: "GET",
    path: "/v1/migrated-groups",
    group: "migratedVolumes",
    summary: "The groups that arrived here and have their home on this agent",
    response: listOf(GroupView),
  },
  getGroup: {
    method: "GET",
    path: "/v1/migrated-groups/:name",
    group: "migratedVolumes",
    summary: "One group and what was committed of it together",
    params: named,
    query: Type.Object({ clusterUid: Type.Optional(Uid) }, strict),
    response: GroupView,
  },

  listClones: {
    method: "GET",
    path: "/v1/clones",
    group: "clones",
    summary: "All clones and waiting requests",
    response: listOf(CloneView),
  },
  getClone: {
    method: "GET",
    path: "/v1/clones/:name",
    group: "clones",
    summary: "One clone",
    params: named,
    response: CloneView,
  },
  putClone: {
    method: "PUT",
    path: "/v1/clones/:name",
    group: "clones",
    summary: "Ask for a clone of a point in time; it may have to wait",
    params: named,
    body: CloneSpec,
    response: CloneView,
    timeoutMs: copyingMs,
  },
  removeClone: {
    method: "DELETE",
    path: "/v1/clones/:name",
    group: "clones",
    summary: "Delete a clone and its volume, or withdraw the request",
    params: named,
  },

  changes: {
    method: "GET",
    path: "/v1/changes",
    group: "changes",
    summary: "What changes after `since`, as it happens",
    query: Type.Object({ since: Type.Optional(sequenceText) }, strict),
    events: Change,
  },
} as const satisfies Record<string, Route>;

const volumeOf = Type.Object({ volume: Uid }, strict);
const groupOf = Type.Object({ group: Name }, strict);
const underTerm = <T extends Record<string, TSchema>>(fields: T) => Type.Object({ term: peer.Term, ...fields }, strict);
const nothing = Type.Object({}, strict);

const jobOf = Type.Object({ job: Name }, strict);
/** An order is answered after ten seconds at the latest; a freeze within its own timeout. */
const orderMs = 30_000;

/** Who does not answer so soon is not asked any longer; a foreign cluster's coordinator may be waiting for us. */
const memberMs = 5_000;

/** Understood by agents that never make a volume of a name that another agent has, even one that is away. */
export const nameClaims = "nameClaims";

/** Between the agents of one cluster. All safe to repeat. */
export const memberRoutes = {
  memberMeet: {
    method: "POST",
    path: "/v1/member/meet",
    group: "member",
    summary: "Who there is",
    body: member.Meeting,
    response: member.Meeting,
    timeoutMs: memberMs,
  },
  memberAcquaintance: {
    method: "GET",
    path: "/v1/member/acquaintance",
    group: "member",
    summary: "Whether this agent can know who else there is",
    response: member.Acquaintance,
    timeoutMs: memberMs,
  },
  memberClaimName: {
    method: "POST",
    path: "/v1/member/claim-name",
    group: "member",
    summary: "Have a name kept for a volume that is being made",
    body: member.NameClaim,
    // No field, but by it others know that an agent claims the names of the volumes that it makes.
    newer: { [nameClaims]: [] },
    response: member.NameClaimed,
    // It may have to ask another one.
    timeoutMs: 2 * memberMs,
  },
  memberVolumeNames: {
    method: "POST",
    path: "/v1/member/volume-names",
    group: "member",
    summary: "The names of the volumes here",
    body: member.VolumeNamesRequest,
    response: member.VolumeNames,
    timeoutMs: memberMs,
  },
  memberCopies: {
    method: "POST",
    path: "/v1/member/copies",
    group: "member",
    summary: "Which of these copies are here, or were placed from here",
    body: member.CopiesRequest,
    newer: { affinity: ["affinities"] },
    response: member.Copies,
    timeoutMs: memberMs,
  },
  memberPlace: {
    method: "POST",
    path: "/v1/member/place",
    group: "member",
    summary: "Choose homes for new copies",
    body: member.PlaceRequest,
    newer: { affinity: ["volumes.*.affinity"] },
    response: member.Copies,
    // It asks the others in turn.
    timeoutMs: 3 * memberMs,
  },
  memberDecision: {
    method: "POST",
    path: "/v1/member/decision",
    group: "member",
    summary: "What this group home has decided",
    body: member.DecisionQuery,
    response: member.Decision,
    timeoutMs: memberMs,
  },
  memberOutcome: {
    method: "POST",
    path: "/v1/member/outcome",
    group: "member",
    summary: "What this member knows of a group point",
    body: member.OutcomeQuery,
    response: member.MemberOutcome,
    timeoutMs: memberMs,
  },
  memberHoldings: {
    method: "POST",
    path: "/v1/member/holdings",
    group: "member",
    summary: "Which of these volumes have their home here",
    body: member.HoldingsRequest,
    response: member.Holdings,
  },
  memberFreeze: {
    method: "POST",
    path: "/v1/member/freeze",
    group: "member",
    summary: "Freeze volumes for a group snapshot",
    body: member.FreezeRequest,
    response: nothing,
    timeoutMs: copyingMs,
  },
  memberSnapshotFrozen: {
    method: "POST",
    path: "/v1/member/snapshot-frozen",
    group: "member",
    summary: "Snapshot what is frozen",
    body: member.GroupSnapshotPart,
    response: nothing,
    timeoutMs: copyingMs,
  },
  memberThaw: {
    method: "POST",
    path: "/v1/member/thaw",
    group: "member",
    summary: "Thaw, and tell whether it was frozen all the time",
    body: member.FrozenRef,
    response: member.Thawed,
  },
  memberConfirmGroup: {
    method: "POST",
    path: "/v1/member/confirm-group",
    group: "member",
    summary: "The snapshots of a group count from now on",
    body: member.GroupSnapshotPart,
    response: Type.Object({ snapshots: Type.Array(SnapshotView) }),
  },
  memberDiscardGroup: {
    method: "POST",
    path: "/v1/member/discard-group",
    group: "member",
    summary: "Drop the snapshots of a group that do not count",
    body: member.GroupSnapshotPart,
    response: nothing,
  },
  memberTakeShare: {
    method: "PUT",
    path: "/v1/member/jobs/:job",
    group: "member",
    summary: "Take part in a group's job",
    params: jobOf,
    body: member.ShareSpec,
    response: member.ShareReport,
  },
  memberShareReport: {
    method: "GET",
    path: "/v1/member/jobs/:job",
    group: "member",
    summary: "How far this participant is; null when it knows nothing of the job",
    params: jobOf,
    response: Type.Object({ report: Type.Union([member.ShareReport, Type.Null()]) }),
  },
  memberOrder: {
    method: "POST",
    path: "/v1/member/jobs/:job/order",
    group: "member",
    summary: "Bring a share to a step",
    params: jobOf,
    body: member.Order,
    response: member.ShareReport,
    timeoutMs: orderMs,
  },
  memberPauseShare: {
    method: "POST",
    path: "/v1/member/jobs/:job/pause",
    group: "member",
    summary: "Let go of the room that a group's job has, while its coordinator pauses",
    params: jobOf,
    body: underTerm({}),
    response: nothing,
    timeoutMs: memberMs,
  },
} as const satisfies Record<string, Route>;

/** Between clusters. All safe to repeat; all but `peerHello`, `peerClaim` and `peerReport` under the granted term. */
export const peerRoutes = {
  peerHello: { method: "GET", path: "/v1/peer/hello", group: "peer", summary: "Who is there", response: peer.Hello },
  peerReport: {
    method: "GET",
    path: "/v1/peer/volumes/:volume/report",
    group: "peer",
    summary: "What is durable here of a volume; null when nothing is known",
    params: volumeOf,
    // Of a clone: the point it was made of, all three or none.
    query: Type.Partial(Lineage, strict),
    // Wrapped, so that "nothing is known" cannot be mistaken for a 404 of something in between.
    response: Type.Object({ report: Type.Union([peer.Report, Type.Null()]) }),
  },
  peerClaim: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/claim",
    group: "peer",
    summary: "Ask for a term",
    params: volumeOf,
    body: peer.Claim,
    response: peer.Grant,
  },
  peerRenew: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/renew",
    group: "peer",
    summary: "Renew the lease",
    params: volumeOf,
    body: underTerm({}),
    response: nothing,
  },
  peerPutPlan: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/plan",
    group: "peer",
    summary: "Persist the plan's header, and its first page",
    params: volumeOf,
    body: underTerm({ header: peer.PlanHeader, ...peer.PlanExtras.properties }),
    response: peer.PlanResult,
    bodyBytesMax: planPageBytesMax,
    timeoutMs: copyingMs,
  },
  peerPutPlanPage: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/plan-page",
    group: "peer",
    summary: "Persist a page of the plan's units",
    params: volumeOf,
    body: underTerm({ page: peer.PlanPage, freezes: peer.PlanExtras.properties.freezes }),
    response: peer.PlanResult,
    bodyBytesMax: planPageBytesMax,
    timeoutMs: copyingMs,
  },
  peerFreeze: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/freeze",
    group: "peer",
    summary: "Close the newest point for new clones and open staging",
    params: volumeOf,
    body: underTerm(peer.FreezeOptions.properties),
    newer: { freezeInParts: ["inParts"] },
    response: peer.FreezeResult,
    timeoutMs: copyingMs,
  },
  peerLaneTicket: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/lane-ticket",
    group: "peer",
    summary: "A ticket for one lane",
    params: volumeOf,
    body: underTerm({ request: peer.LaneRequest }),
    response: peer.LaneTicket,
  },
  peerStore: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/store",
    group: "peer",
    summary: "Wait for units' bytes, sync, verify and record them",
    params: volumeOf,
    body: underTerm({ request: peer.StoreRequest }),
    response: peer.StoreResult,
    timeoutMs: 15 * 60_000,
  },
  peerCommit: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/commit",
    group: "peer",
    summary: "The decision",
    params: volumeOf,
    body: underTerm({ request: peer.CommitRequest }),
    response: peer.CommitRecord,
    timeoutMs: 5 * 60_000,
  },
  peerAbort: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/abort",
    group: "peer",
    summary: "Thaw at the previous point and end the term",
    params: volumeOf,
    body: underTerm({ discard: Type.Boolean() }),
    response: nothing,
  },
  peerRelease: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/release",
    group: "peer",
    summary: "End the term after the commit",
    params: volumeOf,
    body: underTerm({}),
    response: nothing,
  },
  peerLocate: {
    method: "POST",
    path: "/v1/peer/locate",
    group: "peer",
    summary: "Where copies are, or will be, and who decides for a group",
    body: peer.LocateRequest,
    newer: { affinity: ["volumes.*.affinity"] },
    response: peer.Homes,
  },
  peerPrepare: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/prepare",
    group: "peer",
    summary: "A member's vote to commit a group point",
    params: volumeOf,
    body: underTerm({ request: peer.PrepareRequest }),
    response: nothing,
    timeoutMs: 5 * 60_000,
  },
  peerSettle: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/settle",
    group: "peer",
    summary: "Have a member ask its group home, and do what was decided",
    params: volumeOf,
    response: Type.Object({ report: Type.Union([peer.Report, Type.Null()]) }),
  },
  peerJoinGroupPoint: {
    method: "POST",
    path: "/v1/peer/volumes/:volume/join-group-point",
    group: "peer",
    summary: "Have a member with a point of its own note that its group's decision names it",
    params: volumeOf,
    body: peer.DecidedPoint,
    response: nothing,
  },
  peerReportGroup: {
    method: "GET",
    path: "/v1/peer/groups/:group/report",
    group: "peer",
    summary: "What the group home durably knows; null when nothing is known",
    params: groupOf,
    response: Type.Object({ report: Type.Union([peer.GroupReport, Type.Null()]) }),
  },
  peerClaimGroup: {
    method: "POST",
    path: "/v1/peer/groups/:group/claim",
    group: "peer",
    summary: "Ask for a term of a group",
    params: groupOf,
    body: peer.GroupClaim,
    response: peer.GroupGrant,
  },
  peerRenewGroup: {
    method: "POST",
    path: "/v1/peer/groups/:group/renew",
    group: "peer",
    summary: "Renew the group's lease",
    params: groupOf,
    body: underTerm({}),
    response: nothing,
  },
  peerCommitGroup: {
    method: "POST",
    path: "/v1/peer/groups/:group/commit",
    group: "peer",
    summary: "The decision for all members",
    params: groupOf,
    body: underTerm({ request: peer.GroupCommitRequest }),
    response: peer.GroupCommitRecord,
  },
  peerAbortGroup: {
    method: "POST",
    path: "/v1/peer/groups/:group/abort",
    group: "peer",
    summary: "End the group's term without a commit",
    params: groupOf,
    body: underTerm({}),
    response: nothing,
  },
  peerReleaseGroup: {
    method: "POST",
    path: "/v1/peer/groups/:group/release",
    group: "peer",
    summary: "End the group's term after the commit",
    params: groupOf,
    body: underTerm({}),
    response: nothing,
  },
} as const satisfies Record<string, Route>;

type StaticOf<S> = S extends TSchema ? Static<S> : undefined;
type Field<R, K extends string> = K extends keyof R ? StaticOf<R[K]> : undefined;
/** The types of a route's parts; `undefined` for those it has not. */
export type ParamsOf<R extends Route> = Field<R, "params">;
export type QueryOf<R extends Route> = Field<R, "query">;
export type BodyOf<R extends Route> = Field<R, "body">;
export type ResponseOf<R extends Route> = Field<R, "response">;
export type EventOf<R extends Route> = Field<R, "events">;
