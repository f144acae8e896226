# make install | demo | test | lint | clean     (needs Python 3.11+ and make, nothing else)
# make compiled | pure     (the hot path as C beside its sources, and back; needs a C compiler)
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: install demo test lint clean compiled pure

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
	$(BIN)/mypy clients tests/unit/client/test_proxy.py

compiled: install pure
	$(BIN)/python -m pip install --quiet --editable '.[compiled]'
	$(BIN)/python -m benchmarks.compiled

pure:
	find bft -name '*.so' -delete
	rm -f bft/_compiled.json

clean: pure
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache
