// Installs Longshore as docs/install.md says, from manifests/ as they are, with all that an overlay may add. What differs is what every
// cluster sets for itself, the agents' configuration: the cluster's name, and intervals that suit a test.
import { mkdir, readFile, realpath, writeFile } from "node:fs/promises";
import { join, relative } from "node:path";
import { parseDocument } from "yaml";
import { runLongshore } from "../../../src/bin/longshore.ts";
import type { Streams } from "../../../src/bin/streams.ts";
import { makeServerCertificate, snapshotMetadataService } from "../backup-tool.ts";
import { controlPlaneAssets } from "../control-plane-program.ts";
import { areEstablished } from "../kubectl.ts";
import type { TestCluster } from "./test-cluster.ts";

const root = join(import.meta.dirname, "../../..");

/** What is installed: the base with all components. */
export const everyComponent = "test/e2e/csi/everything";

/** In the agents' configuration (docs/agent.md). */
const limits = {
  // Progress is told in steps of this.
  unit: "1Mi",
  probeInterval: "2s",
  memberInterval: "1s",
  retryDelay: "200ms",
  retryDelayMax: "2s",
  // Longer than the longest that csi-provisioner lets go by between two calls, several times over.
  cloneWait: "30s",
};

/** Installs everything and waits until all of it runs. `folder` is for keys and the overlay. */
export async function installLongshore(cluster: TestCluster, folder: string): Promise<void> {
  const pki = await makeKeys(cluster, folder);
  await installSnapshots(cluster);
  for (const node of cluster.nodes) {
    await cluster.kubectl(["label", "node", node, "longshore.dev/storage=true", "--overwrite"]);
  }
  const overlay = await writeOverlay(cluster, folder);
  await cluster.kubectl(["apply", "--server-side", "-k", overlay]);
  const secrets = await longshoreCommand(["pki", "secrets", "--dir", pki]);
  await cluster.kubectl(["apply", "--server-side", "-f", "-"], { input: secrets });
  await installCertificate(cluster, folder);
  await runs(cluster, "longshore-node", "daemonset/longshore-node");
  await runs(cluster, "longshore-system", "deployment/longshore-operator");
  await runs(cluster, "longshore-system", "deployment/longshore-csi");
}

/** Where {@link installLongshore} keeps the cluster's CA and certificates. */
export function keysIn(folder: string): string {
  return join(folder, "pki");
}

async function makeKeys({ name }: TestCluster, folder: string): Promise<string> {
  const pki = keysIn(folder);
  await longshoreCommand(["pki", "init", "--dir", pki, "--cluster-name", name]);
  for (const role of ["agent", "operator", "csi"]) {
    await longshoreCommand(["pki", "issue", "--dir", pki, "--role", role]);
  }
  return pki;
}

/** Whatever drivers a cluster has, it has these once. */
async function installSnapshots(cluster: TestCluster): Promise<void> {
  await cluster.kubectl(["apply", "--server-side", "--force-conflicts", "-f", join(controlPlaneAssets, "crds")]);
  await areEstablished(cluster, "crd", "--all");
  await cluster.kubectl(["apply", "--server-side", "-k", join(root, "manifests/snapshot-controller")]);
  await runs(cluster, "kube-system", "deployment/snapshot-controller");
}

/** What the component snapshot-metadata takes (docs/csi.md). */
async function installCertificate(cluster: TestCluster, folder: string): Promise<void> {
  const certificate = await makeServerCertificate(folder);
  const files = [`--cert=${certificate.certFile}`, `--key=${certificate.keyFile}`];
  const secret = ["create", "secret", "tls", "longshore-snapshot-metadata-tls", "--namespace", "longshore-system"];
  const { stdout } = await cluster.kubectl([...secret, ...files, "--dry-run=client", "-o", "yaml"]);
  const input = `${stdout}---\n${await snapshotMetadataService(certificate)}`;
  await cluster.kubectl(["apply", "--server-side", "-f", "-"], { input });
}

/** Waits until it is rolled out; tells what its pods wait for if it is not. */
export async function runs(cluster: TestCluster, namespace: string, what: string): Promise<void> {
  const where = ["--namespace", namespace];
  try {
    await cluster.kubectl(["rollout", "status", what, ...where, "--timeout=300s"]);
  } catch (cause) {
    const { stdout: pods } = await cluster.kubectl(["describe", "pods", ...where]);
    const { stdout: events } = await cluster.kubectl(["get", "events", ...where]);
    throw new Error(`${String(cause)}\n${pods.slice(-8_000)}\n${events.slice(-4_000)}`, { cause });
  }
}

/** A kustomization with the agents' configuration replaced; returns its folder. */
async function writeOverlay({ name }: TestCluster, folder: string): Promise<string> {
  const overlay = join(folder, "overlay");
  await mkdir(overlay, { recursive: true });
  // kustomize takes no absolute paths.
  const base = relative(await realpath(overlay), await realpath(join(root, everyComponent)));
  const agents = { name: "longshore-agent", namespace: "longshore-node", behavior: "merge", files: ["agent.yaml"] };
  const kustomization = {
    apiVersion: "kustomize.config.k8s.io/v1beta1",
    kind: "Kustomization",
    resources: [base],
    configMapGenerator: [agents],
  };
  // JSON is YAML.
  await writeFile(join(overlay, "kustomization.yaml"), JSON.stringify(kustomization));
  const configuration = parseDocument(await readFile(join(root, "manifests/node/agent.yaml"), "utf8"));
  configuration.set("clusterName", name);
  for (const [limit, value] of Object.entries(limits)) configuration.setIn(["limits", limit], value);
  await writeFile(join(overlay, "agent.yaml"), String(configuration));
  return overlay;
}

/** What `pair import` prints on each side. */
export interface Pairing {
  /** The MigrationLocation for the source, of this name. */
  location(name: string): Promise<string>;
  /** The MigrationSource for the target, of this name. */
  source(name: string): Promise<string>;
}

/**
 * Tells two clusters of each other by copy and paste. `sourceKeys` and `targetKeys` are their folders of {@link keysIn}; `seeds` are
 * agents of the target.
 */
export async function pairClusters(sourceKeys: string, targetKeys: string, seeds: readonly string[]): Promise<Pairing> {
  const exported = (keys: string, ...more: string[]) =>
    longshoreCommand(["pair", "export", "--ca", join(keys, "ca.crt"), ...more]);
  const ofTarget = await exported(targetKeys, "--seeds", ...seeds);
  const ofSource = await exported(sourceKeys);
  return {
    location: (name) => longshoreCommand(["pair", "import", name, "--as", "location"], ofTarget),
    source: (name) => longshoreCommand(["pair", "import", name, "--as", "source"], ofSource),
  };
}

/** Runs `longshore WORDS` in this process, and gives what it wrote. */
async function longshoreCommand(words: readonly string[], input = ""): Promise<string> {
  const said = { out: "", err: "" };
  const streams: Streams = {
    out(text) {
      said.out += text;
    },
    err(text) {
      said.err += text;
    },
    input: async () => input,
    isColoured: false,
    env: {},
    stop: new AbortController().signal,
    exitCode: 0,
  };
  const status = await runLongshore(words, streams);
  if (status !== 0) throw new Error(`longshore ${words.join(" ")} ended with ${status}: ${said.err}`);
  return said.out;
}
