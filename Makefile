# Two commands do everything on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint setup protocol picture clean

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

# what protoc makes of the .proto files; after they change
PROTOCOL := runtime/wire/protocol
protocol: $(VENV)/.dev
	$(BIN)/python -m venv build/protoc
	build/protoc/bin/pip install --quiet grpcio-tools==1.81.0
	build/protoc/bin/python -m grpc_tools.protoc -I$(PROTOCOL) --descriptor_set_out=$(PROTOCOL)/descriptors.binpb \
		inference.proto health.proto reflection.proto

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.search: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[search]'
	touch $@

$(VENV)/.dev: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/.search

picture: $(VENV)/.dev
	$(BIN)/python benchmarks/picture.py

clean:
	rm -rf $(VENV) runs/demo build *.egg-info .mypy_cache .pytest_cache .ruff_cache
