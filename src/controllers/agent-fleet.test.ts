import { expect, test } from "@jest/globals";
import { FakeAgent } from "../../test/fakes/fake-agent.ts";
import { FakeClock, settledTasks } from "../../test/fakes/fake-clock.ts";
import { seededDice } from "../base/dice.ts";
import { silentLog } from "../base/log.ts";
import { LongshoreError } from "../domain/errors.ts";
import { AgentFleet } from "./agent-fleet.ts";
import type { AgentNews } from "./agent-mirror.ts";
import { agentsProblem, findOne, lostAgent } from "./agents.ts";

interface Bench {
  readonly clock: FakeClock;
  readonly fleet: AgentFleet;
  readonly agents: Map<string, FakeAgent>;
  readonly news: AgentNews[];
  /** How often each method was called, of all agents. */
  readonly calls: Map<string, number>;
  stop(): Promise<void>;
}

/** A fleet of agents `a`, `b`, …, reached at `a:1`, `b:1`, …; each names all of them. An address without agent refuses. */
function bench(names: readonly string[], seeds: readonly string[], isUp = true): Bench {
  const clock = new FakeClock();
  const agents = new Map<string, FakeAgent>();
  const news: AgentNews[] = [];
  const calls = new Map<string, number>();
  const members = names.map((name) => ({
    agentId: name,
    node: name,
    address: `${name}:1`,
    laneAddress: `${name}:2`,
  }));
  for (const name of names) {
    const agent = new FakeAgent();
    Object.assign(agent.view, { agentId: name, members });
    if (isUp) agents.set(`${name}:1`, agent);
  }
  const connect = (address: string, agentId?: string) => {
    const isMeant = (agent: FakeAgent) => agentId === undefined || agent.view.agentId === agentId;
    return counted(() => [agents.get(address)].find((agent) => agent !== undefined && isMeant(agent)), address, calls);
  };
  const route = (each: AgentNews) => {
    news.push(each);
    return [];
  };
  const fleet = new AgentFleet({ clock, dice: seededDice(1), log: silentLog, seeds, connect, route });
  const stop = new AbortController();
  const running = fleet.run(() => undefined, stop.signal);
  return {
    clock,
    fleet,
    agents,
    news,
    calls,
    async stop() {
      stop.abort();
      await running;
    },
  };
}

type Client = FakeAgent & { close(): Promise<void> };

/** The agent as its client sees it: there or not, from one call to the next. */
function counted(find: () => FakeAgent | undefined, address: string, calls: Map<string, number>): Client {
  const close = async () => void calls.set("close", (calls.get("close") ?? 0) + 1);
  return new Proxy({ close } as Client, {
    get(target, method) {
      if (method === "close") return target.close;
      return (...parts: unknown[]) => {
        calls.set(String(method), (calls.get(String(method)) ?? 0) + 1);
        const agent = find();
        if (agent === undefined) throw new LongshoreError("Unreachable", `${address} refuses`);
        const member = agent[method as keyof FakeAgent] as unknown as (...args: unknown[]) => unknown;
        return member.apply(agent, parts);
      };
    },
  });
}

test("one seed that answers yields all members, each mirrored", async () => {
  const { clock, fleet, agents, stop } = bench(["a", "b"], ["gone:1", "a:1"]);
  await agents.get("b:1")?.putVolume("vol-1", { sizeBytes: 4096 });
  await clock.advance(100);
  expect(fleet.all().map(({ id }) => id)).toEqual(["a", "b"]);
  expect(agentsProblem(fleet)).toBeUndefined();
  expect(findOne(fleet, "volumes", "vol-1")?.agent.id).toBe("b");
  await stop();
});

test("while no agent has answered, nothing is known, and that is said", async () => {
  const { clock, fleet, agents, stop } = bench(["a"], ["a:1"], false);
  await clock.advance(5_000);
  expect(agentsProblem(fleet)).toBe("no agent of this cluster has answered yet");
  const agent = new FakeAgent();
  agents.set("a:1", agent).set("127.0.0.1:7420", agent);
  await clock.advance(5_000);
  expect(agentsProblem(fleet)).toBeUndefined();
  await stop();
});

