import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { afterEach, describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import { type Cluster, type Clusters, type ClustersOptions, openClusters, pair, restart } from "../fakes/engines.ts";
import { FakeClock } from "../fakes/fake-clock.ts";
import { backUp } from "../fakes/old-disk.ts";

const memberIntervalMs = 2_000;
let clusters: Clusters;
/** Stands still but in {@link eventually}: who was alive a moment ago still is, however long the machine takes for the next line. */
let clock: FakeClock;

afterEach(() => clusters.close());

async function open(counts: Readonly<Record<string, number>>, options: ClustersOptions = {}): Promise<void> {
  clock = new FakeClock();
  clusters = await openClusters(counts, { inMemory: true, clock, limits: { memberIntervalMs }, ...options });
}

/** What an agent knows of the members of its cluster: `1+` alive, `2-` unreachable, `3!` lost. */
async function seenBy(agent: Cluster): Promise<string> {
  const { members } = await agent.engine.api.describe();
  const signs = { alive: "+", unreachable: "-", lost: "!" } as const;
  return members
    .map(({ node, state = "alive" }) => `${node.slice(node.lastIndexOf("-") + 1)}${signs[state]}`)
    .sort()
    .join(" ");
}

/** Meetings come by the clock, which goes on until the answer fits; what was answered last is what counts. */
async function eventually(read: () => Promise<string>, expected: string): Promise<void> {
  let answer = await read();
  for (let meetings = 0; answer !== expected && meetings < 100; meetings++) {
    await clock.advance(memberIntervalMs);
    answer = await read();
  }
  expect(answer).toBe(expected);
}

function sees(agent: Cluster, what: string): Promise<void> {
  return eventually(() => seenBy(agent), what);
}

const three = async (): Promise<readonly [Cluster, Cluster, Cluster]> => {
  await open({ west: 3 });
  return clusters.of("west") as unknown as [Cluster, Cluster, Cluster];
};

describe("agents of one cluster", () => {
  test("learn of each other from one seed", async () => {
    for (const agent of await three()) await sees(agent, "1+ 2+ 3+");
  });

  test("learn of each other from one name that leads each of them to itself first", async () => {
    await open({ west: 3 }, { isOneName: true });
    for (const agent of clusters.of("west")) await sees(agent, "1+ 2+ 3+");
  });

  test("miss one that stops, and see it again when it is back, also after all have been started anew", async () => {
    const [first, second, third] = await three();
    await sees(first, "1+ 2+ 3+");
    await third.stop();
    await sees(first, "1+ 2+ 3-");
    await restart(first);
    await sees(first, "1+ 2+ 3-");
    await third.start();
    for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
  });

  test("go by whom they themselves can reach", async () => {
    const [first, second, third] = await three();
    await sees(first, "1+ 2+ 3+");
    clusters.cut(first, third);
    clusters.cut(third, first);
    await sees(first, "1+ 2+ 3-");
    await sees(third, "1- 2+ 3+");
    await sees(second, "1+ 2+ 3+");
    clusters.heal();
    await sees(first, "1+ 2+ 3+");
  });

  test("go on meeting while one of them hangs with its connections open", async () => {
    const [first, second, third] = await three();
    await sees(first, "1+ 2+ 3+");
    const hung = Promise.withResolvers<void>();
    third.onMemberCall = () => hung.promise;
    for (const other of [first, second]) clusters.cut(third, other);
    await sees(first, "1+ 2+ 3-");
    let meetings = 0;
    second.onMemberCall = () => void meetings++;
    await eventually(async () => (meetings > 20 ? "met on" : "waiting"), "met on");
    for (const other of [first, second]) expect(await seenBy(other)).toBe("1+ 2+ 3-");
    hung.resolve();
    clusters.heal();
    for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
  });

  test("hear from third parties of what they cannot ask themselves", async () => {
    const [first, second, third] = await three();
    await sees(first, "1+ 2+ 3+");
    for (const [one, other] of [
      [first, third],
      [third, first],
    ] as const)
      clusters.cut(one, other);
    await third.stop();
    third.host = "elsewhere";
    await third.start();
    const known = async () => (await first.engine.api.describe()).members.find(({ node }) => node === "node-west-3");
    await eventually(async () => String((await known())?.address), "elsewhere:1");
    await sees(first, "1+ 2+ 3-");
    clusters.heal();
    for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
  });

  test.each([1, 2])("learn where one is now that has come back on a disk of %d starts ago", async (starts) => {
    const [first, second, third] = await three();
    for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
    const backup = await backUp(third);
    for (let more = 1; more < starts; more++) await restart(third);
    await sees(third, "1+ 2+ 3+");
    third.host = "elsewhere";
    await backup.restore();
    for (const agent of [first, second]) {
      const known = async () => (await agent.engine.api.describe()).members.find(({ node }) => node === "node-west-3");
      await eventually(async () => String((await known())?.address), "elsewhere:1");
    }
  });
});

const at = ({ engine }: Cluster) => engine.peer("uid-east", ["east"]);
const copyOfV1 = { volumes: [{ volume: "v1", sizeBytes: 4096 }] };

/** A cluster that takes volumes of another one, all its agents acquainted. */
async function receivers(): Promise<readonly [Cluster, Cluster, Cluster]> {
  await open({ east: 1, west: 3 });
  const [first, second, third] = clusters.of("west") as [Cluster, Cluster, Cluster];
  await pair(clusters.of("east"), [first, second, third]);
  for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
  return [first, second, third];
}

/** As the coordinator of a job on the volume begins. */
function claimAt(agent: Cluster, volume = "v1", sizeBytes = 4096) {
  const claim = { job: "job-1", volume, name: "data", metadata: {}, sizeBytes, claimant: "a1" };
  return at(agent).claim({ ...claim, nonce: "0".repeat(32), offeredEpoch: 0 });
}

/** What other clusters are answered by an agent: whether it says that it was forgotten. */
const refusalOf = (asked: Promise<unknown>) =>
  asked.then(
    String,
    ({ code, message }) => `${code}: ${/start it on an empty folder/.test(message) ? "forgotten" : message}`,
  );

/** Its node comes back with an empty disk. */
async function replaced(agent: Cluster): Promise<void> {
  await agent.stop();
  await rm(agent.folder, { recursive: true });
  await mkdir(agent.folder);
  await agent.start();
}

test("the home of a copy is chosen once, whoever is asked, and by all at the same time", async () => {
  const west = await receivers();
  const homes = await Promise.all(west.map((agent) => at(agent).locate(copyOfV1)));
  expect(new Set(homes.map(({ homes: [home] }) => home?.agentId)).size).toBe(1);
});

test("a copy is at home where it was made, not where it would be placed now", async () => {
  const agents = await receivers();
  for (const agent of agents) {
    await claimAt(agent);
    agent.freeBytes = 0;
    const { agentId } = agent.engine;
    for (const asked of agents) expect((await at(asked).locate(copyOfV1)).homes).toEqual([{ volume: "v1", agentId }]);
    await agent.engine.api.removeMigratedVolume((await agent.engine.api.listMigratedVolumes()).items[0]?.name ?? "");
  }
});

test("new copies go where there is room beside all that were placed before, made or not", async () => {
  const agents = await receivers();
  const [first, second, third] = agents;
  const MiB = 2 ** 20;
  const leave = (free: readonly [number, number, number]) => {
    for (const [index, agent] of agents.entries()) agent.freeBytes = (free[index] ?? 0) * MiB;
  };
  const place = async (names: readonly string[], mebibytes: number) => {
    const volumes = names.map((volume) => ({ volume, sizeBytes: mebibytes * MiB }));
    return (await at(second).locate({ volumes, group: "shop" })).homes.map(({ agentId }) => agentId);
  };
  const [one, two, three] = [first.engine.agentId, second.engine.agentId, third.engine.agentId];
  leave([9, 8, 1]);
  expect(await place(["v1", "v2", "v3", "v4"], 4)).toEqual([one, one, two, two]);
  // Made and still empty, one is counted by its home; the other one by who has placed it.
  await claimAt(first, "v1", 4 * MiB);
  leave([9, 8, 3]);
  expect(await place(["v5"], 2)).toEqual([three]);
  leave([9, 8, 20]);
  expect(await place(["v6"], 1)).toEqual([three]);
  const kept = await Promise.all(agents.map(placementsOf));
  expect(kept.flat().sort()).toEqual(["v2", "v3", "v4", "v5", "v6"]);
});

/** Volumes whose home this agent has chosen, and has not been heard to be made. */
async function placementsOf(agent: Cluster): Promise<string[]> {
  await agent.stop();
  const database = new DatabaseSync(join(agent.folder, "state.db"), { readOnly: true });
  const rows = database.prepare("SELECT volumeUid FROM placements").all() as { volumeUid: string }[];
  database.close();
  await agent.start();
  return rows.map(({ volumeUid }) => volumeUid);
}

test("what the agent had is not taken for gone because another one answers at its address", async () => {
  const [first, second, third] = await receivers();
  await claimAt(third);
  const { agentId } = third.engine;
  await replaced(third);
  const refusal = { code: "Unreachable", message: expect.stringContaining(agentId) };
  await expect(at(first).locate(copyOfV1)).rejects.toMatchObject(refusal);
  await sees(first, "1+ 2+ 3! 3+");
  await expect(at(second).locate(copyOfV1)).rejects.toMatchObject(refusal);
  await first.engine.api.forgetMember(agentId);
  expect((await at(first).locate(copyOfV1)).homes[0]?.agentId).not.toBe(agentId);
});

test("an agent that is new and has met nobody does not say that a copy is new", async () => {
  const [first, second, third] = await receivers();
  await claimAt(second);
  const { agentId } = second.engine;
  await first.stop();
  await second.stop();
  await replaced(third);
  await pair(clusters.of("east"), third);
  const message = expect.stringContaining("is new and does not know yet who else there is: no answer from west-1:1");
  await expect(at(third).locate(copyOfV1)).rejects.toMatchObject({ code: "Unreachable", message });
  expect((await third.engine.api.describe()).isAcquainted).toBe(false);
  await first.start();
  await second.start();
  await sees(third, "1+ 2+ 3! 3+");
  expect((await third.engine.api.describe()).isAcquainted).toBe(true);
  expect((await at(third).locate(copyOfV1)).homes).toEqual([{ volume: "v1", agentId }]);
});

describe("agents that have lost their disks, after a loss of power", () => {
  let agents: readonly Cluster[];

  const lose = async (count: number) => {
    await open({ west: count }, { isOneName: true });
    agents = clusters.of("west");
    for (const agent of agents) await sees(agent, agents.map((_, index) => `${index + 1}+`).join(" "));
    for (const agent of agents) await agent.stop();
  };
  const agentOf = (number: number) => agents[number - 1] as Cluster;
  const acquaintance = async () => {
    const running = agents.filter(({ stopping }) => !stopping.aborted);
    const views = await Promise.all(running.map(({ engine }) => engine.api.describe()));
    return views.map(({ isAcquainted }) => isAcquainted).join(" ");
  };
  const make = (agent: Cluster) => agent.engine.api.putVolume("data", { sizeBytes: 4096 });

  test("do not take themselves for the only ones while most of the others are still starting", async () => {
    await lose(4);
    await replaced(agentOf(1));
    await expect(make(agentOf(1))).rejects.toMatchObject({
      code: "Unreachable",
      message: expect.stringContaining("no answer from west-2:1, west-3:1, west-4:1"),
    });
    await replaced(agentOf(2));
    await sees(agentOf(1), "1+ 2+");
    for (const number of [1, 2]) {
      const { api } = agentOf(number).engine;
      const together = api.putGroupSnapshot("shop.db", "s1", { volumes: ["data"] });
      for (const asked of [make(agentOf(number)), together])
        await expect(asked).rejects.toMatchObject({ code: "Unreachable" });
    }
    expect(await acquaintance()).toBe("false false");
    await agentOf(3).start();
    await eventually(acquaintance, "true true true");
    for (const number of [1, 2]) await sees(agentOf(number), "1! 1+ 2! 2+ 3+ 4-");
  });

  test("are a new cluster when most of those that there are say that they are new", async () => {
    await lose(3);
    await replaced(agentOf(1));
    await expect(make(agentOf(1))).rejects.toMatchObject({ code: "Unreachable" });
    await replaced(agentOf(2));
    await eventually(acquaintance, "true true");
    expect(await make(agentOf(2))).toMatchObject({ name: "data" });
  });

  test("do not believe one that was forgotten, for it has not heard since of those that came later", async () => {
    await lose(4);
    for (const number of [1, 2]) await agentOf(number).start();
    await sees(agentOf(1), "1+ 2+ 3- 4-");
    await agentOf(1).engine.api.forgetMember(agentOf(3).engine.agentId);
    await agentOf(3).start();
    const refusal = () => make(agentOf(3)).then(String, ({ code }) => code);
    await eventually(refusal, "Forbidden");
    for (const number of [1, 2]) await agentOf(number).stop();
    await replaced(agentOf(4));
    await expect(make(agentOf(4))).rejects.toMatchObject({ code: "Unreachable" });
    expect((await agentOf(4).engine.api.describe()).isAcquainted).toBe(false);
    for (const number of [1, 2]) await agentOf(number).start();
    await sees(agentOf(4), "1+ 2+ 4! 4+");
    expect((await agentOf(4).engine.api.describe()).isAcquainted).toBe(true);
  });

  test("know for good who there is, once they do", async () => {
    await lose(2);
    await replaced(agentOf(1));
    await agentOf(2).start();
    await eventually(acquaintance, "true true");
    for (const agent of agents) await agent.stop();
    await agentOf(1).start();
    expect(await acquaintance()).toBe("true");
    expect(await seenBy(agentOf(1))).toMatch("2-");
  });

  test("believe one of an earlier version, which does not say whether it is new itself", async () => {
    await lose(3);
    await replaced(agentOf(1));
    agentOf(2).onMemberCall = (method) => {
      if (method === "acquaintance") throw new LongshoreError("NotFound", "there is no such route");
    };
    await agentOf(2).start();
    await sees(agentOf(1), "1! 1+ 2+ 3-");
    await eventually(acquaintance, "true true");
  });
});

test("a forgotten agent takes nothing on, also when there is nobody left to tell it", async () => {
  const [first, second, third] = await receivers();
  await third.stop();
  await sees(first, "1+ 2+ 3-");
  await first.engine.api.forgetMember(third.engine.agentId);
  await sees(second, "1+ 2+");
  await third.start();
  await eventually(() => refusalOf(at(third).locate(copyOfV1)), "Unreachable: forgotten");
  await first.stop();
  await second.stop();
  await third.stop();
  await third.start();
  for (const asked of [claimAt(third), at(third).locate(copyOfV1)]) {
    expect(await refusalOf(asked)).toBe("Unreachable: forgotten");
  }
  const { api } = third.engine;
  expect(await refusalOf(api.putVolume("new", { sizeBytes: 4096 }))).toBe("Forbidden: forgotten");
  // Whoever asks who there is, such as the CSI driver, would go by what it knew then, and find there what was made anew elsewhere.
  expect(await refusalOf(api.describe())).toBe("Unreachable: forgotten");
});

test("a job that asks a forgotten agent of its target is tried again until it asks another one, and done", async () => {
  await open({ east: 1, west: 2 }, { limits: { memberIntervalMs, attemptsMax: 1000 } });
  const [source] = clusters.of("east") as [Cluster];
  const [first, second] = clusters.of("west") as [Cluster, Cluster];
  await pair(source, [first, second]);
  await sees(second, "1+ 2+");
  await first.stop();
  await sees(second, "1- 2+");
  await second.engine.api.forgetMember(first.engine.agentId);
  await first.start();
  const make = () => first.engine.api.putVolume("new", { sizeBytes: 4096 });
  await eventually(() => refusalOf(make()), "Forbidden: forgotten");
  const { api } = source.engine;
  await api.putVolume("data", { sizeBytes: 4096 });
  await api.putSnapshot("data", "s1");
  await api.putJob("job-1", { volume: "data", snapshot: "s1", location: "west" });
  const state = async () => (await api.getJob("job-1")).state;
  await eventually(async () => ((await api.getJob("job-1")).attempts > 0 ? state() : "Pending"), "Running");
  await first.stop();
  await eventually(state, "Succeeded");
});

test("one that was forgotten, and is told so only when it claims a name, makes no volume", async () => {
  const agents = await three();
  const [first, second, third] = agents;
  for (const agent of agents) await sees(agent, "1+ 2+ 3+");
  for (const [one, other] of [
    [first, second],
    [first, third],
    [second, third],
  ] as const) {
    clusters.cut(one, other);
    clusters.cut(other, one);
  }
  await sees(first, "1+ 2- 3-");
  await first.engine.api.forgetMember(third.engine.agentId);
  for (const agent of agents) {
    agent.onMemberCall = (method) => {
      if (method === "meet") throw new LongshoreError("Unreachable", "not yet");
    };
  }
  clusters.heal();
  for (const name of ["when-told", "from-then-on"]) {
    const refused = { code: "Forbidden", message: expect.stringContaining("forgotten") };
    await expect(third.engine.api.putVolume(name, { sizeBytes: 4096 })).rejects.toMatchObject(refused);
  }
  expect((await third.engine.api.listVolumes()).items).toEqual([]);
});

test("one that has not heard that another one was forgotten is not taken for forgotten by claiming a name with it", async () => {
  const agents = await three();
  const [first, second, third] = agents;
  for (const agent of agents) await sees(agent, "1+ 2+ 3+");
  await third.stop();
  await sees(second, "1+ 2+ 3-");
  await first.stop();
  await second.engine.api.forgetMember(third.engine.agentId);
  await third.start();
  const make = (agent: Cluster, name: string) => agent.engine.api.putVolume(name, { sizeBytes: 4096 });
  const refusal = () => make(third, "late").then(String, ({ code }) => code);
  await eventually(refusal, "Forbidden");
  await second.stop();
  await first.start();
  await sees(first, "1+ 2- 3+");
  await expect(make(first, "data")).rejects.toMatchObject({ code: "Unreachable" });
  await second.start();
  await sees(first, "1+ 2+");
  expect(await make(first, "data")).toMatchObject({ name: "data" });
});

/** The first meetings after a start do not take place. */
function refuseFirstCalls(agents: readonly Cluster[]): void {
  for (const agent of agents) {
    let calls = 0;
    agent.onMemberCall = () => {
      if (calls++ === 0) throw new LongshoreError("Unreachable", "not yet");
    };
  }
}

test("one that answers is not forgotten, though it has not been heard of since a start", async () => {
  const [first, second, third] = await receivers();
  await first.stop();
  refuseFirstCalls([first, second, third]);
  await first.start();
  const { agentId } = third.engine;
  await expect(first.engine.api.forgetMember(agentId)).rejects.toMatchObject({ code: "InUse" });
});

test("one that comes back while it is asked whether it is there is not forgotten", async () => {
  const [first, second, third] = await three();
  for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
  clusters.cut(first, third);
  clusters.cut(third, first);
  await sees(first, "1+ 2+ 3-");
  clusters.heal();
  let isAsked = false;
  third.onMemberCall = async () => {
    if (!isAsked) {
      isAsked = true;
      await eventually(() => seenBy(first), "1+ 2+ 3+");
    }
    throw new LongshoreError("Unreachable", "not yet");
  };
  const { agentId } = third.engine;
  await expect(first.engine.api.forgetMember(agentId)).rejects.toMatchObject({ code: "InUse" });
  expect(await seenBy(first)).toBe("1+ 2+ 3+");
});

test("one that was forgotten forgets nobody, also when it hears of it only from the one that it is to forget", async () => {
  const agents = await three();
  const [first, second, third] = agents;
  for (const agent of agents) await sees(agent, "1+ 2+ 3+");
  await third.stop();
  await sees(second, "1+ 2+ 3-");
  await second.engine.api.forgetMember(third.engine.agentId);
  await sees(first, "1+ 2+");
  refuseFirstCalls(agents);
  await third.start();
  const { agentId } = first.engine;
  for (const when of ["told now", "known"]) {
    const forgets = third.engine.api.forgetMember(agentId).then(String, ({ code }) => code);
    expect([when, await forgets]).toEqual([when, "Forbidden"]);
  }
});

test("no copy is placed while one that may have it is away, until a person says that it will not come back", async () => {
  const [first, second, third] = await receivers();
  const locateAt = (agent: Cluster) => at(agent).locate(copyOfV1);
  const locate = () => locateAt(first);
  const { agentId } = await third.engine.api.describe();
  await third.stop();
  await expect(locate()).rejects.toMatchObject({ code: "Unreachable", message: expect.stringContaining(agentId) });
  await sees(second, "1+ 2+ 3-");
  await second.engine.api.forgetMember(agentId);
  await sees(first, "1+ 2+");
  expect((await locate()).homes).toHaveLength(1);
  await third.start();
  await eventually(() => refusalOf(locateAt(third)), "Unreachable: forgotten");
  await expect(first.engine.api.forgetMember("nobody")).rejects.toMatchObject({ code: "NotFound" });
  const { agentId: alive } = await second.engine.api.describe();
  await expect(first.engine.api.forgetMember(alive)).rejects.toMatchObject({ code: "InUse" });
});

test("a node that comes back with an empty disk leaves its former agent lost, until that is forgotten", async () => {
  const [first, second, third] = await three();
  for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
  const { agentId } = third.engine;
  await replaced(third);
  for (const agent of [first, second]) await sees(agent, "1+ 2+ 3! 3+");
  await second.engine.api.forgetMember(agentId);
  for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
});
