# Two commands for a newcomer: `make demo` and `make test`. They need Python 3.11 or later and make, nothing else.
PYTHON ?= python3
DATA ?= data
BIN := .venv/bin
INSTALLED := .venv/.installed
COMPILED := .venv/.compiled

.PHONY: demo test test-extended test-slow test-docker lint bench dist lock clean

demo: $(INSTALLED)
	$(BIN)/grantledger demo --data $(DATA)

# Six files at a time, even on two cores: many tests wait. tests/conftest.py orders the files, the longest first.
# Without compiled files on disk, each of them would also compile every test.
unexport PYTHONDONTWRITEBYTECODE
PYTEST := $(BIN)/pytest -n 6 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED) $(COMPILED)
	$(PYTEST) -m "not extended"

test-extended: $(INSTALLED) $(COMPILED)
	$(PYTEST) -m extended

test-slow: $(INSTALLED) $(COMPILED)
	GRANTLEDGER_TEST_SLOW=1 $(PYTEST)

# Needs a Docker engine with BuildKit; DOCKER=/usr/bin/docker chooses the client. docs/containers.md has the details.
DOCKER ?= docker
test-docker: $(INSTALLED)
	DOCKER=$(DOCKER) tests/docker/build_images.sh
	$(BIN)/pytest -n 0 -m docker tests/docker

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python tests/support/typecheck.py

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.main

# sdist, wheel, locked requirements, SBOM, licences and checksums, in dist/ (docs/releases.md).
RELEASE := build/release
dist: $(INSTALLED) $(RELEASE)/.installed
	$(BIN)/python deploy/release/dist.py --cyclonedx $(RELEASE)/bin/cyclonedx-py

$(RELEASE)/.installed: deploy/release/requirements.lock
	$(BIN)/python -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/release/requirements.lock
	touch $@

# Rebuilds the environment when the lock file changes. pip checks every package against its hash.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "grantledger needs Python 3.11 or later, $(PYTHON) is `$(PYTHON) --version`: make PYTHON=python3.11 …"; exit 1; }
	@echo "Installing the locked packages into .venv (about a minute)"
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(INSTALLED)

# pytest compiles each test file with its assertions rewritten: here once, and not again in each of its processes.
$(COMPILED): $(INSTALLED) $(wildcard tests/*.py tests/*/*.py)
	@$(BIN)/pytest --collect-only -qq tests/unit >/dev/null 2>&1 & \
	  $(BIN)/pytest --collect-only -qq tests/stack tests/fault >/dev/null 2>&1; wait
	@touch $(COMPILED)

# Needs uv (pip install uv): resolves the ranges in pyproject.toml and pins them with hashes. The lock of the image has
# the versions of the first, and no packages of the tests. `make lock UPGRADE=` keeps the versions that still fit.
UPGRADE ?= --upgrade
RESOLVE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate
COMPILE := $(RESOLVE) pyproject.toml
lock:
	$(COMPILE) $(UPGRADE) --extra dev -o requirements.lock
	$(COMPILE) --upgrade --extra image --constraint requirements.lock -o deploy/requirements.lock
	$(RESOLVE) $(UPGRADE) deploy/release/requirements.in -o deploy/release/requirements.lock

clean:
	rm -rf .venv build dist *.egg-info
