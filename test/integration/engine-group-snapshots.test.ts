// Snapshots of groups over several agents: taken whole or not at all, whatever dies or is not heard.
import * as fs from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, describe, expect, test } from "@jest/globals";
import { codeOf, LongshoreError } from "../../src/domain/errors.ts";
import type { MemberApi } from "../../src/wire/member.ts";
import type { GroupSnapshotView, SnapshotView } from "../../src/wire/schemas.ts";
import { type Cluster, type Clusters, openClusters } from "../fakes/engines.ts";
import { patienceMs } from "../fakes/migration-world.ts";

const sizeBytes = 2 ** 20;
/** For tests in which time has to pass; a busy machine may be too slow for it, so in those nothing has to go well at once. */
const shortMs = 400;
/** For all others. */
const ampleMs = 15_000;

let clusters: Clusters;
let agents: readonly [Cluster, Cluster, Cluster];

afterEach(() => clusters.close());

/** Three agents that know each other; those of `holders` (1, 2, 3) have a volume each, named after them: v1, v2, v3. */
async function open(holders: readonly number[] = [1, 2, 3], freezeMs = ampleMs): Promise<void> {
  clusters = await openClusters({ west: 3 }, { inMemory: true, limits: { freezeMs } });
  agents = clusters.of("west") as unknown as typeof agents;
  await meet();
  for (const holder of holders) await agent(holder).engine.api.putVolume(`v${holder}`, { sizeBytes });
}

function agent(number: number): Cluster {
  return agents[number - 1] as Cluster;
}

async function eventually(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const end = performance.now() + patienceMs;
  while (!(await isSo())) {
    if (performance.now() > end) throw new Error(`${what} did not happen`);
    await pause(10);
  }
}

async function meet(): Promise<void> {
  await eventually("all agents meeting", async () => {
    const views = await Promise.all(agents.map(({ engine }) => engine.api.describe()));
    return views.every(({ members }) => members.length === 3 && members.every(({ state }) => state === "alive"));
  });
}

const refusal = (work: Promise<unknown>) =>
  work.then(
    () => "none",
    (error: unknown) => `${codeOf(error)}: ${(error as Error).message}`,
  );

async function snapshotsOf(volume: string): Promise<readonly SnapshotView[]> {
  return (await homeOf(volume).engine.api.getVolume(volume)).snapshots;
}

function homeOf(volume: string): Cluster {
  return agent(Number(/^v(\d)/.exec(volume)?.[1]));
}

function take(coordinator: Cluster, name: string, volumes: readonly string[]): Promise<GroupSnapshotView> {
  return coordinator.engine.api.putGroupSnapshot("g", name, { volumes: [...volumes] });
}

/** Rows and files of an agent's points must be the same ones. */
async function checkFiles(cluster: Cluster): Promise<void> {
  const { items } = await cluster.engine.api.listVolumes();
  const rows = items.flatMap(({ snapshots }) => snapshots.map(({ pointId }) => pointId));
  const files = (await cluster.storage.list()).flatMap(({ point }) => (point === undefined ? [] : [point]));
  expect(files.sort()).toEqual(rows.sort());
}

