// A group of volumes, one on each agent of the source, with copies at two homes at the target: it is written to, snapshotted
// and migrated again and again, and after each job everything is compared and looked through for what was left behind.
import assert from "node:assert/strict";
import { open } from "node:fs/promises";
import { join } from "node:path";
import type { GroupSnapshotView, JobView } from "../../../src/wire/schemas.ts";
import { isEqualByCmp } from "../images.ts";
import { digestOf, mebibyte } from "../pair.ts";
import { eventually } from "../process.ts";
import { noise } from "../tracked-volume.ts";
import type { GatedAgent } from "./gated-agent.ts";
import { leftovers } from "./leftovers.ts";
import { locationName, type Sites } from "./sites.ts";

const sizeBytes = 2 * mebibyte;
const pieceBytes = 64 * 1024;
/** What one round of writing changes in each volume, in pieces all over it. */
const piecesWritten = 8;
/** Snapshots of the group that are not released at the source. */
const snapshotsKept = 2;
/** As long as faults and healing may take on a machine that is very busy. */
export const jobPatience = { timeoutMs: 90_000, intervalMs: 100 };

export interface GroupVolume {
  readonly name: string;
  readonly uid: string;
  /** Its home at the source. */
  readonly source: GatedAgent;
  /** The home of its copy. */
  readonly target: GatedAgent;
  readonly path: string;
}

/** The agents of a group's job by what they do in it. */
export interface Cast {
  /** The first of the source agents by id. */
  readonly coordinator: GatedAgent;
  /** Another source agent. */
  readonly source: GatedAgent;
  /** The group home. */
  readonly decider: GatedAgent;
  /** The home of a copy that is not the group home. */
  readonly target: GatedAgent;
}

export class GroupVolumes {
  readonly name: string;
  readonly volumes: readonly GroupVolume[];
  private readonly sites: Sites;
  /** SHA-256 of a volume at the moment of a snapshot, by point id. */
  private readonly truth = new Map<string, string>();
  private readonly snapshots: GroupSnapshotView[] = [];
  private rounds = 0;

  private constructor(sites: Sites, name: string, volumes: readonly GroupVolume[]) {
    this.sites = sites;
    this.name = name;
    this.volumes = volumes;
  }

  /**
   * One volume on each source agent. Their copies are placed one by one on the first two target agents in turn: a copy goes
   * where most is free, so the other disks are full meanwhile.
   */
  static async make(sites: Sites, name: string): Promise<GroupVolumes> {
    const made: GroupVolume[] = [];
    for (const [index, source] of sites.source.agents.entries()) {
      const target = sites.target.agents[index % 2] as GatedAgent;
      const view = await source.api.putVolume(`${name}-${index + 1}`, { sizeBytes, migrationEnabled: true });
      const volume = { name: view.name, uid: view.uid, source, target, path: view.path };
      await placeAt(sites, volume);
      made.push(volume);
    }
    return new GroupVolumes(sites, name, made);
  }

  get names(): string[] {
    return this.volumes.map(({ name }) => name);
  }

  /** Who does what. The group has to have been migrated once, for only then it has a home. */
  async cast(): Promise<Cast> {
    const byId = [...this.sites.source.agents].sort((a, b) => (a.id < b.id ? -1 : 1));
    const homes = [...new Set(this.volumes.map(({ target }) => target))];
    const [first] = homes;
    const { home } = await (first as GatedAgent).api.getGroup(this.name, {}).catch(async () => {
      return (homes[1] as GatedAgent).api.getGroup(this.name, {});
    });
    const decider = this.sites.target.agent(home);
    const target = homes.find((agent) => agent !== decider);
    const [coordinator, source] = byId;
    assert.ok(coordinator && source && target, "the group has too few homes");
    return { coordinator, source, decider, target };
  }

  /** Writes to every volume, and takes a snapshot of the group; its name is new each time. */
  async writeAndSnapshot(): Promise<GroupSnapshotView> {
    const name = `${this.name}-s${++this.rounds}`;
    const digests: string[] = [];
    for (const volume of this.volumes) {
      await writePieces(volume.path, `${volume.name} ${this.rounds}`);
      digests.push(await digestOf(volume.path));
    }
    const [first] = this.volumes;
    assert.ok(first);
    // The freeze has a deadline, which a machine that is very busy may miss now and then.
    const view = await eventually(`group snapshot ${name}`, () =>
      (first as GroupVolume).source.api.putGroupSnapshot(this.name, name, { volumes: this.names }),
    );
    for (const [index, { pointId }] of view.snapshots.entries()) this.truth.set(pointId, digests[index] as string);
    this.snapshots.push(view);
    return view;
  }

