// A volume at the source of a pair whose content is made up by number, so that it can be written in a moment and is never the
// same twice; with its migrations, each of which can be slowed down to be met midway.
import assert from "node:assert/strict";
import { createCipheriv, createHash } from "node:crypto";
import { open } from "node:fs/promises";
import { codeOf } from "../../src/domain/errors.ts";
import type { JobView, MigratedVolumeView, SnapshotView, VolumeView } from "../../src/wire/schemas.ts";
import { isEqualByCmp } from "./images.ts";
import { digestOf, mebibyte, type Pair, pointFile, soon } from "./pair.ts";

const sizeBytes = 16 * mebibyte;
const pieceBytes = 64 * 1024;
/** What one round of writing changes, in pieces all over the volume. */
const writtenBytes = 8 * mebibyte;
/** Slow enough for a whole round to take many times what a busy machine needs to look at a job. */
const slowBytesPerSecond = mebibyte;

export class TrackedVolume {
  readonly name: string;
  readonly uid: string;
  private readonly pair: Pair;

  private constructor(pair: Pair, { name, uid }: VolumeView) {
    this.pair = pair;
    this.name = name;
    this.uid = uid;
  }

  /** Makes the volume, and a location of its own, so that its bandwidth is its own too. */
  static async make(pair: Pair, name: string): Promise<TrackedVolume> {
    const view = await pair.source.api.putVolume(name, { sizeBytes, migrationEnabled: true });
    const volume = new TrackedVolume(pair, view);
    await volume.setPace("full");
    return volume;
  }

  view(): Promise<VolumeView> {
    return this.pair.source.api.getVolume(this.name);
  }

  async setPace(pace: "slow" | "full"): Promise<void> {
    const { source, target } = this.pair;
    const limit = pace === "slow" && { bytesPerSecondMax: slowBytesPerSecond };
    await source.api.putLocation(this.name, { ...target.asLocation(), ...limit });
  }

  /** Writes pieces that are chosen, and filled, by `seed`; on disk when it resolves. */
  async write(seed: number, bytes = writtenBytes): Promise<void> {
    const { path } = await this.view();
    const chance = noise(`places ${seed}`, (sizeBytes / pieceBytes) * 4);
    const places = Array.from({ length: sizeBytes / pieceBytes }, (_, at) => ({
      at,
      key: chance.readUInt32LE(at * 4),
    }));
    places.sort((one, other) => one.key - other.key);
    const content = noise(`content ${seed}`, bytes);
    const image = await open(path, "r+");
    try {
      for (const [index, { at }] of places.slice(0, bytes / pieceBytes).entries()) {
        await image.write(content, index * pieceBytes, pieceBytes, at * pieceBytes);
      }
      await image.sync();
    } finally {
      await image.close();
    }
  }

  /** Takes a snapshot, and notes what it has to hold. */
  async snapshot(name: string): Promise<SnapshotView> {
    const { path } = await this.view();
    const digest = await digestOf(path);
    const snapshot = await this.pair.source.api.putSnapshot(this.name, name);
    this.pair.truth.set(snapshot.pointId, digest);
    return snapshot;
  }

  async writeAndSnapshot(seed: number, name = `s${seed}`): Promise<SnapshotView> {
    await this.write(seed);
    return this.snapshot(name);
  }

  /** Begins a migration; the job has the name of its snapshot. */
  async begin(snapshot: string): Promise<string> {
    const job = `${this.name}-${snapshot}`;
    await this.pair.source.api.putJob(job, { volume: this.name, location: this.name, snapshot });
    return job;
  }

  /** The job once it has ended, however. */
  ended(job: string): Promise<JobView> {
    return soon(`the end of job ${job}`, async () => {
      const view = await this.pair.source.api.getJob(job);
      return view.finishedAt === null ? undefined : view;
    });
  }

