# make help shows the targets.  Each works as the first command on a fresh clone that has Python 3.11 or newer and nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= $(firstword $(shell command -v python3.11 python3.12 python3.13 python3))
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.reverie-setup
EXTRAS := worlds,screen,cluster,import,train,quantise,web,docs,dev
ARGS ?=
JOBS ?= 2

.PHONY: help setup play test lint type fmt docs bench soak clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16

setup: $(STAMP)  ## the virtual environment with the pinned packages (again: instant)
	@echo "ready: $(BIN)/reverie --help, or, for the command alone, source $(BIN)/activate"

# The stamp is written last, so that an interrupted install is taken up again by the next call.
$(STAMP): pyproject.toml packages/reverie-worlds/pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3 found: install Python 3.11 or newer, or say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) -V 2>&1): say make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV) || { echo "python -m venv failed: install the venv package of your system (Debian: apt install python3-venv)" >&2; exit 2; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]' -e packages/reverie-worlds
	@touch $@

play: $(STAMP)  ## play the bundled world in the browser (ARGS="--port 9000" and so on)
	@trap : INT; $(BIN)/reverie play $(ARGS) || { code=$$?; [ $$code -eq 130 ] || exit $$code; }  # Ctrl-C is no error

lint: $(STAMP)  ## ruff: format and rules
	@$(BIN)/ruff format --check --quiet . || { echo "make fmt puts this right" >&2; exit 1; }
	@$(BIN)/ruff check --quiet .

type: $(STAMP)  ## pyright
	@$(BIN)/pyright

test: lint type  ## ruff, pyright, then all tests (ARGS="tests/evaluate -x" for some of them, JOBS=1 for one process)
	@OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(ARGS)

fmt: $(STAMP)  ## put the format right
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix --quiet .

docs: $(STAMP)  ## the documentation site, built strictly into site/ (ARGS=--serve shows it while you write)
	@$(BIN)/python tools/docs.py $(ARGS)

bench: $(STAMP)  ## frames a second, latency and memory of the bundled model on this machine
	@$(BIN)/reverie bench $(ARGS)

soak: $(STAMP)  ## an hour of attacks, restarts and kills, by hand (ARGS="--minutes 5 --kills 4" for less)
	@$(BIN)/python -m tests.attacks.soak $(ARGS)

clean:  ## remove the virtual environment and the caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .cache build dist site docs/reference/command-line.md
