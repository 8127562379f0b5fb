// Every call of the migration protocol in a first copy and an increment, and every effect on the disk of either side,
// fails, loses its answer, or is the last thing a process does. Each time the migration ends as if nothing had happened.
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { PlanHeader, StoreResult } from "../../src/wire/peer.ts";
import { type Cluster, restart } from "../fakes/engines.ts";
import {
  changeVolume,
  ended,
  flaws,
  leftovers,
  makeVolume,
  openWorld,
  requireCopy,
  snapshot,
  start,
  type World,
} from "../fakes/migration-world.ts";

let world: World;
beforeAll(async () => {
  // How often a job is tried while a process is starting depends on the machine.
  world = await openWorld({ limits: { attemptsMax: 1000 } });
});
afterAll(async () => {
  expect(await leftovers(world.clusters)).toEqual([]);
  await world.clusters.close();
});

type Fault = (world: World) => Promise<void>;

const failure = new LongshoreError("Unreachable", "the network is down");

/** Only begins to: the process waits for the very work that this is called from. */
function beginRestart(cluster: Cluster): Promise<void> {
  void restart(cluster);
  return Promise.resolve();
}

interface Run {
  readonly wasHit: boolean;
  readonly resent: string[];
}

/** A first copy and an increment of a fresh volume, in which the n-th thing that `watch` tells of is hit. */
async function runWith(
  name: string,
  n: number,
  watch: (tell: (what: string) => Promise<void>) => void,
  fault: Fault,
): Promise<Run> {
  let count = 0;
  let isMigrating = false;
  await makeVolume(world, name);
  const resent = watchStoredUnits();
  watch(async () => {
    if (!isMigrating) return;
    count += 1;
    if (count !== n) return;
    await fault(world);
    throw failure;
  });
  const migrate = async (snapshotName: string) => {
    await snapshot(world, name, snapshotName);
    isMigrating = true;
    const job = await ended(world.source, await start(world, name, snapshotName));
    isMigrating = false;
    await Promise.all(world.clusters.all.map((cluster) => cluster.running));
    return job;
  };
  const first = await migrate("s1");
  expect([name, first.state, first.error]).toEqual([name, "Succeeded", null]);
  await changeVolume(world, name);
  const second = await migrate("s2");
  expect([name, second.state, second.mode?.kind]).toEqual([name, "Succeeded", "Delta"]);
  quiet();
  return { wasHit: count >= n, resent };
}

/** Notes every piece of a unit that the target had told us is stored. */
function watchStoredUnits(): string[] {
  const { target } = world;
  const resent: string[] = [];
  const stored = new Set<string>();
  let plan = "";
  target.lanes.faults.onPiece = (piece, payload) => {
    if (stored.has(`${plan} ${piece.unit}`)) resent.push(`unit ${piece.unit}`);
    return payload;
  };
  target.onReply = (method, args, result) => {
    if (method === "putPlan") plan = (args[1] as PlanHeader).planDigest;
    if (method === "store") for (const unit of (result as StoreResult).stored) stored.add(`${plan} ${unit}`);
  };
  return resent;
}

/** A start looks at every file there is, and there are hundreds of starts. */
async function remove(volume: string): Promise<void> {
  const { name } = await requireCopy(world, volume);
  await world.target.engine.api.removeMigratedVolume(name);
  await world.source.engine.api.removeVolume(volume);
  for (const cluster of world.clusters.all) expect(await cluster.storage.list()).toEqual([]);
}

function quiet(): void {
  for (const cluster of world.clusters.all) {
    cluster.onCall = () => undefined;
    cluster.onReply = () => undefined;
    cluster.onStorage = () => undefined;
    delete cluster.lanes.faults.onPiece;
  }
}

const beforeCall = (tell: (what: string) => Promise<void>) => {
  world.target.onCall = tell;
};

const afterCall = (tell: (what: string) => Promise<void>) => {
  const noted = world.target.onReply;
  world.target.onReply = async (method, args, result) => {
    await noted(method, args, result);
    await tell(method);
  };
};

const onDisk =
  (pick: (world: World) => Cluster, moment: "before" | "after") => (tell: (w: string) => Promise<void>) => {
    const changing = /create|snapshot|deletePoint|stage|seal|\.write|\.punch|\.sync|openStaging$|openPoint$/;
    pick(world).onStorage = async (step, when) => {
      if (when === moment && changing.test(step)) await tell(step);
    };
  };

const theSource = ({ source }: World) => source;
const theTarget = ({ target }: World) => target;
const none: Fault = async () => undefined;
const restartSource: Fault = ({ source }) => beginRestart(source);
const restartTarget: Fault = ({ target }) => restart(target);
const beginRestartTarget: Fault = ({ target }) => beginRestart(target);

test.each([
  ["fails before it is carried out", "a", beforeCall, none],
  ["is carried out and its answer lost", "b", afterCall, none],
  ["is the last thing before the source's process ends", "c", beforeCall, restartSource],
  ["is carried out, and the source's process ends", "d", afterCall, restartSource],
  ["is the last thing before the target's process ends", "e", beforeCall, restartTarget],
  ["is carried out, and the target's process ends", "f", afterCall, restartTarget],
])(
  "a migration is complete and leaves nothing behind when any call %s",
  async (_how, mark, watch, fault) => {
    for (let n = 1; n <= 100; n++) {
      const volume = `${mark}${n}`;
      const run = await runWith(volume, n, watch, fault);
      expect([volume, run.resent]).toEqual([volume, []]);
      expect([volume, await flaws(world, volume)]).toEqual([volume, []]);
      await remove(volume);
      if (!run.wasHit) return expect(n).toBeGreaterThan(15);
    }
    throw new Error("a migration makes more than 100 calls");
  },
  60_000,
);

test.each([
  ["source", "fails", "g", onDisk(theSource, "before"), none],
  ["source", "is the last thing before its process ends", "h", onDisk(theSource, "before"), restartSource],
  ["source", "is carried out, and its process ends", "i", onDisk(theSource, "after"), restartSource],
  ["target", "fails", "j", onDisk(theTarget, "before"), none],
  ["target", "is the last thing before its process ends", "k", onDisk(theTarget, "before"), beginRestartTarget],
  ["target", "is carried out, and its process ends", "l", onDisk(theTarget, "after"), beginRestartTarget],
])(
  "a migration is complete and leaves nothing behind when any effect on the %s's disk %s",
  async (_side, _how, mark, watch, fault) => {
    for (let n = 1; n <= 100; n++) {
      const volume = `${mark}${n}`;
      const run = await runWith(volume, n, watch, fault);
      expect([volume, run.resent]).toEqual([volume, []]);
      expect([volume, await flaws(world, volume)]).toEqual([volume, []]);
      await remove(volume);
      if (!run.wasHit) return expect(n).toBeGreaterThan(3);
    }
    throw new Error("a migration has more than 100 effects");
  },
  60_000,
);
