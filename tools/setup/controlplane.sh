#!/usr/bin/env bash
# Finds or makes the programs of a real Kubernetes, the sidecars of a CSI driver, csi-sanity, and the CRDs for snapshots, and
# links them into .cache/controlplane/ where the tests look. Each program is taken from the first of: $KUBEBUILDER_ASSETS, the
# cache outside the tree, the archives (where the internet is reachable), Go modules. Sidecars and csi-sanity are released as
# images only, so they come from Go modules. A second run only checks links.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

modules=$root/tools/controlplane
links=$root/.cache/controlplane
minor=1.34
version=1.34.4
programs="etcd kube-apiserver kube-controller-manager kubectl kube-scheduler kubelet"
csi_programs="csi-provisioner csi-resizer csi-snapshotter snapshot-controller csi-snapshot-metadata csi-sanity"
snapshot_client=github.com/kubernetes-csi/external-snapshotter/client/v8
metadata_client=github.com/kubernetes-csi/external-snapshot-metadata/client

# The archives of another patch release serve as well: only the minor version matters between these programs.
archive_version=1.34.1
archive_base=${LONGSHORE_ENVTEST_BASE:-https://github.com/kubernetes-sigs/controller-tools/releases/download}
release_base=${LONGSHORE_RELEASE_BASE:-https://dl.k8s.io/release}
archive_sha256_amd64=c8500090806ed5ce4064eeeb2a5666476a5168c1f4ff0eadd54fe59b22c4baa7
archive_sha256_arm64=cb56759108ea15933abf79d8573bbf66cca8c13e20425d7bc9f95941a060649d

go_version=$(cd "$modules" && go env GOVERSION 2>/dev/null || echo none)

# key_of FOLDER: what is built of the modules that go.mod and go.sum there name.
key_of() {
  (cat "$1/go.mod" "$1/go.sum"; echo "$go_version $(uname -sm)") | sha256sum | cut -c1-16
}

store=$cache/controlplane/$(key_of "$modules")
# Apart, for they need a newer CSI specification, and the latter a newer snapshotter, than the others are made of.
sanity_store=$cache/controlplane/$(key_of "$modules/sanity")
metadata_store=$cache/controlplane/$(key_of "$modules/metadata")

version_of() {
  case $1 in
    *kubectl) "$1" version --client ;;
    *) "$1" --version ;;
  esac 2>/dev/null
}

# The program runs, and is of our minor version (etcd has versions of its own; any that runs will do).
fits() {
  local text
  [ -x "$1" ] || return 1
  text=$(version_of "$1") || return 1
  case $1 in
    */etcd | */etcd.tmp) return 0 ;;
    *) grep -qF "v$minor." <<<"$text" ;;
  esac
}

from_assets() {
  local given=${KUBEBUILDER_ASSETS:-}/$1
  [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$given" ] || return 1
  if fits "$given"; then
    ln -sfn "$given" "$links/$1"
    return 0
  fi
  say "$1: the one in KUBEBUILDER_ASSETS is not of Kubernetes $minor, so it is not used"
  return 1
}

architecture() {
  case $(uname -m) in
    x86_64) echo amd64 ;;
    aarch64) echo arm64 ;;
    *) return 1 ;;
  esac
}

# Asked once; a machine without a way out loses at most five seconds.
reachable=
archives_reachable() {
  if [ -z "$reachable" ]; then
    reachable=no
    if [ "${LONGSHORE_DOWNLOAD:-yes}" != no ] && [ "$(uname -s)" = Linux ] && command -v curl >/dev/null && architecture >/dev/null; then
      curl -fsIL --connect-timeout 3 --max-time 5 -o /dev/null "$(archive_url)" 2>/dev/null && reachable=yes
    fi
  fi
  [ "$reachable" = yes ]
}

archive_url() {
  echo "$archive_base/envtest-v$archive_version/envtest-v$archive_version-linux-$(architecture).tar.gz"
}

# fetch URL FILE LABEL: FILE appears whole or not at all; an interrupted download goes on where it stopped.
fetch() {
  [ -f "$2" ] && return 0
  with_progress "$store/download.log" "$3" last_line \
    curl -fsSL --connect-timeout 5 --max-time 900 --speed-limit 10000 --speed-time 30 -C - -o "$2.part" "$1" ||
    { say "$3: the download failed ($(tail -n 1 "$store/download.log" | cut -c1-120))"; return 1; }
  mv "$2.part" "$2"
}

check_sum() {
  if echo "$2  $1" | sha256sum --check --status; then return 0; fi
  say "$1 has another checksum than it should have; it is thrown away"
  rm -f "$1"
  return 1
}

# keep NAME: takes a downloaded program into the store once it has shown that it runs.
keep() {
  chmod 755 "$store/$1.tmp"
  if fits "$store/$1.tmp"; then mv "$store/$1.tmp" "$store/$1"; return 0; fi
  rm -f "$store/$1.tmp"
  return 1
}

# The archive has etcd, kube-apiserver and kubectl; the others come from the Kubernetes release itself.
from_archive() {
  local name=$1 file=$store/envtest.tar.gz sum
  archives_reachable || return 1
  case $name in
    kube-controller-manager | kube-scheduler | kubelet) from_release "$name"; return ;;
  esac
  eval "sum=\$archive_sha256_$(architecture)"
  fetch "$(archive_url)" "$file" "the envtest archive" && check_sum "$file" "$sum" || return 1
  tar -xzf "$file" -O "controller-tools/envtest/$name" >"$store/$name.tmp" && keep "$name"
}

