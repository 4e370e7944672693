# Needs GNU make and a Python of at least 3.11 with pip and venv; everything else is installed into a
# virtual environment of its own for each interpreter, below .venv/.

PYTHON ?= python3
IMAGES ?=
ARGS ?=
ROUNDS ?= 10
SOAK ?= 3600
SEED ?=
# Each process of pytest has threads and child processes of its own, so they do not disturb each other.
# Five, also on two cores: a third of the time, a test waits for what it has started.
PARALLEL ?= -n 5 --dist worksteal

# A test may start several interpreters: modules are compiled once, and not by each of them, also where
# the environment says that nothing is to be kept.
export PYTHONDONTWRITEBYTECODE =

# One environment for each name and version of the interpreter, so that `make test PYTHON=...` with
# another one neither reinstalls nor breaks the first. abiflags tell a free-threaded build apart.
TAG := $(shell $(PYTHON) -c 'import platform, sys; print(platform.python_version() + sys.abiflags)' 2>/dev/null)
VENV := .venv/$(notdir $(PYTHON))-$(TAG)
BIN := $(VENV)/bin

# An older release of a package that is built for this interpreter, rather than an hour of compiling
# the newest: numpy, for one, is no longer built for Python 3.13 without the GIL.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary

.DEFAULT_GOAL := help
# Two installations into one environment at a time would tread on each other.
.NOTPARALLEL:
.DELETE_ON_ERROR:

.PHONY: help
help: ## this list
	@echo "make TARGET [PYTHON=python3.13] [ARGS='...']"
	@echo
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1@\2/p' Makefile | awk -F@ '{printf "  %-12s %s\n", $$1, $$2}'

.PHONY: venv
venv: $(VENV)/.installed-test $(VENV)/.installed-check $(VENV)/.installed-docs ## the environment for working on the project
	@echo "source $(BIN)/activate"

.PHONY: test
test: $(VENV)/.installed-test ## all tests, several at a time (ARGS: for pytest)
	$(BIN)/python -m pytest $(PARALLEL) $(ARGS)

# What differs from one Python to another: threads, contexts, futures, a child process, the exit, and
# CPython's own tests. It needs none of the packages that take long to be there for a new Python.
CORE := tests/actors tests/conformance tests/context tests/executors tests/futures tests/workerpool \
	$(addprefix --ignore=tests/workerpool/,progress worker test_forged_lines.py test_typed_proxy.py) \
	tests/backends/process/test_backend.py tests/test_delivery.py \
	$(addprefix tests/programs/test_,memory.py subinterpreters.py thread_variables.py)


.PHONY: core-installed
core-installed: $(VENV)/.installed-test-core

.PHONY: core
core: $(VENV)/.installed-test-core ## the core of the tests, which needs few packages (ARGS: for pytest)
	$(BIN)/python -m pytest $(PARALLEL) $(CORE) $(ARGS)

# Ray is large, and not there for each Python; so it has an environment of its own. One cluster serves
# the shared suites; each of the programs starts another one, or two nodes. CPython's own tests come
# with some interpreters, from 3.12 on.
PARTS ?= suites programs conformance

.PHONY: ray
ray: ## the tests of pools on a Ray cluster, which they start on this machine (ARGS: for pytest)
	for part in $(PARTS); do $(MAKE) ray-$$part VENV=$(VENV)-ray || exit; done

.PHONY: ray-installed
ray-installed:
	$(MAKE) $(VENV)-ray/.installed-test-ray VENV=$(VENV)-ray

.PHONY: ray-suites
ray-suites: $(VENV)/.installed-test-ray
	$(BIN)/python -m pytest -m cluster tests/backends tests/workerpool $(ARGS)

.PHONY: ray-programs
ray-programs: $(VENV)/.installed-test-ray
	$(BIN)/python -m pytest tests/backends/ray tests/docs/test_pages.py tests/examples/test_flight_delays.py -m "not cluster" -k ray $(ARGS)

