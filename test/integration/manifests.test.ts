// manifests/ as a real API server takes them: everything is accepted, what is held to Pod Security restricted keeps to it, and what
// the parts expect of each other (Secrets, images, addresses, configuration) is there.
import { spawnSync } from "node:child_process";
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect } from "@jest/globals";
import { parse, parseAllDocuments } from "yaml";
import { parseAgentConfig } from "../../src/agent/config.ts";
import { secretPlaces } from "../../src/bin/pki-secrets.ts";
import { controlledBy, type KubeObject } from "../../src/kube/cluster.ts";
import { imagesOf } from "../../tools/image/catalogue.ts";
import { type ControlPlane, startControlPlane } from "../e2e/control-plane.ts";
import { controlPlaneAssets } from "../e2e/control-plane-program.ts";
import { everyComponent } from "../e2e/csi/install.ts";
import { areEstablished } from "../e2e/kubectl.ts";
import { grantsOf, type RbacObject } from "../e2e/rbac-audit.ts";
import { onInterrupt } from "../interrupt.ts";
import { missing, needs } from "../needs.ts";

const check = needs("controlplane");
const root = join(import.meta.dirname, "../..");
const slowMs = 300_000;

interface Container {
  readonly name: string;
  readonly image: string;
  readonly args?: readonly string[];
  readonly volumeMounts?: readonly { readonly name: string; readonly mountPath: string; mountPropagation?: string }[];
  readonly resources?: { readonly requests?: object; readonly limits?: { readonly memory?: string } };
  readonly livenessProbe?: object;
}

interface PodSpec {
  readonly containers: readonly Container[];
  readonly volumes?: readonly { readonly name: string; readonly secret?: { readonly secretName: string } }[];
}

interface Applied extends RbacObject {
  readonly metadata: RbacObject["metadata"] & { readonly labels?: Readonly<Record<string, string>> };
  readonly spec?: { readonly template?: { readonly metadata: { labels: object }; readonly spec: PodSpec } };
  readonly data?: Readonly<Record<string, string>>;
}

let plane: ControlPlane;
/** Of manifests/, and of that with all components. */
let base: Applied[];
let objects: Applied[];
let warnings: string;

beforeAll(async () => {
  if (missing("controlplane") !== undefined) return;
  plane = await startControlPlane({ name: "manifests" });
  await plane.kubectl(["apply", "--server-side", "-f", join(controlPlaneAssets, "crds")]);
  await areEstablished(plane, "crd", "--all");
  base = await rendered("manifests");
  objects = await rendered(everyComponent);
  const applied = await plane.kubectl(["apply", "--server-side", "-k", join(root, "manifests")]);
  warnings = applied.stderr;
  await areEstablished(plane, "crd", "--all");
}, slowMs);

afterAll(async () => {
  await plane?.stop();
}, slowMs);

async function rendered(kustomization: string): Promise<Applied[]> {
  const { stdout } = await plane.kubectl(["kustomize", join(root, kustomization)]);
  return parseAllDocuments(stdout).map((document) => document.toJS() as Applied);
}

function workloads(of = objects): (Applied & { readonly namespace: string; readonly pod: PodSpec })[] {
  return of.flatMap((object) => {
    const pod = object.spec?.template?.spec;
    return pod === undefined ? [] : [{ ...object, namespace: String(object.metadata.namespace), pod }];
  });
}

function workload(name: string) {
  const found = workloads().find(({ metadata }) => metadata.name === name);
  if (found === undefined) throw new Error(`no workload ${name}`);
  return found;
}

function container(workloadName: string, name: string): Container {
  const found = workload(workloadName).pod.containers.find((one) => one.name === name);
  if (found === undefined) throw new Error(`no container ${name} in ${workloadName}`);
  return found;
}

