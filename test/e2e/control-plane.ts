// Real Kubernetes control planes for tests and the demo: etcd, kube-apiserver and kube-controller-manager on loopback,
// any number side by side, each with ports and a folder of its own, RBAC, and the controllers that bind volumes; for a
// cluster with nodes (kubelets/) all controllers and the scheduler, at an address that the nodes reach.
// `make setup` provides the programs. Nothing outlives the process that started them.

import { generateKeyPairSync, randomBytes } from "node:crypto";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { request } from "node:https";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { onInterrupt } from "../interrupt.ts";
import { type Program, startProgram, tail } from "./control-plane-program.ts";
import { freePort } from "./free-port.ts";
import { type KubectlOptions, type Output, runKubectl } from "./kubectl.ts";

/** The addresses of Services; nothing routes them by itself. `dns` is below those that are given out. */
export const serviceAddresses = { range: "10.0.0.0/24", api: "10.0.0.1", dns: "10.0.0.10" } as const;

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
  /** One JSON object a line; there when the options have an audit policy. */
  readonly auditLog: string;
  /** Runs kubectl as admin; throws an error with its standard error output when it fails. */
  kubectl(args: readonly string[], options?: KubectlOptions): Promise<Output>;
  /** Writes a kubeconfig for a bearer token and returns its path. */
  kubeconfigFor(token: string): string;
  /** The kubeconfig of a node of the options, in itself: it names no other file. */
  nodeKubeconfig(node: string): string;
  /** A kubeconfig for a service account that exists, with a token of its own that is good for a day. */
  serviceAccountKubeconfig(namespace: string, name: string): Promise<string>;
  /** Kills the API server, runs `whileDown`, starts it again on the same port, and resolves when it is ready. */
  restartApiServer(whileDown?: () => Promise<void>): Promise<void>;
  /** Ends all processes and removes the folder. A repeat changes nothing. */
  stop(): Promise<void>;
}

/** What a cluster needs besides for nodes to join it, and for pods to be made and scheduled. */
export interface Hosting {
  /** The address of this machine at which nodes and pods reach the API server. */
  readonly address: string;
  /** The names of the nodes that may join; each gets a token of its own. */
  readonly nodes: readonly string[];
  /** An audit.k8s.io Policy, without kind and version. Nothing is audited unless given. */
  readonly auditPolicy?: object;
}

export interface ControlPlaneOptions {
  /** For people: log folders and kubeconfig contexts. */
  readonly name: string;
  /** Without it there are no nodes, no scheduler, and only the controllers that Longshore's objects need. */
  readonly hosting?: Hosting;
  /** Aborting gives up a start that is under way; a control plane that runs is ended by `stop`. */
  readonly signal?: AbortSignal;
}

const startTimeoutMs = 240_000;
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

// On by default where Kubernetes is OpenShift; who keeps to it does not see it anywhere.
const admissionPlugins = ["OwnerReferencesPermissionEnforcement"];

