// An operator that can be told apart from others: whenever the Gadget `poke` changes, it writes into the ConfigMap `poked` who it is
// and what it saw. Also a program, for tests that kill or suspend a process: `node kube-leader.ts KUBECONFIG IDENTITY`.
import { silentLog } from "../../src/base/log.ts";
import { openMetrics } from "../../src/base/metrics.ts";
import { type Cluster, type Controller, type KindRef, type KubeObject, settled } from "../../src/kube/cluster.ts";
import type { LeaseOptions } from "../../src/kube/lease.ts";
import { runOperator } from "../../src/kube/operator.ts";

interface Poke extends KubeObject {
  readonly spec?: { readonly color?: string };
}
interface Poked extends KubeObject {
  readonly data?: Readonly<Record<string, string>>;
}
const group = { group: "contract.longshore.dev", version: "v1", namespaced: false } as const;
const Pokes: KindRef<Poke> = { ...group, plural: "gadgets", kind: "Gadget" };
const Pokeds: KindRef<Poked> = { group: "", version: "v1", plural: "configmaps", kind: "ConfigMap", namespaced: true };

/** For tests in which a lease has to run out: as quick as a leader on a busy machine can be sure to renew it in time. */
export const shortTiming = { durationMs: 12_000, renewDeadlineMs: 8_000, retryMs: 300 };
/** For those in which it is given back, which may take as long as the time from one try to the next. */
export const longTiming = { durationMs: 30_000, renewDeadlineMs: 20_000, retryMs: 2_000 };

export const leaderLease = { namespace: "default", name: "test-leader" };

export function election(identity: string, timing = longTiming): LeaseOptions {
  return { lease: leaderLease, identity, timing };
}

export function pokedController(cluster: Cluster, identity: string): Controller {
  return {
    name: "poked",
    kind: Pokes as KindRef,
    async reconcile(key, { signal }) {
      const color = cluster.get(Pokes, key)?.spec?.color;
      if (key.name !== "poke" || color === undefined) return settled;
      const draft = { metadata: { name: "poked", namespace: "default" }, data: { by: identity, color } };
      await cluster.apply(Pokeds, draft, signal);
      return settled;
    },
  };
}

if (import.meta.filename === process.argv[1]) {
  const [path = "", identity = ""] = process.argv.slice(2);
  const ended = await runOperator({
    kubeconfig: { kind: "file", path },
    controllers: (cluster) => [pokedController(cluster, identity)],
    leaderElection: election(identity, shortTiming),
    metrics: openMetrics(),
    log: silentLog,
    signal: new AbortController().signal,
    onPhase: (phase) => console.log(phase),
  });
  console.log(ended);
}
