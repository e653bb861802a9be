# Every target does its own set-up: `make demo` and `make test` work on a fresh checkout.
# A target's one line of help stands after `##`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
# Where it is set, as in many containers, each process compiles all that it imports: three times the processor time at
# each start, and tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

VENV := .venv
BIN := $(VENV)/bin
LOCK := requirements-dev.lock
STAMP := $(VENV)/.cordon-lock
# Extra arguments for pytest, for example: make test ARGS="-k gateway -x"
ARGS ?=
# Test processes side by side: most tests wait for processes, brokers and disks. 0 runs all in one.
JOBS ?= 3

.PHONY: help setup deps-system check test chaos demo demo-lease demo-pagers backtest kafka bench bench-detectors bench-distributed bench-signals bench-console chaos-signals docs dashboards figures pictures lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(STAMP) ## Make .venv with the locked dependencies (again only when the lock changes)
	@:

$(STAMP): $(LOCK) pyproject.toml deploy/setup/venv.sh deploy/setup/find-python.sh
	@deploy/setup/venv.sh $(VENV) $(LOCK) $(STAMP)

deps-system: ## Install the Debian packages that set-up needs and Python cannot fetch
	@deploy/setup/system.sh

check: setup ## Lint, formatting, types, layers (under a minute)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

test: setup ## Run every test (fetches a Kafka broker once, where Java and Maven are found)
	@$(BIN)/python -m deploy.kafka --fetch || echo "tests that need a Kafka broker will be skipped (with CI=true: fail)"
	@$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: setup ## Kill processes and brokers in twenty seeded incidents (about half an hour)
	@CHAOS_SERIES=20 $(BIN)/python -m pytest tests/deploy/distributed/test_chaos.py tests/deploy/distributed/test_faults.py -q -m "chaos or not chaos" $(ARGS)

chaos-signals: setup ## Let delivery fail in 1,000 simulated runs, kill processes in 20 real ones (about a quarter of an hour)
	@CHAOS_RUNS=1000 CHAOS_SERIES=20 $(BIN)/python -m pytest tests/signals/test_delivery_faults.py tests/system/test_signals_chaos.py -q $(ARGS)

demo: setup ## Replay 2024-07-19 with and without Cordon, verify the signed kill
	@$(BIN)/cordon demo

demo-lease: setup ## Kill a Cordon and see every client on hold when its lease ends
	@$(BIN)/cordon demo-lease

demo-pagers: setup ## Replay 2024-07-19 with twenty vendors: one is paged, once, and told when it is over
	@$(BIN)/python -m deploy.cli.demo_pagers $(ARGS)

backtest: setup ## Run the whole scenario library: Cordon's detectors and what others use (exit 1: not as expected)
	@$(BIN)/cordon backtest --all $(ARGS)

kafka: setup ## Start a local Kafka broker to try the distributed way
	@$(BIN)/python -m deploy.kafka $(ARGS)

bench: setup ## Measure the figures, print a table, write build/bench/embedded.json
	@$(BIN)/python -m deploy.bench.embedded

bench-detectors: setup ## Measure crashes to a kill, validity, cost and lies, write build/bench/detectors.json
	@$(BIN)/python -m deploy.bench.detectors $(ARGS)

bench-distributed: setup ## Measure the distributed way on a local Kafka, write build/bench/distributed.json
	@$(BIN)/python -m deploy.bench.distributed $(ARGS)

bench-signals: setup ## Measure decision to subscriber by stream and webhook, write build/bench/signals.json
	@$(BIN)/python -m deploy.bench.signals $(ARGS)

bench-console: setup ## Measure the console's pages, how live they are and what viewers cost, write build/bench/console.json
	@$(BIN)/python -m deploy.bench.console $(ARGS)

docs: setup ## Write the generated documentation again
	@$(BIN)/python -m deploy.docs

dashboards: setup ## Write the Grafana boards' JSON again
	@$(BIN)/python -m dashboards.grafana

figures: setup ## Draw the figures of the detectors' README again, from seeded runs (ten seconds)
	@$(BIN)/python -m deploy.docs.figures $(ARGS)

pictures: setup ## Take the READMEs' pictures of the console and of a board's panel again, from one replayed incident
	@CI=true $(BIN)/python -m pytest tests/dashboards/console/test_console_browser.py -k pictures -q $(ARGS)
	@cp build/screenshots/readme-console.png dashboards/console/fleet.png
	@cp build/screenshots/readme-panel.png dashboards/grafana/evidence.png

lock: setup ## Resolve the dependencies again into requirements*.lock (newest: make lock ARGS=--upgrade)
	@deploy/setup/lock.sh $(BIN) $(ARGS)

clean: ## Remove build products, caches, the fetched Kafka and its data (keeps .venv and data)
	@rm -rf build dist ./*.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
