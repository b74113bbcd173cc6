# Everything sets itself up: `make test` on a fresh clone needs Python 3.11+ and nothing else.
SHELL := /bin/bash
PY := .venv/bin/python
PATHS := src tests benchmarks docs
# A folder of real volumes beside the checkout, if there is one and none was named.
DATA := $(firstword $(wildcard ../*/data/mr_brats4_glioma))
ifdef DATA
export MEDGS_TEST_DATA ?= $(abspath $(DATA)/..)
endif

.DEFAULT_GOAL := help
.PHONY: help setup test lint format types units gui demo docs serve pictures benchmark wheel clean

help: ## Show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):[^#]*## (.*)/  make \1\t\2/' | expand -t 22

setup: ## Make .venv with all dependencies (and, on Debian as root, a virtual display)
	@bash tools/setup.sh

test: setup ## Lint, types, manifest, all tests
	@$(MAKE) --no-print-directory lint types
	$(PY) -m npe2 validate napari_medgs
	@$(MAKE) --no-print-directory units gui

lint: setup ## Ruff: rules and format
	$(PY) -m ruff check $(PATHS)
	$(PY) -m ruff format --check $(PATHS)

format: setup ## Apply ruff's fixes and format
	$(PY) -m ruff check --fix $(PATHS)
	$(PY) -m ruff format $(PATHS)

types: setup ## mypy, strict
	$(PY) -m mypy

units: setup ## Tests without a window
	$(PY) -m pytest -q -n 2 -m "not gui"

# A virtual screen for Qt where there is no display; looked for after setup has installed it.
gui: SCREEN = $(shell if [ -z "$$DISPLAY" ] && command -v xvfb-run >/dev/null; then echo 'xvfb-run -a -s "-screen 0 1600x1000x24 +extension GLX"'; fi)
gui: setup ## Tests with a real viewer
	$(SCREEN) $(PY) -m pytest -q -m gui

demo: setup ## The main job on a real volume; results in demo-results/
	.venv/bin/napari-medgs demo -o demo-results

docs: setup ## Build the documentation into site/
	$(PY) -m mkdocs build --strict

serve: setup ## Serve the documentation while writing it
	$(PY) -m mkdocs serve

benchmark: setup ## Run the benchmark suite and rewrite benchmarks/RESULTS.md
	.venv/bin/napari-medgs benchmark

pictures: setup ## Make the pictures of the documentation anew
	$(PY) docs/make_pictures.py

wheel: setup ## Build wheel and sdist into dist/
	$(PY) -m build

clean: ## Remove the environment and everything built
	rm -rf .venv build dist site demo-results .mypy_cache .pytest_cache .ruff_cache .hypothesis
