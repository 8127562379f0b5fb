// What this machine has of what some tests, and the demo at its best, need: found out by trying, not by asking for parts.

import { spawnSync } from "node:child_process";
import { accessSync, constants } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { controlPlaneAssets } from "./e2e/control-plane-program.ts";

export type Need = "root" | "xfs" | "btrfs" | "controlplane";

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
  controlplane: () => {
    const lacking = ["etcd", "kube-apiserver", "kube-controller-manager", "kubectl"].filter((name) => !runnable(name));
    return lacking.length === 0 ? undefined : `no ${lacking.join(", ")}, run make setup`;
  },
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
  const tried = spawnSync("unshare", ["--mount", "sh", "-c", script], {
    encoding: "utf8",
    env: { ...process.env, TMPDIR: tmpdir(), PATH: `${process.env.PATH}:/usr/sbin:/sbin` },
  });
  if (tried.status === 0) return undefined;
  return (tried.error?.message ?? tried.stderr).trim().split("\n").at(-1) || "it cannot be mounted";
}

function runnable(program: string): boolean {
  try {
    accessSync(join(controlPlaneAssets, program), constants.X_OK);
    return true;
  } catch {
    return false;
  }
}
