import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "@jest/globals";
import { systemClock } from "../../src/base/clock.ts";
import type { Api } from "../../src/kube/api.ts";
import { type Controller, type KindRef, type KubeObject, settled } from "../../src/kube/cluster.ts";
import { ConfigMaps, Gadgets } from "../contract/cluster.ts";
import { type ControlPlane, startControlPlane } from "../e2e/control-plane.ts";
import { onInterrupt } from "../interrupt.ts";
import { missing, needs } from "../needs.ts";
import {
  adminApi,
  defineGadgets,
  kubeconfigThrough,
  othersOf,
  type RunningOperator,
  startMsMax,
  startOperator,
  until,
} from "./kube-bench.ts";
import { election, leaderLease, pokedController, shortTiming } from "./kube-leader.ts";
import { openTcpProxy, type TcpProxy } from "./tcp-proxy.ts";

const test = needs("controlplane");

let plane: ControlPlane;
let proxy: TcpProxy;
let admin: Api;
let others: ReturnType<typeof othersOf>;
let operators: RunningOperator[] = [];
let children: ChildProcess[] = [];

const forget = onInterrupt(() => {
  for (const child of children) child.kill("SIGKILL");
});

beforeAll(async () => {
  if (missing("controlplane") !== undefined) return;
  plane = await startControlPlane({ name: "lease" });
  await defineGadgets(plane);
  proxy = await openTcpProxy(Number(new URL(plane.server).port));
  admin = adminApi(plane);
  others = othersOf(admin);
}, startMsMax);

afterAll(async () => {
  forget();
  admin?.close();
  await proxy?.close();
  await plane?.stop();
}, startMsMax);

beforeEach(async () => {
  if (missing("controlplane") === undefined) await poke("none");
});

afterEach(async () => {
  proxy?.open();
  await Promise.all(operators.map((operator) => operator.stop()));
  for (const child of children) child.kill("SIGKILL");
  operators = [];
  children = [];
  await admin?.request({ method: "DELETE", path: leasePath }).catch(() => undefined);
});

const leasePath = `/apis/coordination.k8s.io/v1/namespaces/${leaderLease.namespace}/leases/${leaderLease.name}`;

interface Lease {
  readonly spec: {
    readonly holderIdentity?: string;
    readonly leaseTransitions: number;
    readonly acquireTime: string;
    readonly renewTime: string;
  };
}
const leaseSpec = async () => ((await admin.request({ method: "GET", path: leasePath })) as Lease).spec;

const poke = (color: string) => others.apply(Gadgets, { metadata: { name: "poke" }, spec: { color } });
const poked = async () =>
  (await others.get(ConfigMaps, { name: "poked", namespace: "default" }).catch(() => undefined))?.data;

function start(identity: string, more: Partial<Parameters<typeof startOperator>[1]> = {}): RunningOperator {
  const operator = startOperator(plane, {
    controllers: (cluster) => [pokedController(cluster, identity)],
    leaderElection: election(identity),
    ...more,
  });
  operators.push(operator);
  return operator;
}

/** Whose lease runs out in the test. */
function startShort(identity: string, more: Parameters<typeof start>[1] = {}): RunningOperator {
  return start(identity, { leaderElection: election(identity, shortTiming), ...more });
}

