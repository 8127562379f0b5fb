// Agents that are killed, at any moment and on either side: the job goes on from the last unit that was stored durably.
import { setTimeout as sleep } from "node:timers/promises";
import { describe, expect } from "@jest/globals";
import { seededDice } from "../../src/base/dice.ts";
import type { JobView } from "../../src/wire/schemas.ts";
import { readJournal } from "./dead-journal.ts";
import { onEachBackend, type PairTest } from "./on-each-backend.ts";
import { type Backend, kill, mebibyte, type Pair, type Side, windowBytes } from "./pair.ts";
import { TrackedVolume } from "./tracked-volume.ts";

/** Frame headers, and the openings of lanes. */
const overhead = 1.02;

describe("over tls lanes", () => onEachBackend(kills, () => ({ transport: "tls" })));
// Whatever is sent from and stored to, a kernel lane does with descriptors: it has no path of its own for a backend.
describe("over kernel lanes", () => onEachBackend(kills, () => ({ transport: "kernel" }), ["reflink"]));

function kills(test: PairTest, backend: Backend): void {
  for (const victim of ["source", "target"] as const) {
    test(`a first copy whose ${victim} is killed midway goes on from the last durable unit`, async (pair) => {
      const volume = await TrackedVolume.make(pair, `first-${victim}`);
      await volume.writeAndSnapshot(1);
      const job = await survive(pair, volume, "s1", [pair[victim]]);
      expect(job.mode).toEqual({ kind: "Allocated", reason: "FirstCopy" });
    });

    test(`an increment whose ${victim} is killed midway goes on from the last durable unit`, async (pair) => {
      const volume = await TrackedVolume.make(pair, `next-${victim}`);
      await volume.writeAndSnapshot(1);
      await volume.migrate("s1");
      await volume.writeAndSnapshot(2);
      const job = await survive(pair, volume, "s2", [pair[victim]]);
      expect(job.mode).toEqual({ kind: "Delta", reason: "CommonBase" });
    });
  }

  test("an increment both of whose agents are killed at once goes on from the last durable unit", async (pair) => {
    const volume = await TrackedVolume.make(pair, "both");
    await volume.writeAndSnapshot(1);
    await volume.migrate("s1");
    await volume.writeAndSnapshot(2);
    const job = await survive(pair, volume, "s2", [pair.source, pair.target]);
    expect(job.mode).toEqual({ kind: "Delta", reason: "CommonBase" });
  });

  const manySeed = 7;
  const rounds = backend === "copy" ? 10 : 5;
  test(`${rounds} kills of either side during one job lose nothing that was stored (seed ${manySeed})`, async (pair) => {
    const dice = seededDice(manySeed);
    const volume = await TrackedVolume.make(pair, "often");
    await volume.writeAndSnapshot(1);
    await volume.setPace("slow");
    const job = await volume.begin("s1");
    let stored: StoredUnit[] = [];
    for (let round = 1; round <= rounds; round++) {
      await sleep(dice.random() * 600);
      const victims = victimsOf(pair, dice.random());
      await kill(...victims);
      if (victims.includes(pair.target)) {
        const now = await storedUnitsOf(pair.target, job);
        expect(now).toEqual(expect.arrayContaining(stored));
        stored = now;
      }
      await pair.ready();
    }
    await volume.setPace("full");
    await volume.succeeded(job);
    await volume.checkArrived("s1");
    await volume.checkSettled();
  });

  const anySeed = 11;
  test(`small jobs with a kill at any moment of each end well (seed ${anySeed})`, async (pair) => {
    const dice = seededDice(anySeed);
    const volume = await TrackedVolume.make(pair, "any");
    for (let round = 1; round <= 4; round++) {
      await volume.write(round, mebibyte);
      await volume.snapshot(`s${round}`);
      const job = await volume.begin(`s${round}`);
      await sleep(dice.random() * 300);
      await kill(...victimsOf(pair, dice.random()));
      await pair.ready();
      await volume.succeeded(job);
      await volume.checkArrived(`s${round}`);
      await volume.checkSettled();
    }
  });
}

/** Kills agents in the middle of a job, and sees that after their start the job sends what is missing, and no more. */
async function survive(pair: Pair, volume: TrackedVolume, snapshot: string, dying: readonly Side[]): Promise<JobView> {
  const { source, target } = pair;
  const job = await volume.beginAndMeetMidway(snapshot);
  await kill(...dying);
  const isSourceDead = dying.includes(source);
  const storedBytes = dying.includes(target)
    ? await storedBytesOf(target, job)
    : ((await volume.arrived()).transfer?.bytesStored ?? 0);
  expect(storedBytes).toBeGreaterThanOrEqual(mebibyte);
  const sentBefore = isSourceDead ? await sentBytesOf(source, job) : 0;
  await pair.ready();
  await volume.setPace("full");
  const view = await volume.succeeded(job);
  // A source that died counts on from what it had recorded; what was on its way when it died, it may not have counted.
  const mayBeSent = isSourceDead ? view.bytesTotal - storedBytes : view.bytesTotal + windowBytes;
  expect(view.bytesSent - sentBefore).toBeLessThanOrEqual(mayBeSent * overhead);
  expect(view).toMatchObject({ unitsStored: view.unitsTotal, bytesStored: view.bytesTotal });
  await volume.checkArrived(snapshot);
  await volume.checkSettled();
  return view;
}

/** What a dead source had recorded as sent. */
async function sentBytesOf(source: Side, job: string): Promise<number> {
  const [row] = await readJournal<{ bytesSent: number }>(
    source.dataDir,
    "SELECT bytesSent FROM jobs WHERE name = ?",
    job,
  );
  return row?.bytesSent ?? 0;
}

/** What a dead target had recorded as stored, in bytes; its units are of nearly one size. */
async function storedBytesOf(target: Side, job: string): Promise<number> {
  const [row] = await readJournal<{ headerJson: string }>(
    target.dataDir,
    "SELECT headerJson FROM staging JOIN migrated ON migrated.uid = staging.owner WHERE migrated.job = ?",
    job,
  );
  const { bytesData, unitCount } = JSON.parse(row?.headerJson ?? "{}") as { bytesData: number; unitCount: number };
  return Math.floor(((await storedUnitsOf(target, job)).length * bytesData) / unitCount);
}

interface StoredUnit {
  readonly unit: number;
  readonly digest: string;
}

async function storedUnitsOf(target: Side, job: string): Promise<StoredUnit[]> {
  return readJournal<StoredUnit>(
    target.dataDir,
    "SELECT unit, digest FROM storedUnits JOIN migrated ON migrated.uid = storedUnits.owner WHERE migrated.job = ?",
    job,
  );
}

function victimsOf({ source, target }: Pair, chance: number): readonly Side[] {
  const choices = [[source], [target], [source, target]] as const;
  return choices[Math.floor(chance * choices.length)] ?? [source];
}