  /** Begins a job for the snapshot, at an agent that does not coordinate it. */
  async begin({ name }: GroupSnapshotView): Promise<string> {
    const job = `${name}-job`;
    const { source } = this.volumes.at(-1) as GroupVolume;
    const spec = { group: { name: this.name, volumes: this.names }, location: locationName, snapshot: name };
    await eventually(`job ${job} being taken`, () => source.api.putJob(job, spec));
    return job;
  }

  /** The job as each participant tells it, once it has ended for all of them. */
  async ended(job: string): Promise<JobView[]> {
    let last: unknown;
    try {
      return await eventually(
        `the end of job ${job}`,
        async () => {
          const views = await Promise.all(this.volumes.map(({ source }) => source.api.getJob(job)));
          last = views.map(({ state, barrier, epoch, error, participants }) => ({
            state,
            barrier,
            epoch,
            error,
            participants,
          }));
          return views.every(({ finishedAt }) => finishedAt !== null) ? views : undefined;
        },
        jobPatience,
      );
    } catch (error) {
      throw new Error(`job ${job} does not end: ${JSON.stringify(last, undefined, 1)}`, { cause: error });
    }
  }

  /** As {@link ended}; every participant has to call it succeeded. */
  async succeeded(job: string): Promise<JobView[]> {
    const views = await this.ended(job);
    for (const { state, error } of views) assert.equal(state, "Succeeded", error?.detail ?? "no reason given");
    return views;
  }

  /** Migrates what is written now, without any fault. */
  async migrate(): Promise<GroupSnapshotView> {
    const snapshot = await this.writeAndSnapshot();
    await this.succeeded(await this.begin(snapshot));
    await this.check(snapshot);
    return snapshot;
  }

  /** Everything arrived, at one group point, byte for byte, and nothing is left behind. */
  async check(snapshot: GroupSnapshotView): Promise<void> {
    await this.checkArrived(snapshot);
    await this.checkEveryPoint();
    await this.checkNothingLeft();
    await this.releaseOld();
  }

  /** The newest point of every copy is that of the snapshot. */
  async checkArrived({ groupPoint, snapshots }: GroupSnapshotView): Promise<void> {
    for (const [index, volume] of this.volumes.entries()) {
      const newest = (await arrived(volume)).points.at(-1);
      const wanted = { pointId: snapshots[index]?.pointId, groupPoint, state: "sealed" };
      assert.deepEqual({ pointId: newest?.pointId, groupPoint: newest?.groupPoint, state: newest?.state }, wanted);
    }
  }

  /** Every point that any agent has of these volumes is what was snapshotted under its id; the newest one by cmp(1), too. */
  async checkEveryPoint(): Promise<void> {
    for (const volume of this.volumes) {
      const copy = await arrived(volume);
      const { snapshots } = await volume.source.api.getVolume(volume.name);
      for (const { pointId } of snapshots) await this.checkPoint(volume.source, pointId);
      for (const { pointId, state } of copy.points) {
        assert.equal(state, "sealed", `point ${pointId} of ${volume.name} is ${state}`);
        await this.checkPoint(volume.target, pointId);
      }
      const newest = copy.points.at(-1)?.pointId;
      if (newest === undefined || !snapshots.some(({ pointId }) => pointId === newest)) continue;
      const [one, other] = [await fileOf(volume.source, newest), await fileOf(volume.target, newest)];
      assert.ok(await isEqualByCmp(one, other), `point ${newest} of ${volume.name} is not the same on both sides`);
    }
  }

  /** Nothing is left of ended jobs, wherever. Terms that nobody ended end by themselves, a lease later. */
  async checkNothingLeft(): Promise<void> {
    let left: readonly string[] = [];
    await eventually(
      "nothing being left",
      async () => {
        left = await leftovers(this.sites);
        return left.length === 0 ? true : undefined;
      },
      jobPatience,
    ).catch(() => assert.deepEqual(left, []));
  }

