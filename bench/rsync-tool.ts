// `rsync --inplace` to a daemon over loopback. It reads both sides in full to find what differs, and writes in place
// over the only copy there is. With --fsync its receiver makes each file durable.
import type { ChildProcess } from "node:child_process";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import { freePort } from "../test/e2e/free-port.ts";
import { eventually } from "../test/e2e/process.ts";
import { runCommand, startCommand, stopCommand } from "./command.ts";
import { type Disks, mountDisks, syncFileSystem } from "./disks.ts";
import { type PeakMemory, watchMemory } from "./process-memory.ts";
import type { Session, SessionOptions, Tool, Transfer } from "./tool.ts";

// Without the modify window it takes a file for unchanged that was written twice within a second.
const flags = ["--recursive", "--times", "--modify-window=-1", "--inplace", "--no-whole-file", "--fsync"];

/** It writes 64 KiB and more around each block, in place, where btrfs keeps what was there before until all of its extent is written. */
const targetCopies = 2.2;

export function rsyncTool(): Tool {
  return {
    name: "rsync",
    async describe() {
      const version = (await runCommand("rsync", ["--version"])).split("\n")[0]?.trim().replace(/\s+/g, " ");
      return `${version}: rsync ${flags.join(" ")} to a daemon, the target holding the base`;
    },
    open: openRsync,
  };
}

async function openRsync({ case: measured, folder, options }: SessionOptions): Promise<Session> {
  const disks = await mountDisks(options.fileSystem, measured, targetCopies);
  try {
    const [from, to] = [join(disks.source, "volumes"), join(disks.target, "volumes")];
    for (const path of [from, to]) await mkdir(path);
    const port = await freePort();
    const daemon = await startDaemon({ folder, to, port });
    return new RsyncSession({ disks, from, to, port, daemon });
  } catch (error) {
    await disks.unmount();
    throw error;
  }
}

async function startDaemon({ folder, to, port }: { folder: string; to: string; port: number }): Promise<ChildProcess> {
  const config = join(folder, "rsyncd.conf");
  const module = `[volumes]\npath = ${to}\nread only = no\nuse chroot = no\nuid = root\ngid = root\n`;
  await writeFile(config, `address = 127.0.0.1\nport = ${port}\n${module}`);
  const daemon = startCommand("rsync", ["--daemon", "--no-detach", `--config=${config}`]);
  await eventually("rsync's daemon listening", () => canConnect(port));
  return daemon;
}

function canConnect(port: number): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => {
      socket.destroy();
      resolve(true);
    });
    socket.once("error", () => resolve(undefined));
  });
}

interface Parts {
  readonly disks: Disks;
  readonly from: string;
  readonly to: string;
  readonly port: number;
  readonly daemon: ChildProcess;
}

class RsyncSession implements Session {
  readonly #parts: Parts;
  readonly #memory: PeakMemory = { peakRssMiB: 0 };
  readonly #watching: { stop(): void };

  constructor(parts: Parts) {
    this.#parts = parts;
    this.#watching = watchMemory(parts.daemon.pid ?? 0, this.#memory);
  }

  livePath(volume: number): string {
    return join(this.#parts.from, `volume-${volume}.img`);
  }

  async capture(): Promise<void> {
    await syncFileSystem(this.#parts.disks.source);
  }

  async transfer(): Promise<Transfer> {
    const { from, port } = this.#parts;
    const args = [...flags, "--stats", `${from}/`, `rsync://127.0.0.1:${port}/volumes/`];
    const begin = performance.now();
    const told = await runCommand("rsync", args, { memory: this.#memory });
    const ms = performance.now() - begin;
    return { ms, bytesSent: numberIn(told, "Total bytes sent") + numberIn(told, "Total bytes received") };
  }

  async copyPath(volume: number): Promise<string> {
    return join(this.#parts.to, `volume-${volume}.img`);
  }

  async forget(): Promise<void> {
    await rm(this.#parts.to, { recursive: true });
    await mkdir(this.#parts.to);
  }

  async tidy(): Promise<void> {}

  async restart(): Promise<void> {}

  memory(): PeakMemory | undefined {
    return this.#memory;
  }

  async close(): Promise<void> {
    this.#watching.stop();
    await stopCommand(this.#parts.daemon);
    await this.#parts.disks.unmount();
  }
}

function numberIn(text: string, name: string): number {
  const digits = new RegExp(`^${name}: ([\\d,]+)`, "m").exec(text)?.[1];
  if (digits === undefined) throw new Error(`rsync does not tell its ${name}: ${text}`);
  return Number(digits.replaceAll(",", ""));
}
