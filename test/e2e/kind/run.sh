#!/usr/bin/env bash
# Runs the scenarios of csi-clusters.test.ts in two clusters: those that SOURCE_KUBECONFIG and TARGET_KUBECONFIG lead to, which must be
# able to run the images of .cache/image; else two of kind, which are made for it and deleted afterwards, whatever happens.
# Needs kind, Docker, mkfs.xfs and root for the latter. docs/testing-clusters.md tells more.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
PATH=$PATH:/usr/sbin:/sbin

run_scenarios() {
  node --disable-warning=ExperimentalWarning --experimental-vm-modules node_modules/jest/bin/jest.js test/e2e/csi-clusters
}

if [ -n "${SOURCE_KUBECONFIG:-}" ] || [ -n "${TARGET_KUBECONFIG:-}" ]; then
  run_scenarios
  exit
fi

for program in kind docker mkfs.xfs; do
  command -v "$program" >/dev/null || { echo "e2e-kind: there is no $program" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "e2e-kind: mounting file systems for the nodes takes root" >&2; exit 1; }

folder=$(mktemp -d "${TMPDIR:-/tmp}/longshore-kind-XXXXXX")
mark=${folder##*-}
clusters=()

remove_all() {
  trap - EXIT
  for cluster in "${clusters[@]}"; do
    kind delete cluster --name "$cluster" || echo "e2e-kind: cluster $cluster could not be deleted" >&2
  done
  for disk in "$folder"/*/data; do
    mountpoint -q "$disk" || continue
    detach_volumes "$(mountpoint --fs-devno "$disk")"
    umount "$disk" || echo "e2e-kind: $disk is still in use" >&2
  done
  rm -rf --one-file-system "$folder"
}

# detach_volumes MAJOR:MINOR: volumes on that file system, which pods had mounted when the run was broken off, keep it in use.
detach_volumes() {
  local device behind
  losetup --list --noheadings --output NAME,BACK-MAJ:MIN | while read -r device behind; do
    [ "$behind" != "$1" ] || losetup --detach "$device" || true
  done
}
trap remove_all EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

node tools/image.ts --all

make_cluster() {
  local own=$folder/$1 cluster=longshore-$1-${mark,,}
  mkdir -p "$own/data"
  truncate --size 8G "$own/disk"
  mkfs.xfs -q "$own/disk"
  mount -o loop "$own/disk" "$own/data"
  sed "s#DATA_FOLDER#$own/data#" test/e2e/kind/cluster.yaml >"$own/cluster.yaml"
  clusters+=("$cluster")
  kind create cluster --name "$cluster" --config "$own/cluster.yaml" --kubeconfig "$own/kubeconfig" --wait 180s
  for image in .cache/image/*.tar; do
    # Nodes have one of their own, which their containerd is set to.
    [ "$image" = .cache/image/pause.tar ] || kind load image-archive "$image" --name "$cluster"
  done
}

make_cluster source
make_cluster target
export SOURCE_KUBECONFIG=$folder/source/kubeconfig TARGET_KUBECONFIG=$folder/target/kubeconfig
run_scenarios
