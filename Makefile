# The two commands: `make run` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Twice the cores of a small machine: most tests wait for processes and servers of their own.
WORKERS ?= 4
# How long `make soak` lasts, twice: with real processes, and in simulated time.
MINUTES ?= 5

.DEFAULT_GOAL := help
.PHONY: docs help setup run demo test test-deep test-official test-label-studio test-gameday lint bench soak mutations docs-generated lock image-check clean

help: ## what there is
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## .venv with everything, from the hashed lock

$(STAMP): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; '$(PYTHON)' is $$($(PYTHON) -V 2>&1). Set PYTHON=/path/to/python3.11."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $(STAMP)

run: setup ## the daemon with its own platform over data/incoming
	@$(BIN)/watcher migrate
	@exec $(BIN)/watcher run

demo: setup ## camera frames arrive in data/incoming (beside `make run`)
	@exec $(BIN)/watcher demo

test-gameday: setup ## six things break one after another under Prometheus and the alert rules
	TMPDIR=$$($(BIN)/python tests/fast_folder.py) $(BIN)/python -m pytest --timeout 400 tests/gameday/game_day.py

lint: setup ## ruff, mypy, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: lint ## lint and all tests but the deep ones
	TMPDIR=$$($(BIN)/python tests/fast_folder.py) $(BIN)/python -m pytest -n $(WORKERS) -m "not deep"

test-deep: setup ## the tests that take minutes: a daemon killed at every point, on both stores
	TMPDIR=$$($(BIN)/python tests/fast_folder.py) $(BIN)/python -m pytest -n $(WORKERS) -m deep

test-official: setup ## the released official clients against the platform (builds their environments first)
	sh tests/official/build_environments.sh
	TMPDIR=$$($(BIN)/python tests/fast_folder.py) $(BIN)/python -m pytest tests/official/clients.py tests/official/metadata.py tests/official/azure.py

test-label-studio: setup ## the deliveries to a real Label Studio (builds its environment first)
	sh tests/label_studio/build_environment.sh
	TMPDIR=$$($(BIN)/python tests/fast_folder.py) $(BIN)/python -m pytest tests/label_studio/sink.py tests/label_studio/cameras.py

bench: setup ## all benchmarks, printed as ratios and limits
	$(BIN)/python -m benchmarks

soak: setup ## a long run with faults and kills, MINUTES=5; says at the end whether all numbers agree
	$(BIN)/python -m tests.soak --minutes $(MINUTES)
	$(BIN)/python -m tests.simulation.run --from 100000 --minutes $(MINUTES)

mutations: setup ## breaks rules on purpose and expects their tests to go red
	$(BIN)/python -m tests.mutations

image-check: setup ## builds the image with buildah and runs its daemon
	deploy/image-check.sh

docs: setup ## the documentation as a site in build/site, its links checked
	$(BIN)/mkdocs build --quiet --strict

docs-generated: setup ## the pages of docs/ that follow from the code
	$(BIN)/python docs/generate.py

lock: ## resolve the lock files anew (needs uv)
	uv pip compile --upgrade --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra daemon --extra platform --extra workers --extra onnx --extra parquet --extra index --extra traces --group dev pyproject.toml -o requirements/dev.lock
	uv pip compile --upgrade --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra daemon --extra platform --extra workers --constraint requirements/dev.lock pyproject.toml -o requirements/run.lock
	uv pip compile --upgrade --quiet --universal --python-version 3.11 --generate-hashes --no-header --extra daemon --extra workers --constraint requirements/dev.lock pyproject.toml -o requirements/run-slim.lock
	uv pip compile --upgrade --quiet --universal --python-version 3.11 --generate-hashes --no-header --constraint requirements/dev.lock requirements/build.in -o requirements/build.lock
	uv pip compile --upgrade --quiet --universal --python-version 3.11 --generate-hashes --no-header requirements/label-studio.in -o requirements/label-studio.lock

clean: ## removes .venv and caches; never data/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
