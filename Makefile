# Two commands need nothing but Python 3.11+, git and make: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= 2

.PHONY: demo test lint bench chaos simulate format clean lock

demo: $(VENV)/.ready
	$(BIN)/llmops run experiments/support_tickets.experiment.yaml
	$(BIN)/llmops run experiments/ticket_fields.experiment.yaml

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

lint: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.ready
	$(BIN)/python -m benchmarks

chaos: $(VENV)/.ready
	$(BIN)/python -m benchmarks.chaos

simulate: $(VENV)/.ready
	$(BIN)/python -m benchmarks.simulate

# Every file of the lock is checked by its hash; our own package is built with what the lock brought.
$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("llmops needs Python 3.11 to 3.13, this is %d.%d: make PYTHON=python3.11 ..." % sys.version_info[:2] if not (3, 11) <= sys.version_info[:2] < (3, 14) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra dev pyproject.toml -o requirements.lock --no-header --upgrade

clean:
	rm -rf $(VENV) .llmops mlflow.db mlruns mlartifacts
