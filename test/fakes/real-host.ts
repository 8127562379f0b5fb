// The Host of this machine, in a folder of a test's own: images, the kubelet's folder, state. Whatever is mounted or attached in it is
// taken away when the test is done with it and when the run is interrupted. Needs root.
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { mkdir, mkdtemp, open, realpath, unlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { type Log, silentLog } from "../../src/base/log.ts";
import { parseMountTable } from "../../src/base/mount-table.ts";
import { type Host, openHost } from "../../src/host/host.ts";
import { onInterrupt } from "../interrupt.ts";

const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };

export interface RealHost {
  readonly host: Host;
  readonly folder: string;
  readonly kubeletDir: string;
  readonly stateDir: string;
  /** Another process's view of the same node. */
  reopen(log?: Log): Promise<Host>;
  makeImage(name: string, sizeBytes: number): Promise<string>;
  growImage(path: string, sizeBytes: number): Promise<void>;
  /** Writes what no tool knows to its beginning. */
  scribble(path: string): Promise<void>;
  deleteImage(path: string): Promise<void>;
  close(): Promise<void>;
}

export async function openRealHost(): Promise<RealHost> {
  const folder = await realpath(await mkdtemp(join(tmpdir(), "longshore-host-")));
  const undo = () => removeAll(folder);
  const forget = onInterrupt(undo);
  const [kubeletDir, stateDir] = [join(folder, "kubelet"), join(folder, "state")];
  await mkdir(kubeletDir);
  const reopen = (log: Log = silentLog) => openHost({ stateDir, kubeletDir, log, clock: systemClock });
  return {
    host: await reopen(),
    folder,
    kubeletDir,
    stateDir,
    reopen,
    async makeImage(name, sizeBytes) {
      const path = join(folder, name);
      await resize(path, "wx", sizeBytes);
      return path;
    },
    growImage: (path, sizeBytes) => resize(path, "r+", sizeBytes),
    async scribble(path) {
      const image = await open(path, "r+");
      await image.write(Buffer.from("what no tool knows"), 0, undefined, 0);
      await image.sync();
      await image.close();
    },
    deleteImage: (path) => unlink(path),
    async close() {
      undo();
      forget();
    },
  };
}

async function resize(path: string, flags: string, sizeBytes: number): Promise<void> {
  const image = await open(path, flags);
  await image.truncate(sizeBytes);
  await image.close();
}

/** Takes away what is mounted below a folder, what is attached from it, and the folder itself. */
function removeAll(folder: string): void {
  for (const path of mountsBelow(folder).reverse()) spawnSync("umount", ["--lazy", "--quiet", path], { env });
  detachAll(folder);
  rmSync(folder, { recursive: true, force: true });
}

/** Detaches the images that lie in a folder; one that is in use goes with its last user. */
export function detachAll(folder: string): void {
  for (const device of loopsOver(folder)) spawnSync("losetup", ["--detach", device], { env });
}

/** Oldest first. */
export function mountsBelow(folder: string): string[] {
  const entries = parseMountTable(readFileSync("/proc/self/mountinfo", "utf8"));
  return entries.map(({ path }) => path).filter((path) => path.startsWith(`${folder}/`));
}

/** The loop devices whose image lies, or lay, in a folder. */
export function loopsOver(folder: string): string[] {
  const words = ["--list", "--noheadings", "--raw", "--output", "NAME,BACK-FILE"];
  const listed = spawnSync("losetup", words, { env, encoding: "utf8" }).stdout;
  return listed
    .split("\n")
    .filter((line) => line.includes(` ${folder}/`))
    .map((line) => String(line.split(" ")[0]));
}
