import { afterAll, afterEach, beforeAll, describe, expect } from "@jest/globals";
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { silentLog } from "../../src/base/log.ts";
import { openMetrics } from "../../src/base/metrics.ts";
import { type Api, openApi } from "../../src/kube/api.ts";
import {
  again,
  type Controller,
  controlledBy,
  type Draft,
  type Enqueue,
  type KindRef,
  ownerOf,
  renderKey,
  settled,
  watching,
} from "../../src/kube/cluster.ts";
import { loadKubeconfig, openConnection } from "../../src/kube/connection.ts";
import type { ResourceEvent } from "../../src/kube/framework.ts";
import { openInformer } from "../../src/kube/informer.ts";
import { LongshoreOperator } from "../../src/kube/longshore-operator.ts";
import { type ConfigMap, ConfigMaps, type Gadget, Gadgets } from "../contract/cluster.ts";
import { type ControlPlane, startControlPlane } from "../e2e/control-plane.ts";
import { missing, needs } from "../needs.ts";
import {
  adminApi,
  defineGadgets,
  metricOf,
  othersOf,
  type RunningOperator,
  startMsMax,
  startOperator,
  until,
} from "./kube-bench.ts";

const test = needs("controlplane");

let plane: ControlPlane;
let admin: Api;
let others: ReturnType<typeof othersOf>;
let operators: RunningOperator[] = [];

beforeAll(async () => {
  if (missing("controlplane") !== undefined) return;
  plane = await startControlPlane({ name: "operator" });
  await defineGadgets(plane);
  admin = adminApi(plane);
  others = othersOf(admin);
}, startMsMax);

afterEach(async () => {
  await Promise.all(operators.map((operator) => operator.stop()));
  operators = [];
});

afterAll(async () => {
  admin?.close();
  await plane?.stop();
}, startMsMax);

function start(controllers: Parameters<typeof startOperator>[1]["controllers"], more: object = {}): RunningOperator {
  const operator = startOperator(plane, { controllers, ...more });
  operators.push(operator);
  return operator;
}

const gadget = (name: string, color = "red"): Draft<Gadget> => ({ metadata: { name }, spec: { color } });
const map = (name: string, more: Partial<Draft<ConfigMap>["metadata"]> = {}) => ({
  metadata: { name, namespace: "default", ...more },
});

/** Notes the keys it is called with. */
function noting(seen: string[], more: Partial<Controller> = {}): Controller {
  const reconcile: Controller["reconcile"] = async (key) => {
    seen.push(renderKey(key));
    return settled;
  };
  return { name: "noting", kind: Gadgets as KindRef, reconcile, ...more };
}

const times = (seen: readonly string[], name: string) => seen.filter((key) => key === name).length;

test("an object is reconciled when it is there at the start, appears, changes and goes", async () => {
  await others.apply(Gadgets, gadget("life-1"));
  const seen: string[] = [];
  await start(() => [noting(seen)]).leading;
  await until("the one that was there is seen", () => seen.includes("life-1"));
  await others.apply(Gadgets, gadget("life-2"));
  await until("a new one is seen", () => seen.includes("life-2"));
  await others.apply(Gadgets, gadget("life-2", "blue"));
  await until("its change is seen", () => times(seen, "life-2") === 2);
  await others.delete(Gadgets as KindRef, { name: "life-2" });
  await until("its end is seen", () => times(seen, "life-2") === 3);
});

