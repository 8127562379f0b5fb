// One volume that is written to, snapshotted, migrated, pruned on both sides and cloned, all at once, while its agents are
// killed at any moment. LONGSHORE_TORTURE_SECONDS says for how long, LONGSHORE_TORTURE_SEED repeats the same dice.
import assert from "node:assert/strict";
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { afterAll, expect } from "@jest/globals";
import { type Dice, seededDice } from "../../../src/base/dice.ts";
import { codeOf } from "../../../src/domain/errors.ts";
import { needs } from "../../needs.ts";
import { digestOf, mebibyte } from "../pair.ts";
import { eventually } from "../process.ts";
import { noise } from "../tracked-volume.ts";
import type { GatedAgent } from "./gated-agent.ts";
import { leftovers } from "./leftovers.ts";
import { locationName, openSites, type Sites } from "./sites.ts";

const seconds = Number(process.env.LONGSHORE_TORTURE_SECONDS ?? 45);
const seed = Number(process.env.LONGSHORE_TORTURE_SEED ?? Date.now() % 1_000_000);
const sizeBytes = 2 * mebibyte;
const pieceBytes = 64 * 1024;
const snapshotsKept = 2;
const patience = { timeoutMs: 120_000, intervalMs: 50 };
/** What a request may end in while agents die: it is made again. */
const expectedCodes = ["Unreachable", "StreamTorn", "Timeout"];

let sites: Sites | undefined;
afterAll(async () => sites?.close());

needs("netns")(
  `pruning, cloning and migration of one volume for ${seconds} s under random kills break no promise (seed ${seed})`,
  async () => {
    sites = await openSites({ agentsPerSite: 2 });
    const torture = await Torture.make(sites, seededDice(seed));
    await torture.run(seconds * 1000);
    await torture.finish();
    const { jobs, clones, kills, points } = torture;
    process.stdout.write(
      `  seed ${seed}, ${seconds} s: ${jobs} jobs, ${clones} clones, ${points} points compared, ${kills} kills\n`,
    );
    expect(Math.min(jobs, clones, kills, points)).toBeGreaterThan(0);
  },
  seconds * 1000 + 600_000,
);

class Torture {
  jobs = 0;
  clones = 0;
  kills = 0;
  points = 0;
  private readonly sites: Sites;
  private readonly dice: Dice;
  private readonly source: GatedAgent;
  private readonly target: GatedAgent;
  private readonly path: string;
  private readonly truth = new Map<string, string>();
  private readonly snapshots: string[] = [];
  private readonly end = new AbortController();
  private generation = 0;

  private constructor(sites: Sites, dice: Dice, facts: { source: GatedAgent; target: GatedAgent; path: string }) {
    this.sites = sites;
    this.dice = dice;
    this.source = facts.source;
    this.target = facts.target;
    this.path = facts.path;
  }

  static async make(sites: Sites, dice: Dice): Promise<Torture> {
    const [source] = sites.source.agents as [GatedAgent];
    const { path } = await source.api.putVolume("volume", { sizeBytes, migrationEnabled: true });
    await source.api.putSnapshot("volume", "first");
    await source.api.putJob("first", { volume: "volume", location: locationName, snapshot: "first" });
    await eventually(
      "the first copy",
      async () => ((await source.api.getJob("first")).finishedAt === null ? undefined : true),
      patience,
    );
    const homes = await Promise.all(sites.target.agents.map(({ api }) => api.listMigratedVolumes()));
    const target = sites.target.agents.find((_, index) => homes[index]?.items.length === 1);
    assert.ok(target, "the copy has no home");
    await source.api.removeSnapshot("volume", "first");
    return new Torture(sites, dice, { source, target, path });
  }

