# Every chore is one command, from a bare Python 3.10 or newer with venv:
#   make test        make PYTHON=python3.13 VENV=.venv-3.13 test        make test ARGS="-k ring"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# Tests of one Cassandra cluster run one after the other; this many processes share clusters and everything else.
# The third uses the processors while tests of the others wait: on a machine of more than 20 GB, as its clusters need 12.
JOBS ?= $(or $(shell awk '/^MemTotal:/ { print(($$2 > 20000000) ? 3 : 2) }' /proc/meminfo 2>/dev/null),2)

LOCK := requirements/dev.txt
BUILT := $(VENV)/.built
BIN := $(VENV)/bin
UV := uv==0.13.9
PEX := pex==2.105.2 packaging==26.3
# The demo needs a part of what the tests need: an environment of its own, unless theirs is there.
DEMO_LOCK := requirements/demo.txt
OLDEST_LOCK := requirements/oldest.txt
DEMO := $(if $(wildcard $(BUILT)),$(VENV),.cache/demo)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Some machines set it: then each of the hundreds of commands that tests start compiles the program anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-fast test-oldest containers coverage soak mutants lint format bench docs dist sandbox-up sandbox-down lock clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(DEMO)/.built ## the whole story on a real local 3-node Cassandra
	$(DEMO)/bin/consistency demo $(ARGS)

test: lint ## lint and every test; starts real Cassandra clusters
	$(BIN)/python -m pytest -n $(JOBS) --no-loadscope-reorder --durations=10 $(ARGS)

test-fast: $(BUILT) ## the tests that need no Cassandra
	$(BIN)/python -m pytest -m "not cluster" $(ARGS)

OLDEST := $(addprefix tests/unit/test_,$(addsuffix .py,cli run watching live_page completion page terminal browse metrics eventlog driver hooks \
  ledger repair_applying wire))
test-oldest: .cache/oldest/.built ## the core on the oldest packages that pyproject.toml allows; PYTHON=python3.10
	.cache/oldest/bin/python -m pytest $(OLDEST) $(ARGS)

containers: $(BUILT) ## nodes and checker in containers, with images made here: needs a Docker engine, or dockerd and root
	$(BIN)/python -m tests.images $(BIN)/python -m pytest -m docker tests/cluster/test_containers.py tests/cluster/test_compose.py $(ARGS)

coverage: $(BUILT) ## which lines and branches the tests without Cassandra reach
	$(BIN)/python -m pytest -n $(JOBS) -m "not cluster" --cov --cov-report=term:skip-covered $(ARGS)

LONG := $(addprefix tests/cluster/test_,$(addsuffix .py,damage_matrix deleted_or_missing fortnight hashes_on_server identity large_partitions \
  maintenance migration_page migration_at_scale two_clusters mixed_versions unusual_data older_servers order_on_server repair repair_kinds ring_changes scale write_refusals))
soak: $(BUILT) ## the long variants, an hour and more; figures at the end of each part
	CONSISTENCY_SEEDS=100000 $(BIN)/python -m pytest tests/unit/test_simulation.py $(ARGS)
	CONSISTENCY_REPAIR_SEEDS=50000 $(BIN)/python -m pytest tests/unit/test_repair_simulation.py $(ARGS)
	CONSISTENCY_SOAK=1 $(BIN)/python -m pytest $(addprefix tests/unit/test_,$(addsuffix .py,repair_decide parts spreading compared_spreading)) $(ARGS)
	CONSISTENCY_ROWS=1000000 $(BIN)/python -m pytest tests/unit/test_compared_memory.py $(ARGS)
	CONSISTENCY_SOAK=1 $(BIN)/python -m pytest tests/cluster/test_faults.py $(ARGS)
	CONSISTENCY_LOAD_SECONDS=600 $(BIN)/python -m pytest tests/cluster/test_load.py $(ARGS)
	CONSISTENCY_SOAK=1 $(BIN)/python -m pytest $(LONG) $(ARGS)
	CONSISTENCY_SOAK=1 CONSISTENCY_TEST_VNODES=1 $(BIN)/python -m pytest tests/cluster/test_topology.py $(ARGS)
	CONSISTENCY_TEST_VNODES=256 $(BIN)/python -m pytest tests/cluster/test_topology.py $(ARGS)
	CONSISTENCY_SOAK_SECONDS=600 $(BIN)/python -m pytest tests/cluster/test_lanes.py $(ARGS)
	CONSISTENCY_SOAK_SECONDS=1200 $(BIN)/python -m pytest tests/cluster/test_watch.py $(ARGS)
	CONSISTENCY_SOAK_SECONDS=600 $(BIN)/python -m pytest tests/cluster/test_live_page.py $(ARGS)

