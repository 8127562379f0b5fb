// Who may change a migrated volume: terms, leases and epochs at the target, seen by a coordinator that is silent, late,
// doubled, or cut off after it asked to commit.
import { randomBytes } from "node:crypto";
import { afterEach, beforeEach, describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { Claim, Grant, PeerApi, PeerTarget, PlanHeader } from "../../src/wire/peer.ts";
import type { MigratedVolumeView } from "../../src/wire/schemas.ts";
import { restart } from "../fakes/engines.ts";
import { FakeClock } from "../fakes/fake-clock.ts";
import {
  changeVolume,
  copyOf,
  ended,
  flaws,
  leftovers,
  makeVolume,
  migrate,
  openWorld,
  reaches,
  requireCopy,
  settled,
  snapshot,
  start,
  type World,
} from "../fakes/migration-world.ts";

const leaseMs = 10_000;
const code = (expected: string) => expect.objectContaining({ code: expected });

async function codeFrom(work: Promise<unknown>): Promise<string> {
  return work.then(
    () => "done",
    (error: unknown) => (error instanceof LongshoreError ? error.code : String(error)),
  );
}

describe("a coordinator that falls silent", () => {
  let world: World;
  let clock: FakeClock;
  let claimant: string;
  beforeEach(async () => {
    clock = new FakeClock();
    world = await openWorld({ clock, limits: { leaseMs } });
    claimant = (await world.source.engine.api.describe()).agentId;
  });
  afterEach(() => world.clusters.close());

  /** The protocol as the source cluster uses it, by hand. */
  const peer = (): PeerApi => world.target.engine.peer(world.source.uid, ["source"]);

  const claimOf = (volume: string, fields: Partial<Claim> = {}): Claim => ({
    job: "job",
    volume,
    name: "data",
    metadata: {},
    sizeBytes: 65_536,
    claimant: "agent-a",
    nonce: randomBytes(16).toString("hex"),
    offeredEpoch: 0,
    ...fields,
  });

  const headerOf = (toId: string): PlanHeader => ({
    job: "job",
    baseId: null,
    to: { pointId: toId, generation: 1, sourceTime: "2026-01-01T00:00:00.000Z", sizeBytes: 65_536 },
    mode: { kind: "Allocated", reason: "FirstCopy" },
    unitCount: 1,
    bytesData: 4096,
    bytesPunched: 0,
    planDigest: "0".repeat(64),
    diverged: false,
  });

  /** A transfer by hand, frozen in the middle, over a first point that was migrated in full. */
  async function frozen(): Promise<{ target: PeerTarget; grant: Grant; toId: string; copy: MigratedVolumeView }> {
    await makeVolume(world, "data");
    await snapshot(world, "data", "s1");
    const job = await start(world, "data", "s1");
    await ended(world.source, job);
    await changeVolume(world, "data");
    const { pointId } = await snapshot(world, "data", "s2");
    world.target.onCall = (method) => {
      if (method === "store") throw new LongshoreError("Unreachable", "cut off");
    };
    await start(world, "data", "s2");
    await until(async () => (await copyOf(world, "data"))?.state === "Frozen");
    await world.source.stop();
    world.target.onCall = () => undefined;
    const copy = await requireCopyByHand();
    const volume = copy.sourceVolumeUid;
    const grant = await peer().claim(claimOf(volume, { job: copy.transfer?.job ?? "job", claimant }));
    return { target: { volume, term: grant.term }, grant, toId: pointId, copy };
  }

  async function requireCopyByHand(): Promise<MigratedVolumeView> {
    const { items } = await world.target.engine.api.listMigratedVolumes();
    return items[0] as MigratedVolumeView;
  }

  /** Lets whatever can happen without time happen until `isThere`. */
  async function until(isThere: () => Promise<boolean>): Promise<void> {
    const look = async () => {
      await clock.advance(0);
      return isThere();
    };
    expect(await settled(look, Boolean)).toBe(true);
  }

  async function pass(ms: number): Promise<void> {
    for (let done = 0; done < ms; done += 500) await clock.advance(500);
  }

  test("loses its term after its lease, and the volume thaws at the previous point", async () => {
    const { copy } = await frozen();
    const waiting = await world.target.engine.api.putClone("c", { migratedVolume: copy.name, point: "latest" });
    expect(waiting.state).toBe("Waiting");
    await pass(leaseMs / 2);
    expect((await requireCopyByHand()).state).toBe("Frozen");
    await pass(leaseMs);
    await until(async () => (await world.target.engine.api.getClone("c")).state === "Ready");
    expect(await requireCopyByHand()).toMatchObject({ state: "Available", transfer: null });
    expect((await world.target.engine.api.getClone("c")).pointId).toBe(copy.points.at(-1)?.pointId);
  });

  test("is refused in everything it asks for later, and changes nothing", async () => {
    const { target, toId } = await frozen();
    await pass(2 * leaseMs);
    await until(async () => (await requireCopyByHand()).state === "Available");
    const before = await requireCopyByHand();
    const late = {
      renew: peer().renew(target),
      putPlan: peer().putPlan(target, headerOf(toId)),
      putPlanPage: peer().putPlanPage(target, { first: 0, units: [[[0, 4096, 1]]] }),
      freeze: peer().freeze(target),
      laneTicket: peer().laneTicket(target, { lane: 0, transport: "tls" }),
      store: peer().store(target, { lane: 0, verification: "media", units: [{ index: 0, digest: "0".repeat(64) }] }),
      commit: peer().commit(target, { baseId: null, toId, planDigest: "0".repeat(64) }),
      abort: peer().abort(target, { discard: true }),
      release: peer().release(target),
    };
    for (const [what, call] of Object.entries(late)) expect([what, await codeFrom(call)]).toEqual([what, "TermLost"]);
    expect(await requireCopyByHand()).toEqual(before);
  });

  test("goes on at once under the next epoch when it claims for the same job; another agent or job has to wait", async () => {
    const { grant, copy } = await frozen();
    const volume = copy.sourceVolumeUid;
    const job = copy.transfer?.job ?? "";
    const own = claimOf(volume, { job, claimant });
    const again = await peer().claim(own);
    expect(again.term.epoch).toBe(grant.term.epoch + 1);
    expect(await codeFrom(peer().claim({ ...own, nonce: "1".repeat(32), claimant: "agent-b" }))).toBe("LeaseHeld");
    expect(await codeFrom(peer().claim({ ...own, nonce: "2".repeat(32), job: "another" }))).toBe("LeaseHeld");
    // The same request again, its answer having been lost, gets the same grant.
    expect((await peer().claim(own)).term).toEqual(again.term);
    expect((await requireCopyByHand()).state).toBe("Frozen");
    await pass(2 * leaseMs);
    await until(async () => (await requireCopyByHand()).state === "Available");
    const other = await peer().claim({ ...own, nonce: "3".repeat(32), claimant: "agent-b", offeredEpoch: 40 });
    expect(other.term.epoch).toBe(41);
  });

  test("keeps its lease for one period over a restart of the target", async () => {
    const { copy } = await frozen();
    await pass(leaseMs - 1_000);
    await restart(world.target);
    const foreign = claimOf(copy.sourceVolumeUid, { claimant: "agent-b" });
    await pass(leaseMs - 1_000);
    expect(await codeFrom(peer().claim(foreign))).toBe("LeaseHeld");
    await pass(2_000);
    await until(async () => (await requireCopyByHand()).state === "Available");
    expect((await peer().claim(foreign)).term.epoch).toBeGreaterThan(copy.transfer?.epoch ?? 0);
  });

  test("writes nothing any more through a lane of a term that ended", async () => {
    const { target } = await frozen();
    await peer().freeze(target);
    const { ticket } = await peer().laneTicket(target, { lane: 0, transport: "tls" });
    const source = { fd: -1, read: async () => undefined };
    const lane = await world.target.lanes.open({ ticket, source, hasDigests: true });
    const unused = await peer().laneTicket(target, { lane: 1, transport: "tls" });
    await pass(2 * leaseMs);
    await until(async () => (await requireCopyByHand()).state === "Available");
    await expect(lane.send({ index: 0, extents: [[0, 4096]] })).rejects.toEqual(code("StreamTorn"));
    await expect(world.target.lanes.open({ ticket: unused.ticket, source, hasDigests: true })).rejects.toEqual(
      code("TicketRefused"),
    );
  });

  test("that asks to abort or release twice gets the same answer twice", async () => {
    const { target } = await frozen();
    expect(await codeFrom(peer().abort(target, { discard: true }))).toBe("done");
    expect(await codeFrom(peer().abort(target, { discard: true }))).toBe("done");
    expect(await codeFrom(peer().release(target))).toBe("done");
    expect(await codeFrom(peer().freeze(target))).toBe("TermLost");
  });

  test("is told apart from other clusters: what is not its own does not exist for it", async () => {
    const { target, copy } = await frozen();
    await world.target.engine.api.putSource("other", { clusterName: "other", clusterUid: "uid-other", caBundle: "x" });
    const stranger = world.target.engine.peer("uid-other", ["other"]);
    expect(await stranger.report(copy.sourceVolumeUid)).toBeUndefined();
    expect(await codeFrom(stranger.abort(target, { discard: true }))).toBe("NotFound");
  });
});

describe("a cluster that claims to be another", () => {
  let world: World;
  beforeEach(async () => {
    world = await openWorld();
  });
  afterEach(() => world.clusters.close());

  test("is refused when that one is known under another CA", async () => {
    await world.target.engine.api.putSource("late", { clusterName: "late", caBundle: "another ca" });
    expect(() => world.target.engine.peer(world.source.uid, ["late"])).toThrow(code("NotConsented"));
    expect((await world.target.engine.api.getSource("late")).clusterUid).toBeNull();
  });

  test("is bound to the first source without a UID that vouches for it, and nobody else is bound to it then", async () => {
    await world.target.engine.api.putSource("late", { clusterName: "late", caBundle: "another ca" });
    world.target.engine.peer("uid-late", ["late"]);
    expect((await world.target.engine.api.getSource("late")).clusterUid).toBe("uid-late");
    expect(() => world.target.engine.peer("uid-later", ["late"])).toThrow(code("NotConsented"));
  });
});

describe("a target that cannot be reached after it was asked to commit", () => {
  let world: World;
  beforeEach(async () => {
    world = await openWorld({ limits: { attemptsMax: 3 } });
    await makeVolume(world, "data");
    await migrate(world, "data", "s1");
    await changeVolume(world, "data");
    await snapshot(world, "data", "s2");
  });
  afterEach(() => world.clusters.close());

  async function undecided(committed: boolean): Promise<string> {
    let isDown = false;
    const down = new LongshoreError("Unreachable", "the network is down");
    world.target.onCall = (method) => {
      if (method === "commit" && !committed) isDown = true;
      if (isDown) throw down;
    };
    world.target.onReply = (method) => {
      if (method !== "commit") return;
      isDown = true;
      throw down;
    };
    const job = await start(world, "data", "s2");
    await reaches(world.source, job, ({ state }) => state === "Undecided");
    return job;
  }

  function heal(): void {
    world.target.onCall = () => undefined;
    world.target.onReply = () => undefined;
  }

  test("a commit that takes longer than a lease is no attempt lost, for the term is renewed meanwhile", async () => {
    await world.clusters.close();
    world = await openWorld({ limits: { leaseMs: 300 } });
    await makeVolume(world, "data");
    await snapshot(world, "data", "s1");
    const renewed = Promise.withResolvers<void>();
    let isCommitted = false;
    let renewals = 0;
    world.target.onCall = (method) => {
      // Three come in each lease.
      if (method === "renew" && isCommitted && ++renewals === 4) renewed.resolve();
    };
    world.target.onReply = (method) => {
      if (method !== "commit") return undefined;
      isCommitted = true;
      return renewed.promise;
    };
    const job = await start(world, "data", "s1");
    expect(await ended(world.source, job)).toMatchObject({ state: "Succeeded", attempts: 0 });
  });

  test.each([
    ["had committed", true],
    ["had not committed", false],
  ])(
    "leaves the job undecided with all its holds, and it ends by itself when the target is back and %s",
    async (_how, committed) => {
      const job = await undecided(committed);
      const { snapshots } = await world.source.engine.api.getVolume("data");
      expect(snapshots.map(({ name, holds }) => [name, holds.map(({ reason }) => reason)])).toEqual([
        ["s1", ["base", "job"]],
        ["s2", ["job"]],
      ]);
      await world.source.engine.api.removeSnapshot("data", "s1");
      await world.source.engine.api.removeSnapshot("data", "s2");
      expect((await world.source.engine.api.getVolume("data")).snapshots).toHaveLength(2);
      heal();
      expect(await ended(world.source, job)).toMatchObject({ state: "Succeeded", barrier: "Released", error: null });
      expect(await flaws(world, "data")).toEqual([]);
      expect(await leftovers(world.clusters)).toEqual([]);
    },
  );

  test("keeps a job undecided over a restart of the source, and when it is to be cancelled or suspended", async () => {
    const job = await undecided(true);
    await restart(world.source);
    await reaches(world.source, job, ({ state }) => state === "Undecided");
    await world.source.engine.api.putJob(job, { volume: "data", location: "target", snapshot: "s2", cancel: true });
    await reaches(world.source, job, ({ state, spec }) => state === "Undecided" && spec.cancel === true);
    heal();
    // It had been committed: there is nothing to cancel any more.
    expect((await ended(world.source, job)).state).toBe("Succeeded");
    expect(await flaws(world, "data")).toEqual([]);
  });

  test("lets a job that is to be cancelled be cancelled once it turns out that it was not committed", async () => {
    const job = await undecided(false);
    await world.source.engine.api.putJob(job, { volume: "data", location: "target", snapshot: "s2", cancel: true });
    heal();
    expect((await ended(world.source, job)).state).toBe("Cancelled");
    expect((await requireCopy(world, "data")).points).toHaveLength(1);
    expect(await flaws(world, "data")).toEqual([]);
    expect(await leftovers(world.clusters)).toEqual([]);
  });

  test("is let go with its jobs and holds when the user removes the location by force", async () => {
    const job = await undecided(true);
    await expect(world.source.engine.api.removeLocation("target")).rejects.toEqual(code("InUse"));
    await world.source.engine.api.removeLocation("target", { force: true });
    expect((await ended(world.source, job)).state).toBe("Cancelled");
    const { snapshots, bases } = await world.source.engine.api.getVolume("data");
    expect([bases, snapshots.flatMap(({ holds }) => holds)]).toEqual([[], []]);
  });
});
