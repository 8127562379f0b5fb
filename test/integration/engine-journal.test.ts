// The journal on a disk that is really full: what must be recorded still is, the rest waits, and goes on with room.
import { existsSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { afterEach, expect } from "@jest/globals";
import { type Journal, openJournal } from "../../src/engine/journal.ts";
import { type LoopFs, mountLoop } from "../fakes/loop-fs.ts";
import { ended, flaws, makeVolume, openWorld, settled, snapshot, start, type World } from "../fakes/migration-world.ts";
import { needs } from "../needs.ts";

const MiB = 1 << 20;
let disk: LoopFs;
let world: World | undefined;
afterEach(async () => {
  await world?.clusters.close();
  world = undefined;
  await disk?.unmount();
});

/** Leaves nothing free; returns what frees it again. */
function fill(path: string): () => void {
  const filler = join(path, "filler");
  for (const piece of [MiB, 4096]) {
    for (;;) {
      try {
        writeFileSync(filler, Buffer.alloc(piece, 1), { flag: "a", flush: true });
      } catch {
        break;
      }
    }
  }
  expect(statfsSync(path).bavail).toBe(0);
  return () => rmSync(filler);
}

needs("root")(
  "the ballast keeps a journal writable on a full disk for a while, and is made again with room",
  async () => {
    disk = await mountLoop({ fs: "ext4", sizeBytes: 32 * MiB });
    const journal = openJournal(disk.path);
    const ballast = join(disk.path, "ballast");
    const free = fill(disk.path);
    const write = (bytes: number) =>
      journal.transaction(() =>
        journal.run(
          "INSERT INTO locations (name, specJson, revision) VALUES (?,?,1)",
          `${Math.random()}`,
          "x".repeat(bytes),
        ),
      );
    expect(existsSync(ballast)).toBe(true);
    for (let index = 0; index < 100 && existsSync(ballast); index++) write(64 * 1024);
    expect(existsSync(ballast)).toBe(false);
    const before = journal.all("SELECT name FROM locations").length;
    expect(() => write(16 * MiB)).toThrow(expect.objectContaining({ code: "DiskFull" }));
    expect(journal.all("SELECT name FROM locations")).toHaveLength(before);
    free();
    write(64 * 1024);
    journal.keepBallast();
    expect(existsSync(ballast)).toBe(true);
    journal.close();
  },
);

needs("root")(
  "a journal opens for a start on a full disk, also when something else has taken its ballast",
  async () => {
    disk = await mountLoop({ fs: "ext4", sizeBytes: 32 * MiB });
    const path = disk.path;
    const write = (journal: Journal) =>
      journal.transaction(() =>
        journal.run("INSERT INTO locations (name, specJson, revision) VALUES (?,?,1)", `${Math.random()}`, "{}"),
      );
    const running = openJournal(path);
    running.keepBallast();
    write(running);
    fill(path);
    rmSync(join(path, "ballast"));
    rmSync(join(path, "filler"));
    fill(path);
    expect(() => {
      for (let index = 0; index < 1000; index++) write(running);
    }).toThrow(expect.objectContaining({ code: "DiskFull" }));
    running.close();
    const started = openJournal(path);
    write(started);
    started.close();
  },
);

needs("root")("a job on full disks on both sides goes on when there is room", async () => {
  disk = await mountLoop({ fs: "ext4", sizeBytes: 64 * MiB });
  world = await openWorld({ parent: disk.path, limits: { attemptsMax: 100_000 } });
  await makeVolume(world, "data");
  await snapshot(world, "data", "s1");
  const folders = dirname(world.source.folder);
  let free: (() => void) | undefined;
  world.target.onCall = (method) => {
    if (method !== "putPlan" || free !== undefined) return;
    free = fill(disk.path);
    for (const name of ["source", "target"]) rmSync(join(folders, name, "ballast"));
    rmSync(join(disk.path, "filler"));
    free = fill(disk.path);
  };
  const job = await start(world, "data", "s1");
  expect(await settled(async () => free !== undefined, Boolean)).toBe(true);
  const { api } = world.source.engine;
  await expect(api.putSnapshot("data", "s2")).rejects.toMatchObject({ code: "DiskFull" });
  expect(await api.getJob(job)).toMatchObject({ state: "Running", finishedAt: null });
  free?.();
  expect((await ended(world.source, job)).state).toBe("Succeeded");
  expect(await flaws(world, "data")).toEqual([]);
});
