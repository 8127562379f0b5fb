// The agents of this storage cluster as this one knows them: learnt from seeds, passed on from one to the next, and kept in the
// journal, so that an agent that is away is missed. Nobody is taken off the list by a timeout: only a person can tell that
// an agent, and what it has, will not come back.
import { codeOf, describe, LongshoreError } from "../domain/errors.ts";
import type { KnownMember, Meeting, MemberApi } from "../wire/member.ts";
import type { Member } from "../wire/schemas.ts";
import type { Core } from "./core.ts";
import type { MemberConnection } from "./engine-options.ts";

/** Heard within so many intervals: alive. */
const intervalsAlive = 3;

export class Members {
  private readonly core: Omit<Core, "members">;
  /** To whoever is at an address, to meet; and to one agent alone, for everything else. */
  private readonly connections = new Map<string, MemberConnection>();
  /** Addresses and seeds that have not answered yet. */
  private readonly visited = new Map<string, Promise<void>>();
  /** Where each seed leads to, as far as that is known. */
  private readonly seedAddresses = new Map<string, readonly string[]>();
  /** Who has answered at an address last, as long as this agent is not acquainted. */
  private readonly answeredAt = new Map<string, string>();
  private readonly heardMs = new Map<string, number>();
  private readonly startedMs: number;
  private isTold: boolean;
  private local: MemberApi | undefined;
  private incarnation: number;

  constructor(core: Omit<Core, "members">) {
    this.core = core;
    this.startedMs = core.clock.monotonicMs();
    this.incarnation = this.raiseIncarnation(0);
    this.isTold = core.journal.get<{ isTold: number }>("SELECT isAcquainted AS isTold FROM agent")?.isTold === 1;
    this.judgeAcquaintance();
  }

  /** Given once: what answers the other agents, and this one when it asks itself. */
  serve(local: MemberApi): void {
    this.local = local;
  }

  /** All agents that count, this one included, in the order of their ids, with their state as seen from here. */
  all(): Member[] {
    return this.known()
      .filter(({ state }) => state !== "forgotten")
      .map(({ agentId, node, address, laneAddress, state }) => {
        const seen = this.isAlive(agentId) ? "alive" : "unreachable";
        return { agentId, node, address, laneAddress, state: state === "lost" ? "lost" : seen };
      });
  }

  /** Ids of all agents that count: whoever may have data is among them. */
  counting(): string[] {
    return this.all().map(({ agentId }) => agentId);
  }

  /** Throws `Unreachable` for one that is not known. */
  member(agentId: string): Member {
    const member = this.all().find((one) => one.agentId === agentId);
    if (member === undefined) throw new LongshoreError("Unreachable", `agent ${agentId} is not known here`);
    return member;
  }

  isAlive(agentId: string): boolean {
    if (agentId === this.core.agentId) return true;
    const heardMs = this.heardMs.get(agentId) ?? Number.NEGATIVE_INFINITY;
    return this.core.clock.monotonicMs() - heardMs <= intervalsAlive * this.core.limits.memberIntervalMs;
  }

  isForgotten(agentId: string): boolean {
    return this.row(agentId)?.state === "forgotten";
  }

  /**
   * One agent, this one included. Throws `Unreachable` for one that is not known or was forgotten; so do its calls when
   * another agent answers at its address.
   */
  api(agentId: string): MemberApi {
    if (agentId === this.core.agentId && this.local !== undefined) return this.local;
    return this.connection(this.member(agentId).address, agentId).api;
  }

  /** For people and what acts for them: throws `Forbidden` when this agent was forgotten by its cluster, which may have replaced what it has. */
  checkWelcome(): void {
    const { agentId, dataDir } = this.core;
    if (!this.isForgotten(agentId)) return;
    const advice = `start it on an empty folder instead of ${dataDir}`;
    throw new LongshoreError("Forbidden", `agent ${agentId} was forgotten by its cluster; ${advice}`);
  }

  /**
   * For whoever can ask another agent. One that was forgotten is not there (`Unreachable`): what it knows of its cluster is old, and
   * `Forbidden` would be about the one that asks.
   */
  checkPresent(): void {
    const { agentId } = this.core;
    if (!this.isForgotten(agentId)) return;
    throw new LongshoreError(
      "Unreachable",
      `agent ${agentId} was forgotten by its cluster; start it on an empty folder`,
    );
  }

