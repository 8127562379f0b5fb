// The target of migrations in memory, for the edge between clusters: terms are granted and enforced, bytes are believed.
import { LongshoreError } from "../../src/domain/errors.ts";
import type {
  Claim,
  CommitRecord,
  CommitRequest,
  DecidedPoint,
  FreezeOptions,
  FreezeResult,
  Grant,
  GroupClaim,
  GroupCommitRecord,
  GroupCommitRequest,
  GroupGrant,
  GroupReport,
  GroupTarget,
  Hello,
  Homes,
  LaneRequest,
  LaneTicket,
  LocateRequest,
  PeerApi,
  PeerTarget,
  PlanExtras,
  PlanHeader,
  PlanPage,
  PlanResult,
  PrepareRequest,
  Report,
  StoreRequest,
  StoreResult,
  Term,
} from "../../src/wire/peer.ts";

interface FakeVolume {
  term: Term | undefined;
  claimant: string;
  epoch: number;
  plan: PlanHeader | undefined;
  stored: Set<number>;
  commits: CommitRecord[];
  prepared: { groupPoint: string; epoch: number } | undefined;
}

interface FakeGroup {
  readonly term: Term;
  readonly claimant: string;
  readonly job: string;
  isTermLive: boolean;
  readonly commits: GroupCommitRecord[];
}

const time = "2026-01-01T00:00:00.000Z";

export class FakePeer implements PeerApi {
  readonly volumes = new Map<string, FakeVolume>();
  readonly groups = new Map<string, FakeGroup>();
  /** How each freeze was asked for. */
  readonly freezes: FreezeOptions[] = [];
  readonly joined: { volume: string; decided: DecidedPoint }[] = [];
  readonly #hello: Hello;

  constructor(hello: Partial<Hello>) {
    this.#hello = { clusterUid: "uid", clusterName: "fake", agentId: "agent-1", members: [], freeBytes: 1, ...hello };
  }

  async hello(): Promise<Hello> {
    return this.#hello;
  }

