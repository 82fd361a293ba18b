# One door for a developer: `make test` and `make demo` each work as the only command on a machine with Python >= 3.10.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
FOLDERS := octc bench cli runtimes archive serve train compress export
DATA ?= ./Dataset/UCSD

.DEFAULT_GOAL := help
.PHONY: help dev links check test slow test-isa coverage demo real wheel clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{printf "  make %-8s %s\n", $$1, $$2}'

dev: $(READY) links ## a virtual environment with everything, and the links for editors and mypy

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[dev]' -c constraints.txt
	rm -f $(VENV)/ready-*
	touch $@

links: ## .links/octc: the house as one package, for editors and mypy
	@mkdir -p .links/octc
	@for name in octc/*.py octc/py.typed $(patsubst %/__init__.py,%,$(wildcard octc/*/__init__.py)); do \
		ln -sfn ../../$$name .links/octc/$$(basename $$name); done
	@for name in $(filter-out octc,$(FOLDERS)); do ln -sfn ../../$$name .links/octc/$$name; done
	@find .links/octc -xtype l -exec rm -f {} +

check: dev ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy -p octc

# Two processes, each file in one of them, so that what a file makes once is made once; the longest files come first
# (tests/conftest.py). A worker that dies ends the run.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0

test: dev ## all tests but the slow ones (pytest options: make test ARGS='-k cli')
	$(PYTEST) -m 'not slow' $(ARGS)

slow: dev ## the slow tests: wheels in fresh environments, NVIDIA's compiler, killed and resumed commands
	$(PYTEST) -m slow $(ARGS)

test-isa: dev ## the tests that compute, under each instruction set of this machine (some: ISA='all-sse')
	ISA='$(ISA)' $(BIN)/python tests/isa.py $(PYTEST) -m 'not slow' $(ARGS)

coverage: dev ## which lines of the ground floor its own tests reach; the other folders are run by commands, in many processes
	$(PYTEST) tests/octc -m 'not slow' --cov=octc --cov-report=term-missing:skip-covered $(ARGS)
	@for room in stats volumes datasets imaging store core/files.py; do \
		printf 'octc/%-14s' $$room; $(BIN)/coverage report --include="octc/$$room*" | tail -1; done

demo: dev ## the main job on synthetic images, in a few minutes
	PATH="$(CURDIR)/$(BIN):$$PATH" sh benchmarks/demo.sh

real: dev ## the main job on real images: make real DATA=DIR
	$(BIN)/python benchmarks/real.py --data $(DATA)

wheel: dev ## wheel and sdist into dist/
	$(BIN)/python -m build -q --no-isolation --outdir dist

clean: ## remove what was built (not runs/, not Dataset/, not .venv/)
	rm -rf build dist .links .mypy_cache .ruff_cache .pytest_cache octc.egg-info
	find $(FOLDERS) tests -name __pycache__ -type d -prune -exec rm -rf {} +