describe("a group snapshot", () => {
  test("is of the generation that is open when it is taken, though another snapshot closed one as it began", async () => {
    await open([1]);
    const [first] = agents;
    let isBegun = false;
    first.onStorage = async (step, when) => {
      if (step !== "space" || when !== "after" || isBegun) return;
      isBegun = true;
      await first.engine.api.putSnapshot("v1", "s1");
    };
    await take(first, "s2", ["v1"]);
    const generations = (await snapshotsOf("v1")).map(({ name, generation }) => [name, generation]);
    expect(generations).toEqual([
      ["s1", 1],
      ["s2", 2],
    ]);
  });

  test("has one sealed snapshot of each volume, with one point, and again the same", async () => {
    await open();
    const view = await take(agent(2), "s1", ["v3", "v1", "v2"]);
    expect(view.snapshots.map(({ volume, state, group }) => [volume, state, group])).toEqual([
      ["v3", "sealed", "g"],
      ["v1", "sealed", "g"],
      ["v2", "sealed", "g"],
    ]);
    expect(new Set(view.snapshots.map(({ groupPoint }) => groupPoint))).toEqual(new Set([view.groupPoint]));
    expect(await take(agent(1), "s1", ["v3", "v1", "v2"])).toEqual(view);
    const next = await take(agent(1), "s2", ["v1", "v2", "v3"]);
    expect(next.groupPoint).not.toBe(view.groupPoint);
    for (const one of agents) await checkFiles(one);
  });

  test("of one agent needs no other", async () => {
    await open();
    await agent(1).engine.api.putVolume("v1b", { sizeBytes });
    await agent(2).stop();
    expect((await take(agent(3), "s", ["v3"])).snapshots).toHaveLength(1);
    expect((await take(agent(3), "t", ["v1", "v1b"])).snapshots).toHaveLength(2);
    expect(await refusal(take(agent(3), "t", ["v2", "v3"]))).toMatch(/^Unreachable: volume v2 may be on /);
    await agent(2).start();
    await eventually("agent 2 being back", async () => (await refusal(take(agent(3), "u", ["v2", "v3"]))) === "none");
  });

  test("is refused under a name that stands for something else, and of what is not there", async () => {
    await open();
    await take(agent(1), "s", ["v1", "v2"]);
    expect(await refusal(take(agent(1), "s", ["v1", "v3"]))).toMatch(/^NameTaken: .*no volume v3/);
    const other = agent(1).engine.api.putGroupSnapshot("h", "s", { volumes: ["v1", "v2"] });
    expect(await refusal(other)).toMatch(/^NameTaken: .*group g/);
    await agent(3).engine.api.putSnapshot("v3", "plain");
    expect(await refusal(take(agent(1), "plain", ["v1", "v3"]))).toMatch(/^NameTaken: volume v3/);
    expect(await snapshotsOf("v1")).toHaveLength(1);
    expect(await refusal(take(agent(1), "t", ["v1", "nobody"]))).toMatch(/^NotFound: .*nobody/);
    // Names of clones are not claimed: they can only be where what they are made of is.
    await agent(3).engine.api.putVolume("v1", { sizeBytes, from: { volume: "v3" } });
    expect(await refusal(take(agent(1), "t", ["v1", "v2"]))).toMatch(/^BadRequest: .*v1 is on agents/);
  });

  test("is not believed when somebody attached a volume meanwhile, and nothing of it is left", async () => {
    await open();
    const { path } = await agent(3).engine.api.getVolume("v3");
    const writers: Promise<fs.FileHandle>[] = [];
    agent(3).onMemberCall = (method) => {
      if (method === "snapshotFrozen") writers.push(fs.open(path, "r+"));
    };
    expect(await refusal(take(agent(1), "s", ["v1", "v2", "v3"]))).toMatch(/^GroupInvalid: /);
    for (const writer of writers) await (await writer).close();
    for (const volume of ["v1", "v2", "v3"]) expect(await snapshotsOf(volume)).toEqual([]);
    agent(3).onMemberCall = () => undefined;
    expect((await take(agent(1), "s", ["v1", "v2", "v3"])).snapshots).toHaveLength(3);
    for (const one of agents) await checkFiles(one);
  });

  test("is given up in time when a member does not answer, and all writers go on", async () => {
    await open([1, 2, 3], shortMs);
    for (const silent of ["freeze", "snapshotFrozen", "thaw"] as const) {
      const late = Promise.withResolvers<void>();
      agent(3).onMemberCall = (method) => (method === silent ? late.promise : undefined);
      expect(await refusal(take(agent(1), silent.toLowerCase(), ["v1", "v2", "v3"]))).toMatch(/^GroupInvalid: /);
      agent(3).onMemberCall = () => undefined;
      for (const volume of ["v1", "v2"]) {
        await (await fs.open((await homeOf(volume).engine.api.getVolume(volume)).path, "r+")).close();
      }
      late.resolve();
      await eventually("the parts being dropped", async () => {
        const all = await Promise.all(["v1", "v2", "v3"].map(snapshotsOf));
        return all.flat().length === 0;
      });
    }
    expect((await takenInTheEnd(agent(1), ["v1", "v2", "v3"])).snapshots).toHaveLength(3);
  });

  test("does not count before it is confirmed: it can be neither held, nor taken over, nor released", async () => {
    await open([2, 3]);
    const seen: string[] = [];
    const look = async (method: keyof MemberApi) => {
      if (method !== "confirmGroup" || seen.length > 0) return;
      for (const volume of ["v2", "v3"]) {
        const { api } = homeOf(volume).engine;
        const [snapshot] = await snapshotsOf(volume);
        seen.push(String(snapshot?.state));
        seen.push(await refusal(api.putHold(volume, "s", "me")));
        seen.push(await refusal(api.putSnapshot(volume, "s")));
        seen.push(await refusal(api.removeSnapshot(volume, "s")));
      }
    };
    for (const holder of [2, 3]) agent(holder).onMemberCall = look;
    await take(agent(1), "s", ["v2", "v3"]);
    expect(seen).toHaveLength(8);
    for (const what of seen) expect(what).toMatch(/^creating$|^Conflict: /);
    expect(await homeOf("v2").engine.api.putHold("v2", "s", "me")).toMatchObject({ state: "sealed" });
  });

  test("that was dropped at a member is not confirmed there by a call that comes late, and does not begin again", async () => {
    await open([1]);
    const { member } = agent(1).engine;
    const ref = { group: "g", groupPoint: "0".repeat(32) };
    const part = { ...ref, name: "s" };
    const freeze = () => member.freeze({ ...ref, volumes: ["v1"], timeoutMs: ampleMs });
    await freeze();
    await freeze();
    await member.snapshotFrozen(part);
    await member.snapshotFrozen(part);
    expect(await member.thaw(ref)).toMatchObject({ wasFrozen: true });
    expect(await member.thaw(ref)).toMatchObject({ wasFrozen: true });
    expect(await snapshotsOf("v1")).toHaveLength(1);
    await member.discardGroup(part);
    await member.discardGroup(part);
    expect(await refusal(member.confirmGroup(part))).toMatch(/^SnapshotGone: /);
    expect(await refusal(freeze())).toMatch(/^Conflict: /);
    expect(await refusal(member.snapshotFrozen(part))).toMatch(/^Conflict: /);
    expect(await snapshotsOf("v1")).toEqual([]);
    await checkFiles(agent(1));
  });

  test("of which one part is being dropped is not confirmed by what is left of the others", async () => {
    await open([1]);
    const one = agent(1);
    await one.engine.api.putVolume("v1b", { sizeBytes });
    const uids = await Promise.all(["v1", "v1b"].map(async (name) => (await one.engine.api.getVolume(name)).uid));
    const [first, last] = String(uids[0]) < String(uids[1]) ? ["v1", "v1b"] : ["v1b", "v1"];
    const { member } = one.engine;
    const ref = { group: "g", groupPoint: "0".repeat(32) };
    const part = { ...ref, name: "s" };
    await member.freeze({ ...ref, volumes: ["v1", "v1b"], timeoutMs: ampleMs });
    await member.snapshotFrozen(part);
    await member.thaw(ref);
    // Somebody else is at work on one of the volumes: its part has to wait.
    const busy = Promise.withResolvers<void>();
    const reached = Promise.withResolvers<void>();
    one.onStorage = (step, when) => {
      if (step !== "snapshot" || when !== "before") return undefined;
      reached.resolve();
      return busy.promise;
    };
    const other = one.engine.api.putSnapshot(last, "other");
    await reached.promise;
    const discarding = member.discardGroup(part);
    await eventually("one part being dropped", async () => (await snapshotsOf(first)).length === 0);
    expect(await refusal(member.confirmGroup(part))).toMatch(/^SnapshotGone: /);
    busy.resolve();
    await Promise.all([other, discarding]);
    expect((await snapshotsOf(last)).map(({ name, state }) => [name, state])).toEqual([["other", "sealed"]]);
    await checkFiles(one);
  });

  test("that was confirmed at a member stays there, whoever wants it dropped", async () => {
    await open([1]);
    const view = await take(agent(1), "s", ["v1"]);
    const { member } = agent(1).engine;
    const part = { group: "g", groupPoint: view.groupPoint, name: "s" };
    expect(await refusal(member.discardGroup(part))).toMatch(/^Conflict: /);
    expect(await member.confirmGroup(part)).toEqual({ snapshots: view.snapshots });
    expect(await snapshotsOf("v1")).toEqual(view.snapshots);
  });

  test("asked for at two agents at once ends as one", async () => {
    await open();
    const volumes = ["v1", "v2", "v3"];
    for (let round = 1; round <= 5; round++) {
      const tryAt = async (coordinator: Cluster): Promise<GroupSnapshotView> => {
        for (;;) {
          try {
            return await take(coordinator, `s${round}`, volumes);
          } catch (error) {
            expect(["GroupInvalid", "Conflict", "SnapshotGone", "VolumeBusy"]).toContain(codeOf(error));
            await pause(Math.random() * 50);
          }
        }
      };
      const [one, other] = await Promise.all([tryAt(agent(1)), tryAt(agent(2))]);
      expect(one?.groupPoint).toBe(other?.groupPoint);
    }
    for (const one of agents) await checkFiles(one);
  });

  test("leaves plain snapshots as they were", async () => {
    await open();
    const plain = await agent(1).engine.api.putSnapshot("v1", "p1");
    expect([plain.group, plain.groupPoint]).toEqual([undefined, undefined]);
    await take(agent(1), "s", ["v1", "v2"]);
    await agent(1).engine.api.putSnapshot("v1", "p2");
    expect((await snapshotsOf("v1")).map(({ name, generation }) => `${name} ${generation}`)).toEqual([
      "p1 1",
      "s 2",
      "p2 3",
    ]);
  });
});

