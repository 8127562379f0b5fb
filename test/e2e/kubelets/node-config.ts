// The files that a node's programs are configured by. Paths are those that the node sees: its folders of its own lie where
// everybody expects a node's (node.sh), so that manifests run on it unchanged.
import { serviceAddresses } from "../control-plane.ts";

/** Where Debian and others keep the CNI plugins. */
export const cniFolders = ["/usr/lib/cni", "/opt/cni/bin"] as const;

/** As the node sees it; `lib/node` of the node's folder on the machine. */
export const configFolder = "/var/lib/node";
export const containerdSocket = "/run/containerd/containerd.sock";
/** What every pod's first container is; `make setup` makes it (tools/image.ts). */
export const pauseImage = "registry.k8s.io/pause:3.10";

export interface NodeFacts {
  readonly name: string;
  /** Reached by the tests, the API server and other nodes. */
  readonly address: string;
  /** The addresses of its pods, such as 198.19.3.64/26. */
  readonly podNet: string;
  /** Where its pods' cgroups are made, below each controller's root. */
  readonly cgroup: string;
  readonly cniFolder: string;
}

/** Plugins that want what a node of the tests does not have, and say so at length. */
const disabledPlugins = [
  "io.containerd.snapshotter.v1.aufs",
  "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper",
  "io.containerd.snapshotter.v1.zfs",
  "io.containerd.internal.v1.opt",
];

export function containerdConfig({ cniFolder }: NodeFacts): string {
  const cri = `plugins."io.containerd.grpc.v1.cri"`;
  return `version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ${JSON.stringify(disabledPlugins)}

[grpc]
  address = "${containerdSocket}"

[${cri}]
  # Lowering it is not allowed everywhere.
  restrict_oom_score_adj = true
  sandbox_image = "${pauseImage}"

[${cri}.containerd]
  snapshotter = "overlayfs"
  default_runtime_name = "runc"

[${cri}.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"

[${cri}.containerd.runtimes.runc.options]
  SystemdCgroup = false

[${cri}.cni]
  bin_dir = "${cniFolder}"
  conf_dir = "${configFolder}/cni"
`;
}

/** Pods reach each other and the node over a bridge; beyond it they are routed, not translated. */
export function cniConfig({ podNet }: NodeFacts): string {
  const ipam = {
    type: "host-local",
    dataDir: "/run/cni-addresses",
    ranges: [[{ subnet: podNet }]],
    routes: [{ dst: "0.0.0.0/0" }],
  };
  const bridge = { type: "bridge", bridge: "cni0", isGateway: true, hairpinMode: true, ipam };
  return JSON.stringify({ cniVersion: "0.4.0", name: "pods", plugins: [bridge] });
}

export function kubeletConfig({ address, cgroup }: NodeFacts): string {
  return JSON.stringify({
    apiVersion: "kubelet.config.k8s.io/v1beta1",
    kind: "KubeletConfiguration",
    address,
    // Who reaches it is on the tests' own network; who may do what there is not what is tested.
    authentication: { anonymous: { enabled: true }, webhook: { enabled: false } },
    authorization: { mode: "AlwaysAllow" },
    containerRuntimeEndpoint: `unix://${containerdSocket}`,
    cgroupDriver: "cgroupfs",
    cgroupRoot: cgroup,
    failCgroupV1: false,
    enforceNodeAllocatable: [],
    oomScoreAdj: 0,
    failSwapOn: false,
    clusterDNS: [serviceAddresses.dns],
    clusterDomain: "cluster.local",
    resolvConf: `${configFolder}/resolv.conf`,
    // What the machine's disk is like is no business of the tests' pods.
    evictionHard: { "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%" },
    imageGCHighThresholdPercent: 100,
    volumePluginDir: "/var/lib/kubelet/volumeplugins",
    serializeImagePulls: false,
  });
}

/** Options of the kubelet; `labels` are the node's. */
export function kubeletOptions({ name, address }: NodeFacts, labels: Readonly<Record<string, string>>): string[] {
  const labelTexts = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  return [
    `--config=${configFolder}/kubelet.json`,
    `--kubeconfig=${configFolder}/kubelet.kubeconfig`,
    `--hostname-override=${name}`,
    `--node-ip=${address}`,
    ...(labelTexts.length > 0 ? [`--node-labels=${labelTexts.join(",")}`] : []),
    "--v=2",
  ];
}

export function resolvConf(): string {
  return `nameserver ${serviceAddresses.dns}\n`;
}
