# Each target sets up what it needs: a virtual environment in .venv and, for the tests, the servers that they start.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := $(VENV)/.demo
DEV := $(VENV)/.dev
PINS := tests/constraints.txt
RUN := PATH="$(CURDIR)/$(BIN):$$PATH"

.PHONY: demo test check format bench conformance docs servers latest pins clean

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

$(DEMO): pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable ".[demo]"
	touch $@

$(DEV): pyproject.toml $(PINS) tests/install_servers.sh | $(BIN)/python
	sh tests/install_servers.sh
	$(BIN)/python -m pip install --quiet --constraint $(PINS) --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --constraint $(PINS) --editable ".[pylibmc]" || echo "pylibmc is left out: it needs libmemcached-dev"
	touch $@

## both example sites on free ports; for each request what the cache did, and how long it took
demo: $(DEMO)
	$(BIN)/python -m examples.demo

## the whole test suite; TESTS="tests/scenarios -k purge" for a part of it, TESTS="--cov" for its branch coverage
test: $(DEV)
	$(RUN) $(BIN)/python -m pytest $(TESTS)

## the servers that the tests start for themselves (Redis, Memcached, PostgreSQL, MariaDB, nginx, Varnish, Chromium)
servers:
	sh tests/install_servers.sh

## style, types
check: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy cachemw tests

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

## ratios to the bare application and to the peers, in one run; BENCH="stores" for another part
bench: $(DEV)
	$(BIN)/python -m pip install --quiet --constraint $(PINS) --editable ".[bench]"
	$(RUN) $(BIN)/python -m benchmarks $(BENCH)

## the suite behind cache-tests.fyi, against every policy on both interfaces
conformance: $(DEV)
	$(RUN) $(BIN)/python -m tests.conformance

## the pages of docs/ that are generated from the code
docs: $(DEV)
	$(BIN)/python -m docs.generate

## the test suite with the newest versions of everything that pyproject.toml allows
latest: $(DEV)
	$(BIN)/python -m pip install --quiet --upgrade --upgrade-strategy eager --editable ".[dev]"
	$(RUN) $(BIN)/python -m pytest $(TESTS)

## write down the versions installed now as those to test with
pins:
	sed -n '/^#/p' $(PINS) > $(PINS).new
	$(BIN)/python -m pip freeze --exclude-editable >> $(PINS).new
	mv $(PINS).new $(PINS)

clean:
	rm -rf $(VENV) build dist .coverage .pytest_cache .mypy_cache .ruff_cache
