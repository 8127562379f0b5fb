import { afterAll, afterEach, beforeAll, describe, expect } from "@jest/globals";
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { silentLog } from "../../src/base/log.ts";
import { type Metrics, openMetrics } from "../../src/base/metrics.ts";
import { type Api, openApi } from "../../src/kube/api.ts";
import { type Draft, type KindRef, settled } from "../../src/kube/cluster.ts";
import { loadKubeconfig, openConnection } from "../../src/kube/connection.ts";
import { type Informer, openInformer } from "../../src/kube/informer.ts";
import { type Gadget, Gadgets } from "../contract/cluster.ts";
import { type ControlPlane, startControlPlane } from "../e2e/control-plane.ts";
import { areEstablished } from "../e2e/kubectl.ts";
import { missing, needs } from "../needs.ts";
import {
  adminApi,
  compactEtcd,
  defineGadgets,
  kubeconfigThrough,
  metricOf,
  othersOf,
  startMsMax,
  startOperator,
  until,
} from "./kube-bench.ts";
import { openTcpProxy, type TcpProxy } from "./tcp-proxy.ts";

const test = needs("controlplane");

let plane: ControlPlane;
let proxy: TcpProxy;
let admin: Api;
let others: ReturnType<typeof othersOf>;

beforeAll(async () => {
  if (missing("controlplane") !== undefined) return;
  plane = await startControlPlane({ name: "watch" });
  await defineGadgets(plane);
  proxy = await openTcpProxy(Number(new URL(plane.server).port));
  admin = adminApi(plane);
  others = othersOf(admin);
}, startMsMax);

afterAll(async () => {
  admin?.close();
  await proxy?.close();
  await plane?.stop();
}, startMsMax);

interface Watcher {
  readonly informer: Informer;
  readonly metrics: Metrics;
  /** `+name`, `~name`, `-name`, in order. */
  readonly changes: string[];
}

let watchers: (() => Promise<void>)[] = [];

/** Watches Gadgets through the proxy, with retries quick enough for a test. */
async function watch(kind: KindRef = Gadgets as KindRef): Promise<Watcher> {
  const metrics = openMetrics();
  const connection = openConnection(
    loadKubeconfig({ kind: "text", yaml: kubeconfigThrough(plane, proxy.port) }),
    systemClock,
  );
  const api = openApi(connection, metrics, { watchSilenceMsMax: 2_000, requestTimeoutMs: 5_000 });
  const limits = { retryBaseMs: 100, retryMaxMs: 1_000, healthyAfterMs: 1_000 };
  const informer = openInformer(kind, { api, clock: systemClock, dice: systemDice, log: silentLog, metrics, limits });
  const changes: string[] = [];
  informer.store.onChange(({ before, after }) => {
    const sign = before === undefined ? "+" : after === undefined ? "-" : "~";
    changes.push(`${sign}${(after ?? before)?.metadata.name}`);
  });
  const stop = new AbortController();
  const running = informer.run(stop.signal);
  watchers.push(async () => {
    stop.abort(new Error("the test is over"));
    await running;
    api.close();
  });
  return { informer, metrics, changes };
}

afterEach(async () => {
  proxy?.open();
  for (const end of watchers) await end();
  watchers = [];
});

const gadget = (name: string, color = "red"): Draft<Gadget> => ({ metadata: { name }, spec: { color } });
const never = new AbortController().signal;
const listsOf = ({ metrics }: Watcher) => metricOf(metrics, "longshore_kube_lists_total");
const failuresOf = ({ metrics }: Watcher, code: string) =>
  metricOf(metrics, "longshore_kube_informer_failures_total", `code="${code}"`);

test("changes and deletions are followed as they happen", async () => {
  const watcher = await watch();
  await watcher.informer.synced(never);
  await others.apply(Gadgets, gadget("follow"));
  await others.apply(Gadgets, gadget("follow", "blue"));
  await others.delete(Gadgets as KindRef, { name: "follow" });
  await until("all three are seen", () => watcher.changes.length === 3);
  expect(watcher.changes).toEqual(["+follow", "~follow", "-follow"]);
});

