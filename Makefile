# Every target is one line here and one script or program elsewhere; `make help` lists them.
# The npm packages bring Node 26, so their folder comes first on the PATH.
export PATH := $(CURDIR)/node_modules/.bin:$(PATH)
SHELL := /bin/bash
MAKEFLAGS += --no-print-directory
JEST := node --disable-warning=ExperimentalWarning --experimental-vm-modules node_modules/jest/bin/jest.js

.DEFAULT_GOAL := help
.PHONY: help setup check test e2e-csi clusters e2e-kind torture bench sim sim-canaries model demo image install uninstall format generate verify clean

help: ## List the targets
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

setup: ## Install what all targets need: npm and Debian packages, a Kubernetes control plane (once, about a quarter of an hour)
	@tools/setup/setup.sh

check: ## Format, lint, types, layers and unit tests: about one minute
	@tools/setup/setup.sh npm
	@exec node tools/run-tests.ts --quick

test: setup ## Run all checks and all tests; ends in "N passed, N failed, N skipped"
	@exec node tools/run-tests.ts

e2e-csi: setup ## Run nothing but the scenarios of the CSI driver, in two clusters of kubelets with real pods: about ten minutes
	@exec $(JEST) test/e2e/csi-clusters

clusters: setup ## Start two clusters of kubelets with Longshore in them, to try things by hand, until Ctrl-C (OPTIONS=--bare without Longshore)
	@exec node --disable-warning=ExperimentalWarning test/e2e/csi/stay.ts $(OPTIONS)

e2e-kind: setup ## Run the scenarios of the CSI driver in two clusters of kind, or in those of SOURCE_KUBECONFIG and TARGET_KUBECONFIG
	@exec test/e2e/kind/run.sh

sim: ## Run clusters of agents in one process through crashes and partitions (SEEDS=2000 FIRST=1, or SEED=n to replay one, told in full)
	@exec node --disable-warning=ExperimentalWarning test/sim/sim.ts

sim-canaries: ## Check that the simulator catches deliberate mutants of the engine (SEEDS=2000, or CANARY=name for one)
	@exec node --disable-warning=ExperimentalWarning test/sim/sim-canaries.ts

torture: setup ## Prune, clone and migrate a volume under random kills for LONGSHORE_TORTURE_SECONDS (600)
	@LONGSHORE_TORTURE_SECONDS=$${LONGSHORE_TORTURE_SECONDS:-600} exec $(JEST) test/e2e/netns/torture

bench: setup ## Measure migrations beside btrfs, rsync, restic and bare copies, as root (FS=xfs, SIZE=small, RUNS=6, CASES="empty …", TOOLS="btrfs …")
	@exec node --disable-warning=ExperimentalWarning bench/bench.ts

model: ## Check the model of the group commit with spin, and that its mutants are caught (OPTIONS=--full for more terms)
	@exec node tools/model.ts $(OPTIONS)

demo: setup ## Watch volumes migrate between storage clusters under two real Kubernetes API servers
	@exec node test/e2e/demo/demo.ts

image: ## Make the container image, and with OPTIONS=--all those that the tests run beside it, as files in .cache/image
	@tools/setup/setup.sh npm
	@exec node tools/image.ts $(OPTIONS)

install: ## Install into the cluster that kubectl talks to, or bring it up to date (OVERLAY=folder; docs/install.md)
	@kubectl apply --server-side -k crds
	@kubectl wait --for=condition=Established --timeout=60s -f crds
	@kubectl apply --server-side -k $(or $(OVERLAY),manifests)

uninstall: ## Take it out of that cluster and leave its data on the nodes (OPTIONS=--dry-run; docs/install.md)
	@tools/setup/setup.sh npm
	@exec node tools/uninstall.ts $(OPTIONS)

format: ## Format and lint in place
	@tools/setup/setup.sh npm
	@exec biome check --write .

generate: ## Write every generated file
	@tools/setup/setup.sh npm
	@exec node tools/generate.ts

verify: ## Fail when a generated file is not what `make generate` writes
	@tools/setup/setup.sh npm
	@exec node tools/generate.ts --verify

clean: ## Remove what was made in the tree; the cache outside it stays (CONTRIBUTING.md says where)
	@rm -rf .cache coverage node_modules
