// Who may decide, and who finds out how it was decided: two coordinators alive at once, and a group home that is cut off in the
// very moment of the decision.
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, expect } from "@jest/globals";
import { needs } from "../../needs.ts";
import { eventually } from "../process.ts";
import { claimantOf, closeAtSources, coordinatedBy, firstHeld } from "./fault-matrix.ts";
import type { GatedAgent } from "./gated-agent.ts";
import { type Cast, GroupVolumes, jobPatience } from "./group-volumes.ts";
import { leaseMs, openSites, type Sites } from "./sites.ts";

const testMsMax = 600_000;

let sites: Sites | undefined;
let group: GroupVolumes | undefined;

async function world(): Promise<{ sites: Sites; group: GroupVolumes; cast: Cast }> {
  sites ??= await openSites();
  if (group === undefined) {
    const made = await GroupVolumes.make(sites, "group");
    await made.migrate();
    group = made;
  }
  return { sites, group, cast: await group.cast() };
}

afterEach(async () => sites?.ready());
afterAll(async () => sites?.close());

/** All that a coordinator could change at the target. */
async function targetState(group: GroupVolumes, { decider, target }: Cast) {
  const state = [];
  for (const agent of [decider, target]) {
    state.push({
      groups: await agent.rows("SELECT epoch, nonce, claimant, job, groupPoint, isTermLive FROM groups"),
      decisions: await agent.rows("SELECT groupPoint, epoch, isReleased FROM groupCommits ORDER BY groupPoint"),
      points: await agent.rows("SELECT owner, pointId, state FROM points ORDER BY owner, pointId"),
      votes: await agent.rows("SELECT owner, groupPoint, epoch FROM votes ORDER BY owner"),
    });
  }
  return { name: group.name, state };
}

needs("netns")(
  "a coordinator that was stopped past its lease changes nothing any more while the next one holds the term",
  async () => {
    const { group, cast } = await world();
    const snapshot = await group.writeAndSnapshot();
    const commits = await closeAtSources(group, { call: "peer.commitGroup", moment: "before" });
    const job = await group.begin(snapshot);
    const { agent: old, gate: commit } = await firstHeld(commits);
    const again = await old.close({ ...claiming(group), moment: "before" });
    await old.stop();
    // The next one has the term, and is held at its first order; others, at their claims. So only the old one's call can change anything.
    const next = await takeOverHeld(group, coordinatedBy(old, cast));
    const before = await targetState(group, cast);
    await old.goOn();
    for (const { gate } of commits) gate.open();
    expect(await commit.answered()).toBe("TermLost");
    const after = await targetState(group, cast);
    // Its term may have ended meanwhile; nobody was granted another one, and nothing was decided.
    expect(withoutLiveness(after)).toEqual(withoutLiveness(before));
    again.open();
    next.open();
    await group.succeeded(job);
    await group.check(snapshot);
  },
  testMsMax,
);

function claiming({ name }: GroupVolumes) {
  return { side: "calling", call: "peer.claimGroup", containing: name } as const;
}

/** Waits for another source agent to be granted the term, and holds what it says to the others then; and the claims of all others. */
async function takeOverHeld(group: GroupVolumes, { coordinator, decider }: Cast) {
  const others = group.volumes.map(({ source }) => source).filter((agent) => agent !== coordinator);
  const gates = await Promise.all(
    others.map(async (agent) => ({
      agent,
      gate: await agent.close({ ...claiming(group), moment: "before" }),
      granted: await agent.close({ ...claiming(group), moment: "after" }),
    })),
  );
  const next = await firstHeld(gates);
  next.gate.open();
  const granted = gates.find(({ agent }) => agent === next.agent)?.granted;
  await granted?.held();
  expect(await claimantOf(group, { decider })).toBe(next.agent.id);
  return {
    open: () => {
      for (const { gate, granted } of gates) for (const each of [gate, granted]) each.open();
    },
  };
}

