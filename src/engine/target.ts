// The target's side of a migration: the protocol of src/wire/peer.ts for one foreign cluster. Every change of a migrated
// volume happens under its lock and, but for the claim, in the granted term. Who may: terms.ts. What is staged: plans.ts
// and staging-area.ts. What counts: decisions.ts.
import { rangesOf } from "../domain/plan.ts";
import type { Precondition } from "../wire/agent-api.ts";
import type { MemberApi } from "../wire/member.ts";
import {
  type Claim,
  emptyReport,
  type Grant,
  type Hello,
  type PeerApi,
  type PeerGroupApi,
  type PeerTarget,
  type PlanHeader,
  type PlanPage,
  type PlanResult,
  type Report,
} from "../wire/peer.ts";
import type { Barrier, Lineage } from "../wire/schemas.ts";
import { understoodHere } from "../wire/understood.ts";
import type { Clones } from "./clones.ts";
import type { Core } from "./core.ts";
import { Decisions } from "./decisions.ts";
import type { Groups } from "./groups.ts";
import type { Homes } from "./homes.ts";
import { isTerm } from "./leases.ts";
import { originalPoint } from "./lineage.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey, type StagingRow } from "./migrated.ts";
import { headerOf, Plans } from "./plans.ts";
import { isPresent, pointRef, presentPoints } from "./points.ts";
import type { Caller, Sources } from "./sources.ts";
import { StagingArea } from "./staging-area.ts";
import { Terms } from "./terms.ts";
import { type Voters, Votes } from "./votes.ts";

interface Parts {
  readonly migrated: MigratedVolumes;
  readonly sources: Sources;
  readonly clones: Clones;
  readonly groups: Groups;
  readonly homes: Homes;
  readonly voters: Voters;
}

export class Target {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;
  private readonly sources: Sources;
  private readonly terms: Terms;
  private readonly plans: Plans;
  private readonly staging: StagingArea;
  private readonly decisions: Decisions;
  private readonly votes: Votes;
  private readonly groups: Groups;
  private readonly homes: Homes;
  /** Volumes whose term or staging is being ended; one that is busy must not keep the others from it. */
  private readonly expiring = new Set<string>();

  constructor(core: Core, parts: Parts) {
    this.core = core;
    this.homes = parts.homes;
    this.groups = parts.groups;
    this.migrated = parts.migrated;
    this.sources = parts.sources;
    this.terms = new Terms(core, parts);
    this.plans = new Plans(core, parts);
    this.staging = new StagingArea(core, { ...parts, plans: this.plans, terms: this.terms });
    const made = { ...parts, plans: this.plans, staging: this.staging, terms: this.terms };
    this.decisions = new Decisions(core, made);
    this.votes = new Votes(core, { ...made, decisions: this.decisions });
  }

  /** The protocol as one foreign cluster may use it: it sees its own volumes and nothing else. */
  for(caller: Caller): PeerApi {
    const { terms, plans, staging, decisions } = this;
    return {
      hello: () => this.hello(caller),
      ...this.groupApi(caller),
      claim: (claim) => this.claim(caller, claim),
      report: (volume, lineage) => this.reportOf(caller, volume, lineage),
      renew: async (target) => terms.renew(caller, target),
      putPlan: async (target, header, { page, freezes } = {}) => {
        await terms.inTerm(caller, target, (row) => this.putPlan(row, header, page));
        return this.planResult(caller, target, freezes);
      },
      putPlanPage: async (target, page, { freezes } = {}) => {
        await terms.inTerm(caller, target, async (row) => plans.putPage(row, page));
        return this.planResult(caller, target, freezes);
      },
      freeze: async (target, { inParts = false } = {}) =>
        (await staging.freeze(caller, target, { isPatient: !inParts })) ?? { stored: [], isChecking: true },
      laneTicket: (target, request) => terms.inTerm(caller, target, async (row) => staging.laneTicket(row, request)),
      store: (target, request) => staging.store(caller, target, request),
      commit: (target, request) => decisions.commit(caller, target, request),
      abort: (target, options) => this.settled(caller, target, () => decisions.abort(caller, target, options)),
      release: (target) => this.settled(caller, target, () => decisions.release(caller, target)),
    };
  }