/** Starts a control plane and resolves once the API server is ready and the controllers act. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  removeStaleFolders();
  for (let attempt = 1; ; attempt++) {
    const plane = new OwnControlPlane(options, await freePort());
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

const newToken = () => randomBytes(16).toString("hex");

class OwnControlPlane implements ControlPlane {
  readonly name: string;
  readonly server: string;
  readonly adminToken = newToken();
  readonly folder: string;
  readonly caFile: string;
  readonly kubeconfigPath: string;
  readonly auditLog: string;
  readonly #controllersToken = newToken();
  readonly #schedulerToken = newToken();
  readonly #nodeTokens: ReadonlyMap<string, string>;
  readonly #hosting: Hosting | undefined;
  readonly #address: string;
  readonly #port: number;
  readonly #programs = new Map<string, Program>();
  readonly #forget: () => void;
  #etcdUrl = "";
  #stopped: Promise<void> | undefined;

  constructor({ name, hosting }: ControlPlaneOptions, port: number) {
    this.name = name;
    this.#hosting = hosting;
    this.#nodeTokens = new Map((hosting?.nodes ?? []).map((node) => [node, newToken()]));
    this.#address = hosting?.address ?? "127.0.0.1";
    this.#port = port;
    this.server = `https://${this.#address}:${port}`;
    this.folder = mkdtempSync(join(tmpdir(), `${folderPrefix}${process.pid}-${name}-`));
    this.caFile = join(this.folder, "apiserver/apiserver.crt");
    this.kubeconfigPath = join(this.folder, "admin.kubeconfig");
    this.auditLog = join(this.folder, "audit.log");
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
    this.#write("tokens.csv", this.#users().join("\n"));
    const policy = this.#hosting?.auditPolicy;
    if (policy !== undefined) this.#write("audit-policy.json", auditPolicy(policy));
    await this.#startEtcd();
    this.#startApiServer();
    await this.#apiServerReady(signal);
    this.#write("admin.kubeconfig", this.#kubeconfig(this.adminToken));
    this.#startControllers();
    if (this.#hosting !== undefined) this.#startScheduler();
    await this.#controllersReady(signal);
  }

  kubectl(args: readonly string[], options?: KubectlOptions): Promise<Output> {
    return runKubectl({ name: this.name, kubeconfig: this.kubeconfigPath, home: this.folder }, args, options);
  }

  kubeconfigFor(token: string): string {
    const path = join(this.folder, `user-${randomBytes(4).toString("hex")}.kubeconfig`);
    writeFileSync(path, this.#kubeconfig(token), { mode: 0o600 });
    return path;
  }

  nodeKubeconfig(node: string): string {
    const token = this.#nodeTokens.get(node);
    if (token === undefined) throw new Error(`${node} is not a node of ${this.name}`);
    const authority = { "certificate-authority-data": readFileSync(this.caFile).toString("base64") };
    return kubeconfig({ name: this.name, server: this.server, authority, token });
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

  /** Token, name, UID and groups of each. */
  #users(): string[] {
    const nodes = [...this.#nodeTokens].map(([node, token]) => `${token},system:node:${node},${node},"system:nodes"`);
    return [
      `${this.adminToken},admin,admin,"system:masters"`,
      `${this.#controllersToken},system:kube-controller-manager,controllers,""`,
      `${this.#schedulerToken},system:kube-scheduler,scheduler,""`,
      ...nodes,
    ];
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
    const isHost = this.#hosting !== undefined;
    this.#run("kube-apiserver", [
      `--etcd-servers=${this.#etcdUrl}`,
      `--cert-dir=${join(this.folder, "apiserver")}`,
      `--bind-address=${this.#address}`,
      `--advertise-address=${this.#address}`,
      "--endpoint-reconciler-type=none",
      `--secure-port=${this.#port}`,
      `--token-auth-file=${join(this.folder, "tokens.csv")}`,
      `--authorization-mode=${isHost ? "Node,RBAC" : "RBAC"}`,
      "--service-account-issuer=https://kubernetes.default.svc",
      `--service-account-key-file=${join(this.folder, "service-account.pub")}`,
      `--service-account-signing-key-file=${join(this.folder, "service-account.key")}`,
      `--service-cluster-ip-range=${serviceAddresses.range}`,
      "--allow-privileged=true",
      "--profiling=false",
      `--enable-admission-plugins=${[...admissionPlugins, ...(isHost ? ["NodeRestriction"] : [])].join(",")}`,
      ...(isHost ? ["--kubelet-preferred-address-types=InternalIP"] : []),
      ...this.#auditOptions(),
    ]);
  }

  #auditOptions(): string[] {
    if (this.#hosting?.auditPolicy === undefined) return [];
    return [
      `--audit-policy-file=${join(this.folder, "audit-policy.json")}`,
      `--audit-log-path=${this.auditLog}`,
      // In megabytes; a log of several files would be one that nobody reads whole.
      "--audit-log-maxsize=1000",
    ];
  }

  #startControllers(): void {
    this.#write("controllers.kubeconfig", this.#kubeconfig(this.#controllersToken));
    this.#run("kube-controller-manager", [
      `--kubeconfig=${join(this.folder, "controllers.kubeconfig")}`,
      `--controllers=${this.#hosting === undefined ? controllers.join(",") : "*"}`,
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

  #startScheduler(): void {
    this.#write("scheduler.kubeconfig", this.#kubeconfig(this.#schedulerToken));
    this.#run("kube-scheduler", [
      `--kubeconfig=${join(this.folder, "scheduler.kubeconfig")}`,
      "--leader-elect=false",
      "--secure-port=0",
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
    const authority = { "certificate-authority": this.caFile };
    return kubeconfig({ name: this.name, server: this.server, authority, token });
  }

  #write(file: string, text: string): void {
    writeFileSync(join(this.folder, file), text, { mode: 0o600 });
  }
}

interface KubeconfigFacts {
  readonly name: string;
  readonly server: string;
  readonly authority: object;
  readonly token: string;
}

function kubeconfig({ name, server, authority, token }: KubeconfigFacts): string {
  // JSON is YAML.
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Config",
    "current-context": name,
    contexts: [{ name, context: { cluster: name, user: name } }],
    clusters: [{ name, cluster: { server, ...authority } }],
    users: [{ name, user: { token } }],
  });
}

function auditPolicy(policy: object): string {
  return JSON.stringify({ apiVersion: "audit.k8s.io/v1", kind: "Policy", ...policy });
}

// A process killed by SIGKILL takes its control planes with it, but not their folders.
function removeStaleFolders(): void {
  for (const folder of readdirSync(tmpdir())) {
    if (!folder.startsWith(folderPrefix)) continue;
    const pid = Number(folder.slice(folderPrefix.length).split("-")[0]);
    if (!existsSync(`/proc/${pid}`)) rmSync(join(tmpdir(), folder), { recursive: true, force: true });
  }
}
