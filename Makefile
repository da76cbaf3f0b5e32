# Two commands for a newcomer: `make run` and `make test`. Nothing is needed but Python 3.11 or later and make.
PYTHON ?= python3
DATA ?= data
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: run test test-slow lint bench lock clean

run: $(INSTALLED)
	$(BIN)/grantledger demo --data $(DATA)

# Two files at a time: most tests wait for processes that they start. In the order of tests/conftest.py, longest first.
PYTEST := $(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(INSTALLED)
	$(PYTEST)

test-slow: $(INSTALLED)
	GRANTLEDGER_TEST_SLOW=1 $(PYTEST)

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/python tests/support/typecheck.py

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.main

# The environment is made anew when what is locked changes. Every package is checked against its hash.
$(INSTALLED): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "grantledger needs Python 3.11 or later, $(PYTHON) is `$(PYTHON) --version`: make PYTHON=python3.11 …"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(INSTALLED)

# Needs uv (pip install uv): resolves what pyproject.toml allows and pins it with hashes.
lock:
	uv pip compile --quiet --upgrade pyproject.toml --extra dev --universal --python-version 3.11 \
	  --generate-hashes --no-header --no-annotate -o requirements.lock

clean:
	rm -rf .venv build *.egg-info
