// `restic backup` into a repository on the other disk, and `restic restore` of it there: what it takes until the copy can
// be used.
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import { runCommand } from "./command.ts";
import { type Disks, mountDisks, syncFileSystem } from "./disks.ts";
import type { PeakMemory } from "./process-memory.ts";
import type { Session, SessionOptions, Tool, Transfer } from "./tool.ts";

export function resticTool(): Tool {
  return {
    name: "restic",
    async describe() {
      const version = (await runCommand("restic", ["version"])).trim();
      return `${version}: restic backup into a local repository, then restic restore, then the target file system synced`;
    },
    open: openRestic,
  };
}

async function openRestic({ case: measured, folder, options }: SessionOptions): Promise<Session> {
  // Nearly every chunk of its repository, of 1 MiB, has a changed block in it: until it is pruned the repository holds the volume
  // twice, beside what is restored.
  const disks = await mountDisks(options.fileSystem, measured, 3.5);
  try {
    const session = new ResticSession(disks, join(folder, "restic-cache"));
    await session.prepare();
    return session;
  } catch (error) {
    await disks.unmount();
    throw error;
  }
}

class ResticSession implements Session {
  readonly #disks: Disks;
  readonly #cache: string;
  readonly #memory: PeakMemory = { peakRssMiB: 0 };

  constructor(disks: Disks, cache: string) {
    this.#disks = disks;
    this.#cache = cache;
  }

  async prepare(): Promise<void> {
    await mkdir(this.#from);
    await this.#restic("init");
  }

  get #from(): string {
    return join(this.#disks.source, "volumes");
  }

  get #restored(): string {
    return join(this.#disks.target, "restored");
  }

  #restic(...args: string[]): Promise<string> {
    const where = ["--repo", join(this.#disks.target, "repository"), "--cache-dir", this.#cache];
    return runCommand("restic", [...where, ...args], { env: { RESTIC_PASSWORD: "benchmark" }, memory: this.#memory });
  }

  livePath(volume: number): string {
    return join(this.#from, `volume-${volume}.img`);
  }

  async capture(): Promise<void> {
    await syncFileSystem(this.#disks.source);
    // It restores into a folder that is empty, for it has no other way that is quicker.
    await rm(this.#restored, { recursive: true, force: true });
  }

  async transfer(): Promise<Transfer> {
    const begin = performance.now();
    const told = await this.#restic("backup", "--json", "--host", "bench", this.#from);
    await this.#restic("restore", "latest", "--target", this.#restored);
    await syncFileSystem(this.#disks.target);
    const ms = performance.now() - begin;
    const bytes = /"data_added":(\d+)/.exec(told)?.[1];
    return { ms, bytesSent: bytes === undefined ? undefined : Number(bytes) };
  }

  async copyPath(volume: number): Promise<string> {
    return join(this.#restored, this.livePath(volume));
  }

  async forget(): Promise<void> {
    await rm(this.#restored, { recursive: true, force: true });
    await this.#restic("forget", "--host", "bench", "--keep-last", "1", "--prune");
  }

  async tidy(): Promise<void> {
    await this.#restic("forget", "--host", "bench", "--keep-last", "1", "--prune", "--max-unused", "0");
  }

  async restart(): Promise<void> {}

  memory(): PeakMemory | undefined {
    return this.#memory;
  }

  close(): Promise<void> {
    return this.#disks.unmount();
  }
}
