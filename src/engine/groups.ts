// The group home: the one agent that decides for a group. Its row carries the group's term, and its commit records are the
// decisions: one conditional write for all members. A term is for one group point; what was voted for another is void.
import { LongshoreError } from "../domain/errors.ts";
import type { Decision, DecisionQuery } from "../wire/member.ts";
import type {
  GroupClaim,
  GroupCommitRecord,
  GroupCommitRequest,
  GroupGrant,
  GroupReport,
  GroupTarget,
} from "../wire/peer.ts";
import type { GroupView } from "../wire/schemas.ts";
import { type Core, timeText } from "./core.ts";
import type { Homes } from "./homes.ts";
import {
  checkTerm,
  endTerm,
  grantTerm,
  isGranted,
  isTerm,
  Leases,
  type TermRow,
  takeAwayTerm,
  termLost,
} from "./leases.ts";
import type { Caller, Sources } from "./sources.ts";

interface GroupRow extends TermRow {
  readonly clusterUid: string;
  /** The one group point that may be committed under the term. */
  readonly groupPoint: string;
  /** When a term was last granted, or the group was last found to be of use. */
  readonly touchedAt: number;
  readonly revision: number;
}

interface CommitRow {
  readonly groupPoint: string;
  readonly job: string;
  readonly epoch: number;
  readonly membersJson: string;
  readonly committedAt: number;
  readonly isReleased: number;
}

/** Decisions kept of each group and told in a report, beyond those that some member may still ask for. */
const commitsKept = 16;

export class Groups {
  private readonly core: Core;
  private readonly sources: Sources;
  private readonly homes: Homes;
  private readonly leases: Leases;
  private readonly expiring = new Set<string>();

  constructor(core: Core, parts: { sources: Sources; homes: Homes }) {
    this.core = core;
    this.sources = parts.sources;
    this.homes = parts.homes;
    this.leases = new Leases(core, this.inTerm());
  }

  /** One conditional transaction; asking again with the same nonce gives the same grant. Throws `LeaseHeld`. */
  claim(caller: Caller, claim: GroupClaim): Promise<GroupGrant> {
    this.sources.seen(caller);
    return this.locked(caller, claim.group, async () => {
      const found = this.find(caller.clusterUid, claim.group);
      const row = found !== undefined && isSameGrant(found, claim) ? found : this.grant(caller, claim, found);
      this.leases.renew(row.uid);
      return {
        term: { epoch: row.epoch, nonce: row.nonce },
        leaseMs: this.core.limits.leaseMs,
        report: this.reportRow(row),
      };
    });
  }

  report(caller: Caller, group: string): GroupReport | undefined {
    this.sources.seen(caller);
    const row = this.find(caller.clusterUid, group);
    return row && this.reportRow(row);
  }

  renew(caller: Caller, target: GroupTarget): Promise<void> {
    return this.underTerm(caller, target, (row) => checkTerm(row, target.term));
  }

  /** The decision. Throws `PlanMismatch` for another point than the term's, or other members than were committed. */
  commit(caller: Caller, target: GroupTarget, request: GroupCommitRequest): Promise<GroupCommitRecord> {
    return this.underTerm(caller, target, (row) => {
      const done = this.commitOf(row.uid, request.groupPoint);
      if (done !== undefined) return this.same(row, done, request);
      checkTerm(row, target.term);
      if (row.groupPoint !== request.groupPoint) {
        throw new LongshoreError("PlanMismatch", `the term of group ${row.name} is for point ${row.groupPoint}`);
      }
      checkMembers(row, request);
      this.core.journal.transaction(() => this.decide(row, request));
      const about = { group: row.name, job: row.job, epoch: row.epoch, groupPoint: request.groupPoint };
      this.core.log.info(about, "group point committed");
      return this.requireCommit(row.uid, request.groupPoint);
    });
  }

  /** Ends the term without a commit. Throws `Conflict` when its point is committed: then there is nothing to abort. */
  abort(caller: Caller, target: GroupTarget): Promise<void> {
    return this.underTerm(caller, target, (row) => {
      if (this.commitOf(row.uid, row.groupPoint) !== undefined) {
        throw new LongshoreError("Conflict", `point ${row.groupPoint} of group ${row.name} is committed`);
      }
      if (row.isTermLive === 1) this.end(row);
    });
  }

