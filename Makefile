# make train: .venv, requirements and vit_jax itself, then configs/digits.py into runs/digits.
# make test:  the development requirements too, then the gate: lint, format, types, tests.

PYTHON ?= python3
BIN := .venv/bin
# Modules are compiled when they are first imported, not all of 2.5 GB at once.
PIP := $(BIN)/python -m pip install --quiet --no-compile
export PYTHONDONTWRITEBYTECODE :=

.PHONY: train test mypy pytest
train: .venv/requirements
	$(BIN)/python train.py --config=configs/digits.py --workdir=runs/digits

test: .venv/requirements-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(MAKE) --jobs=2 mypy pytest

mypy:
	$(BIN)/mypy

# Three workers keep two cores busy: some tests wait for processes of their own.
pytest:
	$(BIN)/python -m pytest -n 3 --dist worksteal

.venv/requirements: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("expected Python 3.11 or newer, got " + sys.version.split()[0] + "; make PYTHON=python3.11 …" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip  # that of Python 3.11 takes twice as long for the rest
	$(PIP) -r requirements.txt --editable .
	touch $@

# vit-pytorch's one file that the tests compare with needs torch alone, not all that it asks for.
.venv/requirements-dev: .venv/requirements requirements-dev.txt requirements-onnx.txt
	$(PIP) -r requirements-dev.txt
	$(PIP) --no-deps vit-pytorch==0.27.0
	$(PIP) --no-deps -r requirements-onnx.txt
	touch $@