  /** As {@link checkPresent}, for what an agent of this cluster asks. Throws `Forbidden` when that one was forgotten. */
  checkAsker(asker: string): void {
    this.checkPresent();
    if (!this.isForgotten(asker)) return;
    throw new LongshoreError("Forbidden", `agent ${asker} was forgotten; start it on an empty folder`);
  }

  /**
   * Whether this agent can know who else there is. One that is new, perhaps because it has lost its disk, can once an agent has answered
   * that itself can, or most of those that its seeds lead to, itself included, have answered that they are new as well: then the whole
   * cluster is. From then on it always can, for it keeps whom it has met.
   */
  isAcquainted(): boolean {
    return this.isTold;
  }

  /** Throws `Unreachable` while this agent cannot know who else there is: what it has not heard of may have what is asked for. */
  checkAcquainted(): void {
    if (this.isTold) return;
    const who = `agent ${this.core.agentId} is new and does not know yet who else there is`;
    const advice =
      "see that these agents run with certificates of this cluster; its seeds must not lead to any that will not come back";
    throw new LongshoreError("Unreachable", `${who}: no answer from ${this.unanswered().join(", ")}; ${advice}`);
  }

  /** As {@link checkAcquainted}, but asks the others first. */
  async acquaint(): Promise<void> {
    if (!this.isTold) {
      const met = this.rows().filter(({ state }) => state !== "forgotten");
      await Promise.all([
        ...this.otherSeeds().map((seed) => this.sought(seed)),
        ...met.map(({ address }) => this.once(address, () => this.visit(address))),
      ]);
    }
    this.checkAcquainted();
  }

  /** See AgentApi.forgetMember. Throws `InUse` for one that answers, and `NotFound`. */
  async forget(agentId: string): Promise<void> {
    // The others would never hear of it.
    this.checkWelcome();
    const row = this.known().find((one) => one.agentId === agentId);
    if (row === undefined) throw new LongshoreError("NotFound", `agent ${agentId} is not known here`);
    if (row.state === "forgotten") return;
    // What is known may have changed while it was asked, and it may be the one that has asked meanwhile.
    if ((await this.answers(row)) || this.isAlive(agentId)) {
      throw new LongshoreError("InUse", `agent ${agentId} answers; stop it first`);
    }
    this.save({ ...(this.row(agentId) ?? row), state: "forgotten" });
    this.core.log.warn({ agentId, node: row.node }, "agent forgotten");
    // Whoever answers knows it when the caller does, so that the next job does not meet one that still waits for it.
    const others = this.rows().filter((one) => one.state !== "forgotten" && this.isAlive(one.agentId));
    await Promise.all(others.map(({ address }) => this.visit(address)));
  }

  /** See MemberApi.meet. */
  async meet({ self, members }: Meeting): Promise<Meeting> {
    this.checkAsker(self.agentId);
    this.heard(self);
    for (const member of members) this.learn(member);
    return this.meeting();
  }

  /** One round: meets every seed and every member, and tells lost ones. Waits for nobody. */
  async round(): Promise<void> {
    const own = this.core.addresses.address;
    const known = this.known().filter(({ state }) => state !== "forgotten");
    const addresses = new Set(known.map(({ address }) => address));
    addresses.delete(own);
    const { tasks } = this.core;
    for (const address of addresses)
      tasks.spawn(`meet ${address}`, () => this.once(address, () => this.visit(address)));
    for (const seed of this.otherSeeds()) tasks.spawn(`seek ${seed}`, () => this.sought(seed));
    this.tellLost();
    await this.disconnectOld();
  }

  async close(): Promise<void> {
    for (const connection of this.connections.values()) await connection.close();
    this.connections.clear();
  }

  /** One that does not answer is not asked again meanwhile, and keeps nobody else from being met, who would be taken for dead. */
  private once(where: string, ask: () => Promise<void>): Promise<void> {
    const asked = this.visited.get(where) ?? ask().finally(() => this.visited.delete(where));
    this.visited.set(where, asked);
    return asked;
  }

  /** Under a key that no address has: a seed may be one. */
  private sought(seed: string): Promise<void> {
    return this.once(`seed ${seed}`, () => this.seek(seed));
  }