test("a change is asked for by its name, and told", async () => {
  const { clock, fleet, agents, news, calls, stop } = bench(["a"], ["a:1"]);
  await clock.advance(100);
  await agents.get("a:1")?.putVolume("vol-1", { sizeBytes: 4096 });
  await clock.advance(100);
  expect(findOne(fleet, "volumes", "vol-1")?.view.sizeBytes).toBe(4096);
  expect(news.at(-1)).toEqual({ kind: "volume", name: "vol-1" });
  expect([calls.get("listVolumes"), calls.get("getVolume")]).toEqual([1, 1]);
  await agents.get("a:1")?.removeVolume("vol-1");
  await clock.advance(100);
  expect(findOne(fleet, "volumes", "vol-1")).toBeUndefined();
  await stop();
});

test("clones are known and told of like everything else: those there were, those that come, and those that go", async () => {
  const { clock, fleet, agents, news, stop } = bench(["a"], ["a:1"]);
  const agent = agents.get("a:1") as FakeAgent;
  agent.arrive("east-vol-1", { source: "east" });
  await agent.putClone("pvc-1", { migratedVolume: "east-vol-1", point: "latest" });
  await clock.advance(100);
  expect(news).toContainEqual({ kind: "clone", name: "pvc-1" });
  await agent.putClone("pvc-2", { migratedVolume: "east-vol-1", point: "latest" });
  await agent.removeClone("pvc-1");
  await clock.advance(100);
  expect(["pvc-1", "pvc-2"].map((name) => findOne(fleet, "clones", name)?.view.state)).toEqual([undefined, "Waiting"]);
  expect(news.filter(({ kind, name }) => kind === "clone" && name === "pvc-2")).toHaveLength(1);
  await stop();
});

test("what we ask for ourselves is seen at once, before the agent's news of it", async () => {
  const { clock, fleet, calls, stop } = bench(["a"], ["a:1"]);
  await clock.advance(100);
  await fleet.all()[0]?.api.putVolume("vol-1", { sizeBytes: 4096 });
  expect(findOne(fleet, "volumes", "vol-1")?.view.revision).toBe(1);
  expect(calls.get("getVolume")).toBeUndefined();
  await stop();
});

test("a burst of changes is one list, not a call for each volume", async () => {
  const { clock, fleet, agents, calls, stop } = bench(["a"], ["a:1"]);
  await clock.advance(100);
  for (let index = 0; index < 200; index++) await agents.get("a:1")?.putVolume(`vol-${index}`, { sizeBytes: 4096 });
  await clock.advance(100);
  expect(fleet.all()[0]?.volumes.size).toBe(200);
  expect((calls.get("getVolume") ?? 0) + (calls.get("listVolumes") ?? 0)).toBeLessThan(5);
  await stop();
});

test("an agent that forgot its changes is listed anew, and what is gone is gone", async () => {
  const { clock, fleet, agents, news, stop } = bench(["a"], ["a:1"]);
  const agent = agents.get("a:1") as FakeAgent;
  await agent.putVolume("vol-1", { sizeBytes: 4096 });
  await clock.advance(100);
  expect(findOne(fleet, "volumes", "vol-1")).toBeDefined();
  agent.volumes.delete("vol-1");
  agent.feed.forget();
  agent.feed.push("job", "none");
  agent.feed.forget();
  agent.feed.push("job", "none");
  await clock.advance(100);
  expect(findOne(fleet, "volumes", "vol-1")).toBeUndefined();
  expect(news).toContainEqual({ kind: "volume", name: "vol-1" });
  await stop();
});

test("an agent that goes away is said to, what it held stays known, and it is followed again when it is back", async () => {
  const { clock, fleet, agents, news, stop } = bench(["a"], ["a:1"]);
  const agent = agents.get("a:1") as FakeAgent;
  await agent.putVolume("vol-1", { sizeBytes: 4096 });
  await clock.advance(100);
  agents.clear();
  // The next thing that is asked of it fails.
  agent.feed.push("volume", "vol-1");
  await clock.advance(100);
  expect(agentsProblem(fleet)).toBe("agent a: a:1 refuses");
  expect(news).toContainEqual({ kind: "lost", name: "a" });
  expect(findOne(fleet, "volumes", "vol-1")).toBeDefined();
  await agent.putVolume("vol-2", { sizeBytes: 4096 });
  agents.set("a:1", agent);
  await clock.advance(30_000);
  expect(agentsProblem(fleet)).toBeUndefined();
  expect(findOne(fleet, "volumes", "vol-2")).toBeDefined();
  expect(news.filter(({ kind }) => kind === "synced").length).toBe(2);
  await stop();
});

