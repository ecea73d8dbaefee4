# Every target only calls hatch or a script under tools/; continuous integration calls the same ones.
PYTHON ?= python3
# uv reads the system's certificates, as pip does.
export UV_SYSTEM_CERTS ?= 1
# Each is set to use another than what the demo ships with: make demo INPUT=events.jsonl EVENT=module:Class BROKER=memory://
INPUT ?=
EVENT ?=
BROKER ?=
# What `make test` passes on to pytest: make test ARGS="packages/commons-events-core -k producer"; with -s, --pdb or -n0,
# or a single file, the tests run in one process, else in several (tools/lanes.py).
ARGS ?=
# How long `make fuzz` goes on for each decoder
SECONDS ?=
# How many times as long `make chaos` runs.
ROUNDS ?= 5

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help install demo test test-docker chaos coverage lint format types wheels bench fuzz docs services clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(READY) ## make .venv with every package editable and all tools

$(READY): pyproject.toml $(wildcard packages/*/pyproject.toml) tools/install.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) can't make environments: install its venv module (Debian: apt-get install python3-venv)"; exit 1; }
	@echo "Setting up $(VENV) (half a minute the first time) …"
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check "uv>=0.9"
	@$(BIN)/python -m tools.install
	@touch $(READY)

demo: $(READY) ## run a small real scenario (INPUT= your JSON lines, EVENT= their class, BROKER= its URL)
	@$(BIN)/commons-events demo $(if $(INPUT),"$(INPUT)") $(if $(EVENT),--event "$(EVENT)") $(if $(BROKER),--broker "$(BROKER)")

test: $(READY) ## run every test that this machine can run; the last lines say what was left out
	@$(BIN)/python -m pytest -n auto $(ARGS)

test-docker: $(READY) ## test the servers that come in containers, on a Docker engine (starts one if it has to, as root)
	@$(BIN)/python -m tools.docker_tests $(ARGS)

chaos: $(READY) ## run the fault tests on real brokers for longer (ROUNDS=), and contracts that take minutes
	@COMMONS_EVENTS_CHAOS=$(ROUNDS) $(BIN)/python -m pytest packages -k "faults or Transactional or InGroupsOfTheConsumerProtocol or RetryQueues or standing_in" $(ARGS)

coverage: $(READY) ## run the packages' tests and report the lines that none reaches
	@$(BIN)/coverage run -m pytest packages && $(BIN)/coverage report

lint: $(READY) ## check style, imports and generated lists
	@$(BIN)/python -m tools.lint

format: $(READY) ## format the code and sort its imports
	@$(BIN)/ruff check --quiet --fix --exit-zero && $(BIN)/ruff format

types: $(READY) ## check types as a user of the wheels and as a developer sees them
	@$(BIN)/python -m tools.check_types

wheels: $(READY) ## build every wheel and sdist into dist/ and check them
	@$(BIN)/python -m tools.wheels

bench: $(READY) ## measure, with ratios, side by side
	@$(BIN)/python tools/bench

fuzz: $(READY) ## feed every decoder damaged and made-up bytes, a minute each (SECONDS=)
	@$(BIN)/python tools/fuzz $(if $(SECONDS),--seconds $(SECONDS))

docs: $(READY) ## build the site into site/
	@$(BIN)/python -m tools.docs

services: ## install the servers that tests can use (asks apt, as root)
	@$(PYTHON) -m tools.services

clean: ## remove what these targets made
	rm -rf $(VENV) .build dist site .coverage .hypothesis .mypy_cache .pytest_cache .ruff_cache
