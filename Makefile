# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint setup clean

demo: $(VENV)/.search
	$(BIN)/nas search --base vgg11 --K 2 --N 3 --out runs/demo --resume

test: $(VENV)/.dev lint
	$(BIN)/pytest -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

setup: $(VENV)/.dev

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.search: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[search]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.search

clean:
	rm -rf $(VENV) runs/demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache
