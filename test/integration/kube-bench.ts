// What tests of src/kube/ against a real API server share: clients of their own, waiting for what holds, and a look at etcd.
import { readdirSync, readFileSync } from "node:fs";
import { request } from "node:http";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { systemClock } from "../../src/base/clock.ts";
import { silentLog } from "../../src/base/log.ts";
import { type Metrics, openMetrics } from "../../src/base/metrics.ts";
import { type Api, openApi } from "../../src/kube/api.ts";
import {
  apiVersionOf,
  type Cluster,
  type Draft,
  type Key,
  type KindRef,
  type KubeObject,
  keyOf,
} from "../../src/kube/cluster.ts";
import { loadKubeconfig, openConnection } from "../../src/kube/connection.ts";
import { type OperatorOptions, type OperatorPhase, runOperator } from "../../src/kube/operator.ts";
import { objectPath } from "../../src/kube/resource-path.ts";
import { gadgetDefinition } from "../contract/cluster.ts";
import type { ControlPlane } from "../e2e/control-plane.ts";
import { areEstablished } from "../e2e/kubectl.ts";

/** Of a test or a hook with a control plane; only ends what would never end by itself, as do the limits of waits. */
export const startMsMax = 300_000;

/** Waits until `holds`; fails after `limitMs` with what was waited for. */
export async function until(what: string, holds: () => boolean | Promise<boolean>, limitMs = 90_000): Promise<void> {
  const deadline = AbortSignal.timeout(limitMs);
  while (!(await holds())) {
    if (deadline.aborted) throw new Error(`${limitMs} ms went by, and not: ${what}`);
    await sleep(20);
  }
}

/** A client as admin, apart from the one under test. */
export function adminApi(plane: ControlPlane): Api {
  const config = loadKubeconfig({ kind: "file", path: plane.kubeconfigPath });
  return openApi(openConnection(config, systemClock), openMetrics());
}

/** The admin's kubeconfig, by way of another port on loopback. */
export function kubeconfigThrough(plane: ControlPlane, port: number): string {
  return readFileSync(plane.kubeconfigPath, "utf8").replace(plane.server, `https://127.0.0.1:${port}`);
}

export interface RunningOperator {
  /** To be used once it leads. */
  readonly cluster: Cluster;
  readonly metrics: Metrics;
  readonly phases: readonly OperatorPhase[];
  /** What runOperator ended with. */
  readonly ended: Promise<"stopped" | "deposed">;
  /** Resolves when it leads; rejects when it has ended before. */
  readonly leading: Promise<void>;
  /** Stops it, and returns when it has ended. */
  stop(): Promise<"stopped" | "deposed">;
}

/** Runs an operator in this process; as admin unless its options say otherwise. */
export function startOperator(
  plane: ControlPlane,
  options: Partial<OperatorOptions> & Pick<OperatorOptions, "controllers">,
): RunningOperator {
  const stop = new AbortController();
  const leads = Promise.withResolvers<void>();
  const phases: OperatorPhase[] = [];
  const metrics = openMetrics();
  let given: Cluster | undefined;
  const ended = runOperator({
    kubeconfig: { kind: "file", path: plane.kubeconfigPath },
    metrics,
    log: silentLog,
    signal: stop.signal,
    ...options,
    onPhase: (phase) => {
      phases.push(phase);
      if (phase === "leading") leads.resolve();
      if (phase === "ended") leads.reject(new Error("the operator has ended"));
    },
    controllers: (cluster) => {
      given = cluster;
      return options.controllers(cluster);
    },
  });
  // Whoever waits for one of them sees what it rejects with; nobody has to.
  ended.catch(() => undefined);
  leads.promise.catch(() => undefined);
  if (given === undefined) throw new Error("the operator has not asked for its controllers");
  const end = () => {
    stop.abort(new Error("the test stops it"));
    return ended;
  };
  return { cluster: given, metrics, phases, ended, leading: leads.promise, stop: end };
}

/** The sum of a metric's samples whose labels contain `labels`. */
export async function metricOf(metrics: Metrics, name: string, labels = ""): Promise<number> {
  const lines = (await metrics.render()).split("\n");
  const samples = lines.filter(
    (line) => (line.startsWith(`${name}{`) || line.startsWith(`${name} `)) && line.includes(labels),
  );
  return samples.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(" ") + 1)), 0);
}

/** What somebody else does, under a field manager of their own. */
export function othersOf(api: Api) {
  const query = { fieldManager: "somebody" };
  return {
    apply: async <T extends KubeObject>(kind: KindRef<T>, draft: Draft<T>): Promise<void> => {
      const body = { ...draft, apiVersion: apiVersionOf(kind), kind: kind.kind };
      const contentType = "application/apply-patch+yaml";
      await api.request({ method: "PATCH", path: objectPath(kind, keyOf(draft)), query, contentType, body });
    },
    edit: async (kind: KindRef, key: Key, body: unknown): Promise<void> => {
      const contentType = "application/merge-patch+json";
      await api.request({ method: "PATCH", path: objectPath(kind, key), query, contentType, body });
    },
    delete: async (kind: KindRef, key: Key): Promise<void> => {
      await api.request({ method: "DELETE", path: objectPath(kind, key) });
    },
    get: async <T extends KubeObject>(kind: KindRef<T>, key: Key): Promise<T & WithManagers> =>
      (await api.request({ method: "GET", path: objectPath(kind, key) })) as T & WithManagers,
  };
}

interface WithManagers {
  readonly metadata: {
    readonly managedFields: readonly {
      readonly manager: string;
      readonly operation: string;
      readonly subresource?: string;
      readonly time: string;
      readonly fieldsV1: Readonly<Record<string, unknown>>;
    }[];
  };
}

/** Defines the Gadget kind, and returns once it is served. */
export async function defineGadgets(plane: ControlPlane): Promise<void> {
  await plane.kubectl(["apply", "-f", "-"], { input: JSON.stringify(gadgetDefinition) });
  await areEstablished(plane, "crd/gadgets.contract.longshore.dev");
  // It is told of a moment later.
  const get = () => plane.kubectl(["get", "gadgets.contract.longshore.dev"]);
  await until("Gadgets being served", () =>
    get().then(
      () => true,
      () => false,
    ),
  );
}

/** Throws away all of etcd's history, so that every older resourceVersion has expired. */
export async function compactEtcd(plane: ControlPlane): Promise<void> {
  const url = etcdUrlOf(plane);
  const { header } = (await post(`${url}/v3/kv/range`, { key: Buffer.from("/").toString("base64") })) as {
    header: { revision: string };
  };
  await post(`${url}/v3/kv/compaction`, { revision: header.revision, physical: true });
}

function etcdUrlOf({ folder }: ControlPlane): string {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    const command = commandOf(pid);
    if (!command.includes(`--data-dir=${join(folder, "etcd")}`)) continue;
    const url = command.find((option) => option.startsWith("--listen-client-urls="));
    if (url !== undefined) return url.slice("--listen-client-urls=".length);
  }
  throw new Error(`no etcd of ${folder} is running`);
}

function commandOf(pid: string): readonly string[] {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, "utf8").split("\0");
  } catch {
    return []; // It ended while we looked.
  }
}

function post(url: string, body: unknown): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const asked = request(url, { method: "POST" }, (response) => {
      let text = "";
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk;
      });
      response.on("end", () => (response.statusCode === 200 ? resolve(JSON.parse(text)) : reject(new Error(text))));
    });
    asked.once("error", reject);
    asked.end(JSON.stringify(body));
  });
}
