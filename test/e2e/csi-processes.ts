// The processes of the CSI driver in front of a real agent, as their containers start them.
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { systemClock } from "../../src/base/clock.ts";
import { systemDice } from "../../src/base/dice.ts";
import { issueInto } from "../../src/pki/folder.ts";
import { identity, openCsiClient } from "../fakes/csi-client.ts";
import { eventually, type Process, startLongshore } from "./process.ts";
import type { StorageCluster } from "./storage-cluster.ts";

export interface CsiProcess {
  readonly endpoint: string;
  readonly process: Process;
  /** As the kubelet of the node has it; of the node's process. */
  readonly kubeletDir: string;
}

export interface CsiProcessOptions {
  readonly storage: StorageCluster;
  /** Sockets, logs, and the kubelet's folder; its path must be short, for sockets. */
  readonly folder: string;
  readonly more?: readonly string[];
}

/** Resolves when it serves. */
export async function startCsiController({ storage, folder, more = [] }: CsiProcessOptions): Promise<CsiProcess> {
  return start({ storage, folder, more: ["--agents", storage.address, ...more] }, "controller");
}

/** `node`: as its agent calls it. */
export async function startCsiNode(options: CsiProcessOptions & { readonly node: string }): Promise<CsiProcess> {
  const { storage, folder, node, more = [] } = options;
  const kubeletDir = join(folder, "kubelet");
  await mkdir(kubeletDir, { recursive: true });
  const own = ["--node", node, "--agent", storage.address, "--kubelet-dir", kubeletDir];
  return start({ storage, folder, more: [...own, "--state-dir", join(folder, "state"), ...more] }, "node");
}

async function start(options: CsiProcessOptions, kind: "controller" | "node"): Promise<CsiProcess> {
  const { storage, folder, more = [] } = options;
  const issued = { role: "csi", names: ["127.0.0.1"], days: 1, name: "csi", renew: false } as const;
  await issueInto(storage.pki, issued, { clock: systemClock, dice: systemDice });
  const endpoint = `unix://${join(folder, `${kind}.sock`)}`;
  const tls = { cert: "csi.crt", key: "csi.key", ca: "ca.crt" };
  const files = Object.entries(tls).flatMap(([name, file]) => [`--${name}`, join(storage.pki, file)]);
  const words = ["csi", kind, "--endpoint", endpoint, ...files, ...more];
  const process = startLongshore(words, join(folder, `csi-${kind}.log`));
  const client = openCsiClient(endpoint, identity);
  try {
    await eventually(`the CSI ${kind} being ready`, async () => {
      process.checkRunning();
      const { ready } = await client.call<{ ready: { value: boolean } }>("Probe");
      return ready.value || undefined;
    });
  } finally {
    client.close();
  }
  return { endpoint, process, kubeletDir: join(folder, "kubelet") };
}
