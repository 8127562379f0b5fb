// One name stands for one volume of the cluster. An agent claims the name of a volume that it makes with the other agents before the
// volume counts, and each of these keeps one claim of a name. Each also learns the names that every other one has, so that several of
// them together can speak for one that is away. docs/csi.md says why that suffices.
import { codeOf, describe, LongshoreError } from "../domain/errors.ts";
import { judgeName, type NameAnswer, type NameVerdict, silentMax } from "../domain/name-claim.ts";
import type { NameClaim, NameClaimed, VolumeNamesRequest, VolumeNames as VolumeNamesTold } from "../wire/member.ts";
import type { Member } from "../wire/schemas.ts";
import type { Core } from "./core.ts";

/** Names that went are forgotten after so long; what another one has is asked for at once, should a claim depend on it. */
const relearnMs = 10 * 60_000;

interface Taken {
  readonly by: string;
  /** It could not be asked whether it still has the name. */
  readonly isAway: boolean;
}

type Outcome<T> = { readonly kind: "done"; readonly value: T } | ({ readonly kind: "taken" } & Taken);

export class VolumeNames {
  private readonly core: Core;
  /** When names were learnt last, by the monotonic clock. */
  private readonly learntMs = new Map<string, number>();

  constructor(core: Core) {
    this.core = core;
  }

  /** Has `insert` make the row of a new volume, in one transaction with the look at who has the name. */
  async take(name: string, insert: () => string): Promise<string> {
    const outcome = await this.unlessTaken({ agentId: this.core.agentId, name }, insert);
    if (outcome.kind === "taken") throw takenError(name, outcome);
    return outcome.value;
  }

  /**
   * Has the others keep the name for a volume of this agent, whose row is there. Throws `Conflict` when another agent has it or is about
   * to, and `Unreachable` when that cannot be ruled out.
   */
  async claim(name: string, uid: string): Promise<void> {
    const { members, agentId } = this.core;
    await members.acquaint();
    const verdict = await this.askAround({ agentId, name, uid });
    if (verdict.kind === "taken") throw takenError(name, verdict);
    if (verdict.kind === "inDoubt") throw doubtError(name, verdict.agents);
  }

  /** See MemberApi.claimName. */
  async answer(claim: NameClaim): Promise<NameClaimed> {
    const { members, journal } = this.core;
    members.checkAsker(claim.agentId);
    const outcome = await this.unlessTaken(claim, () =>
      journal.run(
        "INSERT OR REPLACE INTO volumeNames (name, agentId, uid) VALUES (?,?,?)",
        claim.name,
        claim.agentId,
        claim.uid,
      ),
    );
    const takenBy = outcome.kind === "taken" ? { agentId: outcome.by, isAway: outcome.isAway } : null;
    return { takenBy, knows: this.knows() };
  }

  /** See MemberApi.volumeNames. Whoever does not know the asker would leave it out when it claims the next name. */
  list({ agentId }: VolumeNamesRequest): VolumeNamesTold {
    this.core.members.member(agentId);
    return { volumes: this.core.journal.all("SELECT name, uid FROM volumes") };
  }

  /** Now and then: learns the names of those who have come, and forgets those that went. */
  async round(): Promise<void> {
    const { members, agentId, journal, clock, log } = this.core;
    const isDue = (id: string) =>
      clock.monotonicMs() - (this.learntMs.get(id) ?? Number.NEGATIVE_INFINITY) >= relearnMs;
    const due = members.all().filter((one) => one.agentId !== agentId && one.state === "alive" && isDue(one.agentId));
    await Promise.all(
      due.map(async (one) => {
        const problem = await this.learn(one.agentId).catch(describe);
        if (problem !== undefined) log.debug({ agentId: one.agentId, problem }, "names of its volumes not learnt");
      }),
    );
    if (journal.get(`SELECT 1 AS one FROM volumeNames WHERE agentId IN ${forgotten} LIMIT 1`) === undefined) return;
    journal.transaction(() => journal.run(`DELETE FROM volumeNames WHERE agentId IN ${forgotten}`));
  }

  // ---- who has which name, as it is known here -----------------------------------------------------------------------

  /** `work` is done in one transaction with the look. An agent that is said to have the name is asked, for it may have it no more. */
  private async unlessTaken<T>(claim: Omit<NameClaim, "uid">, work: () => T): Promise<Outcome<T>> {
    const { journal, agentId } = this.core;
    const asked = new Map<string, boolean>();
    for (;;) {
      const outcome = journal.transaction((): Outcome<T> => {
        const by = this.holder(claim);
        return by === undefined
          ? { kind: "done", value: work() }
          : { kind: "taken", by, isAway: asked.get(by) ?? false };
      });
      if (outcome.kind === "done" || outcome.by === agentId || asked.has(outcome.by)) return outcome;
      const { by } = outcome;
      asked.set(
        by,
        await this.learn(by).then(
          () => false,
          () => true,
        ),
      );
    }
  }

  /** Another agent than the one that claims it. */
  private holder({ agentId, name }: Omit<NameClaim, "uid">): string | undefined {
    const { journal } = this.core;
    if (agentId !== this.core.agentId && journal.get("SELECT uid FROM volumes WHERE name = ?", name) !== undefined) {
      return this.core.agentId;
    }
    return journal.get<{ agentId: string }>(
      `SELECT agentId FROM volumeNames WHERE name = ? AND agentId <> ? AND agentId NOT IN ${forgotten} ORDER BY agentId`,
      name,
      agentId,
    )?.agentId;
  }