/** What happens at the n-th call that the coordinator makes of another agent. */
type Fault =
  | "the call is lost"
  | "the answer is lost"
  | "the member dies before"
  | "the member dies after"
  | "the coordinator dies";
const faults: readonly Fault[] = [
  "the call is lost",
  "the answer is lost",
  "the member dies before",
  "the member dies after",
  "the coordinator dies",
];

/** What agents say to each other now and then, whatever is asked of them. */
const isByItself = (method: string) => method === "meet" || method === "volumeNames";

/** Makes `fault` happen at call `n` from now on; tells whether it came to that. */
function arm(coordinator: Cluster, fault: Fault, n: number): { hasHappened: () => boolean } {
  let calls = 0;
  let isDue = false;
  const lost = () => new LongshoreError("Unreachable", "lost on the way");
  const killCoordinator = async () => {
    for (const one of agents) if (one !== coordinator) clusters.cut(coordinator, one);
    await coordinator.stop();
    throw lost();
  };
  for (const member of agents) {
    member.onMemberCall = async (method) => {
      if (isByItself(method) || ++calls !== n) return;
      isDue = true;
      if (fault === "the call is lost") throw lost();
      if (fault === "the member dies before") await member.stop();
      if (fault === "the coordinator dies") await killCoordinator();
    };
    let mine = false;
    member.onMemberReply = async (method) => {
      if (isByItself(method) || !isDue || mine) return;
      mine = true;
      isDue = false;
      if (fault === "the answer is lost") throw lost();
      if (fault === "the member dies after") await member.stop();
    };
  }
  return { hasHappened: () => calls >= n };
}