test("a change of what an object owns, or did before, brings up the owner", async () => {
  await others.apply(Gadgets, gadget("owner-1"));
  await others.apply(Gadgets, gadget("owner-2"));
  const owners = await Promise.all(["owner-1", "owner-2"].map((name) => others.get(Gadgets, { name })));
  const [first, second] = owners.map(controlledBy);
  if (first === undefined || second === undefined) throw new Error("no owners");
  await others.apply(ConfigMaps, map("owned", { ownerReferences: [first] }));
  const seen: string[] = [];
  await start(() => [noting(seen, { watches: [watching(ConfigMaps, ownerOf(Gadgets as KindRef))] })]).leading;
  await until("all are seen once", () => seen.includes("owner-1") && seen.includes("owner-2"));
  seen.length = 0;
  await others.edit(ConfigMaps as KindRef, { name: "owned", namespace: "default" }, { data: { a: "b" } });
  await until("the owner is seen", () => seen.includes("owner-1"));
  expect(seen).toEqual(["owner-1"]);
  const metadata = { ownerReferences: [second] };
  await others.edit(ConfigMaps as KindRef, { name: "owned", namespace: "default" }, { metadata });
  await until("the former owner and the new one are seen", () => seen.length === 3);
  expect([...seen].sort()).toEqual(["owner-1", "owner-1", "owner-2"]);
});

test("a mapping that throws on one object disturbs nothing else", async () => {
  const seen: string[] = [];
  const keysOf = ({ metadata }: ConfigMap) => {
    if (metadata.name === "poison") throw new Error("boom");
    return [{ name: metadata.name }];
  };
  await start(() => [noting(seen, { watches: [watching(ConfigMaps, keysOf)] })]).leading;
  await others.apply(ConfigMaps, map("poison"));
  await others.apply(ConfigMaps, map("mapped"));
  await until("the next one is mapped", () => seen.includes("mapped"));
});

test("a source outside Kubernetes brings up keys, and is started again when it fails", async () => {
  const seen: string[] = [];
  let starts = 0;
  const run = async (enqueue: Enqueue, signal: AbortSignal) => {
    starts++;
    enqueue("noting", { name: `from-outside-${starts}` });
    if (starts === 1) throw new Error("the stream broke");
    await systemClock.sleep(1e9, signal);
  };
  const operator = start(() => [noting(seen)], { sources: () => [{ name: "agents", run }] });
  await operator.leading;
  await until("it was started twice", () => seen.includes("from-outside-1") && seen.includes("from-outside-2"));
  expect(await operator.stop()).toBe("stopped");
});

test("reconciles begin once the sources have told what there was at the beginning", async () => {
  await others.apply(Gadgets, gadget("early"));
  const seen: string[] = [];
  const before: string[] = [];
  const told = Promise.withResolvers<void>();
  const run = async (_enqueue: Enqueue, signal: AbortSignal) => {
    // As long as an agent takes to answer.
    await others.get(Gadgets, { name: "early" });
    before.push(...seen);
    told.resolve();
    await systemClock.sleep(1e9, signal);
  };
  const operator = start(() => [noting(seen)], { sources: () => [{ name: "agents", ready: told.promise, run }] });
  await operator.leading;
  await until("it was reconciled", () => seen.includes("early"));
  expect(before).toEqual([]);
  expect(await operator.stop()).toBe("stopped");
});

test("a failing key is tried again and again while others go on, and metrics tell", async () => {
  await others.apply(Gadgets, gadget("failing"));
  await others.apply(Gadgets, gadget("fine"));
  const seen: string[] = [];
  const operator = start(
    () => [
      noting(seen, {
        reconcile: async ({ name }) => {
          seen.push(name);
          if (name === "failing" && times(seen, "failing") < 4) throw new Error("boom");
          return settled;
        },
      }),
    ],
    { limits: { runner: { retryBaseMs: 20, retryMaxMs: 100 } } },
  );
  await operator.leading;
  await until("it has succeeded at last", () => times(seen, "failing") === 4);
  expect(times(seen, "fine")).toBe(1);
  expect(await metricOf(operator.metrics, "longshore_reconcile_total", 'result="error"')).toBe(3);
  expect(await metricOf(operator.metrics, "longshore_leader")).toBe(1);
  await operator.stop();
  expect(await metricOf(operator.metrics, "longshore_leader")).toBe(0);
});