from_release() {
  local name=$1 file=$store/$1.download url sum
  url=$release_base/v$archive_version/bin/linux/$(architecture)/$name
  sum=$(curl -fsSL --connect-timeout 5 --max-time 20 "$url.sha256") || return 1
  fetch "$url" "$file" "$name" && check_sum "$file" "$sum" || return 1
  mv "$file" "$store/$name.tmp" && keep "$name"
}

package_of() {
  case $1 in
    etcd) echo go.etcd.io/etcd/server/v3 ;;
    csi-provisioner) echo github.com/kubernetes-csi/external-provisioner/v5/cmd/csi-provisioner ;;
    csi-resizer) echo github.com/kubernetes-csi/external-resizer/cmd/csi-resizer ;;
    csi-snapshotter | snapshot-controller) echo "github.com/kubernetes-csi/external-snapshotter/v8/cmd/$1" ;;
    csi-snapshot-metadata) echo github.com/kubernetes-csi/external-snapshot-metadata/cmd/csi-snapshot-metadata ;;
    csi-sanity) echo github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity ;;
    *) echo "k8s.io/kubernetes/cmd/$1" ;;
  esac
}

# In the output of go build -v each line is a module that is downloaded or a package that is about to be compiled.
compile_phase() {
  local packages downloads last
  packages=$(grep -vc '^go: ' "$1" || true)
  downloads=$(grep -c '^go: downloading' "$1" || true)
  last=$(tail -n 1 "$1" | cut -c1-80)
  case $last in
    '') echo "resolving modules" ;;
    go:*) echo "downloading modules, $downloads so far" ;;
    k8s.io/kubernetes/cmd/* | go.etcd.io/etcd/server/v3 | github.com/kubernetes-csi/*/cmd/*) echo "linking, after $packages packages" ;;
    *) echo "compiling package $packages: $last" ;;
  esac
}

# from_modules NAME FOLDER STORE: builds a program of the modules that go.mod in FOLDER names.
from_modules() {
  local name=$1 folder=$2 store=$3 started=$SECONDS stamp="k8s.io/component-base/version"
  local log=$store/$name.log
  command -v go >/dev/null ||
    fail "$name has to be built, and there is no Go" "install Go 1.26 or later, or set KUBEBUILDER_ASSETS to a folder that has it"
  say "$name: building from Go modules, once (kube-apiserver takes about six minutes on two cores, the others one or two)"
  with_progress "$log" "$name" compile_phase env -C "$folder" CGO_ENABLED=0 GOFLAGS="-mod=readonly -buildvcs=false" \
    go build -v -trimpath \
    -ldflags "-s -w -X $stamp.gitVersion=v$version -X $stamp.gitMajor=${minor%.*} -X $stamp.gitMinor=${minor#*.}" \
    -o "$store/$name.tmp" "$(package_of "$name")" || {
    tail -n 20 "$log" >&2
    fail "building $name failed" "read $log, then run the same command again; what was compiled is kept"
  }
  mv "$store/$name.tmp" "$store/$name"
  say "$name: built in $((SECONDS - started)) s"
}

provide() {
  local name=$1
  from_assets "$name" && return 0
  [ -x "$store/$name" ] || from_archive "$name" || from_modules "$name" "$modules" "$store"
  ln -sfn "$store/$name" "$links/$name"
}

provide_csi() {
  local name=$1 folder=$modules place=$store
  case $name in
    csi-sanity) folder=$modules/sanity place=$sanity_store ;;
    csi-snapshot-metadata) folder=$modules/metadata place=$metadata_store ;;
  esac
  [ -x "$place/$name" ] || from_modules "$name" "$folder" "$place"
  ln -sfn "$place/$name" "$links/$name"
}

# keep_crds STORE FOLDER CLIENT: the definitions that come with a client, which is one of the modules that go.mod in FOLDER names.
keep_crds() {
  local store=$1 folder=$2 client=$3 module
  [ ! -d "$store/crds" ] || return 0
  command -v go >/dev/null || fail "the CRDs for snapshots come from Go modules, and there is no Go" "install Go 1.26 or later"
  (cd "$folder" && go mod download "$client") ||
    fail "the module $client could not be had" "check the Go module proxy (go env GOPROXY), then run the same command again"
  module=$(cd "$folder" && go list -m -f '{{.Dir}}' "$client")
  rm -rf "$store/crds.tmp"
  install -D -m 644 -t "$store/crds.tmp" "$module"/config/crd/*.storage.k8s.io_*.yaml
  mv "$store/crds.tmp" "$store/crds"
}

provide_crds() {
  keep_crds "$store" "$modules" "$snapshot_client"
  keep_crds "$metadata_store" "$modules/metadata" "$metadata_client"
  # Copies, for kubectl does not follow a link to a folder.
  rm -rf "$links/crds.tmp"
  cp -r "$store/crds" "$links/crds.tmp"
  cp "$metadata_store"/crds/* "$links/crds.tmp"
  if [ ! -L "$links/crds" ] && diff -rq "$links/crds.tmp" "$links/crds" >/dev/null 2>&1; then
    rm -rf "$links/crds.tmp"
    return 0
  fi
  rm -rf "$links/crds"
  mv "$links/crds.tmp" "$links/crds"
}

mkdir -p "$store" "$sanity_store" "$metadata_store" "$links"
with_lock "$cache/controlplane/lock"
for name in $programs; do provide "$name"; done
for name in $csi_programs; do provide_csi "$name"; done
provide_crds
rm -f "$store"/envtest.tar.gz "$store"/*.part