async function healed(): Promise<void> {
  clusters.heal();
  for (const one of agents) {
    one.onMemberCall = () => undefined;
    one.onMemberReply = () => undefined;
    if (one.stopping.aborted) await one.start();
  }
  await meet();
}

describe.each([
  ["none of the volumes", [2, 3]],
  ["one of the volumes", [1, 2, 3]],
] as const)("whatever fails while a coordinator with %s takes a group snapshot", (_, holders) => {
  const volumesOf = (round: number) => holders.map((holder) => `v${holder}-${round}`);

  test.each(faults)(
    "%s: it is taken of all or of none, nothing is left over, and it can be taken then",
    async (fault) => {
      await open(holders, shortMs);
      let rounds = 0;
      for (;;) {
        rounds++;
        for (const volume of volumesOf(rounds)) await homeOf(volume).engine.api.putVolume(volume, { sizeBytes });
        const armed = arm(agent(1), fault, rounds);
        const outcome = await refusal(take(agent(1), "s", volumesOf(rounds)));
        await healed();
        if (!armed.hasHappened()) break;
        // Halves of them are asked for again at once; the other half is left to itself.
        if (outcome !== "none" && rounds % 2 === 0) await takenInTheEnd(agent((rounds % 3) + 1), volumesOf(rounds));
      }
      expect(rounds).toBeGreaterThan(8);
      await eventually("what was left over being settled", async () => {
        const all = await Promise.all(agents.map(async ({ engine }) => (await engine.api.listVolumes()).items));
        return all.flat().every(({ snapshots }) => snapshots.every(({ state }) => state === "sealed"));
      });
      for (let round = 1; round <= rounds; round++) {
        const snapshots = (await Promise.all(volumesOf(round).map(snapshotsOf))).flat();
        expect([0, holders.length]).toContain(snapshots.length);
        expect(new Set(snapshots.map(({ groupPoint }) => groupPoint)).size).toBeLessThanOrEqual(1);
      }
      for (let round = 1; round <= rounds; round++) {
        const before = (await Promise.all(volumesOf(round).map(snapshotsOf))).flat();
        const view = await takenInTheEnd(agent(2), volumesOf(round));
        if (before.length > 0) expect(view.groupPoint).toBe(before[0]?.groupPoint);
      }
      for (const one of agents) await checkFiles(one);
    },
    120_000,
  );
});

async function takenInTheEnd(coordinator: Cluster, volumes: readonly string[]): Promise<GroupSnapshotView> {
  let view: GroupSnapshotView | undefined;
  await eventually("the group snapshot being taken", async () => {
    try {
      view = await take(coordinator, "s", volumes);
    } catch (error) {
      expect(["GroupInvalid", "Conflict", "Unreachable"]).toContain(codeOf(error));
    }
    return view !== undefined;
  });
  return view as GroupSnapshotView;
}