test("everything is looked at again after each full list", async () => {
  await others.apply(Gadgets, gadget("resync"));
  const seen: string[] = [];
  await start(() => [noting(seen)], { limits: { informer: { relistMs: 1_000, healthyAfterMs: 100, retryBaseMs: 50 } } })
    .leading;
  await until("it is seen three times without a change", () => times(seen, "resync") >= 3);
});

test(
  "reconciles go on across a restart of the API server, and find what happened meanwhile",
  async () => {
    await others.apply(Gadgets, gadget("across", "before"));
    const operator = start((cluster) => [
      noting([], {
        async reconcile(key, { signal }) {
          const found = cluster.get(Gadgets, key);
          if (found === undefined || key.name !== "across") return settled;
          await cluster.patchStatus(Gadgets, found, { phase: found.spec?.color ?? "" }, signal);
          return again(200);
        },
      }),
    ]);
    const phase = async () => (await others.get(Gadgets, { name: "across" })).status?.phase;
    await until("the status is written", async () => (await phase()) === "before");
    await plane.restartApiServer();
    await others.apply(Gadgets, gadget("across", "after"));
    await until("the status follows", async () => (await phase()) === "after");
    expect(operator.phases).toEqual(["syncing", "standby", "leading"]);
  },
  startMsMax,
);

describe("what a user keeps in Git", () => {
  test("is not touched by status, finalizer and annotation: the user's fields, and who owns them, stay as they are", async () => {
    const operator = start(() => [noting([])]);
    await operator.leading;
    const file = JSON.stringify({
      apiVersion: "contract.longshore.dev/v1",
      kind: "Gadget",
      metadata: { name: "gitops", labels: { team: "a" } },
      spec: { color: "red", size: 1 },
    });
    const argo = ["--server-side", "--field-manager=argocd-controller", "-f", "-"];
    await plane.kubectl(["apply", ...argo], { input: file });
    const before = await others.get(Gadgets, { name: "gitops" });
    const { cluster } = operator;
    const held = await cluster.read(Gadgets, { name: "gitops" });
    if (held === undefined) throw new Error("not there");
    const finalized = await cluster.addFinalizer(Gadgets, held, "contract.longshore.dev/in-use");
    const noted = await cluster.patchAnnotations(Gadgets, finalized, { "longshore.dev/note": "x" });
    const told = await cluster.patchStatus(Gadgets, noted, { phase: "Up", count: 1 });
    const after = await others.get(Gadgets, { name: "gitops" });
    const argoOf = ({ metadata }: typeof before) =>
      metadata.managedFields.filter(({ manager }) => manager === "argocd-controller");
    expect(argoOf(after)).toEqual(argoOf(before));
    const ours = after.metadata.managedFields.filter(({ manager }) => manager === "longshore");
    expect(ours.map(({ subresource, fieldsV1 }) => [subresource, Object.keys(fieldsV1)])).toEqual(
      expect.arrayContaining([
        ["status", ["f:status"]],
        [undefined, ["f:metadata"]],
      ]),
    );
    await plane.kubectl(["diff", ...argo], { input: file });
    await cluster.removeFinalizer(Gadgets, told, "contract.longshore.dev/in-use");
  });
});

test("two writers of one status never lose each other's decision: who judged from an old view has to judge again", async () => {
  await others.apply(Gadgets, gadget("counted"));
  const counting =
    (name: string) =>
    (cluster: RunningOperator["cluster"]): Controller[] => {
      let left = 20;
      const reconcile: Controller["reconcile"] = async (key, { signal }) => {
        const found = cluster.get(Gadgets, key);
        if (key.name !== "counted" || found === undefined || left === 0) return settled;
        await cluster.patchStatus(Gadgets, found, { count: (found.status?.count ?? 0) + 1 }, signal);
        left--;
        return again(1);
      };
      return [noting([], { name, reconcile })];
    };
  const both = [start(counting("one")), start(counting("two"))];
  await Promise.all(both.map(({ leading }) => leading));
  const count = async () => (await others.get(Gadgets, { name: "counted" })).status?.count ?? 0;
  await until("both have counted", async () => (await count()) >= 40);
  expect(await count()).toBe(40);
});

