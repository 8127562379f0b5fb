# Shared by the set-up steps: messages, progress, locks and files that appear whole or not at all.
# Sourced by bash scripts that have set `set -euo pipefail`.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
cache=${LONGSHORE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/longshore}
child=

say() { printf 'setup: %s\n' "$*"; }

# fail WHAT NEXT: what went wrong, and what the reader does about it.
fail() {
  printf 'setup: %s\n       next: %s\n' "$1" "$2" >&2
  exit 1
}

# Tells the child's process group to end, waits for it, and is blunt after five seconds.
end_child() {
  [ -n "$child" ] || return 0
  kill -TERM -- "-$child" 2>/dev/null || true
  (sleep 5 && kill -KILL -- "-$child") >/dev/null 2>&1 9>&- &
  local timer=$!
  wait "$child" || true
  kill -KILL "$timer" 2>/dev/null || true
  # What the first of them left running.
  kill -KILL -- "-$child" 2>/dev/null || true
}

stop_child() {
  trap '' INT TERM HUP
  end_child
  say "interrupted; run the same command again, it goes on from here" >&2
  exit "$1"
}
trap 'stop_child 130' INT
trap 'stop_child 143' TERM HUP

# with_progress LOG LABEL PHASE COMMAND...: runs the command with its output in LOG, and prints a line every ten seconds
# with the time elapsed and what the shell function PHASE makes of LOG. The command has a process group of its own, so
# that an interrupt ends all of it.
with_progress() {
  local log=$1 label=$2 phase=$3 started=$SECONDS status=0
  shift 3
  : >"$log"
  set -m
  "$@" >"$log" 2>&1 9>&- </dev/null &
  child=$!
  set +m
  while kill -0 "$child" 2>/dev/null; do
    # The timer is waited for together with the command: whichever ends first wakes us.
    sleep 10 >/dev/null 2>&1 9>&- &
    local timer=$!
    wait -n "$child" "$timer" || true
    kill "$timer" 2>/dev/null || true
    wait "$timer" 2>/dev/null || true
    if kill -0 "$child" 2>/dev/null; then say "$label: $((SECONDS - started)) s, $("$phase" "$log")"; fi
  done
  wait "$child" || status=$?
  child=
  return "$status"
}

last_line() { tail -n 1 "$1" | cut -c1-100; }

# with_lock FILE: holds the lock until the script ends; a second set-up waits for the first.
with_lock() {
  mkdir -p "$(dirname "$1")"
  exec 9>"$1"
  command -v flock >/dev/null || return 0
  if flock -n 9; then return 0; fi
  say "another set-up is running; waiting for it to end"
  flock 9
}
