# Two commands matter: `make run` (install, run the quickstart, print a table and a report) and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NATIVE := $(wildcard engines/apex/csrc/*)

.DEFAULT_GOAL := run
.PHONY: run nightly test browser check lint types format install sanitize vllm-cpu vllm-cuda ggml-cpu clean

# Every target goes through this stamp: a second call starts at once, a change of dependencies or C++ reinstalls.
$(VENV)/.installed: pyproject.toml constraints.txt $(NATIVE)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(VENV)/.installed

# The real vLLM lives in an environment of its own: it pins torch and a hundred other packages. Its own requirement is
# met by the torch below; without a GPU a CPU build of it is enough, and pip takes whichever it is configured to find.
VLLM := .venv-vllm
VLLM_CUDA ?= vllm==0.33.0

vllm-cpu: $(VLLM)/.cpu

vllm-cuda: $(VLLM)/.cuda

$(VLLM)/.cpu: engines/vllm/requirements-cpu.txt
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet torch==2.13.0
	$(VLLM)/bin/python -m pip install --quiet --no-deps --requirement $<
	touch $@

# ggml, for `harness bench attention`: compiled here for this machine. Its Python package brings the library.
GGML := .venv-ggml

ggml-cpu: $(GGML)/.cpu

$(GGML)/.cpu: engines/ggml/requirements-cpu.txt
	test -x $(GGML)/bin/python || $(PYTHON) -m venv $(GGML)
	$(GGML)/bin/python -m pip install --quiet --requirement $<
	touch $@

$(VLLM)/.cuda:
	test -x $(VLLM)/bin/python || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet "$(VLLM_CUDA)"
	touch $@

run: install
	$(BIN)/harness run --config quickstart.yaml

# Run, judge and show a night: history.sqlite, runs/ and pages/. NIGHTLY: more options, such as --config nightly_sim.
nightly: install
	$(BIN)/harness nightly $(NIGHTLY)

# In two parts, of which either fails the target: most tests, so many at a time, each file in one process, because its
# tests look at the same runs; then those that hold real times against modelled ones, with the machine to themselves.
TEST_PROCESSES ?= 2

test: install
	$(BIN)/python -m pytest -m "not alone" --numprocesses $(TEST_PROCESSES) --dist loadfile; together=$$?; \
	$(BIN)/python -m pytest -m alone; alone=$$?; \
	test $$together -eq 0 && test $$alone -eq 0

# Reports in a real browser. Chromium is the system's own, or comes with `playwright install chromium`.
browser: $(VENV)/.browser
	HARNESS_BROWSER=required $(BIN)/python -m pytest tests/browser

$(VENV)/.browser: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "playwright>=1.50,<2" "axe-playwright-python>=0.1.4"
	touch $@

# The native tests once more, with the extension built for the address, undefined-behaviour and thread sanitizers.
sanitize: install
	$(BIN)/python -m tests.sanitize

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
	rm -rf $(VENV) $(VLLM) $(GGML) build
