# Two commands on a fresh Debian machine, as root: `make demo` and `make test`. `make help` lists the rest.
# The first one installs what is missing (tools/bootstrap.sh); afterwards that costs nothing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test test-torture bench lint lock clean

BIN := .venv/bin
READY := .venv/.ready
SEEDS ?= 100
CACHE := $(CURDIR)/.venv/cache

# What the tools remember stays in .venv, so that nothing else appears in the tree.
export PYTHONPYCACHEPREFIX := $(CACHE)/bytecode
export MYPY_CACHE_DIR := $(CACHE)/mypy
export RUFF_CACHE_DIR := $(CACHE)/ruff
export HYPOTHESIS_STORAGE_DIRECTORY := $(CACHE)/hypothesis

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

demo: $(READY) ## the lab with everything running, seen from inside the laptop (as root, about a minute)
	@$(BIN)/python -m warren.lab.demo

test: $(READY) lint ## everything that must be true before a change goes in (as root)
	@WARREN_REQUIRE_LAB=1 $(BIN)/python -m pytest -o cache_dir=$(CACHE)/pytest

test-torture: $(READY) ## the tests that take seeds, with more of them (SEEDS=100)
	@WARREN_SEEDS=$(SEEDS) $(BIN)/python -m pytest -o cache_dir=$(CACHE)/pytest tests/sim

bench: $(READY) ## the whole path beside bare engine cores; writes docs/benchmarks.md (as root, a minute)
	@$(BIN)/python -m tests.bench.path --write

lint: $(READY) ## formatting, style and types
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet .
	@MYPYPATH=src $(BIN)/mypy --no-error-summary -p warren

lock: ## choose the newest versions that pyproject.toml allows (needs uv)
	@uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-emit-find-links --extra edge --extra lab --extra dev pyproject.toml -o requirements.txt

clean: ## remove .venv and what the tools keep beside it (Debian packages stay)
	@rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.txt pyproject.toml tools/bootstrap.sh
	@tools/bootstrap.sh
	@touch $@
