#!/usr/bin/env bash
# Installs the Debian packages that the tests and the demo use, if this machine lets us: as root, with apt. Where it
# does not, it says what is missing and goes on: the tests that need it are skipped by name.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
# The plugins of containernetworking are programs outside of anybody's PATH.
PATH=$PATH:/usr/sbin:/sbin:/usr/lib/cni:/opt/cni/bin

# command=package
needed="mkfs.xfs=xfsprogs xfs_fsr=xfsprogs mkfs.btrfs=btrfs-progs mkfs.ext4=e2fsprogs chattr=e2fsprogs losetup=mount
setpriv=util-linux flock=util-linux curl=curl spin=spin gcc=gcc gcc=libc6-dev ip=iproute2 tc=iproute2 nft=nftables
rsync=rsync restic=restic strace=strace lua5.4=lua5.4 openssl=openssl
containerd=containerd runc=runc host-local=containernetworking-plugins"

missing() {
  local pair
  for pair in $needed; do
    command -v "${pair%%=*}" >/dev/null || echo "${pair#*=}"
  done | sort -u | tr '\n' ' '
}

packages=$(missing)
[ -n "$packages" ] || exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  say "missing, and not ours to install here: $packages(tests that need them are skipped)"
  exit 0
fi
mkdir -p "$root/.cache"
with_lock "$root/.cache/debian.lock"
packages=$(missing)
[ -n "$packages" ] || exit 0

log=$root/.cache/apt.log
apt() { with_progress "$log" "Debian packages" last_line env DEBIAN_FRONTEND=noninteractive "$@"; }
install_them() {
  # shellcheck disable=SC2086 # a list of words
  apt apt-get -y -o DPkg::Lock::Timeout=120 install --no-install-recommends $packages
}

say "Debian packages: installing $packages"
# A set-up that was interrupted in the middle of an installation leaves it to be finished first.
if [ -n "$(dpkg --audit 2>/dev/null)" ]; then apt dpkg --configure -a || true; fi
if ! install_them; then
  apt apt-get -o DPkg::Lock::Timeout=120 update || true
  install_them || say "apt-get could not install $packages(see .cache/apt.log); tests that need them are skipped"
fi
