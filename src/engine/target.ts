// The target's side of a migration: the protocol of src/wire/peer.ts for one foreign cluster. Every change of a migrated
// volume happens under its lock and, but for the claim, in the granted term. Who may: terms.ts. What is staged: plans.ts
// and staging-area.ts. What counts: decisions.ts.
import { rangesOf } from "../domain/plan.ts";
import type { Claim, Grant, Hello, PeerApi, Report } from "../wire/peer.ts";
import type { Barrier } from "../wire/schemas.ts";
import type { Clones } from "./clones.ts";
import type { Core } from "./core.ts";
import { Decisions } from "./decisions.ts";
import type { Homes } from "./homes.ts";
import { type MigratedRow, type MigratedVolumes, migratedLockKey, type StagingRow } from "./migrated.ts";
import { headerOf, Plans } from "./plans.ts";
import { pointRef, presentPoints } from "./points.ts";
import type { Caller, Sources } from "./sources.ts";
import { StagingArea } from "./staging-area.ts";
import { Terms } from "./terms.ts";

export class Target {
  private readonly core: Core;
  private readonly migrated: MigratedVolumes;
  private readonly sources: Sources;
  private readonly terms: Terms;
  private readonly plans: Plans;
  private readonly staging: StagingArea;
  private readonly decisions: Decisions;
  private readonly homes: Homes;
  /** Volumes whose term or staging is being ended; one that is busy must not keep the others from it. */
  private readonly expiring = new Set<string>();

  constructor(core: Core, parts: { migrated: MigratedVolumes; sources: Sources; clones: Clones; homes: Homes }) {
    this.core = core;
    this.homes = parts.homes;
    this.migrated = parts.migrated;
    this.sources = parts.sources;
    this.terms = new Terms(core, parts);
    this.plans = new Plans(core, parts);
    this.staging = new StagingArea(core, { ...parts, plans: this.plans, terms: this.terms });
    this.decisions = new Decisions(core, {
      ...parts,
      plans: this.plans,
      staging: this.staging,
      terms: this.terms,
    });
  }

  /** The protocol as one foreign cluster may use it: it sees its own volumes and nothing else. */
  for(caller: Caller): PeerApi {
    const { terms, plans, staging, decisions } = this;
    return {
      hello: () => this.hello(caller),
      locate: async (request) => {
        this.sources.seen(caller);
        return this.homes.locate(caller.clusterUid, request);
      },
      claim: (claim) => this.claim(caller, claim),
      report: (volume) => this.reportOf(caller, volume),
      renew: (target) => terms.inTerm(caller, target, async () => undefined),
      putPlan: (target, header) =>
        terms.inTerm(caller, target, (row) => plans.put(row, header, (old) => staging.drop(row, old))),
      putPlanPage: (target, page) => terms.inTerm(caller, target, async (row) => plans.putPage(row, page)),
      freeze: (target) => terms.inTerm(caller, target, (row) => staging.freeze(row)),
      laneTicket: (target, lane) => terms.inTerm(caller, target, async (row) => staging.laneTicket(row, lane)),
      store: (target, request) => staging.store(caller, target, request),
      commit: (target, request) => decisions.commit(caller, target, request),
      abort: (target, options) => decisions.abort(caller, target, options),
      release: (target) => decisions.release(caller, target),
    };
  }

  /** Ends terms whose coordinator is silent past its lease, thaws, and drops staging nobody goes on with. */
  expire(): void {
    for (const row of this.migrated.inTerm()) {
      if (!this.terms.isAlive(row.uid)) this.expireOne(row, () => this.decisions.takeAway(row));
    }
    for (const { row, staging } of this.migrated.staged()) {
      if (row.isTermLive === 0 && this.staging.isOld(staging)) this.expireOne(row, () => this.staging.dropOld(row));
    }
  }

  close(): Promise<void> {
    return this.staging.close();
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
    };
  }

  private claim(caller: Caller, claim: Claim): Promise<Grant> {
    const key = migratedLockKey({ clusterUid: caller.clusterUid, volumeUid: claim.volume });
    return this.core.lock.run(key, async () => {
      const before = this.migrated.bySource(caller.clusterUid, claim.volume);
      const row = await this.terms.claim(caller, claim, (uid) => this.staging.endSession(uid));
      // Another job's freeze ended here without an abort of its own.
      if (before?.frozenSince != null && row.frozenSince === null) this.decisions.thawed(row.uid);
      else this.migrated.published(row.uid);
      return {
        term: { epoch: row.epoch, nonce: row.nonce },
        leaseMs: this.core.limits.leaseMs,
        report: await this.report(row),
      };
    });
  }

  private async reportOf(caller: Caller, volume: string): Promise<Report | undefined> {
    this.sources.seen(caller);
    return this.core.lock.run(migratedLockKey({ clusterUid: caller.clusterUid, volumeUid: volume }), async () => {
      const row = this.migrated.bySource(caller.clusterUid, volume);
      return row === undefined || row.deleting === 1 ? undefined : this.report(row);
    });
  }

  private async report(row: MigratedRow): Promise<Report> {
    const points = (await presentPoints(this.core, row.uid)).filter((point) => point.released === 0);
    const staging = this.migrated.staging(row.uid);
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
    };
  }

  private barrier(row: MigratedRow, staging: StagingRow | undefined): Barrier {
    if (staging === undefined) return row.isTermLive === 1 ? "Joined" : "None";
    if (row.frozenSince === null) return "Joined";
    return this.migrated.storedUnits(row.uid) === headerOf(staging).unitCount ? "Stored" : "Frozen";
  }
}
