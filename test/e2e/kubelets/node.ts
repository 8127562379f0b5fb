// One node of a cluster: containerd and a kubelet with a network, a mount and a process namespace of their own on this machine,
// and a file system of their own for Longshore's volumes. Whatever runs on it ends with it, and it ends with this process.
import { execFile, spawn, spawnSync } from "node:child_process";
import { closeSync, existsSync, openSync, readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { promisify } from "node:util";
import { type LoopFs, mountLoop } from "../../fakes/loop-fs.ts";
import { onInterrupt } from "../../interrupt.ts";
import { controlPlaneAssets, tail } from "../control-plane-program.ts";
import { eventually, type Process, watch } from "../process.ts";
import { makeCgroup, removeCgroup } from "./cgroup-root.ts";
import { detachLoopDevices, fileSystemOf, type LoopDevice, loopDevicesOver } from "./loop-devices.ts";
import {
  cniConfig,
  cniFolders,
  configFolder,
  containerdConfig,
  containerdSocket,
  kubeletConfig,
  kubeletOptions,
  type NodeFacts,
  resolvConf,
} from "./node-config.ts";
import { pauseMs } from "./pause.ts";
import type { PodHost } from "./pod-network.ts";

const run = promisify(execFile);
const env = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin:/sbin` };
const startMsMax = 180_000;
const endMsMax = 120_000;
const kubeletProgram = /\/kubelet --config/;
/** Who freezes file systems: the agent, and its helper, which a container ends together with it. */
const agentPrograms = /longshore\S* agent |freeze-guard\.ts/;

export interface NodeOptions {
  readonly name: string;
  readonly host: PodHost;
  /** The node's own; logs and all that its programs keep. */
  readonly folder: string;
  readonly kubeconfig: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Files of `ctr images import`. */
  readonly images: readonly string[];
  /** Of the file system for volumes. */
  readonly diskBytes: number;
}

/** Makes the node and resolves once its kubelet runs; it joins the cluster in its own time. */
export async function startNode(options: NodeOptions): Promise<KubeletNode> {
  const node = new KubeletNode(options);
  try {
    await node.start();
    return node;
  } catch (error) {
    await node.stop();
    throw error;
  }
}

export class KubeletNode {
  readonly name: string;
  readonly cgroup: string;
  readonly #options: NodeOptions;
  readonly #forget: () => void;
  #forgetFrozen: () => void = () => undefined;
  #disk: LoopFs | undefined;
  #fileSystem: string | undefined;
  #first: Process | undefined;
  #firstPid: number | undefined;
  #containerd: Process | undefined;
  #kubelet: Process | undefined;
  #stopped: Promise<void> | undefined;

  constructor(options: NodeOptions) {
    this.name = options.name;
    this.#options = options;
    this.cgroup = makeCgroup(options.host.namespace);
    this.#forget = onInterrupt(() => this.#removeNow());
  }

  /** Where this machine has what the node has under `/var/lib`; volumes are apart, in {@link volumesFolder}. */
  get libFolder(): string {
    return join(this.#options.folder, "lib");
  }

  /** The node's `/var/lib/longshore`. */
  get volumesFolder(): string {
    if (this.#disk === undefined) throw new Error(`node ${this.name} has no disk`);
    return this.#disk.path;
  }

  /** For messages: how the node's programs fared. */
  get logs(): string {
    const logs = ["containerd", "kubelet"].map((program) => this.#log(program));
    return logs.map((log) => (existsSync(log) ? `${log} ends:\n${tail(log, 15)}` : `there is no ${log}`)).join("\n");
  }

  async start(): Promise<void> {
    await this.#writeConfiguration();
    this.#disk = await mountLoop({ fs: "xfs", sizeBytes: this.#options.diskBytes, inMemory: true });
    this.#fileSystem = fileSystemOf(this.#disk.path);
    this.#firstPid = await this.#startFirst(this.#disk.path);
    this.#containerd = this.#startInside("containerd", ["containerd", "--config", `${configFolder}/containerd.toml`]);
    await this.#containerdAnswers();
    for (const image of this.#options.images) await this.#ctr("images", "import", image);
    this.#startKubelet();
    // Newer than what ends the node's processes, so that an interrupted run does it before.
    this.#forgetFrozen = onInterrupt(() => this.#leaveNothingFrozen());
  }

  /** Kills the kubelet, as a crash would, and starts it again; pods go on meanwhile. */
  async restartKubelet(): Promise<void> {
    await this.#kubelet?.signal("SIGKILL");
    // What was waited for is its parent, with which it ends.
    const isGone = async () => this.pids(kubeletProgram).length === 0 || undefined;
    await eventually(`the kubelet of ${this.name} being gone`, isGone);
    this.#startKubelet();
  }

  /** The node's own processes and those of its pods, by their numbers on this machine; all of them, or by command line. */
  pids(commandLine = /^/): number[] {
    const own = namespaceOf(this.#pid());
    if (own === undefined) return [];
    const isOurs = (pid: number) => namespaceOf(pid) === own || fileOf(pid, "cgroup").includes(`${this.cgroup}/`);
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => commandLine.test(fileOf(pid, "cmdline").replaceAll("\0", " ")) && isOurs(pid));
  }

  /** Kills the node's processes whose command line is like this; returns how many there were. */
  kill(commandLine: RegExp): number {
    const pids = this.pids(commandLine);
    for (const pid of pids) killNow(pid);
    return pids.length;
  }

  /** The places at which something is mounted on the node, below a folder. */
  mountPoints(below: string): string[] {
    const mounts = readFileSync(`/proc/${this.#pid()}/mountinfo`, "utf8").trimEnd().split("\n");
    return mounts.map((line) => line.split(" ")[4] ?? "").filter((point) => point.startsWith(`${below}/`));
  }

  /** What is attached to images of volumes. */
  loopDevices(): LoopDevice[] {
    return this.#fileSystem === undefined ? [] : loopDevicesOver(this.#fileSystem);
  }

  /** Ends all that runs on it and removes it. A repeat changes nothing. */
  stop(): Promise<void> {
    this.#stopped ??= this.#stopOnce();
    return this.#stopped;
  }

  async #stopOnce(): Promise<void> {
    await this.#kubelet?.signal("SIGKILL");
    this.#leaveNothingFrozen();
    this.#forgetFrozen();
    try {
      this.#removeNow();
      await this.#first?.signal("SIGKILL");
      await this.#volumesAreDetached();
    } finally {
      await this.#disk?.unmount();
      this.#forget();
    }
  }

  /** The file systems of what was killed are taken down a moment later, and keep their loop devices until then. */
  async #volumesAreDetached(): Promise<void> {
    const areDetached = async () => {
      const left = this.loopDevices();
      detachLoopDevices(left);
      return left.length === 0 || undefined;
    };
    await eventually(`the volumes of ${this.name} being detached`, areDetached, { timeoutMs: endMsMax });
  }

  /** A file system that is frozen when nobody is left to thaw it could never be taken away. Synchronous, as is {@link #removeNow}. */
  #leaveNothingFrozen(): void {
    if (this.#firstPid === undefined || namespaceOf(this.#firstPid) === undefined) return;
    // The kubelet would start the agent again.
    const programs = [kubeletProgram, agentPrograms];
    for (const program of programs) this.kill(program);
    const isLeft = () => programs.some((program) => this.pids(program).length > 0);
    for (let waitedMs = 0; isLeft() && waitedMs < endMsMax; waitedMs += 20) pauseMs(20);
    for (const point of this.mountPoints("/var/lib/kubelet").filter((each) => each.endsWith("/globalmount"))) {
      // Of one that is not frozen this is refused.
      spawnSync("nsenter", [...this.#inside(), "fsfreeze", "--unfreeze", point], { env, stdio: "ignore" });
    }
  }

  /** All but the disk, which goes by itself; synchronous, for it is also what an interrupted run does. */
  #removeNow(): void {
    const pid = this.#firstPid;
    this.#firstPid = undefined;
    if (pid !== undefined) {
      killNow(pid);
      for (let waitedMs = 0; isAlive(pid) && waitedMs < endMsMax; waitedMs += 20) pauseMs(20);
    }
    detachLoopDevices(this.loopDevices());
    removeCgroup(this.cgroup);
    rmSync(this.#options.folder, { recursive: true, force: true, maxRetries: 5 });
  }

  #log(program: string): string {
    return join(this.#options.folder, `${program}.log`);
  }

  async #writeConfiguration(): Promise<void> {
    const { folder, host, name, kubeconfig, labels } = this.#options;
    const cniFolder = cniFolders.find((each) => existsSync(join(each, "host-local")));
    if (cniFolder === undefined) throw new Error(`there are no CNI plugins in ${cniFolders.join(" or ")}`);
    const { controlAddress: address, podNet } = host;
    const facts: NodeFacts = { name, address, podNet, cgroup: this.cgroup, cniFolder };
    const own = join(this.libFolder, "node");
    await mkdir(join(own, "cni"), { recursive: true });
    await mkdir(join(folder, "log"), { recursive: true });
    const files = {
      "containerd.toml": containerdConfig(facts),
      "cni/10-pods.conflist": cniConfig(facts),
      "kubelet.json": kubeletConfig(facts),
      "kubelet.options": kubeletOptions(facts, labels).join("\n"),
      "kubelet.kubeconfig": kubeconfig,
      "resolv.conf": resolvConf(),
    };
    for (const [file, text] of Object.entries(files)) await writeFile(join(own, file), text, { mode: 0o600 });
  }

  /** Resolves with the first process's number on this machine once the node's folders are in place. */
  async #startFirst(data: string): Promise<number> {
    const { folder, host } = this.#options;
    const log = openSync(this.#log("node"), "a");
    const namespaces = ["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child=SIGKILL", "--"];
    const entering = ["--pdeathsig", "KILL", "nsenter", `--net=/run/netns/${host.namespace}`, "--"];
    const first = [join(import.meta.dirname, "node.sh"), folder, data];
    const options = [...entering, "unshare", ...namespaces, ...first];
    const child = spawn("setpriv", options, { stdio: ["ignore", "pipe", log], env });
    closeSync(log);
    this.#first = watch(child, `node ${this.name}`, this.#log("node"));
    const line = child.stdout === null ? undefined : await firstLine(child.stdout);
    const pid = Number(line);
    if (Number.isInteger(pid) && pid > 0) return pid;
    await this.#first.signal("SIGKILL");
    throw new Error(`node ${this.name} could not be made:\n${tail(this.#log("node"))}`);
  }

  #pid(): number {
    if (this.#firstPid === undefined) throw new Error(`node ${this.name} does not run`);
    return this.#firstPid;
  }

  /** Options of `nsenter` for a command on the node. */
  #inside(): string[] {
    return ["--target", String(this.#pid()), "--mount", "--pid", "--net", "--"];
  }

  /** A program on the node that ends with this process: its parent, on this side, does, and it ends with that. */
  #startInside(name: string, command: readonly string[]): Process {
    const log = this.#log(name);
    const output = openSync(log, "a");
    const options = ["--pdeathsig", "KILL", "nsenter", ...this.#inside(), "setpriv", "--pdeathsig", "KILL", ...command];
    const child = spawn("setpriv", options, { stdio: ["ignore", output, output], env, cwd: "/" });
    closeSync(output);
    return watch(child, `${name} of node ${this.name}`, log);
  }

  #startKubelet(): void {
    const options = readFileSync(join(this.libFolder, "node/kubelet.options"), "utf8").split("\n");
    this.#kubelet = this.#startInside("kubelet", [join(controlPlaneAssets, "kubelet"), ...options]);
  }

  async #ctr(...words: string[]): Promise<void> {
    const command = ["ctr", "--address", containerdSocket, "--namespace", "k8s.io", ...words];
    await run("nsenter", [...this.#inside(), ...command], { env, timeout: startMsMax, maxBuffer: 2 ** 24 });
  }

  async #containerdAnswers(): Promise<void> {
    const answers = async () => {
      this.#containerd?.checkRunning();
      await this.#ctr("version");
      return true;
    };
    await eventually(`containerd of ${this.name} answering`, answers, { timeoutMs: startMsMax, intervalMs: 100 });
  }
}

async function firstLine(output: Readable): Promise<string | undefined> {
  const lines = createInterface({ input: output, signal: AbortSignal.timeout(startMsMax) });
  for await (const line of lines) return line;
  return undefined;
}

/** `undefined` for a process that has ended. */
function namespaceOf(pid: number): string | undefined {
  try {
    return readlinkSync(`/proc/${pid}/ns/pid`);
  } catch {
    return undefined;
  }
}

/** What the machine tells of a process; nothing of one that has ended. */
function fileOf(pid: number, file: "cgroup" | "cmdline"): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "utf8");
  } catch {
    return "";
  }
}

/** Whether it, and with the first process of a namespace all others in that, is there and not merely waiting to be collected. */
function isAlive(pid: number): boolean {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
    return stat.slice(stat.lastIndexOf(")") + 2, stat.lastIndexOf(")") + 3) !== "Z";
  } catch {
    return false;
  }
}

function killNow(pid: number): void {
  try {
    process.kill(pid, "SIGKILL");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}
