#!/usr/bin/env bash
# Installs the npm packages of package-lock.json, among them Node 26 itself. Runs under whatever Node the machine has,
# and does nothing while the lock file is the one that was installed last.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
cd "$root"

stamp=node_modules/.longshore-stamp
wanted=$(sha256sum <package-lock.json | cut -c1-64)
[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || exit 0
mkdir -p .cache
with_lock "$root/.cache/npm.lock"
# Another set-up may have done it while we waited.
[ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || exit 0

command -v npm >/dev/null || fail "there is no npm" "install Node.js 20 or later"
packages_phase() { echo "$(find node_modules -maxdepth 2 -name package.json 2>/dev/null | wc -l) packages so far"; }

say "npm packages: installing what package-lock.json names"
# The machine's Node is older than ours, and npm would say so for every package; ours comes with the packages.
with_progress .cache/npm-ci.log "npm packages" packages_phase npm ci --no-audit --no-fund --loglevel=error || {
  tail -n 20 .cache/npm-ci.log >&2
  fail "npm ci failed" "read .cache/npm-ci.log; if a package is missing from the lock file, run npm install and commit the lock file"
}
node_modules/.bin/node --version >/dev/null ||
  fail "the npm package node did not install its binary" "remove node_modules and run the same command again"
echo "$wanted" >"$stamp.tmp"
mv "$stamp.tmp" "$stamp"
say "npm packages: done, Node $(node_modules/.bin/node --version)"
