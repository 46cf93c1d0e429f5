# Everything a newcomer types. Needs Python 3.11 to 3.13, make and a network for the first time.
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := build/uv/bin/uv
BIN := .venv/bin
SERVICES := ingest features serving monitor trainer
EXTRAS := ingest,features,serving,monitor,trainer,s3,local,tables,flights,dev
USECASE ?= flights
USECASES_DIR ?= usecases
VERSION := 0.1.0
DAYS ?=
ROWS ?=
INJECT ?=
export UV_PYTHON_DOWNLOADS := never
export DO_NOT_TRACK := 1
export BENTOML_DO_NOT_TRACK := true
export FEAST_USAGE := False

.DEFAULT_GOAL := help
.PHONY: help setup demo test soak test-fast lint format simulate bench bench-ingest bench-serving bench-features bench-loop
.PHONY: bench-backtest bench-trainer bench-policy bench-gates contracts dashboards rules compose-check test-compose image-usecase sbom lock wheel clean

help: ## show what can be typed
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else "driftloop needs Python 3.11 to 3.13, and $(PYTHON) is " + sys.version.split()[0] + ": set PYTHON=…")'
	@$(PYTHON) -m venv build/uv && build/uv/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.installed: pyproject.toml constraints.txt | $(UV)
	@echo "installing driftloop into .venv (several gigabytes the first time, torch above all)"
	@test -d .venv || $(UV) venv --quiet --python $(PYTHON) .venv
	@$(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@

.venvs/%/.installed: pyproject.toml constraints.txt | $(UV) .venv/.installed
	@test -d .venvs/$* || $(UV) venv --quiet --python $(PYTHON) .venvs/$*
	@$(UV) pip install --quiet --python .venvs/$*/bin/python -c constraints.txt -e '.[$*]'
	@touch $@

setup: .venv/.installed $(SERVICES:%=.venvs/%/.installed) ## install everything, each service in an environment of its own

demo: setup ## replay 42 days of flights (or USECASE=name) through the whole loop, show it, end by itself
	@$(BIN)/driftloop demo $(USECASE) $(if $(DAYS),--days $(DAYS)) $(if $(ROWS),--rows $(ROWS)) $(if $(INJECT),--inject $(INJECT))

# One process per core for those that only compute; those that start processes of their own are timed, and run alone.
test: setup ## all tests but the long ones, those against the real broker too
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile tests/unit tests/contract tests/simulation
	@$(BIN)/python -m pytest tests/integration tests/system

soak: setup ## the long tests: many kill points, rebalances, 50,000 predictions compared
	@$(BIN)/python -m pytest -m soak

test-fast: .venv/.installed ## unit and contract tests
	@$(BIN)/python -m pytest --numprocesses auto --dist loadfile tests/unit tests/contract

lint: .venv/.installed ## format, lint, types, import rules, generated contracts
	@$(BIN)/ruff format --check --quiet . || (echo "not formatted: run 'make format'"; exit 1)
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@$(BIN)/lint-imports
	@$(BIN)/python scripts/generate_contracts.py --check

format: .venv/.installed ## put the code in form
	@$(BIN)/ruff check --quiet --fix . ; $(BIN)/ruff format --quiet .

simulate: .venv/.installed ## the whole loop on a virtual clock with faults: SEEDS=200
	@$(BIN)/python -m simulation --seeds $(SEEDS)

bench: bench-loop bench-ingest bench-serving bench-features bench-backtest bench-gates bench-trainer ## all benchmarks

bench-ingest: setup ## ingest's doors beside a bare producer, into build/bench/ingest.json
	@$(BIN)/python -m bench.ingest

bench-features: setup ## features beside quixstreams and Feast's own store, into build/bench/features.json
	@$(BIN)/python -m bench.features

bench-serving: setup ## serving beside a bare echo and servers glued by hand, into build/bench/serving.json (PARTS="unary many")
	@$(BIN)/python -m bench.serving $(if $(PARTS),--parts $(PARTS))

bench-loop: setup ## the loop's own speeds, from a demo run, into build/bench/loop.json
	@test -f build/demo/measurements.json || $(BIN)/driftloop demo flights $(if $(DAYS),--days $(DAYS))
	@$(BIN)/python -m bench.loop

bench-gates: .venv/.installed ## what gates and releases refuse and promote over many seeds, into build/bench/gates.json
	@$(BIN)/python -m bench.gates

bench-trainer: .venv/.installed ## a fit on the CPU beside one on the GPU, where there is one, into build/bench/trainer.json
	@$(BIN)/python -m bench.trainer

bench-backtest: .venv/.installed ## a year of flights through the default policy, into build/bench/backtest.json
	@$(BIN)/python -m bench.backtest

bench-policy: .venv/.installed ## the default policy beside simple ones: STREAMS=, SEEDS=, ROWS=, POLICIES=, MINUTES=
	@$(BIN)/python -m bench.policy $(if $(STREAMS),--streams '$(STREAMS)') $(if $(SEEDS),--seeds $(SEEDS)) \
	    $(if $(ROWS),--rows $(ROWS)) $(if $(POLICIES),--policies $(POLICIES)) $(if $(MINUTES),--minutes $(MINUTES))

contracts: .venv/.installed ## generate driftloop/contracts from proto/
	@$(BIN)/python scripts/generate_contracts.py

lock: $(UV) ## pin every dependency with hashes into constraints.txt
	@$(UV) pip compile --quiet --universal --generate-hashes --all-extras --python-version 3.11 --no-emit-index-url \
	    --no-annotate --no-header pyproject.toml -o constraints.txt
	@$(UV) pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-emit-index-url \
	    --no-annotate --no-header deploy/compose/mlflow/requirements.in -o deploy/compose/mlflow/requirements.txt

dashboards: .venv/.installed ## write Grafana's dashboards from deploy/observability/dashboards.py
	@$(BIN)/python -m deploy.observability.dashboards

rules: ## let promtool check the alert rules, and let each fire in a breach of its own
	@command -v promtool >/dev/null || (echo "promtool is not here: install Prometheus (Debian: apt-get install prometheus)"; exit 1)
	@promtool check rules deploy/observability/rules/driftloop.rules.yaml
	@cd deploy/observability/rules && promtool test rules driftloop.tests.yaml

compose-check: ## say what of this host docker compose could not work with (GPU=1: with compose.gpu.yaml, too)
	@$(PYTHON) deploy/compose/check.py $(if $(GPU),--gpu)

test-compose: setup ## the containers for real: replay, kills, restarts, a full disk; needs an engine and some minutes
	@$(BIN)/python -m tests.compose

image-usecase: ## build use case USECASE of USECASES_DIR into the images, tagged VERSION-USECASE
	@for service in ingest features serving monitor trainer demo; do \
	    suffix=$$(test $$service = trainer && echo -cpu); \
	    docker build --quiet --build-arg BASE=driftloop/$$service:$(VERSION)$$suffix -f deploy/compose/usecase.Dockerfile \
	        -t driftloop/$$service:$(VERSION)-$(USECASE)$$suffix $(USECASES_DIR) || exit 1; done
	@echo "DRIFTLOOP_VERSION=$(VERSION)-$(USECASE) USECASE=$(USECASE) docker compose up -d"

sbom: ## copy what is in each image (CycloneDX) to build/sbom
	@mkdir -p build/sbom
	@for service in ingest features serving monitor trainer demo; do \
	    suffix=$$(test $$service = trainer && echo -cpu); \
	    docker run --rm --entrypoint cat driftloop/$$service:$(VERSION)$$suffix /usr/share/sbom/$$service.cdx.json \
	        >build/sbom/$$service.cdx.json || exit 1; done

wheel: $(UV) ## the library, client and command line as a wheel in dist/
	@$(UV) build --quiet --wheel --out-dir dist .

clean: ## remove what was built; environments and downloads too
	@rm -rf build dist .venv .venvs .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
