// `btrfs send | btrfs receive`: each volume is an image in a subvolume of its own, snapshotted read-only, and sent against
// the snapshot before it. Its receiver does not sync; so that it counts as stored, the target file system is synced.
import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { quoted, runCommand, runShell } from "./command.ts";
import { type Disks, mountDisks, syncFileSystem } from "./disks.ts";
import type { PeakMemory } from "./process-memory.ts";
import type { Session, SessionOptions, Tool, Transfer } from "./tool.ts";

/** As many volumes at once as this project sends to one location. */
const atOnce = 4;

export function btrfsTool(): Tool {
  return {
    name: "btrfs",
    async describe() {
      const version = (await runCommand("btrfs", ["--version"])).trim();
      return `${version}: btrfs send -p BASE SNAPSHOT | btrfs receive, then the target file system synced; ${atOnce} volumes at once`;
    },
    open: openBtrfs,
  };
}

async function openBtrfs({ case: measured }: SessionOptions): Promise<Session> {
  const disks = await mountDisks("btrfs", measured);
  try {
    const volumes = Array.from({ length: measured.volumes }, (_, index) => `volume-${index}`);
    for (const volume of volumes) await runCommand("btrfs", ["subvolume", "create", join(disks.source, volume)]);
    await mkdir(join(disks.target, "received"));
    return new BtrfsSession(disks, volumes);
  } catch (error) {
    await disks.unmount();
    throw error;
  }
}

class BtrfsSession implements Session {
  readonly #disks: Disks;
  readonly #volumes: readonly string[];
  readonly #memory: PeakMemory = { peakRssMiB: 0 };
  /** The step both sides have. */
  #base: number | undefined;
  #bytesSent: { readonly isFirst: boolean; readonly bytes: number } | undefined;

  constructor(disks: Disks, volumes: readonly string[]) {
    this.#disks = disks;
    this.#volumes = volumes;
  }

  livePath(volume: number): string {
    return join(this.#disks.source, this.#volumes[volume] ?? "", "disk.img");
  }

  async capture(step: number): Promise<void> {
    for (const volume of this.#volumes) {
      const from = join(this.#disks.source, volume);
      await runCommand("btrfs", ["subvolume", "snapshot", "-r", from, this.#snapshot(volume, step)]);
    }
    await syncFileSystem(this.#disks.source);
  }

  async transfer(step: number): Promise<Transfer> {
    const { target } = this.#disks;
    const received = quoted(join(target, "received"));
    const pipes = this.#volumes.map((volume) => `${this.#send(volume, step)} | btrfs receive -q ${received}`);
    const script = inParallel(pipes);
    const begin = performance.now();
    await runShell(`${script}\nbtrfs filesystem sync ${quoted(target)}`, { memory: this.#memory });
    const ms = performance.now() - begin;
    const bytesSent = await this.#measure(step);
    this.#base = step;
    return { ms, bytesSent };
  }

  /** How long the stream is: counted apart, once for each kind of step, for counting would slow it down. */
  async #measure(step: number): Promise<number> {
    const isFirst = this.#base === undefined;
    if (this.#bytesSent?.isFirst !== isFirst) {
      const counts = this.#volumes.map((volume) => `${this.#send(volume, step)} | wc -c`);
      const lines = (await runShell(counts.join("\n"))).trim().split("\n");
      this.#bytesSent = { isFirst, bytes: lines.reduce((sum, line) => sum + Number(line), 0) };
    }
    return this.#bytesSent.bytes;
  }

  #send(volume: string, step: number): string {
    const base = this.#base === undefined ? "" : `-p ${quoted(this.#snapshot(volume, this.#base))} `;
    return `btrfs send -q ${base}${quoted(this.#snapshot(volume, step))}`;
  }

  #snapshot(volume: string, step: number): string {
    return join(this.#disks.source, `${volume}.${step}`);
  }

  async copyPath(volume: number, step: number): Promise<string> {
    return join(this.#disks.target, "received", `${this.#volumes[volume]}.${step}`, "disk.img");
  }

  async forget(): Promise<void> {
    if (this.#base !== undefined) await this.#remove(join(this.#disks.target, "received"), this.#base);
    this.#base = undefined;
  }

  async tidy(step: number): Promise<void> {
    for (const folder of [this.#disks.source, join(this.#disks.target, "received")]) {
      for (let old = step - 1; old >= Math.max(0, step - 3); old--) await this.#remove(folder, old);
    }
  }

  async #remove(folder: string, step: number): Promise<void> {
    const paths = this.#volumes.map((volume) => join(folder, `${volume}.${step}`));
    const present = paths.filter((path) => existsSync(path));
    if (present.length === 0) return;
    await runCommand("btrfs", ["subvolume", "delete", "--commit-after", ...present]);
    await runCommand("btrfs", ["subvolume", "sync", folder]);
  }

  async restart(): Promise<void> {}

  memory(): PeakMemory | undefined {
    return this.#memory.peakRssMiB > 0 ? this.#memory : undefined;
  }

  close(): Promise<void> {
    return this.#disks.unmount();
  }
}

/** Runs the lines of shell, so many at once; fails when one of them does. */
function inParallel(lines: readonly string[]): string {
  if (lines.length === 1) return lines.join("");
  const quotedLines = lines.map((line) => `${quoted(`set -o pipefail; ${line}`)}`).join(" ");
  return `printf '%s\\0' ${quotedLines} | xargs -0 -P ${atOnce} -n 1 bash -c`;
}
