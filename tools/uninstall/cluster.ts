// The cluster that is uninstalled from, through kubectl, for that knows how to reach it. In a dry run nothing is changed, and what
// would be is told.
import { setTimeout as sleep } from "node:timers/promises";
import { runCommand } from "../run-command.ts";
import { type KubeObject, nameOf, without } from "./decisions.ts";

export interface ClusterOptions {
  readonly isDryRun: boolean;
  /** How long anything is waited for. */
  readonly waitMs: number;
  tell(text: string): void;
}

/** What a person has to do something about before it can go on. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  readonly next: string;
  constructor(message: string, next: string) {
    super(message);
    this.next = next;
  }
}

const roundsMax = 5;
/** In one command line. */
const namesMax = 100;
const pollMs = 500;

export class Cluster {
  readonly options: ClusterOptions;

  constructor(options: ClusterOptions) {
    this.options = options;
  }

  /** All objects of a kind (its plural, with its group), in all namespaces or one; none where there is no such kind. */
  async list<T extends KubeObject>(kind: string, ...more: string[]): Promise<T[]> {
    if (!(await this.#hasKind(kind))) return [];
    const scope = more.length === 0 ? ["--all-namespaces"] : more;
    const text = await this.#kubectl(["get", kind, ...scope, "--output=json"]);
    return (JSON.parse(text) as { items: T[] }).items;
  }

  async get<T extends KubeObject>(kind: string, namespace: string, name: string): Promise<T | undefined> {
    const args = ["get", kind, name, `--namespace=${namespace}`, "--ignore-not-found", "--output=json"];
    const text = await this.#kubectl(args);
    return text === "" ? undefined : (JSON.parse(text) as T);
  }

  /** The output of a command in a pod. */
  execute(pod: { namespace: string; name: string; container: string }, command: readonly string[]): Promise<string> {
    const where = [`--namespace=${pod.namespace}`, pod.name, `--container=${pod.container}`];
    return this.#kubectl(["exec", ...where, "--", ...command]);
  }

  /** Runs a kubectl command that changes something, or tells it. What it answers is told. */
  async change(...args: string[]): Promise<void> {
    if (this.options.isDryRun) {
      this.options.tell(`  would run: kubectl ${args.join(" ")}`);
      return;
    }
    const said = await this.#kubectl(args);
    for (const line of said.split("\n").filter((each) => each !== "")) this.options.tell(`  ${line}`);
  }

  /** Deletes objects of a kind, but for those that are being deleted already, without waiting for them to go. */
  async removeAll(kind: string, objects: readonly KubeObject[]): Promise<void> {
    const staying = objects.filter(({ metadata }) => metadata.deletionTimestamp === undefined);
    for (const [namespace, group] of Map.groupBy(staying, ({ metadata }) => metadata.namespace)) {
      const where = namespace === undefined ? [] : [`--namespace=${namespace}`];
      const names = group.map(({ metadata }) => metadata.name);
      for (let at = 0; at < names.length; at += namesMax) {
        const some = names.slice(at, at + namesMax);
        await this.change("delete", kind, ...some, ...where, "--ignore-not-found", "--wait=false");
      }
    }
  }

  /**
   * Takes finalizers off the objects of a kind that `concerns` is about, on each as it was read: one that changes meanwhile is
   * read again.
   */
  async release(
    kind: string,
    isOrphaned: (finalizer: string) => boolean,
    concerns: (object: KubeObject) => boolean = () => true,
  ): Promise<void> {
    for (let round = 0; round < roundsMax; round++) {
      const held = (await this.list(kind)).filter((object) => concerns(object) && without(object, isOrphaned));
      if (held.length === 0) return;
      for (const object of held) await this.#takeOff(kind, object, isOrphaned);
      if (this.options.isDryRun) return;
    }
    throw new Error(`finalizers of ${kind} come back as they are taken off; something still writes them`);
  }

  async #takeOff(kind: string, object: KubeObject, isOrphaned: (finalizer: string) => boolean): Promise<void> {
    const { name, namespace, resourceVersion } = object.metadata;
    const patch = JSON.stringify({ metadata: { resourceVersion, finalizers: without(object, isOrphaned) } });
    const where = namespace === undefined ? [] : [`--namespace=${namespace}`];
    try {
      await this.change("patch", kind, name, ...where, "--type=merge", `--patch=${patch}`);
    } catch (error) {
      // Changed or gone since it was read: the next round sees.
      if (!/Conflict|NotFound|has been modified|not found/.test(String(error))) throw error;
      this.options.tell(`  ${kind} ${nameOf(object)} changed meanwhile`);
    }
  }

  /** Asks until `left` finds nothing; returns what it found last when the time is over. A dry run does not wait. */
  async until(
    what: string,
    left: () => Promise<readonly string[]>,
    waitMs = this.options.waitMs,
  ): Promise<readonly string[]> {
    if (this.options.isDryRun) return [];
    const end = performance.now() + waitMs;
    let told = "";
    for (;;) {
      const names = await left();
      if (names.length === 0 || performance.now() > end) return names;
      const text = `  waiting for ${what}: ${names.length} left`;
      if (text !== told) this.options.tell(text);
      told = text;
      await sleep(pollMs);
    }
  }

  async #hasKind(kind: string): Promise<boolean> {
    // Kinds of groups with a dot are defined by a CustomResourceDefinition, but for those of Kubernetes itself.
    if (!/\.(?:longshore\.dev|(?:(?:group)?snapshot|cbt)\.storage\.k8s\.io)$/.test(kind)) return true;
    const found = await this.#kubectl(["get", "customresourcedefinition", kind, "--ignore-not-found", "--output=name"]);
    return found !== "";
  }

  #kubectl(args: readonly string[]): Promise<string> {
    return runCommand("kubectl", args);
  }
}
