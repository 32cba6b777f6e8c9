# Everything runs in a virtual environment of the checkout; nothing else has to be installed or running.
#   PYTHON=python3.13       another interpreter
#   DJANGO='Django~=6.0.0'  another Django
#   VENV=directory          another virtual environment

PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
DJANGO ?= Django
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
POSTGRES := $(BIN)/python -m example_project.postgres run
PYTEST := $(BIN)/python -m pytest $(ARGS)

.DEFAULT_GOAL := help
.PHONY: help demo test test-postgres test-sqlite faults soak coverage bench lint clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 20

demo: $(VENV)/.installed-demo ## Run the example shop with a worker on an embedded PostgreSQL, and import 5,000 orders
	$(BIN)/python -m example_project.demo

test: $(VENV)/.installed-test ## Run the test suite on PostgreSQL and on SQLite (ARGS="-k name": some of it; AT_ONCE=1: both at once)
	@$(MAKE) --no-print-directory --keep-going $(if $(AT_ONCE),-j2 --output-sync) test-postgres test-sqlite \
		|| { echo "The tests failed."; exit 1; }

test-postgres: $(VENV)/.installed-test ## Run the test suite on an embedded PostgreSQL only
	$(POSTGRES) --fast -- $(PYTEST)

test-sqlite: $(VENV)/.installed-test ## Run the test suite on SQLite only
	env -u DATABASE_URL $(PYTEST)

FAULTS := $(PYTEST) tests/process tests/faults --all-faults

faults: $(VENV)/.installed-test ## Run every fault, also those that take long, on PostgreSQL and on SQLite
	@failed=; \
	$(POSTGRES) --fast -- $(FAULTS) || failed="PostgreSQL"; \
	env -u DATABASE_URL $(FAULTS) || failed="$${failed:+$$failed and }SQLite"; \
	if [ -n "$$failed" ]; then echo "Faults broke it on $$failed."; exit 1; fi

soak: $(VENV)/.installed-demo ## Run workers under random faults, and check what must hold (ARGS="--minutes 30 --seed 7")
	$(BIN)/python -m benchmarks.soak $(ARGS)

coverage: $(VENV)/.installed-dev ## Measure which lines the tests run, on both databases
	$(BIN)/coverage erase
	$(POSTGRES) --fast -- $(BIN)/coverage run -m pytest $(ARGS)
	env -u DATABASE_URL $(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

bench: $(VENV)/.installed-demo ## Measure our speed and that of other queues (ARGS="--quick", ARGS="--help" for more)
	$(BIN)/python -m benchmarks $(ARGS)

lint: $(VENV)/.installed-dev ## Check style, types, the import contract and that no migration is missing
	@failed=; \
	for check in \
		"ruff check ." \
		"ruff format --check ." \
		"mypy" \
		"lint-imports --no-logo" \
		"python manage.py makemigrations --check --dry-run --settings tests.settings" \
		"python -W error manage.py check --fail-level WARNING" \
	; do \
		echo "--- $$check"; \
		$(BIN)/$$check || failed="$$failed\n  $$check"; \
	done; \
	if [ -n "$$failed" ]; then printf "These checks failed:$$failed\n"; exit 1; fi

clean: ## Remove the virtual environment and all that was built or stored
	rm -rf .venv .demo .tests .bench build dist .coverage* htmlcov .*_cache

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later found; name one: make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Installed again when the dependencies may have changed.
$(VENV)/.installed-%: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check '$(DJANGO)' --editable '.[$*]'
	@touch $@