test("a member that leaves the cluster is forgotten, and one that moves is followed at its new address", async () => {
  const { clock, fleet, agents, news, calls, stop } = bench(["a", "b"], ["a:1"]);
  await clock.advance(100);
  const [a, b] = [agents.get("a:1"), agents.get("b:1")] as [FakeAgent, FakeAgent];
  const moved = { agentId: "b", node: "b", address: "b:9", laneAddress: "b:2" };
  agents.delete("b:1");
  agents.set("b:9", b);
  Object.assign(a.view, { members: [...a.view.members.slice(0, 1), moved] });
  await b.putVolume("vol-1", { sizeBytes: 4096 });
  await clock.advance(60_000);
  expect(findOne(fleet, "volumes", "vol-1")?.agent.id).toBe("b");
  Object.assign(a.view, { members: a.view.members.slice(0, 1) });
  await clock.advance(60_000);
  expect(fleet.all().map(({ id }) => id)).toEqual(["a"]);
  // Those whose volumes it had are told, and nothing is kept open for where it was.
  expect(news).toContainEqual({ kind: "member", name: "b" });
  expect(calls.get("close")).toBe(2);
  await stop();
});

test("an agent that is back without its data, and knows nobody yet, takes nobody off the list", async () => {
  const { clock, fleet, agents, stop } = bench(["a", "b"], ["a:1"]);
  const b = agents.get("b:1") as FakeAgent;
  await b.putVolume("vol-1", { sizeBytes: 4096 });
  await clock.advance(100);
  // It answers where a did, under an id of its own.
  const fresh = new FakeAgent();
  const itself = { agentId: "c", node: "a", address: "a:1", laneAddress: "a:2" };
  Object.assign(fresh.view, { agentId: "c", members: [itself] });
  agents.set("a:1", fresh);
  await clock.advance(40_000);
  expect(fleet.all().map(({ id }) => id)).toEqual(["a", "b", "c"]);
  expect(findOne(fleet, "volumes", "vol-1")?.agent.id).toBe("b");
  expect(fleet.members().map(({ agentId }) => agentId)).toEqual(["c", "a", "b"]);
  // They have met, and a is known to be lost.
  const [a] = b.view.members.map((member) => ({ ...member, state: "lost" as const }));
  for (const agent of [fresh, b]) Object.assign(agent.view, { members: [a, ...b.view.members.slice(1), itself] });
  await clock.advance(20_000);
  expect(fleet.all().map(({ id }) => id)).toEqual(["b", "c"]);
  // From now on it is one of those who know.
  agents.delete("b:1");
  fresh.view.members = [itself];
  await clock.advance(20_000);
  expect(fleet.all().map(({ id }) => id)).toEqual(["c"]);
  await stop();
});

test("when all agents are made anew at once, the old ones go as soon as the new ones know each other", async () => {
  const { clock, fleet, agents, news, stop } = bench(["a", "b"], ["a:1"]);
  await clock.advance(100);
  const [c, d] = [
    { agentId: "c", node: "a", address: "a:1", laneAddress: "a:2" },
    { agentId: "d", node: "b", address: "b:1", laneAddress: "b:2" },
  ];
  const fresh = [c, d].map((self) => {
    const agent = new FakeAgent();
    Object.assign(agent.view, { agentId: self.agentId, members: [self] });
    agents.set(self.address, agent);
    return agent;
  });
  await clock.advance(20_000);
  expect(fleet.members().map(({ agentId }) => agentId)).toEqual(expect.arrayContaining(["a", "b"]));
  for (const agent of fresh) Object.assign(agent.view, { members: [c, d] });
  await clock.advance(40_000);
  expect(fleet.all().map(({ id }) => id)).toEqual(["c", "d"]);
  expect(agentsProblem(fleet)).toBeUndefined();
  expect(news).toContainEqual({ kind: "member", name: "a" });
  await stop();
});

test("at the start, an agent that is new and has met nobody yet is not believed: another one is asked, or it later", async () => {
  const { clock, fleet, agents, stop } = bench(["a", "b"], ["a:1", "b:1"], false);
  const fresh = new FakeAgent();
  const itself = { agentId: "c", node: "a", address: "a:1", laneAddress: "a:2" };
  Object.assign(fresh.view, { agentId: "c", members: [itself], isAcquainted: false });
  agents.set("a:1", fresh);
  await clock.advance(5_000);
  expect(agentsProblem(fleet)).toBe("no agent of this cluster has answered yet");
  const b = new FakeAgent();
  const members = ["a", "b"].map((name) => ({
    agentId: name,
    node: name,
    address: `${name}:1`,
    laneAddress: `${name}:2`,
  }));
  Object.assign(b.view, { agentId: "b", members, isAcquainted: true });
  agents.set("b:1", b);
  await clock.advance(5_000);
  expect(fleet.all().map(({ id }) => id)).toEqual(["a", "b"]);
  await stop();
});

