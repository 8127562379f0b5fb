#!/usr/bin/env bash
# Everything the targets of the Makefile need, made once: `setup.sh` for all of it, or `setup.sh npm` for one step.
# Each step looks first whether there is anything to do, may be interrupted at any time, and goes on when run again.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The step says what was interrupted; we only pass the signal on, and wait for longer than it does for its own.
forward() {
  trap '' INT TERM HUP
  if [ -n "$child" ]; then
    kill -TERM -- "-$child" 2>/dev/null || true
    wait "$child" || true
  fi
  exit "$1"
}
trap 'forward 130' INT
trap 'forward 143' TERM HUP

started=$SECONDS
for step in ${*:-debian npm controlplane}; do
  set -m
  "$root/tools/setup/$step.sh" </dev/null &
  child=$!
  set +m
  wait "$child"
  child=
done
[ $((SECONDS - started)) -lt 2 ] || say "all done in $((SECONDS - started)) s"
