// A Kubernetes cluster with a storage cluster of its own: control plane, definitions, RBAC, agent and operator, all real.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { ControlPlane } from "./control-plane.ts";
import { controlPlaneAssets } from "./control-plane-program.ts";
import { areEstablished } from "./kubectl.ts";
import { type Process, startLongshore } from "./process.ts";
import type { StorageCluster } from "./storage-cluster.ts";

const root = join(import.meta.dirname, "../..");
export const systemNamespace = "longshore-system";

export interface Site {
  readonly plane: ControlPlane;
  readonly storage: StorageCluster;
  operator(): Process;
  /** Starts the operator (again) as the service account of manifests/. */
  startOperator(): Promise<void>;
  stop(): Promise<void>;
}

/** Installs everything into a control plane and starts the operator. */
export async function openSite(plane: ControlPlane, storage: StorageCluster, folder: string): Promise<Site> {
  await mkdir(folder, { recursive: true });
  await install(plane);
  const kubeconfig = await plane.serviceAccountKubeconfig(systemNamespace, "longshore-operator");
  let operator: Process | undefined;
  const site: Site = {
    plane,
    storage,
    operator: () => {
      if (operator === undefined) throw new Error("the operator was not started");
      return operator;
    },
    async startOperator() {
      operator = startLongshore(operatorArguments(storage, kubeconfig), join(folder, "operator.log"));
    },
    async stop() {
      await operator?.signal("SIGTERM");
    },
  };
  await site.startOperator();
  return site;
}

/** Definitions first, and what is made of them only once the API server serves them. */
async function install(plane: ControlPlane): Promise<void> {
  await plane.kubectl(["apply", "--server-side", "-f", join(root, "crds"), "-f", join(controlPlaneAssets, "crds")]);
  await areEstablished(plane, "crd", "--all");
  await plane.kubectl(["apply", "--server-side", "-k", join(root, "manifests/operator")]);
}

function operatorArguments(storage: StorageCluster, kubeconfig: string): string[] {
  const tls = (file: string) => join(storage.pki, file);
  return [
    "operator",
    "--kubeconfig",
    kubeconfig,
    "--agents",
    storage.address,
    "--cert",
    tls("operator.crt"),
    "--key",
    tls("operator.key"),
    "--ca",
    tls("ca.crt"),
  ];
}