test("nothing is asked of an agent that is away, and what it has not answered by then is given up", async () => {
  const { clock, fleet, agents, calls, stop } = bench(["a"], ["a:1"]);
  const agent = agents.get("a:1") as FakeAgent;
  await clock.advance(100);
  const api = fleet.all()[0]?.api;
  const take = agent.putSnapshot;
  agent.putSnapshot = () => new Promise(() => undefined);
  const hanging = expect(api?.putSnapshot("vol-1", "one")).rejects.toMatchObject({ code: "Unreachable" });
  agents.clear();
  agent.feed.push("volume", "vol-1");
  await clock.advance(100);
  await hanging;
  await expect(api?.putSnapshot("vol-1", "one")).rejects.toThrow("agent a is away: a:1 refuses");
  expect(calls.get("putSnapshot")).toBe(1);
  agent.putSnapshot = take;
  agents.set("a:1", agent);
  await clock.advance(30_000);
  await api?.putVolume("vol-1", { sizeBytes: 4096 });
  expect((await api?.putSnapshot("vol-1", "one"))?.name).toBe("one");
  await stop();
});

test("a change stream that merely breaks is no loss of the agent", async () => {
  const { clock, fleet, agents, news, stop } = bench(["a"], ["a:1"]);
  const agent = agents.get("a:1") as FakeAgent;
  const follow = agent.changes.bind(agent);
  const broken = Promise.withResolvers<never>();
  let streams = 0;
  agent.changes = async function* (since, signal) {
    if (streams++ === 0) await broken.promise;
    yield* follow(since, signal);
  };
  await clock.advance(100);
  broken.reject(new LongshoreError("StreamTorn", "the connection broke"));
  await clock.advance(1_000);
  expect([news.filter(({ kind }) => kind === "lost"), agentsProblem(fleet)]).toEqual([[], undefined]);
  expect(news.filter(({ kind }) => kind === "synced")).toHaveLength(2);
  await stop();
});

test("one that stays away is told of once", async () => {
  const { clock, agents, news, stop } = bench(["a"], ["a:1"]);
  const agent = agents.get("a:1") as FakeAgent;
  await clock.advance(100);
  agents.clear();
  agent.feed.push("volume", "vol-1");
  await clock.advance(120_000);
  expect(news.filter(({ kind }) => kind === "lost")).toHaveLength(1);
  await stop();
});

test("an answer that comes late does not hide what the agent has told meanwhile", async () => {
  const { clock, fleet, agents, stop } = bench(["a"], ["a:1"]);
  const agent = agents.get("a:1") as FakeAgent;
  await clock.advance(100);
  const put = agent.putVolume.bind(agent);
  agent.putVolume = async (...parts) => {
    const answer = await put(...parts);
    await clock.sleep(1_000);
    return answer;
  };
  const asked = fleet.all()[0]?.api.putVolume("vol-1", { sizeBytes: 4096 });
  await settledTasks();
  await put("vol-1", { sizeBytes: 8192 });
  await clock.advance(2_000);
  expect((await asked)?.sizeBytes).toBe(4096);
  expect(findOne(fleet, "volumes", "vol-1")?.view.sizeBytes).toBe(8192);
  await stop();
});

test("an agent's jobs are found by the MigrationJob that they were made for", async () => {
  const { clock, fleet, agents, stop } = bench(["a"], ["a:1"]);
  const agent = agents.get("a:1") as FakeAgent;
  await agent.putVolume("vol-1", { sizeBytes: 4096 });
  await agent.putLocation("berlin", { clusterName: "berlin", seeds: ["b:1"], caBundle: "ca" });
  await agent.putSnapshot("vol-1", "one");
  const uid = "6f2c1a58-0000-4000-8000-000000000001";
  const names = [`now.${uid}`, `now.${uid}.1`, `later.${uid}`, "by-hand"];
  for (const name of names) await agent.putJob(name, { volume: "vol-1", location: "berlin", snapshot: "one" });
  await clock.advance(100);
  const found = () => (fleet.all()[0]?.jobsOf("now") ?? []).map(({ name }) => name);
  expect(found()).toEqual(names.slice(0, 2));
  for (const name of names.slice(0, 2)) {
    agent.failJob(name, new LongshoreError("DiskFull", "no room"));
    await agent.removeJob(name);
  }
  await clock.advance(100);
  expect(found()).toEqual([]);
  await stop();
});