  /** All at once; the first broken promise ends everything. */
  async run(durationMs: number): Promise<void> {
    const timer = setTimeout(() => this.end.abort(), durationMs);
    try {
      const ways = [this.migrate, this.clone, this.prune, this.kill, this.look];
      const ends = await Promise.allSettled(ways.map((way) => this.each(way.bind(this))));
      for (const end of ends) if (end.status === "rejected") throw end.reason;
    } finally {
      clearTimeout(timer);
      this.end.abort();
    }
  }

  /** Once nobody is killed any more: what was begun ends, and nothing is left. */
  async finish(): Promise<void> {
    await this.sites.ready();
    for (const { name } of (await this.source.api.listJobs()).items) await this.ended(name);
    for (const { name } of (await this.target.api.listClones()).items) await this.target.api.removeClone(name);
    let left: readonly string[] = [];
    await eventually(
      "nothing being left",
      async () => {
        left = await leftovers(this.sites);
        return left.length === 0 ? true : undefined;
      },
      patience,
    ).catch(() => assert.deepEqual(left, []));
    await this.look();
  }

  private async each(work: () => Promise<void>): Promise<void> {
    while (!this.end.signal.aborted) {
      try {
        await work();
      } catch (error) {
        this.end.abort();
        throw error;
      }
    }
  }

  private async migrate(): Promise<void> {
    const name = `s${++this.jobs}`;
    await this.write(name);
    const digest = await digestOf(this.path);
    const { pointId } = await this.patiently(`snapshot ${name}`, () => this.source.api.putSnapshot("volume", name));
    this.truth.set(pointId, digest);
    this.snapshots.push(name);
    const spec = { volume: "volume", location: locationName, snapshot: name };
    await this.patiently(`job ${name}`, () => this.source.api.putJob(name, spec));
    await this.ended(name);
    for (const old of this.snapshots.splice(0, Math.max(0, this.snapshots.length - snapshotsKept))) {
      await this.patiently(`the release of ${old}`, () =>
        this.source.api.removeSnapshot("volume", old).then(() => true),
      );
    }
  }

  /** Clones the newest point or any other, and compares what it gets with what was snapshotted. */
  private async clone(): Promise<void> {
    const copy = await this.copy();
    const any = copy.points[Math.floor(this.dice.random() * copy.points.length)]?.pointId;
    const point = this.dice.random() < 0.5 || any === undefined ? "latest" : any;
    const name = `c${++this.clones}`;
    const view = await this.patiently(`clone ${name}`, async () => {
      try {
        const now = await this.target.api.putClone(name, { migratedVolume: copy.name, point });
        return now.state === "Ready" ? now : undefined;
      } catch (error) {
        // Pruned since it was listed.
        if (point !== "latest" && ["PointGone", "NotFound"].includes(codeOf(error) ?? "")) return null;
        throw error;
      }
    });
    if (view === null) return;
    const wanted = this.truth.get(String(view.pointId));
    if (wanted !== undefined) assert.equal(await digestOf(String(view.path)), wanted, `clone ${name} is not its point`);
    if (point !== "latest") assert.equal(view.pointId, point);
    await this.patiently(`the removal of clone ${name}`, () => this.target.api.removeClone(name).then(() => true));
  }

  /** Sometimes many points are kept at the target, and then only one. */
  private async prune(): Promise<void> {
    const pointsKept = 1 + Math.floor(this.dice.random() * 4);
    const spec = { ...this.sites.source.asSource(), pointsKept };
    for (const { api } of this.sites.target.agents)
      await this.patiently("pruning", () => api.putSource(locationName, spec));
    await this.pause(500);
  }

  private async kill(): Promise<void> {
    await this.pause(2_500);
    const { agents } = this.sites;
    const victims = [this.source, this.target, agents[Math.floor(this.dice.random() * agents.length)] as GatedAgent];
    const victim = victims[Math.floor(this.dice.random() * victims.length)] as GatedAgent;
    await victim.kill();
    this.kills++;
    await this.pause(300);
    await victim.start();
  }

