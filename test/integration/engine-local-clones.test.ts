// Clones within one agent: what they hold, what is held for them meanwhile, and that nothing is left of one that came to nothing,
// wherever the agent was when it died.
import { execFileSync, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { open, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, describe, expect, test } from "@jest/globals";
import { LongshoreError } from "../../src/domain/errors.ts";
import type { Hold, VolumeOrigin } from "../../src/wire/schemas.ts";
import { type Cluster, type Clusters, type ClustersOptions, openClusters } from "../fakes/engines.ts";
import { FakeClock, settledTasks } from "../fakes/fake-clock.ts";
import { type LoopFs, mountLoop } from "../fakes/loop-fs.ts";
import { leftovers, settled, write } from "../fakes/migration-world.ts";
import { mountImage } from "../fakes/mounted-image.ts";
import { onInterrupt } from "../interrupt.ts";
import { needs } from "../needs.ts";

const sizeBytes = 256 * 1024;
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const ofSnapshot: VolumeOrigin = { volume: "data", snapshot: "s1" };
const ofVolume: VolumeOrigin = { volume: "data" };

type Gate = PromiseWithResolvers<void>;

let clusters: Clusters | undefined;
let disk: LoopFs | undefined;
let here: Cluster;

afterEach(async () => {
  await clusters?.close();
  clusters = undefined;
  await disk?.unmount();
  disk = undefined;
});

const api = () => here.engine.api;
const contentOf = async (volume: string) => readFile((await api().getVolume(volume)).path);
const files = async () => (await here.storage.list()).map(({ kind }) => kind).sort();
const clone = (name: string, from: VolumeOrigin) => api().putVolume(name, { sizeBytes, from });

/** What a volume's snapshots are called, and why they are held. */
async function snapshotsOf(volume: string): Promise<string[]> {
  const { snapshots } = await api().getVolume(volume);
  const reasons = (holds: readonly Hold[]) => holds.map(({ reason, owner }) => `${reason} ${owner}`);
  return snapshots.map(({ name, holds }) => [name, ...reasons(holds)].join(": "));
}

/** An agent with a volume, a snapshot of it, and what was written since. */
async function begin(options: ClustersOptions = {}): Promise<{ past: Buffer; now: Buffer }> {
  clusters = await openClusters(["here"], { inMemory: true, ...options });
  [here] = clusters.all as [Cluster];
  await api().putVolume("data", { sizeBytes });
  await write(here, "data", 0, randomBytes(32 * 1024));
  await api().putSnapshot("data", "s1");
  const past = await contentOf("data");
  await write(here, "data", 64 * 1024, randomBytes(4096));
  return { past, now: await contentOf("data") };
}

/** Dies at the n-th thing it does to disk or journal, counted before and after each: from there on it does nothing. */
function dieAt(n: number): { readonly isDead: boolean } {
  let count = 0;
  const tell = () => {
    count++;
    if (count >= n) throw new Error("killed");
  };
  here.onStorage = tell;
  here.onTransaction = tell;
  return {
    get isDead() {
      return count >= n;
    },
  };
}

async function startAgain(): Promise<void> {
  await here.stop();
  here.onStorage = () => undefined;
  here.onTransaction = () => undefined;
  await here.start();
}

describe.each([
  ["a snapshot", ofSnapshot],
  ["a volume as it is now", ofVolume],
] as const)("a clone of %s", (_, from) => {
  test("that is cut short anywhere is made wholly or leaves nothing, and is made when it is asked for again", async () => {
    const { past, now } = await begin();
    const expected = from.snapshot === undefined ? now : past;
    for (let n = 1; ; n++) {
      const death = dieAt(n);
      const made = await clone("copy", from).then(
        () => true,
        () => false,
      );
      const wasCut = death.isDead;
      await startAgain();
      const names = (await api().listVolumes()).items.map(({ name }) => name);
      expect([n, ["data", "copy,data"].includes(names.join())]).toEqual([n, true]);
      if (made) expect([n, names]).toEqual([n, ["copy", "data"]]);
      expect([n, await snapshotsOf("data")]).toEqual([n, ["s1"]]);
      expect([n, await files()]).toEqual([n, ["live", ...(names.length === 2 ? ["live"] : []), "point"]]);
      expect([n, await leftovers(clusters as Clusters)]).toEqual([n, []]);
      expect([n, (await clone("copy", from)).from]).toEqual([n, from]);
      expect([n, (await contentOf("copy")).equals(expected)]).toEqual([n, true]);
      await api().removeVolume("copy");
      if (!wasCut) return expect(n).toBeGreaterThan(8);
      if (n > 200) throw new Error("a clone takes more than 100 steps");
    }
  }, 60_000);

  test("that the disk refuses leaves nothing, and what the disk did not let go either, once it is well again", async () => {
    const clock = new FakeClock();
    await begin({ clock });
    here.onStorage = (step, when) => {
      if ((step === "clone" && when === "after") || step === "remove") throw new LongshoreError("DiskFull", "full");
    };
    await expect(clone("copy", from)).rejects.toMatchObject({ code: "DiskFull" });
    expect(await files()).toEqual(["live", "live", ...(from.snapshot === undefined ? ["point"] : []), "point"]);
    await expect(api().removeVolume("data")).rejects.toMatchObject({ code: "InUse" });
    here.onStorage = () => undefined;
    await clock.advance(11_000);
    // The file goes first, and then its row, and what that holds.
    const left = async () => [await files(), await snapshotsOf("data")];
    const remains = [["live", "point"], ["s1"]];
    expect(await settled(left, (now) => String(now) === String(remains))).toEqual(remains);
  });
});

test("a snapshot is held from when a clone of it is asked for until that is ready, whatever becomes of it meanwhile", async () => {
  const { past } = await begin();
  const [begun, go] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  here.onStorage = async (step, when) => {
    if (step !== "clone" || when !== "before") return;
    begun.resolve();
    await go.promise;
  };
  const making = clone("copy", ofSnapshot);
  await begun.promise;
  expect(await snapshotsOf("data")).toEqual(["s1: clone copy"]);
  expect(await api().removeSnapshot("data", "s1")).toMatchObject({ released: true, state: "sealed" });
  await expect(api().removeVolume("data")).rejects.toMatchObject({
    code: "InUse",
    message: expect.stringContaining("copy"),
  });
  await expect(api().getVolume("copy")).rejects.toMatchObject({ code: "NotFound" });
  go.resolve();
  await making;
  expect((await contentOf("copy")).equals(past)).toBe(true);
  expect(await snapshotsOf("data")).toEqual([]);
  await api().removeVolume("data");
  expect((await clone("copy", ofSnapshot)).from).toEqual(ofSnapshot);
});

test("asked for twice at once it is one volume", async () => {
  const { now } = await begin();
  const [one, other] = await Promise.all([clone("copy", ofVolume), clone("copy", ofVolume)]);
  expect(one).toEqual(other);
  expect((await contentOf("copy")).equals(now)).toBe(true);
  expect(await files()).toEqual(["live", "live", "point"]);
});

test("two that are to be made of each other are refused, and do not wait for each other", async () => {
  await begin();
  const outcomes = await Promise.allSettled([clone("a", { volume: "b" }), clone("b", { volume: "a" })]);
  expect(outcomes.map((outcome) => outcome.status === "rejected" && outcome.reason.code)).toEqual([
    "NotFound",
    "NotFound",
  ]);
  expect((await clone("a", ofVolume)).name).toBe("a");
});

test("a volume that is made anew under its name while it is to be cloned is not taken for the former one", async () => {
  await begin();
  const [reached, intended, go] = [0, 1, 2].map(() => Promise.withResolvers<void>()) as [Gate, Gate, Gate];
  here.onStorage = async (step, when) => {
    if (step !== "snapshot" || when !== "before") return;
    reached.resolve();
    await go.promise;
  };
  const busy = api().putSnapshot("data", "s2");
  await reached.promise;
  here.onTransaction = () => intended.resolve();
  const removed = api().removeVolume("data");
  const remade = api().putVolume("data", { sizeBytes });
  const cloned = clone("copy", ofVolume);
  // It is there still, and will be another one when it is the clone's turn.
  await intended.promise;
  await settledTasks();
  go.resolve();
  await expect(cloned).rejects.toMatchObject({ code: "NotFound" });
  await Promise.all([busy, removed, remade]);
  expect(await snapshotsOf("data")).toEqual([]);
  expect(await leftovers(clusters as Clusters)).toEqual([]);
});

test("an empty volume that was never finished gives way to a clone, and a clone that was not to an empty volume", async () => {
  const { past } = await begin();
  here.onStorage = (step) => {
    if (step === "create" || step === "remove") throw new LongshoreError("DiskFull", "full");
  };
  await expect(api().putVolume("copy", { sizeBytes })).rejects.toMatchObject({ code: "DiskFull" });
  here.onStorage = () => undefined;
  await clone("copy", ofSnapshot);
  expect((await contentOf("copy")).equals(past)).toBe(true);
  here.onStorage = (step) => {
    if (step === "clone" || step === "remove") throw new LongshoreError("DiskFull", "full");
  };
  await expect(clone("other", ofSnapshot)).rejects.toMatchObject({ code: "DiskFull" });
  here.onStorage = () => undefined;
  expect((await api().putVolume("other", { sizeBytes: 4096 })).from).toBeUndefined();
  expect(await snapshotsOf("data")).toEqual(["s1"]);
  expect(await leftovers(clusters as Clusters)).toEqual([]);
});

test("a snapshot whose file vanished is not cloned, and nothing is left of the try", async () => {
  await begin();
  here.onStorage = async (step, when) => {
    if (step !== "clone" || when !== "before") return;
    const point = (await here.storage.list()).find(({ kind }) => kind === "point");
    await here.storage.deletePoint(point?.volume ?? "", point?.point ?? "");
  };
  await expect(clone("copy", ofSnapshot)).rejects.toMatchObject({ code: "SnapshotGone" });
  here.onStorage = () => undefined;
  await expect(clone("copy", ofSnapshot)).rejects.toMatchObject({ code: "SnapshotGone" });
  expect((await api().getVolume("data")).snapshots).toMatchObject([{ name: "s1", state: "lost", holds: [] }]);
  expect((await api().listVolumes()).items).toHaveLength(1);
});

test("a volume of the copy backend that somebody writes to is not cloned as it is now; a snapshot of it is", async () => {
  const { past } = await begin();
  const writer = await open((await api().getVolume("data")).path, "r+");
  await expect(clone("copy", ofVolume)).rejects.toMatchObject({ code: "VolumeBusy" });
  expect(await snapshotsOf("data")).toEqual(["s1"]);
  await clone("copy", ofSnapshot);
  await writer.close();
  expect((await contentOf("copy")).equals(past)).toBe(true);
});

describe("on a real file system", () => {
  const MiB = 2 ** 20;

  async function onXfs(): Promise<void> {
    disk = await mountLoop({ fs: "xfs", sizeBytes: 512 * MiB });
    clusters = await openClusters(["here"], { parent: disk.path, backend: "reflink" });
    [here] = clusters.all as [Cluster];
  }

  needs("root", "xfs")(
    "a clone of a mounted volume has its file system in order, and shares what neither has written since",
    async () => {
      await onXfs();
      const { path } = await api().putVolume("data", { sizeBytes: 32 * MiB });
      const mounted = await mountImage(path, { fs: "ext4" });
      try {
        await writeFile(join(mounted.path, "file"), "written");
        const copy = await api().putVolume("copy", { sizeBytes: 64 * MiB, from: ofVolume });
        const header = execFileSync("dumpe2fs", ["-h", copy.path], { env, stdio: "pipe" }).toString();
        expect(header).not.toContain("needs_recovery");
        const other = await mountImage(copy.path, { fs: "ext4", isMade: true });
        expect(await readFile(join(other.path, "file"), "utf8")).toBe("written");
        await other.unmount();
        expect(await snapshotsOf("data")).toEqual([]);
      } finally {
        await mounted.unmount();
      }
    },
    60_000,
  );

  needs("root", "xfs")("a volume is not removed while a loop device has it, and the message names that", async () => {
    await onXfs();
    const { path } = await api().putVolume("data", { sizeBytes: 4 * MiB });
    const loop = execFileSync("losetup", ["--find", "--show", path], { env, encoding: "utf8" }).trim();
    const detach = () => execFileSync("losetup", ["--detach", loop], { env });
    const forget = onInterrupt(() => spawnSync("losetup", ["--detach", loop], { env }));
    try {
      await expect(api().removeVolume("data")).rejects.toMatchObject({
        code: "InUse",
        message: expect.stringContaining(loop),
      });
      expect((await api().getVolume("data")).path).toBe(path);
    } finally {
      detach();
      forget();
    }
    const removed = () =>
      api()
        .removeVolume("data")
        .then(
          () => true,
          () => false,
        );
    expect(await settled(removed, Boolean)).toBe(true);
  });

  needs("root", "xfs")("extents are those that were written or discarded, block by block", async () => {
    await onXfs();
    const { path } = await api().putVolume("data", { sizeBytes: 4 * MiB });
    await write(here, "data", 0, randomBytes(MiB));
    await api().putSnapshot("data", "s1");
    await write(here, "data", 8192, randomBytes(4096));
    execFileSync("fallocate", ["--punch-hole", "--offset", "65536", "--length", "8192", path], { env });
    await write(here, "data", 3 * MiB, randomBytes(4096));
    await api().putSnapshot("data", "s2");
    const { extents } = await api().listExtents("data", "s2", { base: "s1" });
    expect(extents).toEqual([
      { offset: 8192, length: 4096 },
      { offset: 65_536, length: 8192 },
      { offset: 3 * MiB, length: 4096 },
    ]);
    const all = await api().listExtents("data", "s1", { max: 1 });
    expect([all.extents, all.next]).toEqual([[{ offset: 0, length: MiB }], null]);
  });
});