  private knows(): string[] {
    return this.core.journal.all<{ agentId: string }>("SELECT agentId FROM nameLists").map(({ agentId }) => agentId);
  }

  /**
   * Takes over which names an agent has. Only what was known before it was asked is forgotten for not being on its list: what it has
   * claimed since is perhaps not. Of UIDs, which come only once.
   */
  private learn(agentId: string): Promise<void> {
    const { core } = this;
    return core.lock.run(`names of ${agentId}`, async () => {
      const sql = "SELECT name, uid FROM volumeNames WHERE agentId = ?";
      const before = core.journal.all<{ name: string; uid: string }>(sql, agentId);
      const { volumes } = await core.members.api(agentId).volumeNames({ agentId: core.agentId });
      const present = new Set(volumes.map(({ uid }) => uid));
      const known = new Set(before.map(({ uid }) => uid));
      core.journal.transaction(() => {
        for (const { name, uid } of before.filter((one) => !present.has(one.uid))) {
          core.journal.run("DELETE FROM volumeNames WHERE name = ? AND agentId = ? AND uid = ?", name, agentId, uid);
        }
        for (const { name, uid } of volumes.filter((one) => !known.has(one.uid))) {
          core.journal.run("INSERT OR IGNORE INTO volumeNames (name, agentId, uid) VALUES (?,?,?)", name, agentId, uid);
        }
        core.journal.run("INSERT OR IGNORE INTO nameLists (agentId) VALUES (?)", agentId);
      });
      this.learntMs.set(agentId, core.clock.monotonicMs());
    });
  }

  // ---- asking the others ---------------------------------------------------------------------------------------------

  /**
   * Those that are away take their time to ask, and are asked only where it depends on them. Where too many may be, they are asked
   * first: claims that the others had kept in vain would bind the name to this agent.
   */
  private async askAround(claim: NameClaim): Promise<NameVerdict> {
    const others = this.core.members.all().filter(({ agentId }) => agentId !== claim.agentId);
    const [alive, away] = [true, false].map((is) => others.filter(({ state }) => (state === "alive") === is)) as [
      Member[],
      Member[],
    ];
    const ask = (members: readonly Member[]) => Promise.all(members.map((member) => this.ask(member, claim)));
    const isFirst = away.length > silentMax;
    const ofAway = isFirst ? await ask(away) : away.map(silent);
    if (ofAway.filter(({ kind }) => kind === "silent").length > silentMax) return judgeName(ofAway, this.knows());
    const ofAlive = await ask(alive);
    const verdict = judgeName([...ofAlive, ...ofAway], this.knows());
    if (verdict.kind !== "inDoubt" || isFirst || away.length === 0) return verdict;
    return judgeName([...ofAlive, ...(await ask(away))], this.knows());
  }

  private async ask(member: Member, claim: NameClaim): Promise<NameAnswer> {
    const { members, log } = this.core;
    const { agentId } = member;
    // Where a lost one was, another may answer now.
    if (member.state === "lost") return silent(member);
    try {
      const { takenBy, knows } = await members.api(agentId).claimName(claim);
      if (takenBy === null) return { kind: "kept", agentId, knows };
      return { kind: "taken", by: takenBy.agentId, isAway: takenBy.isAway };
    } catch (error) {
      if (codeOf(error) === "NotFound" || codeOf(error) === "Unsupported") return this.askEarlier(member, claim);
      // It says that this agent was forgotten: nothing that is made here counts any more.
      if (codeOf(error) === "Forbidden") {
        members.refused(error);
        throw error;
      }
      log.debug({ agentId, volume: claim.name, problem: describe(error) }, "name not claimed");
      return silent(member);
    }
  }

  /** An agent of an earlier version keeps no claims, but says whether it has a volume of that name. It can speak for nobody. */
  private async askEarlier({ agentId }: Member, { name }: NameClaim): Promise<NameAnswer> {
    const { members, log } = this.core;
    try {
      const { volumes } = await members.api(agentId).holdings({ volumes: [name] });
      if (volumes.length > 0) return { kind: "taken", by: agentId, isAway: false };
      return { kind: "kept", agentId, knows: [] };
    } catch (error) {
      log.debug({ agentId, volume: name, problem: describe(error) }, "not said whether it has the name");
      return silent({ agentId });
    }
  }
}

const forgotten = "(SELECT agentId FROM members WHERE state = 'forgotten')";
const advice = "bring it back or, if it will not come back: longshore node forget";

function silent({ agentId }: Pick<Member, "agentId">): NameAnswer {
  return { kind: "silent", agentId };
}

function takenError(name: string, { by, isAway }: Taken): LongshoreError {
  if (!isAway) return new LongshoreError("Conflict", `agent ${by} has a volume ${name}, or is making one`);
  return new LongshoreError("Unreachable", `agent ${by} has a volume ${name}, and does not answer; ${advice}`);
}

function doubtError(name: string, agents: readonly string[]): LongshoreError {
  const who = `agent ${agents.join(", ")}, which may have one of that name, does not answer`;
  return new LongshoreError("Unreachable", `volume ${name} is not made: ${who}; ${advice}`);
}