  async claim(claim: Claim): Promise<Grant> {
    const fresh = {
      term: undefined,
      claimant: claim.claimant,
      epoch: 0,
      plan: undefined,
      stored: new Set<number>(),
      commits: [],
      prepared: undefined,
    };
    const volume = this.volumes.get(claim.volume) ?? fresh;
    if (volume.term && volume.claimant !== claim.claimant)
      throw new LongshoreError("LeaseHeld", "another holds the term");
    volume.epoch = Math.max(volume.epoch, claim.offeredEpoch) + 1;
    volume.term = { epoch: volume.epoch, nonce: claim.nonce };
    this.volumes.set(claim.volume, volume);
    return { term: volume.term, leaseMs: 30_000, report: this.#report(volume) };
  }

  async report(volume: string): Promise<Report | undefined> {
    const known = this.volumes.get(volume);
    return known && this.#report(known);
  }

  async renew(target: PeerTarget): Promise<void> {
    this.#under(target);
  }

  async putPlan(target: PeerTarget, header: PlanHeader, { freezes }: PlanExtras = {}): Promise<PlanResult> {
    this.#under(target).plan = header;
    return { frozen: freezes ? await this.freeze(target) : null };
  }

  async putPlanPage(target: PeerTarget, _page: PlanPage, { freezes }: PlanExtras = {}): Promise<PlanResult> {
    this.#under(target);
    return { frozen: freezes ? await this.freeze(target) : null };
  }

  async freeze(target: PeerTarget, options: FreezeOptions = {}): Promise<FreezeResult> {
    this.freezes.push(options);
    return { stored: [...this.#under(target).stored].map((index): [number, number] => [index, index]) };
  }

  async laneTicket(target: PeerTarget, { lane }: LaneRequest): Promise<LaneTicket> {
    this.#under(target);
    return { ticket: lane.toString(16).padStart(64, "0"), laneAddress: "127.0.0.1:7421" };
  }

  async store(target: PeerTarget, request: StoreRequest): Promise<StoreResult> {
    const volume = this.#under(target);
    const stored = request.units.map((unit) => unit.index);
    for (const index of stored) volume.stored.add(index);
    return { stored, damaged: [], verified: "memory" };
  }

  async commit(target: PeerTarget, request: CommitRequest): Promise<CommitRecord> {
    const volume = this.#under(target);
    if (volume.plan?.planDigest !== request.planDigest) throw new LongshoreError("PlanMismatch", "another plan");
    const record = { job: volume.plan.job, epoch: target.term.epoch, ...request, committedAt: time };
    volume.commits.push(record);
    if (request.releases) volume.term = undefined;
    return record;
  }

  async abort(target: PeerTarget): Promise<void> {
    this.#under(target).term = undefined;
  }

  async release(target: PeerTarget): Promise<void> {
    this.#under(target).term = undefined;
  }

  // ---- groups: the term is the group's, a vote is believed ----

  async locate({ volumes, group }: LocateRequest): Promise<Homes> {
    const { clusterUid, agentId, members } = this.#hello;
    const homes = volumes.map(({ volume }) => ({ volume, agentId }));
    return { clusterUid, homes, groupHome: group === undefined ? null : agentId, members };
  }

  async claimGroup(claim: GroupClaim): Promise<GroupGrant> {
    const known = this.groups.get(claim.group);
    if (known?.isTermLive && known.claimant !== claim.claimant)
      throw new LongshoreError("LeaseHeld", "another holds the term");
    const epoch = Math.max(known?.term.epoch ?? 0, claim.offeredEpoch) + 1;
    const { job, claimant, nonce } = claim;
    const group = { term: { epoch, nonce }, claimant, job, isTermLive: true, commits: known?.commits ?? [] };
    this.groups.set(claim.group, group);
    return { term: group.term, leaseMs: 30_000, report: this.#groupReport(group) };
  }

  async reportGroup(group: string): Promise<GroupReport | undefined> {
    const known = this.groups.get(group);
    return known && this.#groupReport(known);
  }

  async renewGroup(target: GroupTarget): Promise<void> {
    this.#underGroup(target);
  }

  async prepare(target: PeerTarget, { groupPoint, planDigest }: PrepareRequest): Promise<void> {
    const volume = this.#under(target);
    if (volume.plan?.planDigest !== planDigest) throw new LongshoreError("PlanMismatch", "another plan");
    volume.prepared = { groupPoint, epoch: target.term.epoch };
  }

  async commitGroup(target: GroupTarget, request: GroupCommitRequest): Promise<GroupCommitRecord> {
    const group = this.#underGroup(target);
    const record = { job: group.job, epoch: target.term.epoch, ...request, committedAt: time };
    group.commits.push(record);
    return record;
  }

  async abortGroup(target: GroupTarget): Promise<void> {
    this.#underGroup(target).isTermLive = false;
  }

  async releaseGroup(target: GroupTarget): Promise<void> {
    this.#underGroup(target).isTermLive = false;
  }

  async settle(volume: string): Promise<Report | undefined> {
    const known = this.volumes.get(volume);
    const isDecided = [...this.groups.values()].some(({ commits }) =>
      commits.some(({ groupPoint }) => groupPoint === known?.prepared?.groupPoint),
    );
    if (known !== undefined && isDecided) known.prepared = undefined;
    return this.report(volume);
  }

  async joinGroupPoint(volume: string, decided: DecidedPoint): Promise<void> {
    this.joined.push({ volume, decided });
  }

  #underGroup({ group, term }: GroupTarget): FakeGroup {
    const known = this.groups.get(group);
    if (!known?.isTermLive || known.term.epoch !== term.epoch || known.term.nonce !== term.nonce)
      throw new LongshoreError("TermLost", `epoch ${term.epoch} is not the term of ${group}`);
    return known;
  }

  #groupReport({ term, job, isTermLive, commits }: FakeGroup): GroupReport {
    return { agentId: this.#hello.agentId, epoch: term.epoch, job, isTermLive, commits };
  }

  #under({ volume, term }: PeerTarget): FakeVolume {
    const known = this.volumes.get(volume);
    if (known?.term?.epoch !== term.epoch || known.term.nonce !== term.nonce)
      throw new LongshoreError("TermLost", `epoch ${term.epoch} is not the term of ${volume}`);
    return known;
  }

  #report({ commits, term, prepared }: FakeVolume): Report {
    const known = {
      agentId: "agent-1",
      barrier: "None",
      points: [],
      staging: null,
      commits,
      generationMax: 0,
    } as const;
    return { ...known, points: [], epoch: term?.epoch ?? 0, ...(prepared && { prepared }) };
  }
}