  /** See AgentApi.removeMigratedVolume. */
  remove(name: string, precondition: Precondition): Promise<void> {
    return this.migrated.remove(name, precondition, (row, staging) => this.staging.drop(row, staging));
  }

  /** What the other agents of this cluster may ask of a member of a group. */
  memberOutcome(query: Parameters<MemberApi["memberOutcome"]>[0]): ReturnType<Votes["outcome"]> {
    return this.votes.outcome(query);
  }

  /** Ends terms whose coordinator is silent past its lease, thaws, and drops staging nobody goes on with. */
  expire(): void {
    this.terms.forgetEnded();
    this.votes.settleOverdue();
    for (const row of this.migrated.inTerm()) {
      if (this.terms.isAlive(row.uid) || this.migrated.vote(row.uid) !== undefined) continue;
      this.expireOne(row, () => this.decisions.takeAway(row));
    }
    for (const { row, staging } of this.migrated.staged()) {
      if (row.isTermLive === 0 && this.staging.isOld(staging)) this.expireOne(row, () => this.staging.dropOld(row));
    }
  }

  close(): Promise<void> {
    return this.staging.close();
  }

  private groupApi(caller: Caller): PeerGroupApi {
    const { groups, votes } = this;
    return {
      locate: async (request) => {
        this.sources.seen(caller);
        return this.homes.locate(caller.clusterUid, request);
      },
      claimGroup: async (claim) => {
        this.core.members.checkPresent();
        return groups.claim(caller, claim);
      },
      reportGroup: async (group) => groups.report(caller, group),
      renewGroup: async (target) => groups.renew(caller, target),
      prepare: async (target, request) => votes.prepare(caller, target, request),
      commitGroup: async (target, request) => {
        // Once it is forgotten its members decide without it.
        this.core.members.checkPresent();
        return groups.commit(caller, target, request);
      },
      abortGroup: async (target) => groups.abort(caller, target),
      releaseGroup: async (target) => groups.release(caller, target),
      settle: async (volume) => {
        this.sources.seen(caller);
        const row = this.migrated.bySource(caller.clusterUid, volume);
        if (row !== undefined) await votes.settle(row.uid);
        return this.reportOf(caller, volume);
      },
      joinGroupPoint: async (volume, decided) => {
        this.sources.seen(caller);
        const row = this.migrated.bySource(caller.clusterUid, volume);
        if (row !== undefined) await votes.join(row, decided);
      },
    };
  }

  private putPlan(row: MigratedRow, header: PlanHeader, page?: PlanPage): Promise<void> {
    this.votes.checkPlan(row, header);
    const drop = async (old: StagingRow) => {
      this.votes.annul(row);
      await this.staging.drop(row, old);
    };
    return this.plans.put(row, { header, page }, drop);
  }

  private async planResult(caller: Caller, target: PeerTarget, freezes = false): Promise<PlanResult> {
    const frozen = freezes ? await this.staging.freeze(caller, target, { isPatient: false }) : undefined;
    return { frozen: frozen ?? null };
  }

  /** A coordinator that ends its term may be ahead of a vote: what was decided is done first, and the term is left to it. */
  private async settled<T>(caller: Caller, { volume, term }: PeerTarget, work: () => Promise<T>): Promise<T> {
    this.sources.seen(caller);
    const row = this.migrated.bySource(caller.clusterUid, volume);
    if (row !== undefined && isTerm(row, term)) await this.votes.settle(row.uid, term);
    return work();
  }

  private expireOne({ uid, name }: MigratedRow, work: () => Promise<void>): void {
    if (this.expiring.has(uid)) return;
    this.expiring.add(uid);
    this.core.tasks.spawn(`expire ${name}`, () => work().finally(() => this.expiring.delete(uid)));
  }

