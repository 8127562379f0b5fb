import { beforeEach, describe, expect, test } from "@jest/globals";
import { FakeAgent } from "../../test/fakes/fake-agent.ts";
import { FakeClock } from "../../test/fakes/fake-clock.ts";
import { describe as describeError, LongshoreError } from "../domain/errors.ts";
import type { AgentApi } from "./agent-api.ts";
import { type ClusterApi, openClusterClient } from "./cluster-client.ts";
import { nameClaims } from "./routes.ts";

const sizeBytes = 2 ** 20;

let clock: FakeClock;
let agents: [FakeAgent, FakeAgent, FakeAgent];
/** Addresses at which nobody answers. */
let away: Set<string>;
/** `ADDRESS method`, of the calls that reached somebody. */
let calls: string[];
let opened: string[];
let closed: string[];
let silent: string[];
let cluster: ClusterApi;

const idOf = (agent: FakeAgent) => agent.view.agentId;
const addressOf = (agent: FakeAgent) =>
  String(agents.flatMap(({ view }) => view.members).find(({ agentId }) => agentId === idOf(agent))?.address);

/** An agent as it is reached at an address; nobody answers there for another one. */
function reached(agent: () => FakeAgent | undefined, address: string, agentId?: string): AgentApi {
  return new Proxy({} as AgentApi, {
    get(own, method: string) {
      if (method === "then" || Reflect.has(own, method)) return Reflect.get(own, method);
      return async (...args: unknown[]) => {
        const there = agent();
        const isMeant = there !== undefined && (agentId === undefined || idOf(there) === agentId);
        if (!isMeant || away.has(address)) throw new LongshoreError("Unreachable", `nobody answers at ${address}`);
        calls.push(`${address} ${method}`);
        const call = there[method as keyof AgentApi] as unknown as (...given: unknown[]) => Promise<unknown>;
        return call.apply(there, args);
      };
    },
  });
}

beforeEach(() => {
  clock = new FakeClock();
  agents = [1, 2, 3].map((place) => new FakeAgent({ place })) as typeof agents;
  const [one, ...others] = agents;
  one.join(others);
  away = new Set();
  [calls, opened, closed, silent] = [[], [], [], []];
  cluster = openClusterClient({
    first: reached(() => one, "service"),
    open(address, agentId) {
      opened.push(address);
      const at = () => agents.find((agent) => addressOf(agent) === address);
      const close = async () => void closed.push(address);
      return Object.assign(reached(at, address, agentId), { close });
    },
    onSilent: ({ node }) => void silent.push(node),
    clock,
  });
});

