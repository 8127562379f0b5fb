// The target of a group's job: one decider, members that vote, and a decision that holds for all of them or for none, whoever
// dies, falls silent or comes late.
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import { putCloneSet } from "../../src/wire/clone-set.ts";
import { openClusterClient } from "../../src/wire/cluster-client.ts";
import type { Cluster } from "../fakes/engines.ts";
import {
  copyAt,
  type Fault,
  flawsOf,
  type GroupHomes,
  GroupJob,
  id,
  type JobOptions,
  leaseMs,
  openGroupHomes,
  pass,
  until,
} from "../fakes/group-homes.ts";
import { backUp } from "../fakes/old-disk.ts";

const code = (expected: string) => expect.objectContaining({ code: expected });

async function codeFrom(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "done",
    (error: unknown) => (error instanceof LongshoreError ? error.code : String(error)),
  );
}

let world: GroupHomes;
beforeEach(async () => {
  world = await openGroupHomes();
});
afterEach(() => world.close());

/** A first group point, in full. */
async function first(): Promise<GroupJob> {
  const job = new GroupJob(world, { job: "first" });
  await job.run();
  return job;
}

/** The next job, a delta on that. */
function deltaOn(base: GroupJob, options: JobOptions = {}): GroupJob {
  return new GroupJob(world, { job: "second", bases: [base.toId(0), base.toId(1)], changed: [1], ...options });
}

const pointsAt = async (index: number) => (await copyAt(world, index)).points.map(({ pointId }) => pointId);
const statesOf = async () => Promise.all([0, 1].map(async (index) => (await copyAt(world, index)).state));

/** Past every lease, and on until nobody waits for a decision that can be had. */
async function outlast(): Promise<void> {
  await pass(world, 3 * leaseMs);
}

/** The API of one agent that sees all. */
function wholeCluster() {
  return openClusterClient({
    first: world.agents[0]?.engine.api as Cluster["engine"]["api"],
    open(address) {
      const agent = world.agents.find(({ name }) => address === `${name}:1`) as Cluster;
      return { ...agent.engine.api, close: async () => undefined };
    },
    onSilent: () => undefined,
  });
}