  private async hello(caller: Caller): Promise<Hello> {
    this.sources.seen(caller);
    const { cluster, agentId, members, storage } = this.core;
    const { freeBytes } = await storage.space();
    return {
      clusterUid: cluster.uid,
      clusterName: cluster.name,
      agentId,
      members: members.all(),
      freeBytes,
      understands: understoodHere(),
    };
  }

  private async claim(caller: Caller, claim: Claim): Promise<Grant> {
    this.core.members.checkPresent();
    const key = migratedLockKey({ clusterUid: caller.clusterUid, volumeUid: claim.volume });
    return this.core.lock.run(key, async () => {
      const before = this.migrated.bySource(caller.clusterUid, claim.volume);
      // Whoever comes next, it helps to know what became of the last group point.
      if (before !== undefined && this.migrated.vote(before.uid) !== undefined) this.votes.settleSoon(before);
      const row = await this.terms.claim(caller, claim, (uid) => this.staging.endSession(uid));
      this.staging.expect(row);
      // Another job's freeze ended here without an abort of its own.
      if (before?.frozenSince != null && row.frozenSince === null) this.decisions.thawed(row.uid);
      else this.migrated.published(row.uid);
      return {
        term: { epoch: row.epoch, nonce: row.nonce },
        leaseMs: this.core.limits.leaseMs,
        report: { ...(await this.report(row)), ...(await this.lineage(claim.lineage)) },
      };
    });
  }

  private async reportOf(caller: Caller, volume: string, claimed?: Lineage): Promise<Report | undefined> {
    this.sources.seen(caller);
    return this.core.lock.run(migratedLockKey({ clusterUid: caller.clusterUid, volumeUid: volume }), async () => {
      const row = this.migrated.bySource(caller.clusterUid, volume);
      const known = row === undefined || row.deleting === 1 ? undefined : await this.report(row);
      const { lineage } = await this.lineage(claimed);
      if (known === undefined) return lineage ? { ...emptyReport, agentId: this.core.agentId, lineage } : undefined;
      return { ...known, ...(lineage !== undefined && { lineage }) };
    });
  }

  private async report(row: MigratedRow): Promise<Report> {
    const points = (await presentPoints(this.core, row.uid)).filter((point) => point.released === 0);
    const staging = this.migrated.staging(row.uid);
    const vote = this.migrated.vote(row.uid);
    return {
      agentId: this.core.agentId,
      barrier: this.barrier(row, staging),
      points: points.map(pointRef),
      staging:
        staging === undefined
          ? null
          : {
              baseId: staging.baseId,
              toId: staging.toId,
              planDigest: staging.planDigest,
              stored: rangesOf(this.migrated.storedIndexes(row.uid)),
            },
      commits: this.decisions.commits(row.uid),
      generationMax: row.generationMax,
      epoch: row.epoch,
      ...(row.groupName !== null && row.groupHome !== null && { group: { name: row.groupName, home: row.groupHome } }),
      ...(vote !== undefined && { prepared: { groupPoint: vote.groupPoint, epoch: vote.epoch } }),
    };
  }

  /** Whether the point that a clone was made of is here, if it is one of ours at all. */
  private async lineage(lineage: Lineage | undefined): Promise<Pick<Report, "lineage">> {
    if (lineage?.clusterUid !== this.core.cluster.uid) return {};
    const point = originalPoint(this.core, lineage);
    return { lineage: point !== undefined && (await isPresent(this.core, point)) ? pointRef(point) : null };
  }

  private barrier(row: MigratedRow, staging: StagingRow | undefined): Barrier {
    if (staging === undefined) return row.isTermLive === 1 ? "Joined" : "None";
    if (row.frozenSince === null) return "Joined";
    return this.migrated.storedUnits(row.uid) === headerOf(staging).unitCount ? "Stored" : "Frozen";
  }
}