/** An operator in a process of its own; `phase` resolves when it tells that one. */
function startProcess(identity: string) {
  const program = join(import.meta.dirname, "kube-leader.ts");
  const child = spawn(process.execPath, [program, plane.kubeconfigPath, identity], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  const told: string[] = [];
  createInterface(child.stdout).on("line", (line) => told.push(line));
  return { child, phase: (phase: string) => until(`${identity} is ${phase}`, () => told.includes(phase)) };
}

test("of two operators one acts; when it stops it hands over without waiting for the lease to run out", async () => {
  const first = start("first");
  await first.leading;
  const second = start("second");
  await until("the second stands by", () => second.phases.includes("standby"));
  await poke("red");
  await until("the first acts", async () => (await poked())?.color === "red");
  expect(await poked()).toEqual({ by: "first", color: "red" });
  expect(second.phases).toEqual(["syncing", "standby"]);
  expect(await first.stop()).toBe("stopped");
  expect((await leaseSpec()).holderIdentity).not.toBe("first");
  await second.leading;
  await poke("blue");
  await until("the second acts", async () => (await poked())?.color === "blue");
  expect(await poked()).toEqual({ by: "second", color: "blue" });
  expect(await leaseSpec()).toMatchObject({ holderIdentity: "second", leaseTransitions: 1 });
});

test("what an operator that does not lead is told to change, it refuses", async () => {
  const first = start("first");
  await first.leading;
  const second = start("second");
  await until("the second stands by", () => second.phases.includes("standby"));
  const draft = { metadata: { name: "forbidden", namespace: "default" } };
  await expect(second.cluster.create(ConfigMaps, draft)).rejects.toThrow("does not lead");
  await first.stop();
  await second.leading;
  expect(await second.cluster.create(ConfigMaps, draft)).toBe("created");
});

test(
  "when the leader is killed, the other takes over once the lease has run out, and not before",
  async () => {
    const first = startProcess("killed");
    await first.phase("leading");
    const second = startShort("second");
    await until("the second stands by", () => second.phases.includes("standby"));
    first.child.kill("SIGKILL");
    await once(first.child, "exit");
    const last = await leaseSpec();
    expect(last.holderIdentity).toBe("killed");
    await poke("green");
    await second.leading;
    await until("the second acts", async () => (await poked())?.by === "second");
    const waitedMs = Date.parse((await leaseSpec()).acquireTime) - Date.parse(last.renewTime);
    expect(waitedMs).toBeGreaterThanOrEqual(shortTiming.durationMs);
  },
  startMsMax,
);

test(
  "a leader that was suspended does nothing when it wakes up, for another leads by then",
  async () => {
    const first = startProcess("suspended");
    await first.phase("leading");
    await poke("before");
    await until("the first acts", async () => (await poked())?.color === "before");
    first.child.kill("SIGSTOP");
    await poke("during");
    const second = startShort("second");
    await second.leading;
    await until("the second acts", async () => (await poked())?.color === "during");
    const { metadata } = await others.get(ConfigMaps, { name: "poked", namespace: "default" });
    first.child.kill("SIGCONT");
    await first.phase("deposed");
    const after = await others.get(ConfigMaps, { name: "poked", namespace: "default" });
    expect(after.data).toEqual({ by: "second", color: "during" });
    expect(after.metadata.managedFields.map(({ time }) => time)).toEqual(
      metadata.managedFields.map(({ time }) => time),
    );
    expect((await leaseSpec()).holderIdentity).toBe("second");
  },
  startMsMax,
);

test(
  "a leader that is cut off steps down, with its reconciles aborted, before another leads",
  async () => {
    const aborted: { reason: string; atMs: number }[] = [];
    const waiting: Controller = {
      name: "waiting",
      kind: Gadgets as KindRef<KubeObject>,
      async reconcile(_key, { signal }) {
        await systemClock.sleep(1e9, signal).catch((error: unknown) => {
          aborted.push({ reason: String(error), atMs: systemClock.monotonicMs() });
        });
        signal.throwIfAborted();
        return settled;
      },
    };
    const first = startShort("first", {
      kubeconfig: { kind: "text", yaml: kubeconfigThrough(plane, proxy.port) },
      controllers: () => [waiting],
    });
    await first.leading;
    const second = startShort("second");
    let takenMs = 0;
    const taken = second.leading.then(() => {
      takenMs = systemClock.monotonicMs();
    });
    await until("the second stands by", () => second.phases.includes("standby"));
    proxy.silence();
    expect(await first.ended).toBe("deposed");
    await taken;
    expect(aborted.map(({ reason }) => reason)).toContain("Error: leadership was lost");
    for (const { atMs } of aborted) expect(atMs).toBeLessThan(takenMs);
    expect(first.phases).toEqual(["syncing", "standby", "leading", "ended"]);
  },
  startMsMax,
);

test(
  "a restart of the API server that is shorter than the deadline costs nobody the leadership",
  async () => {
    const timing = { durationMs: 120_000, renewDeadlineMs: 90_000, retryMs: 300 };
    const first = start("first", { leaderElection: election("first", timing) });
    await first.leading;
    await plane.restartApiServer();
    await poke("after");
    await until("it still acts", async () => (await poked())?.color === "after");
    expect(first.phases).toEqual(["syncing", "standby", "leading"]);
    expect(await leaseSpec()).toMatchObject({ holderIdentity: "first", leaseTransitions: 0 });
  },
  startMsMax,
);