  /** A migration of one of the volumes by itself, which has to end well; `meanwhile` is given its job once that is begun. */
  async migrateAlone(volume: GroupVolume, meanwhile: (job: string) => Promise<void>): Promise<void> {
    const { name, source, target, path } = volume;
    const snapshot = `${name}-alone-${++this.rounds}`;
    await writePieces(path, snapshot);
    const { pointId } = await source.api.putSnapshot(name, snapshot);
    await source.api.putJob(snapshot, { volume: name, location: locationName, snapshot });
    await meanwhile(snapshot);
    const { state, error } = await this.endedAlone(volume, snapshot);
    assert.equal(state, "Succeeded", error?.detail ?? "no reason given");
    assert.ok(await isEqualByCmp(await fileOf(source, pointId), await fileOf(target, pointId)), `${name} differs`);
    await this.checkNothingLeft();
    await source.api.removeSnapshot(name, snapshot);
  }

  endedAlone({ source }: GroupVolume, job: string): Promise<JobView> {
    return eventually<JobView>(
      `the end of job ${job}`,
      async () => {
        const now = await source.api.getJob(job);
        return now.finishedAt === null ? undefined : now;
      },
      jobPatience,
    );
  }

  /** The newest group snapshot whose point all copies have; undefined before the first. */
  async newestArrived(): Promise<string | undefined> {
    const [first] = this.volumes;
    return first && (await arrived(first)).points.at(-1)?.groupPoint;
  }

  private async checkPoint(agent: GatedAgent, pointId: string): Promise<void> {
    const digest = this.truth.get(pointId);
    if (digest === undefined) return; // Of a placement, before the group's first job.
    const found = await fileOf(agent, pointId)
      .then(digestOf)
      .catch(async (error: unknown) => {
        // Pruned while it was looked at.
        if (await hasSealed(agent, pointId)) throw error;
        return digest;
      });
    assert.equal(found, digest, `point ${pointId} at ${agent.name} is another`);
  }

  /** As the operator does once they have expired. */
  private async releaseOld(): Promise<void> {
    for (const { snapshots } of this.snapshots.splice(0, Math.max(0, this.snapshots.length - snapshotsKept))) {
      for (const [index, { name }] of snapshots.entries()) {
        const { source, name: volume } = this.volumes[index] as GroupVolume;
        await source.api.removeSnapshot(volume, name);
      }
    }
  }
}

/** A first, single migration of the volume that leaves its copy where it is meant to be. */
async function placeAt(sites: Sites, { name, source, target }: GroupVolume): Promise<void> {
  const others = sites.target.agents.filter((agent) => agent !== target);
  for (const agent of others) await agent.fill(16 * mebibyte);
  await source.api.putSnapshot(name, "placing");
  await source.api.putJob(`${name}-placing`, { volume: name, location: locationName, snapshot: "placing" });
  const { state, error } = await eventually<JobView>(
    `${name} being placed`,
    async () => {
      const view = await source.api.getJob(`${name}-placing`);
      return view.finishedAt === null ? undefined : view;
    },
    jobPatience,
  );
  assert.equal(state, "Succeeded", error?.detail ?? "no reason given");
  for (const agent of others) await agent.unfill();
  await source.api.removeSnapshot(name, "placing");
}

async function arrived({ uid, name, target }: GroupVolume) {
  const { items } = await target.api.listMigratedVolumes();
  const found = items.find((item) => item.sourceVolumeUid === uid);
  assert.ok(found, `nothing has arrived of ${name} at ${target.name}`);
  return found;
}

async function hasSealed(agent: GatedAgent, pointId: string): Promise<boolean> {
  return (await agent.rows("SELECT 1 FROM points WHERE pointId = ? AND state = 'sealed'", pointId)).length > 0;
}

/** Where an agent has the image of a point. */
async function fileOf(agent: GatedAgent, pointId: string): Promise<string> {
  const [row] = await agent.rows<{ owner: string; file: string }>(
    "SELECT owner, file FROM points WHERE pointId = ?",
    pointId,
  );
  assert.ok(row, `${agent.name} has no point ${pointId}`);
  return join(agent.dataDir, "volumes", row.owner, "points", `${row.file}.img`);
}

async function writePieces(path: string, seed: string): Promise<void> {
  const chance = noise(`places ${seed}`, piecesWritten * 4);
  const content = noise(`content ${seed}`, piecesWritten * pieceBytes);
  const image = await open(path, "r+");
  try {
    for (let piece = 0; piece < piecesWritten; piece++) {
      const place = chance.readUInt32LE(piece * 4) % (sizeBytes / pieceBytes);
      await image.write(content, piece * pieceBytes, pieceBytes, place * pieceBytes);
    }
    await image.sync();
  } finally {
    await image.close();
  }
}
