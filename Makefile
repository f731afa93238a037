# Everything a developer types. Each target that needs the environment sets it up first; that takes a second
# once it is there.
.DEFAULT_GOAL := help
SHELL := /bin/bash

# setup.sh installs uv here when the system has none.
export PATH := $(PATH):$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/psephos/uv/bin
RUN := uv run --no-sync
EXAMPLE := manifests/examples/burlington-2009-irv

.PHONY: help
help: ## this list
	@echo "Psephos: votes on Kubernetes. make TARGET, with TARGET one of"
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 16

.PHONY: setup
setup: ## install what is missing (uv, JDK, Maven, Redis, Chromium, Go, the servers)
	@scripts/setup.sh tests

.PHONY: stack
stack: # the same without what only tests need: an API server takes minutes to build
	@scripts/setup.sh

.PHONY: demo
demo: stack ## a real election on your machine, from the first vote to the recount
	$(RUN) psephos dev run $(EXAMPLE)/session.yaml --ballots $(EXAMPLE)/ballots.csv \
		--duplicates 0.1 --invalid 0.01 --workers 2 --demo

.PHONY: test
test: setup ## all tests, on real servers
	$(RUN) pytest -n 3 --dist loadfile --durations 20

.PHONY: test-fast
test-fast: stack ## unit tests and one whole election; no API server
	$(RUN) pytest -n 3 --dist loadscope --no-loadscope-reorder --hypothesis-profile fast \
		tests/unit tests/integration/elections/test_burlington.py

.PHONY: cluster
cluster: ## a Kubernetes cluster of two nodes on this machine, without Docker too
	@e2e/cluster/up

.PHONY: cluster-down
cluster-down: ## end that cluster
	@e2e/cluster/down

.PHONY: e2e
e2e: setup ## the product in a real cluster: an election from apply to Final, and what may die meanwhile
	$(RUN) python -m e2e.deploy
	$(RUN) pytest e2e --durations 10 $(if $(K),-k "$(K)")

.PHONY: demo-cluster
demo-cluster: stack ## the same for you: addresses to open, sessions to watch; make cluster-down ends it
	$(RUN) python -m e2e.demo

.PHONY: elections
elections: stack ## all five real elections, with duplicates, invalid ballots and faults
	$(RUN) pytest tests/integration/elections --all-elections

.PHONY: long
long: setup ## every test that `make test` leaves out because it takes long
	$(RUN) pytest -m long --all-faults --all-elections

.PHONY: faults
faults: stack ## every fault on real servers, ten thousand histories of the model, and its mutants
	$(RUN) pytest tests/faults tests/model tests/integration/operator/test_kafka_restarts.py \
		-n 3 --dist worksteal --all-faults --histories 10000 $(if $(SEED),--seed $(SEED))

SIZE := quick

.PHONY: bench
bench: ## product and peers side by side, into docs/benchmarks; SIZE=full takes an hour; NAME=tally: that one
	@scripts/setup.sh bench
	uv run --frozen --all-extras --group bench python -m bench $(NAME) --size $(SIZE)

FUZZ_SECONDS := 20

.PHONY: fuzz
fuzz: setup ## every decoder of outside bytes, FUZZ_SECONDS each, guided by coverage
	uv run --frozen --all-extras --group fuzz python -m tests.fuzz --seconds $(FUZZ_SECONDS)

.PHONY: check
check: stack ## lint, format, types, layers
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(RUN) lint-imports

.PHONY: fmt
fmt: stack ## format and sort imports
	$(RUN) ruff check --fix --select I
	$(RUN) ruff format

.PHONY: docs
docs: stack ## write docs/api.md anew, from the code
	$(RUN) python -m psephos_lab.api_docs

.PHONY: manifests
manifests: setup ## write the CRD and the plain manifests anew, from the model and the chart
	@scripts/manifests.sh

.PHONY: figures
figures: stack ## draw the figures of docs/ anew, from what the code does
	$(RUN) python -m tests.model.drawing docs/images/exactly-once.svg

.PHONY: clean
clean: ## remove the environment, caches and the local stack's data
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .psephos build dist
	find workers operator tests -name __pycache__ -type d -prune -exec rm -rf {} +
