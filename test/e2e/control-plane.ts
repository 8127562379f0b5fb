// Real Kubernetes control planes for tests and the demo: etcd, kube-apiserver and kube-controller-manager on loopback,
// any number side by side, each with ports and a folder of its own, RBAC, and the controllers that bind volumes.
// `make setup` provides the programs. Nothing outlives the process that started them.

import { spawn } from "node:child_process";
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { onInterrupt } from "../interrupt.ts";
import { controlPlaneAssets, type Program, startProgram, tail } from "./control-plane-program.ts";
import { freePort } from "./free-port.ts";

export interface KubectlOptions {
  /** Written to standard input, for `-f -`. */
  readonly input?: string;
  readonly env?: Readonly<Record<string, string>>;
  /** Another user than admin; see {@link ControlPlane.kubeconfigFor}. */
  readonly kubeconfig?: string;
}

export interface ControlPlane {
  readonly name: string;
  /** The API server's URL. It stays the same over {@link restartApiServer}. */
  readonly server: string;
  readonly caFile: string;
  /** The admin's (group system:masters). */
  readonly kubeconfigPath: string;
  readonly adminToken: string;
  /** Logs and keys; removed by {@link stop}. */
  readonly folder: string;
  /** Runs kubectl as admin; throws an error with its standard error output when it fails. */
  kubectl(args: readonly string[], options?: KubectlOptions): Promise<{ stdout: string; stderr: string }>;
  /** Writes a kubeconfig for a bearer token and returns its path. */
  kubeconfigFor(token: string): string;
  /** A kubeconfig for a service account that exists, with a token of its own that is good for a day. */
  serviceAccountKubeconfig(namespace: string, name: string): Promise<string>;
  /** Kills the API server, runs `whileDown`, starts it again on the same port, and resolves when it is ready. */
  restartApiServer(whileDown?: () => Promise<void>): Promise<void>;
  /** Ends all processes and removes the folder. A repeat changes nothing. */
  stop(): Promise<void>;
}

export interface ControlPlaneOptions {
  /** For people: log folders and kubeconfig contexts. */
  readonly name: string;
  /** Aborting gives up a start that is under way; a control plane that runs is ended by `stop`. */
  readonly signal?: AbortSignal;
}

const startTimeoutMs = 90_000;
const startsMax = 3;
const folderPrefix = "longshore-controlplane-";

// What Longshore's objects need; a control plane without the others starts faster and leaves the processor to the tests.
const controllers = [
  "clusterrole-aggregation-controller",
  "garbage-collector-controller",
  "namespace-controller",
  "persistentvolume-binder-controller",
  "persistentvolume-expander-controller",
  "persistentvolume-protection-controller",
  "persistentvolumeclaim-protection-controller",
  "root-ca-certificate-publisher-controller",
  "serviceaccount-controller",
  "serviceaccount-token-controller",
];

