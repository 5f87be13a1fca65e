# Every chore is one command, from a bare Python 3.10 or newer with venv:
#   make test        make PYTHON=python3.13 VENV=.venv-3.13 test        make test ARGS="-k ring"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

LOCK := requirements/dev.txt
BUILT := $(VENV)/.built
BIN := $(VENV)/bin
UV := uv==0.13.9

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-fast lint format bench docs sandbox-up sandbox-down lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(BUILT) ## the whole story on a real local 3-node Cassandra
	$(BIN)/consistency demo $(ARGS)

test: $(BUILT) ## every test; starts a real Cassandra cluster
	$(BIN)/python -m pytest $(ARGS)

test-fast: $(BUILT) ## the tests that need no Cassandra
	$(BIN)/python -m pytest -m "not cluster" $(ARGS)

lint: $(BUILT) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(BUILT) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BUILT) ## the benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(BUILT) ## render docs/reference/cli.md from the commands
	$(BIN)/python docs/generate_reference.py

sandbox-up: $(BUILT) ## three nodes of Cassandra on loopback, until sandbox-down
	$(BIN)/consistency sandbox up $(ARGS)

sandbox-down: $(BUILT) ## stop them; the data stays
	$(BIN)/consistency sandbox down $(ARGS)

lock: .cache/lock/bin/uv ## pin the newest versions that pyproject.toml allows, with hashes
	SSL_CERT_FILE="$${SSL_CERT_FILE-$$PIP_CERT}" UV_CUSTOM_COMPILE_COMMAND="make lock" \
	UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$(.cache/lock/bin/pip config get global.index-url 2>/dev/null)}}" \
	.cache/lock/bin/uv pip compile --quiet --upgrade --no-strip-extras --no-config --universal --python-version 3.10 --generate-hashes \
	  --all-extras --output-file $(LOCK) pyproject.toml requirements/build.in

clean: ## remove what was built, and the virtual environment
	rm -rf $(VENV) .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment holds exactly what the lock names: it is made anew when the lock or pyproject.toml changes.
$(BUILT): $(LOCK) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	  || { echo "$(PYTHON) is missing or older than Python 3.10; name a newer one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) has no venv; install it (Debian: apt install python3-venv) or name another PYTHON" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

.cache/lock/bin/uv:
	$(PYTHON) -m venv --clear .cache/lock
	.cache/lock/bin/python -m pip install --quiet $(UV)
