// Snapshots of a group on two agents are of one moment, whatever is being written: the real thing, with mounted file systems.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as pause } from "node:timers/promises";
import { afterEach, expect } from "@jest/globals";
import { codeOf } from "../../src/domain/errors.ts";
import type { GroupSnapshotView } from "../../src/wire/schemas.ts";
import { type Cluster, type Clusters, openClusters } from "../fakes/engines.ts";
import { patienceMs } from "../fakes/migration-world.ts";
import { type MountedImage, mountImage } from "../fakes/mounted-image.ts";
import { onInterrupt } from "../interrupt.ts";
import { needs } from "../needs.ts";

const sizeBytes = 8 * 2 ** 20;
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

let clusters: Clusters | undefined;
const mounts: MountedImage[] = [];
let writer: ChildProcess | undefined;
let forget = () => {};

afterEach(async () => {
  writer?.kill("SIGKILL");
  forget();
  // Closed first: what is frozen is thawed by that.
  await clusters?.close().catch(async (error) => {
    for (const mount of mounts.splice(0)) await mount.unmount();
    throw error;
  });
  for (const mount of mounts.splice(0)) await mount.unmount();
});

/** Writes 1, 2, 3, … to the first file and then to the second, as fast as it can. */
const program = `
  const { openSync, writeSync } = require("node:fs");
  const [first, second] = process.argv.slice(1).map((file) => openSync(file, "r+"));
  for (let number = 1; ; number++) {
    const text = String(number).padStart(16, "0");
    writeSync(first, text, 0);
    writeSync(second, text, 0);
  }`;

async function volumeOn(agent: Cluster, name: string): Promise<string> {
  const { path } = await agent.engine.api.putVolume(name, { sizeBytes });
  const mount = await mountImage(path, { fs: "ext4" });
  mounts.push(mount);
  const file = join(mount.path, "number");
  await writeFile(file, "0".repeat(16));
  return file;
}

async function both(): Promise<readonly [Cluster, Cluster]> {
  clusters = await openClusters({ west: 2 }, { inMemory: true, limits: { freezeMs: 30_000 } });
  const agents = clusters.of("west") as unknown as readonly [Cluster, Cluster];
  const end = performance.now() + patienceMs;
  while ((await agents[0].engine.api.describe()).members.length < 2) {
    if (performance.now() > end) throw new Error("the agents do not meet");
    await pause(10);
  }
  return agents;
}

/** What the file held at the moment of the snapshot; a file system that was frozen can be read as it is. */
function numberIn(agent: Cluster, { snapshots }: GroupSnapshotView, volume: string): number {
  const point = snapshots.find((snapshot) => snapshot.volume === volume)?.pointId;
  const find = ["-name", `${point}.img`];
  const image = execFileSync("find", [agent.folder, ...find], { encoding: "utf8" }).trim();
  expect(existsSync(image)).toBe(true);
  return Number(execFileSync("debugfs", ["-R", "cat /number", image], { env, encoding: "utf8", stdio: "pipe" }));
}

needs("root")(
  "the second of two numbers is never ahead of the first, nor more than one behind it",
  async () => {
    const [one, other] = await both();
    const files = [await volumeOn(one, "first"), await volumeOn(other, "second")];
    writer = spawn(process.execPath, ["-e", program, ...files], { stdio: "ignore" });
    forget = onInterrupt(() => writer?.kill("SIGKILL"));
    let before = 0;
    let rounds = 0;
    for (let round = 1; rounds < 25; round++) {
      let view: GroupSnapshotView;
      try {
        const asked = round % 2 === 0 ? one : other;
        view = await asked.engine.api.putGroupSnapshot("g", `s${round}`, { volumes: ["first", "second"] });
      } catch (error) {
        // A busy machine may be too slow now and then; what is told to be good has to be good.
        expect(codeOf(error)).toBe("GroupInvalid");
        continue;
      }
      rounds++;
      expect(view.frozenMs).toBeGreaterThan(0);
      const [first, second] = [numberIn(one, view, "first"), numberIn(other, view, "second")];
      expect([0, 1]).toContain(first - second);
      expect(first).toBeGreaterThan(before);
      before = first;
      for (const [agent, volume] of [
        [one, "first"],
        [other, "second"],
      ] as const) {
        await agent.engine.api.removeSnapshot(volume, `s${round}`);
      }
    }
    expect(writer.exitCode).toBeNull();
  },
  180_000,
);
