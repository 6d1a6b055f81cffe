# Two commands on a fresh Debian machine, as root: `make demo` and `make test`. `make help` lists the rest.
# The first one installs what is missing (tools/bootstrap.sh); afterwards that costs nothing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test test-apps test-torture test-controller soak soak-lab chaos chaos-full bench native lint lock clean

BIN := .venv/bin
READY := .venv/.ready
SEEDS ?= 100
# native or aioquic; nothing: native where it is installed
ENGINE ?= $(WARREN_ENGINE)
CACHE := $(CURDIR)/.venv/cache
PYTEST := $(BIN)/python -m pytest -o cache_dir=$(CACHE)/pytest
# In three processes on two cores, since most tests of the lab wait for something; those that share a lab stay in one.
AT_ONCE := -n 3

# What the tools remember stays in .venv, so that nothing else appears in the tree.
export PYTHONPYCACHEPREFIX := $(CACHE)/bytecode
export MYPY_CACHE_DIR := $(CACHE)/mypy
export RUFF_CACHE_DIR := $(CACHE)/ruff
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis
export WARREN_ENGINE := $(ENGINE)

# What `make test` runs on aioquic too. Torture (tests/sim) has every pairing of engines anyway.
ON_AIOQUIC := tests/sim/test_torture_paths.py tests/sim/test_peer.py tests/lab/thread/test_flows.py

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: native ## the lab with everything running, seen from inside the laptop (as root, about a minute)
	@$(BIN)/python -m warren.lab.demo

test: native lint ## everything that must be true before a change goes in (as root; ENGINE=aioquic: all on that)
	@if [ -z "$(ENGINE)" ] && [ -e .venv/.native ]; then \
	  echo "== on aioquic, in part"; WARREN_ENGINE=aioquic WARREN_REQUIRE_LAB=1 $(PYTEST) $(AT_ONCE) $(ON_AIOQUIC); \
	  echo "== on the native engine, all"; fi
	@WARREN_REQUIRE_LAB=1 $(PYTEST) $(AT_ONCE)

test-apps: native ## applications that take long or are slow to install (as root, a quarter of an hour)
	@tools/bootstrap.sh apps
	@WARREN_APPS=1 WARREN_REQUIRE_LAB=1 $(PYTEST) tests/apps

test-torture: native ## the tests that take seeds, with more of them (SEEDS=100)
	@WARREN_SEEDS=$(SEEDS) $(PYTEST) tests/sim

test-controller: $(READY) ## the native engine's own tests in release mode: its controller's table (needs Rust; minutes)
	@tools/native.sh controller

soak: SEEDS = 1000
MODEL ?= 5000
soak: native ## torture of each pairing of engines, SEEDS=1000; the stateful model, MODEL=5000; writes docs/soak*.md (hours)
	@$(BIN)/python -m tests.sim.soak $(SEEDS) --model $(MODEL) --journal .venv/soak-$$(git rev-parse --short HEAD).jsonl --write

soak-lab: native ## an hour in the lab on a link that stays bad and changes; writes docs/soak-lab.md (as root)
	@$(BIN)/python -m tests.lab.hour --write

chaos: native ## ten minutes of kills, freezes, cuts and loss under real programs; writes docs/chaos.md (as root)
	@$(BIN)/python -m tests.chaos --write $(CHAOS)

chaos-full: native ## the same at full length, twenty of each kind (as root, five hours; CHAOS="--each 3": one)
	@$(BIN)/python -m tests.chaos --full --write $(CHAOS)

bench: native ## the whole path beside other programs; writes docs/benchmarks.md (as root, twenty minutes)
	@tools/bootstrap.sh bench
	@$(BIN)/python -m tests.bench.all --write $(BENCH)

native: $(READY) ## the native QUIC engine into .venv, where Rust 1.88 or newer is there
	@tools/native.sh

lint: $(READY) ## formatting, style and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@MYPYPATH=src $(BIN)/mypy --no-error-summary -p warren

lock: ## choose the newest versions that pyproject.toml allows (needs uv)
	@uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --extra edge --extra postgresql --extra lab --extra dev pyproject.toml -o requirements.txt

clean: ## remove .venv and what the tools keep beside it (Debian packages stay)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt pyproject.toml tools/bootstrap.sh
	@tools/bootstrap.sh
	@touch $@
