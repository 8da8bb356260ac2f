# Everything from a fresh machine: python3, make and pip are assumed, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint clean

demo: $(STAMP)  ## a clip of a made-up animal, trained here, as a turntable video in bags-demo/
	$(BIN)/bags demo

test: $(STAMP)  ## the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal

lint: $(STAMP)  ## ruff and pyright, as CI runs them
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

$(STAMP): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(not ((3, 10) <= sys.version_info[:2] <= (3, 12)) and "Python 3.10 to 3.12 is needed: make PYTHON=python3.11 " + "demo")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade pip
	$(BIN)/python -m pip install -e '.[dev]'
	touch $@

clean:  ## the virtual environment and everything built
	rm -rf $(VENV) build dist *.egg-info