  /** Ends the term after the commit: every member has done what was decided, so the record may be forgotten one day. */
  release(caller: Caller, target: GroupTarget): Promise<void> {
    return this.underTerm(caller, target, (row) => {
      if (row.isTermLive === 1) this.end(row);
      this.core.journal.transaction(() => this.forgetSettled(row));
    });
  }

  /** What became of a group point, for a member that has voted for it. */
  decision(query: DecisionQuery): Decision {
    const row = this.find(query.clusterUid, query.group);
    if (row === undefined) return { kind: "aborted", epoch: 0 };
    const record = this.commitOf(row.uid, query.groupPoint);
    if (record !== undefined) return { kind: "committed", record };
    // A live term for another point means that no claimant goes on with this one: a new term for it needs new votes.
    const isPending = row.isTermLive === 1 && row.groupPoint === query.groupPoint;
    return { kind: isPending ? "pending" : "aborted", epoch: row.epoch };
  }

  /** Takes the term of a coordinator that is silent past its lease away: from then on its point cannot be committed. */
  expire(): void {
    this.leases.forgetEnded();
    for (const { uid, name, clusterUid } of this.inTerm()) {
      if (this.leases.isAlive(uid) || this.expiring.has(uid)) continue;
      this.expiring.add(uid);
      const work = () => this.locked({ clusterUid }, name, async () => this.takeAway(uid));
      this.core.tasks.spawn(`expire group ${name}`, () => work().finally(() => this.expiring.delete(uid)));
    }
  }

  /**
   * Now and then: a group that no job was about for long, and of which no copy is left in the cluster, is forgotten with its
   * decisions. What it decides later is under a higher epoch than anybody knows; and a vote for what it never decided, should
   * one be left with an agent that was away, finds that out from its siblings, as when a group home has lost its memory.
   */
  async tidy(): Promise<void> {
    const { journal, clock, limits } = this.core;
    const rows = journal.all<GroupRow>("SELECT * FROM groups WHERE isTermLive = 0");
    for (const row of rows.filter(({ touchedAt }) => Math.abs(clock.nowMs() - touchedAt) > limits.stagingAgeMs)) {
      const isOfUse = await this.isOfUse(row);
      await this.locked(row, row.name, async () => {
        if (this.byUid(row.uid)?.revision !== row.revision) return;
        journal.transaction(() => (isOfUse ? this.touch(row.uid) : this.forget(row.uid)));
        if (!isOfUse) this.core.log.info({ group: row.name }, "group forgotten: no copy of it is left");
      });
    }
  }

  list(): GroupView[] {
    return this.core.journal
      .all<GroupRow>("SELECT * FROM groups ORDER BY name, clusterUid")
      .map((row) => this.view(row));
  }

  /** See AgentApi.getGroup. */
  get(name: string, { clusterUid }: { clusterUid?: string | undefined } = {}): GroupView {
    const found = this.list().filter(
      (group) => group.name === name && (clusterUid === undefined || group.sourceClusterUid === clusterUid),
    );
    const [only] = found;
    if (only === undefined) throw new LongshoreError("NotFound", `group ${name} does not have its home here`);
    if (found.length === 1) return only;
    const clusters = found.map(({ source, sourceClusterUid }) => `${source} (${sourceClusterUid})`).join(", ");
    throw new LongshoreError("BadRequest", `group ${name} is of several clusters, name one of them: ${clusters}`);
  }

  // ---- terms -------------------------------------------------------------------------------------------------------

  private locked<T>({ clusterUid }: Pick<Caller, "clusterUid">, group: string, work: () => Promise<T>): Promise<T> {
    return this.core.lock.run(`group ${clusterUid}/${group}`, work);
  }

  /** Runs `work` under the group's lock if the term is the one granted, ended or not, and counts as a sign of life. */
  private underTerm<T>(caller: Caller, target: GroupTarget, work: (row: GroupRow) => T): Promise<T> {
    this.sources.seen(caller);
    return this.locked(caller, target.group, async () => {
      const row = this.find(caller.clusterUid, target.group);
      if (row === undefined) throw new LongshoreError("NotFound", `group ${target.group} does not have its home here`);
      if (!isTerm(row, target.term)) throw termLost(row, target.term);
      this.leases.renew(row.uid);
      return work(row);
    });
  }

