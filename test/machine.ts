// What this machine has of what some tests, and the demo at its best, need: found out by trying, not by asking for parts.

import { spawnSync } from "node:child_process";
import { accessSync, constants, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { controlPlaneAssets } from "./e2e/control-plane-program.ts";
import { cniFolders } from "./e2e/kubelets/node-config.ts";

export type Need =
  | "root"
  | "xfs"
  | "btrfs"
  | "netns"
  | "controlplane"
  | "lua5.4"
  | "openssl"
  | "apt"
  | "kubelets"
  | "csi-sanity";

const found = new Map<Need, string | undefined>();

/** Why this machine lacks it, in a few words, or nothing when it is there. Each is looked for once in a test file. */
export function missing(need: Need): string | undefined {
  if (!found.has(need)) found.set(need, look[need]());
  return found.get(need);
}

const look: Readonly<Record<Need, () => string | undefined>> = {
  root: () => (process.getuid?.() === 0 ? undefined : "not running as root"),
  xfs: () => mountable("xfs", "mkfs.xfs -q -f"),
  btrfs: () => mountable("btrfs", "mkfs.btrfs -q -f"),
  netns: networks,
  "lua5.4": () => tryOut("lua5.4", ["-v"]),
  openssl: () => tryOut("openssl", ["version"]),
  apt: () => tryOut("sh", ["-c", "apt-get --version && dpkg-deb --version"]),
  controlplane: () => {
    const lacking = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"].filter((name) => !runnable(name));
    return lacking.length === 0 ? undefined : `no ${lacking.join(", ")}, run make setup`;
  },
  kubelets: () =>
    look.root() ?? look.controlplane() ?? look.netns() ?? look.xfs() ?? look.openssl() ?? nodeParts() ?? containers(),
  "csi-sanity": () => (runnable("csi-sanity") ? undefined : "no csi-sanity, run make setup"),
};

// Asking for the parts (module, loop device, mkfs, privilege) one by one misses a case on some machine; mounting one
// and cloning a file in it does not. The mount namespace takes the mount and its loop device along when it ends.
function mountable(fileSystem: string, makeIt: string): string | undefined {
  const reason = look.root();
  if (reason !== undefined) return reason;
  const script = `set -e
    folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
    truncate -s 512M "$folder/image"; mkdir "$folder/mount"
    ${makeIt} "$folder/image"
    mount -t ${fileSystem} -o loop "$folder/image" "$folder/mount"; trap 'umount "$folder/mount"; rm -rf "$folder"' EXIT
    echo x > "$folder/mount/a"; cp --reflink=always "$folder/mount/a" "$folder/mount/b"`;
  return tryOut("unshare", ["--mount", "sh", "-c", script]);
}

/** What a node has besides, and that the checkout does not lie where a node has a folder of its own. */
function nodeParts(): string | undefined {
  const lacking = ["kubelet", "kube-scheduler"].filter((name) => !runnable(name));
  if (!cniFolders.some((folder) => existsSync(join(folder, "host-local")))) lacking.push("CNI plugins");
  if (lacking.length > 0) return `no ${lacking.join(", ")}, run make setup`;
  const hidden = ["/run/", "/var/lib/", "/var/log/"].find((folder) => controlPlaneAssets.startsWith(folder));
  return hidden === undefined ? undefined : `the checkout is below ${hidden}, of which each node has one of its own`;
}

/** What containers are made of, in namespaces that end with the script. */
function containers(): string | undefined {
  const script = `set -e
    containerd --version; ctr --version; runc --version
    mount -t proc proc /proc
    ls /sys/fs/cgroup/cgroup.controllers || ls /sys/fs/cgroup/memory
    folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
    mkdir "$folder/lower" "$folder/upper" "$folder/work" "$folder/all"
    mount -t overlay -o "lowerdir=$folder/lower,upperdir=$folder/upper,workdir=$folder/work" overlay "$folder/all"
    trap 'umount "$folder/all"; rm -rf "$folder"' EXIT`;
  return tryOut("unshare", ["--mount", "--pid", "--fork", "sh", "-c", script]);
}

/** Namespaces, bridges, and packets that are dropped on a bridge; all of it in a namespace that ends with the script. */
function networks(): string | undefined {
  const reason = look.root();
  if (reason !== undefined) return reason;
  const script = `set -e
    ip link add bridge type bridge
    ip link add one type veth peer name other
    ip link set one master bridge
    tc qdisc add dev other root tbf rate 8mbit burst 32kb latency 200ms
    nft add table bridge tried
    nft add chain bridge tried forward '{ type filter hook forward priority 0; }'
    nft add rule bridge tried forward numgen random mod 2 == 0 drop`;
  return tryOut("unshare", ["--net", "sh", "-c", script]);
}

function tryOut(command: string, options: readonly string[]): string | undefined {
  const tried = spawnSync(command, options, {
    encoding: "utf8",
    env: { ...process.env, TMPDIR: tmpdir(), PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
  if (tried.status === 0) return undefined;
  return (tried.error?.message ?? tried.stderr).trim().split("\n").at(-1) || "it was refused without a word";
}

function runnable(program: string): boolean {
  try {
    accessSync(join(controlPlaneAssets, program), constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
