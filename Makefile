# Two commands for a fresh machine with Python 3.11: `make demo` and `make test`.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo

.PHONY: setup demo test lint lock

setup: $(VENV)/.stamp

$(VENV)/.stamp: requirements.lock setup.py
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --require-hashes -r requirements.lock
	$(RUN) -m pip install --quiet --no-deps -e .
	touch $@

test: setup
	$(RUN) -m pytest -q -n 2 tests

lint: setup
	$(VENV)/bin/ruff check .

# Needs uv; names no index, so the file serves any mirror.
lock:
	uv pip compile setup.py --extra dev --extra video --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock
