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
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# A procedural world, written, built, learned, evaluated; then asked with shuffled sentences. It goes
# on where it was interrupted; `rm -r runs/demo` starts it anew.
demo: setup
	test -d $(DEMO)/raw || $(RUN) -m sgmg_jax.synthetic --out=$(DEMO)/raw --train=1200 --valid=40 --size=112
	test -d $(DEMO)/records/ref_youtube_vos/1.0.0 || $(RUN) -m datasets.build ref_youtube_vos --raw=$(DEMO)/raw --out=$(DEMO)/records
	$(RUN) train.py --config=configs/synthetic.py --workdir=$(DEMO)
	$(RUN) evaluate.py --config=configs/synthetic.py --workdir=$(DEMO) --shuffle_sentences
	$(RUN) evaluate.py --config=configs/synthetic.py --workdir=$(DEMO)
	$(RUN) -m sgmg_jax.score ytvos --gt=$(DEMO)/records --pred=$(DEMO)/evaluation/ref_youtube_vos_valid/submission.zip --json=$(DEMO)/scores.json
	@echo "Look at $(DEMO)/evaluation/ref_youtube_vos_valid/overlays.png"

test: setup
	$(RUN) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests

lint: setup
	$(VENV)/bin/ruff check .

# Needs uv; names no index, so the file serves any mirror.
lock:
	uv pip compile setup.py --extra dev --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements.lock
