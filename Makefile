# Everything a person or a CI machine runs. `make` alone lists it.

# Any Python >= 3.11; .ci/find-python looks further when this one is older.
PYTHON ?= python3
PREFIX ?= /opt/v2td
# Passed on: make demo ARGS='--once --json', make test ARGS='-k offsets -x'
ARGS ?=
# Processes that run tests: one more than two cores have, since tests wait for other processes a lot.
WORKERS ?= 3

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Writes the constraints; nothing else uses it, so it stays out of the development environment.
UV := uv==0.13.8
AUDITORS := cyclonedx-bom==7.5.0 pip-audit==2.10.1
COMPILE := build/uv/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-annotate --upgrade

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo bench test test-systemd chaos chaos-long fuzz corpus check lint format services-up services-down services-status install constraints audit clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/demo.stamp ## see it work: a broker, a database, the daemon and real speech (ARGS='--once --json')
	@$(BIN)/v2td demo $(ARGS)

bench: $(VENV)/dev.stamp ## how good it is on this machine, within 10 minutes (ARGS=--quick, --full, '--only writer')
	@$(BIN)/python -m tests.services run -- $(BIN)/python -m bench $(ARGS)

test: $(VENV)/dev.stamp ## everything: style, types, layers, all tests against real services, chaos (with ARGS: only pytest)
	@$(BIN)/python -m tests.services build
	@$(MAKE) --no-print-directory lint
	$(BIN)/python -m tests.services run -- $(BIN)/python -m tests -n $(WORKERS) --dist loadgroup $(ARGS)
ifeq ($(strip $(ARGS)),)
	@$(MAKE) --no-print-directory chaos
endif

chaos: $(VENV)/dev.stamp ## every fault once, within 6 minutes (ARGS='--cycles 20', '--only kill sigterm', --list)
	@$(BIN)/python -m tests.services run -- $(BIN)/python -m tests.chaos --short $(ARGS)

chaos-long: $(VENV)/dev.stamp ## the same a thousand times, for docs/reliability.md; hours
	@$(BIN)/python -m tests.services run -- $(BIN)/python -m tests.chaos --long $(ARGS)

fuzz: $(VENV)/dev.stamp ## attack all parsers, 5 minutes each (ARGS='--seconds 3600 container'); make test does it for seconds
	@$(BIN)/python -m tests.fuzz $(ARGS)

corpus: $(VENV)/dev.stamp ## every hostile input through the daemon: its fate, its time, its memory (ARGS="--only 'A2[12]'")
	@$(BIN)/python -m tests.services run -- $(BIN)/python -m tests.corpus $(ARGS)

check: lint ## what takes seconds: style, types, layers, tests that need no service
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not services and not slow" $(ARGS)

test-systemd: $(VENV)/dev.stamp ## the installed units under a real systemd in a container, all of it; needs root, 8 minutes
	@$(BIN)/python -m tests.services run -- $(BIN)/python -m pytest -s tests/systemd tests/systemd/long_form.py $(ARGS)

lint: $(VENV)/dev.stamp ## style, types and layers only
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.stamp ## put the code into shape
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

services-up: $(VENV)/dev.stamp ## start Kafka, Postgres and MinIO for development and leave them running
	@$(BIN)/python -m tests.services up

services-down: $(VENV)/dev.stamp ## stop what services-up started
	@$(BIN)/python -m tests.services down

services-status: $(VENV)/dev.stamp ## say whether the services answer, and where
	@$(BIN)/python -m tests.services status

install: ## install under PREFIX (/opt/v2td) as a systemd service; run it with sudo
	systemd/install.sh $(PREFIX)

constraints: ## write .ci/constraints*.txt anew, with today's newest versions and their hashes
	@python=$$(.ci/find-python $(PYTHON)) && "$$python" -m venv build/uv
	build/uv/bin/python -m pip --disable-pip-version-check --quiet install $(UV)
	$(COMPILE) --extra demo --extra bench --extra dev pyproject.toml .ci/build.in --output-file .ci/constraints-dev.txt
	$(COMPILE) --extra demo pyproject.toml .ci/build.in --constraints .ci/constraints-dev.txt \
		--output-file .ci/constraints-demo.txt
	$(COMPILE) pyproject.toml .ci/build.in --constraints .ci/constraints-dev.txt --output-file .ci/constraints.txt
	! grep -E '://|--(index-url|find-links|trusted-host)|^torch' .ci/constraints*.txt

audit: ## bill of materials (dist/v2td.cdx.json), and the known holes of what v2td is made of
	@python=$$(.ci/find-python $(PYTHON)) && "$$python" -m venv build/audit
	@build/audit/bin/python -m pip --disable-pip-version-check --quiet install $(AUDITORS)
	@mkdir -p dist
	@build/audit/bin/python -W ignore -m tests.audit build/audit/bin

clean: ## remove the environment, caches and builds of this checkout (the services' builds stay in the user's cache)
	@if [ -x $(BIN)/python ] && [ -d .services ]; then $(BIN)/python -m tests.services down; fi
	rm -rf $(VENV) .services build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find v2td tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps are older than what they were made of exactly when that has changed. The development environment holds all
# of the demo's, in the same versions, so it counts as both; what bench/ takes is in it too.
$(VENV)/demo.stamp: .ci/constraints-demo.txt pyproject.toml | $(BIN)/python
	@echo "installing what the demo takes into $(VENV)"
	@$(PIP) install --require-hashes -r .ci/constraints-demo.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.stamp: .ci/constraints-dev.txt pyproject.toml | $(BIN)/python
	@echo "installing what development takes into $(VENV)"
	@$(PIP) install --require-hashes -r .ci/constraints-dev.txt
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@ $(VENV)/demo.stamp

$(BIN)/python:
	@python=$$(.ci/find-python $(PYTHON)) && "$$python" -m venv $(VENV)
