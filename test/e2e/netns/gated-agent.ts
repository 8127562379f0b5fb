// One agent in a network namespace of its own, with data on a small file system of its own, to be killed, stopped, cut off,
// filled up, and held at any call between agents.
import assert from "node:assert/strict";
import { execFile, spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { glob, mkdir, rm, statfs, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { stringify } from "yaml";
import type { AgentApi } from "../../../src/wire/agent-api.ts";
import { openAgentClient } from "../../../src/wire/agent-client.ts";
import type { Credentials } from "../../../src/wire/credentials.ts";
import type { Member } from "../../../src/wire/schemas.ts";
import { endOf, patience } from "../pair.ts";
import { eventually, type Process, watch } from "../process.ts";
import type { FromAgent, Gate, ToAgent } from "./gate-messages.ts";
import { type MemoryDisk, mountMemory } from "./memory-disk.ts";
import { type Host, inside } from "./network.ts";

const run = promisify(execFile);
const root = join(import.meta.dirname, "../../..");
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
export const apiPort = 7420;
export const lanePort = 7421;

export interface GatedAgentOptions {
  readonly host: Host;
  readonly clusterName: string;
  /** Keys; shared by the agents of a cluster, as is the client's. */
  readonly pki: string;
  readonly credentials: Credentials;
  /** Configuration, log, and the place its disk is mounted at. */
  readonly folder: string;
  readonly seeds: readonly string[];
  readonly diskBytes: number;
  readonly limits: Readonly<Record<string, string | number>>;
}

/** A closed gate. */
export interface HeldGate {
  /** Resolves when `calls` calls wait there, or have; with the parameters of the first, as JSON. */
  held(calls?: number): Promise<string>;
  /** Whether a call waits there, or has. */
  isHeld(): boolean;
  /** Lets all calls go on, those that wait and those to come. Nothing happens when the agent is gone. */
  open(): void;
  /** How the first call that was held before it was made has ended: with an error code, or null when it went well. */
  answered(): Promise<string | null>;
}

export class GatedAgent {
  readonly name: string;
  readonly host: Host;
  readonly dataDir: string;
  readonly api: AgentApi & { close(): Promise<void> };
  /** Known after the first start. */
  id = "";
  private readonly options: GatedAgentOptions;
  private process: Process | undefined;
  private send: (message: ToAgent) => void = () => undefined;
  private readonly waiting = new Map<number, (answer: Extract<FromAgent, { kind: "done" }>) => void>();
  /** Those that are closed, and those that were. */
  private readonly gates = new Map<string, GateState>();
  private asked = 0;
  private disk: MemoryDisk | undefined;

  constructor(options: GatedAgentOptions) {
    this.options = options;
    this.host = options.host;
    this.name = options.host.name;
    this.dataDir = join(options.folder, "disk/longshore");
    const addresses = [`${options.host.controlAddress}:${apiPort}`];
    this.api = openAgentClient({ addresses, credentials: options.credentials });
  }

  get address(): string {
    return `${this.host.address}:${apiPort}`;
  }

  get pid(): number {
    return this.running().pid;
  }

  /** As in the answers of its cluster. */
  get member(): Member {
    return {
      agentId: this.id,
      node: this.name,
      address: this.address,
      laneAddress: `${this.host.address}:${lanePort}`,
    };
  }

  /** Mounts the disk and writes the configuration; once. */
  async prepare(): Promise<void> {
    const { folder } = this.options;
    await mkdir(join(folder, "disk"), { recursive: true });
    this.disk = await mountMemory(join(folder, "disk"), this.options.diskBytes);
    await writeFile(join(folder, "agent.yaml"), stringify(this.config()));
  }

  /** Starts it, and resolves when it answers. */
  async start(): Promise<void> {
    const { folder } = this.options;
    const log = join(folder, "agent.log");
    const output = openSync(log, "a");
    const preload = ["--import", join(import.meta.dirname, "gates.ts")];
    const program = [join(root, "node_modules/.bin/node"), "--disable-warning=ExperimentalWarning", ...preload];
    const command = ["setpriv", "--pdeathsig", "KILL", ...program, join(root, "src/bin/longshore.ts")];
    const options = ["agent", "--config", join(folder, "agent.yaml")];
    const child = spawn("nsenter", [...inside(this.host.namespace), ...command, ...options], {
      stdio: ["ignore", output, output, "ipc"],
      cwd: root,
      env: { ...env, NODE_COMPILE_CACHE: join(root, ".cache/compiled") },
    });
    closeSync(output);
    const started = watch(child, `agent ${this.name}`, log);
    this.process = started;
    child.on("message", (message) => this.hear(message as FromAgent));
    this.send = (message) => {
      if (child.connected) child.send(message);
    };
    const agentId = await eventually(
      `agent ${this.name} answering`,
      async () => (endOf(started) === undefined ? (await this.api.describe()).agentId : ""),
      patience,
    );
    started.checkRunning();
    this.id = agentId;
  }

  isRunning(): boolean {
    return this.process !== undefined && endOf(this.process) === undefined;
  }

  /** Its calls at gates are gone with it. */
  async kill(): Promise<void> {
    await this.process?.signal("SIGKILL");
  }

  async stop(): Promise<void> {
    await this.running().signal("SIGSTOP");
  }

  async goOn(): Promise<void> {
    await this.process?.signal("SIGCONT");
  }

  /** Runs again, whatever was done to the process, with all gates open. */
  async ready(): Promise<void> {
    await this.goOn();
    for (const gate of this.gates.values()) gate.open();
    if (!this.isRunning()) await this.start();
  }

  /** Holds the calls that fit from now on; resolves when the agent knows. */
  async close(gate: Omit<Gate, "id" | "containing"> & { containing?: string }): Promise<HeldGate> {
    const id = `gate-${++this.asked}`;
    const state = new GateState(`${gate.call} at ${this.name}`, () => this.send({ kind: "open", id }));
    this.gates.set(id, state);
    await this.ask((question) => ({ kind: "close", question, gate: { containing: "", ...gate, id } }));
    return state;
  }

  /** What its journal says; the agent has to run. */
  async rows<Row>(sql: string, ...values: (string | number)[]): Promise<Row[]> {
    return (await this.ask((question) => ({ kind: "rows", question, sql, values }))) as Row[];
  }

  /** Where it has the image of a point, also while it does not run. Throws `ENOENT` when there is none. */
  async pointFile(pointId: string): Promise<string> {
    for await (const found of glob(`volumes/*/points/${pointId}.img`, { cwd: this.dataDir }))
      return join(this.dataDir, found);
    throw Object.assign(new Error(`${this.name} has no file of point ${pointId}`), { code: "ENOENT" });
  }

  /** Leaves so many bytes of its disk free. */
  async fill(freeBytes: number): Promise<void> {
    await this.unfill();
    const { bavail, bsize } = await statfs(this.dataDir);
    const bytes = Math.max(0, bavail * bsize - freeBytes);
    if (bytes > 0) await run("fallocate", ["-l", String(bytes), this.ballast()], { env });
  }

  async unfill(): Promise<void> {
    await rm(this.ballast(), { force: true });
  }

  /** Ends it for good. */
  async dispose(): Promise<void> {
    await this.goOn();
    await this.process?.signal("SIGKILL");
    await this.api.close();
    await this.disk?.unmount();
  }

  private ballast(): string {
    return join(this.options.folder, "disk/ballast");
  }

  private running(): Process {
    assert.ok(this.process, `agent ${this.name} was not started`);
    return this.process;
  }

  private ask(question: (number: number) => ToAgent): Promise<readonly object[]> {
    this.running().checkRunning();
    const number = ++this.asked;
    return new Promise((resolve, reject) => {
      this.waiting.set(number, ({ rows, problem }) =>
        problem === undefined ? resolve(rows) : reject(new Error(problem)),
      );
      this.send(question(number));
    });
  }

  private hear(message: FromAgent): void {
    switch (message.kind) {
      case "held":
        this.gates.get(message.id)?.hold(message.call);
        break;
      case "answered":
        this.gates.get(message.id)?.answer(message.code);
        break;
      case "done":
        this.waiting.get(message.question)?.(message);
        this.waiting.delete(message.question);
    }
  }

  private config() {
    const { clusterName, pki, seeds, limits } = this.options;
    return {
      clusterName,
      node: this.name,
      listen: `0.0.0.0:${apiPort}`,
      laneListen: `0.0.0.0:${lanePort}`,
      advertiseAddress: this.host.address,
      seeds,
      dataDir: this.dataDir,
      backend: "copy",
      tls: { certFile: join(pki, "agent.crt"), keyFile: join(pki, "agent.key"), caFile: join(pki, "ca.crt") },
      limits,
      logLevel: "info",
    };
  }
}

class GateState implements HeldGate {
  private readonly what: string;
  private readonly tellOpen: () => void;
  private readonly calls: string[] = [];
  private code: string | null | undefined;

  constructor(what: string, tellOpen: () => void) {
    this.what = what;
    this.tellOpen = tellOpen;
  }

  hold(call: string): void {
    this.calls.push(call);
  }

  answer(code: string | null): void {
    if (this.code === undefined) this.code = code;
  }

  isHeld(): boolean {
    return this.calls.length > 0;
  }

  held(calls = 1): Promise<string> {
    return eventually(`${this.what} being held`, async () => (this.calls.length >= calls ? this.calls[0] : undefined));
  }

  open(): void {
    this.tellOpen();
  }

  async answered(): Promise<string | null> {
    await eventually(`${this.what} being answered`, async () => (this.code === undefined ? undefined : true));
    return this.code ?? null;
  }
}