function withoutLiveness(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value, (key, inner) => (key === "isTermLive" ? undefined : inner)));
}

const moments = {
  "before the decision is made": { at: "coordinator", moment: "before" },
  "after the decision, before anybody hears of it": { at: "decider", moment: "after" },
} as const;

for (const [when, { at, moment }] of Object.entries(moments)) {
  for (const first of ["the sources", "the members"] as const) {
    needs("netns")(
      `a group home that is cut off ${when}, and found again by ${first} first, loses no point and makes none twice`,
      async () => {
        const { sites, group, cast } = await world();
        const snapshot = await group.writeAndSnapshot();
        const previous = await group.newestArrived();
        const where = { call: "peer.commitGroup", moment } as const;
        const decisions =
          at === "decider"
            ? [{ agent: cast.decider, gate: await cast.decider.close({ side: "serving", ...where }) }]
            : await closeAtSources(group, where);
        const job = await group.begin(snapshot);
        await firstHeld(decisions);
        await cutOff(sites, cast.decider);
        for (const { gate } of decisions) gate.open();
        const isDecided = moment === "after";
        expect(await decisionOf(cast.decider, snapshot.groupPoint)).toBe(isDecided);
        await memberIsUndecided(group, cast.target);
        await group.checkEveryPoint();
        const sources = sites.source.agents.map(({ name }) => name);
        const members = sites.target.agents.filter((agent) => agent !== cast.decider).map(({ name }) => name);
        await sites.network.heal(first === "the sources" ? sources : members, [cast.decider.name]);
        if (first === "the members") {
          const outcome = isDecided ? snapshot.groupPoint : previous;
          await eventually(
            "the member learning of the decision",
            async () =>
              (await newestOf(group, cast.target)) === outcome && !(await hasVote(cast.target)) ? true : undefined,
            jobPatience,
          );
        } else {
          // The sources reach everybody, but the members of the target do not reach each other: so it stays for a while.
          await sleep(2 * leaseMs);
        }
        await group.checkEveryPoint();
        await sites.ready();
        await group.succeeded(job);
        await group.check(snapshot);
      },
      testMsMax,
    );
  }
}

async function cutOff({ agents, network }: Sites, from: GatedAgent): Promise<void> {
  const others = agents.filter((agent) => agent !== from).map(({ name }) => name);
  await network.cut([from.name], others);
}

async function decisionOf(decider: GatedAgent, groupPoint: string): Promise<boolean> {
  return (await decider.rows("SELECT 1 FROM groupCommits WHERE groupPoint = ?", groupPoint)).length > 0;
}

async function hasVote(agent: GatedAgent): Promise<boolean> {
  return (await agent.rows("SELECT 1 FROM votes")).length > 0;
}

/** Its copy is shown as undecided, and its newest point stays the previous one. */
async function memberIsUndecided(group: GroupVolumes, member: GatedAgent): Promise<void> {
  const copies = group.volumes.filter(({ target }) => target === member).map(({ uid }) => uid);
  await eventually(
    "the member being undecided",
    async () => {
      const { items } = await member.api.listMigratedVolumes();
      const own = items.filter(({ sourceVolumeUid }) => copies.includes(sourceVolumeUid));
      return own.every(({ state }) => state === "Undecided") ? true : undefined;
    },
    jobPatience,
  );
}

/** The group point of the newest point of the member's copies. */
async function newestOf(group: GroupVolumes, member: GatedAgent): Promise<string | undefined> {
  const { items } = await member.api.listMigratedVolumes();
  const uids = group.volumes.filter(({ target }) => target === member).map(({ uid }) => uid);
  const newest = items
    .filter(({ sourceVolumeUid }) => uids.includes(sourceVolumeUid))
    .map(({ points }) => points.at(-1)?.groupPoint);
  return newest.every((point) => point === newest[0]) ? newest[0] : undefined;
}