test("after a broken connection the watch goes on where it was, without a new list", async () => {
  await others.apply(Gadgets, gadget("cut-1"));
  const watcher = await watch();
  await watcher.informer.synced(never);
  proxy.shut();
  await others.delete(Gadgets as KindRef, { name: "cut-1" });
  await others.apply(Gadgets, gadget("cut-2"));
  await until("the loss is noticed", async () => (await failuresOf(watcher, "Unreachable")) > 1);
  proxy.open();
  await until("the gap is closed", () => watcher.changes.includes("+cut-2"));
  expect(watcher.changes).toContain("-cut-1");
  expect(await listsOf(watcher)).toBe(1);
});

test("a connection that has gone silent is given up, and what was missed is seen", async () => {
  const watcher = await watch();
  await watcher.informer.synced(never);
  proxy.silence();
  await others.apply(Gadgets, gadget("silent"));
  await until("the silence is noticed", async () => (await failuresOf(watcher, "Unreachable")) > 0);
  expect(watcher.changes).not.toContain("+silent");
  proxy.open();
  await until("the change is seen", () => watcher.changes.includes("+silent"));
});

test(
  "across a restart of the API server nothing is missed",
  async () => {
    await others.apply(Gadgets, gadget("restart-1"));
    const watcher = await watch();
    await watcher.informer.synced(never);
    await plane.restartApiServer();
    await others.delete(Gadgets as KindRef, { name: "restart-1" });
    await others.apply(Gadgets, gadget("restart-2"));
    await until("the changes after it are seen", () => watcher.changes.includes("+restart-2"));
    await until("the deletion is seen", () => watcher.changes.includes("-restart-1"));
  },
  startMsMax,
);

test(
  "when the history of the gap is gone, lists are compared: a deletion, a change and a successor are all seen",
  async () => {
    for (const name of ["gap-deleted", "gap-changed", "gap-again", "gap-kept"])
      await others.apply(Gadgets, gadget(name));
    const watcher = await watch();
    await watcher.informer.synced(never);
    const uid = watcher.informer.store.get({ name: "gap-again" })?.metadata.uid;
    watcher.changes.length = 0;
    proxy.shut();
    await others.delete(Gadgets as KindRef, { name: "gap-deleted" });
    await others.apply(Gadgets, gadget("gap-changed", "blue"));
    await others.delete(Gadgets as KindRef, { name: "gap-again" });
    await others.apply(Gadgets, gadget("gap-again"));
    await others.apply(Gadgets, gadget("gap-new"));
    await plane.restartApiServer(() => compactEtcd(plane));
    proxy.open();
    await until("it lists again", async () => (await listsOf(watcher)) > 1);
    expect(await failuresOf(watcher, "Expired")).toBeGreaterThan(0);
    expect([...watcher.changes].sort()).toEqual(["+gap-new", "-gap-deleted", "~gap-again", "~gap-changed"]);
    expect(watcher.informer.store.get({ name: "gap-again" })?.metadata.uid).not.toBe(uid);
    // The new watch works.
    await others.apply(Gadgets, gadget("gap-after"));
    await until("a later change is seen", () => watcher.changes.includes("+gap-after"));
  },
  startMsMax,
);

test(
  "while the API server is away it is asked now and then, never stormed, by many watches together",
  async () => {
    const all = await Promise.all(Array.from({ length: 8 }, () => watch()));
    await Promise.all(all.map(({ informer }) => informer.synced(never)));
    const before = proxy.connections;
    const startedMs = systemClock.monotonicMs();
    await plane.restartApiServer();
    await others.apply(Gadgets, gadget("calm"));
    await until("everyone is back", () => all.every(({ changes }) => changes.includes("+calm")));
    const seconds = (systemClock.monotonicMs() - startedMs) / 1000;
    const tries = proxy.connections - before;
    // Quick ones at first, then with waits of up to a second: two a second and watch at the very most, on top of ten.
    expect(tries).toBeLessThan(all.length * (10 + 2 * seconds + 2));
    expect(tries).toBeGreaterThanOrEqual(all.length);
  },
  startMsMax,
);

