# Everything runs inside .venv, which the first target that needs it makes. PYTHON picks the interpreter to make it with.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.PHONY: help install quickstart test test-long test-browser benchmark lint format docs clean gpu

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "kpac needs Python 3.10 or newer, found " + sys.version.split()[0] + "; name another with: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

install: $(VENV)/installed  ## make .venv with the exact versions of constraints.txt

quickstart: install  ## data, training, table and picture, in minutes, on a CPU
	$(BIN)/kpac data synthesize --photos skimage --recipe quickstart --output data/quickstart
	$(BIN)/kpac train configs/quickstart.yaml --overwrite
	$(BIN)/kpac evaluate runs/quickstart --data data/quickstart --split test --protocol dpdd-8bit --output runs/quickstart
	$(BIN)/kpac inspect runs/quickstart --data data/quickstart --output runs/quickstart/inspect

test: install  ## the test suite, without what takes minutes
	$(BIN)/python -m pytest

test-long: install  ## everything, also the tests that take minutes
	$(BIN)/python -m pytest -m "slow or not slow"

test-browser: install  ## the tests of the demo and of the pages for a browser, in Chromium
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,demo]'
	$(BIN)/python -m pytest tests/demo tests/reporting/pages -m "slow or not slow"

benchmark: install  ## speed and memory of the network against plain PyTorch, as ratios
	$(BIN)/python benchmarks/network.py

gpu:  ## everything that only a CUDA device can show, in ten minutes; skips it without one
	PYTHON=$${PYTHON:-$(if $(wildcard $(BIN)/python),$(BIN)/python,$(PYTHON))} scripts/check_gpu.sh

lint: install  ## ruff and mypy, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: install  ## ruff: fix and format in place
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## the documentation as a site, in build/site
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/mkdocs build --quiet

clean:  ## remove the environment and caches; runs and data stay
	rm -rf $(VENV) build *.egg-info .mypy_cache .pytest_cache .ruff_cache