  /**
   * A name that stands for all agents leads each of them to itself first (RFC 6724, rule 9), so all are visited that it stands for.
   * One that leads to this agent alone says that there is nobody else.
   */
  private async seek(seed: string): Promise<void> {
    const { addresses, log } = this.core;
    const found = await this.core.resolveSeed(seed).catch((error: unknown) => {
      log.debug({ seed, problem: describe(error) }, "seed leads nowhere");
      return [];
    });
    if (found.length === 0) return;
    const others = found.filter((address) => address !== addresses.address);
    this.seedAddresses.set(seed, others);
    this.judgeAcquaintance();
    await Promise.all(others.map((address) => this.once(address, () => this.visit(address))));
  }

  private otherSeeds(): string[] {
    return this.core.seeds.filter((seed) => seed !== this.core.addresses.address);
  }

  private async visit(address: string): Promise<void> {
    try {
      const { api } = this.connection(address);
      const { self, members } = await api.meet(this.meeting());
      if (self.agentId !== this.core.agentId) this.heard(self);
      // What stands for all agents led here: it is asked anew next time, and then perhaps leads to another one.
      else await this.disconnect(keyOf(address));
      for (const member of members) this.learn(member);
      if (!this.isTold) await this.askAcquaintance(address, self.agentId);
    } catch (error) {
      if (codeOf(error) === "Forbidden") this.refused(error);
      else this.core.log.debug({ address, problem: describe(error) }, "member does not answer");
    }
  }

  /** Has met this one just now. One of an earlier version does not say whether it is acquainted, and is believed to be. */
  private async askAcquaintance(address: string, agentId: string): Promise<void> {
    if (agentId !== this.core.agentId) {
      const { api } = this.connection(address, agentId);
      const { isAcquainted } = await api.acquaintance().catch((error: unknown) => {
        if (codeOf(error) !== "NotFound" && codeOf(error) !== "Unsupported") throw error;
        return { isAcquainted: true };
      });
      // Asked once more whom it knows: perhaps it became acquainted after it was asked before.
      if (isAcquainted) for (const member of (await api.meet(this.meeting())).members) this.learn(member);
      if (isAcquainted) this.becomeAcquainted();
    }
    this.answeredAt.set(address, agentId);
    this.judgeAcquaintance();
  }

  /** Of those that its seeds lead to, by who has answered; an address that has not stands for an agent of its own. */
  private judgeAcquaintance(): void {
    if (this.isTold) return;
    const answered = new Set([this.core.agentId]);
    for (const address of this.ledTo()) {
      const agentId = this.answeredAt.get(address);
      if (agentId !== undefined) answered.add(agentId);
    }
    if (answered.size > this.unanswered().length) this.becomeAcquainted();
  }

  private unanswered(): string[] {
    return this.ledTo().filter((address) => !this.answeredAt.has(address));
  }

  /** One whose addresses are not known stands for itself. */
  private ledTo(): string[] {
    return [...new Set(this.otherSeeds().flatMap((seed) => this.seedAddresses.get(seed) ?? [seed]))];
  }

  private becomeAcquainted(): void {
    if (this.isTold) return;
    const { journal } = this.core;
    journal.transaction(() => journal.run("UPDATE agent SET isAcquainted = 1"));
    this.isTold = true;
    this.answeredAt.clear();
  }

  /** Whether this very agent is there, asked now: that nothing was heard of it may be because we have just started. */
  private async answers({ agentId, address }: KnownMember): Promise<boolean> {
    if (this.isAlive(agentId)) return true;
    try {
      await this.connection(address, agentId).api.meet(this.meeting());
      return true;
    } catch (error) {
      if (codeOf(error) === "Forbidden") {
        this.refused(error);
        throw error;
      }
      this.core.log.info({ agentId, address, problem: describe(error) }, "the agent to forget does not answer");
      return false;
    }
  }

  /** Kept, for it holds after the next start too, when there is perhaps nobody to say it again. */
  refused(error: unknown): void {
    if (this.isForgotten(this.core.agentId)) return;
    this.core.log.error({ err: error }, "this agent was forgotten by its cluster");
    this.save({ ...this.meeting().self, state: "forgotten" });
  }

  private meeting(): Meeting {
    const { agentId, node, addresses } = this.core;
    const { address, laneAddress } = addresses;
    const self = { agentId, node, address, laneAddress, incarnation: this.incarnation, state: "member" } as const;
    return { self, members: this.rows() };
  }

  private heard(member: KnownMember): void {
    this.heardMs.set(member.agentId, this.core.clock.monotonicMs());
    this.learn(member);
  }

  /** Takes in what is newer than what is known. */
  private learn(told: KnownMember): void {
    if (told.agentId === this.core.agentId) {
      this.hearOfSelf(told);
      return;
    }
    const known = this.row(told.agentId);
    if (known === undefined || isNewer(told, known)) this.save(told);
  }

