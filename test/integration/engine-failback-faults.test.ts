// Every call of the first job back, and every effect on the disk of the original's cluster, fails, loses its answer, or is
// the last thing a process does. Each time the clone arrives as a difference, beside an original that stays as it was.
import { randomBytes } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import { type Cluster, restart } from "../fakes/engines.ts";
import { bothWays, contentOf, failOver, reversed } from "../fakes/failback-world.ts";
import { flaws, leftovers, migrate, requireCopy, unitBytes, type World, write } from "../fakes/migration-world.ts";

let world: World;
let back: World;
let original: Buffer;
beforeAll(async () => {
  // How often a job is tried while a process is starting depends on the machine.
  world = await bothWays({ limits: { attemptsMax: 1000 } });
  back = reversed(world);
  original = await contentOf(world.source, "data");
});
afterAll(async () => {
  expect(await flaws(world, "data")).toEqual([]);
  expect(await leftovers(world.clusters)).toEqual([]);
  await world.clusters.close();
});

/** A failover under a name of its own, in whose first job back the n-th thing that `watch` tells of is hit. */
async function failBack(name: string, n: number, { watch, fault }: { watch: Watch; fault: Fault }): Promise<boolean> {
  const { target: home, source: away } = world;
  await failOver(world, name);
  await write(home, name, 0, randomBytes(2 * unitBytes));
  let count = 0;
  watch(away, async () => {
    count += 1;
    if (count !== n) return;
    await fault();
    throw new LongshoreError("Unreachable", "the network is down");
  });
  const job = await migrate(back, name, "b1", { location: "source" });
  away.onCall = away.onReply = away.onStorage = () => undefined;
  await Promise.all(world.clusters.all.map((cluster) => cluster.running));
  expect([name, job.state, job.error, job.mode]).toEqual([
    name,
    "Succeeded",
    null,
    { kind: "Delta", reason: "Lineage" },
  ]);
  expect([name, await flaws(back, name)]).toEqual([name, []]);
  expect([name, await flaws(world, "data")]).toEqual([name, []]);
  expect([name, (await contentOf(away, "data")).equals(original)]).toEqual([name, true]);
  await away.engine.api.removeMigratedVolume((await requireCopy(back, name)).name);
  await home.engine.api.removeVolume(name);
  return count >= n;
}

type Fault = () => Promise<void>;
type Watch = (away: Cluster, tell: () => Promise<void>) => void;

const beforeCall: Watch = (away, tell) => {
  away.onCall = tell;
};
const afterCall: Watch = (away, tell) => {
  away.onReply = tell;
};
const onDisk =
  (moment: "before" | "after"): Watch =>
  (away, tell) => {
    const changing = /deletePoint|stage|seal|\.write|\.punch|\.sync|openStaging$/;
    away.onStorage = async (step, when) => {
      if (when === moment && changing.test(step)) await tell();
    };
  };
const none: Fault = async () => undefined;
const restartAway: Fault = () => restart(world.source);
/** Only begins to: the process waits for the very work that this is called from. */
const beginRestartAway: Fault = async () => void restart(world.source);
const beginRestartHome: Fault = async () => void restart(world.target);

test.each([
  ["call fails before it is carried out", "a", beforeCall, none],
  ["call is carried out and its answer lost", "b", afterCall, none],
  ["call is the last thing before the clone's agent ends", "c", beforeCall, beginRestartHome],
  ["call is carried out, and the clone's agent ends", "d", afterCall, beginRestartHome],
  ["call is the last thing before the original's agent ends", "e", beforeCall, restartAway],
  ["call is carried out, and the original's agent ends", "f", afterCall, restartAway],
  ["effect on the disk of the original's agent fails", "g", onDisk("before"), none],
  ["effect on the disk is the last thing before the original's agent ends", "h", onDisk("before"), beginRestartAway],
  ["effect on the disk is carried out, and the original's agent ends", "i", onDisk("after"), beginRestartAway],
])(
  "the first job back is a difference, and leaves nothing behind, when any %s",
  async (_how, mark, watch, fault) => {
    for (let n = 1; n <= 60; n++) {
      if (!(await failBack(`${mark}${n}`, n, { watch, fault }))) return expect(n).toBeGreaterThan(4);
    }
    throw new Error("a migration has more than 60 of them");
  },
  120_000,
);