describe("who there is", () => {
  test("is read again once it is old, and connections to those that went or moved are closed", async () => {
    const [one, two, three] = agents;
    const before = agents.map(addressOf);
    expect((await cluster.agents()).map(({ node }) => node)).toEqual(["node-1", "node-2", "node-3"]);
    one.view.members = one.view.members.flatMap((member) => {
      if (member.agentId === idOf(three)) return [];
      return member.agentId === idOf(two) ? [{ ...member, address: "127.0.0.1:9" }] : [member];
    });
    await clock.advance(10_000);
    expect((await cluster.agents()).map(({ node }) => node)).toEqual(["node-1", "node-2"]);
    expect([opened.slice(3), closed, silent]).toEqual([["127.0.0.1:9"], before.slice(1), []]);
    await cluster.close();
    expect(closed).toHaveLength(4);
  });

  test("is not believed to be fewer because an agent says so that is new, and has perhaps met nobody yet", async () => {
    const [one, , three] = agents;
    await three.putVolume("data", { sizeBytes });
    expect(await cluster.agents()).toHaveLength(3);
    const others = one.view.members.slice(1);
    const agentId = "00000000-0000-4000-8000-0000000000aa";
    const fresh = { agentId, node: "node-1", address: "127.0.0.1:8", laneAddress: "127.0.0.1:9" };
    Object.assign(one.view, { agentId, members: [fresh] });
    await clock.advance(10_000);
    await expect(cluster.getVolume("other")).rejects.toMatchObject({ code: "Unreachable" });
    // It has met the others by now.
    one.view.members = [fresh, ...others];
    await clock.advance(10_000);
    expect((await cluster.getVolume("data")).name).toBe("data");
    await expect(cluster.getVolume("other")).rejects.toMatchObject({ code: "NotFound" });
  });

  test("is not believed at all at first of one that says that it is new, and cannot know who there is", async () => {
    const [one, , three] = agents;
    await three.putVolume("data", { sizeBytes });
    const all = one.view.members;
    Object.assign(one.view, { members: all.slice(0, 1), isAcquainted: false });
    const refused = { code: "Unreachable", message: expect.stringContaining("does not know yet who else there is") };
    await expect(cluster.removeVolume("data")).rejects.toMatchObject(refused);
    Object.assign(one.view, { members: all, isAcquainted: true });
    await cluster.removeVolume("data");
    expect((await three.listVolumes()).items).toEqual([]);
  });

  test("is never believed of one that says so, however often it is asked: another one is, if one answers", async () => {
    const [one, two, three] = agents;
    await three.putVolume("data", { sizeBytes });
    expect(await cluster.agents()).toHaveLength(3);
    const agentId = "00000000-0000-4000-8000-0000000000aa";
    const fresh = { agentId, node: "node-1", address: "127.0.0.1:8", laneAddress: "127.0.0.1:9" };
    const others = one.view.members.slice(1);
    Object.assign(one.view, { agentId, members: [fresh], isAcquainted: false });
    two.view.members = [fresh, ...others];
    for (const { address } of others) away.add(address);
    for (let round = 0; round < 3; round++) {
      await clock.advance(10_000);
      await expect(cluster.removeVolume("data")).rejects.toMatchObject({ code: "Unreachable" });
    }
    away.clear();
    await clock.advance(10_000);
    await cluster.removeVolume("data");
    expect((await three.listVolumes()).items).toEqual([]);
  });

  test("is told by another agent while the one that is usually asked does not answer", async () => {
    await cluster.agents();
    away.add("service");
    await clock.advance(10_000);
    expect(await cluster.agents()).toHaveLength(3);
    for (const agent of agents) away.add(addressOf(agent));
    await clock.advance(10_000);
    await expect(cluster.agents()).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("is asked for once by all who ask at the same time", async () => {
    await Promise.all([cluster.listVolumes(), cluster.listJobs(), cluster.agents()]);
    expect(calls.filter((call) => call === "service describe")).toHaveLength(1);
  });
});

test("one that falls silent is told once, asked again, and told again when it has answered in between", async () => {
  const two = addressOf(agents[1]);
  away.add(two);
  for (let round = 0; round < 2; round++) expect(await cluster.agents()).toHaveLength(2);
  expect(silent).toEqual(["node-2"]);
  away.delete(two);
  expect(await cluster.agents()).toHaveLength(3);
  away.add(two);
  expect(await cluster.agents()).toHaveLength(2);
  expect(silent).toEqual(["node-2", "node-2"]);
});

test("a list tells who answered for it, which those that are silent or lost did not", async () => {
  const [one, two, three] = agents;
  away.add(addressOf(two));
  await three.putVolume("data", { sizeBytes });
  const list = await cluster.listVolumes();
  expect([list.items.map(({ name }) => name), list.answered]).toEqual([["data"], [idOf(one), idOf(three)]]);
  one.view.members = one.view.members.map((member) =>
    member.agentId === idOf(three) ? { ...member, state: "lost" as const } : member,
  );
  away.clear();
  await clock.advance(10_000);
  expect((await cluster.listMigratedVolumes()).answered).toEqual([idOf(one), idOf(two)]);
});

describe("a volume", () => {
  test("is looked for everywhere once, and then where it was; only when it is not there any more everywhere again", async () => {
    const [, two, three] = agents;
    await two.putVolume("data", { sizeBytes });
    await cluster.getVolume("data");
    calls.length = 0;
    await cluster.putSnapshot("data", "s1");
    expect(calls).toEqual([`${addressOf(two)} getVolume`, `${addressOf(two)} putSnapshot`]);
    await two.removeVolume("data");
    const made = await three.putVolume("data", { sizeBytes });
    expect((await cluster.getVolume("data")).uid).toBe(made.uid);
    await cluster.removeVolume("data");
    await expect(cluster.getVolume("data")).rejects.toMatchObject({ code: "NotFound" });
    expect((await three.listVolumes()).items).toEqual([]);
  });

  test("that an agent which does not answer may have is not said to be missing, wherever it was before", async () => {
    const [, two] = agents;
    await two.putVolume("data", { sizeBytes });
    await cluster.getVolume("data");
    away.add(addressOf(two));
    for (const name of ["data", "other"]) {
      const message = expect.stringContaining("if it will not come back: longshore node forget");
      await expect(cluster.getVolume(name)).rejects.toMatchObject({ code: "Unreachable", message });
    }
    away.clear();
    expect((await cluster.getVolume("data")).home).toBe(idOf(two));
  });

  test("is made at the agent that is named, and made again it is the same", async () => {
    const [one, two, three] = agents;
    const made = await cluster.putVolumeAt(idOf(three), "data", { sizeBytes });
    expect(await cluster.putVolumeAt(idOf(three), "data", { sizeBytes })).toEqual(made);
    expect([one, two, three].map(({ volumes }) => volumes.size)).toEqual([0, 0, 1]);
  });

  test("whose name an agent that is away may have is made by one that finds that out with the others", async () => {
    const [, two, three] = agents;
    away.add(addressOf(two));
    three.view.understands = [nameClaims];
    await cluster.putVolumeAt(idOf(three), "data", { sizeBytes });
    expect(three.volumes.has("data")).toBe(true);
    await expect(cluster.putVolumeAt(idOf(two), "new", { sizeBytes })).rejects.toMatchObject({ code: "Unreachable" });
    await expect(cluster.putVolumeAt("nobody", "new", { sizeBytes })).rejects.toMatchObject({ code: "NotFound" });
  });

  test("is not made under a name that stands for one elsewhere, or may do so where an agent cannot find that out", async () => {
    const [one, two, three] = agents;
    await two.putVolume("data", { sizeBytes });
    await expect(cluster.putVolumeAt(idOf(three), "data", { sizeBytes })).rejects.toMatchObject({ code: "NameTaken" });
    away.add(addressOf(two));
    three.view.understands = ["affinity"];
    const refused: unknown = await cluster.putVolumeAt(idOf(three), "new", { sizeBytes }).catch((error) => error);
    expect(refused).toMatchObject({ code: "Unreachable" });
    // Which agent it is about, and what to do, stands in the cause, which is told along with it.
    expect(describeError(refused)).toMatch(new RegExp(`${idOf(two)} does not answer; .*longshore node forget$`));
    away.clear();
    await expect(cluster.putVolumeAt("nobody", "new", { sizeBytes })).rejects.toMatchObject({ code: "NotFound" });
    expect([one, three].map(({ volumes }) => volumes.size)).toEqual([0, 0]);
  });

  test("that is a clone is made where what it is made of is, also while another agent is away", async () => {
    const [, two, three] = agents;
    await two.putVolume("data", { sizeBytes });
    const from = { volume: "data" };
    expect((await cluster.putVolume("copy", { sizeBytes, from })).home).toBe(idOf(two));
    away.add(addressOf(three));
    expect((await cluster.putVolume("other", { sizeBytes, from })).home).toBe(idOf(two));
    expect((await cluster.putVolume("copy", { sizeBytes, from })).home).toBe(idOf(two));
    await expect(cluster.putVolume("plain", { sizeBytes })).rejects.toMatchObject({ code: "Unreachable" });
  });

  test("whose copy was deleted is not said to be gone while the agent that may have it is away", async () => {
    const [, two] = agents;
    const name = two.arrive("east.pvc-1", { source: "east" }).name;
    away.add(addressOf(two));
    await expect(cluster.removeMigratedVolume(name)).rejects.toMatchObject({ code: "Unreachable" });
    away.clear();
    expect((await cluster.listMigratedVolumes()).items).toHaveLength(1);
    await cluster.removeMigratedVolume(name);
    await cluster.removeMigratedVolume(name);
    expect((await two.listMigratedVolumes()).items).toEqual([]);
  });

  test("has its extents read where it is", async () => {
    const [, , three] = agents;
    await three.putVolume("data", { sizeBytes });
    three.write("data", 4096, 4096);
    await three.putSnapshot("data", "s1");
    const page = await cluster.listExtents("data", "s1", {});
    expect(page.extents).toEqual([{ offset: 4096, length: 4096 }]);
  });
});

test("whoever always reaches one and the same agent speaks to that one so, for it need not be where others reach it", async () => {
  const [one, two] = agents;
  const [, ...others] = agents.map(addressOf);
  const direct = openClusterClient({
    first: reached(() => one, "service"),
    isFirstOneAgent: true,
    open: (address, agentId) => {
      opened.push(address);
      const at = () => agents.find((agent) => addressOf(agent) === address);
      return Object.assign(reached(at, address, agentId), { close: async () => undefined });
    },
    onSilent: () => undefined,
    clock,
  });
  await one.putVolume("data", { sizeBytes });
  expect((await direct.getVolume("data")).home).toBe(idOf(one));
  expect((await direct.agents()).length).toBe(3);
  expect(opened).toEqual(others);
  await two.putVolume("more", { sizeBytes });
  expect((await direct.getVolume("more")).home).toBe(idOf(two));
});
