# What a developer types. Everything works on a machine with only Python 3.11+ and make:
# the first run sets up .venv from the hashed lock files, later runs find it ready and take seconds.
SHELL := /usr/bin/env bash
PY := .venv/bin/python
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run test check format bench docs lock setup clean

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run:  ## train, package, serve and send traffic to the payments example (SECONDS=30 ends by itself)
	@scripts/setup.sh run
	@$(PY) -m examples.payments.run $(if $(SECONDS),--seconds $(SECONDS))

test:  ## every test (ARGS="-k contract" passes options to pytest)
	@scripts/setup.sh dev
	@scripts/services.sh
	@$(PY) -m pytest -n auto $(ARGS)

check:  ## lint, format, types, layers
	@scripts/setup.sh dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-cache  # a stash or checkout leaves its cache stale

format:  ## let ruff rewrite what it can
	@scripts/setup.sh dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench:  ## speed and memory, as ratios in one run (ARGS passes options)
	@scripts/setup.sh dev
	@$(PY) -m benchmarks $(ARGS)

docs:  ## write the generated reference pages again and check every link
	@scripts/setup.sh dev
	@$(PY) -m scripts.docs

lock:  ## resolve the dependencies again and write requirements/*.txt
	@scripts/setup.sh run
	@scripts/lock.sh

setup:  ## only set up .venv for development
	@scripts/setup.sh dev

clean:  ## remove the environment, the demo's home and caches
	rm -rf .venv .run build dist .mypy_cache .ruff_cache .import_linter_cache .hypothesis
