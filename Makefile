# Every target does the set-up that it needs; nothing but Python >= 3.11, git and make is expected.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
LINKED := $(VENV)/.linked
TOOLS  := $(VENV)/.tools
CODE   := store_cache central_stub tests benchmarks
DATA   ?= ../shared/data

# Locks name versions and hashes, and no index: where packages come from is the machine's business.
LOCK := $(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --no-emit-index-url

.DEFAULT_GOAL := help
.PHONY: help run test lint types unit format sales outages older campaigns crash simulate removals bench lock upgrade audit clean

help: ## show what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(LINKED) ## the demo: a Central, a store, live changes; Ctrl-C ends it
	@exec $(BIN)/store-cache demo

test: lint types unit ## everything that continuous integration checks

lint: $(TOOLS) ## style and common mistakes
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(TOOLS) ## the types, strictly
	$(BIN)/mypy

JOBS ?= 2
unit: $(TOOLS) ## the tests alone, JOBS=2 at a time
	$(BIN)/pytest -q -n $(JOBS)

format: $(TOOLS) ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Campaigns need real data (DATA=folder) and minutes; they are no part of `make test`.
sales: $(TOOLS) ## real sales through a store that is killed ten times on the way
	$(BIN)/python -m tests.campaigns.sales --data $(DATA)

outages: $(TOOLS) ## everything that can happen to Central, one after the other
	$(BIN)/python -m tests.campaigns.outages --data $(DATA)

older: $(TOOLS) ## older Centrals, each imitated by switches
	$(BIN)/python -m tests.campaigns.older --data $(DATA)

campaigns: sales outages older ## all three

SCHEDULES ?= 10000
KILLS ?= 500
simulate: $(TOOLS) ## SCHEDULES=10000 fault schedules in virtual time, or those named: SEEDS=17,20-40
	$(BIN)/python -m tests.simulation $(if $(SEEDS),--seeds $(SEEDS),--schedules $(SCHEDULES))

removals: $(TOOLS) ## take every safeguard out in turn: a test must fail; writes docs/evidence/removals.md
	$(BIN)/python -m tests.removals

crash: $(TOOLS) ## kill the real store KILLS times, then at every system call of the disk
	$(BIN)/python -m tests.crash --kills $(KILLS)

NAMES ?=
bench: $(TOOLS) ## measure beside peers, and write docs/benchmarks.md (NAMES="reads start": some)
	$(BIN)/python -m benchmarks $(NAMES)

lock: $(TOOLS) ## write the lock files anew after a change of dependencies
	$(LOCK) --extra dev pyproject.toml -o requirements-dev.lock
	$(LOCK) -c requirements-dev.lock pyproject.toml -o requirements.lock
	$(LOCK) -c requirements-dev.lock --group build -o requirements-build.lock

upgrade: LOCK += --upgrade
upgrade: lock ## the same with the newest versions

# Strict: what could not be looked up was not audited, and that is no success.
audit: $(TOOLS) ## known vulnerabilities in the locked dependencies
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements.lock
	$(BIN)/pip-audit --strict --require-hashes --disable-pip -r requirements-dev.lock

clean: ## remove everything that can be made again
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# .venv is made in three steps, each of which ends by leaving a file in it. `make run` needs two.
# Whenever a lock changes, .venv is made anew.
$(VENV)/.locked: requirements.lock requirements-build.lock requirements-dev.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"store-cache needs Python 3.11 or newer, this is %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2])'
	@echo "Setting up $(VENV): $$(cat requirements.lock requirements-build.lock | grep -c ==) packages," \
		"about 20 seconds, once ..."
	@$(PYTHON) -m venv --clear $(if $(OUTER_PIP),--without-pip) $(VENV)
	@$(INSTALL) --require-hashes -r requirements.lock -r requirements-build.lock
	@touch $@

# This project itself, linked: a new command or version needs just this again.
$(LINKED): $(VENV)/.locked pyproject.toml
	@$(INSTALL) --no-build-isolation --editable .
	@touch $@

# While tools are added there is no .locked: if that is interrupted, .venv is made anew.
$(TOOLS): $(VENV)/.locked | $(LINKED)
	@echo "Adding the tools of requirements-dev.lock to $(VENV): about half a minute, once ..."
	@mv $(VENV)/.locked $(VENV)/.adding
	@$(INSTALL) --require-hashes -r requirements-dev.lock
	@mv $(VENV)/.adding $(VENV)/.locked
	@touch $@

# Locks are complete, so nothing is resolved. The pip of $(PYTHON) fills .venv if it can (22.3 and
# newer): to install another one there would take 5 seconds.
OUTER_PIP = $(shell $(PYTHON) -c 'import pip; print(pip.__version__ >= "22.3" or "")' 2>/dev/null)
PIP       = $(if $(OUTER_PIP),$(PYTHON) -m pip --python $(BIN)/python,$(BIN)/python -m pip)
INSTALL   = $(PIP) install -q --disable-pip-version-check --no-deps
