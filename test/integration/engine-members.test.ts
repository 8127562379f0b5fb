import { mkdir, rm } from "node:fs/promises";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, describe, expect, test } from "@jest/globals";
import { type Cluster, type Clusters, openClusters, pair } from "../fakes/engines.ts";

let clusters: Clusters;

afterEach(() => clusters.close());

/** What an agent knows of the members of its cluster: `1+` alive, `2-` unreachable, `3!` lost. */
async function seenBy(agent: Cluster): Promise<string> {
  const { members } = await agent.engine.api.describe();
  const signs = { alive: "+", unreachable: "-", lost: "!" } as const;
  return members
    .map(({ node, state = "alive" }) => `${node.slice(node.lastIndexOf("-") + 1)}${signs[state]}`)
    .sort()
    .join(" ");
}

/** Meetings come by the clock; the answer is waited for, and what was answered last is what counts. */
async function eventually(read: () => Promise<string>, expected: string): Promise<void> {
  const deadlineMs = performance.now() + 10_000;
  while ((await read()) !== expected && performance.now() < deadlineMs) await pause(5);
  expect(await read()).toBe(expected);
}

function sees(agent: Cluster, what: string): Promise<void> {
  return eventually(() => seenBy(agent), what);
}

const three = async (): Promise<readonly [Cluster, Cluster, Cluster]> => {
  clusters = await openClusters({ west: 3 }, { inMemory: true });
  return clusters.of("west") as unknown as [Cluster, Cluster, Cluster];
};

describe("agents of one cluster", () => {
  test("learn of each other from one seed", async () => {
    for (const agent of await three()) await sees(agent, "1+ 2+ 3+");
  });

  test("miss one that stops, and see it again when it is back, also after all have been started anew", async () => {
    const [first, second, third] = await three();
    await sees(first, "1+ 2+ 3+");
    await third.stop();
    await sees(first, "1+ 2+ 3-");
    await first.stop();
    await first.start();
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
});

test("the home of a copy is chosen once, whoever is asked, and by all at the same time", async () => {
  clusters = await openClusters({ east: 1, west: 3 }, { inMemory: true });
  const west = clusters.of("west");
  await pair(clusters.of("east"), west);
  for (const agent of west) await sees(agent, "1+ 2+ 3+");
  const request = { volumes: [{ volume: "v1", sizeBytes: 4096 }] };
  const homes = await Promise.all(west.map(({ engine }) => engine.peer("uid-east", ["east"]).locate(request)));
  expect(new Set(homes.map(({ homes: [home] }) => home?.agentId)).size).toBe(1);
});

test("no copy is placed while one that may have it is away, until a person says that it will not come back", async () => {
  clusters = await openClusters({ east: 1, west: 3 }, { inMemory: true });
  const [first, second, third] = clusters.of("west") as [Cluster, Cluster, Cluster];
  await pair(clusters.of("east"), [first, second, third]);
  for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
  const locateAt = ({ engine }: Cluster) =>
    engine.peer("uid-east", ["east"]).locate({ volumes: [{ volume: "v1", sizeBytes: 4096 }] });
  const locate = () => locateAt(first);
  const { agentId } = await third.engine.api.describe();
  await third.stop();
  await expect(locate()).rejects.toMatchObject({ code: "Unreachable", message: expect.stringContaining(agentId) });
  await sees(second, "1+ 2+ 3-");
  await second.engine.api.forgetMember(agentId);
  await sees(first, "1+ 2+");
  expect((await locate()).homes).toHaveLength(1);
  await third.start();
  const answer = () => locateAt(third).then(String, ({ code }) => code);
  await eventually(answer, "Forbidden");
  await expect(first.engine.api.forgetMember("nobody")).rejects.toMatchObject({ code: "NotFound" });
  const { agentId: alive } = await second.engine.api.describe();
  await expect(first.engine.api.forgetMember(alive)).rejects.toMatchObject({ code: "InUse" });
});

test("a node that comes back with an empty disk leaves its former agent lost, until that is forgotten", async () => {
  const [first, second, third] = await three();
  for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
  const { agentId } = await third.engine.api.describe();
  await third.stop();
  await rm(third.folder, { recursive: true });
  await mkdir(third.folder);
  await third.start();
  for (const agent of [first, second]) await sees(agent, "1+ 2+ 3! 3+");
  await second.engine.api.forgetMember(agentId);
  for (const agent of [first, second, third]) await sees(agent, "1+ 2+ 3+");
});
