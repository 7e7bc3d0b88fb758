# Everything a user runs, and everything the automatic checks run. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
VENV := .venv
TIDEMARK := $(VENV)/bin/tidemark

# Options of `make demo`; an empty one is not passed on.
DATA ?=
LABELS ?=
MAPPING ?=
SIZE ?=
SPAN ?=
demo_options = $(if $(DATA),--data "$(DATA)") $(if $(LABELS),--labels "$(LABELS)") $(if $(MAPPING),--mapping "$(MAPPING)") \
  $(if $(SIZE),--size "$(SIZE)") $(if $(SPAN),--span "$(SPAN)")
# Options of `make crash-test`.
KILLS ?=
SEED ?=
# Options of pytest, for example `make test ARGS="tests/unit -x"`.
ARGS ?=

# Where an environment forbids Python to keep what it has parsed, each start of a worker would parse every library anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo test check bench bench-spark crash-test up down clean distclean

help: ## list these commands
	@grep -hE '^[a-z-]+: .*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 18

setup: ## install what is missing into .venv (nothing happens the second time)
	@bash infra/setup.sh

demo: setup ## run the main job and leave the system running: DATA= LABELS= MAPPING= SIZE=small|full SPAN=test|validation
	@$(TIDEMARK) demo $(demo_options)

test: setup ## run every test, on servers of its own: ARGS="..." goes to pytest
	@$(if $(ARGS),$(VENV)/bin/python -m pytest $(ARGS),tests/run.sh $(VENV)/bin/python)

check: setup ## style, format, types and the direction of imports
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

bench: setup ## measure the figures of the README (up to 30 minutes)
	@$(TIDEMARK) bench

bench-full: setup ## what an event costs up to EVENTS=10000000 of history, rebuilds, restarts (20 minutes and 40 GB of disk)
	@$(TIDEMARK) bench --history --events $(or $(EVENTS),10000000)

bench-spark: setup ## the engine beside Spark on EVENTS=1000000, same topic and cores; installs Spark itself (15 minutes)
	@$(TIDEMARK) bench --spark --events $(or $(EVENTS),1000000)

crash-test: setup ## kill workers at every step, servers and network under load, then verify: KILLS= SEED=
	@$(VENV)/bin/python -m tests.e2e.crash_matrix --kills $(or $(KILLS),150) $(if $(SEED),--seed $(SEED))

up: setup ## start the local servers
	@$(TIDEMARK) up

down: ## stop every server and worker; state stays
	@bash infra/stack/stop.sh down

clean: ## stop everything and remove all state; the installation stays
	@bash infra/stack/stop.sh clean

distclean: clean ## remove the installation too
	@rm -rf $(VENV) tidemark.egg-info build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	@find . -name __pycache__ -type d -prune -not -path './.git/*' -exec rm -rf {} +
