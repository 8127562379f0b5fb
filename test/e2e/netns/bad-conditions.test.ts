// Jobs of groups and of single volumes between clusters of several agents, over networks that are slow, lossy, late and open in
// one direction only, onto disks that are full, and with homes that die in the moment of the decision.
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, afterEach, expect } from "@jest/globals";
import { needs } from "../../needs.ts";
import { eventually } from "../process.ts";
import { openBadPath } from "./bad-path.ts";
import { type Cast, type GroupVolume, GroupVolumes, jobPatience } from "./group-volumes.ts";
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

afterEach(async () => {
  await sites?.network.lose(0);
  await sites?.ready();
});
afterAll(async () => sites?.close());

const test = (name: string, work: () => Promise<void>) => needs("netns")(name, work, testMsMax);

test("a group arrives over a network that loses one packet in twenty", async () => {
  const { sites, group } = await world();
  await sites.network.lose(5);
  await group.migrate();
});

test("a group arrives over slow links, whose terms are kept alive all the while", async () => {
  const { sites, group } = await world();
  const sources = sites.source.agents.map(({ name }) => name);
  for (const name of sources) await sites.network.slow(name, 100_000);
  const beganMs = performance.now();
  await group.migrate();
  for (const name of sources) await sites.network.slow(name, undefined);
  // Half a mebibyte at that rate: else the links were not slow.
  expect(performance.now() - beganMs).toBeGreaterThan(2 * leaseMs);
});

test("a group arrives over a path that is late and breaks connections", async () => {
  const { sites, group, cast } = await world();
  const close = await openBadPath(sites, { delayMs: 5, lossPercent: 0.5, seed: 4 });
  // Connections that go past it end with their agents.
  for (const agent of sites.source.agents) await agent.kill();
  await sites.ready();
  try {
    await group.migrate();
  } finally {
    await close();
    await cast.coordinator.kill();
  }
});

for (const direction of ["to", "from"] as const) {
  test(`a group ends well when for a while nothing gets ${direction} the home of a copy`, async () => {
    const { sites, group, cast } = await world();
    const snapshot = await group.writeAndSnapshot();
    const lanes = await Promise.all(
      group.volumes.map(({ source }) => source.close({ side: "calling", call: "peer.laneTicket", moment: "before" })),
    );
    const job = await group.begin(snapshot);
    await Promise.all(lanes.map((gate) => gate.held()));
    const others = sites.agents.filter((agent) => agent !== cast.target).map(({ name }) => name);
    const home = [cast.target.name];
    if (direction === "from") await sites.network.cutOneWay(home, others);
    else await sites.network.cutOneWay(others, home);
    for (const gate of lanes) gate.open();
    await sleep(1.5 * leaseMs);
    await sites.ready();
    await group.succeeded(job);
    await group.check(snapshot);
  });
}

test("a group whose members do not find room waits, and arrives when there is some", async () => {
  const { group, cast } = await world();
  const snapshot = await group.writeAndSnapshot();
  await cast.target.fill(0);
  const job = await group.begin(snapshot);
  await eventually(
    "the job telling of the full disk",
    async () => {
      const views = await Promise.all(group.volumes.map(({ source }) => source.api.getJob(job)));
      const told = JSON.stringify(
        views.map(({ error, participants }) => [error, participants.map((one) => one.lastError)]),
      );
      return /full|space|room/i.test(told) ? true : undefined;
    },
    jobPatience,
  );
  await group.checkEveryPoint();
  await cast.target.unfill();
  await group.succeeded(job);
  await group.check(snapshot);
});

for (const moment of ["before", "after"] as const) {
  test(`a single volume whose home is killed right ${moment} its commit arrives once`, async () => {
    const { sites, group } = await world();
    const volume = group.volumes[1] as GroupVolume;
    const commit = await volume.target.close({ side: "serving", call: "peer.commit", moment });
    await group.migrateAlone(volume, async () => {
      await commit.held();
      await volume.target.kill();
      await sites.ready();
    });
  });
}

test("a single volume is found through any agent of the target, also when all seeds but its home are away", async () => {
  const { sites, group } = await world();
  const volume = group.volumes[1] as GroupVolume;
  const away = sites.target.agents.filter((agent) => agent !== volume.target);
  for (const agent of away) await agent.kill();
  await group.migrateAlone(volume, async (job) => {
    await group.endedAlone(volume, job);
    await sites.ready();
  });
});