.PHONY: ray-conformance
ray-conformance: $(VENV)/.installed-ray
	$(BIN)/python tests/conformance/cpython.py ray

.PHONY: test-all
test-all: ## all tests, on each Python of this machine (ARGS: for pytest)
	for python in $(PYTHON) $$(.ci/pythons); do $(MAKE) test PYTHON=$$python || exit; done

# Not part of CI: the tests that throw something at every point of the code take many times as long
# while each line is counted.
.PHONY: coverage
coverage: $(VENV)/.installed-test ## all tests, and how much of the code they reach (slow; ARGS: for pytest)
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

.PHONY: soak
soak: $(VENV)/.installed-test ## everything at once to pools of all kinds, for SOAK seconds (SEED: as before)
	$(BIN)/python -m tests.soak --seconds $(SOAK) $(if $(SEED),--seed $(SEED)) $(ARGS)

.PHONY: soak-tests
soak-tests: $(VENV)/.installed-test ## all tests ROUNDS times, each in another order and with more examples
	for round in $$(seq $(ROUNDS)); do \
		HYPOTHESIS_PROFILE=thorough $(BIN)/python -m pytest --quiet $(PARALLEL) $(ARGS) || exit; \
	done

.PHONY: conformance
conformance: $(VENV)/.installed-test ## the own tests of pykka and CPython, on our future and executors
	$(BIN)/python tests/conformance/run_pykka.py $(ARGS)
	$(BIN)/python tests/conformance/cpython.py process

# The last ones are for type checkers only: what they have to say of each call is asserted there.
TYPED := ion_actors examples $(wildcard tests/*/typed_*.py tests/*/*/typed_*.py)

.PHONY: check
check: $(VENV)/.installed-check ## lint, format, types, layers, docs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(TYPED)
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(if $(wildcard docs/conf.py),$(MAKE) docs)

.PHONY: format
format: $(VENV)/.installed-check ## mend what ruff can mend
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

.PHONY: demo
demo: $(VENV)/.installed-demo ## thumbnails of photographs (IMAGES=dir: your own)
	$(BIN)/python examples/thumbnails.py $(if $(IMAGES),--images '$(IMAGES)') $(ARGS)

.PHONY: bench
bench: $(VENV)/.installed-test ## compare with the peers (ARGS: for the benchmark)
	$(BIN)/python -m tests.benchmarks --write $(ARGS)

.PHONY: plots
plots: $(VENV)/.installed-bench ## measure what settings do, and draw it (ARGS: for the benchmark)
	$(BIN)/python -m tests.benchmarks.plots $(ARGS)

.PHONY: house
house: $(VENV)/.installed-test ## draw the picture of the code for the docs, after modules have changed
	$(BIN)/python -m tests.house

.PHONY: docs
docs: $(VENV)/.installed-docs ## build/docs/index.html
	$(BIN)/sphinx-build --fail-on-warning --quiet -b html docs build/docs

.PHONY: dist
dist: $(VENV)/.installed-dist ## wheel and sdist in dist/, checked, and tried in an empty environment
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/twine check --strict dist/*
	rm -rf build/try && $(PYTHON) -m venv build/try
	build/try/bin/python -m pip install --quiet --disable-pip-version-check dist/*.whl
	cd build && try/bin/python -c "import ion_actors as ion; print(ion.__version__, ion.Pool(2).submit(pow, 2, 10).result())"

.PHONY: clean
clean: ## remove environments, caches and everything built
	rm -rf .venv build dist htmlcov .coverage .coverage.* .hypothesis
	rm -rf .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: an extra is installed once, and again when pyproject.toml changes.
$(VENV)/.installed-%: pyproject.toml $(VENV)/.created
	@echo "installing ion_actors[$*] into $(VENV), once; this can take a minute"
	$(INSTALL) --editable '.[$*]'
	@touch $@

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"ion_actors needs Python 3.11, this is {v[0]}.{v[1]}: make PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@