describe("a group over two homes", () => {
  test.each([
    ["one of them decides", 0],
    ["a third agent decides", 2],
  ] as const)("gets its point as one, when %s", async (_who, decider) => {
    await world.close();
    world = await openGroupHomes({ decider });
    const base = await first();
    const job = deltaOn(base);
    await job.run("prepared");
    expect(await statesOf()).toEqual(["Frozen", "Frozen"]);
    expect(await Promise.all([0, 1].map(pointsAt))).toEqual([[base.toId(0)], [base.toId(1)]]);
    await job.commitGroup();
    // Decided, and served nowhere before the member has heard of it.
    expect(await pointsAt(1)).toEqual([base.toId(1)]);
    await job.settle(0);
    await job.settle(1);
    await job.release(0);
    await job.release(1);
    await job.releaseGroup();
    for (const index of [0, 1]) {
      const copy = await copyAt(world, index);
      expect(copy).toMatchObject({ state: "Available", group: { name: "shop", home: world.idOf(world.decider) } });
      expect(copy.points.map(({ pointId, groupPoint }) => [pointId, groupPoint])).toEqual([
        [base.toId(index), base.groupPoint],
        [job.toId(index), job.groupPoint],
      ]);
    }
    expect(await flawsOf(world)).toEqual([]);
    const { items } = await world.decider.engine.api.listGroups();
    expect(items).toMatchObject([{ name: "shop", source: "source", state: "Idle", job: "second", epoch: 2 }]);
    expect(items[0]?.points.map(({ groupPoint }) => groupPoint)).toEqual([base.groupPoint, job.groupPoint]);
  });

  test("has its empty delta in the file of its base, which is held while the vote waits", async () => {
    const base = await first();
    const job = deltaOn(base, { changed: [] });
    await job.run("prepared");
    expect((await copyAt(world, 0)).points[0]?.holds).toMatchObject([{ reason: "job" }]);
    await world.crash(world.agents[1] as Cluster);
    await job.commitGroup();
    await job.settle(0);
    await job.settle(1);
    await job.release(0);
    await job.release(1);
    expect(await Promise.all([0, 1].map(pointsAt))).toEqual([
      [base.toId(0), job.toId(0)],
      [base.toId(1), job.toId(1)],
    ]);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("is not committed one volume at a time", async () => {
    const job = new GroupJob(world);
    await job.run("stored");
    expect(await codeFrom(job.peerOf(0).commit(job.target(0), job.prepareRequest(0)))).toBe("BadRequest");
    expect(await pointsAt(0)).toEqual([]);
  });
});

describe("an agent that dies at a call of the protocol", () => {
  const callsOfARun = 21;

  test("finds all calls of a run in the list that is gone through", async () => {
    const job = new GroupJob(world);
    await job.run();
    expect(job.calls).toHaveLength(callsOfARun);
  });

  const rows = Array.from({ length: callsOfARun }, (_, index) => index + 1).flatMap((call) =>
    (["before", "lostReply"] as const).map((how) => [call, how] as const),
  );

  const lostReplies = rows.filter(([, how]) => how === "lostReply");

  async function interrupted(call: number, how: Fault): Promise<{ base: GroupJob; job: GroupJob }> {
    const base = await first();
    const job = deltaOn(base);
    job.fault = { call, how };
    await expect(job.run()).rejects.toEqual(code("Unreachable"));
    return { base, job };
  }

  // What a delta needs of calls is as many as a first copy: its runs are of the same length.
  test.each(rows)("leaves nothing undone once its coordinator goes on (call %i, %s)", async (call, how) => {
    const { base, job } = await interrupted(call, how);
    await job.again().finish();
    expect(await Promise.all([0, 1].map(pointsAt))).toEqual([
      [base.toId(0), job.toId(0)],
      [base.toId(1), job.toId(1)],
    ]);
    expect(await flawsOf(world)).toEqual([]);
  });

  // Before a call, for a target that is left alone, is as after the one before.
  test.each(lostReplies)(
    "and whose coordinator dies too leaves all or nothing, and the next job goes on (call %i, %s)",
    async (call, how) => {
      const { base, job } = await interrupted(call, how);
      await outlast();
      const there = await Promise.all([0, 1].map(async (index) => (await pointsAt(index)).includes(job.toId(index))));
      expect(there[0]).toBe(there[1]);
      expect(await flawsOf(world)).toEqual([]);
      const next = deltaOn(there[0] ? job : base, { job: "third", claimant: "agent-b" });
      await next.finish();
      expect(await Promise.all([0, 1].map(async (index) => (await pointsAt(index)).at(-1)))).toEqual([
        next.toId(0),
        next.toId(1),
      ]);
      expect(await flawsOf(world)).toEqual([]);
    },
  );

  test("between sealing and voting has not voted, and votes when it is asked again", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("stored");
    const home = world.agents[1] as Cluster;
    home.onStorage = (step, when) => {
      if (step === "seal" && when === "after") throw new LongshoreError("Unreachable", "died");
    };
    await job.prepare(0);
    expect(await codeFrom(job.prepare(1))).toBe("Unreachable");
    home.onStorage = () => undefined;
    await world.crash(home);
    expect((await job.report(1))?.prepared).toBeUndefined();
    expect((await job.report(0))?.prepared).toEqual({ groupPoint: job.groupPoint, epoch: job.term.epoch });
    await job.again().finish();
    expect(await flawsOf(world)).toEqual([]);
  });
});

describe("two coordinators at once", () => {
  test("the second waits for the lease of the first, unless it goes on with the same job for the same agent", async () => {
    const job = new GroupJob(world);
    await job.run("stored");
    expect(await codeFrom(job.again("agent-b").claimGroup())).toBe("LeaseHeld");
    expect(await codeFrom(new GroupJob(world, { job: "other" }).claimGroup())).toBe("LeaseHeld");
    const next = await job.again().claimGroup();
    expect(next.term.epoch).toBe(job.term.epoch + 1);
  });

  test("the same claim again gets the same grant", async () => {
    const job = new GroupJob(world);
    const { term } = await job.claimGroup("1".repeat(32));
    expect((await job.claimGroup("1".repeat(32))).term).toEqual(term);
    expect((await job.claimGroup("2".repeat(32))).term.epoch).toBe(term.epoch + 1);
  });

  test("the first one, silent past its lease and back, changes nothing at the decider or any member (I5)", async () => {
    const base = await first();
    const old = deltaOn(base);
    await old.run("prepared");
    await outlast();
    const next = deltaOn(base, { job: "third", claimant: "agent-b" });
    await next.run("stored");
    const before = await Promise.all([copyAt(world, 0), copyAt(world, 1), next.report(0), next.report(1)]);
    const late: Record<string, Promise<unknown>> = {
      commitGroup: old.commitGroup(),
      abortGroup: old.abortGroup(),
      releaseGroup: old.releaseGroup(),
      claim: old.claim(0),
      putPlan: old.plan(0),
      freeze: old.peerOf(0).freeze(old.target(0)),
      prepare: old.prepare(1),
      abort: old.peerOf(1).abort(old.target(1), { discard: true }),
      release: old.release(1),
    };
    for (const [what, call] of Object.entries(late)) expect([what, await codeFrom(call)]).toEqual([what, "TermLost"]);
    await old.settle(0);
    expect(await Promise.all([copyAt(world, 0), copyAt(world, 1), next.report(0), next.report(1)])).toEqual(before);
    await next.prepare(0);
    await next.prepare(1);
    await next.commitGroup();
    await next.again("agent-b").finish();
    expect(await pointsAt(0)).toEqual([base.toId(0), next.toId(0)]);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("a member takes over no term that is not above all it has seen, and says what it has seen", async () => {
    const job = new GroupJob(world);
    await job.run();
    const { uid } = world.parts[0];
    const alone = { job: "alone", volume: uid, name: "data-0", metadata: {}, sizeBytes: 65_536, claimant: "agent-c" };
    const { term } = await job.peerOf(0).claim({ ...alone, nonce: id(), offeredEpoch: 40 });
    await job.peerOf(0).abort({ volume: uid, term }, { discard: false });
    const next = deltaOn(job);
    await next.claimGroup();
    await expect(next.claim(0)).rejects.toThrow(/41/);
    await next.run();
    expect(next.term.epoch).toBe(42);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("the group's lease is renewed by whatever is asked of the decider", async () => {
    const job = new GroupJob(world);
    await job.run("prepared");
    for (let round = 0; round < 3; round++) {
      await pass(world, leaseMs - 1_000);
      await world.peer(world.decider).renewGroup({ group: "shop", term: job.term });
    }
    expect((await job.commitGroup()).epoch).toBe(job.term.epoch);
  });
});

describe("the decision", () => {
  test("is made once: again it is the same, and another is refused", async () => {
    const job = new GroupJob(world);
    await job.run("prepared");
    const target = { group: "shop", term: job.term };
    const [member] = job.members;
    if (member === undefined) throw new Error("a group without members");
    const other = { ...job.prepareRequest(0), members: [{ ...member, planDigest: "0".repeat(64) }] };
    const { decider } = job;
    const wrong = { groupPoint: id(), members: job.members };
    expect(await codeFrom(decider.commitGroup(target, wrong))).toBe("PlanMismatch");
    const record = await job.commitGroup();
    expect(await job.commitGroup()).toEqual(record);
    const { groupPoint, members } = other;
    expect(await codeFrom(decider.commitGroup(target, { groupPoint, members }))).toBe("PlanMismatch");
    // What is committed cannot be taken back.
    expect(await codeFrom(job.abortGroup())).toBe("Conflict");
    await job.releaseGroup();
    expect(await job.commitGroup()).toEqual(record);
  });

  test("is not made under a term that was aborted, and members that ask are told so", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("prepared");
    await job.abortGroup();
    expect(await codeFrom(job.commitGroup())).toBe("TermLost");
    expect((await job.settle(0))?.prepared).toBeUndefined();
    expect((await job.settle(1))?.prepared).toBeUndefined();
    expect(await statesOf()).toEqual(["Available", "Available"]);
    expect(await pointsAt(0)).toEqual([base.toId(0)]);
    // What was stored stays, and the next job has nothing to send again.
    expect((await job.report(0))?.staging?.stored).toEqual([[0, 0]]);
  });

  test("against it a coordinator ends its terms at the members with one call, and drops what is staged", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("prepared");
    expect(await codeFrom(job.peerOf(1).abort(job.target(1), { discard: true }))).toBe("Undecided");
    expect(await codeFrom(job.release(1))).toBe("Undecided");
    expect((await job.report(1))?.prepared).toBeDefined();
    await job.abortGroup();
    for (const index of [0, 1]) {
      await job.peerOf(index).abort(job.target(index), { discard: true });
      expect(await job.report(index)).toMatchObject({ staging: null, barrier: "None", epoch: job.term.epoch });
    }
    expect(await flawsOf(world)).toEqual([]);
  });
});

describe("a member that has not voted", () => {
  test("ends its term by itself when its coordinator is silent, and one that has waits for the decider's lease", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("stored");
    await job.prepare(0);
    const clone = await world.parts[0].home.engine.api.putClone("c", {
      migratedVolume: (await copyAt(world, 0)).name,
      point: "latest",
    });
    expect(clone.state).toBe("Waiting");
    await outlast();
    expect(await statesOf()).toEqual(["Available", "Available"]);
    // Its image is made after that, on a disk.
    const served = () => world.parts[0].home.engine.api.getClone("c");
    await until(world, async () => (await served()).state === "Ready");
    expect(await served()).toMatchObject({ pointId: base.toId(0) });
    expect(await flawsOf(world)).toEqual([]);
  });
});

describe("a member that has voted, and whose decider is away", () => {
  let base: GroupJob;
  let job: GroupJob;
  beforeEach(async () => {
    await world.close();
    world = await openGroupHomes({ decider: 2 });
    base = await first();
    job = deltaOn(base);
    await job.run("prepared");
  });

  test("waits as Undecided however long it takes: frozen, its staging kept, and no other job let in (I2, I5)", async () => {
    await world.decider.stop();
    await pass(world, 8 * leaseMs);
    expect(await statesOf()).toEqual(["Undecided", "Undecided"]);
    const { home } = world.parts[0];
    const { name } = await copyAt(world, 0);
    const clone = await home.engine.api.putClone("c", { migratedVolume: name, point: "latest" });
    expect(clone.state).toBe("Waiting");
    expect((await home.engine.api.putClone("d", { migratedVolume: name, point: base.toId(0) })).state).toBe("Waiting");
    expect(await codeFrom(home.engine.api.removeMigratedVolume(name))).toBe("Undecided");
    const { uid } = world.parts[0];
    const alone = { job: "alone", volume: uid, name: "data-0", metadata: {}, sizeBytes: 65_536, claimant: "agent-c" };
    const claim = { ...alone, nonce: id(), offeredEpoch: 90 };
    expect(await codeFrom(job.peerOf(0).claim(claim))).toBe("LeaseHeld");
    const other = { name: "other", home: world.idOf(home), term: { epoch: 99, nonce: id() } };
    expect(await codeFrom(job.peerOf(0).claim({ ...claim, group: other }))).toBe("LeaseHeld");
    const moved = { ...other, name: "shop" };
    expect(await codeFrom(job.peerOf(0).claim({ ...claim, group: moved }))).toBe("LeaseHeld");
    await world.crash(home);
    await pass(world, 8 * leaseMs);
    expect(await statesOf()).toEqual(["Undecided", "Undecided"]);
    expect((await job.report(0))?.prepared).toEqual({ groupPoint: job.groupPoint, epoch: job.term.epoch });
    expect((await job.report(0))?.staging?.stored).toEqual([[0, 0]]);
  });

  test.each([
    ["commits when it was committed", true],
    ["aborts when it was not", false],
  ])("%s, once the decider is back, and serves who waits then", async (_what, isCommitted) => {
    if (isCommitted) await job.commitGroup();
    await world.decider.stop();
    const { home } = world.parts[1];
    const clone = { migratedVolume: (await copyAt(world, 1)).name, point: "latest" as const };
    await home.engine.api.putClone("c", clone);
    await pass(world, 2 * leaseMs);
    expect(await statesOf()).toEqual(["Undecided", "Undecided"]);
    expect((await home.engine.api.getClone("c")).state).toBe("Waiting");
    await world.decider.start();
    await outlast();
    expect(await statesOf()).toEqual(["Available", "Available"]);
    const expected = isCommitted ? job.toId(1) : base.toId(1);
    expect((await pointsAt(1)).at(-1)).toBe(expected);
    expect((await home.engine.api.getClone("c")).pointId).toBe(expected);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("does what was decided after a restart of its own, with what it had sealed untouched", async () => {
    await job.commitGroup();
    for (const { home } of world.parts) await home.stop();
    for (const { home } of world.parts) await home.start();
    expect(await statesOf()).toEqual(["Frozen", "Frozen"]);
    const images = await world.parts[0].home.storage.list();
    expect(images.map(({ point }) => point)).toContain(job.toId(0));
    await job.settle(0);
    await job.settle(1);
    await outlast();
    expect(await Promise.all([0, 1].map(pointsAt))).toEqual([
      [base.toId(0), job.toId(0)],
      [base.toId(1), job.toId(1)],
    ]);
    expect(await flawsOf(world)).toEqual([]);
  });

  async function forgetDecider(): Promise<void> {
    await world.decider.stop();
    await pass(world, 2 * leaseMs);
    await world.agents[0]?.engine.api.forgetMember(world.idOf(world.decider));
  }

  test("commits with the others when the decider is forgotten and one of them has heard of the commit", async () => {
    await job.commitGroup();
    await job.settle(0);
    await forgetDecider();
    await outlast();
    expect(await Promise.all([0, 1].map(pointsAt))).toEqual([
      [base.toId(0), job.toId(0)],
      [base.toId(1), job.toId(1)],
    ]);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("aborts when the decider is forgotten and all have voted, but none has heard of a commit", async () => {
    await forgetDecider();
    await outlast();
    expect(await Promise.all([0, 1].map(pointsAt))).toEqual([[base.toId(0)], [base.toId(1)]]);
    expect(await flawsOf(world)).toEqual([]);
    // The group has a new home then, and goes on there.
    Object.assign(world, { decider: world.agents[1] });
    const next = deltaOn(base, { job: "third", claimant: "agent-b" });
    await next.finish();
    expect(await Promise.all([0, 1].map(async (index) => (await pointsAt(index)).at(-1)))).toEqual([
      next.toId(0),
      next.toId(1),
    ]);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("waits when the decider is forgotten and another member, which may know, does not answer", async () => {
    await job.commitGroup();
    await job.settle(1);
    await world.parts[1].home.stop();
    await forgetDecider();
    await outlast();
    expect((await copyAt(world, 0)).state).toBe("Undecided");
    await world.parts[1].home.start();
    await outlast();
    expect((await pointsAt(0)).at(-1)).toBe(job.toId(0));
    expect(await flawsOf(world)).toEqual([]);
  });

  test("aborts when the decider and the other member are both forgotten", async () => {
    await world.parts[1].home.stop();
    await forgetDecider();
    await world.agents[0]?.engine.api.forgetMember(world.idOf(world.parts[1].home));
    await outlast();
    expect(await copyAt(world, 0)).toMatchObject({ state: "Available" });
    expect(await pointsAt(0)).toEqual([base.toId(0)]);
  });
});

describe("an answer of the decider that comes late", () => {
  /** Keeps the decider's answers to `from` back from now on; returns what lets them go. */
  function heldAnswers(): { asked: Promise<void>; release: () => void } {
    const gate = Promise.withResolvers<void>();
    const asked = Promise.withResolvers<void>();
    world.decider.onMemberReply = async (method) => {
      if (method !== "decision") return;
      asked.resolve();
      await gate.promise;
    };
    return { asked: asked.promise, release: () => gate.resolve() };
  }

  test("to an older vote changes nothing about a newer one", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("prepared");
    await job.abortGroup();
    const held = heldAnswers();
    const settling = job.settle(1);
    await held.asked;
    world.decider.onMemberReply = () => undefined;
    const next = job.again();
    await next.run("prepared");
    held.release();
    expect((await settling)?.prepared).toEqual({ groupPoint: job.groupPoint, epoch: next.term.epoch });
    expect((await copyAt(world, 1)).state).toBe("Frozen");
    await next.commitGroup();
    await next.again().finish();
    expect((await pointsAt(1)).at(-1)).toBe(job.toId(1));
    expect(await flawsOf(world)).toEqual([]);
  });

  test("to a vote does not end a term that was granted meanwhile", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("prepared");
    await job.abortGroup();
    const held = heldAnswers();
    const settling = job.settle(1);
    await held.asked;
    world.decider.onMemberReply = () => undefined;
    const next = job.again();
    await next.offer();
    await next.claimGroup();
    await next.claim(1);
    held.release();
    await settling;
    expect((await next.report(1))?.epoch).toBe(next.term.epoch);
    await next.peerOf(1).renew(next.target(1));
  });

  test("that is the same twice makes one point", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("committed");
    const held = heldAnswers();
    const both = [job.settle(1), job.settle(1)];
    await held.asked;
    held.release();
    for (const report of await Promise.all(both)) expect(report?.commits.at(-1)?.toId).toBe(job.toId(1));
    expect(await pointsAt(1)).toEqual([base.toId(1), job.toId(1)]);
  });
});

test("a lost point that is sent again does not count by the file that is voted for: inodes are used again", async () => {
  const base = await first();
  const job = deltaOn(base);
  await job.run("prepared");
  const { home } = world.parts[1];
  await home.stop();
  const database = new DatabaseSync(join(home.folder, "state.db"));
  database
    .prepare(
      `INSERT INTO points (owner, pointId, generation, state, file, sizeBytes, sourceTime, inode, fsUuid, position)
       SELECT owner, ?1, 9, 'lost', ?1, 65536, 0, sealedJson ->> 'inode', sealedJson ->> 'fsUuid', 0 FROM votes`,
    )
    .run(job.toId(1));
  database.close();
  await home.start();
  expect((await job.report(1))?.points.map(({ pointId }) => pointId)).toEqual([base.toId(1)]);
  await job.commitGroup();
  await job.settle(1);
  expect(await pointsAt(1)).toEqual([base.toId(1), job.toId(1)]);
});

describe("a vote that a later term meets", () => {
  test("is given again as it is, for the same plan", async () => {
    const job = new GroupJob(world);
    await job.run("prepared");
    const next = job.again();
    await next.run("stored");
    // What is sealed is not opened for writing again.
    expect(await codeFrom(next.peerOf(0).laneTicket(next.target(0), { lane: 0, transport: "tls" }))).toBe("StreamTorn");
    expect((await next.report(0))?.prepared).toEqual({ groupPoint: job.groupPoint, epoch: job.term.epoch });
    for (const index of [0, 1]) await next.prepare(index);
    expect((await next.report(0))?.prepared).toEqual({ groupPoint: job.groupPoint, epoch: next.term.epoch });
    await next.commitGroup();
    await next.again().finish();
    expect(await flawsOf(world)).toEqual([]);
  });

  test("gives way to another plan of the same group point, but not under its own term", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("prepared");
    const { groupPoint } = job;
    const toIds = [job.toId(0), job.toId(1)];
    const full = new GroupJob(world, { job: "second", groupPoint, toIds, changed: [0, 1, 2, 3] });
    full.term = job.term;
    expect(await codeFrom(full.plan(0))).toBe("PlanMismatch");
    expect((await job.report(0))?.prepared).toBeDefined();
    await full.finish();
    expect((await full.report(0))?.commits.at(-1)).toMatchObject({ toId: job.toId(0), baseId: null });
    expect(await flawsOf(world)).toEqual([]);
  });

  test("is given up when an old disk has taken the image it vouches for, which is then sent again", async () => {
    const job = new GroupJob(world);
    await job.run("prepared");
    const { storage } = world.parts[0].home;
    for (const image of await storage.list()) {
      if (image.point === job.toId(0)) await storage.deletePoint(image.volume, image.point);
    }
    const next = job.again();
    await next.run("stored");
    expect(await codeFrom(next.prepare(0))).toBe("PlanMismatch");
    expect((await next.report(0))?.prepared).toBeUndefined();
    await next.again().finish();
    expect(await pointsAt(0)).toEqual([job.toId(0)]);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("is settled before a plan for another group point is taken", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("committed");
    const heal = await outlastButNotSettle();
    const next = deltaOn(job, { job: "third", claimant: "agent-b" });
    await next.offer();
    await next.claimGroup();
    await next.claim(1);
    // Whoever claims it, it stays frozen: what it has sealed may be the newest point already (I2).
    const { api } = world.parts[1].home.engine;
    const asked = { migratedVolume: (await copyAt(world, 1)).name, point: "latest" as const };
    expect((await api.putClone("c", asked)).state).toBe("Waiting");
    expect(await codeFrom(next.plan(1))).toBe("LeaseHeld");
    heal();
    await next.settle(1);
    await until(world, async () => (await api.getClone("c")).state === "Ready");
    expect((await api.getClone("c")).pointId).toBe(job.toId(1));
    await next.finish();
    expect(await pointsAt(1)).toEqual([base.toId(1), job.toId(1), next.toId(1)]);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("is void once a term for another group point was granted, so that neither job waits for the other", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("prepared");
    const heal = await outlastButNotSettle();
    const next = deltaOn(base, { job: "third", claimant: "agent-b" });
    await next.offer();
    await next.claimGroup();
    await next.claim(1);
    expect(await codeFrom(next.plan(1))).toBe("LeaseHeld");
    heal();
    expect((await next.settle(1))?.prepared).toBeUndefined();
    // Its own term goes on.
    await next.plan(1);
    await next.finish();
    expect(await pointsAt(1)).toEqual([base.toId(1), next.toId(1)]);
    expect(await flawsOf(world)).toEqual([]);
  });

  /** Members cannot ask the decider until it is healed, so that the next job finds their votes. */
  async function outlastButNotSettle(): Promise<() => void> {
    const { decider } = world;
    decider.onMemberCall = (method) => {
      if (method === "decision") throw new LongshoreError("Unreachable", "cut off");
    };
    await outlast();
    expect((await copyAt(world, 1)).state).toBe("Undecided");
    return () => {
      decider.onMemberCall = () => undefined;
    };
  }
});

describe("an agent that comes back on an old disk", () => {
  let base: GroupJob;
  beforeEach(async () => {
    await world.close();
    world = await openGroupHomes({ decider: 2 });
    base = await first();
  });

  test("and that decides is not believed about terms it does not remember: who has heard of the commit decides", async () => {
    const old = await backUp(world.decider);
    const job = deltaOn(base);
    await job.run("committed");
    await job.settle(0);
    await old.restore();
    await outlast();
    expect(await Promise.all([0, 1].map(pointsAt))).toEqual([
      [base.toId(0), job.toId(0)],
      [base.toId(1), job.toId(1)],
    ]);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("and that decides does not keep votes for ever that nobody has heard a decision of", async () => {
    const old = await backUp(world.decider);
    const job = deltaOn(base);
    await job.run("prepared");
    await old.restore();
    await outlast();
    expect(await statesOf()).toEqual(["Available", "Available"]);
    const next = deltaOn(base, { job: "third", claimant: "agent-b" });
    await next.finish();
    expect(await pointsAt(1)).toEqual([base.toId(1), next.toId(1)]);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("with a vote that was overtaken does not wait for ever: the point was committed by another plan, and comes anew", async () => {
    const job = deltaOn(base);
    await job.run("prepared");
    const old = await backUp(world.parts[1].home);
    const { groupPoint } = job;
    const toIds = [job.toId(0), job.toId(1)];
    const full = new GroupJob(world, { job: "second", groupPoint, toIds, changed: [0, 1, 2, 3] });
    await full.finish();
    await old.restore();
    await outlast();
    expect((await copyAt(world, 1)).state).toBe("Available");
    expect(await pointsAt(1)).toEqual([base.toId(1)]);
    const next = new GroupJob(world, { job: "third", claimant: "agent-b" });
    await next.finish();
    expect((await pointsAt(1)).at(-1)).toBe(next.toId(1));
    expect(await flawsOf(world)).toEqual([]);
  });
});

describe("what nobody needs any more", () => {
  /** As many rows as an agent has of that kind. */
  async function count(agent: Cluster, table: string): Promise<number> {
    await agent.stop();
    const database = new DatabaseSync(join(agent.folder, "state.db"), { readOnly: true });
    const row = database.prepare(`SELECT count(*) AS n FROM ${table}`).get() as { n: number };
    database.close();
    await agent.start();
    return row.n;
  }

  test("a decision whose release was lost is kept no longer than others, once its members have voted again", async () => {
    const lost = new GroupJob(world, { job: "lost" });
    await lost.run("committed");
    for (const index of [0, 1]) await lost.settle(index);
    for (const index of [0, 1]) await lost.release(index);
    // The group's term is never released: it ends with its lease.
    await outlast();
    let last = lost;
    for (let round = 1; round <= 17; round++) {
      last = deltaOn(last, { job: `job-${round}`, claimant: "agent-b" });
      await last.run();
    }
    const { items } = await world.decider.engine.api.listGroups();
    expect(items[0]?.points.at(-1)?.groupPoint).toBe(last.groupPoint);
    expect(await count(world.decider, "groupCommits")).toBe(16);
  });

  test("a decision that a member may still ask for stays, however many come after it", async () => {
    const lost = new GroupJob(world, { job: "lost" });
    await lost.run("committed");
    await lost.settle(0);
    await lost.release(0);
    await outlast();
    const { decider } = world;
    const uids = world.parts.map(({ uid }) => uid);
    const target = async (round: number) => {
      const claim = { group: "shop", job: `job-${round}`, groupPoint: id(), claimant: "agent-b", nonce: id() };
      const { term } = await world.peer(decider).claimGroup({ ...claim, offeredEpoch: 0 });
      return { term, groupPoint: claim.groupPoint };
    };
    // The second volume has left the group: what was decided of it last is not known to have been heard.
    for (let round = 1; round <= 17; round++) {
      const { term, groupPoint } = await target(round);
      const part = { volume: uids[0] ?? "", agentId: world.idOf(decider), baseId: null, toId: id() };
      const members = [{ ...part, planDigest: "d".repeat(64) }];
      await world.peer(decider).commitGroup({ group: "shop", term }, { groupPoint, members });
      await world.peer(decider).releaseGroup({ group: "shop", term });
    }
    expect(await count(decider, "groupCommits")).toBe(17);
  });

  test("a group of which no copy is left is forgotten after a while, and can come again", async () => {
    await first();
    await pass(world, 8 * leaseMs);
    expect((await world.decider.engine.api.listGroups()).items).toHaveLength(1);
    for (const [index, { home }] of world.parts.entries()) {
      await home.engine.api.removeMigratedVolume((await copyAt(world, index)).name);
    }
    await pass(world, 8 * leaseMs);
    await until(world, async () => (await world.decider.engine.api.listGroups()).items.length === 0);
    expect(await count(world.decider, "groupCommits")).toBe(0);
    const again = await first();
    expect(await pointsAt(0)).toEqual([again.toId(0)]);
    expect(await flawsOf(world)).toEqual([]);
  });

  test("a home that was chosen and that nobody has made use of is chosen anew", async () => {
    const [roomy, ...others] = world.agents as readonly [Cluster, ...Cluster[]];
    const locate = async () => {
      const volumes = [{ volume: "volume-9", sizeBytes: 65_536 }];
      return (await world.peer(world.decider).locate({ volumes })).homes[0]?.agentId;
    };
    roomy.freeBytes = 2 ** 30;
    for (const other of others) other.freeBytes = 2 ** 20;
    expect(await locate()).toBe(world.idOf(roomy));
    roomy.freeBytes = 0;
    // Whoever has been told may be about to go there.
    await pass(world, leaseMs);
    expect(await locate()).toBe(world.idOf(roomy));
    await pass(world, 7 * leaseMs);
    for (const agent of world.agents) expect(await count(agent, "placements")).toBe(0);
    await pass(world, 2_000);
    expect(await locate()).not.toBe(world.idOf(roomy));
  });
});

describe("a volume that leaves its group", () => {
  test("is migrated alone above every epoch of the group, and joins another group above its own", async () => {
    const base = await first();
    const { uid } = world.parts[1];
    const peer = base.peerOf(1);
    const alone = { job: "alone", volume: uid, name: "data-1", metadata: {}, sizeBytes: 65_536, claimant: "agent-c" };
    const { term } = await peer.claim({ ...alone, nonce: id(), offeredEpoch: 0 });
    expect(term.epoch).toBeGreaterThan(base.term.epoch);
    expect((await copyAt(world, 1)).group).toBeUndefined();
    await peer.abort({ volume: uid, term }, { discard: false });
    const other = { name: "other", home: world.idOf(world.agents[2] as Cluster) };
    const low = { ...other, term: { epoch: term.epoch, nonce: id() } };
    expect(await codeFrom(peer.claim({ ...alone, nonce: id(), offeredEpoch: 0, group: low }))).toBe("TermLost");
    const high = { ...other, term: { epoch: term.epoch + 1, nonce: id() } };
    const grant = await peer.claim({ ...alone, nonce: id(), offeredEpoch: 0, group: high });
    expect(grant).toMatchObject({ term: high.term, report: { group: other, epoch: high.term.epoch } });
  });

  test("with a live term of its own is not taken by the group before that has ended", async () => {
    const base = await first();
    const { uid } = world.parts[1];
    const alone = { job: "alone", volume: uid, name: "data-1", metadata: {}, sizeBytes: 65_536, claimant: "agent-c" };
    await base.peerOf(1).claim({ ...alone, nonce: id(), offeredEpoch: 0 });
    const next = deltaOn(base);
    expect(await codeFrom(next.run())).toBe("LeaseHeld");
    await outlast();
    await next.again().finish();
    expect(await flawsOf(world)).toEqual([]);
  });
});

describe("clones of a group point", () => {
  test("are of it by each volume's part, wait for a vote to be decided, and are refused for what is not there", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("committed");
    await job.settle(0);
    const specOf = async (index: number, point: string) => ({
      migratedVolume: (await copyAt(world, index)).name,
      point,
    });
    const [one, two] = world.parts;
    const ready = await one.home.engine.api.putClone("c-0", await specOf(0, job.groupPoint));
    expect(ready).toMatchObject({ state: "Ready", pointId: job.toId(0) });
    const waiting = await two.home.engine.api.putClone("c-1", await specOf(1, job.groupPoint));
    expect(waiting).toMatchObject({ state: "Waiting", pointId: null });
    await job.settle(1);
    await until(world, async () => (await two.home.engine.api.getClone("c-1")).state === "Ready");
    expect(await two.home.engine.api.getClone("c-1")).toMatchObject({ pointId: job.toId(1) });
    const older = await two.home.engine.api.putClone("c-2", await specOf(1, base.groupPoint));
    expect(older).toMatchObject({ state: "Ready", pointId: base.toId(1) });
    expect(await codeFrom(two.home.engine.api.putClone("c-3", await specOf(1, id())))).toBe("PointGone");
  });

  test("that waited for one that was aborted are told so when they are asked for again", async () => {
    const base = await first();
    const job = deltaOn(base);
    await job.run("prepared");
    const { api } = world.parts[1].home.engine;
    const spec = { migratedVolume: (await copyAt(world, 1)).name, point: job.groupPoint };
    expect((await api.putClone("c", spec)).state).toBe("Waiting");
    await job.abortGroup();
    await job.settle(1);
    expect(await codeFrom(api.putClone("c", spec))).toBe("PointGone");
  });

  test("come as a set, and asked for again as the same set though the newest has moved", async () => {
    const base = await first();
    const api = wholeCluster();
    const asked = { name: "test", group: "shop", point: "latest" };
    const set = await putCloneSet(api, asked);
    expect(set.groupPoint).toBe(base.groupPoint);
    expect(set.clones.map(({ name, state, pointId }) => [name, state, pointId])).toEqual([
      ["test-data-0", "Ready", base.toId(0)],
      ["test-data-1", "Ready", base.toId(1)],
    ]);
    const job = deltaOn(base);
    await job.run();
    // One of them was lost on the way: it comes as of the same moment.
    await api.removeClone("test-data-1");
    const again = await putCloneSet(api, asked);
    expect(again.clones.map(({ pointId }) => pointId)).toEqual([base.toId(0), base.toId(1)]);
    expect((await putCloneSet(api, { ...asked, name: "later" })).groupPoint).toBe(job.groupPoint);
    expect((await putCloneSet(api, { ...asked, name: "older", point: base.groupPoint })).groupPoint).toBe(
      base.groupPoint,
    );
    await expect(putCloneSet(api, { ...asked, point: job.groupPoint })).rejects.toEqual(code("NameTaken"));
    await expect(putCloneSet(api, { ...asked, name: "none", point: id() })).rejects.toEqual(code("PointGone"));
    await expect(putCloneSet(api, { ...asked, group: "none" })).rejects.toEqual(code("NotFound"));
  });
});
