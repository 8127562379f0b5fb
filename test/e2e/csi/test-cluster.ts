// A Kubernetes cluster as the scenarios see it: kubectl, and what only nodes of the tests' own let them do. So they run in clusters of
// kubelets that they start themselves as well as in any others that a kubeconfig leads to.
import { realpathSync } from "node:fs";
import { type KubectlOptions, type Output, runKubectl } from "../kubectl.ts";
import type { KubeletCluster } from "../kubelets/cluster.ts";
import type { KubeletNode } from "../kubelets/node.ts";

export interface TestCluster {
  readonly name: string;
  readonly kubeconfig: string;
  /** Of kubectl: its cache. */
  readonly home: string;
  /** The names of the nodes that pods run on. */
  readonly nodes: readonly string[];
  /** Throws what kubectl says when it fails. */
  kubectl(args: readonly string[], options?: KubectlOptions): Promise<Output>;
  /** Nodes and audit log, where the cluster is of the tests' own. */
  readonly own?: { readonly nodes: readonly KubeletNode[]; readonly auditLog: string };
}

/** All that the service accounts of manifests/ ask for, to see which rights they use. */
export const auditPolicy = {
  omitStages: ["RequestReceived"],
  rules: [
    {
      level: "Metadata",
      userGroups: ["system:serviceaccounts:longshore-system", "system:serviceaccounts:longshore-node"],
    },
    { level: "Metadata", users: ["system:serviceaccount:kube-system:snapshot-controller"] },
    { level: "None" },
  ],
};

export function ownCluster({ name, plane, nodes }: KubeletCluster): TestCluster {
  return {
    name,
    kubeconfig: plane.kubeconfigPath,
    home: plane.folder,
    nodes: nodes.map((node) => node.name),
    kubectl: (args, options) => plane.kubectl(args, options),
    own: { nodes, auditLog: plane.auditLog },
  };
}

/** One that somebody else made. `home` is a folder for kubectl's cache. */
export async function givenCluster(name: string, kubeconfigPath: string, home: string): Promise<TestCluster> {
  const kubeconfig = realpathSync(kubeconfigPath);
  const kubectl: TestCluster["kubectl"] = (args, options) => runKubectl({ name, kubeconfig, home }, args, options);
  return { name, kubeconfig, home, kubectl, nodes: await workersOf(kubectl) };
}

/** Those that take pods of everybody. */
async function workersOf(kubectl: TestCluster["kubectl"]): Promise<string[]> {
  const { stdout } = await kubectl(["get", "nodes", "-o", "json"]);
  const { items } = JSON.parse(stdout) as {
    items: { metadata: { name: string }; spec: { taints?: { effect: string }[] } }[];
  };
  const isOpen = ({ effect }: { effect: string }) => effect === "PreferNoSchedule";
  return items.filter(({ spec }) => (spec.taints ?? []).every(isOpen)).map(({ metadata }) => metadata.name);
}