/** Starts a control plane and resolves once the API server is ready and the controllers act. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  removeStaleFolders();
  for (let attempt = 1; ; attempt++) {
    const plane = new LoopbackControlPlane(options.name, await freePort());
    try {
      await plane.start(options.signal);
      return plane;
    } catch (error) {
      await plane.stop();
      // Between finding a port free and listening on it, another process may have taken it.
      if (attempt === startsMax || !/address already in use/.test(String(error))) throw error;
    }
  }
}

class LoopbackControlPlane implements ControlPlane {
  readonly name: string;
  readonly server: string;
  readonly adminToken = randomBytes(16).toString("hex");
  readonly folder: string;
  readonly caFile: string;
  readonly kubeconfigPath: string;
  readonly #controllersToken = randomBytes(16).toString("hex");
  readonly #port: number;
  readonly #programs = new Map<string, Program>();
  readonly #forget: () => void;
  #etcdUrl = "";
  #stopped: Promise<void> | undefined;

  constructor(name: string, port: number) {
    this.name = name;
    this.#port = port;
    this.server = `https://127.0.0.1:${port}`;
    this.folder = mkdtempSync(join(tmpdir(), `${folderPrefix}${process.pid}-${name}-`));
    this.caFile = join(this.folder, "apiserver/apiserver.crt");
    this.kubeconfigPath = join(this.folder, "admin.kubeconfig");
    this.#forget = onInterrupt(() => {
      for (const program of this.#programs.values()) program.killNow();
      rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
    });
  }

  async start(signal?: AbortSignal): Promise<void> {
    const { privateKey, publicKey } = generateKeyPairSync("rsa", {
      modulusLength: 2048,
      publicKeyEncoding: { type: "spki", format: "pem" },
      privateKeyEncoding: { type: "pkcs8", format: "pem" },
    });
    this.#write("service-account.key", privateKey);
    this.#write("service-account.pub", publicKey);
    this.#write(
      "tokens.csv",
      `${this.adminToken},admin,admin,"system:masters"\n${this.#controllersToken},system:kube-controller-manager,controllers,""\n`,
    );
    await this.#startEtcd();
    this.#startApiServer();
    await this.#apiServerReady(signal);
    writeFileSync(this.kubeconfigPath, this.#kubeconfig(this.adminToken), { mode: 0o600 });
    this.#startControllers();
    await this.#controllersReady(signal);
  }

  async kubectl(args: readonly string[], options: KubectlOptions = {}): Promise<{ stdout: string; stderr: string }> {
    const child = spawn(join(controlPlaneAssets, "kubectl"), args, {
      // A HOME of its own keeps kubectl's discovery cache apart from that of others on the same port.
      env: { ...process.env, HOME: this.folder, KUBECONFIG: options.kubeconfig ?? this.kubeconfigPath, ...options.env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    const output = { stdout: "", stderr: "" };
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      output.stdout += text;
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      output.stderr += text;
    });
    // kubectl may end without having read its input; its exit status says what was wrong.
    child.stdin.on("error", () => undefined).end(options.input ?? "");
    const status = await new Promise<number | NodeJS.Signals | null>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code, killedBy) => resolve(code ?? killedBy));
    });
    if (status === 0) return output;
    throw new Error(`kubectl ${args.join(" ")} on ${this.name} ended with ${status}: ${output.stderr}${output.stdout}`);
  }

  kubeconfigFor(token: string): string {
    const path = join(this.folder, `user-${randomBytes(4).toString("hex")}.kubeconfig`);
    writeFileSync(path, this.#kubeconfig(token), { mode: 0o600 });
    return path;
  }

  async serviceAccountKubeconfig(namespace: string, name: string): Promise<string> {
    const { stdout } = await this.kubectl(["create", "token", name, "--namespace", namespace, "--duration", "24h"]);
    return this.kubeconfigFor(stdout.trim());
  }

  async restartApiServer(whileDown: () => Promise<void> = async () => undefined): Promise<void> {
    await this.#programs.get("kube-apiserver")?.kill();
    await whileDown();
    this.#startApiServer();
    await this.#apiServerReady();
  }

  stop(): Promise<void> {
    this.#stopped ??= this.#stopOnce();
    return this.#stopped;
  }

  async #stopOnce(): Promise<void> {
    await Promise.all([...this.#programs.values()].map((program) => program.kill()));
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 });
    this.#forget();
  }

  async #startEtcd(): Promise<void> {
    this.#etcdUrl = `http://127.0.0.1:${await freePort()}`;
    const peerUrl = `http://127.0.0.1:${await freePort()}`;
    this.#run("etcd", [
      `--data-dir=${join(this.folder, "etcd")}`,
      `--listen-client-urls=${this.#etcdUrl}`,
      `--advertise-client-urls=${this.#etcdUrl}`,
      `--listen-peer-urls=${peerUrl}`,
      `--initial-advertise-peer-urls=${peerUrl}`,
      `--initial-cluster=default=${peerUrl}`,
      "--unsafe-no-fsync",
      "--log-level=warn",
    ]);
  }

  #startApiServer(): void {
    this.#run("kube-apiserver", [
      `--etcd-servers=${this.#etcdUrl}`,
      `--cert-dir=${join(this.folder, "apiserver")}`,
      "--bind-address=127.0.0.1",
      "--advertise-address=127.0.0.1",
      "--endpoint-reconciler-type=none",
      `--secure-port=${this.#port}`,
      `--token-auth-file=${join(this.folder, "tokens.csv")}`,
      "--authorization-mode=RBAC",
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${join(this.folder, "service-account.pub")}`,
      `--service-account-signing-key-file=${join(this.folder, "service-account.key")}`,
      "--service-cluster-ip-range=10.0.0.0/24",
      "--allow-privileged=true",
      "--profiling=false",
    ]);
  }

  #startControllers(): void {
    const kubeconfig = join(this.folder, "controllers.kubeconfig");
    writeFileSync(kubeconfig, this.#kubeconfig(this.#controllersToken), { mode: 0o600 });
    this.#run("kube-controller-manager", [
      `--kubeconfig=${kubeconfig}`,
      `--controllers=${controllers.join(",")}`,
      "--use-service-account-credentials=true",
      `--service-account-private-key-file=${join(this.folder, "service-account.key")}`,
      `--root-ca-file=${this.caFile}`,
      "--leader-elect=false",
      "--secure-port=0",
      // A claim that is seen before its volume waits for the next round.
      "--pvclaimbinder-sync-period=1s",
      "--profiling=false",
    ]);
  }

  #run(name: string, options: readonly string[]): void {
    this.#programs.set(name, startProgram(name, options, this.folder));
  }

  async #apiServerReady(signal?: AbortSignal): Promise<void> {
    await this.#until("the API server is ready", signal, async () => {
      if (!existsSync(this.caFile)) return false;
      return (await this.#get("/readyz")) === 200;
    });
  }

  // The default ServiceAccount is the controllers' work, and the first thing that anybody waits for.
  async #controllersReady(signal?: AbortSignal): Promise<void> {
    const account = "/api/v1/namespaces/default/serviceaccounts/default";
    await this.#until("the controllers act", signal, async () => (await this.#get(account)) === 200);
  }

  async #until(what: string, signal: AbortSignal | undefined, holds: () => Promise<boolean>): Promise<void> {
    const deadline = AbortSignal.timeout(startTimeoutMs);
    const died = Promise.race([...this.#programs.values()].map((program) => program.died));
    while (!(await Promise.race([holds(), died]))) {
      signal?.throwIfAborted();
      if (deadline.aborted) {
        const log = tail(join(this.folder, "kube-apiserver.log"));
        throw new Error(
          `${this.name}: ${startTimeoutMs} ms went by before ${what}; the API server's log ends:\n${log}`,
        );
      }
      await sleep(50);
    }
  }

  #get(path: string): Promise<number | undefined> {
    return new Promise((resolve) => {
      const headers = { authorization: `Bearer ${this.adminToken}` };
      const asked = request(
        `${this.server}${path}`,
        { ca: readFileSync(this.caFile), headers, agent: false },
        (response) => {
          response.resume();
          resolve(response.statusCode);
        },
      );
      // Not listening yet: ask again.
      asked.once("error", () => resolve(undefined));
      asked.end();
    });
  }

  #kubeconfig(token: string): string {
    // JSON is YAML.
    return JSON.stringify({
      apiVersion: "v1",
      kind: "Config",
      "current-context": this.name,
      contexts: [{ name: this.name, context: { cluster: this.name, user: this.name } }],
      clusters: [{ name: this.name, cluster: { server: this.server, "certificate-authority": this.caFile } }],
      users: [{ name: this.name, user: { token } }],
    });
  }

  #write(file: string, text: string): void {
    writeFileSync(join(this.folder, file), text, { mode: 0o600 });
  }
}

// A process killed by SIGKILL takes its control planes with it, but not their folders.
function removeStaleFolders(): void {
  for (const folder of readdirSync(tmpdir())) {
    if (!folder.startsWith(folderPrefix)) continue;
    const pid = Number(folder.slice(folderPrefix.length).split("-")[0]);
    if (!existsSync(`/proc/${pid}`)) rmSync(join(tmpdir(), folder), { recursive: true, force: true });
  }
}