  /** The job once it has ended well. */
  async succeeded(job: string): Promise<JobView> {
    const view = await this.ended(job);
    assert.equal(view.state, "Succeeded", view.error?.detail ?? "no reason given");
    return view;
  }

  /** Migrates a snapshot at full pace, and compares what arrived. */
  async migrate(snapshot: string): Promise<JobView> {
    const job = await this.succeeded(await this.begin(snapshot));
    await this.checkArrived(snapshot);
    return job;
  }

  /** Begins a migration, slowly, and resolves when a good part of it is stored and most of it is not. */
  async beginAndMeetMidway(snapshot: string): Promise<string> {
    await this.setPace("slow");
    const job = await this.begin(snapshot);
    await this.midway(job);
    return job;
  }

  /** Resolves when `storedBytes` of the job are stored. */
  async midway(job: string, storedBytes = 1.5 * mebibyte): Promise<JobView> {
    const view = await soon(`job ${job} being under way`, async () => {
      const now = await this.pair.source.api.getJob(job);
      return now.finishedAt !== null || now.bytesStored >= storedBytes ? now : undefined;
    });
    const isMidway = view.state === "Running" && view.unitsStored > 0 && view.unitsStored < view.unitsTotal;
    assert.ok(isMidway, `job ${job} is not under way: ${view.state}, ${view.unitsStored} of ${view.unitsTotal} units`);
    return view;
  }

  arrived(): Promise<MigratedVolumeView> {
    return this.pair.arrived(this.uid);
  }

  /** A clone of the newest point, the point itself and the source's snapshot are the same, byte for byte. */
  async checkArrived(snapshot: string): Promise<void> {
    const { source, target } = this.pair;
    const { snapshots } = await this.view();
    const taken = snapshots.find(({ name }) => name === snapshot);
    assert.ok(taken, `snapshot ${snapshot} is gone`);
    const copy = await this.arrived();
    assert.equal(copy.points.at(-1)?.pointId, taken.pointId, `the newest point is not ${snapshot}`);
    const clone = `${this.name}-${snapshot}-clone`;
    const { path } = await soon(`clone ${clone}`, async () => {
      const view = await target.api.putClone(clone, { migratedVolume: copy.name, point: "latest" });
      return view.state === "Ready" ? view : undefined;
    });
    const original = await pointFile(source, taken.pointId);
    assert.ok(await isEqualByCmp(String(path), original), `clone ${clone} differs from the source's snapshot`);
    const arrived = await pointFile(target, taken.pointId);
    assert.ok(await isEqualByCmp(arrived, original), `point ${taken.pointId} differs from the source's snapshot`);
    await target.api.removeClone(clone);
  }

  /** Releases snapshots, as the operator does once they have expired. */
  async release(...names: readonly string[]): Promise<void> {
    for (const name of names) await this.pair.source.api.removeSnapshot(this.name, name);
  }

  /** Nothing of the volume's migrations is left but its points: no job's hold, no term, no staging. */
  async checkSettled(): Promise<void> {
    const { snapshots } = await this.view();
    const held = snapshots.flatMap(({ holds }) => holds.filter(({ reason }) => reason === "job"));
    assert.deepEqual(held, [], "a job that has ended holds a snapshot");
    const { state, transfer } = await this.arrived();
    assert.deepEqual({ state, transfer }, { state: "Available", transfer: null });
  }
}

/** Bytes that look random and follow from the text. */
export function noise(text: string, bytes: number): Buffer {
  const hash = createHash("sha256").update(text).digest();
  return createCipheriv("aes-128-ctr", hash.subarray(0, 16), hash.subarray(16)).update(Buffer.alloc(bytes));
}

/** What a refused request says; fails when it was not refused. */
export async function refusal(request: Promise<unknown>): Promise<{ code: string | undefined; message: string }> {
  try {
    await request;
  } catch (error) {
    return { code: codeOf(error), message: String(error) };
  }
  throw new Error("the request was not refused");
}
