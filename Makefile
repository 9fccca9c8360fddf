# make setup | demo | test | lint | clean. PYTHON=python3.12 takes another Python, WORKERS=4 more test processes.
PYTHON ?= python3
VENV := .venv
WORKERS ?= 2
PYTEST_ARGS ?=
INSTALLED := $(VENV)/.installed

.PHONY: help setup demo test lint clean

help:
	@echo "make setup   install the pinned versions into $(VENV)"
	@echo "make demo    train the quick start (under 3 minutes on 2 cores) and print its scores"
	@echo "make test    the whole test suite"
	@echo "make lint    ruff's checks and format"
	@echo "make clean   remove $(VENV) and caches; runs/ and data/ stay"

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@command -v "$(PYTHON)" > /dev/null || { \
		echo "make: there is no $(PYTHON); name a Python >= 3.11: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; \
		exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: $$($(PYTHON) --version) is too old; name a Python >= 3.11:" \
			"make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; \
		exit 1; }
	@$(VENV)/bin/python -m pip --version > /dev/null 2>&1 || "$(PYTHON)" -m venv --clear $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

demo: setup
	$(VENV)/bin/lit-gen train experiment=quickstart

# One thread each: with two threads a small machine is many times slower, and two test processes share it.
test: setup
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(PYTEST_ARGS)

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
