# make install | demo | test | lint | clean     (needs Python 3.11+ and make, nothing else)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[test,benchmarks]'
	touch $@

demo: install
	$(BIN)/bft demo

test: install lint
	$(BIN)/python -m pytest tests -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check bft tests benchmarks clients
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
