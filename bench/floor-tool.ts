// The floors: what the machine can do at best when somebody knows beforehand which bytes have changed. Two processes copy
// exactly these over loopback, the target's into a clone of the base, made within the measured time, and make it durable.
import { type ChildProcess, fork } from "node:child_process";
import { constants } from "node:fs";
import { copyFile, mkdir, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../src/base/clock.ts";
import { systemDice } from "../src/base/dice.ts";
import { initAuthority, issueInto } from "../src/pki/folder.ts";
import { onInterrupt } from "../test/interrupt.ts";
import type { ToolName } from "./cases.ts";
import { type Disks, mountDisks, syncFileSystem } from "./disks.ts";
import {
  digestAlgorithm,
  type FloorFile,
  type FloorReply,
  type FloorRequest,
  type FloorTask,
} from "./floor/messages.ts";
import { type PeakMemory, residentMiB } from "./process-memory.ts";
import type { Range, Session, SessionOptions, Tool, Transfer } from "./tool.ts";

type FloorName = Extract<ToolName, `floor-${string}`>;

export function floorTool(name: FloorName): Tool {
  const isHashing = name.endsWith("-hash");
  const transport = name.startsWith("floor-tls") ? "tls" : "kernel";
  const how =
    transport === "tls"
      ? "read, TLS 1.3 in Node.js, writev, each connection in threads of its own"
      : "sendfile, splice";
  const hashing = `; ${digestAlgorithm} of the source's bytes, and of the target's read back from the page cache after fdatasync, compared`;
  return {
    name,
    describe: async () => `${how}; reflink clone and fsync of file and folder included${isHashing ? hashing : ""}`,
    open: (options) => openFloor({ transport, isHashing }, options),
  };
}

type Kind = Pick<FloorTask, "transport" | "isHashing">;

async function openFloor(kind: Kind, { case: measured, folder, options }: SessionOptions): Promise<Session> {
  const disks = await mountDisks(options.fileSystem, measured);
  const programs: Program[] = [];
  try {
    await mkdir(folder, { recursive: true });
    const tls = kind.transport === "tls" ? await certificates(folder) : undefined;
    programs.push(startProgram("source"), startProgram("target"));
    const [source, target] = programs as [Program, Program];
    const { volumes, volumeBytes } = measured;
    const lanes = kind.transport === "tls" ? options.lanes : 1;
    return new FloorSession({ disks, source, target, task: { ...kind, lanes, tls }, volumes, volumeBytes });
  } catch (error) {
    for (const program of programs) program.end();
    await disks.unmount();
    throw error;
  }
}

async function certificates(folder: string): Promise<NonNullable<FloorTask["tls"]>> {
  const context = { clock: systemClock, dice: systemDice };
  await initAuthority(folder, { clusterName: "floor" }, context);
  await issueInto(folder, { role: "agent", names: ["127.0.0.1"], days: 1, name: "agent", renew: false }, context);
  const read = (name: string) => readFile(join(folder, name), "utf8");
  return { cert: await read("agent.crt"), key: await read("agent.key"), ca: await read("ca.crt") };
}

interface Parts {
  readonly disks: Disks;
  readonly source: Program;
  readonly target: Program;
  readonly task: Omit<FloorTask, "files">;
  readonly volumes: number;
  readonly volumeBytes: number;
}

class FloorSession implements Session {
  readonly #parts: Parts;
  readonly #memory: PeakMemory = { peakRssMiB: 0 };
  #base: number | undefined;

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  livePath(volume: number): string {
    return join(this.#parts.disks.source, `volume-${volume}.img`);
  }

  #copy(volume: number, step: number): string {
    return join(this.#parts.disks.target, `volume-${volume}.${step}.img`);
  }

  /** As with all tools, what is copied is a snapshot, which nobody writes to and nothing of which is in memory yet. */
  async capture(): Promise<void> {
    const { disks, volumes } = this.#parts;
    for (let volume = 0; volume < volumes; volume++) {
      await rm(this.#snapshot(volume), { force: true });
      await copyFile(this.livePath(volume), this.#snapshot(volume), constants.COPYFILE_FICLONE_FORCE);
    }
    await syncFileSystem(disks.source);
  }

  #snapshot(volume: number): string {
    return join(this.#parts.disks.source, `volume-${volume}.snapshot`);
  }

  async transfer(step: number, changed: readonly (readonly Range[])[]): Promise<Transfer> {
    const { source, target, task, volumes, volumeBytes } = this.#parts;
    const base = this.#base;
    const file = (volume: number) => ({ sizeBytes: volumeBytes, ranges: this.#ranges(changed[volume] ?? []) });
    const files = (path: (volume: number) => Pick<FloorFile, "path" | "base">) =>
      Array.from({ length: volumes }, (_, volume) => ({ ...file(volume), ...path(volume) }));
    const targetFiles = files((volume) => ({
      path: this.#copy(volume, step),
      base: base === undefined ? undefined : this.#copy(volume, base),
    }));
    const sourceFiles = files((volume) => ({ path: this.#snapshot(volume), base: undefined }));
    const { ports } = await target.prepare({ ...task, files: targetFiles }, []);
    await source.prepare({ ...task, files: sourceFiles }, ports);
    const begin = performance.now();
    const [sent, received] = await Promise.all([source.go(), target.go()]);
    const ms = performance.now() - begin;
    if (sent.digests.join() !== received.digests.join()) throw new Error("what was read back is not what was sent");
    this.#base = step;
    this.#memory.peakRssMiB = Math.max(this.#memory.peakRssMiB, source.peakMiB(), target.peakMiB());
    return { ms, bytesSent: sent.bytesSent };
  }

  /** A first copy is of everything. */
  #ranges(changed: readonly Range[]): readonly Range[] {
    return this.#base === undefined ? [{ offset: 0, length: this.#parts.volumeBytes }] : changed;
  }

  async copyPath(volume: number, step: number): Promise<string> {
    return this.#copy(volume, step);
  }

  async forget(): Promise<void> {
    if (this.#base !== undefined) await this.#remove(this.#base);
    this.#base = undefined;
  }

  async tidy(step: number): Promise<void> {
    for (let old = step - 1; old >= Math.max(0, step - 3); old--) await this.#remove(old);
  }

  async #remove(step: number): Promise<void> {
    for (let volume = 0; volume < this.#parts.volumes; volume++) await rm(this.#copy(volume, step), { force: true });
  }

  async restart(): Promise<void> {}

  memory(): PeakMemory | undefined {
    return this.#memory;
  }

  async close(): Promise<void> {
    this.#parts.source.end();
    this.#parts.target.end();
    await this.#parts.disks.unmount();
  }
}

type Reply<K extends FloorReply["kind"]> = Extract<FloorReply, { kind: K }>;

interface Program {
  prepare(task: FloorTask, ports: readonly number[]): Promise<Reply<"ready">>;
  go(): Promise<Reply<"done">>;
  peakMiB(): number;
  end(): void;
}

function startProgram(side: "source" | "target"): Program {
  const file = join(import.meta.dirname, `floor/${side}.ts`);
  const child = fork(file, { execArgv: ["--disable-warning=ExperimentalWarning"], serialization: "advanced" });
  const forget = onInterrupt(() => child.kill("SIGKILL"));
  return {
    prepare: async (task, ports) => (await ask(child, side, { kind: "prepare", task, ports })) as Reply<"ready">,
    go: async () => (await ask(child, side, { kind: "go" })) as Reply<"done">,
    peakMiB: () => residentMiB(child.pid ?? 0, "peak") ?? 0,
    end() {
      forget();
      child.removeAllListeners("exit");
      child.kill("SIGKILL");
    },
  };
}

function ask(child: ChildProcess, side: string, request: FloorRequest): Promise<FloorReply> {
  return new Promise((resolve, reject) => {
    const ended = () => reject(new Error(`the floor's ${side} ended`));
    child.once("exit", ended);
    child.once("message", (reply: FloorReply) => {
      child.off("exit", ended);
      if (reply.kind === "failed") reject(new Error(`the floor's ${side}: ${reply.message}`));
      else resolve(reply);
    });
    child.send(request);
  });
}