  private hearOfSelf(told: KnownMember): void {
    const { self } = this.meeting();
    const isElsewhere = told.incarnation === self.incarnation && told.address !== self.address;
    if (told.state === "forgotten") this.refused(new LongshoreError("Forbidden", "forgotten, as another agent tells"));
    // Taken for lost, although it is here, or known by a life that its disk, put back, knows nothing of: said anew, louder.
    else if (isNewer(told, self) || isElsewhere) this.incarnation = this.raiseIncarnation(told.incarnation);
  }

  /** An agent that is away while another one has come up on its node has lost its data, as far as can be told. */
  private tellLost(): void {
    const alive = [...this.rows(), this.meeting().self].filter(({ agentId }) => this.isAlive(agentId));
    for (const row of this.rows()) {
      if (row.state !== "member" || !this.isSilent(row.agentId)) continue;
      // By another one: time goes on while we look, and this one may have been alive a moment ago.
      if (!alive.some(({ node, agentId }) => node === row.node && agentId !== row.agentId)) continue;
      this.save({ ...row, state: "lost" });
      this.core.log.error({ agentId: row.agentId, node: row.node }, "the node is back without this agent's data");
    }
  }

  /** Not heard of for long, although it could have been: just after a start nobody has been. */
  private isSilent(agentId: string): boolean {
    const sinceMs = Math.max(this.heardMs.get(agentId) ?? 0, this.startedMs);
    return this.core.clock.monotonicMs() - sinceMs > intervalsAlive * this.core.limits.memberIntervalMs;
  }

  private known(): KnownMember[] {
    const { self } = this.meeting();
    return [...this.rows(), self].sort((a, b) => (a.agentId < b.agentId ? -1 : 1));
  }

  /** The others. */
  private rows(): KnownMember[] {
    const sql = "SELECT * FROM members WHERE agentId <> ? ORDER BY agentId";
    return this.core.journal.all<KnownMember>(sql, this.core.agentId).map((row) => ({ ...row }));
  }

  private row(agentId: string): KnownMember | undefined {
    return this.core.journal.get<KnownMember>("SELECT * FROM members WHERE agentId = ?", agentId);
  }

  private save({ agentId, node, address, laneAddress, incarnation, state }: KnownMember): void {
    const { journal } = this.core;
    journal.transaction(() =>
      journal.run(
        "INSERT OR REPLACE INTO members (agentId, node, address, laneAddress, incarnation, state) VALUES (?,?,?,?,?,?)",
        agentId,
        node,
        address,
        laneAddress,
        incarnation,
        state,
      ),
    );
  }

  private raiseIncarnation(above: number): number {
    const { journal } = this.core;
    return journal.transaction(() => {
      journal.run("UPDATE agent SET incarnation = max(incarnation, ?) + 1", above);
      return journal.get<{ incarnation: number }>("SELECT incarnation FROM agent")?.incarnation ?? 1;
    });
  }

  private connection(address: string, agentId?: string): MemberConnection {
    const key = keyOf(address, agentId);
    const known = this.connections.get(key) ?? this.core.connectMember(address, agentId);
    this.connections.set(key, known);
    return known;
  }

  private async disconnectOld(): Promise<void> {
    const members = this.known().filter(({ state }) => state !== "forgotten");
    const used = new Set([
      ...[...this.core.seeds, ...this.visited.keys()].map((address) => keyOf(address)),
      ...members.flatMap(({ address, agentId }) => [keyOf(address), keyOf(address, agentId)]),
    ]);
    for (const key of [...this.connections.keys()]) if (!used.has(key)) await this.disconnect(key);
  }

  private async disconnect(key: string): Promise<void> {
    const connection = this.connections.get(key);
    this.connections.delete(key);
    await connection?.close();
  }
}

function keyOf(address: string, agentId = "anyone"): string {
  return `${agentId} at ${address}`;
}

const finality = { member: 0, lost: 1, forgotten: 2 } as const;

/** Forgotten is for good; otherwise the later life counts, and within one life `lost` over `member`. */
export function isNewer(told: KnownMember, known: KnownMember): boolean {
  if (known.state === "forgotten" || told.state === "forgotten") return known.state !== "forgotten";
  if (told.incarnation !== known.incarnation) return told.incarnation > known.incarnation;
  return finality[told.state] > finality[known.state];
}
