#!/usr/bin/env bash
# node.sh FOLDER DATA: the first process of a node, in a mount, a process and a network namespace of its own. It puts folders of
# its own where the manifests, the kubelet and containerd expect a node's, says by which number the machine knows it, and
# from then on only collects what has ended. When it is killed, everything on the node is gone, mounts included.
set -euo pipefail
folder=$1 data=$2

# The /proc that is mounted yet is the machine's, and so is the number in it.
read -r pid _ </proc/self/stat

# What other tests have mounted would stay mounted for as long as we live.
mapfile -t points < <(awk '{print $5}' /proc/self/mountinfo | tac)
for point in "${points[@]}"; do
  point=$(printf '%b' "$point")
  case $point in /tmp/* | /dev/shm/* | "${TMPDIR:-/tmp}"/*) ;; *) continue ;; esac
  # Neither what the node's folder is on, nor what cannot be reached by name any more.
  case $folder/ in "$point"/*) continue ;; esac
  case $point in *//deleted) continue ;; esac
  [ "$point" = "$data" ] || umount --lazy "$point"
done

mount -t proc proc /proc
mount --bind "$folder/lib" /var/lib
# Images are unpacked in memory: files by the thousand, which a disk takes a minute to write and to delete.
mkdir -p /var/lib/containerd
mount -t tmpfs -o mode=711 images /var/lib/containerd
mount --bind "$folder/log" /var/log
mkdir -p /var/lib/longshore
mount --bind "$data" /var/lib/longshore
mount -t tmpfs -o mode=755 node /run

# A kubelet sets these on its machine. It finds them set, so that it leaves the machine as it is.
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
  kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
  file=/run/node-settings/${setting%%=*}
  mkdir -p "${file%/*}"
  echo "${setting#*=}" >"$file"
  mount --bind "$file" "/proc/sys/${setting%%=*}"
done

# Mounts that a pod makes are to be seen by the kubelet and by other pods.
mount --make-rshared /
echo 1 >/proc/sys/net/ipv4/ip_forward

echo "$pid"
while true; do
  sleep infinity &
  wait
done