test("it is ready when every agent has been listed, or could not be", async () => {
  const { clock, fleet, agents, stop } = bench(["a", "b"], ["a:1"]);
  const agent = agents.get("a:1") as FakeAgent;
  const gate = Promise.withResolvers<void>();
  const list = agent.listVolumes.bind(agent);
  agent.listVolumes = async () => {
    await gate.promise;
    return list();
  };
  agents.delete("b:1");
  let isReady = false;
  void fleet.ready.then(() => {
    isReady = true;
  });
  await clock.advance(100);
  expect(isReady).toBe(false);
  gate.resolve();
  await clock.advance(100);
  expect([isReady, agentsProblem(fleet)]).toEqual([true, "agent b: b:1 refuses"]);
  await stop();
});

test("where no agent answers at first there is nothing to wait for", async () => {
  const { clock, fleet, stop } = bench(["a"], ["a:1"], false);
  await clock.advance(100);
  await fleet.ready;
  await stop();
});

test("an agent that hangs does not hold up the end", async () => {
  const [clock, agent] = [new FakeClock(), new FakeAgent()];
  const answer = Promise.withResolvers<never>();
  agent.listVolumes = () => answer.promise;
  const close = async () => answer.reject(new LongshoreError("StreamTorn", "the client was closed"));
  const connect = () => Object.assign(agent, { close });
  const base = { clock, dice: seededDice(1), log: silentLog };
  const fleet = new AgentFleet({ ...base, seeds: ["a:1"], connect, route: () => [] });
  const end = new AbortController();
  const running = fleet.run(() => undefined, end.signal);
  await clock.advance(100);
  end.abort();
  await running;
  expect(fleet.all()).toEqual([]);
});

test("when it stops, everything it opened is closed", async () => {
  const { clock, fleet, calls, stop } = bench(["a", "b"], ["a:1"]);
  await clock.advance(100);
  await stop();
  await settledTasks();
  expect(fleet.all()).toEqual([]);
  // The seed, and two members.
  expect(calls.get("close")).toBe(3);
  expect(clock.sleepers).toBe(0);
});

test("what the agents say of each other is known; one that is lost is told of, and no longer followed", async () => {
  const { clock, fleet, agents, news, stop } = bench(["a", "b"], ["a:1"]);
  await clock.advance(100);
  expect(fleet.members().map(({ agentId, state }) => `${agentId} ${state}`)).toEqual(["a undefined", "b undefined"]);
  // Another agent answers where the lost one was; what it has is not the lost one's.
  for (const agent of agents.values()) {
    const state = (agentId: string) => (agentId === "b" ? "lost" : "alive");
    agent.view.members = agent.view.members.map((one) => ({ ...one, state: state(one.agentId) }));
  }
  await clock.advance(20_000);
  expect(fleet.all().map(({ id }) => id)).toEqual(["a"]);
  expect(lostAgent(fleet.members(), "b")?.node).toBe("b");
  expect(lostAgent(fleet.members(), "a")).toBeUndefined();
  expect(news).toContainEqual({ kind: "member", name: "b" });
  const told = news.length;
  await clock.advance(20_000);
  expect(news.length).toBe(told);
  await stop();
});

test("what answers at a member's address and is another agent is not taken for it, before anybody misses that one", async () => {
  const { clock, fleet, agents, stop } = bench(["a", "b"], ["a:1"]);
  const b = agents.get("b:1") as FakeAgent;
  await b.putVolume("vol-1", { sizeBytes: 4096 });
  await clock.advance(100);
  const stranger = new FakeAgent();
  Object.assign(stranger.view, { agentId: "c" });
  agents.set("b:1", stranger);
  b.feed.push("volume", "vol-1");
  await clock.advance(20_000);
  expect(agentsProblem(fleet)).toBe("agent b: b:1 refuses");
  expect(findOne(fleet, "volumes", "vol-1")?.agent.id).toBe("b");
  await stop();
});