/** What the API server makes of a pod of the workload in a namespace, and warns of; throws its words if it would not take it. */
async function tryPod(
  { spec }: Applied,
  namespace: string,
  more: object = {},
): Promise<{ pod: PodSpec; stderr: string }> {
  const { metadata, spec: pod } = spec?.template ?? {};
  const tried = {
    apiVersion: "v1",
    kind: "Pod",
    metadata: { name: "tried", namespace, labels: metadata?.labels },
    spec: { ...pod, ...more },
  };
  const options = ["create", "--dry-run=server", "-o", "json", "-f", "-"];
  const { stdout, stderr } = await plane.kubectl(options, { input: JSON.stringify(tried) });
  return { pod: (JSON.parse(stdout) as { spec: PodSpec }).spec, stderr };
}

describe("an API server with the VolumeSnapshot definitions", () => {
  check("takes all of manifests/ in one go, and warns of nothing", () => {
    expect(workloads().map(({ metadata }) => metadata.name)).toEqual(
      expect.arrayContaining(["longshore-operator", "longshore-csi", "longshore-node"]),
    );
    expect(warnings).toBe("");
  });

  check(
    "takes it once more without a change, as a GitOps tool does again and again",
    async () => {
      const { stdout } = await plane.kubectl(["diff", "--server-side", "-k", join(root, "manifests")]);
      expect(stdout).toBe("");
    },
    slowMs,
  );

  check(
    "takes all but the agents by the selector of an upgrade, and the agents by that of the way back",
    async () => {
      const apply = ["apply", "--server-side", "--dry-run=server", "-k", join(root, "manifests"), "--output=name"];
      const applied = async (selector: string) => {
        const { stdout } = await plane.kubectl([...apply, "--selector", selector]);
        return stdout.trim().split("\n");
      };
      const agents = "daemonset.apps/longshore-node";
      const others = await applied("app.kubernetes.io/name!=longshore-node");
      expect(others).toHaveLength(base.length - 1);
      expect(others).not.toContain(agents);
      expect(await applied("app.kubernetes.io/name=longshore-node")).toEqual([agents]);
    },
    slowMs,
  );

  check(
    "would run every pod where it belongs, and none of the node's in the namespace of the others",
    async () => {
      for (const each of workloads()) expect(await tryPod(each, each.namespace)).toMatchObject({ stderr: "" });
      const elsewhere = { serviceAccountName: "longshore-operator" };
      const refused = tryPod(workload("longshore-node"), "longshore-system", elsewhere);
      await expect(refused).rejects.toThrow(/violates PodSecurity "restricted/);
    },
    slowMs,
  );

  check("needs no others for the base, without the components", () => {
    expect(JSON.stringify(base)).not.toMatch(/groupsnapshot\.storage|cbt\.storage|CSIVolumeGroupSnapshot/);
  });

  check(
    "takes the components, the examples and the snapshot controller",
    async () => {
      await plane.kubectl(["create", "namespace", "library"]);
      for (const what of [
        ["-k", join(root, everyComponent)],
        ["-f", join(root, "manifests/examples")],
        ["-k", join(root, "manifests/snapshot-controller")],
      ]) {
        const { stderr } = await plane.kubectl(["apply", "--server-side", "--dry-run=server", ...what]);
        expect(stderr).toBe("");
      }
    },
    slowMs,
  );
});

const tokenPath = "/var/run/secrets/kubernetes.io/serviceaccount";

check("of the CSI controller's containers only those that talk to Kubernetes get a token", async () => {
  const { pod } = await tryPod(workload("longshore-csi"), "longshore-system");
  const withToken = pod.containers.filter(({ volumeMounts }) =>
    volumeMounts?.some(({ mountPath }) => mountPath === tokenPath),
  );
  expect(withToken.map(({ name }) => name)).toEqual([
    "csi-provisioner",
    "csi-resizer",
    "csi-snapshotter",
    "csi-snapshot-metadata",
  ]);
});

check(
  "the operator may own what it makes where OwnerReferencesPermissionEnforcement is on",
  async () => {
    const operator = ["--as", "system:serviceaccount:longshore-system:longshore-operator"];
    const create = async (object: object, as: readonly string[] = []) => {
      const options = ["create", "-o", "json", "-f", "-", ...as];
      return JSON.parse((await plane.kubectl(options, { input: JSON.stringify(object) })).stdout) as KubeObject;
    };
    const apiVersion = "longshore.dev/v1";
    const spec = { volume: { name: "books", uid: "uid-books", handle: "books", driver: "csi.longshore.dev" } };
    const policy = { enabled: false, locations: [] };
    const owner = await create({
      apiVersion,
      kind: "VolumeMigration",
      metadata: { name: "books" },
      spec: { ...spec, policy },
    });
    const metadata = { name: "books-now", ownerReferences: [controlledBy(owner)] };
    const job = { apiVersion, kind: "MigrationJob", metadata, spec: { volumeName: "books", location: "harbor" } };
    expect((await create(job, operator)).metadata.ownerReferences).toMatchObject([{ name: "books", controller: true }]);
  },
  slowMs,
);

describe("what the parts expect of each other:", () => {
  check("the Secrets that are mounted are those that `longshore pki secrets` prints", () => {
    const mounted = workloads(base).flatMap(({ namespace, pod }) =>
      (pod.volumes ?? []).flatMap(({ secret }) => (secret === undefined ? [] : [`${namespace}/${secret.secretName}`])),
    );
    expect(mounted.sort()).toEqual(secretPlaces.map(({ namespace, name }) => `${namespace}/${name}`).sort());
  });

  check("the images are those that tools/image.ts makes", () => {
    const made = imagesOf("all").map(({ reference }) => reference);
    const used = workloads().flatMap(({ pod }) => pod.containers.map(({ image }) => image));
    expect(used.filter((image) => !made.includes(image))).toEqual([]);
  });

  check("the agents are reached by the address that operator and CSI controller are given", () => {
    const service = base.find(({ kind, metadata }) => kind === "Service" && metadata.name === "longshore-agent");
    const address = `--agents=${service?.metadata.name}.${service?.metadata.namespace}.svc:7420`;
    expect(container("longshore-operator", "operator").args).toContain(address);
    expect(container("longshore-csi", "csi").args).toContain(address);
  });

  check("the seeds of each agent lead to all others, also to those that are just starting", () => {
    const { seeds } = parse(readFileSync(join(root, "manifests/node/agent.yaml"), "utf8")) as { seeds: string[] };
    const services = base.filter(({ kind }) => kind === "Service");
    const named = services.filter(({ metadata: { name, namespace } }) =>
      seeds.includes(`${name}.${namespace}.svc:7420`),
    );
    const selector = { "app.kubernetes.io/name": "longshore-node" };
    expect(named).toMatchObject([{ spec: { clusterIP: "None", publishNotReadyAddresses: true, selector } }]);
  });

  check("the component snapshot-metadata mounts one Secret more, and its Service leads to its port", () => {
    const secrets = workload("longshore-csi").pod.volumes?.flatMap(({ secret }) => secret?.secretName ?? []);
    expect(secrets).toEqual(["longshore-csi-pki", "longshore-snapshot-metadata-tls"]);
    const service = objects.find(({ metadata }) => metadata.name === "longshore-snapshot-metadata");
    expect(service?.spec).toMatchObject({ ports: [{ port: 6443, targetPort: "metadata" }] });
    const ports = [{ name: "metadata", containerPort: 50051 }, { name: "metadata-http" }];
    expect(container("longshore-csi", "csi-snapshot-metadata")).toMatchObject({ ports });
  });

  check("the component group-snapshots switches them on in csi-snapshotter, and nowhere else", () => {
    const gate = "--feature-gates=CSIVolumeGroupSnapshot=true";
    const having = workload("longshore-csi").pod.containers.filter(({ args }) => args?.includes(gate));
    expect(having.map(({ name }) => name)).toEqual(["csi-snapshotter"]);
  });

  check("health and metrics are served at the pod's address, whichever version of IP it is of", () => {
    expect(container("longshore-operator", "operator").args).toContain("--listen=:9808");
    expect(container("longshore-csi", "csi").args).toContain("--listen=:9808");
  });

  check("every object has the label by which it is found when it is to go", () => {
    const without = objects.filter(({ metadata }) => metadata.labels?.["app.kubernetes.io/part-of"] !== "longshore");
    expect(without.map(({ kind, metadata }) => `${kind} ${metadata.name}`)).toEqual([]);
  });

  check("every container has requests, a memory limit and a probe", () => {
    for (const { metadata, pod } of workloads()) {
      for (const { name, resources, livenessProbe } of pod.containers) {
        const told = { of: `${metadata.name}/${name}`, resources, livenessProbe };
        expect(told).toMatchObject({
          resources: { requests: expect.anything(), limits: { memory: expect.any(String) } },
          livenessProbe: expect.anything(),
        });
      }
    }
  });

  check("mounts made by the node plugin reach the node, and the agent sees them", () => {
    const propagation = (name: string) =>
      container("longshore-node", name).volumeMounts?.find(({ mountPath }) => mountPath === "/var/lib/kubelet")
        ?.mountPropagation;
    expect([propagation("csi-node"), propagation("agent")]).toEqual(["Bidirectional", "HostToContainer"]);
  });

  check("nobody may read Secrets, and nothing is granted wholesale", () => {
    for (const name of ["longshore-operator", "longshore-csi"]) {
      const grants = grantsOf(objects, { namespace: "longshore-system", name });
      expect(grants.length).toBeGreaterThan(0);
      const words = grants.flatMap(({ apiGroups, resources, verbs }) => [...apiGroups, ...resources, ...verbs]);
      expect(words).not.toContain("secrets");
      expect(words).not.toContain("*");
    }
    expect(grantsOf(objects, { namespace: "longshore-node", name: "longshore-node" })).toEqual([]);
  });
});

describe("the agent's configuration, as its container makes it,", () => {
  let folder: string;
  let forget: () => void;

  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), "longshore-manifests-"));
    forget = onInterrupt(() => rmSync(folder, { recursive: true, force: true }));
    for (const name of ["config", "run", "bin"]) mkdirSync(join(folder, name));
    writeFileSync(join(folder, "bin/longshore"), "#!/bin/sh\n");
    chmodSync(join(folder, "bin/longshore"), 0o755);
  });

  afterAll(() => {
    rmSync(folder, { recursive: true });
    forget();
  });

  for (const [address, listen] of [
    ["10.0.0.7", "0.0.0.0"],
    ["fd00::7", "::"],
    ["2001:db8:1:2:3:4:5:6", "::"],
  ] as const) {
    check(`is one that the agent takes, on a node with address ${address}`, () => {
      const source = objects.find(({ kind }) => kind === "ConfigMap")?.data?.["agent.yaml"] ?? "";
      writeFileSync(join(folder, "config/agent.yaml"), source);
      const [script = ""] = container("longshore-node", "agent").args ?? [];
      const moved = script
        .replaceAll("/etc/longshore/config", join(folder, "config"))
        .replaceAll("/run/longshore", join(folder, "run"));
      const env = { PATH: `${join(folder, "bin")}:/usr/bin:/bin`, NODE_NAME: "node-7", HOST_IP: address };
      expect(spawnSync("/bin/sh", ["-c", moved], { env, encoding: "utf8" })).toMatchObject({ status: 0, stderr: "" });
      const text = readFileSync(join(folder, "run/agent.yaml"), "utf8");
      const config = parseAgentConfig(parse(text), { file: "agent.yaml", folder });
      expect(config).toMatchObject({ node: "node-7", advertiseAddress: address, listen: { host: listen, port: 7420 } });
      expect(config.laneListen).toEqual({ host: listen, port: 7421 });
    });
  }
});