  private grant({ clusterUid }: Caller, claim: GroupClaim, found: GroupRow | undefined): GroupRow {
    const { journal, dice } = this.core;
    if (found !== undefined) this.leases.check(found, claim);
    const uid = found?.uid ?? dice.uuid();
    journal.transaction(() => {
      if (found === undefined) {
        journal.run(
          `INSERT INTO groups (uid, clusterUid, name, epoch, nonce, claimant, job, groupPoint, isTermLive, revision)
           VALUES (?,?,?,0,'','','','',0,0)`,
          uid,
          clusterUid,
          claim.group,
        );
      }
      const epoch = Math.max(found?.epoch ?? 0, claim.offeredEpoch) + 1;
      grantTerm(this.core, "groups", { uid, epoch, asking: claim });
      journal.run("UPDATE groups SET groupPoint = ? WHERE uid = ?", claim.groupPoint, uid);
      this.touch(uid);
    });
    return this.require(uid);
  }

  private end(row: GroupRow): void {
    this.core.journal.transaction(() => endTerm(this.core, "groups", row.uid));
  }

  private takeAway(uid: string): void {
    const row = this.byUid(uid);
    if (row === undefined || row.isTermLive === 0 || this.leases.isAlive(uid)) return;
    this.core.journal.transaction(() => takeAwayTerm(this.core, "groups", uid));
    const about = { group: row.name, job: row.job, epoch: row.epoch, groupPoint: row.groupPoint };
    this.core.log.warn(about, "group's term ended: coordinator silent past its lease");
  }

  private inTerm(): GroupRow[] {
    return this.core.journal.all<GroupRow>("SELECT * FROM groups WHERE isTermLive = 1");
  }

  private find(clusterUid: string, name: string): GroupRow | undefined {
    return this.core.journal.get<GroupRow>("SELECT * FROM groups WHERE clusterUid = ? AND name = ?", clusterUid, name);
  }

  private byUid(uid: string): GroupRow | undefined {
    return this.core.journal.get<GroupRow>("SELECT * FROM groups WHERE uid = ?", uid);
  }

  private require(uid: string): GroupRow {
    const row = this.byUid(uid);
    if (row === undefined) throw new LongshoreError("NotFound", `group ${uid} does not exist`);
    return row;
  }

  // ---- decisions ---------------------------------------------------------------------------------------------------

  /** The one conditional write: from here on the group point is committed, whatever happens to whoever asked for it. */
  private decide(row: GroupRow, request: GroupCommitRequest): void {
    const { journal, clock } = this.core;
    checkTerm(this.require(row.uid), row);
    journal.run(
      `INSERT INTO groupCommits (groupUid, groupPoint, job, epoch, membersJson, committedAt) VALUES (?,?,?,?,?,?)`,
      row.uid,
      request.groupPoint,
      row.job,
      row.epoch,
      JSON.stringify(request.members),
      clock.nowMs(),
    );
    journal.run("UPDATE groups SET revision = revision + 1 WHERE uid = ?", row.uid);
  }

  private same(row: GroupRow, done: GroupCommitRecord, request: GroupCommitRequest): GroupCommitRecord {
    if (membersText(done.members) === membersText(request.members)) return done;
    throw new LongshoreError(
      "PlanMismatch",
      `point ${done.groupPoint} of group ${row.name} was committed with other members or plans`,
    );
  }

  /**
   * Within a transaction. A record that was not released may be asked for by a member that was away; it stays. A member that a
   * later record names was asked for its vote again since, which it gives only when it has done what was decided before.
   */
  private forgetSettled(row: GroupRow): void {
    const { journal } = this.core;
    const later = new Set<string>();
    for (const record of this.records(row.uid).reverse()) {
      const volumes = volumesIn(record);
      if (record.groupPoint === row.groupPoint || volumes.every((volume) => later.has(volume))) {
        const sql = "UPDATE groupCommits SET isReleased = 1 WHERE groupUid = ? AND groupPoint = ?";
        journal.run(sql, row.uid, record.groupPoint);
      }
      for (const volume of volumes) later.add(volume);
    }
    journal.run(
      `DELETE FROM groupCommits WHERE groupUid = ?1 AND isReleased = 1 AND rowid NOT IN
       (SELECT rowid FROM groupCommits WHERE groupUid = ?1 ORDER BY rowid DESC LIMIT ${commitsKept})`,
      row.uid,
    );
  }

