// What scenarios do with a cluster, by kubectl: apply, read, remove, and run things in pods.
import type { Manifest, Seen, Told } from "../kube-client.ts";
import { eventually } from "../process.ts";
import type { TestCluster } from "./test-cluster.ts";
import { until } from "./watching.ts";

const inNamespace = (namespace: string | undefined) => (namespace === undefined ? [] : ["--namespace", namespace]);

/** All at once, as a GitOps tool does: by server-side apply. */
export async function apply(cluster: TestCluster, ...objects: readonly Manifest[]): Promise<void> {
  const list = JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
  const options = ["--server-side", "--force-conflicts", "--field-manager=scenario"];
  await cluster.kubectl(["apply", ...options, "-f", "-"], { input: list });
}

/** A JSON merge patch. */
export async function patch(cluster: TestCluster, what: Where, body: object): Promise<void> {
  const { kind, name, namespace } = what;
  const options = ["--type=merge", "--patch", JSON.stringify(body)];
  await cluster.kubectl(["patch", kind, name, ...inNamespace(namespace), ...options]);
}

export interface Where {
  /** As kubectl knows it: `pvc`, `migratedvolume`. */
  readonly kind: string;
  readonly name: string;
  readonly namespace?: string;
}

export async function get(cluster: TestCluster, { kind, name, namespace }: Where): Promise<Seen> {
  const { stdout } = await cluster.kubectl(["get", kind, name, ...inNamespace(namespace), "-o", "json"]);
  return JSON.parse(stdout) as Seen;
}

export async function list(cluster: TestCluster, kind: string, namespace?: string): Promise<readonly Seen[]> {
  const { stdout } = await cluster.kubectl(["get", kind, ...inNamespace(namespace), "-o", "json"]);
  return (JSON.parse(stdout) as { items: Seen[] }).items;
}

/** Waits until they are gone. What is not there is. */
export async function remove(cluster: TestCluster, kind: string, namespace: string, names: readonly string[]) {
  const options = ["--ignore-not-found", "--wait=true", "--timeout=150s"];
  await cluster.kubectl(["delete", kind, ...names, "--namespace", namespace, ...options]);
}

/** The events of a namespace about one object; `kind` as in objects. */
export async function eventsAbout(
  cluster: TestCluster,
  { kind, name, namespace }: Where,
): Promise<readonly (Told & { readonly count?: number })[]> {
  const about = `--field-selector=involvedObject.kind=${kind},involvedObject.name=${name}`;
  const where = namespace === undefined ? ["--namespace", "default"] : ["--namespace", namespace];
  const { stdout } = await cluster.kubectl(["get", "events", ...where, about, "-o", "json"]);
  return (JSON.parse(stdout) as { items: (Told & { count?: number })[] }).items;
}

/** Waits for an event of which this holds, and gives it; the messages so far if it never comes. */
export async function told(cluster: TestCluster, about: Where, holds: (event: Told) => boolean): Promise<Told> {
  let last: readonly Told[] = [];
  const look = async () => {
    last = await eventsAbout(cluster, about);
    return last.find(holds);
  };
  try {
    return await eventually(`an event on ${about.kind} ${about.name}`, look, { timeoutMs: 120_000, intervalMs: 500 });
  } catch (cause) {
    throw new Error(`${String(cause)}; told so far: ${JSON.stringify(last.map(({ message }) => message))}`, { cause });
  }
}

/** Runs a shell script in a container of a pod, and gives what it wrote. */
export async function inPod(cluster: TestCluster, pod: Where, script: string, container?: string): Promise<string> {
  const options = container === undefined ? [] : ["--container", container];
  const command = ["exec", pod.name, ...inNamespace(pod.namespace), ...options, "--", "sh", "-c", script];
  return (await cluster.kubectl(command)).stdout;
}

/** Waits until a pod is Ready; tells of its events and its log if it does not become so. */
export async function podIsReady(cluster: TestCluster, namespace: string, name: string): Promise<void> {
  const where = ["--namespace", namespace];
  try {
    await until(cluster, { kind: "pods", namespace, name }, "being Ready", ({ status }) => isTrue(status, "Ready"));
  } catch (cause) {
    const { stdout: described } = await cluster.kubectl(["describe", "pod", name, ...where]);
    const logs = await cluster.kubectl(["logs", name, "--all-containers", "--tail=30", ...where]).then(
      ({ stdout }) => stdout,
      (error: Error) => error.message,
    );
    throw new Error(`${String(cause)}\n${described}\n${logs}`, { cause });
  }
}

function isTrue(status: Seen["status"], type: string): boolean {
  const conditions: { type: string; status: string }[] = status?.conditions ?? [];
  return conditions.some((condition) => condition.type === type && condition.status === "True");
}

/** What an agent's program says of the cluster's volumes, clones and so on: `volume list`, for example. */
export async function longshore<T>(cluster: TestCluster, ...words: readonly string[]): Promise<T> {
  // The node plugin's certificate may read them, and its container has the files.
  const program = ["longshore", ...words, "--pki", "/etc/longshore/pki", "--role", "tls", "--output", "json"];
  const pod = ["--namespace", "longshore-node", "daemonset/longshore-node", "--container", "csi-node"];
  const { stdout } = await cluster.kubectl(["exec", ...pod, "--", ...program]);
  return JSON.parse(stdout) as T;
}