test("events outlive the process: the next one counts on", async () => {
  await others.apply(Gadgets, gadget("evented"));
  const about = async () => {
    const { items } = (await admin.request({ method: "GET", path: "/api/v1/namespaces/default/events" })) as {
      items: readonly { involvedObject: { name: string }; count: number }[];
    };
    return items.filter(({ involvedObject }) => involvedObject.name === "evented").map(({ count }) => count);
  };
  for (const total of [1, 2]) {
    const operator = start(() => [noting([])]);
    await operator.leading;
    const subject = await operator.cluster.read(Gadgets, { name: "evented" });
    if (subject === undefined) throw new Error("not there");
    operator.cluster.event(subject, { type: "Warning", reason: "Stuck", message: "still" });
    await until("it is counted", async () => (await about()).join() === String(total));
    await operator.stop();
  }
  expect(await about()).toEqual([2]);
  const { stdout } = await plane.kubectl(["describe", "gadgets.contract.longshore.dev", "evented"]);
  expect(stdout).toContain("Stuck");
});

test("a reconcile that ignores its abort does not hold up the stop, but the lease is left to run out", async () => {
  await others.apply(Gadgets, gadget("deaf"));
  const lease = { namespace: "default", name: "deaf" };
  const entered = Promise.withResolvers<void>();
  const leave = Promise.withResolvers<void>();
  const reconcile: Controller["reconcile"] = async () => {
    entered.resolve();
    await leave.promise;
    return settled;
  };
  const operator = start(() => [noting([], { reconcile })], {
    leaderElection: { lease, identity: "deaf-one" },
    limits: { graceMs: 100 },
  });
  await entered.promise;
  expect(await operator.stop()).toBe("stopped");
  const path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/deaf";
  expect(await admin.request({ method: "GET", path })).toMatchObject({ spec: { holderIdentity: "deaf-one" } });
  leave.resolve();
});

describe("the framework's own interface", () => {
  const finalizer = "contract.longshore.dev/framework";

  /** An operator as the framework's documentation writes one. */
  class GadgetOperator extends LongshoreOperator {
    readonly cleaned: string[] = [];
    readonly events: string[] = [];
    protected override async init(): Promise<void> {
      await this.watchResource("contract.longshore.dev", "v1", "gadgets", async (event: ResourceEvent) => {
        if (!event.meta.name.startsWith("framework")) return;
        this.events.push(`${event.type} ${event.meta.name}`);
        const isHandled = await this.handleResourceFinalizer(event, finalizer, async ({ meta }) => {
          this.cleaned.push(meta.name);
        });
        if (!isHandled && event.type !== "DELETED") await this.patchResourceStatus(event.meta, { phase: "Seen" });
      });
    }
  }

  test("works on it: events, the finalizer's whole way, and status", async () => {
    const metrics = openMetrics();
    const config = loadKubeconfig({ kind: "file", path: plane.kubeconfigPath });
    const api = openApi(openConnection(config, systemClock), metrics);
    const operator = new GadgetOperator({
      config,
      api,
      log: silentLog,
      kinds: [Gadgets as KindRef],
      openInformer: (kind) =>
        openInformer(kind, { api, clock: systemClock, dice: systemDice, log: silentLog, metrics }),
      onChange: () => undefined,
      onListed: () => undefined,
    });
    await operator.start();
    await others.apply(Gadgets, gadget("framework-1"));
    const found = () => others.get(Gadgets, { name: "framework-1" });
    await until("finalizer and status are set", async () => (await found()).status?.phase === "Seen");
    expect((await found()).metadata.finalizers).toEqual([finalizer]);
    await others.delete(Gadgets as KindRef, { name: "framework-1" });
    await until("it is gone", () => operator.events.includes("DELETED framework-1"));
    expect(operator.cleaned).toEqual(["framework-1"]);
    expect(operator.events[0]).toBe("ADDED framework-1");
    await operator.close();
    api.close();
  });
});
