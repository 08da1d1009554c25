# Everything a person does here; `make` lists it. Needs Python >= 3.11 with pip, and make. Nothing is installed outside $(VENV).
# PYTHON=… picks the interpreter, VENV=… the environment, ARGS=… goes to pytest (make test ARGS="-k ranges").
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV ?= .venv
VENV_MITM ?= .venv-mitm
OLDEST ?= 11
bin := $(VENV)/bin
new_enough := import sys, venv; sys.exit(sys.version_info < (3, $(OLDEST)))
# Each candidate is run, not looked up: a version manager leaves names on PATH behind which there is nothing.
PYTHON ?= $(firstword $(foreach name,python3.13 python3.12 python3.11 python3 python $(foreach version,13 12 11,$(wildcard $(HOME)/.pyenv/versions/3.$(version).*/bin/python3)),$(shell $(name) -c '$(new_enough)' 2>/dev/null && echo $(name))))

.PHONY: help setup setup-mitm demo test check bench chaos chaos-quick lock clean

help: ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1|\2/p' Makefile | awk -F'|' '{printf "%-17s %s\n", $$1, $$2}'

setup: $(VENV)/.installed-demo ## create .venv with .venv/bin/gateway

setup-mitm: ## create .venv-mitm, where `gateway mitm` runs: mitmproxy has pins of its own (needs Python >= 3.12)
	@$(MAKE) --no-print-directory VENV=$(VENV_MITM) OLDEST=12 $(VENV_MITM)/.installed-mitm

demo: $(VENV)/.installed-demo ## the whole gateway on this machine, with sample files and ready-made links
	$(bin)/gateway demo

test: $(VENV)/.installed-dev ## every test
	$(bin)/python -m pytest -n 3 --dist worksteal $(ARGS)

check: $(VENV)/.installed-dev ## lint, format, types, layers
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy
	$(bin)/lint-imports --no-cache

bench: $(VENV)/.installed-dev ## compare with nginx and HAProxy on this machine
	$(bin)/python tests/bench/run.py

chaos: $(VENV)/.installed-dev ## every fault under load, hostile input and mutants: 15 minutes at most (ARGS="--seed 7")
	$(bin)/python tests/chaos/run.py $(ARGS)

chaos-quick: $(VENV)/.installed-dev ## the same in about a minute
	$(bin)/python tests/chaos/run.py --quick $(ARGS)

lock: ## pin the newest allowed dependencies again (needs uv)
	$(LOCK) 3.11 --upgrade --extra demo --extra dev -o requirements/dev.txt
	$(LOCK) 3.11 --extra demo -c requirements/dev.txt -o requirements/demo.txt
	$(LOCK) 3.11 -c requirements/dev.txt -o requirements/runtime.txt
	$(LOCK) 3.12 --upgrade --extra mitm -o requirements/mitm.txt

LOCK = uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --no-emit-index-url \
	pyproject.toml requirements/build.in --python-version

clean: ## remove the environment and every cache
	rm -rf $(VENV) $(VENV_MITM) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# Without pip inside, the environment needs no ensurepip, which Debian keeps in a package of its own; nothing is compiled
# before it is imported, which halves the time.
$(bin)/python:
	@test -n "$(PYTHON)" || { echo "No Python 3.$(OLDEST) or newer runs here: install one, or name it: make PYTHON=/path/to/python3.13 setup" >&2; exit 1; }
	@"$(PYTHON)" -c '$(new_enough)' || { echo "$(PYTHON) is not Python 3.$(OLDEST) or newer with the venv module" >&2; exit 1; }
	@"$(PYTHON)" -m pip --version >/dev/null || { echo "$(PYTHON) has no pip: install it (Debian: apt-get install python3-pip)" >&2; exit 1; }
	"$(PYTHON)" -m venv --clear --without-pip $(VENV)
	@echo "$(PYTHON)" >$(VENV)/.made-with

$(VENV)/.installed-%: requirements/%.txt pyproject.toml $(bin)/python
	@echo "Installing requirements/$*.txt into $(VENV)"
	@pip="$$(cat $(VENV)/.made-with) -m pip --python $(bin)/python install --quiet --no-compile --disable-pip-version-check"; \
	$$pip --require-hashes -r $< && $$pip --no-deps --no-build-isolation --editable .
	@touch $@
