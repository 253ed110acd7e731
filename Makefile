# Every target does the set-up that it needs. It requires Python >= 3.11, git and make.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LINKED := $(VENV)/.linked
TOOLS  := $(VENV)/.tools
CODE   := store_cache central_stub tests benchmarks
DATA   ?= ../shared/data

# Locks contain versions and hashes, but no index: the machine decides where packages come from.
LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url

.DEFAULT_GOAL := help
.PHONY: help run demo-outage chain test lint types unit format sales outages crashes older offline campaigns crash simulate removals mutants soak bench proto lock upgrade audit sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(LINKED) ## run the demo: a Central, a store, live changes; Ctrl-C ends it
	@exec $(BIN)/store-cache demo

demo-outage: $(LINKED) ## the demo, whose Central goes away now and then (SECONDS=10)
	@exec $(BIN)/store-cache demo --outages $(SECONDS)

chain: $(TOOLS) ## run a chain: PostgreSQL, two Centrals, NATS, three stores, sales; Ctrl-C ends it
	@exec $(BIN)/central-stub chain

test: lint types unit ## run everything that continuous integration checks

lint: $(TOOLS) ## check style, common mistakes and imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(TOOLS) ## check types, strictly
	$(BIN)/mypy

JOBS ?= 2
# Byte code is kept: tests start hundreds of processes. Who has no work left takes some from others.
unit: $(TOOLS) ## run only the tests, JOBS=2 at a time
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest -q -n $(JOBS) --dist worksteal

format: $(TOOLS) ## format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Campaigns need real data (DATA=folder) and take minutes; they are not part of `make test`.
sales: $(TOOLS) ## replay real sales through a store that is killed ten times
	$(BIN)/python -m tests.campaigns.sales --data $(DATA)

outages: $(TOOLS) ## run through all outages of Central
	$(BIN)/python -m tests.campaigns.outages --data $(DATA)

older: $(TOOLS) ## run against older Centrals
	$(BIN)/python -m tests.campaigns.older --data $(DATA)

crashes: $(TOOLS) ## crash a Central that saves its log and its stock apart
	$(BIN)/python -m tests.campaigns.crashes --data $(DATA)

offline: $(TOOLS) ## sell through an outbox while Central is away for a third of the time
	$(BIN)/python -m tests.campaigns.offline --data $(DATA)

campaigns: sales outages crashes older offline ## run all five campaigns

SCHEDULES ?= 10000
KILLS ?= 500
EACH ?= 8
simulate: $(TOOLS) ## run SCHEDULES=10000 fault schedules in virtual time, or SEEDS=17,20-40
	$(BIN)/python -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS),--schedules $(SCHEDULES))

removals: $(TOOLS) ## remove each safeguard in turn, which a test must notice; write docs/evidence/removals.md
	$(BIN)/python -m tests.removals

mutants: $(VENV)/.mutants ## change each module at EACH=8 random places, which tests must notice
	$(BIN)/python -m tests.mutants --each $(EACH)

crash: $(TOOLS) ## kill the real store KILLS times, and at every system call of the disk
	$(BIN)/python -m tests.crash --kills $(KILLS)

MINUTES ?= 30
soak: $(TOOLS) ## use a store for MINUTES=30 while Central fails; its memory must stay flat
	$(BIN)/python -m tests.campaigns.soak --minutes $(MINUTES)

NAMES ?=
bench: $(TOOLS) ## measure, and write docs/benchmarks.md (NAMES="reads start": only these)
	$(BIN)/python -m benchmarks $(NAMES)

proto: $(TOOLS) ## generate the code of store_cache/rpc/generated from proto/
	$(BIN)/python proto/generate.py

lock: $(TOOLS) ## update the lock files after a change of dependencies
	$(LOCK) --extra dev pyproject.toml -o requirements-dev.lock
	$(LOCK) -c requirements-dev.lock pyproject.toml -o requirements.lock
	$(LOCK) -c requirements-dev.lock --extra grpc --extra nats --extra postgres --extra tracing \
		pyproject.toml -o requirements-image.lock
	$(LOCK) -c requirements-dev.lock --group build -o requirements-build.lock
	$(LOCK) -c requirements-dev.lock --group mutants -o requirements-mutants.lock

upgrade: LOCK += --upgrade
upgrade: lock ## update the lock files to the newest versions

# Strict: fail if a package cannot be looked up.
audit: $(TOOLS) ## look for known vulnerabilities in the locked dependencies
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements.lock
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements-dev.lock

# Reproducible: the same lock gives the same file.
SBOM ?= build/sbom.json
sbom: $(TOOLS) ## list the dependencies of the running store as CycloneDX (SBOM=build/sbom.json)
	@mkdir -p $(dir $(SBOM))
	$(BIN)/python -m cyclonedx_py requirements --pyproject pyproject.toml --of JSON \
		--output-reproducible -o $(SBOM) requirements.lock

clean: ## remove everything that was generated
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv is set up in three steps; each ends by creating a file in it. `make run` needs only two.
# When a lock changes, .venv is set up anew.
$(VENV)/.locked: requirements.lock requirements-build.lock requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"store-cache needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	@echo "Setting up $(VENV): $$(cat requirements.lock requirements-build.lock | grep -c ==) packages," \
		"about 20 seconds, once ..."
	@$(PYTHON) -m venv --clear $(if $(OUTER_PIP),--without-pip) $(VENV)
	@$(INSTALL) --require-hashes -r requirements.lock -r requirements-build.lock
	@touch $@

# The project itself, installed as editable; repeated when pyproject.toml changes.
$(LINKED): $(VENV)/.locked pyproject.toml
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

# There is no .locked while tools are added: if that is interrupted, .venv is set up anew.
$(TOOLS): $(VENV)/.locked | $(LINKED)
	@echo "Adding the tools of requirements-dev.lock to $(VENV): about half a minute, once ..."
	@mv $(VENV)/.locked $(VENV)/.adding
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@mv $(VENV)/.adding $(VENV)/.locked
	@touch $@

$(VENV)/.mutants: requirements-mutants.lock | $(TOOLS)
	@$(INSTALL) --require-hashes -r requirements-mutants.lock
	@touch $@

# The locks are complete, so dependencies are not resolved. The pip of $(PYTHON) installs into .venv
# if it can (since 22.3), because a pip of its own would take 5 seconds to install.
OUTER_PIP = $(shell $(PYTHON) -c 'import pip; print(pip.__version__ >= "22.3" or "")' 2>/dev/null)
PIP       = $(if $(OUTER_PIP),$(PYTHON) -m pip --python $(BIN)/python,$(BIN)/python -m pip)
INSTALL   = $(PIP) install -q --disable-pip-version-check --no-deps