  /** Points are what was snapshotted under their id, only ever go forward, and a base is never deleted. */
  private async look(): Promise<void> {
    const copy = await this.copy();
    const newest = copy.points.at(-1);
    assert.ok(
      (newest?.generation ?? 0) >= this.generation,
      `back from generation ${this.generation} to ${newest?.generation}`,
    );
    this.generation = newest?.generation ?? 0;
    for (const { pointId, state } of copy.points) {
      if (state !== "deleting") await this.comparePoint(this.target, pointId);
    }
    const volume = await this.patiently("the volume", () => this.source.api.getVolume("volume"));
    for (const { pointId, state } of volume.snapshots) {
      if (state === "sealed") await this.comparePoint(this.source, pointId);
    }
    for (const base of volume.bases) {
      const isThere = volume.snapshots.some(({ pointId }) => pointId === base.pointId);
      assert.ok(isThere, `the base ${base.pointId} was deleted`);
    }
    await this.pause(400);
  }

  private async comparePoint(agent: GatedAgent, pointId: string): Promise<void> {
    const wanted = this.truth.get(pointId);
    if (wanted === undefined) return;
    const seen = await this.digestUnlessPruned(agent, pointId);
    if (seen === undefined) return;
    this.points++;
    assert.equal(seen, wanted, `point ${pointId} at ${agent.name} is not what was snapshotted`);
  }

  private async digestUnlessPruned(agent: GatedAgent, pointId: string): Promise<string | undefined> {
    try {
      return await digestOf(await agent.pointFile(pointId));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
      const points = await this.pointsAt(agent);
      assert.ok(!points.includes(pointId), `point ${pointId} at ${agent.name} is sealed, and has no file`);
      return undefined;
    }
  }

  private async pointsAt(agent: GatedAgent): Promise<string[]> {
    if (agent === this.target)
      return (await this.copy()).points.filter(({ state }) => state === "sealed").map(({ pointId }) => pointId);
    const { snapshots } = await this.patiently("the volume", () => agent.api.getVolume("volume"));
    return snapshots.filter(({ state }) => state === "sealed").map(({ pointId }) => pointId);
  }

  private async copy() {
    const { items } = await this.patiently("the copy", () => this.target.api.listMigratedVolumes());
    const [copy] = items;
    assert.ok(copy, "the copy is gone");
    return copy;
  }

  private async ended(job: string): Promise<void> {
    const view = await this.patiently(`the end of job ${job}`, async () => {
      const now = await this.source.api.getJob(job);
      return now.finishedAt === null ? undefined : now;
    });
    assert.equal(view.state, "Succeeded", `job ${job}: ${view.error?.detail}`);
  }

  /** As long as agents come back, it is only a matter of time; anything but the network's failures is one. */
  private async patiently<T>(what: string, probe: () => Promise<T | undefined>): Promise<T> {
    let failure: unknown;
    const found = await eventually(
      what,
      async () => {
        try {
          const value = await probe();
          return value === undefined ? undefined : { value };
        } catch (error) {
          if (expectedCodes.includes(codeOf(error) ?? "")) return undefined;
          failure = error;
          return { value: undefined };
        }
      },
      patience,
    );
    if (failure !== undefined) throw failure;
    return found.value as T;
  }

  private pause(msMax: number): Promise<void> {
    return sleep(this.dice.random() * msMax, undefined, { signal: this.end.signal }).catch(() => undefined);
  }

  private async write(name: string): Promise<void> {
    const pieces = 1 + Math.floor(this.dice.random() * 12);
    const places = Array.from({ length: pieces }, () => Math.floor((this.dice.random() * sizeBytes) / pieceBytes));
    const content = noise(`content ${seed} ${name}`, pieces * pieceBytes);
    const image = await open(this.path, "r+");
    try {
      for (const [index, place] of places.entries()) {
        await image.write(content, index * pieceBytes, pieceBytes, place * pieceBytes);
      }
      await image.sync();
    } finally {
      await image.close();
    }
  }
}
