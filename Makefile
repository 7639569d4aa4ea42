# Everything a developer or operator types. On a machine with Python 3.11, make and git, `make run`
# and `make test` need nothing before them: each sets up .venv by itself.

VENV := .venv
BIN := $(VENV)/bin

# `pip install -c constraints.txt` gives the same versions here, in CI and in the image.
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
INPUTS := pyproject.toml constraints.txt

# What `make constraints` does not let float; docs/decisions/0001-packaging.md says why.
HELD := torch==2.13.0 mlflow==3.17.2 pandas==2.3.3

.DEFAULT_GOAL := help
.PHONY: help run test check format serve mlflow bench image-check constraints clean distclean
.PHONY: bench-peers bench-report slowest

help: ## print this list
	@echo 'usage: make TARGET'
	@sed -n 's/^\([a-z-]*\):.*## /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16

run: $(VENV)/.run ## train on the bundled sales data, register the model, serve it on 127.0.0.1
	$(BIN)/statecast demo

test: $(VENV)/.dev ## import contracts, then the test suite (ARGS='-k lanes' for a part of it, '-n 0 --pdb' to look)
	$(BIN)/lint-imports
	$(BIN)/pytest -n 2 --dist worksteal $(ARGS)

slowest: $(VENV)/.dev ## the test suite, then its twenty slowest tests and fixtures
	$(BIN)/pytest -n 2 --dist worksteal --durations 20 $(ARGS)

check: $(VENV)/.dev ## ruff, mypy and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev ## let ruff lay the code out and fix what it safely can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(VENV)/.run ## serve what `make run` left behind (ARGS='--port 9000' for more options)
	$(BIN)/statecast serve $(ARGS)

mlflow: $(VENV)/.run ## the MLflow pages over the runs of `make run`, on 127.0.0.1:5000
	@test -f data/mlflow.db || { echo 'make mlflow: no runs in data/ yet: make run' >&2; exit 2; }
	MLFLOW_DISABLE_TELEMETRY=true MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server \
	    --host 127.0.0.1 --port 5000 --workers 1 \
	    --backend-store-uri sqlite:///data/mlflow.db --artifacts-destination data/artifacts

bench: $(VENV)/.dev ## every benchmark, on the data sets in the folder DATA=PATH
	@test -d "$(DATA)" || { echo 'make bench: where are the data? make bench DATA=PATH' >&2; exit 2; }
	for freq in hourly weekly yearly daily monthly quarterly; do \
	    $(BIN)/python -m benchmarks.accuracy.m4 --freq $$freq --data "$(DATA)" || exit 1; \
	done
	for name in retail unseen m5 stocks carry race; do \
	    $(BIN)/python -m benchmarks.accuracy.$$name --data "$(DATA)" || exit 1; \
	done
	for name in state step engine million killloop; do \
	    $(BIN)/python -m benchmarks.speed.$$name || exit 1; \
	done

bench-peers: $(VENV)/.dev ## set up .venv-peers (2 GB); with DATA=PATH run what benchmarks/results lacks
	benchmarks/peers/install.sh .venv-peers
	@test -z "$(DATA)" || \
	    $(BIN)/python -m benchmarks.peers --data "$(DATA)" --out benchmarks/results/peers.jsonl $(ARGS)

bench-report: $(VENV)/.dev ## tables and plots of docs/benchmarks.md from benchmarks/results
	$(BIN)/python -m benchmarks.report

image-check: $(VENV)/.run ## build the images and ask the server in one of them for a forecast
	docker/image-check.sh

constraints: ## resolve every extra anew and rewrite constraints.txt
	docker/write-constraints.sh $(HELD)

clean: ## remove caches and build products; .venv and data/ stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -path ./$(VENV) -prune -o -type d -name __pycache__ -exec rm -rf {} +

distclean: clean ## remove .venv too, and every local run, model and database
	rm -rf $(VENV) .venv-peers data

# One environment, filled in two steps: `.run` has what serving and training need, `.dev` all the
# rest. A stamp is older than its inputs when the environment has to be brought up to date.
$(BIN)/python:
	@for python in "$(PYTHON)" python3.11 python3; do \
	    test -n "$$python" || continue; \
	    if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        $$python -m venv $(VENV) && exit 0; rm -rf $(VENV); exit 1; \
	    fi; \
	done; \
	echo 'Statecast needs Python 3.11 or newer as python3.11 or python3 (or PYTHON=path):' \
	     "found $$(python3 --version 2>&1 || true)" >&2; exit 1

$(VENV)/.run: $(INPUTS) | $(BIN)/python
	@echo 'Installing Statecast into $(VENV) (the first time takes some minutes) ...'
	@$(PIP_INSTALL) -e '.[server,trainer]'
	@touch $@

$(VENV)/.dev: $(INPUTS) | $(BIN)/python
	@echo 'Installing Statecast and its tests into $(VENV) (the first time takes some minutes) ...'
	@$(PIP_INSTALL) -e '.[server,trainer,postgres,dev]'
	@touch $(VENV)/.run $@