  /** All that are kept, oldest first. */
  private records(uid: string): CommitRow[] {
    return this.core.journal.all<CommitRow>("SELECT * FROM groupCommits WHERE groupUid = ? ORDER BY rowid", uid);
  }

  /** Whether a member may still ask for a decision, or a copy of one of its volumes is left somewhere. */
  private async isOfUse({ uid, clusterUid }: GroupRow): Promise<boolean> {
    const records = this.records(uid);
    if (records.some(({ isReleased }) => isReleased === 0)) return true;
    return this.homes.areAnywhere(clusterUid, [...new Set(records.flatMap(volumesIn))]);
  }

  /** Within a transaction. */
  private touch(uid: string): void {
    this.core.journal.run("UPDATE groups SET touchedAt = ? WHERE uid = ?", this.core.clock.nowMs(), uid);
  }

  /** Within a transaction. */
  private forget(uid: string): void {
    this.core.journal.run("DELETE FROM groupCommits WHERE groupUid = ?", uid);
    this.core.journal.run("DELETE FROM groups WHERE uid = ?", uid);
  }

  private commitOf(uid: string, groupPoint: string): GroupCommitRecord | undefined {
    const row = this.core.journal.get<CommitRow>(
      "SELECT * FROM groupCommits WHERE groupUid = ? AND groupPoint = ?",
      uid,
      groupPoint,
    );
    return row && recordOf(row);
  }

  private requireCommit(uid: string, groupPoint: string): GroupCommitRecord {
    const record = this.commitOf(uid, groupPoint);
    if (record === undefined) throw new LongshoreError("PlanMismatch", `the commit of ${groupPoint} was not recorded`);
    return record;
  }

  /** The newest ones, oldest first; with that of the term's own point, however old it is. */
  private commits(row: GroupRow): GroupCommitRecord[] {
    const newest = this.core.journal
      .all<CommitRow>("SELECT * FROM groupCommits WHERE groupUid = ? ORDER BY rowid DESC LIMIT ?", row.uid, commitsKept)
      .reverse()
      .map(recordOf);
    const own = this.commitOf(row.uid, row.groupPoint);
    const isTold = own === undefined || newest.some(({ groupPoint }) => groupPoint === own.groupPoint);
    return isTold ? newest : [own, ...newest];
  }

  // ---- views -------------------------------------------------------------------------------------------------------

  private reportRow(row: GroupRow): GroupReport {
    const { epoch, job, isTermLive } = row;
    return {
      agentId: this.core.agentId,
      epoch,
      job,
      isTermLive: isTermLive === 1,
      commits: this.commits(row),
    };
  }

  private view(row: GroupRow): GroupView {
    return {
      name: row.name,
      source: this.sources.rows().find((source) => source.clusterUid === row.clusterUid)?.name ?? null,
      sourceClusterUid: row.clusterUid,
      home: this.core.agentId,
      state: row.isTermLive === 1 ? "Deciding" : "Idle",
      epoch: row.epoch,
      job: row.job,
      points: this.commits(row).map(({ members, ...point }) => ({
        ...point,
        members: members.map(({ volume, agentId, toId }) => ({ volume, home: agentId, toId })),
      })),
      revision: row.revision,
    };
  }
}

function isSameGrant(row: GroupRow, claim: GroupClaim): boolean {
  return isGranted(row, claim) && row.groupPoint === claim.groupPoint;
}

/** A volume that were committed twice would have two plans for one vote. */
function checkMembers(row: GroupRow, { members }: GroupCommitRequest): void {
  if (new Set(members.map(({ volume }) => volume)).size === members.length) return;
  throw new LongshoreError("BadRequest", `members: a volume of group ${row.name} is named twice`);
}

function membersText(members: GroupCommitRequest["members"]): string {
  const fields = members.map(({ volume, agentId, baseId, toId, planDigest }) => [
    volume,
    agentId,
    baseId,
    toId,
    planDigest,
  ]);
  return JSON.stringify(fields.sort(([left], [right]) => (String(left) < String(right) ? -1 : 1)));
}

function volumesIn({ membersJson }: Pick<CommitRow, "membersJson">): string[] {
  return (JSON.parse(membersJson) as GroupCommitRequest["members"]).map(({ volume }) => volume);
}

function recordOf({ membersJson, committedAt, groupPoint, job, epoch }: CommitRow): GroupCommitRecord {
  return { groupPoint, job, epoch, members: JSON.parse(membersJson), committedAt: timeText(committedAt) };
}
