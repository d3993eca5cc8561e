# make bench   measure every GGUF model on this machine
# make test    test the harness in some minutes, on two cores
# make test-fast   the tests that start no worker, in about a minute
# make test-all    also the long proofs
# make coverage    the lines of src that `make test` runs, in every process
# make check   ruff, mypy, the layers and the English, in seconds
# make docs    build the documentation into build/site, with an environment of its own in .venv-docs
# make simulate   the gate's error rates again, by simulation (some minutes)
#
# All set themselves up in .venv: llama-cpp-python is compiled (some minutes, once), the rest is installed.
# A GPU build: make bench CMAKE_ARGS=-DGGML_CUDA=on. More options: make bench ARGS="--models FOLDER".

PYTHON ?= python3
LLAMA_CPP_PYTHON ?= llama-cpp-python==0.3.36
BIN := .venv/bin
PYTEST_OPTIONS := -n 2 --dist loadfile --no-loadscope-reorder --timeout 120 --durations 20
NORMAL := "not nightly"
FAST := "not real and not build and not nightly and not browser"

.PHONY: bench test test-fast test-all coverage check docs schema simulate clean

bench: .venv/ready
	$(BIN)/pytest bench --benchmark-only --demo-models .models $(ARGS)

test: .venv/ready
	$(BIN)/pytest tests $(PYTEST_OPTIONS) -m $(NORMAL) $(ARGS)

test-fast: .venv/ready
	$(BIN)/pytest tests $(PYTEST_OPTIONS) -m $(FAST) $(ARGS)

test-all: .venv/ready
	$(BIN)/pytest tests $(PYTEST_OPTIONS) --hypothesis-profile nightly $(ARGS)

coverage: .venv/ready
	$(BIN)/python tools/measure_coverage.py tests $(PYTEST_OPTIONS) -m $(NORMAL) $(ARGS)

check: .venv/ready
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_prose.py

docs: .venv-docs/ready
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --quiet --strict

schema: .venv/ready
	$(BIN)/ggufbench schema > docs/record.schema.json

simulate: .venv/ready
	$(BIN)/python tools/simulate.py --write docs/gating-error-rates.md $(ARGS)

.venv/ready: pyproject.toml constraints.txt Makefile tools/install_llama_cpp.sh
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'  # the first that installs groups
	$(BIN)/pip install --quiet --constraint constraints.txt --editable . --group dev
	CMAKE_ARGS="$(CMAKE_ARGS)" tools/install_llama_cpp.sh $(BIN)/python $(LLAMA_CPP_PYTHON)
	touch $@

.venv-docs/ready: pyproject.toml constraints.txt Makefile
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	.venv-docs/bin/pip install --quiet --constraint constraints.txt --group docs
	touch $@

clean:
	rm -rf .venv .venv-docs .models build