mutants: $(BUILT) ## break the program in more than 150 places, one at a time: the suite must notice each
	$(BIN)/python -m tests.mutants $(ARGS)

lint: $(BUILT) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(BUILT) ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(BUILT) ## the benchmarks
	$(BIN)/python -m benchmarks $(ARGS)

docs: $(BUILT) ## render the pages of docs/reference from the code
	$(BIN)/python docs/generate_reference.py

dist: $(BUILT) .cache/dist/bin/pex ## wheel, sdist, and consistency.pyz: one file for a machine without a registry
	rm -rf dist
	$(BIN)/python -m hatchling build -d dist
	PEX_ROOT=.cache/pex .cache/dist/bin/python deploy/onefile.py dist/*.whl dist/consistency.pyz
	$(BIN)/python -m pytest tests/unit/test_one_file.py $(ARGS)

sandbox-up: $(BUILT) ## three nodes of Cassandra on loopback, until sandbox-down
	$(BIN)/consistency sandbox up $(ARGS)

sandbox-down: $(BUILT) ## stop them; the data stays
	$(BIN)/consistency sandbox down $(ARGS)

lock: .cache/lock/bin/uv ## pin the newest versions that pyproject.toml allows, with hashes
	SSL_CERT_FILE="$${SSL_CERT_FILE-$$PIP_CERT}" UV_CUSTOM_COMPILE_COMMAND="make lock" \
	UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$(.cache/lock/bin/pip config get global.index-url 2>/dev/null)}}" \
	sh -ec 'lock() { .cache/lock/bin/uv pip compile --quiet --no-strip-extras --no-config --universal --python-version 3.10 --generate-hashes "$$@"; }; \
	  lock --upgrade --all-extras --output-file $(LOCK) pyproject.toml requirements/build.in; \
	  lock --upgrade --no-annotate --extra sandbox --constraint $(LOCK) --output-file $(DEMO_LOCK) pyproject.toml requirements/build.in; \
	  lock --upgrade --no-annotate --extra browse --constraint $(LOCK) --output-file requirements/pyz.txt pyproject.toml; \
	  lock --upgrade --no-annotate --resolution lowest-direct --extra browse --extra sandbox --extra test --output-file $(OLDEST_LOCK) \
	    pyproject.toml requirements/build.in'

clean: ## remove what was built, and the virtual environment
	rm -rf $(VENV) .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage*
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment holds exactly what the lock names: it is made anew when the lock or pyproject.toml changes.
# The lock is complete, so pip need not resolve: it trips over extras of which the index has a newer release (pip 23.2).
define install
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null \
	  || { echo "$(PYTHON) is missing or older than Python 3.10; name a newer one: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
	  || { echo "$(PYTHON) has no venv; install it (Debian: apt install python3-venv) or name another PYTHON" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes --no-deps -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@
endef

$(BUILT): $(LOCK) pyproject.toml
	$(install)

.cache/demo/.built: LOCK := $(DEMO_LOCK)
.cache/demo/.built: VENV := .cache/demo
.cache/demo/.built: BIN := .cache/demo/bin
.cache/demo/.built: $(DEMO_LOCK) pyproject.toml
	$(install)

.cache/oldest/.built: LOCK := $(OLDEST_LOCK)
.cache/oldest/.built: VENV := .cache/oldest
.cache/oldest/.built: BIN := .cache/oldest/bin
.cache/oldest/.built: $(OLDEST_LOCK) pyproject.toml
	$(install)

.cache/dist/bin/pex:
	$(PYTHON) -m venv --clear .cache/dist
	.cache/dist/bin/python -m pip install --quiet $(PEX)

.cache/lock/bin/uv:
	$(PYTHON) -m venv --clear .cache/lock
	.cache/lock/bin/python -m pip install --quiet $(UV)
