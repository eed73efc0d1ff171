# On a fresh machine with Python 3.11: `make demo`, `make test`.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
VENV_APP := .venv-app
DEMO := runs/demo
LEARN := runs/learn

.PHONY: setup demo learn test app-test coverage lint docs lock

setup: $(VENV)/.stamp

# $(call install,VENV,LOCK): a new environment with what a lock lists. pip would take several times as long as uv.
define install
$(PYTHON) -m venv $(1)
sed -n '/^uv==/,/[^\\]$$/p' requirements-app.lock | $(1)/bin/python -m pip install --quiet --require-hashes -r /dev/stdin
$(1)/bin/uv pip install --quiet --python $(1)/bin/python --require-hashes -r $(2)
endef

$(VENV)/.stamp: requirements.lock setup.py
	$(call install,$(VENV),requirements.lock)
	$(RUN) -m pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

# A film, three sentences, their masks; then the scores of the same model on 40 clips it has never seen.
demo: setup
	test -f $(DEMO)/film.mp4 || $(RUN) -m sgmg_jax.synthetic --film=$(DEMO)/film.mp4 --seed=1 --size=112
	test -d $(DEMO)/result || $(RUN) -m sgmg_jax.predict $(DEMO)/film.mp4 "the small striped circle that does not move" \
	  "the cyan circle that moves right" "the purple circle" --out=$(DEMO)/result
	test -d $(DEMO)/raw || $(RUN) -m sgmg_jax.synthetic --out=$(DEMO)/raw --train=1 --valid=40 --size=112
	test -d $(DEMO)/records/ref_youtube_vos/1.0.0 || $(RUN) -m datasets.build ref_youtube_vos --raw=$(DEMO)/raw --out=$(DEMO)/records
	$(RUN) evaluate.py --config=configs/demo.py --config.init=sgmg_jax/pretrained/demo \
	  --config.evaluation.records=$(DEMO)/records --workdir=$(DEMO)
	@echo "Look at $(DEMO)/result/overlay.mp4 and $(DEMO)/evaluation/ref_youtube_vos_valid/overlays.png."
	@echo "For a page in your browser: pip install -r requirements-app.lock, then python -m sgmg_jax.app"

# The whole way from nothing: generates a procedural world, builds it, trains, evaluates, and scores against other
# objects as a sanity check. An interrupted run resumes; `rm -r runs/learn` starts from scratch.
learn: setup
	test -d $(LEARN)/raw || $(RUN) -m sgmg_jax.synthetic --out=$(LEARN)/raw --train=1200 --valid=40 --size=112
	test -d $(LEARN)/records/ref_youtube_vos/1.0.0 || $(RUN) -m datasets.build ref_youtube_vos --raw=$(LEARN)/raw --out=$(LEARN)/records
	$(RUN) train.py --config=configs/synthetic.py --workdir=$(LEARN)
	$(RUN) evaluate.py --config=configs/synthetic.py --workdir=$(LEARN) --score_another_object
	$(RUN) evaluate.py --config=configs/synthetic.py --workdir=$(LEARN)
	$(RUN) -m sgmg_jax.score ytvos --gt=$(LEARN)/records --pred=$(LEARN)/evaluation/ref_youtube_vos_valid/submission.zip --json=$(LEARN)/scores.json
	@echo "Look at $(LEARN)/evaluation/ref_youtube_vos_valid/overlays.png"

test: setup
	$(RUN) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder tests

# The page in a real browser. Needs Chromium or Chrome; on Debian, root gets it installed.
app-test: $(VENV_APP)/.stamp
	@which chromium chromium-browser google-chrome | grep -q . || \
	  { apt-get -q update && apt-get -q install -y --no-install-recommends chromium; } || \
	  { echo 'error: found neither Chromium nor Chrome. Install one: sudo apt-get install chromium' >&2; exit 1; }
	$(VENV_APP)/bin/python -m pytest -q --confcutdir=tests/app tests/app

# An environment of its own: gradio needs older packages than the other tests.
$(VENV_APP)/.stamp: requirements-app.lock
	$(call install,$(VENV_APP),$<)
	touch $@

# The tests with the lines they run counted, in their subprocesses too; fails below the floor in .coveragerc. Needs Python
# 3.12 or newer, or counting takes hours: make coverage PYTHON=python3.13 VENV=.venv-3.13
coverage: setup
	COVERAGE_CORE=sysmon $(RUN) -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered tests

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
	uv pip compile setup.py --extra app-test --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url --no-emit-find-links -o requirements-app.lock
