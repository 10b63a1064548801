# Two commands matter: `make run` (install, run the quickstart, print a table and a report) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard engines/apex/csrc/*)

.DEFAULT_GOAL := run
.PHONY: run test check lint types format install clean

# Every target goes through this stamp: a second call starts at once, a change of dependencies or C++ reinstalls.
$(VENV)/.installed: pyproject.toml constraints.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(VENV)/.installed

run: install
	$(BIN)/harness run --config quickstart.yaml

test: install
	$(BIN)/python -m pytest

check: lint types

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror engines/apex/csrc/*.cc engines/apex/csrc/*.h

types: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i engines/apex/csrc/*.cc engines/apex/csrc/*.h

clean:
	rm -rf $(VENV) build
