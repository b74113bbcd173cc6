# Everything sets itself up: `make test` on a fresh clone needs Python 3.11+ and nothing else.
SHELL := /bin/bash
BIN := .venv/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PY := $(BIN)/python
PATHS := src tests examples benchmarks docs tools
TEXTS := $(PATHS) changes packaging .github README.md CHANGELOG.md CONTRIBUTING.md \
	CODE_OF_CONDUCT.md SECURITY.md CITATION.cff Makefile pyproject.toml

# With the tests of windows; all others are tests without one.
GUI_TESTS := tests/plugin tests/test_cli_demo.py

# Where this is set, each process of the tests would compile all sources and assertions anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup test checks lint format types units minimal gui demo docs serve pictures benchmark wheel clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

setup: ## Make .venv with all dependencies (and, on Debian as root, a virtual display)
	@bash tools/setup.sh

test: ## Lint, types, manifest, an install without extras, all tests
	@$(MAKE) --no-print-directory -j 2 minimal checks types units # in this order, no core idle
	@$(MAKE) --no-print-directory gui

checks: lint
	$(PY) -m npe2 validate napari_medgs

lint: setup ## Rules, format, dependencies, layers, docstrings, spelling, workflow files
	$(PY) -m ruff check $(PATHS)
	$(PY) -m ruff format --check $(PATHS)
	$(BIN)/deptry src
	@if grep -qs importlinter pyproject.toml .importlinter; then \
		echo $(BIN)/lint-imports; $(BIN)/lint-imports; fi
	$(BIN)/numpydoc lint $$(find src -name '*.py')
	$(BIN)/codespell $(TEXTS)
	bash tools/lint_workflows.sh $(BIN)

format: setup ## Apply ruff's fixes and format
	$(PY) -m ruff check --fix $(PATHS)
	$(PY) -m ruff format $(PATHS)

types: setup ## mypy, strict
	$(PY) -m mypy

minimal: ## Install the wheel without extras into .venv-minimal and do the main work there
	"$${PYTHON:-python3}" tools/minimal_install.py

# Several processes run tests, and threads of OpenMP and BLAS that have nothing to do do not rest:
# with one for each core in each process, training takes many times the work.
units gui: export OMP_NUM_THREADS ?= 1
units gui: export OPENBLAS_NUM_THREADS ?= 1

units: setup ## Tests without a window
	$(PY) -m pytest -q -n 2 --dist worksteal -m "not gui"

# A virtual screen for Qt where there is no display; looked for after setup has installed it.
gui: SCREEN = $(shell if [ -z "$$DISPLAY" ] && command -v xvfb-run >/dev/null; then echo 'xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX"'; fi)
# Three at a time on two cores: viewers wait for events in part.
gui: setup ## Tests with a real viewer
	$(SCREEN) $(PY) -m pytest -q -n 3 --dist worksteal -m gui $(GUI_TESTS)

demo: setup ## The main job on a real volume; results in demo-results/
	$(BIN)/napari-medgs demo -o demo-results

docs: setup ## Build the documentation into site/
	$(PY) -m zensical build --strict

serve: setup ## Serve the documentation while writing it
	$(PY) -m zensical serve

benchmark: setup ## Run the benchmark suite and rewrite benchmarks/RESULTS.md
	$(PY) benchmarks/run.py

pictures: setup ## Make the pictures of the documentation anew
	$(PY) docs/make_pictures.py
	$(PY) docs/make_gallery.py

wheel: setup ## Build wheel and sdist into dist/
	$(PY) -m build
	$(PY) -m twine check --strict dist/*

clean: ## Remove the environment and everything built
	rm -rf .venv .venv-minimal build dist site demo-results .mypy_cache .pytest_cache .ruff_cache .hypothesis
