# The same tasks for people, hooks and CI. Needs Python >= 3.11, git and make; everything else goes into .venv.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export PATH := $(CURDIR)/$(BIN):$(PATH)

# quiet and offline by default; `HF_HUB_OFFLINE=0 make run` lets models be downloaded
export DVC_NO_ANALYTICS ?= 1
export GX_ANALYTICS_ENABLED ?= false
export HF_HUB_OFFLINE ?= 1
export MLFLOW_DISABLE_TELEMETRY ?= true
export NO_MKDOCS_2_WARNING ?= 1
export TOKENIZERS_PARALLELISM ?= false

.PHONY: help setup run test lint map bench soak faults ui ladder factors foundation foundation-report dist docs docs-serve tutorial pictures clean

help:  ## list the tasks
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

run: setup  ## label file -> registered classifier: every stage that is out of date, then the table of results
	@tailorset check
	@tailorset run
	@tailorset results

test: lint  ## lint, types, boundaries, duplicates, then all fast tests, in up to four processes
	OMP_NUM_THREADS=1 pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: setup  ## ruff (rules and format), mypy, import boundaries, duplicate code
	@ruff check
	@ruff format --check --quiet
	@mypy
	@lint-imports --no-logo
	@pytest -q --no-header tests/test_duplicate_code.py

map: setup  ## figures of the code's map: packages, arrows between them, length of stage scripts, docstrings to reword
	@python benchmarks/code_map.py

bench: setup  ## every stage against the plain way to do the same
	python benchmarks/bench.py

soak: setup  ## does `tailorset serve` hold: mutated requests, overload, a moving alias, planted code, 100,000 damaged images (25 minutes)
	python benchmarks/soak.py

faults: setup  ## kills at random moments, full disks, two runs at once, against the real stages: docs/reliability.md (half an hour)
	OMP_NUM_THREADS=1 pytest -m faults -n 2 tests/faults

ui: setup  ## the MLflow user interface: of the server in MLFLOW_TRACKING_URI, else on http://127.0.0.1:5000
	@python -c 'from pathlib import Path; from tailorset.project.mlflow_pages import pages_host, start_pages; print("\n".join(f"{title}: {pages_host()}/{page}" for title, page in start_pages(Path.cwd()).items()))'
	$(if $(filter http%,$(MLFLOW_TRACKING_URI)),,mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(CURDIR)/mlflow.db}")

ladder: setup  ## what each part of the method brings on the toybox: docs/results.md (hours on two cores; goes on where it was)
	@python pipeline/ladder/points.py
	dvc repro pipeline/ladder/dvc.yaml:report
	dvc repro evaluate
	dvc repro --force --single-item data_card  # now with the verdicts

factors: setup  ## settings of classifier and generator, one at a time on val of the toybox: reports/ladder/factors (an hour or two)
	@python pipeline/ladder/points.py
	dvc repro pipeline/ladder/dvc.yaml:summarise@factors

foundation: setup  ## train the toybox world's foundation models again (hours on a CPU)
	dvc repro pipeline/foundation/dvc.yaml

foundation-report: setup  ## measure the foundation models against their bars
	python pipeline/foundation/measure_models.py

dist: setup  ## build the wheel in dist/, and print what an installation takes on disk by extra
	@pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist .
	@rm -rf build && ls dist/*.whl
	@python benchmarks/install_size.py

docs: setup  ## build the documentation site in site/, without network; a broken link fails it
	@mkdocs build

docs-serve: setup  ## the site on http://127.0.0.1:8001, built again whenever a page changes
	@mkdocs serve --dev-addr 127.0.0.1:8001

tutorial: setup  ## execute docs/tutorial.ipynb and store its outputs (after `make run`)
	@python docs/tools/tutorial.py

pictures: setup  ## pictures of the site, from what the last `make run` left: one per stage, and of every web page; needs chromium
	@python docs/tools/stage_pictures.py
	@TAILORSET_PICTURES=1 pytest -q --no-header tests/serving/test_page.py tests/serving/test_reviewing.py tests/registry/test_mlflow_pages.py

clean:  ## remove the environment, resume state and caches; keeps products and mlflow.db
	rm -rf .venv .work .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tailorset needs Python >= 3.11: make PYTHON=python3.11 ...")'
	@test -x $(BIN)/python || { echo "Installing into .venv (once, some minutes) ..."; $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m compileall -qq -j 0 .venv/lib || true  # a minute once; without it every stage takes 7 s longer to start
	@touch $@
