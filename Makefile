# Each target does its own set-up: the environment lives in .venv and is made again when
# requirements.lock changes.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
READY := $(VENV)/.ready
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help env demo test lint bench targets arm android android-full ios

help:  ## say what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

env: $(READY)  ## make the environment in .venv

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v == (3, 11) else f"Persona needs Python 3.11, got {v[0]}.{v[1]}: install it, or name it with make PYTHON=...")'
	@echo "making $(VENV) (about 2 GB, more where pip finds PyTorch with CUDA, a few minutes with a good connection)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps --editable .
	@touch $(READY)

demo: $(READY)  ## the whole path on this machine: train, export, serve, adapt, measure, report
	$(BIN)/persona demo $(ARGS)

test: $(READY) lint  ## lint, types and all tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(READY)  ## ruff, ruff format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy --strict -p persona.formats -p persona.method

bench: $(READY)  ## every claim against its rival, in one run each
	@failed=0; for claim in benchmarks/bench_*.py; do echo "== $$claim"; $(BIN)/python $$claim || failed=1; done; exit $$failed

arm: $(READY)  ## the C++ runner on two emulated arm64 cores, against this processor
	$(BIN)/python -m persona_export.runner.arm

android: $(READY)  ## the Android demo without a phone: library, engine on the real runtime, app, screens
	$(BIN)/python android_demo/testing/check.py $(ARGS)

android-full: $(READY)  ## also on an emulated arm64 phone, and a signed APK
	$(BIN)/python android_demo/testing/check.py --full $(ARGS)

ios: $(READY)  ## the iOS demo without a Mac: PersonaKit, its engine on the real runtime, the app's sources
	$(BIN)/python ios_demo/testing/check.py

targets: $(READY)  ## export every backbone, slot kind, target and precision; write docs/targets.md
	$(BIN)/python benchmarks/target_matrix.py $(ARGS)
