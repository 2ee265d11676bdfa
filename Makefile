# Needs Python 3.11 to 3.13 and make, nothing else: each target installs what it needs into .venv, once.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
VERSIONS ?= --constraint constraints.txt
OLDEST := 'langchain-core==1.6.*' 'langchain==1.4.*' 'langchain-openai==1.6.*'

BIN := $(VENV)/bin
INSTALL = $(BIN)/python -m pip install --quiet $(VERSIONS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # two pips in one environment would break it
unexport PYTHONDONTWRITEBYTECODE # or the tests compile themselves in each process, and the package in each child
.PHONY: help demo test oldest restores mutants notebooks browser upstream dist lint type format bench recall compare clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.demo ## the walk-through: no key, no network
	$(BIN)/python -m langchain_mem0_scoped

test: $(VENV)/.dev ## all tests, on two cores; ARGS="-k scope" passes on to pytest
	$(BIN)/python -m pytest -n 2 --dist worksteal $(ARGS)

oldest: ## all tests on the oldest LangChain that pyproject.toml allows, in an environment of its own
	$(MAKE) test VENV=$(VENV)-oldest VERSIONS="$(OLDEST)"

restores: $(VENV)/.dev ## 200 random schedules of backups, restores and kills; ARGS passes on to pytest
	RESTORE_SCHEDULES=200 $(BIN)/python -m pytest -n 2 tests/isolation/test_restores.py $(ARGS)

mutants: $(VENV)/.dev ## one-line changes of the code that tests must notice; ARGS="scope erasure" names areas
	$(BIN)/python -m tests.mutants.run $(ARGS)

notebooks: $(VENV)/.dev ## execute the notebooks and compare; ARGS=--update stores what they show now
	$(BIN)/python -m tests.notebooks $(ARGS)

browser: $(VENV)/.browser ## the notebooks and a user's page in headless Chromium; pictures in build/screenshots
	@mkdir -p build/screenshots
	SCREENSHOTS=build/screenshots $(BIN)/python -m pytest tests/browser $(ARGS)

upstream: $(VENV)/.dev ## other projects' chat history tests, downloaded, against ours
	$(BIN)/python -m tests.upstream.run

dist: $(VENV)/.dist ## build both archives, install each in an empty environment; ARGS names more Pythons
	$(BIN)/python -m tests.distribution $(ARGS)

lint: $(VENV)/.dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: $(VENV)/.dev ## mypy, strict
	$(BIN)/mypy

format: $(VENV)/.dev ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.bench ## the benchmarks; ARGS passes on to them
	$(BIN)/python -m benchmarks $(ARGS)

recall: $(VENV)/.bench ## recall on LoCoMo; DATA=PATH of its locomo10.json, ARGS passes on
	$(BIN)/python -m benchmarks.recall $(DATA) $(ARGS)

compare: $(VENV)/.bench ## ask mem0 and other memories the README's questions; ARGS passes on
	$(BIN)/python -m benchmarks.comparison $(ARGS)

clean: ## remove the environments, caches and build products
	rm -rf $(VENV) $(VENV)-oldest build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamp files: nothing is installed again until these two files change.
$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.pip
	$(INSTALL) --editable .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.pip
	$(INSTALL) --editable '.[notebook]' --group dev
	@touch $@

$(VENV)/.browser: $(VENV)/.dev
	$(INSTALL) --group browser
	@touch $@

$(VENV)/.dist: $(VENV)/.dev
	$(INSTALL) --group dist
	@touch $@

$(VENV)/.bench: pyproject.toml constraints.txt | $(VENV)/.pip
	$(INSTALL) --editable '.[agents]' --group bench
	@touch $@

# pip reads dependency groups since 25.1; the one that comes with Python is often older.
$(VENV)/.pip:
	@command -v $(PYTHON) >/dev/null || { echo "'$(PYTHON)' was not found. Install Python 3.11 to 3.13, or name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))' || { echo "Python 3.11 to 3.13 is needed, and $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "$(PYTHON) cannot create virtual environments. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@touch $@
