# `make demo` and `make test` need Python ≥ 3.11 and make; they create .venv and install everything into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= demo
export RAY_USAGE_STATS_ENABLED := 0
export MLFLOW_DISABLE_TELEMETRY := true

.PHONY: demo test test-slow test-all chaos bench check format docs wheel lowest ui clean

demo: $(VENV)/.installed
	$(BIN)/cropray demo --root $(DEMO)

ui: $(VENV)/.installed
	$(BIN)/cropray ui $(DEMO)/demo.yaml

# What starts a Ray has the machine to itself; all else runs two files at a time.
test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not ray and not slow and not nightly and not gpu and not network"
	$(BIN)/python -m pytest -q -m "ray and not slow and not nightly and not gpu and not network"

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "not ray and slow and not nightly and not gpu and not network"
	$(BIN)/python -m pytest -q -m "ray and slow and not nightly and not gpu and not network"

# Whole clusters and fresh environments: not in CI; run before a change that touches them is released.
test-all: test test-slow
	$(BIN)/python -m pytest -q -m "nightly and not own_ray and not gpu and not network"
	$(BIN)/python -m pytest -q -m "nightly and own_ray and not gpu and not network"

# The fast tests with the oldest versions that pyproject.toml allows.
lowest: .venv-lowest/.installed
	.venv-lowest/bin/python -m pytest -q -n 2 --dist loadfile -m "not ray and not slow and not nightly and not gpu and not network"

chaos: $(VENV)/.installed-dev
	$(BIN)/python -m tests.chaos.matrix

bench: $(VENV)/.installed-dev
	$(BIN)/python tests/benchmarks/run.py

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Installs anywhere: `pip install dist/cropray-*.whl`.
wheel: $(VENV)/.installed-dev
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

docs: $(VENV)/.installed-dev
	$(BIN)/python -m tests.documents.pages

clean:
	rm -rf $(VENV) .venv-lowest $(DEMO) dist

# torch first: with it in place nothing pulls a CUDA build onto a machine without a GPU.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("cropray needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else 0'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# pip tries one release of boto3 after the other, for long; uv finds those that go together at once.
.venv-lowest/.installed: pyproject.toml tests/lower_bounds.py
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --upgrade pip packaging uv
	.venv-lowest/bin/python -m tests.lower_bounds > .venv-lowest/constraints.txt
	.venv-lowest/bin/python -m uv pip install --quiet --constraint .venv-lowest/constraints.txt --editable '.[dev]'
	touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