describe("a kind that is not there yet", () => {
  const Widgets: KindRef = {
    group: "contract.longshore.dev",
    version: "v1",
    plural: "widgets",
    kind: "Widget",
    namespaced: false,
  };
  const definition = (): Record<string, unknown> => {
    const { kind, plural } = Widgets;
    const open = { type: "object", "x-kubernetes-preserve-unknown-fields": true };
    return {
      apiVersion: "apiextensions.k8s.io/v1",
      kind: "CustomResourceDefinition",
      metadata: { name: `${plural}.${Widgets.group}` },
      spec: {
        group: Widgets.group,
        scope: "Cluster",
        names: { kind, plural, singular: "widget", listKind: "WidgetList" },
        versions: [{ name: "v1", served: true, storage: true, schema: { openAPIV3Schema: open } }],
      },
    };
  };

  test("is waited for, or counts as empty when it is optional; both see it when it is installed", async () => {
    const waiting = await watch(Widgets);
    const optional = await watch({ ...Widgets, optional: true });
    await optional.informer.synced(never);
    await until("it is found missing", async () => (await failuresOf(waiting, "NotFound")) > 0);
    expect(await listsOf(waiting)).toBe(0);
    await plane.kubectl(["apply", "-f", "-"], { input: JSON.stringify(definition()) });
    await areEstablished(plane, "crd/widgets.contract.longshore.dev");
    await waiting.informer.synced(never);
    const widget = { apiVersion: "contract.longshore.dev/v1", kind: "Widget", metadata: { name: "first" } };
    await plane.kubectl(["apply", "-f", "-"], { input: JSON.stringify(widget) });
    await until("both see it", () => [waiting, optional].every(({ changes }) => changes.includes("+first")));
    await plane.kubectl(["delete", "crd", "widgets.contract.longshore.dev"]);
    await until("both see it go", () => [waiting, optional].every(({ changes }) => changes.includes("-first")));
  });
});

test(
  "thousands of objects are listed in pages, each once",
  async () => {
    const names = Array.from({ length: 1_203 }, (_, index) => `many-${index}`);
    const items = names.map((name) => ({ apiVersion: "v1", kind: "ConfigMap", metadata: { name } }));
    const input = JSON.stringify({ apiVersion: "v1", kind: "List", items });
    await plane.kubectl(["create", "namespace", "many"]);
    await plane.kubectl(["create", "-n", "many", "-f", "-"], { input });
    const watcher = await watch({
      group: "",
      version: "v1",
      plural: "configmaps",
      kind: "ConfigMap",
      namespaced: true,
    });
    await watcher.informer.synced(never);
    const listed = watcher.informer.store.list({ namespace: "many" }).map(({ metadata }) => metadata.name);
    expect(listed.filter((name) => name.startsWith("many-"))).toEqual(names.sort());
    expect(await metricOf(watcher.metrics, "longshore_kube_requests_total", 'method="GET"')).toBeGreaterThanOrEqual(3);
  },
  startMsMax,
);

test(
  "rights that are given later are used from then on, without a restart",
  async () => {
    await plane.kubectl(["create", "serviceaccount", "reader"]);
    await plane.kubectl([
      "create",
      "clusterrole",
      "gadget-reader",
      "--verb=list,watch",
      "--resource=gadgets.contract.longshore.dev",
    ]);
    const watcher = startOperator(plane, {
      kubeconfig: { kind: "file", path: await plane.serviceAccountKubeconfig("default", "reader") },
      controllers: () => [{ name: "idle", kind: Gadgets as KindRef, reconcile: async () => settled }],
      limits: { informer: { retryBaseMs: 100, retryMaxMs: 500 } },
    });
    await until(
      "it is refused",
      async () => (await metricOf(watcher.metrics, "longshore_kube_informer_failures_total", 'code="Forbidden"')) > 0,
    );
    expect(watcher.phases).toEqual(["syncing"]);
    await plane.kubectl([
      "create",
      "clusterrolebinding",
      "gadget-readers",
      "--clusterrole=gadget-reader",
      "--serviceaccount=default:reader",
    ]);
    await watcher.leading;
    expect(await watcher.stop()).toBe("stopped");
  },
  startMsMax,
);
