# Every target sets up .venv by itself; its stamp is named by what it was built from.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
KEY := $(shell cat constraints.txt requirements.lock pyproject.toml | $(PYTHON) -c "import sys, hashlib; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest()[:16])")
READY := $(VENV)/.ready-$(KEY)
PIP := $(BIN)/python -m pip install --quiet --no-compile
# Compared with in tests; without what it depends on, which is a second OpenCV.
ORACLES := charset-normalizer cleanlab grad-cam libauc requests termcolor torchxrayvision ttach urllib3
# Tests run beside each other, one thread of torch each; a module's share is stolen from its end.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 8 --dist worksteal
export NO_ALBUMENTATIONS_UPDATE = 1

.DEFAULT_GOAL := help
.PHONY: help env quick demo test browser check fix bench

help:  ## List what can be made
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /	/'

env: $(READY)  ## Set up .venv

$(READY): constraints.txt requirements.lock pyproject.toml
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
		{ echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
ifeq ($(shell uname -sm),Linux x86_64)
	$(PIP) --no-deps --require-hashes --requirement requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
else
	$(PIP) --constraint constraints.txt --editable '.[dev]'
	$(PIP) --constraint constraints.txt --no-deps $(ORACLES)
endif
	@$(BIN)/python -m compileall -q -q -j 0 $(VENV)/lib src >/dev/null 2>&1 || true  # some are not for this Python
	@rm -f $(VENV)/.ready-*
	@touch $@

quick: $(READY)  ## Run a smaller experiment: a first page in minutes
	$(BIN)/lucency run protocols/quick.toml --out runs/quick

demo: $(READY)  ## Run the demo experiment on phantoms and name the report to open
	$(BIN)/lucency run protocols/demo.toml --out runs/demo

test: $(READY)  ## Run the quick tests
	$(PYTEST) -m "not slow"

browser:  ## Install Chromium, by which the viewer is tested, where it is absent and apt-get can
	@command -v chromium || command -v chromium-browser || command -v google-chrome || \
		{ apt-get update -q && apt-get install -qy --no-install-recommends chromium; } || \
		echo "no Chromium: tests of the viewer in a browser are skipped"

check: $(READY) browser  ## All that CI runs: lint, layers, types, all tests, the demo
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/basedpyright
	$(PYTEST)
	rm -rf runs/check
	$(BIN)/lucency run protocols/demo.toml --out runs/check
	$(BIN)/python tests/demo_holds.py runs/check

fix: $(READY)  ## Format and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY)  ## Run the benchmarks; results go to benchmarks/results/
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

# Hours, all in all: what comes is counted in tests/torture/results/ and shown by docs/reliability.md.
.PHONY: torture
ONLY ?= *
torture: $(READY)  ## Try every door with hostile input, faults and kills, and count (ONLY=name: one script)
	for script in tests/torture/try_$(ONLY).py; do \
		PYTHONPATH=tests $(BIN)/python -m torture.$$(basename $$script .py) || exit 1; done

.PHONY: audit-packages
audit-packages: $(READY)  ## List known vulnerabilities of the locked packages, by PyPI's metadata
	$(BIN)/python tests/audit_packages.py

# docs
.PHONY: docs
docs: $(READY)  ## Build the documentation site, site/index.html, and check its links
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going --fresh-env docs site
