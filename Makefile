# On a fresh machine with Python 3.11: `make demo`, `make test`.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := runs/demo

.PHONY: setup demo test lint docs lock

setup: $(VENV)/.stamp

$(VENV)/.stamp: requirements.lock setup.py
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --require-hashes -r requirements.lock
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# Generates a procedural world, builds it, trains, evaluates, and scores against other objects as a sanity check.
# An interrupted run resumes; `rm -r runs/demo` starts from scratch.
demo: setup
	test -d $(DEMO)/raw || $(RUN) -m sgmg_jax.synthetic --out=$(DEMO)/raw --train=1200 --valid=40 --size=112
	test -d $(DEMO)/records/ref_youtube_vos/1.0.0 || $(RUN) -m datasets.build ref_youtube_vos --raw=$(DEMO)/raw --out=$(DEMO)/records
	$(RUN) train.py --config=configs/synthetic.py --workdir=$(DEMO)
	$(RUN) evaluate.py --config=configs/synthetic.py --workdir=$(DEMO) --score_another_object
	$(RUN) evaluate.py --config=configs/synthetic.py --workdir=$(DEMO)
	$(RUN) -m sgmg_jax.score ytvos --gt=$(DEMO)/records --pred=$(DEMO)/evaluation/ref_youtube_vos_valid/submission.zip --json=$(DEMO)/scores.json
	@echo "Look at $(DEMO)/evaluation/ref_youtube_vos_valid/overlays.png"

test: setup
	$(RUN) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

docs: setup
	$(VENV)/bin/mkdocs build --strict

# Needs uv. The files name no index, so they work with any mirror.
lock:
	uv pip compile setup.py --extra dev --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock
	uv pip compile setup.py --extra cuda --extra train --python-version 3.12 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements-cuda.lock
